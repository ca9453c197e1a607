"""Figure 1: every run is the run of its seed, and the statistics are those of the books."""

import json

import forked
import numpy as np
import pytest

from experiments import convergence
from experiments.reporting.statistics import half_width
from experiments.studies import study
from ramjax.config import OBJECTIVES


def curve(*accuracy, steps=(2, 4, 5)):
  """A run of five steps in chunks of two."""
  accuracy, steps = np.array(accuracy), np.array(steps)
  taken = np.diff(steps, prepend=0)
  return study.TrainCurve(
    steps, accuracy, (accuracy * taken).cumsum() / steps, last_epoch=np.nan
  )


def test_means_and_comparisons_by_hand():
  slow = [curve(0.1, 0.5, 1.0), curve(0.2, 0.6, 0.9)]
  fast = [curve(0.2, 0.6, 1.1), curve(0.5, 0.9, 1.2)]
  found = convergence.summary({"slow": slow, "fast": fast})
  assert found["steps"] == [2, 4, 5]
  means = found["curves"]["slow"]
  np.testing.assert_allclose(means["windowed_mean"], [[0.1, 0.5, 1.0], [0.2, 0.6, 0.9]])
  np.testing.assert_allclose(means["running_mean"], [[0.1, 0.3, 0.44], [0.2, 0.4, 0.5]])
  np.testing.assert_allclose(means["mean_of_all_steps"], [0.44, 0.5])
  [pair] = found["comparisons"]
  assert (pair["slower"], pair["faster"]) == ("slow", "fast")
  assert pair["difference"] == pytest.approx(0.2)
  # Two differences, .1 and .3: t = 2 with one degree of freedom; t(97.5 %) = 12.706.
  assert pair["half_width"] == pytest.approx(12.7062 * 0.1, rel=1e-4)
  assert pair["p_value"] == pytest.approx(0.295167, rel=1e-4)


def test_one_run_has_no_confidence():
  assert np.isnan(half_width(np.ones((1, 3)))).all()


@pytest.mark.slow
def test_the_script_writes_what_it_has_found(npz_file, tmp_path):
  """Nine steps: fewer than ten windows of four, so that the window shrinks to one."""
  ended = forked.run(
    "convergence",
    f"--dataset=npz:{npz_file}",
    "--num_seeds=2",
    "--hidden_size=16",
    "--num_glimpses=2",
    "--steps_per_call=4",
    "--figure_format=both",
    f"--workdir={tmp_path}",
  )
  assert ended.returncode == 0, ended.stderr
  results = json.loads((tmp_path / "convergence.json").read_text())
  assert results["seeds"] == [0, 1]
  assert results["config"]["objective"]["lambda_intrinsic"] == 3e-3
  assert set(results["curves"]) == set(OBJECTIVES)
  assert len(results["comparisons"]) == 6
  assert results["window"] == 1
  assert results["steps"] == list(range(1, 10))
  for ending in ("png", "svg"):
    assert (tmp_path / f"convergence.{ending}").stat().st_size > 10_000
  assert "| objective | n | train accuracy" in ended.stdout
  assert ended.stdout.splitlines()[-1] == (
    f"written to {tmp_path / 'convergence.json'} and convergence.png and convergence.svg"
  )
