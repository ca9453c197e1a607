"""The location policy: a Gaussian of fixed width round the mean that the network gives.

A sample is clipped to the image, [-1, 1] in both directions, and the density that
REINFORCE differentiates is the one at the clipped sample, as in the released code, or
that at the raw one (see BUILD_NOTES.md, "Density of the clipped sample").
"""

import chex
import jax
import jax.numpy as jnp


def sample_location(key: jax.Array, mean: jax.Array, *, std: float) -> jax.Array:
  """A location drawn from the policy: `clip(mean + std * noise, -1, 1)`.

  Args:
    key: typed PRNG key.
    mean: mean location (x, y) [..., 2], in [-1, 1].
    std: standard deviation in each direction.

  Returns:
    Locations [..., 2] in [-1, 1]. No gradient flows through them.
  """
  chex.assert_axis_dimension(mean, -1, 2)
  noise = jax.random.normal(key, mean.shape, mean.dtype)
  return perturb_location(mean, noise, std=std)


def perturb_location(mean: jax.Array, noise: jax.Array, *, std: float) -> jax.Array:
  """The location that standard normal noise makes of a mean; see `sample_location`.

  Args:
    mean: mean location (x, y) [..., 2], in [-1, 1].
    noise: standard normal noise [..., 2]; 0 gives the mean itself.
    std: standard deviation in each direction.

  Returns:
    Locations [..., 2] in [-1, 1]. No gradient flows through them.
  """
  chex.assert_equal_shape([mean, noise])
  return jax.lax.stop_gradient(jnp.clip(mean + std * noise, -1.0, 1.0))


def location_log_prob(location: jax.Array, mean: jax.Array, *, std: float) -> jax.Array:
  """Log-density of locations under the policy, log N(location; mean, std² I).

  Args:
    location: (x, y) [..., 2]; taken as given, so no gradient flows to it.
    mean: mean of the policy [..., 2].
    std: standard deviation in each direction.

  Returns:
    Log-densities [...], the sum over the two directions.
  """
  chex.assert_equal_shape([location, mean])
  chex.assert_axis_dimension(mean, -1, 2)
  location = jax.lax.stop_gradient(location)
  return jnp.sum(jax.scipy.stats.norm.logpdf(location, mean, std), axis=-1)


def uniform_location(key: jax.Array) -> jax.Array:
  """A first location (x, y) [2], float32, uniform in [-1, 1]²."""
  return jax.random.uniform(key, (2,), jnp.float32, -1.0, 1.0)
