"""Scores of a trained model, computed again in NumPy."""

import jax
import numpy as np
import pytest
import synthetic

import ramjax
from experiments.runs.trained import TrainedRun
from experiments.studies import scores
from ramjax.config import Config, EvaluationConfig, ModelConfig

CONFIG = Config(model=ModelConfig(hidden_size=16, branch_size=8, patch_size=4))


def test_scores_are_those_of_the_predictions():
  params = ramjax.init_params(jax.random.key(0), CONFIG.model)
  params = jax.tree.map(lambda leaf: 4 * leaf, params)  # sharper than at the start
  dataset = synthetic.make(num_train=10, num_validation=1, num_test=60)
  evaluation_config = EvaluationConfig(num_glimpses=4)
  run = TrainedRun(None, CONFIG, params, dataset, own_data=True, step=0)
  found = scores.score(
    run,
    evaluation_config,
    glimpses=[1, 4],
    betas=[0.0, 0.2],
    seed=7,
  )
  probs_t, predicted_error_t, norm_t = map(
    np.asarray,
    ramjax.predict(
      scores.run_keys(7).generalization,
      params,
      dataset.test.images,
      model=CONFIG.model,
      evaluation_config=evaluation_config,
      preprocess=dataset.preprocess,
    ),
  )
  labels = dataset.test.labels
  correct_t = probs_t.argmax(-1) == labels
  for point, n in zip(found["fixed"], [1, 4], strict=True):
    t = n - 1
    error = np.abs(np.eye(10)[labels] - probs_t[t])
    expected = {
      "num_glimpses": n,
      "accuracy": correct_t[t].mean(),
      "not_finite": 0,
      "hidden_norm": norm_t[t].mean(),
      "calibration_error": float(ramjax.expected_calibration_error(probs_t[t], labels)),
      "uncertainty_correlation": np.corrcoef(
        predicted_error_t[t].ravel(), error.ravel()
      )[0, 1],
      "uncertainty_deviation": np.abs(predicted_error_t[t] - error).mean(),
    }
    assert point == pytest.approx(expected, rel=1e-4)
  first, later = found["dynamic"]
  assert first == {"beta": 0.0, "mean_glimpses": 1.0, "accuracy": first["accuracy"]}
  assert first["accuracy"] == pytest.approx(correct_t[0].mean(), rel=1e-5)
  taken = np.asarray(ramjax.stopping_time(probs_t, predicted_error_t, beta=0.2))
  assert 1 < taken.mean() < 4
  assert later["mean_glimpses"] == pytest.approx(taken.mean(), rel=1e-5)
  hits = correct_t[taken - 1, np.arange(60)]
  assert later["accuracy"] == pytest.approx(hits.mean(), rel=1e-5)


def test_six_digits_are_kept():
  assert scores.rounded(np.float32(0.21059999)) == 0.2106
  assert scores.rounded(np.float32(5.1234567e12)) == 5.12346e12
