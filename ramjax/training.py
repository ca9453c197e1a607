"""Training: one step, and a chunk of steps in one call to the device."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from ramjax import networks
from ramjax.config import Config, ConfigError, TrainConfig
from ramjax.objective import objective
from ramjax.rollout import picture_keys, rollout

Metrics = dict[str, jax.Array]

Preprocess = Callable[[jax.Array, jax.Array], jax.Array]
"""From a key [] and a stored picture [H, W, C] to a normalised float picture; vmapped."""


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


def make_optimizer(
  config: TrainConfig, *, steps_per_epoch: int
) -> optax.GradientTransformation:
  """Adam whose rate falls by a factor at the end of each epoch, as released.

  Args:
    config: the rate and its decay.
    steps_per_epoch: number of steps in an epoch.

  Returns:
    The optimiser.
  """
  schedule = optax.exponential_decay(
    config.learning_rate, steps_per_epoch, config.learning_rate_decay, staircase=True
  )
  return optax.adam(schedule)


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


def _step_keys(state: TrainState) -> tuple[jax.Array, jax.Array]:
  """The keys of the next step: of the preprocessing, of the rollout."""
  preprocess_key, rollout_key = jax.random.split(
    jax.random.fold_in(state.key, state.step)
  )
  return preprocess_key, rollout_key


@functools.partial(jax.jit, static_argnames=("config", "optimizer"))
def train_step(
  state: TrainState,
  images: jax.Array,
  labels: jax.Array,
  *,
  config: Config,
  optimizer: optax.GradientTransformation,
) -> tuple[TrainState, Metrics]:
  """One step: a rollout, the gradient of its objective, an update.

  Args:
    state: the state before.
    images: pictures [B, H, W, C], float, normalised.
    labels: true classes [B], integer in [0, K).
    config: the run: its model, its objective, its number of glimpses.
    optimizer: the optimiser that the state was made for.

  Returns:
    The state after, and the metrics of `ramjax.objective` before the update.

  Raises:
    AssertionError: if an array has another rank, shape or type.
  """
  chex.assert_shape(labels, images.shape[:1])
  _, rollout_key = _step_keys(state)

  def loss(params: networks.Params) -> tuple[jax.Array, Metrics]:
    looked = rollout(
      rollout_key,
      params,
      images,
      config=config.model,
      num_glimpses=config.train.num_glimpses,
    )
    return objective(params.error, looked, labels, config=config.objective)

  grads, metrics = jax.grad(loss, has_aux=True)(state.params)
  # Optax mixes its integer step count with floats, which a strict caller forbids.
  with jax.numpy_dtype_promotion("standard"):
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  return TrainState(state.step + 1, state.key, params, opt_state), metrics


def epoch_order(
  key: jax.Array, epoch: int | jax.Array, *, num_examples: int, batch_size: int
) -> jax.Array:
  """The batches of an epoch: a fresh permutation, without the incomplete last batch.

  Args:
    key: typed PRNG key, the same in each epoch.
    epoch: number of the epoch.
    num_examples: number of training pictures.
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
  key: jax.Array, images: jax.Array, index: jax.Array, *, preprocess: Preprocess
) -> jax.Array:
  """Preprocesses pictures, each with its own key.

  Args:
    key: typed PRNG key [].
    images: stored pictures [B, H, W, C].
    index: number of each picture [B].
    preprocess: what to do with one.

  Returns:
    Pictures [B, H, W, C], float.
  """
  return jax.vmap(preprocess)(picture_keys(key, index), images)


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
) -> tuple[TrainState, Metrics]:
  """Steps `start` to `stop` of an epoch, in one call.

  Jit it with the keyword arguments bound and `state` donated: one compilation serves
  chunks of any length up to `max_steps`.

  Args:
    state: the state before.
    images: all training pictures [M, H, W, C], uint8.
    labels: their classes [M], int32.
    order: the batches of the epoch [steps, B], indices into the pictures.
    start: first row of `order` to train on.
    stop: row after the last one; at most `start + max_steps`.
    config: the run.
    optimizer: the optimiser that the state was made for.
    preprocess: from a stored picture to what the model sees, see `Preprocess`.
    max_steps: the length of the longest chunk.

  Returns:
    The state after, and the metrics of each step, [max_steps] each, of which the
    first `stop - start` are filled.
  """

  def step(state: TrainState, row: jax.Array) -> tuple[TrainState, Metrics]:
    batch = order[row]
    preprocess_key, _ = _step_keys(state)
    pictures = preprocess_batch(
      preprocess_key, images[batch], jnp.arange(batch.size), preprocess=preprocess
    )
    return train_step(
      state, pictures, labels[batch], config=config, optimizer=optimizer
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
