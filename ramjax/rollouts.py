"""Rollouts: T glimpses of the model at each image of a batch, with all its outputs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ramjax.checks import check_shape, check_type
from ramjax.config import (
  LOCATION_POLICIES,
  ConfigError,
  EvaluationConfig,
  ModelConfig,
)
from ramjax.keys import image_keys
from ramjax.model import Model, PyTree
from ramjax.policy import Policy
from ramjax.ram import as_model
from ramjax.unroll import unroll


class Rollout(NamedTuple):
  """T glimpses at each of B images; time is axis 0 of every field.

  Attributes:
    location_t: location of each glimpse, (x, y) in [-1, 1].
    next_location_t: location drawn after each glimpse for the next one. No glimpse
      follows the last of them, but REINFORCE may credit it
      (`ObjectiveConfig.credit_last_location`).
    log_prob_t: log-density of what the policy has drawn for `next_location_t`: of this
      location, or of the sample before it was clipped (`ModelConfig.location_density`).
    hidden_t: internal state h after each glimpse; the second output of `Model.step`.
    logits_t: logits of the prediction after each glimpse.
    baseline_t: predicted reward after each glimpse.
    predicted_error_t: self-uncertainty u after each glimpse.
  """

  location_t: jax.Array  # [T, B, 2]
  next_location_t: jax.Array  # [T, B, 2]
  log_prob_t: jax.Array  # [T, B]
  hidden_t: jax.Array  # [T, B, n]
  logits_t: jax.Array  # [T, B, K]
  baseline_t: jax.Array  # [T, B]
  predicted_error_t: jax.Array  # [T, B, K]

  @property
  def probs_t(self) -> jax.Array:
    """Softmax outputs p after each glimpse, [T, B, K]."""
    return jax.nn.softmax(self.logits_t)


def begin(
  key: jax.Array,
  images: jax.Array,
  *,
  model: Model,
  location_policy: str,
  first_location: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
  """The first location of each image, and the key of its policy.

  Args:
    key: typed PRNG key [], from which `image_keys` derives one key per image; or the
      keys of the images [B].
    images: batch [B, H, W, C], float.
    model: the model.
    location_policy: `sample` or `mean`, see `rollout`.
    first_location: (x, y) [2] or [B, 2]; None uses `model.first_location`.

  Returns:
    First locations [B, 2], and keys [B] for `policy_noise`.

  Raises:
    ConfigError: if `location_policy` is neither `sample` nor `mean`.
    AssertionError: if an array has the wrong rank, shape or dtype.
  """
  if location_policy not in LOCATION_POLICIES:
    raise ConfigError(
      f"location_policy must be one of {', '.join(LOCATION_POLICIES)},"
      f" not {location_policy!r}"
    )
  check_shape((None, None, None, None), hint="[B, H, W, C]", images=images)
  check_type(float, hint="see ramjax.data.normalize", images=images)
  batch = images.shape[0]
  if key.ndim == 0:
    key = image_keys(key, jnp.arange(batch))
  check_shape((batch,), key=key)
  first_key, policy_key = jnp.moveaxis(jax.vmap(jax.random.split)(key), 1, 0)
  if first_location is None:
    first_location = jax.vmap(model.first_location)(first_key)
  check_shape((..., 2), first_location=first_location)
  return jnp.broadcast_to(first_location, (batch, 2)), policy_key


def policy_noise(
  policy: Policy,
  policy_key: jax.Array,
  t: jax.Array,
  *,
  location_policy: str,
  location_noise: float | Sequence[float] | jax.Array = 1.0,
) -> PyTree:
  """The noise of the location policy; glimpse t of an image uses `fold_in(key, t)`.

  Args:
    policy: the policy.
    policy_key: typed PRNG key of each image's policy [B].
    t: numbers of the glimpses, from 0 [T], integer.
    location_policy: `sample`, or `mean`, which has no noise.
    location_noise: factor on the noise, see `rollout`.

  Returns:
    Noise [T, B, ...]; zeros for `mean`.

  Raises:
    ConfigError: if `location_noise` has a factor less than 0, or none.
    AssertionError: if it is an array of another rank.
  """
  factors: Any = location_noise
  if not any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(factors)):
    factors = EvaluationConfig(location_noise=factors).location_noise
  is_whole = isinstance(factors, float) and factors == 1
  factor_t = jnp.atleast_1d(jnp.asarray(factors))
  check_shape((None,), hint="[] or [N]", location_noise=factor_t)

  def draw(key: jax.Array, t: jax.Array) -> PyTree:
    noise = policy.noise(jax.random.fold_in(key, t))
    if is_whole:
      return noise
    factor = factor_t[jnp.minimum(t, factor_t.shape[0] - 1)]
    return jax.tree.map(lambda leaf: leaf * factor.astype(leaf.dtype), noise)

  draw_batch = jax.vmap(draw, in_axes=(0, None))
  draw_all = jax.vmap(draw_batch, in_axes=(None, 0))
  if location_policy == "mean":
    shapes = jax.eval_shape(draw_all, policy_key, t)
    return jax.tree.map(lambda noise: jnp.zeros(noise.shape, noise.dtype), shapes)
  return draw_all(policy_key, t)


def rollout(
  key: jax.Array,
  params: PyTree,
  images: jax.Array,
  *,
  model: Model | ModelConfig,
  num_glimpses: int,
  location_policy: str = "sample",
  location_noise: float | Sequence[float] | jax.Array = 1.0,
  first_location: jax.Array | None = None,
  location_gradient: float | jax.Array = 0.0,
  autodiff: bool = False,
) -> Rollout:
  """Runs the model on a batch of images for `num_glimpses` glimpses each.

  Images are independent: an image with the same key has the same rollout in every
  batch. A glimpse does not depend on the number of later glimpses: the first 6 glimpses
  of a rollout of 50 equal a rollout of 6 with the same key.

  Args:
    key: typed PRNG key [], from which `image_keys` derives one key per image; or the
      keys of the images [B].
    params: parameters of the model.
    images: batch [B, H, W, C], float, normalised; any height and width.
    model: the model, or the configuration of the paper's model.
    num_glimpses: number of glimpses T, at least 1.
    location_policy: `sample` draws the next location from the policy; `mean` takes the
      mean of the policy, or the most probable of several places.
    location_noise: factor [] on the noise of `sample`, at least 0, for evaluation; or a
      factor for each glimpse [N], of which the last one serves all later glimpses.
      `log_prob_t` is of the policy with all of its noise. A factor scales the deviation
      of a Gaussian, and is the temperature of a choice among places.
    first_location: (x, y) [2] or [B, 2] of the first glimpse; None uses
      `model.first_location`.
    location_gradient: share [] in [0, 1] of the gradient of `log_prob_t` that goes on
      from what `Model.locate` reads into the state; as released, 0.
    autodiff: whether JAX differentiates the unroll. This is slower than the hand-written
      gradient of the paper's model, but forward-mode differentiation needs it. Models
      of your own always use it.

  Returns:
    The rollout, differentiable in the parameters.

  Raises:
    ConfigError: if `num_glimpses` is less than one, `location_policy` is unknown, or
      `location_noise` or `location_gradient` is out of range.
    AssertionError: if an array has the wrong rank, shape or dtype.
  """
  if num_glimpses < 1:
    raise ConfigError(f"num_glimpses must be at least 1, not {num_glimpses}")
  if isinstance(location_gradient, float | int) and not 0 <= location_gradient <= 1:
    raise ConfigError(f"location_gradient must be from 0 to 1, not {location_gradient}")
  model = as_model(model)
  first_location, policy_key = begin(
    key,
    images,
    model=model,
    location_policy=location_policy,
    first_location=first_location,
  )
  noise_t = policy_noise(
    model.policy,
    policy_key,
    jnp.arange(num_glimpses),
    location_policy=location_policy,
    location_noise=location_noise,
  )
  run = unroll if autodiff or model.unroll is None else model.unroll
  unrolled = run(
    params,
    images,
    first_location,
    noise_t,
    model=model,
    location_gradient=location_gradient,
  )
  read = functools.partial(model.read, params)
  logits_t, baseline_t = _each(read)(unrolled.hidden_t)
  return Rollout(
    location_t=unrolled.location_t,
    next_location_t=_each(model.policy.location)(unrolled.sample_t),
    log_prob_t=_each(model.policy.log_prob)(unrolled.output_t, unrolled.sample_t),
    hidden_t=unrolled.hidden_t,
    logits_t=logits_t,
    baseline_t=baseline_t,
    predicted_error_t=predict_errors(
      model, params, unrolled.hidden_t, jax.nn.softmax(logits_t)
    ),
  )


def predict_errors(
  model: Model, params: PyTree, hidden_t: jax.Array, probs_t: jax.Array
) -> jax.Array:
  """The self-uncertainties u [T, B, K] of a model.

  Args:
    model: the model.
    params: its parameters.
    hidden_t: outputs `hidden` of `Model.step` [T, B, n].
    probs_t: softmax outputs p [T, B, K].
  """
  return _each(functools.partial(model.predict_error, params))(hidden_t, probs_t)


def _each(function: Callable[..., Any]) -> Callable[..., Any]:
  """A function of one glimpse at one image, mapped over the axes [T, B]."""
  return jax.vmap(jax.vmap(function))
