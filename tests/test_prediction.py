"""Predictions for each image: independent of batches, of the shapes that are promised."""

import functools

import jax
import numpy as np
import pytest
import synthetic

import ramjax
from ramjax.config import ConfigError, EvaluationConfig, ModelConfig

MODEL = ModelConfig(hidden_size=16, branch_size=8, patch_size=4)
DATASET = synthetic.make(num_train=10, num_validation=1, num_test=50)


@pytest.fixture(scope="module")
def params():
  return ramjax.init_params(jax.random.key(0), MODEL)


def predict(params, **options):
  return ramjax.predict(
    jax.random.key(3),
    params,
    DATASET.test.images,
    model=MODEL,
    evaluation_config=EvaluationConfig(num_glimpses=5),
    preprocess=DATASET.preprocess,
    **options,
  )


@pytest.mark.parametrize("batch_size", [7, 50, 64])
def test_the_batch_size_changes_nothing(batch_size, params):
  whole = predict(params)
  assert whole.probs_t.shape == whole.predicted_error_t.shape == (5, 50, 10)
  assert whole.hidden_norm_t.shape == (5, 50)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
  jax.tree.map(close, predict(params, batch_size=batch_size), whole)


def test_a_batch_has_at_least_one_image(params):
  with pytest.raises(ConfigError, match="batch_size must be at least 1, not 0"):
    predict(params, batch_size=0)


def test_the_memory_of_many_predictions_is_modest(params):
  """10,000 images, 100 glimpses, 10 classes: p and u alone are 80 MB."""
  images = jax.ShapeDtypeStruct((10_000, 28, 28, 1), np.uint8)
  labels = jax.ShapeDtypeStruct((10_000,), np.int32)
  program = ramjax.evaluate.lower(
    jax.random.key(3),
    params,
    images,
    labels,
    np.linspace(0, 2, 15, dtype=np.float32),
    model=MODEL,
    evaluation_config=EvaluationConfig(num_glimpses=100),
    preprocess=DATASET.preprocess,
  ).compile()
  assert program.memory_analysis().temp_size_in_bytes < 400e6
