"""Stopping rules as thresholds on a score: each stops where the rule that it names does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ramjax
from experiments.reporting import plots, tables
from experiments.studies import rules
from ramjax.config import Config

T, M, K = 6, 80, 4


@pytest.fixture(scope="module")
def prediction():
  """Beliefs that sharpen from glimpse to glimpse, and u near the error."""
  keys = jax.random.split(jax.random.key(0), 3)
  labels = jax.random.randint(keys[0], (M,), 0, K)
  logits_t = jax.random.normal(keys[1], (T, M, K)) + jax.nn.one_hot(labels, K)[None]
  sharpness = jnp.arange(1.0, T + 1).reshape(T, 1, 1)
  probs_t = jax.nn.softmax(sharpness * logits_t)
  error_t = 0.3 * jax.random.uniform(keys[2], (T, M, K))
  return ramjax.Prediction(probs_t, error_t, jnp.zeros((T, M))), labels


@pytest.mark.parametrize("beta", [0.05, 0.5, 2.0])
def test_score_of_the_bounds_is_the_largest_beta_of_the_papers_rule(beta, prediction):
  probs_t, error_t, _ = prediction[0]
  score_t = rules.SCORES["bounds p ± βu (the paper)"](probs_t, error_t, None)
  expected = ramjax.is_decided(probs_t, error_t, beta=beta)
  np.testing.assert_array_equal(score_t > beta, expected)
  assert 0 < expected.mean() < 1


@pytest.mark.parametrize(("lead", "rate"), [(0.0, 0.0), (0.2, np.inf)])
def test_a_self_uncertainty_of_zero_stops_any_lead(lead, rate):
  probs = jnp.array([0.5 + lead / 2, 0.5 - lead / 2]).reshape(1, 1, 2)
  score = rules.SCORES["bounds p ± βu (the paper)"](probs, jnp.zeros((1, 1, 2)), None)
  assert score.item() == rate


def test_rules_of_a_model_whose_self_uncertainty_is_zero(prediction):
  """As far as it has a lead, every bound holds: one glimpse, whatever β."""
  found, labels = prediction
  found = found._replace(predicted_error_t=jnp.zeros_like(found.predicted_error_t))
  curves = rules.curves(found, labels, jnp.ones(T))
  [point] = curves["bounds p ± βu (the paper)"]
  assert point["mean_glimpses"] == 1.0


def test_a_probability_that_is_not_finite_is_never_right(prediction):
  found, _ = prediction
  found = found._replace(probs_t=jnp.full_like(found.probs_t, jnp.nan))
  curves = rules.curves(found, jnp.zeros(M, jnp.int32), jnp.ones(T))
  assert {point["accuracy"] for points in curves.values() for point in points} == {0.0}


def test_curves_go_from_one_glimpse_to_all(prediction):
  """With NumPy for two rules, over all thresholds that make a difference."""
  found, labels = prediction
  temperature_t = rules.temperatures(found, labels)
  assert temperature_t.shape == (T,)
  curves = rules.curves(found, labels, temperature_t)
  assert len(curves) == len(rules.SCORES) + 1  # and the released rule
  probs_t, error_t = np.asarray(found.probs_t), np.asarray(found.predicted_error_t)
  right_t = probs_t.argmax(-1) == np.asarray(labels)
  scores = {"largest p": probs_t.max(-1), "sum of u": -error_t.sum(-1)}
  for name, points in curves.items():
    taken = [point["mean_glimpses"] for point in points]
    assert taken == sorted(taken)
    if "released" not in name:
      assert taken[-1] == T
    if name in scores:
      score_t = scores[name]
      for point in points[:: max(1, len(points) // 5)]:
        allowed = [
          (1 + np.mean(first), right_t[first, np.arange(M)].mean())
          for threshold in np.unique(np.quantile(score_t, np.linspace(0, 1, 100)))
          for over in [score_t > threshold]
          for first in [np.where(over.any(0), over.argmax(0), T - 1)]
        ]
        mine = point["mean_glimpses"], point["accuracy"]
        assert min(np.abs(np.subtract(each, mine)).max() for each in allowed) < 1e-5


def test_area_is_the_mean_accuracy_between_two_means():
  points = [
    {"mean_glimpses": 1.0, "accuracy": 0.5},
    {"mean_glimpses": 5.0, "accuracy": 0.9},
  ]
  assert rules.area(points, low=2.0, high=4.0) == pytest.approx(0.7)
  assert rules.area(points, low=2.0, high=6.0) is None
  assert rules.area([], low=2.0, high=6.0) is None


def entry(seed, accuracy):
  points = [
    {"mean_glimpses": 1.0, "accuracy": 0.5},
    {"mean_glimpses": 7.0, "accuracy": accuracy},
  ]
  config = Config().replace(train={"seed": seed})
  return {
    "config": config.to_dict(),
    "seed": seed,
    "objective": "both",
    "dataset": "mnist",
    "train_num_glimpses": 6,
    "rules": [
      {"name": "largest p", "points": points, "area": 0.8},
      {"name": "sum of u", "points": points[:1], "area": None},
    ],
  }


def test_rules_are_compared_with_the_first_one_run_by_run():
  """Areas differ by .01 and .03: .02 ± 12.706 .01; the runs themselves differ by .2."""
  runs = [entry(0, 0.8), entry(1, 1.0)]
  for run, area, gain in zip(runs, (0.6, 0.8), (0.01, 0.03), strict=True):
    run["rules"][0]["area"] = area
    run["rules"][1]["area"] = area + gain
  rows = tables.stopping_rules({"runs": runs}).splitlines()
  assert rows[-1].endswith("| +.020 ± .127, p = 0.3 |")


def test_table_and_figure_have_a_row_and_a_line_for_each_rule():
  results = {"runs": [entry(0, 0.8), entry(1, 1.0)]}
  head, _, first, second = tables.stopping_rules(results).splitlines()
  assert head.endswith("| mean from 2 to 6 | against the paper's, ± 95 % |")
  assert first.startswith("| both | largest p | 2 | .6333 ± .0471 | .7000 ± .0707 |")
  assert first.endswith("| .8000 ± .0000 |  |")
  assert second == "| both | sum of u | 2 | – | – | – | – | – |  |"
  [axes] = plots.stopping_rules(results).axes
  line, empty = axes.lines
  np.testing.assert_allclose(line.get_ydata()[[0, -1]], [50.0, 10.0])
  assert np.ptp(empty.get_xdata()) == 0
