"""The location policy: a Gaussian with a fixed standard deviation.

The location network gives the mean. A sample is clipped to the image, [-1, 1] in both
directions. REINFORCE differentiates the density at the clipped sample, as in the
released code, or at the raw sample (`ModelConfig.location_density`).
"""

import chex
import jax
import jax.numpy as jnp


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
  chex.assert_axis_dimension(mean, -1, 2)
  noise = jax.random.normal(key, mean.shape, mean.dtype)
  return perturb_location(mean, noise, std=std)


def perturb_location(mean: jax.Array, noise: jax.Array, *, std: float) -> jax.Array:
  """Locations for given noise: `clip(mean + std * noise, -1, 1)`.

  Args:
    mean: mean (x, y) [..., 2], in [-1, 1].
    noise: standard normal noise [..., 2]; zero noise gives the mean itself.
    std: standard deviation of x and of y.

  Returns:
    Locations [..., 2] in [-1, 1], with stopped gradient.
  """
  chex.assert_equal_shape([mean, noise])
  return jax.lax.stop_gradient(jnp.clip(mean + std * noise, -1.0, 1.0))


def location_log_prob(location: jax.Array, mean: jax.Array, *, std: float) -> jax.Array:
  """Log-density of locations under the policy, log N(location; mean, std² I).

  Args:
    location: (x, y) [..., 2]; its gradient is stopped.
    mean: mean of the policy (x, y) [..., 2].
    std: standard deviation of x and of y.

  Returns:
    Log-densities [...], summed over x and y.

  >>> import jax.numpy as jnp
  >>> mean = jnp.array([0.5, -0.25])
  >>> log_prob = location_log_prob(mean, mean, std=0.1)  # -2 log(0.1 sqrt(2 pi))
  >>> round(float(log_prob), 4)
  2.7673
  """
  chex.assert_equal_shape([location, mean])
  chex.assert_axis_dimension(mean, -1, 2)
  location = jax.lax.stop_gradient(location)
  return jnp.sum(jax.scipy.stats.norm.logpdf(location, mean, std), axis=-1)


def uniform_location(key: jax.Array) -> jax.Array:
  """A location (x, y) [2] drawn uniformly from [-1, 1]², float32.

  >>> import jax
  >>> keys = jax.random.split(jax.random.key(0), 5)
  >>> jax.vmap(uniform_location)(keys).shape
  (5, 2)
  """
  return jax.random.uniform(key, (2,), jnp.float32, -1.0, 1.0)
