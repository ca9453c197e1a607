"""Location policies: how the next location is drawn, and with which probability.

The policy of the paper is a Gaussian with a fixed standard deviation. The location
network gives the mean. A sample is clipped to the image, [-1, 1] in both directions.
REINFORCE differentiates the density at the clipped sample, as in the released code, or at
the raw sample (`ModelConfig.location_density`).

A `Policy` draws from noise that does not depend on the model. So the noise of all
glimpses is drawn at once, before the recurrent loop.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ramjax.checks import check_positive, check_shape
from ramjax.glimpse import at_least_float32


class Policy(NamedTuple):
  """How the next location of one image is drawn, as pure functions.

  Attributes:
    num_outputs: how many numbers the paper's location network gives to it.
    noise: from a key to the noise of one sample, a pytree of arrays. Zeros stand for no
      randomness: the mean of a Gaussian, the most probable of several places.
    sample: from the outputs of `Model.locate` and noise to a sample; its gradient is
      stopped.
    log_prob: from outputs and a sample to the log-density or log-probability [] of the
      sample. REINFORCE differentiates it in the outputs.
    location: from a sample to the location (x, y) [2] in [-1, 1].
  """

  num_outputs: int
  noise: Callable[[jax.Array], Any]
  sample: Callable[[Any, Any], Any]
  log_prob: Callable[[Any, Any], jax.Array]
  location: Callable[[Any], jax.Array]


def _normal(key: jax.Array) -> jax.Array:
  return jax.random.normal(key, (2,))


def _clip(location: jax.Array) -> jax.Array:
  return jnp.clip(location, -1.0, 1.0)


@functools.cache
def gaussian_policy(std: float, *, density: str = "clipped") -> Policy:
  """The policy of the paper: a Gaussian around `clip(outputs, -1, 1)`.

  Args:
    std: standard deviation of x and of y, in units of locations; greater than 0.
    density: `clipped` for the density at the location, or `raw` for the density at the
      sample before it was clipped, whose score is unbiased.

  Returns:
    The policy; equal arguments give the same one.

  Raises:
    ValueError: if an argument is out of range.

  >>> import jax.numpy as jnp
  >>> policy = gaussian_policy(0.1)
  >>> sample = policy.sample(jnp.array([0.5, 2.0]), jnp.array([1.0, 1.0]))
  >>> [round(float(place), 4) for place in policy.location(sample)]
  [0.6, 1.0]
  """
  if not 0 < std < math.inf:
    raise ValueError(f"std must be a finite number greater than 0, not {std}")
  limit = _limit(density)
  return Policy(
    num_outputs=2,
    noise=_normal,
    sample=lambda outputs, noise: limit(_clip(outputs) + std * noise),
    log_prob=lambda outputs, sample: location_log_prob(sample, _clip(outputs), std=std),
    location=_clip,
  )


@functools.cache
def learned_gaussian_policy(
  initial_std: float,
  *,
  min_std: float = 0.01,
  max_std: float = 1.0,
  density: str = "raw",
) -> Policy:
  """A Gaussian whose deviation is learned, too: four outputs, (x, y) and two scales.

  The mean is `clip(outputs[:2], -1, 1)`. The standard deviations of x and y are
  `initial_std * exp(outputs[2:])`, limited to `min_std` and `max_std`.

  Args:
    initial_std: the deviation where the outputs are 0.
    min_std: the smallest deviation.
    max_std: the largest deviation.
    density: see `gaussian_policy`. The clipped density is no good teacher of a
      deviation: all samples at the border have the same distance.

  Returns:
    The policy; equal arguments give the same one.

  Raises:
    ValueError: if deviations are not `0 < min_std <= initial_std <= max_std`, or the
      density is unknown.
  """
  if not 0 < min_std <= initial_std <= max_std < math.inf:
    raise ValueError(
      "deviations must be 0 < min_std <= initial_std <= max_std,"
      f" not {min_std}, {initial_std}, {max_std}"
    )
  limit = _limit(density)
  low, high = math.log(min_std), math.log(max_std)

  def split(outputs: jax.Array) -> tuple[jax.Array, jax.Array]:
    log_std = jnp.clip(outputs[..., 2:] + math.log(initial_std), low, high)
    return _clip(outputs[..., :2]), jnp.exp(log_std)

  def sample(outputs: jax.Array, noise: jax.Array) -> jax.Array:
    mean, std = split(outputs)
    return limit(mean + std * noise)

  def log_prob(outputs: jax.Array, sample: jax.Array) -> jax.Array:
    mean, std = split(outputs)
    return _log_density(sample, mean, std)

  return Policy(4, _normal, sample, log_prob, _clip)


def categorical_policy(places: Sequence[Sequence[float]] | jax.Array) -> Policy:
  """One of P places, with the probabilities softmax(outputs).

  Args:
    places: the places (x, y) [P, 2] in [-1, 1].

  Returns:
    The policy; its samples are the numbers of places, int32.

  Raises:
    ValueError: if places are not P > 0 pairs in [-1, 1].

  >>> import jax.numpy as jnp
  >>> policy = categorical_policy([(-0.5, 0.0), (0.5, 0.0)])
  >>> outputs = jnp.array([1.0, 3.0])
  >>> likely = policy.sample(outputs, jnp.zeros(2))  # no noise: the more probable one
  >>> policy.location(likely).tolist()
  [0.5, 0.0]
  >>> round(float(policy.log_prob(outputs, likely)), 4)  # -log(1 + exp(-2))
  -0.1269
  """
  table = jnp.asarray(places, jnp.float32)
  if table.ndim != 2 or table.shape[1] != 2 or not (jnp.abs(table) <= 1).all():
    raise ValueError("places must be one or more pairs (x, y) in [-1, 1]")
  num_places = table.shape[0]

  def log_prob(outputs: jax.Array, sample: jax.Array) -> jax.Array:
    return jnp.take_along_axis(
      jax.nn.log_softmax(outputs), sample[..., None], axis=-1
    ).squeeze(-1)

  return Policy(
    num_outputs=num_places,
    noise=lambda key: jax.random.gumbel(key, (num_places,)),
    sample=lambda outputs, noise: jnp.argmax(outputs + noise, axis=-1),
    log_prob=log_prob,
    location=lambda sample: table[sample],
  )


def _log_density(
  sample: jax.Array, mean: jax.Array, std: float | jax.Array
) -> jax.Array:
  """log N(sample; mean, std²) [...] of constant samples [..., 2], in float32 at least."""
  dtype = at_least_float32(mean.dtype)
  sample = jax.lax.stop_gradient(sample).astype(dtype)
  return jnp.sum(jax.scipy.stats.norm.logpdf(sample, mean.astype(dtype), std), axis=-1)


def _limit(density: str) -> Callable[[jax.Array], jax.Array]:
  """What a Gaussian does to its samples, which are constants for the gradient."""
  if density not in ("clipped", "raw"):
    raise ValueError(f"density must be clipped or raw, not {density!r}")
  clip = _clip if density == "clipped" else lambda sample: sample
  return lambda sample: jax.lax.stop_gradient(clip(sample))


def sample_location(key: jax.Array, mean: jax.Array, *, std: float) -> jax.Array:
  """Locations drawn from the policy: `clip(mean + std * noise, -1, 1)`.

  Args:
    key: typed PRNG key.
    mean: mean (x, y) [..., 2], in [-1, 1].
    std: standard deviation of x and of y.

  Returns:
    Locations [..., 2] in [-1, 1], with stopped gradient.

  >>> import jax
  >>> import jax.numpy as jnp
  >>> mean = jnp.array([0.5, -0.25])
  >>> sample_location(jax.random.key(0), mean, std=0.0).tolist()
  [0.5, -0.25]
  """
  check_shape((..., 2), mean=mean)
  check_positive("std", std, or_zero=True)
  noise = jax.random.normal(key, mean.shape, mean.dtype)
  return jax.lax.stop_gradient(_clip(mean + std * noise))


def location_log_prob(location: jax.Array, mean: jax.Array, *, std: float) -> jax.Array:
  """Log-density of locations under the policy, log N(location; mean, std² I).

  Args:
    location: (x, y) [..., 2]; its gradient is stopped.
    mean: mean of the policy (x, y) [..., 2].
    std: standard deviation of x and of y.

  Returns:
    Log-densities [...], summed over x and y, float32 at least.

  >>> import jax.numpy as jnp
  >>> mean = jnp.array([0.5, -0.25])
  >>> log_prob = location_log_prob(mean, mean, std=0.1)  # -2 log(0.1 sqrt(2 pi))
  >>> round(float(log_prob), 4)
  2.7673
  """
  check_shape((..., 2), mean=mean)
  check_shape(mean.shape, location=location)
  check_positive("std", std)
  return _log_density(location, mean, std)


def uniform_location(key: jax.Array) -> jax.Array:
  """A location (x, y) [2] drawn uniformly from [-1, 1]², float32.

  >>> import jax
  >>> keys = jax.random.split(jax.random.key(0), 5)
  >>> jax.vmap(uniform_location)(keys).shape
  (5, 2)
  """
  return jax.random.uniform(key, (2,), jnp.float32, -1.0, 1.0)
