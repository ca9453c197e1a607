"""Training: one step, and a chunk of steps in one call to the device."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from ramjax import networks
from ramjax.config import Config, ConfigError
from ramjax.objectives import TermWeights, objective
from ramjax.rollouts import image_keys, rollout

Metrics = dict[str, jax.Array]

Preprocess = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""From a key [], a stored image [H, W, C] and all images of its split [M, H, W, C]
to a normalised float image; vmapped over the first two."""


class TrainState(NamedTuple):
  """All that training changes, and the key that its randomness comes from.

  Attributes:
    step: number of steps taken.
    key: typed PRNG key; it never changes. Step n uses `fold_in(key, n)`, so that a
      resumed run draws what an uninterrupted one would.
    params: parameters.
    opt_state: state of the optimiser.
  """

  step: jax.Array  # [] int32
  key: jax.Array  # []
  params: networks.Params
  opt_state: optax.OptState


def init_train_state(
  key: jax.Array, *, config: Config, optimizer: optax.GradientTransformation
) -> TrainState:
  """The state before the first step.

  Args:
    key: typed PRNG key of the run.
    config: the run.
    optimizer: any Optax optimiser.

  Returns:
    A state with fresh parameters.
  """
  init_key, step_key = jax.random.split(key)
  params = networks.init_params(init_key, config.model)
  return TrainState(jnp.int32(0), step_key, params, optimizer.init(params))


def _gradient(
  keys: jax.Array,
  params: networks.Params,
  images: jax.Array,
  labels: jax.Array,
  *,
  config: Config,
  term_weights: TermWeights | None,
) -> tuple[networks.Params, Metrics]:
  """The gradient of the objective of some images [B, H, W, C], and its metrics."""

  def loss(params: networks.Params) -> tuple[jax.Array, Metrics]:
    looked = rollout(
      keys,
      params,
      images,
      model_config=config.model,
      num_glimpses=config.train.num_glimpses,
    )
    return objective(
      params.error,
      looked,
      labels,
      objective_config=config.objective,
      term_weights=term_weights,
    )

  return jax.grad(loss, has_aux=True)(params)


def _mean_over_parts(
  gradient: Callable[[Any], tuple[networks.Params, Metrics]],
  examples: Any,
  num_parts: int,
) -> tuple[networks.Params, Metrics]:
  """The mean of `gradient` over examples, of which it sees a part at a time.

  Args:
    gradient: from some examples to the means over them.
    examples: all examples of the step: a tree of arrays [B, ...].
    num_parts: number of parts, of equal size; divides B.
  """
  if num_parts == 1:
    return gradient(examples)
  # A part is every num_parts-th example and not a block of neighbours: devices divide
  # the batch in blocks, and so each of them has its share of every part.
  parts = jax.tree.map(
    lambda leaf: leaf.reshape(-1, num_parts, *leaf.shape[1:]).swapaxes(0, 1), examples
  )
  one_part = jax.eval_shape(gradient, jax.tree.map(lambda leaf: leaf[0], parts))
  zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), one_part)

  def add(sums: Any, part: Any) -> tuple[Any, None]:
    return jax.tree.map(jnp.add, sums, gradient(part)), None

  sums, _ = jax.lax.scan(add, zeros, parts)
  return jax.tree.map(lambda total: total / num_parts, sums)


def _update(
  state: TrainState,
  grads: networks.Params,
  metrics: Metrics,
  optimizer: optax.GradientTransformation,
) -> tuple[TrainState, Metrics]:
  """The state after a step, unless the step would spoil it: then it is skipped.

  The norm of the gradient tells: it is finite only if every number in it is finite, and
  so small that Adam can hold its square.
  """

  def update() -> tuple[networks.Params, optax.OptState]:
    # Optax mixes its integer step count with floats, which a strict caller forbids.
    with jax.numpy_dtype_promotion("standard"):
      updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    return optax.apply_updates(state.params, updates), opt_state

  def skip() -> tuple[networks.Params, optax.OptState]:
    return state.params, state.opt_state

  sound = jnp.isfinite(metrics["loss"] + optax.global_norm(grads))
  params, opt_state = jax.lax.cond(sound, update, skip)
  # The step counts all the same: the next one draws anew and may well be sound.
  after = TrainState(state.step + 1, state.key, params, opt_state)
  return after, {**metrics, "skipped": 1.0 - sound.astype(jnp.float32)}


