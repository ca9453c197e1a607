"""Predictions: what `evaluate` judges, image by image."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ramjax
from ramjax.config import ConfigError, ModelConfig

MODEL = ModelConfig(hidden_size=16, branch_size=8, patch_size=4)
KEY = jax.random.key(3)
BETAS = jnp.array([0.05, 0.3])


@pytest.fixture(scope="module")
def params():
  params = ramjax.init_params(jax.random.key(0), MODEL)
  # Sharper than at the start, so that the stopping rule has something to decide.
  return jax.tree.map(lambda leaf: 4 * leaf, params)


def predict(params, mnist, num_images=50, **options):
  return ramjax.predict(
    KEY,
    params,
    jnp.asarray(mnist.test.images[:num_images]),
    model_config=MODEL,
    num_glimpses=5,
    preprocess=mnist.preprocess,
    **options,
  )


@pytest.mark.parametrize("num_samples", [1, 2])
def test_evaluate_judges_these_predictions(params, mnist, num_samples):
  images, labels = (jnp.asarray(array[:50]) for array in mnist.test)
  judged = ramjax.evaluate(
    KEY,
    params,
    images,
    labels,
    BETAS,
    model_config=MODEL,
    num_glimpses=5,
    preprocess=mnist.preprocess,
    num_samples=num_samples,
  )
  probs_t, predicted_error_t, norm_t = predict(params, mnist, num_samples=num_samples)
  correct_t = np.asarray(probs_t).argmax(-1) == np.asarray(labels)
  np.testing.assert_allclose(judged.accuracy_t, correct_t.mean(1), rtol=1e-6)
  np.testing.assert_allclose(judged.hidden_norm_t, norm_t.mean(1), rtol=1e-5)
  for beta, mean in zip(BETAS, judged.mean_glimpses, strict=True):
    taken = ramjax.stopping_time(probs_t, predicted_error_t, beta=beta)
    np.testing.assert_allclose(mean, taken.mean(dtype=jnp.float32), rtol=1e-6)


@pytest.mark.parametrize("batch_size", [7, 50, 64])
def test_batches_change_nothing(params, mnist, batch_size):
  whole = predict(params, mnist)
  assert whole.probs_t.shape == whole.predicted_error_t.shape == (5, 50, 10)
  assert whole.hidden_norm_t.shape == (5, 50)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
  jax.tree.map(close, predict(params, mnist, batch_size=batch_size), whole)


def test_bad_numbers_are_named(params, mnist):
  for name in ("num_samples", "batch_size"):
    with pytest.raises(ConfigError, match=f"{name} must be at least 1, not 0"):
      predict(params, mnist, **{name: 0})
