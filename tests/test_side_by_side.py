"""Many runs in one program: kept, resumed bit for bit, and never mixed with others."""

import dataclasses
import json
import signal

import jax
import numpy as np
import pytest

from experiments.cli import errors, signals
from experiments.runs import side_by_side
from ramjax import data, parallel
from ramjax.config import Config, ConfigError, ModelConfig, ObjectiveConfig, TrainConfig

CONFIG = Config(
  model=ModelConfig(hidden_size=16, branch_size=8, patch_size=4),
  # So much of each term that the objectives part within a few steps.
  objective=ObjectiveConfig(lambda_uncertainty=1.0, lambda_intrinsic=0.1),
  train=TrainConfig(batch_size=16, num_glimpses=2, num_epochs=2, learning_rate=0.03),
)


def run(seed, name="both"):
  return dataclasses.replace(
    CONFIG,
    objective=dataclasses.replace(CONFIG.objective, name=name),
    train=dataclasses.replace(CONFIG.train, seed=seed),
  )


RUNS = [run(0), run(0, "original"), run(5)]


@pytest.fixture(scope="module")
def few(mnist):
  return mnist._replace(train=data.Split(*(array[:80] for array in mnist.train)))


def train(few, folder, configs=RUNS):
  mesh = parallel.make_mesh(num_devices=1)
  return side_by_side.train(configs, few, folder, mesh=mesh, steps_per_call=2)


@pytest.fixture(scope="module")
def untouched(few, tmp_path_factory):
  folder = tmp_path_factory.mktemp("runs") / "untouched"
  return train(few, folder), folder


def assert_same(found, expected):
  np.testing.assert_array_equal(found.accuracy, expected.accuracy)
  jax.tree.map(np.testing.assert_array_equal, found.params, expected.params)


def test_an_interrupted_training_ends_as_an_untouched_one(
  few, untouched, tmp_path, monkeypatch
):
  """The signal comes within the second epoch, seven of ten steps are taken."""
  take = side_by_side._Runs.train_chunk

  def train_chunk(runs, orders, start, stop):
    take(runs, orders, start, stop)
    if runs.step == 7:
      signal.raise_signal(signal.SIGTERM)

  monkeypatch.setattr(side_by_side._Runs, "train_chunk", train_chunk)
  before = {signum: signal.getsignal(signum) for signum in signals.SIGNALS}
  try:
    with pytest.raises(signals.Interrupted, match="saved at step 7") as ended:
      train(few, tmp_path / "runs")
  finally:
    for signum, handler in before.items():
      signal.signal(signum, handler)
  monkeypatch.undo()
  assert ended.value.status == 128 + signal.SIGTERM
  assert_same(train(few, tmp_path / "runs"), untouched[0])


def test_a_finished_training_is_read(few, untouched, capsys):
  capsys.readouterr()
  assert_same(train(few, untouched[1]), untouched[0])
  assert capsys.readouterr().out == "resuming at step 10\n"


def test_runs_differ(untouched):
  assert untouched[0].accuracy.shape == (3, 10)
  assert len({values.tobytes() for values in untouched[0].accuracy}) == 3


def test_other_runs_in_the_folder_are_refused(few, untouched):
  with pytest.raises(errors.UsageError, match="holds other runs"):
    train(few, untouched[1], RUNS[:2])


def test_a_folder_of_other_things_is_refused(few, tmp_path):
  (tmp_path / "letter").touch()
  with pytest.raises(errors.UsageError, match="holds files but no runs"):
    train(few, tmp_path)
  assert [path.name for path in tmp_path.iterdir()] == ["letter"]


def test_what_one_program_cannot_train_is_refused(few, tmp_path):
  other = dataclasses.replace(
    CONFIG, train=dataclasses.replace(CONFIG.train, num_glimpses=3)
  )
  with pytest.raises(ConfigError, match="must not differ but in seed"):
    train(few, tmp_path / "runs", [CONFIG, other])
  assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
  ("name", "content", "message"),
  [
    ("accuracy.npy", b"", "cannot be read"),
    ("accuracy.npy", None, "cannot be read"),
    ("runs.json", b"{", "is damaged"),
    ("runs.json", b"[]", "is damaged"),
  ],
)
def test_damage_is_one_line(few, untouched, name, content, message):
  file = untouched[1] / name
  whole = file.read_bytes()
  try:
    file.unlink()
    if content is not None:
      file.write_bytes(content)
    with pytest.raises(errors.RunError, match=message) as caught:
      train(few, untouched[1])
    assert "\n" not in str(caught.value)
  finally:
    file.write_bytes(whole)


def test_accuracies_that_end_early_are_one_line(few, untouched):
  file = untouched[1] / "accuracy.npy"
  whole = file.read_bytes()
  try:
    np.save(file, np.load(file)[:, :9])
    with pytest.raises(errors.RunError, match="does not reach step 10"):
      train(few, untouched[1])
  finally:
    file.write_bytes(whole)


def test_what_is_kept_says_where_it_comes_from(untouched):
  kept = json.loads((untouched[1] / "runs.json").read_text())
  assert [Config.from_dict(config) for config in kept["configs"]] == RUNS
  assert {"command", "versions", "git_commit"} <= set(kept)
