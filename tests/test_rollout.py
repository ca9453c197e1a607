"""The unroll: what each step sees, and what it does not depend on."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ramjax import (
  ConfigError,
  ModelConfig,
  extract_glimpse,
  init_params,
  location_log_prob,
  predict_error,
  rollout,
)
from ramjax.networks import RecurrentAttentionModel, initial_state

CONFIG = ModelConfig(  # nothing at its default
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
  jax.jit, static_argnames=("model_config", "num_glimpses", "location_policy")
)
def unroll(params, images, key=KEY, model_config=CONFIG, num_glimpses=6, **options):
  return rollout(
    key,
    params,
    images,
    model_config=model_config,
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
def test_equals_a_loop_over_its_parts(config, images):
  """Given where it looked, everything else follows from sensor and networks."""
  params = init_params(jax.random.key(0), config)
  looked = unroll(params, images, model_config=config)
  model = RecurrentAttentionModel(config)
  sizes = {"patch_size": 5, "num_scales": 2, "scale_factor": 3, "fill_value": -0.4}
  see = jax.vmap(functools.partial(extract_glimpse, **sizes))
  state = initial_state(config, batch=(4,))
  assert state.hidden.shape == (4, 32)
  assert not any(leaf.any() for leaf in jax.tree.leaves(state))
  for t in range(6):
    location = looked.location_t[t]
    state, mean, logits, baseline = model.apply(
      {"params": params.ram}, state, see(images, location), location
    )
    np.testing.assert_allclose(looked.hidden_t[t], state.hidden, atol=1e-5)
    np.testing.assert_allclose(looked.logits_t[t], logits, atol=1e-5)
    np.testing.assert_allclose(looked.baseline_t[t], baseline, atol=1e-5)
    np.testing.assert_allclose(
      looked.predicted_error_t[t],
      predict_error(params.error, state.hidden, jax.nn.softmax(logits)),
      atol=1e-5,
    )
    np.testing.assert_allclose(
      looked.log_prob_t[t],
      location_log_prob(looked.next_location_t[t], mean, std=0.2),
      atol=1e-3,
    )
    if t > 0:
      np.testing.assert_array_equal(location, looked.next_location_t[t - 1])
    assert 0.05 < jnp.abs(looked.next_location_t[t] - mean).max() < 1.2  # six std
  assert jnp.abs(looked.location_t).max() <= 1.0


@pytest.mark.parametrize("config", CORES.values(), ids=CORES)
def test_few_glimpses_are_the_beginning_of_many(config, images):
  params = init_params(jax.random.key(0), config)
  few, many = (
    unroll(params, images, model_config=config, num_glimpses=num) for num in (6, 50)
  )
  assert_same(few, jax.tree.map(lambda field: field[:6], many))


def test_an_image_does_not_depend_on_the_others(params, images):
  together = unroll(params, images)
  changed = unroll(params, images.at[1:].set(0.0))
  first = unroll(params, images[:1])
  assert_same(
    *(jax.tree.map(lambda field: field[:, :1], r) for r in (together, changed))
  )
  assert_same(jax.tree.map(lambda field: field[:, :1], together), first)


def test_a_key_for_each_image(params, images):
  keys = jax.vmap(jax.random.fold_in, (None, 0))(KEY, jnp.arange(4))
  expected = unroll(params, images)
  backwards = unroll(params, images[::-1], key=keys[::-1])
  assert_same(expected, jax.tree.map(lambda field: field[:, ::-1], backwards))


def test_randomness_comes_from_the_key_alone(params, images):
  assert_same(unroll(params, images), unroll(params, images), atol=0)
  other = unroll(params, images, key=jax.random.key(4))
  assert not np.allclose(unroll(params, images).location_t, other.location_t)


def test_steps_and_images_draw_different_noise(params):
  """With a mean that is 0 everywhere, locations are the noise itself."""
  location = jax.tree.map(jnp.zeros_like, params.ram["location"])
  blind = params._replace(ram={**params.ram, "location": location})
  looked = unroll(blind, jnp.zeros((64, *CONFIG.image_shape)), num_glimpses=30)
  noise = np.asarray(looked.next_location_t).reshape(-1, 2)
  assert len(np.unique(noise, axis=0)) == 64 * 30
  np.testing.assert_allclose(noise.std(0), 0.2, rtol=0.05)
  np.testing.assert_allclose(noise.mean(0), 0.0, atol=0.02)
  first = np.asarray(looked.location_t[0])
  assert len(np.unique(first, axis=0)) == 64
  assert np.abs(first).max() > 0.9


@pytest.mark.parametrize(("density", "expected"), [("clipped", -1.4317), ("raw", 0.0)])
def test_the_mean_of_the_score(density, expected, params):
  """That of a density is 0; a sample that was clipped at a = 0.25 std has another.

  With the mean at 0.95 and std 0.2: E min(ε, a) / std = (a (1 - Φ(a)) - φ(a)) / std
  = (0.25 · 0.4013 - 0.3867) / 0.2 = -1.4317 for each coordinate.
  """
  config = dataclasses.replace(CONFIG, location_density=density)
  location = jax.tree.map(jnp.zeros_like, params.ram["location"])
  images = jnp.zeros((256, *CONFIG.image_shape))

  def mean_log_prob(bias):
    location["mean"]["bias"] = bias
    blind = params._replace(ram={**params.ram, "location": location})
    looked = rollout(KEY, blind, images, model_config=config, num_glimpses=50)
    return looked.log_prob_t.mean()

  score = jax.jit(jax.grad(mean_log_prob))(jnp.full(2, 0.95))
  # Of 12,800 samples of deviation 1 / 0.2 at most, so that 0.15 are three of the mean's.
  np.testing.assert_allclose(score, [expected] * 2, atol=0.15)


def test_the_density_changes_no_more_than_the_density(params, images):
  """It is that of a Gaussian at a sample further from its mean, where it was clipped."""
  config = dataclasses.replace(CONFIG, location_density="raw", location_std=0.8)
  wide = dataclasses.replace(CONFIG, location_std=0.8)
  raw, clipped = (
    rollout(KEY, params, images, model_config=c, num_glimpses=30)
    for c in (config, wide)
  )
  inside = (jnp.abs(raw.next_location_t) < 1).all(-1)
  assert 0.2 < inside.mean() < 0.9
  difference = np.asarray(raw.log_prob_t - clipped.log_prob_t)
  np.testing.assert_allclose(difference[inside], 0.0, atol=1e-5)
  assert (difference[~inside] < 0).all()
  assert_same(raw._replace(log_prob_t=clipped.log_prob_t), clipped, atol=0)


def test_mean_policy_looks_at_the_mean(params, images):
  first = jnp.array([0.2, -0.3])
  looked = unroll(params, images, location_policy="mean", first_location=first)
  again = unroll(
    params, images, jax.random.key(9), location_policy="mean", first_location=first
  )
  assert_same(looked, again, atol=0)
  assert (np.asarray(looked.location_t[0]) == np.asarray(first)).all()
  # At its mean the density of a Gaussian is 1 / (2 pi std²).
  np.testing.assert_allclose(looked.log_prob_t, -np.log(2 * np.pi * 0.04), rtol=1e-5)


def test_the_first_glimpse_in_the_middle(params, images):
  """Nothing else changes, and a first location that is given is taken."""
  centred = dataclasses.replace(CONFIG, first_location="centre")
  looked = unroll(params, images, model_config=centred)
  assert not looked.location_t[0].any()
  assert_same(looked, unroll(params, images, first_location=jnp.zeros(2)), atol=0)
  given = jnp.array([0.2, -0.3])
  assert_same(
    unroll(params, images, model_config=centred, first_location=given),
    unroll(params, images, first_location=given),
    atol=0,
  )


def test_jit_and_vmap_over_parameters(params, images):
  """A stranger may vmap it over models."""
  both = jax.tree.map(lambda leaf: jnp.stack([leaf, 0.5 * leaf]), params)
  looked = jax.jit(jax.vmap(lambda p: unroll(p, images)))(both)
  assert_same(
    jax.tree.map(lambda field: field[0], looked), unroll(params, images), atol=1e-4
  )


def test_images_of_another_size_than_the_configured_one_will_do(params):
  assert unroll(params, jnp.zeros((2, 64, 48, 2))).hidden_t.shape == (6, 2, 32)


def test_bad_arguments_are_refused(params, images):
  with pytest.raises(ConfigError, match="num_glimpses must be at least 1, not 0"):
    unroll(params, images, num_glimpses=0)
  with pytest.raises(ConfigError, match="location_policy must be one of sample, mean"):
    unroll(params, images, location_policy="mode")
  with pytest.raises(AssertionError):
    unroll(params, images[..., :1])
  with pytest.raises(AssertionError):
    unroll(params, (images * 10).astype(jnp.uint8))
