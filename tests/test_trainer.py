"""Runs that train together: in step, each like a run alone, and resumed bit for bit."""

import dataclasses
import itertools
import json
import os
import shutil
import signal

import numpy as np
import pytest
import synthetic

import ramjax
from experiments.cli import errors, signals
from experiments.runs import trainer
from experiments.runs import workdir as workdir_lib
from experiments.runs.metrics import Metrics, read_metrics
from experiments.runs.program import Program, run_keys
from experiments.runs.trained import restore_params
from ramjax import parallel
from ramjax.checkpoint import CheckpointError, Checkpoints
from ramjax.config import Config, ConfigError, ModelConfig, ObjectiveConfig, TrainConfig
from ramjax.digest import state_digest

CONFIG = Config(
  model=ModelConfig(hidden_size=16, branch_size=8, patch_size=4),
  # So much of each term that the objectives part within a few steps.
  objective=ObjectiveConfig(lambda_uncertainty=1.0, lambda_intrinsic=0.1),
  train=TrainConfig(batch_size=32, num_glimpses=2, num_epochs=2, learning_rate=0.03),
)
STEPS_PER_EPOCH, STEPS_PER_CALL = 5, 2


def config_of(seed, name="both", **train):
  return dataclasses.replace(
    CONFIG,
    objective=dataclasses.replace(CONFIG.objective, name=name),
    train=dataclasses.replace(CONFIG.train, seed=seed, **train),
  )


RUNS = [config_of(0), config_of(0, "original"), config_of(5)]


@pytest.fixture(scope="module")
def dataset():
  return synthetic.make(160, 64, 64)


@pytest.fixture(autouse=True)
def handlers():
  before = {signum: signal.getsignal(signum) for signum in signals.SIGNALS}
  yield
  for signum, handler in before.items():
    signal.signal(signum, handler)


def train(dataset, folder, configs=RUNS, **options):
  workdirs = [
    workdir_lib.Workdir(folder / f"run_{number}") for number in range(len(configs))
  ]
  for config, workdir in zip(configs, workdirs, strict=True):
    workdir_lib.open_run(workdir, config)
  options = {"steps_per_call": STEPS_PER_CALL, "figures": False, **options}
  return trainer.train(configs, dataset, workdirs, **options)


def end_of(folder, configs=RUNS):
  """Parameters of each run, and its metrics but for what a clock says."""
  found = []
  for number, config in enumerate(configs):
    workdir = workdir_lib.Workdir(folder / f"run_{number}")
    lines = [
      {k: v for k, v in line.items() if k != "examples_per_second"}
      for line in read_metrics(workdir)
    ]
    found.append((state_digest(restore_params(workdir, config)), lines))
  return found


@pytest.fixture(scope="module")
def untouched(dataset, tmp_path_factory):
  folder = tmp_path_factory.mktemp("runs") / "untouched"
  accuracy = train(dataset, folder)
  assert accuracy == [lines[-1]["accuracy"] for _, lines in end_of(folder)]
  return folder


def signal_after(monkeypatch, number):
  """Sends this process SIGTERM when so many lines of metrics have been written."""
  written, write = itertools.count(1), Metrics.write

  def write_and_signal(self, **line):
    write(self, **line)
    if next(written) == number:
      os.kill(os.getpid(), signal.SIGTERM)

  monkeypatch.setattr(Metrics, "write", write_and_signal)


def test_runs_differ_and_each_has_a_folder_of_its_own(untouched):
  ends = end_of(untouched)
  assert len({digest for digest, _ in ends}) == 3
  for number, config in enumerate(RUNS):
    workdir = workdir_lib.Workdir(untouched / f"run_{number}")
    assert workdir_lib.read_config(workdir) == config
    assert any(workdir.tensorboard.iterdir())
  splits = [(line["step"], line["split"]) for line in ends[0][1]]
  assert splits == [
    *[(2, "train"), (4, "train"), (5, "train"), (5, "validation")],
    *[(7, "train"), (9, "train"), (10, "train"), (10, "validation"), (10, "test")],
  ]


def test_a_run_beside_others_is_the_run_alone_to_rounding(dataset, tmp_path):
  """The first steps; later on, rounding decides where a glimpse is taken."""
  folder = tmp_path / "together"
  train(dataset, folder, steps_per_call=1)
  mesh = parallel.make_mesh(num_devices=1)
  for number, config in enumerate(RUNS):
    alone = Program([config], dataset, mesh, steps_per_call=1)
    state, order = alone.place(alone.init()), alone.epoch_order(1)
    lines = end_of(folder)[number][1]
    for step in range(4):
      state, history = alone.train_chunk(state, order, step, step + 1)
      for name, value in history.items():
        if name != "skipped":
          assert lines[step][name] == pytest.approx(float(value[0]), rel=1e-4, abs=1e-5)