def _step(
  state: TrainState,
  examples: Any,
  show: Callable[[jax.Array, jax.Array, Any], tuple[jax.Array, jax.Array]],
  *,
  num_examples: int,
  config: Config,
  optimizer: optax.GradientTransformation,
  term_weights: TermWeights | None,
) -> tuple[TrainState, Metrics]:
  """One step on `examples`, of which `show` makes images and labels.

  Args:
    state: the state before.
    examples: a tree of arrays [B, ...].
    show: from a key, the numbers of some examples within the batch, and these
      examples, to normalised images and labels; called for one part after another.
    num_examples: B.
    config: the run.
    optimizer: the optimiser.
    term_weights: what the extra terms count; None is what the objective gives them.
  """
  num_parts = config.train.accumulation_steps
  if num_examples % num_parts:
    raise ConfigError(
      f"accumulation_steps must divide the batch of {num_examples}, not {num_parts}"
    )
  preprocess_key, rollout_key = jax.random.split(
    jax.random.fold_in(state.key, state.step)
  )

  def gradient(part: Any) -> tuple[networks.Params, Metrics]:
    number, examples = part
    images, labels = show(preprocess_key, number, examples)
    keys = image_keys(rollout_key, number)
    return _gradient(
      keys, state.params, images, labels, config=config, term_weights=term_weights
    )

  numbered = jnp.arange(num_examples), examples
  grads, metrics = _mean_over_parts(gradient, numbered, num_parts)
  return _update(state, grads, metrics, optimizer)


@functools.partial(jax.jit, static_argnames=("config", "optimizer"))
def train_step(
  state: TrainState,
  images: jax.Array,
  labels: jax.Array,
  *,
  config: Config,
  optimizer: optax.GradientTransformation,
  term_weights: TermWeights | None = None,
) -> tuple[TrainState, Metrics]:
  """One step: a rollout, the gradient of its objective, an update.

  The batch is worked on in `config.train.accumulation_steps` parts, one after the
  other, whose gradients are averaged: the memory of a part, the step of the whole.
  A step whose loss is not finite, or the norm of whose gradient is not, changes neither
  parameters nor optimiser.

  Args:
    state: the state before.
    images: images [B, H, W, C], float, normalised.
    labels: true classes [B], integer in [0, K).
    config: the run: its model, its objective, its number of glimpses.
    optimizer: the optimiser that the state was made for.
    term_weights: what the extra terms count; None is what the objective gives them.

  Returns:
    The state after, and the metrics of `ramjax.objective` before the update, with
    `skipped`: 1 if the step was skipped, else 0.

  Raises:
    ConfigError: if `accumulation_steps` does not divide the batch.
    AssertionError: if an array has another rank, shape or type.
  """
  chex.assert_shape(labels, images.shape[:1])
  return _step(
    state,
    (images, labels),
    lambda key, number, examples: examples,
    num_examples=labels.size,
    config=config,
    optimizer=optimizer,
    term_weights=term_weights,
  )


