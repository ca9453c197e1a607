"""The location policy: clipped samples, Gaussian densities, first locations."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from ramjax import location_log_prob, sample_location, uniform_location


def test_samples_are_gaussian_and_clipped():
  mean = jnp.tile(jnp.array([0.2, 0.95]), (20_000, 1))
  samples = np.asarray(sample_location(jax.random.key(0), mean, std=0.1))
  x, y = samples.T
  assert scipy.stats.kstest(x, scipy.stats.norm(0.2, 0.1).cdf).pvalue > 0.01
  assert y.max() == 1.0
  # P(0.95 + 0.1 ε > 1) = P(ε > 0.5) = 0.3085
  assert abs((y == 1.0).mean() - 0.3085) < 0.01


def test_no_gradient_flows_through_a_sample():
  def total(mean):
    return sample_location(jax.random.key(0), mean, std=0.1).sum()

  assert not jax.grad(total)(jnp.zeros(2)).any()


def test_log_density_by_hand():
  location, mean = jnp.array([[0.1, -0.2]]), jnp.array([[0.0, 0.0]])
  # Each direction: -(d / 0.1)² / 2 - log 0.1 - log(2 pi) / 2
  expected = -(1.0 + 4.0) / 2 - 2 * np.log(0.1) - np.log(2 * np.pi)
  np.testing.assert_allclose(
    location_log_prob(location, mean, std=0.1), [expected], rtol=1e-5
  )


def test_gradient_of_the_log_density_by_hand():
  location, mean = jnp.array([0.1, -0.2]), jnp.array([0.05, 0.0])
  to_mean, to_location = jax.grad(
    lambda m, loc: location_log_prob(loc, m, std=0.1), argnums=(0, 1)
  )(mean, location)
  np.testing.assert_allclose(to_mean, (location - mean) / 0.01, rtol=1e-5)
  assert not to_location.any()


def test_first_locations_are_uniform():
  keys = jax.random.split(jax.random.key(1), 5_000)
  x, y = np.asarray(jax.vmap(uniform_location)(keys)).T
  for coordinate in (x, y):
    assert scipy.stats.kstest(coordinate, scipy.stats.uniform(-1, 2).cdf).pvalue > 0.01
  assert abs(np.corrcoef(x, y)[0, 1]) < 0.05
