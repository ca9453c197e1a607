"""Arrays that do not fit are refused in one line that names the argument and the remedy."""

import jax
import jax.numpy as jnp
import pytest

import ramjax

T, B, K = 6, 4, 10
TIME_MAJOR = jnp.zeros((T, B))
BATCH_MAJOR = jnp.zeros((B, T))
PROBS_T = jnp.full((T, B, K), 0.1)
LABELS = jnp.zeros(B, jnp.int32)
MODEL = ramjax.ModelConfig(hidden_size=8, branch_size=8)
COLOUR = ramjax.ModelConfig(hidden_size=8, branch_size=8, image_shape=(28, 28, 3))


def look(images, config=MODEL):
  params = ramjax.init_params(jax.random.key(0), config)
  return ramjax.rollout(jax.random.key(1), params, images, model=config, num_glimpses=2)


CASES = {
  "reward by batch": (
    lambda: ramjax.reinforce_loss(BATCH_MAJOR, BATCH_MAJOR, jnp.zeros(B)),
    "baseline_t must have the shape [any, 4], not [4, 6]; time is axis 0",
  ),
  "baseline by batch": (
    lambda: ramjax.baseline_loss(BATCH_MAJOR, jnp.zeros(B)),
    "baseline_t must have the shape [any, 4], not [4, 6]; time is axis 0",
  ),
  "log-densities of another batch": (
    lambda: ramjax.reinforce_loss(BATCH_MAJOR, TIME_MAJOR, jnp.zeros(B)),
    "log_prob_t must have the shape [6, 4], not [4, 6]",
  ),
  "errors by batch": (
    lambda: ramjax.error_fit_loss(*[PROBS_T.swapaxes(0, 1)] * 2, LABELS),
    "probs_t must have the shape [any, 4, any], not [4, 6, 10]; time is axis 0",
  ),
  "values by batch": (
    lambda: ramjax.at_stop(BATCH_MAJOR, jnp.ones(B, jnp.int32)),
    "values_t must have the shape [any, 4], not [4, 6]; time is axis 0",
  ),
  "fit by batch": (
    lambda: ramjax.uncertainty_fit(*[PROBS_T.swapaxes(0, 1)] * 2, LABELS),
    "probs_t must have the shape [any, 4, any], not [4, 6, 10]; time is axis 0",
  ),
  "labels of another batch": (
    lambda: ramjax.classification_loss(PROBS_T[0], LABELS[:2]),
    "label must have the shape [4], not [2]",
  ),
  "prior of sum 2": (
    lambda: ramjax.intrinsic_loss(PROBS_T[0], jnp.full(K, 0.2)),
    "prior must be probabilities that sum to 1, not to 2; divide it by its sum",
  ),
  "prior of other classes": (
    lambda: ramjax.intrinsic_loss(PROBS_T[0], jnp.full(4, 0.25)),
    "prior must have the shape [..., 10], not [4]",
  ),
  "no deviation": (
    lambda: ramjax.location_log_prob(jnp.zeros(2), jnp.zeros(2), std=0.0),
    "std must be greater than 0, not 0.0",
  ),
  "negative deviation": (
    lambda: ramjax.sample_location(jax.random.key(0), jnp.zeros(2), std=-0.1),
    "std must be at least 0, not -0.1",
  ),
  "image with channels first": (
    lambda: ramjax.extract_glimpse(jnp.zeros((3, 48, 64)), jnp.zeros(2), patch_size=8),
    "image must have the shape [any, any, 3], not [3, 48, 64]; it looks like [C, H, W]:"
    " give jnp.moveaxis(image, 0, -1)",
  ),
  "several locations": (
    lambda: ramjax.extract_glimpse(
      jnp.zeros((48, 64, 3)), jnp.zeros((5, 2)), patch_size=8
    ),
    "location must have the shape [2], not [5, 2]; for several, use jax.vmap",
  ),
  "stored image": (
    lambda: ramjax.extract_glimpse(
      jnp.zeros((48, 64, 3), jnp.uint8), jnp.zeros(2), patch_size=8
    ),
    "image must be float, not uint8; see ramjax.data.normalize",
  ),
  "batch with channels first": (
    lambda: look(jnp.zeros((2, 3, 28, 28)), COLOUR),
    "image must have the shape [any, any, 3], not [3, 28, 28]; it looks like [C, H, W]",
  ),
  "one image": (
    lambda: look(jnp.zeros((28, 28, 1))),
    "images must have the shape [any, any, any, any], not [28, 28, 1]; [B, H, W, C]",
  ),
  "stored images": (
    lambda: look(jnp.zeros((2, 28, 28, 1), jnp.uint8)),
    "images must be float, not uint8; see ramjax.data.normalize",
  ),
}


@pytest.mark.parametrize(("call", "message"), CASES.values(), ids=CASES)
def test_what_does_not_fit_is_named_with_its_remedy(call, message):
  with pytest.raises(AssertionError) as caught:
    call()
  assert str(caught.value).startswith(message)
  assert "\n" not in str(caught.value)


def test_values_that_are_not_known_are_not_checked():
  """A traced prior or deviation may be anything."""
  prior, std = jnp.full(K, 0.2), jnp.float32(-1.0)
  assert jnp.isfinite(jax.jit(ramjax.intrinsic_loss)(PROBS_T[0], prior)).all()
  jax.jit(ramjax.location_log_prob)(jnp.zeros(2), jnp.zeros(2), std=std)