def epoch_order(
  key: jax.Array, epoch: int | jax.Array, *, num_examples: int, batch_size: int
) -> jax.Array:
  """The batches of an epoch: a fresh permutation, without the incomplete last batch.

  Args:
    key: typed PRNG key, the same in each epoch.
    epoch: number of the epoch.
    num_examples: number of training images.
    batch_size: examples a step, at most `num_examples`.

  Returns:
    Indices [num_examples // batch_size, batch_size], int32.

  Raises:
    ConfigError: if there is not one whole batch.
  """
  if not 1 <= batch_size <= num_examples:
    raise ConfigError(
      f"batch_size must be from 1 to the number of examples, {num_examples},"
      f" not {batch_size}"
    )
  order = jax.random.permutation(jax.random.fold_in(key, epoch), num_examples)
  num_batches = num_examples // batch_size
  return order[: num_batches * batch_size].reshape(num_batches, batch_size)


def preprocess_batch(
  key: jax.Array,
  images: jax.Array,
  index: jax.Array,
  pool: jax.Array,
  *,
  preprocess: Preprocess,
) -> jax.Array:
  """Preprocesses images, each with its own key.

  Args:
    key: typed PRNG key [].
    images: stored images [B, H, W, C].
    index: number of each image [B].
    pool: all images of their split [M, H, W, C].
    preprocess: what to do with one.

  Returns:
    Images [B, H, W, C], float.
  """
  keys = image_keys(key, index)
  return jax.vmap(preprocess, in_axes=(0, 0, None))(keys, images, pool)


def take_images(images: jax.Array, index: jax.Array) -> jax.Array:
  """Some of many images, `images[index]`.

  An image is taken as one row of bytes: on the CPU, XLA copies runs along the last
  axis, and one of a single channel would be a run of one byte.

  Args:
    images: stored images [M, H, W, C].
    index: which ones [B], each in [0, M).

  Returns:
    Images [B, H, W, C].
  """
  rows = images.reshape(images.shape[0], -1)[index]
  return rows.reshape(index.shape[0], *images.shape[1:])


def train_chunk(
  state: TrainState,
  images: jax.Array,
  labels: jax.Array,
  order: jax.Array,
  start: jax.Array,
  stop: jax.Array,
  *,
  config: Config,
  optimizer: optax.GradientTransformation,
  preprocess: Preprocess,
  max_steps: int,
  term_weights: TermWeights | None = None,
) -> tuple[TrainState, Metrics]:
  """Steps `start` to `stop` of an epoch, in one call.

  Jit it with the keyword arguments bound and `state` donated: one compilation serves
  chunks of any length up to `max_steps`.

  Args:
    state: the state before.
    images: all training images [M, H, W, C], uint8.
    labels: their classes [M], int32.
    order: the batches of the epoch [steps, B], indices into the images.
    start: first row of `order` to train on.
    stop: row after the last one; at most `start + max_steps`.
    config: the run.
    optimizer: the optimiser that the state was made for.
    preprocess: from a stored image to what the model sees, see `Preprocess`.
    max_steps: the length of the longest chunk.
    term_weights: what the extra terms count; None is what the objective gives them.

  Returns:
    The state after, and the metrics of each step, [max_steps] each, of which the
    first `stop - start` are filled.
  """

  def show(
    key: jax.Array, number: jax.Array, index: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    stored = take_images(images, index)
    shown = preprocess_batch(key, stored, number, images, preprocess=preprocess)
    return shown, labels[index]

  def step(state: TrainState, row: jax.Array) -> tuple[TrainState, Metrics]:
    batch = order[row]
    return _step(
      state,
      batch,
      show,
      num_examples=batch.size,
      config=config,
      optimizer=optimizer,
      term_weights=term_weights,
    )

  def body(
    row: jax.Array, carry: tuple[TrainState, Metrics]
  ) -> tuple[TrainState, Metrics]:
    state, history = carry
    state, metrics = step(state, row)
    return state, {
      name: history[name].at[row - start].set(value) for name, value in metrics.items()
    }

  shapes = jax.eval_shape(step, state, start)[1]
  history = {
    name: jnp.zeros((max_steps, *m.shape), m.dtype) for name, m in shapes.items()
  }
  return jax.lax.fori_loop(start, stop, body, (state, history))