def test_validation_and_test_of_a_run_beside_others_are_its_own(dataset, untouched):
  """The weights of its own objective, its own keys, its own parameters."""
  for number, config in enumerate(RUNS):
    workdir = workdir_lib.Workdir(untouched / f"run_{number}")
    params, keys = restore_params(workdir, config), run_keys(config.train.seed)
    lines = {line["split"]: line for line in read_metrics(workdir)}
    for key, split in ((keys.validation, "validation"), (keys.test, "test")):
      expected = ramjax.validate(
        key,
        params,
        *getattr(dataset, split),
        config=config,
        preprocess=dataset.preprocess,
      )
      for name, value in expected.items():
        assert lines[split][name] == pytest.approx(float(value), rel=1e-5), name


def test_interrupted_runs_end_as_untouched_ones(
  dataset, untouched, tmp_path, monkeypatch, capsys
):
  """Within an epoch, and between two; three lines are written for each chunk."""
  for lines, step in ((3, 2), (6, 5), (3, 7)):
    with monkeypatch.context() as patch:
      signal_after(patch, lines)
      with pytest.raises(signals.Interrupted, match=f"saved at step {step}"):
        train(dataset, tmp_path)
    for again in signals.SIGNALS:
      signal.signal(again, signal.default_int_handler)
  train(dataset, tmp_path)
  assert end_of(tmp_path) == end_of(untouched)
  printed = capsys.readouterr().out
  assert "resuming within epoch 2, step 7" in printed
  assert "3 runs  train accuracy" in printed


@pytest.mark.parametrize("lacking", [[0], [1, 2]])
def test_runs_of_which_some_lack_the_newest_step_go_on_from_a_common_one(
  dataset, untouched, tmp_path, lacking
):
  """As after a kill between the saves of one step."""
  shutil.copytree(untouched, tmp_path, dirs_exist_ok=True)
  for number in range(3):
    workdir = workdir_lib.Workdir(tmp_path / f"run_{number}")
    kept = [line for line in read_metrics(workdir) if line["split"] != "test"]
    workdir.metrics.write_text("".join(json.dumps(line) + "\n" for line in kept))
    if number in lacking:
      shutil.rmtree(workdir.checkpoints / "10")
  train(dataset, tmp_path)
  assert end_of(tmp_path) == end_of(untouched)


def test_runs_killed_in_their_first_save_begin_anew(dataset, untouched, tmp_path):
  one = [dataclasses.replace(c, train=c.train) for c in RUNS]
  train(dataset, tmp_path / "whole", [_short(config) for config in one])
  shutil.copytree(tmp_path / "whole", tmp_path / "cut")
  shutil.rmtree(tmp_path / "cut" / "run_1" / "checkpoints")
  for number in range(3):
    (tmp_path / "cut" / f"run_{number}" / "metrics.jsonl").unlink()
  short = [_short(config) for config in RUNS]
  train(dataset, tmp_path / "cut", short)
  assert end_of(tmp_path / "cut", short) == end_of(tmp_path / "whole", short)


def _short(config):
  return dataclasses.replace(
    config, train=dataclasses.replace(config.train, num_epochs=1)
  )


def test_a_damaged_checkpoint_of_one_run_takes_all_back(dataset, untouched, tmp_path):
  shutil.copytree(untouched, tmp_path, dirs_exist_ok=True)
  for number in range(3):
    workdir = workdir_lib.Workdir(tmp_path / f"run_{number}")
    kept = [line for line in read_metrics(workdir) if line["split"] != "test"]
    workdir.metrics.write_text("".join(json.dumps(line) + "\n" for line in kept))
  checkpoints = tmp_path / "run_2" / "checkpoints"
  (checkpoints / "10" / "_CHECKPOINT_METADATA").write_text("{")
  train(dataset, tmp_path)
  assert end_of(tmp_path) == end_of(untouched)
  assert (checkpoints / "damaged-10").is_dir()


