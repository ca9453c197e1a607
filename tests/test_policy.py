"""Location policies: samples, densities and scores, first locations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from ramjax import (
  categorical_policy,
  gaussian_policy,
  learned_gaussian_policy,
  location_log_prob,
  sample_location,
  uniform_location,
)


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


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_log_density_of_short_types_is_that_of_float32(dtype):
  """The squares of rounded differences would be wrong by some percent."""
  location, mean = (
    jax.random.uniform(key, (100, 2), dtype, -1, 1)
    for key in jax.random.split(jax.random.key(0))
  )
  found = location_log_prob(location, mean, std=0.1)
  wide = [each.astype(jnp.float32) for each in (location, mean)]
  np.testing.assert_allclose(found, location_log_prob(*wide, std=0.1), rtol=1e-5)


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


def draw(policy, outputs, num=4_000):
  """Samples and their locations, from noise as the rollout draws it."""
  noise = jax.vmap(policy.noise)(jax.random.split(jax.random.key(0), num))
  samples = jax.vmap(policy.sample, (None, 0))(outputs, noise)
  return samples, jax.vmap(policy.location)(samples)


def test_a_learned_deviation_is_that_of_the_samples():
  policy = learned_gaussian_policy(0.1, min_std=0.05, max_std=0.4)
  outputs = jnp.array([0.2, -0.3, np.log(2.0), -5.0])  # 0.2, and the smallest
  _, locations = draw(policy, outputs)
  for values, mean, std in zip(locations.T, (0.2, -0.3), (0.2, 0.05), strict=True):
    assert scipy.stats.kstest(values, scipy.stats.norm(mean, std).cdf).pvalue > 0.01


@pytest.mark.parametrize(
  ("policy", "outputs"),
  [
    (gaussian_policy(0.2, density="raw"), [0.2, 0.9]),
    (learned_gaussian_policy(0.2), [0.2, 0.9, 0.1, -0.1]),
    (categorical_policy([(-0.5, 0), (0, 0), (0.5, 0.5)]), [0.3, -0.2, 0.5]),
  ],
)
def test_the_mean_score_is_zero_so_that_reinforce_is_unbiased(policy, outputs):
  """Also where locations are clipped at the border: y is 0.9 ± 0.2."""
  outputs = jnp.array(outputs)
  assert outputs.shape == (policy.num_outputs,)
  samples, locations = draw(policy, outputs)
  score = jax.vmap(jax.grad(policy.log_prob), (None, 0))(outputs, samples)
  error = score.std(axis=0) / np.sqrt(len(samples))
  assert (jnp.abs(score.mean(axis=0)) < 4 * error).all()
  assert (error > 0).all()
  assert jnp.abs(locations).max() <= 1


def test_places_are_drawn_with_their_probabilities():
  places = jnp.array([(-0.5, 0.0), (0.5, 0.0), (0.0, 1.0)])
  policy = categorical_policy(places)
  outputs = jnp.log(jnp.array([0.2, 0.7, 0.1]))
  samples, locations = draw(policy, outputs)
  counts = np.bincount(samples, minlength=3)
  expected = len(samples) * np.array([0.2, 0.7, 0.1])
  assert scipy.stats.chisquare(counts, expected).pvalue > 0.01
  np.testing.assert_array_equal(locations, places[samples])
  log_prob = jax.vmap(policy.log_prob, (None, 0))(outputs, jnp.arange(3))
  np.testing.assert_allclose(log_prob, outputs, rtol=1e-5)


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: gaussian_policy(0.0), "std must be a finite number greater than 0"),
    (lambda: gaussian_policy(0.1, density="x"), "density must be clipped or raw"),
    (lambda: learned_gaussian_policy(0.1, min_std=0.2), "0 < min_std <= initial_std"),
    (lambda: categorical_policy([]), "places must be one or more pairs"),
    (lambda: categorical_policy([(0.0, 1.5)]), "places must be one or more pairs"),
  ],
)
def test_impossible_policies_are_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make()
