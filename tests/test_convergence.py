"""Figure 1: every run is the run of its seed, and the statistics are those of the books."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import forked
import numpy as np
import pytest

from experiments import convergence
from experiments.reporting.statistics import half_width
from experiments.runs import side_by_side
from experiments.runs.program import Programs
from ramjax import data, parallel
from ramjax.config import OBJECTIVES, Config, ModelConfig, ObjectiveConfig, TrainConfig

ROOT = pathlib.Path(__file__).parent.parent
CONFIG = Config(
  model=ModelConfig(hidden_size=32, branch_size=16),
  # So much of each term that the objectives part within a few steps.
  objective=ObjectiveConfig(lambda_uncertainty=1.0, lambda_intrinsic=0.1),
  train=TrainConfig(batch_size=16, num_glimpses=3, num_epochs=2, learning_rate=0.03),
)


def test_a_run_is_that_of_its_seed_alone(mnist, tmp_path):
  """As `experiments.train` makes it; the first epoch, and the beginning of the second."""
  few = mnist._replace(train=data.Split(*(array[:64] for array in mnist.train)))
  mesh = parallel.make_mesh(num_devices=1)
  configs = convergence.configs_of(CONFIG, [3, 7])
  assert [c.objective.name for c in configs[::2]] == list(OBJECTIVES)
  trained = side_by_side.train(
    configs, few, tmp_path / "runs", mesh=mesh, steps_per_call=3
  )
  config = dataclasses.replace(
    CONFIG,
    objective=dataclasses.replace(CONFIG.objective, name="intrinsic"),
    train=dataclasses.replace(CONFIG.train, seed=7),
  )
  alone = Programs(config, few, mesh, steps_per_call=3)
  state, found = alone.place(alone.init()), []
  for epoch in (1, 2):
    order = alone.epoch_order(epoch)
    for start, stop in ((0, 3), (3, 4)):
      state, history = alone.train_chunk(state, order, start, stop)
      found.extend(np.asarray(history["accuracy"])[: stop - start])
  # Later on, what is rounding now decides where a glimpse is taken.
  index = 2 * OBJECTIVES.index("intrinsic") + 1
  np.testing.assert_allclose(trained.accuracy[index, :5], found[:5], atol=1e-6)
  assert trained.accuracy.shape == (8, 8)
  assert len({values.tobytes() for values in trained.accuracy}) == 8


def test_means_and_comparisons_by_hand():
  slow = np.array([[0.0, 0.2, 0.4, 0.6, 1.0], [0.2, 0.2, 0.6, 0.6, 0.9]])
  fast = slow + np.array([[0.1], [0.3]])
  found = convergence.summary({"slow": slow, "fast": fast}, window=2)
  assert found["steps"] == [2, 4]  # the fifth step does not fill a window
  curve = found["curves"]["slow"]
  np.testing.assert_allclose(curve["windowed_mean"], [[0.1, 0.5], [0.2, 0.6]])
  np.testing.assert_allclose(curve["running_mean"], [[0.1, 0.3], [0.2, 0.4]])
  np.testing.assert_allclose(curve["mean_of_all_steps"], [0.44, 0.5])
  [pair] = found["comparisons"]
  assert (pair["slower"], pair["faster"]) == ("slow", "fast")
  assert pair["difference"] == pytest.approx(0.2)
  # Two differences, .1 and .3: t = 2 with one degree of freedom; t(97.5 %) = 12.706.
  assert pair["half_width"] == pytest.approx(12.7062 * 0.1, rel=1e-4)
  assert pair["p_value"] == pytest.approx(0.295167, rel=1e-4)


def test_one_run_has_no_confidence():
  assert np.isnan(half_width(np.ones((1, 3)))).all()


def run(*arguments):
  return subprocess.run(
    [sys.executable, "-m", "experiments.convergence", *arguments],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=300,
  )


@pytest.mark.slow
def test_the_binary_writes_what_it_has_found(tmp_path):
  ended = run(
    "--num_seeds=2",
    "--num_train_examples=320",
    "--hidden_size=16",
    "--num_glimpses=2",
    "--window=4",
    f"--workdir={tmp_path}",
  )
  assert ended.returncode == 0, ended.stderr
  results = json.loads((tmp_path / "convergence.json").read_text())
  assert results["seeds"] == [0, 1]
  assert results["config"]["objective"]["lambda_intrinsic"] == 3e-3
  assert set(results["curves"]) == set(OBJECTIVES)
  assert len(results["comparisons"]) == 6
  assert results["steps"] == [4, 8]
  assert (tmp_path / "convergence.png").stat().st_size > 10_000
  assert "both - original" in ended.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
  ("argument", "message"),
  [
    ("--num_seeds=0", "num_seeds must be at least 1, not 0"),
    ("--objective=both", "objective must not be given"),
    ("--num_devices=3", "num_devices must divide the number of runs, 32"),
  ],
)
def test_a_bad_command_line_is_one_line(argument, message):
  ended = forked.run("convergence", argument)
  assert ended.returncode == 2
  assert message in ended.stderr
  assert len(ended.stderr.splitlines()) == 1
