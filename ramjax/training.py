"""Training: one step, and a chunk of steps in one call to the device."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from optax.microbatching import AccumulationType, microbatch

from ramjax.checks import check_positive, check_shape
from ramjax.config import Config, ConfigError
from ramjax.data.batches import Preprocess, preprocess_batch, take_images
from ramjax.keys import image_keys
from ramjax.model import Model, PyTree
from ramjax.objectives import (
  ExtraTerms,
  TermWeights,
  accept_pairs,
  location_gradient_of,
  objective,
)
from ramjax.optimizer import make_noise_schedule
from ramjax.policy import gaussian_policy
from ramjax.ram import check_model_of, model_of
from ramjax.rollouts import rollout

Metrics = dict[str, jax.Array]

GetExamples = Callable[[jax.Array, jax.Array, Any], tuple[jax.Array, jax.Array]]
"""From a key [], positions in a batch [B] and the entries of the batch there [B, ...]
to normalised images [B, H, W, C] and labels [B] or [B, K]."""


class TrainState(NamedTuple):
  """Everything that training changes, and the key of its randomness.

  Attributes:
    step: number of steps taken.
    key: typed PRNG key, constant. Step n uses `fold_in(key, n)`, so that a resumed run
      draws the same numbers as an uninterrupted one.
    params: parameters.
    opt_state: state of the optimiser.
  """

  step: jax.Array  # [] int32
  key: jax.Array  # []
  params: PyTree
  opt_state: PyTree


def init_train_state(
  key: jax.Array,
  *,
  config: Config,
  optimizer: optax.GradientTransformation,
  model: Model | None = None,
) -> TrainState:
  """The state before the first step, with fresh parameters.

  Args:
    key: typed PRNG key of the run.
    config: the run.
    model: its model; None for that of `config.model`.
    optimizer: any Optax optimiser.

  Returns:
    The state.

  Raises:
    ConfigError: if the functions of the model do not fit to each other, or to the images
      and classes of `config.model`.
  """
  check_model_of(config, model)
  init_key, step_key = jax.random.split(key)
  params = model_of(config, model).init(init_key)
  return TrainState(jnp.int32(0), step_key, params, optimizer.init(params))


@accept_pairs
@functools.partial(jax.jit, static_argnames=("config", "optimizer", "model"))
def train_step(
  state: TrainState,
  images: jax.Array,
  labels: jax.Array,
  *,
  config: Config,
  optimizer: optax.GradientTransformation,
  model: Model | None = None,
  location_noise: float | jax.Array = 1.0,
  term_weights: TermWeights | None = None,
  extra_terms: ExtraTerms | None = None,
) -> tuple[TrainState, Metrics]:
  """One step: a rollout, the gradient of its objective, an update.

  The batch is divided into `config.train.accumulation_steps` parts, whose gradients are
  computed one after another and averaged. This needs the memory of one part and gives
  the step of the whole batch, but with `credit_decay`, which looks at the other images of
  a part. A step with a non-finite loss or gradient norm changes
  neither parameters nor optimiser.

  Args:
    state: the state before.
    images: images [B, H, W, C], float, normalised.
    labels: true classes [B], integer in [0, K), or soft labels [B, K].
    config: the run: its model, its objective, its number of glimpses.
    model: the model; None for that of `config.model`.
    optimizer: the optimiser that the state was made for.
    location_noise: factor [] on the deviation of the policy in this step, above 0, in the
      place of `config.train.initial_location_noise`, which a single step cannot obey; see
      `ramjax.make_noise_schedule`. The metric `loss/reinforce` is then that of a
      log-density which is right up to a constant.
    term_weights: weights of the uncertainty and the intrinsic term; None for those of
      `config.objective`.
    extra_terms: terms of your own, see `ramjax.ExtraTerm`.

  Returns:
    The state after, and the metrics of `ramjax.objective` before the update, with
    `skipped`: 1 if the step was skipped, else 0.

  Raises:
    ConfigError: if `accumulation_steps` does not divide the batch, `location_noise` is
      not 1 and the policy not the Gaussian of `config.model`, or an extra term has the
      name of another term.
    AssertionError: if an array has another rank, shape or type.
  """
  check_shape((images.shape[0], ...), labels=labels)
  return _gradient_step(
    state,
    (images, labels),
    get_examples=lambda key, position, examples: examples,
    config=config,
    optimizer=optimizer,
    model=model,
    location_noise=location_noise,
    term_weights=term_weights,
    extra_terms=extra_terms,
  )


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
  model: Model | None = None,
  preprocess: Preprocess,
  max_steps: int,
  term_weights: TermWeights | None = None,
  extra_terms: ExtraTerms | None = None,
) -> tuple[TrainState, Metrics]:
  """Steps `start` to `stop` of an epoch, in one call.

  Jit it with the keyword arguments bound and `state` donated: one compilation serves
  chunks of any length up to `max_steps`.

  Args:
    state: the state before.
    images: all training images [M, H, W, C], uint8.
    labels: their classes [M], int32, or soft labels [M, K].
    order: the batches of the epoch [steps, B], indices into the images.
    start: first row of `order` to train on.
    stop: row after the last one; at most `start + max_steps`.
    config: the run.
    model: its model; None for that of `config.model`.
    optimizer: the optimiser that the state was made for.
    preprocess: from a stored image to a model's input, see
      `ramjax.data.batches.Preprocess`; it has to obey `config.train.max_shift` and
      `mirror`, as `Dataset.train_preprocess` does.
    max_steps: the length of the longest chunk.
    term_weights: weights of the uncertainty and the intrinsic term; None for those of
      `config.objective`.
    extra_terms: terms of your own, see `ramjax.ExtraTerm`.

  Returns:
    The state after, and the metrics of each step, [max_steps] each, of which the
    first `stop - start` are filled.

  Raises:
    ConfigError: if `accumulation_steps` does not divide the batch,
      `initial_location_noise` is not 1 and the policy not the Gaussian of
      `config.model`, or an extra term has the name of another term.
  """

  def get_examples(
    key: jax.Array, position: jax.Array, index: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    stored = take_images(images, index)
    shown = preprocess_batch(key, stored, position, images, preprocess=preprocess)
    return shown, labels[index]

  noise_schedule = make_noise_schedule(config.train, steps_per_epoch=order.shape[0])
  is_constant = config.train.initial_location_noise == 1

  def gradient_step(state: TrainState, batch: jax.Array) -> tuple[TrainState, Metrics]:
    return _gradient_step(
      state,
      batch,
      get_examples=get_examples,
      config=config,
      optimizer=optimizer,
      model=model,
      location_noise=1.0 if is_constant else noise_schedule(state.step),
      term_weights=term_weights,
      extra_terms=extra_terms,
    )

  # One array holds all metrics, so that a step writes once.
  def in_a_row(metrics: Metrics) -> tuple[jax.Array, Callable[[jax.Array], Metrics]]:
    with jax.numpy_dtype_promotion("standard"):  # a term of one's own may be bfloat16
      return ravel_pytree(metrics)

  _, shapes = jax.eval_shape(gradient_step, state, order[0])
  row_of_zeros, from_row = in_a_row(
    jax.tree.map(lambda metric: jnp.zeros(metric.shape, metric.dtype), shapes)
  )

  def body(
    row: jax.Array, carry: tuple[TrainState, jax.Array]
  ) -> tuple[TrainState, jax.Array]:
    state, history = carry
    state, metrics = gradient_step(state, order[row])
    return state, history.at[row - start].set(in_a_row(metrics)[0])

  history = jnp.zeros((max_steps, row_of_zeros.size), row_of_zeros.dtype)
  state, history = jax.lax.fori_loop(start, stop, body, (state, history))
  return state, jax.vmap(from_row)(history)


def _gradient_step(
  state: TrainState,
  batch: Any,
  *,
  get_examples: GetExamples,
  config: Config,
  optimizer: optax.GradientTransformation,
  model: Model | None,
  location_noise: float | jax.Array,
  term_weights: TermWeights | None,
  extra_terms: ExtraTerms | None,
) -> tuple[TrainState, Metrics]:
  """One step on a batch, a tree of arrays [B, ...]; see `train_step`."""
  model = model_of(config, model)
  batch_size = jax.tree.leaves(batch)[0].shape[0]
  num_parts = config.train.accumulation_steps
  num_rollouts = config.train.rollouts_per_image
  if batch_size % num_parts:
    raise ConfigError(
      f"accumulation_steps must divide the batch of {batch_size}, not {num_parts}"
    )
  check_positive("location_noise", location_noise)
  is_plain = isinstance(location_noise, float | int) and location_noise == 1
  settings = config.model
  if not is_plain and model.policy is not gaussian_policy(
    settings.location_std, density=settings.location_density
  ):
    raise ConfigError(
      "location_noise and initial_location_noise must be 1 in the training of a policy of"
      " your own"
    )
  preprocess_key, rollout_key = jax.random.split(
    jax.random.fold_in(state.key, state.step)
  )

  def loss(
    params: PyTree, position: jax.Array, batch: Any
  ) -> tuple[jax.Array, Metrics]:
    images, labels = get_examples(preprocess_key, position, batch)
    # The rollouts of an image stand side by side, in one part and on one device.
    images, labels = (_repeat(each, num_rollouts) for each in (images, labels))
    number = _repeat(position, num_rollouts) * num_rollouts
    number += jnp.arange(number.size) % num_rollouts
    unrolled = rollout(
      image_keys(rollout_key, number),
      params,
      images,
      model=model,
      num_glimpses=config.train.num_glimpses,
      location_noise=location_noise,
      location_gradient=location_gradient_of(config.objective, term_weights),
    )
    if not is_plain:  # the score of a Gaussian with f times the deviation
      log_prob_t = unrolled.log_prob_t / location_noise**2
      unrolled = unrolled._replace(log_prob_t=log_prob_t)
    return objective(
      params,
      unrolled,
      labels,
      model=model,
      objective_config=config.objective,
      rollouts_per_image=num_rollouts,
      term_weights=term_weights,
      extra_terms=extra_terms,
    )

  gradient = jax.grad(loss, has_aux=True)
  if num_parts > 1:
    # Part i is every num_parts-th example from i on, so that devices that divide the
    # batch in blocks have equal shares of each part.
    gradient = microbatch(
      gradient,
      argnums=(1, 2),
      microbatch_size=batch_size // num_parts,
      accumulator=AccumulationType.MEAN,
    )
  grads, metrics = gradient(state.params, jnp.arange(batch_size), batch)

  # Optax mixes its integer step count with floats, which strict promotion forbids.
  with jax.numpy_dtype_promotion("standard"):
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  # The norm is finite only if every entry is, and small enough for Adam to square it.
  finite = jnp.isfinite(metrics["loss"] + optax.global_norm(grads))
  # A skipped step computes its update, too: on an accelerator that costs less than a branch.
  # `select`, unlike `where`, refuses an optimiser that changes a type or a shape.
  params, opt_state = jax.tree.map(
    lambda new, old: jax.lax.select(finite, jnp.asarray(new), old),
    (params, opt_state),
    (state.params, state.opt_state),
  )
  # A skipped step counts, too: the next one draws other random numbers.
  new_state = TrainState(state.step + 1, state.key, params, opt_state)
  return new_state, {**metrics, "skipped": 1.0 - finite.astype(jnp.float32)}


def _repeat(values: jax.Array, times: int) -> jax.Array:
  """Each entry of axis 0 several times, side by side.

  Unlike `jnp.repeat`, it moves nothing between devices that divide the axis.
  """
  if times == 1:
    return values
  size, *rest = values.shape
  return jnp.broadcast_to(values[:, None], (size, times, *rest)).reshape(-1, *rest)
