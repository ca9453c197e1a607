"""The rollout: its values at each glimpse, and its sources of randomness."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ramjax import (
  ConfigError,
  ModelConfig,
  categorical_policy,
  extract_glimpse,
  gaussian_policy,
  init_params,
  location_log_prob,
  predict_error,
  rollout,
)
from ramjax.networks import RecurrentAttentionModel, initial_state
from ramjax.rollouts import policy_noise

CONFIG = ModelConfig(  # no default values
  image_shape=(20, 30, 2),
  patch_size=5,
  num_scales=2,
  scale_factor=3,
  hidden_size=32,
  location_std=0.2,
  fill_value=-0.4,
)
CORES = {core: dataclasses.replace(CONFIG, core=core) for core in ("rnn", "lstm")}
KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def params():
  return init_params(jax.random.key(0), CONFIG)


@pytest.fixture(scope="module")
def images():
  return jax.random.normal(jax.random.key(1), (4, *CONFIG.image_shape))


@functools.partial(
  jax.jit, static_argnames=("model", "num_glimpses", "location_policy")
)
def unroll(params, images, key=KEY, model=CONFIG, num_glimpses=6, **options):
  return rollout(
    key,
    params,
    images,
    model=model,
    num_glimpses=num_glimpses,
    **options,
  )


def assert_same(left, right, **tolerance):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, **{"atol": 1e-6, **tolerance}),
    left,
    right,
  )


@pytest.mark.parametrize("config", CORES.values(), ids=CORES)
def test_rollout_equals_a_loop_over_sensor_and_networks(config, images):
  """Given the locations, sensor and networks determine everything else."""
  params = init_params(jax.random.key(0), config)
  result = unroll(params, images, model=config)
  model = RecurrentAttentionModel(config)
  sizes = {"patch_size": 5, "num_scales": 2, "scale_factor": 3, "fill_value": -0.4}
  see = jax.vmap(functools.partial(extract_glimpse, **sizes))
  state = initial_state(config, batch=(4,))
  assert state.hidden.shape == (4, 32)
  assert not any(leaf.any() for leaf in jax.tree.leaves(state))
  for t in range(6):
    location = result.location_t[t]
    state, mean, logits, baseline = model.apply(
      {"params": params.ram}, state, see(images, location), location
    )
    np.testing.assert_allclose(result.hidden_t[t], state.hidden, atol=1e-5)
    np.testing.assert_allclose(result.logits_t[t], logits, atol=1e-5)
    np.testing.assert_allclose(result.baseline_t[t], baseline, atol=1e-5)
    np.testing.assert_allclose(
      result.predicted_error_t[t],
      predict_error(params.error, state.hidden, jax.nn.softmax(logits)),
      atol=1e-5,
    )
    np.testing.assert_allclose(
      result.log_prob_t[t],
      location_log_prob(result.next_location_t[t], mean, std=0.2),
      atol=1e-3,
    )
    if t > 0:
      np.testing.assert_array_equal(location, result.next_location_t[t - 1])
    assert 0.05 < jnp.abs(result.next_location_t[t] - mean).max() < 1.2  # 6 std
  assert jnp.abs(result.location_t).max() <= 1.0


@pytest.mark.parametrize("config", CORES.values(), ids=CORES)
def test_short_rollout_is_the_beginning_of_a_long_one(config, images):
  params = init_params(jax.random.key(0), config)
  few, many = (
    unroll(params, images, model=config, num_glimpses=num) for num in (6, 50)
  )
  assert_same(few, jax.tree.map(lambda field: field[:6], many))


def test_images_of_a_batch_are_independent(params, images):
  together = unroll(params, images)
  changed = unroll(params, images.at[1:].set(0.0))
  first = unroll(params, images[:1])
  assert_same(
    *(jax.tree.map(lambda field: field[:, :1], r) for r in (together, changed))
  )
  assert_same(jax.tree.map(lambda field: field[:, :1], together), first)


def test_key_for_each_image(params, images):
  keys = jax.vmap(jax.random.fold_in, (None, 0))(KEY, jnp.arange(4))
  expected = unroll(params, images)
  backwards = unroll(params, images[::-1], key=keys[::-1])
  assert_same(expected, jax.tree.map(lambda field: field[:, ::-1], backwards))


def test_randomness_comes_from_the_key_alone(params, images):
  assert_same(unroll(params, images), unroll(params, images), atol=0)
  other = unroll(params, images, key=jax.random.key(4))
  assert not np.allclose(unroll(params, images).location_t, other.location_t)


def test_noise_differs_between_glimpses_and_images(params):
  """A zero location network has the mean 0, so the locations are the noise."""
  location = jax.tree.map(jnp.zeros_like, params.ram["location"])
  blind = params._replace(ram={**params.ram, "location": location})
  result = unroll(blind, jnp.zeros((64, *CONFIG.image_shape)), num_glimpses=30)
  noise = np.asarray(result.next_location_t).reshape(-1, 2)
  assert len(np.unique(noise, axis=0)) == 64 * 30
  np.testing.assert_allclose(noise.std(0), 0.2, rtol=0.05)
  np.testing.assert_allclose(noise.mean(0), 0.0, atol=0.02)
  first = np.asarray(result.location_t[0])
  assert len(np.unique(first, axis=0)) == 64
  assert np.abs(first).max() > 0.9


@pytest.mark.parametrize(("density", "expected"), [("clipped", -1.4317), ("raw", 0.0)])
def test_mean_score_of_clipped_and_raw_density(density, expected, params):
  """The mean score of raw samples is 0. Clipping at 1 makes it biased.

  With mean 0.95 and std 0.2, samples are clipped at a = 0.25 std above the mean:
  E min(ε, a) / std = (a (1 - Φ(a)) - φ(a)) / std
  = (0.25 · 0.4013 - 0.3867) / 0.2 = -1.4317 for each coordinate.
  """
  config = dataclasses.replace(CONFIG, location_density=density)
  location = jax.tree.map(jnp.zeros_like, params.ram["location"])
  images = jnp.zeros((256, *CONFIG.image_shape))

  def mean_log_prob(bias):
    location["mean"]["bias"] = bias
    blind = params._replace(ram={**params.ram, "location": location})
    result = rollout(KEY, blind, images, model=config, num_glimpses=50)
    return result.log_prob_t.mean()

  score = jax.jit(jax.grad(mean_log_prob))(jnp.full(2, 0.95))
  # The standard error is 5 / sqrt(12,800) = 0.044; 0.15 is more than three of it.
  np.testing.assert_allclose(score, [expected] * 2, atol=0.15)


def test_location_density_changes_only_log_probs(params, images):
  """Clipped samples have a lower density before clipping: they are further away."""
  config = dataclasses.replace(CONFIG, location_density="raw", location_std=0.8)
  wide = dataclasses.replace(CONFIG, location_std=0.8)
  raw, clipped = (
    rollout(KEY, params, images, model=c, num_glimpses=30) for c in (config, wide)
  )
  inside = (jnp.abs(raw.next_location_t) < 1).all(-1)
  assert 0.2 < inside.mean() < 0.9
  difference = np.asarray(raw.log_prob_t - clipped.log_prob_t)
  np.testing.assert_allclose(difference[inside], 0.0, atol=1e-5)
  assert (difference[~inside] < 0).all()
  assert_same(raw._replace(log_prob_t=clipped.log_prob_t), clipped, atol=0)


def test_mean_policy_has_no_randomness(params, images):
  first = jnp.array([0.2, -0.3])
  result = unroll(params, images, location_policy="mean", first_location=first)
  again = unroll(
    params, images, jax.random.key(9), location_policy="mean", first_location=first
  )
  assert_same(result, again, atol=0)
  assert (np.asarray(result.location_t[0]) == np.asarray(first)).all()
  # The density of a Gaussian at its mean is 1 / (2 pi std²).
  np.testing.assert_allclose(result.log_prob_t, -np.log(2 * np.pi * 0.04), rtol=1e-5)


def test_noise_of_the_policy_is_scaled(params, images):
  """Half of it is half as far from the mean; none of it is the mean policy."""
  first = jnp.zeros(2)
  mean, whole, half = (
    unroll(params, images, num_glimpses=1, first_location=first, **options)
    for options in ({"location_policy": "mean"}, {}, {"location_noise": 0.5})
  )
  far = whole.next_location_t - mean.next_location_t
  assert (jnp.abs(mean.next_location_t + far) < 1).all()  # none is clipped
  assert jnp.abs(far).min() > 1e-4
  np.testing.assert_allclose(
    half.next_location_t - mean.next_location_t, 0.5 * far, atol=1e-6
  )
  assert_same(
    unroll(params, images, location_noise=0.0),
    unroll(params, images, location_policy="mean"),
    atol=0,
  )
  assert_same(
    unroll(params, images, location_noise=1.0), unroll(params, images), atol=0
  )


def test_each_glimpse_may_have_noise_of_its_own(params, images):
  """A glimpse is placed by the noise of the one before; the last factor serves all later."""
  whole, factors = unroll(params, images), [1.0, 0.5, 3.0]
  found = unroll(params, images, location_noise=factors)  # traced
  assert_same(unroll(params, images, location_noise=jnp.array(factors)), found, atol=0)
  np.testing.assert_array_equal(found.location_t[:2], whole.location_t[:2])
  longer = [*factors, 3.0, 3.0, 3.0]
  assert_same(unroll(params, images, location_noise=longer), found, atol=0)
  draw = functools.partial(
    policy_noise,
    gaussian_policy(0.1),
    jax.random.split(KEY, 5),
    location_policy="sample",
  )
  t = jnp.array([3, 0, 1, 2])
  expected = jnp.array([3.0, 1.0, 0.5, 3.0])[:, None, None] * draw(t)
  np.testing.assert_allclose(draw(t, location_noise=factors), expected, rtol=1e-6)


def test_noise_of_places_is_a_temperature():
  """At temperature 2 of two places with logits 0 and 2 the second has sigmoid(1)."""
  policy = categorical_policy([(-0.5, 0.0), (0.5, 0.0)])
  keys = jax.random.split(jax.random.key(0), 20_000)
  noise = policy_noise(
    policy, keys, jnp.arange(1), location_policy="sample", location_noise=2.0
  )
  drawn = jax.vmap(policy.sample, (None, 0))(jnp.array([0.0, 2.0]), noise[0])
  assert drawn.mean() == pytest.approx(1 / (1 + np.exp(-1)), abs=0.01)


def test_first_location_in_the_centre_or_given(params, images):
  """The setting changes nothing else, and a given location takes precedence."""
  centred = dataclasses.replace(CONFIG, first_location="centre")
  result = unroll(params, images, model=centred)
  assert not result.location_t[0].any()
  assert_same(result, unroll(params, images, first_location=jnp.zeros(2)), atol=0)
  given = jnp.array([0.2, -0.3])
  assert_same(
    unroll(params, images, model=centred, first_location=given),
    unroll(params, images, first_location=given),
    atol=0,
  )


def test_vmap_over_parameters(params, images):
  both = jax.tree.map(lambda leaf: jnp.stack([leaf, 0.5 * leaf]), params)
  result = jax.jit(jax.vmap(lambda p: unroll(p, images)))(both)
  assert_same(
    jax.tree.map(lambda field: field[0], result), unroll(params, images), atol=1e-4
  )


def test_images_may_differ_from_the_configured_size(params):
  assert unroll(params, jnp.zeros((2, 64, 48, 2))).hidden_t.shape == (6, 2, 32)


def test_bad_arguments_are_refused(params, images):
  with pytest.raises(ConfigError, match="num_glimpses must be at least 1, not 0"):
    unroll(params, images, num_glimpses=0)
  with pytest.raises(ConfigError, match="location_policy must be one of sample, mean"):
    unroll(params, images, location_policy="mode")
  with pytest.raises(ConfigError, match="location_noise must be at least 0, not -1"):
    rollout(KEY, params, images, model=CONFIG, num_glimpses=1, location_noise=-1.0)
  with pytest.raises(ConfigError, match="location_noise must be at least 0, not -2"):
    rollout(KEY, params, images, model=CONFIG, num_glimpses=1, location_noise=[1, -2])
  with pytest.raises(ConfigError, match="location_noise must be a number or several"):
    rollout(KEY, params, images, model=CONFIG, num_glimpses=1, location_noise=[])
  with pytest.raises(AssertionError, match=r"\[\] or \[N\]"):
    unroll(params, images, location_noise=jnp.ones((2, 2)))
  with pytest.raises(AssertionError):
    unroll(params, images[..., :1])
  with pytest.raises(AssertionError):
    unroll(params, (images * 10).astype(jnp.uint8))