def test_a_step_that_all_have_is_kept_until_all_have_a_newer_one(
  dataset, tmp_path, monkeypatch, caplog
):
  """One run cannot be saved for a while; all the same no common step is lost."""
  configs = [config_of(seed, num_epochs=5) for seed in range(2)]
  save, steps_of_first = Checkpoints.save, {}

  def fails(self, state, **options):
    if self._directory.parent.name == "run_1" and int(state.step) in (10, 15, 20):
      first = tmp_path / "run_0" / "checkpoints"
      steps_of_first[int(state.step)] = {int(path.name) for path in first.iterdir()}
      raise CheckpointError("checkpoint cannot be written: no space left")
    save(self, state, **options)

  monkeypatch.setattr(Checkpoints, "save", fails)
  train(dataset, tmp_path, configs)
  assert caplog.text.count("no space left; the training goes on") == 3
  assert all(5 in steps for steps in steps_of_first.values())
  with Checkpoints(tmp_path / "run_0" / "checkpoints", read_only=True) as left:
    assert {20, 25} <= set(left.steps)


def test_runs_without_a_common_step_are_told_apart(dataset, untouched, tmp_path):
  shutil.copytree(untouched, tmp_path, dirs_exist_ok=True)
  for number in range(3):
    (tmp_path / f"run_{number}" / "metrics.jsonl").unlink()
  shutil.rmtree(tmp_path / "run_1" / "checkpoints")
  with pytest.raises(errors.RunError, match=r"no step is saved by all .*run_1 0, "):
    train(dataset, tmp_path)


def test_runs_at_their_end_are_left_alone_and_new_ones_trained(
  dataset, untouched, tmp_path, capsys
):
  shutil.copytree(untouched, tmp_path, dirs_exist_ok=True)
  before = end_of(tmp_path)
  more = [*RUNS, config_of(6), config_of(7)]
  accuracy = train(dataset, tmp_path, more)
  assert end_of(tmp_path) == before
  assert accuracy[:3] == [lines[-1]["accuracy"] for _, lines in before]
  printed = capsys.readouterr().out
  assert "2 runs  train accuracy" in printed
  assert [line.split(": test")[0] for line in printed.splitlines()[-5:]] == [
    str(tmp_path / f"run_{number}") for number in range(5)
  ]


def test_one_run_of_several_can_go_on_alone(dataset, tmp_path, monkeypatch):
  with monkeypatch.context() as patch:
    signal_after(patch, 3)
    with pytest.raises(signals.Interrupted):
      train(dataset, tmp_path)
  [accuracy] = train(dataset, tmp_path, RUNS[:1])
  [(_, lines)] = end_of(tmp_path, RUNS[:1])
  assert lines[-1]["split"] == "test"
  assert lines[-1]["accuracy"] == accuracy
  assert [line["step"] for line in lines if line["split"] == "train"] == [
    *(2, 4, 5, 7, 9, 10)
  ]


def test_a_run_that_stands_still_is_given_up_and_the_others_go_on(
  dataset, tmp_path, caplog
):
  unsound = dataclasses.replace(
    CONFIG, objective=ObjectiveConfig(name="both", lambda_intrinsic=1e37)
  )
  configs = [config_of(1), unsound]
  with pytest.raises(errors.RunError, match="run_1: given up at step 4"):
    train(dataset, tmp_path, configs, max_skipped_steps=4)
  assert "the other runs go on" in caplog.text
  (_, sound), (_, lines) = end_of(tmp_path, configs)
  assert [line["split"] for line in (sound[-1], lines[-1])] == ["test", "test"]
  assert sum(line.get("skipped_steps", 0) for line in lines) == 10
  assert not any(line.get("skipped_steps") for line in sound)


def test_what_one_program_cannot_train_is_refused(dataset, tmp_path):
  with pytest.raises(ConfigError, match="must not differ but in seed"):
    train(dataset, tmp_path, [CONFIG, config_of(0, num_glimpses=3)])


def test_figures_are_drawn_for_each_run(dataset, tmp_path):
  configs = [_short(config) for config in RUNS[:2]]
  train(dataset, tmp_path, configs, figures=True)
  for number in range(2):
    figures = tmp_path / f"run_{number}" / "figures"
    names = {path.name for path in figures.iterdir()}
    assert names == {"glimpses.png", "learning.png"}
    assert all((figures / name).stat().st_size > 10_000 for name in names)


def test_the_synthetic_dataset_is_learned(tmp_path):
  """What the tests train on is a task: a small model gets it right."""
  config = Config(
    model=ModelConfig(hidden_size=64, branch_size=32),
    train=TrainConfig(num_epochs=6, learning_rate=3e-3, batch_size=32),
  )
  [accuracy] = train(synthetic.make(1600, 160, 500), tmp_path, [config])
  assert accuracy > 0.9
  assert np.isfinite(accuracy)
