"""An interrupted run ends as one that nobody has touched: parameters, metrics, files."""

import itertools
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import synthetic
import trainings
from hypothesis import given
from hypothesis import strategies as st
from trainings import CONFIG, LINES, NUM_EXAMPLES, config_of

from experiments.cli import errors, signals
from experiments.runs import progress, skipped, training
from experiments.runs import workdir as workdir_lib
from experiments.runs.metrics import Metrics, read_metrics
from experiments.runs.program import chunks
from ramjax import run_folder
from ramjax.checkpoint import CheckpointError, Checkpoints
from ramjax.config import TrainConfig

pytestmark = pytest.mark.usefixtures("signal_handlers")

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope="session")
def dataset():
  return synthetic.make(NUM_EXAMPLES, 64, 64)


@pytest.fixture(scope="module")
def broken(dataset):
  """Images that are not finite when they are normalised."""
  return dataset._replace(std=(0.0,))


def train(dataset, folder, config=CONFIG, **options):
  return trainings.train(dataset, [folder], [config], **options)


def end_of(folder, config=CONFIG):
  return trainings.end_of(folder, config)


def steps_saved(folder):
  with Checkpoints(folder / "checkpoints", read_only=True) as checkpoints:
    return checkpoints.steps


@pytest.fixture(scope="module")
def untouched(dataset, tmp_path_factory):
  """A run that nobody has touched."""
  folder = tmp_path_factory.mktemp("runs") / "untouched"
  train(dataset, folder)
  _, lines = end_of(folder)
  assert [(line["step"], line["split"]) for line in lines] == LINES
  return folder


@pytest.fixture(scope="module")
def whole(untouched):
  """The end of that run."""
  return end_of(untouched)


def epochs_printed(text):
  return [
    line.split("  ")[:4] for line in text.splitlines() if line.startswith("epoch")
  ]


def test_signals_within_epochs_and_between_them(whole, dataset, tmp_path, capsys):
  """Each line of metrics is there once, and the last state is the same bit for bit."""
  train(dataset, tmp_path / "untouched")
  expected = epochs_printed(capsys.readouterr().out)
  folder = tmp_path / "run"
  # Chunk 1 (epoch 1), 3 (its end), 4 (epoch 2); the numbers count lines of one life.
  for lines, signum, step in (
    (1, signal.SIGTERM, 2),
    (2, signal.SIGINT, 5),
    (1, signal.SIGTERM, 7),
  ):
    with (
      trainings.interruption(lines, signum),
      pytest.raises(signals.Interrupted, match=f"saved at step {step}") as caught,
    ):
      train(dataset, folder)
    assert caught.value.status == 128 + signum
    assert steps_saved(folder)[-1] == step
  train(dataset, folder)
  assert end_of(folder) == end_of(tmp_path / "untouched") == whole
  printed = capsys.readouterr().out
  assert "resuming within epoch 1, step 2" in printed
  assert "resuming after epoch 1, step 5" in printed
  assert "resuming within epoch 2, step 7" in printed
  assert epochs_printed(printed) == expected  # the train accuracy is of the whole epoch


def test_a_second_start_of_a_run_at_its_end_changes_nothing(
  whole, untouched, dataset, tmp_path, capsys
):
  folder = tmp_path / "run"
  shutil.copytree(untouched, folder)
  before = (folder / "metrics.jsonl").read_bytes()
  train(dataset, folder)
  assert "resuming after epoch 2, step 10" in capsys.readouterr().out
  assert (folder / "metrics.jsonl").read_bytes() == before
  assert end_of(folder) == whole


@pytest.mark.slow
def test_an_optimizer_with_all_its_parts_outlives_an_interruption(dataset, tmp_path):
  config = config_of(
    optimizer="muon",
    max_gradient_norm=5.0,
    learning_rate_schedule="cosine",
    warmup_epochs=0.5,
  )
  train(dataset, tmp_path / "untouched", config)
  folder = tmp_path / "run"
  with (
    trainings.interruption(1),
    pytest.raises(signals.Interrupted, match="saved at step 2"),
  ):
    train(dataset, folder, config)
  train(dataset, folder, config)
  assert end_of(folder, config) == end_of(tmp_path / "untouched", config)


@pytest.mark.parametrize("num_epochs", [1, 3])
@pytest.mark.parametrize(
  ("falling", "what"),
  [
    ({"learning_rate_schedule": "cosine"}, "rate falls along a cosine"),
    ({"initial_location_noise": 2.0}, "noise falls along a line"),
  ],
)
def test_a_run_of_which_something_falls_keeps_its_length(
  falling, what, num_epochs, tmp_path
):
  place = workdir_lib.Workdir(tmp_path)
  workdir_lib.open_run(place, config_of(**falling))
  with pytest.raises(errors.UsageError) as caught:
    workdir_lib.open_run(place, config_of(**falling, num_epochs=num_epochs))
  assert str(caught.value) == (
    f"{tmp_path} holds a run whose {what} for 2 epochs;"
    " give --num_epochs=2, or another --workdir"
  )


def test_generalised_advantages_keep_the_parts_of_a_batch(tmp_path):
  """They compare the images of a part."""
  place = workdir_lib.Workdir(tmp_path)
  config = config_of().replace(objective={"credit_decay": 0.7})
  workdir_lib.open_run(place, config)
  with pytest.raises(
    errors.UsageError, match="accumulation_steps is 1 there and 2 her"
  ):
    workdir_lib.open_run(place, config.replace(train={"accumulation_steps": 2}))


def test_a_run_that_stops_after_an_epoch_keeps_its_validation_accuracy(
  dataset, tmp_path, monkeypatch
):
  """Also where this epoch was too short to be saved."""
  monkeypatch.setattr(training.Training, "is_due", lambda self, seconds: False)
  with (
    trainings.interruption(4),
    pytest.raises(signals.Interrupted, match="saved at step 5"),
  ):
    train(dataset, tmp_path)
  with Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
    assert checkpoints.best_step == 5


def test_a_damaged_checkpoint_costs_time_and_nothing_else(
  whole, untouched, dataset, tmp_path
):
  folder = tmp_path / "run"
  shutil.copytree(untouched, folder)
  (folder / "checkpoints" / "10" / "_CHECKPOINT_METADATA").write_text("{")
  train(dataset, folder)
  assert end_of(folder) == whole
  assert (folder / "checkpoints" / "damaged-10").is_dir()


@pytest.mark.parametrize("kind", ["cut off", "in the middle"])
def test_damaged_metrics(kind, untouched, dataset, tmp_path):
  """A last line that was cut off is written anew, other damage is not hidden."""
  folder = tmp_path / "run"
  shutil.copytree(untouched, folder)
  metrics = folder / "metrics.jsonl"
  content = metrics.read_text()
  if kind == "cut off":
    metrics.write_text(content[:-20])
    train(dataset, folder)
    assert metrics.read_text() == content
  else:
    first, _, *rest = content.split("\n")
    damaged = "\n".join([first, "3", *rest])
    metrics.write_text(damaged)
    with pytest.raises(errors.RunError, match=r"line 2, is damaged"):
      train(dataset, folder)
    assert metrics.read_text() == damaged


def test_a_failed_save_does_not_stop_the_training(
  whole, dataset, tmp_path, monkeypatch, caplog
):
  """But the last one has to succeed, and then the same command goes on."""
  folder = tmp_path / "run"
  save, full = Checkpoints.save, {5}

  def fails(self, state, **options):
    if int(state.step) in full:
      raise CheckpointError("checkpoint cannot be written: no space left")
    save(self, state, **options)

  monkeypatch.setattr(Checkpoints, "save", fails)
  train(dataset, folder)
  assert "no space left; the training goes on" in caplog.text
  assert end_of(folder) == whole
  assert steps_saved(folder) == [10]

  folder, full = tmp_path / "another", {10}
  with pytest.raises(CheckpointError, match="no space left"):
    train(dataset, folder)
  full = set()
  train(dataset, folder)
  assert end_of(folder) == whole


def test_metrics_are_on_disk_before_the_checkpoint_that_follows_them(
  dataset, tmp_path, monkeypatch
):
  """Of the chunk at which a signal came, of an epoch, and of the last one."""
  folder = tmp_path / "run"
  on_disk, saved = b"", []
  fsync, save = os.fsync, Checkpoints.save

  def note_fsync(descriptor):
    nonlocal on_disk
    fsync(descriptor)
    file = folder / "metrics.jsonl"
    if file.exists() and os.path.samestat(os.fstat(descriptor), file.stat()):
      on_disk = file.read_bytes()

  def look_and_save(self, state, **options):
    lines = [json.loads(line) for line in on_disk.splitlines()]
    saved.append((int(state.step), [(line["step"], line["split"]) for line in lines]))
    save(self, state, **options)

  monkeypatch.setattr(os, "fsync", note_fsync)
  monkeypatch.setattr(Checkpoints, "save", look_and_save)
  with trainings.interruption(1), pytest.raises(signals.Interrupted):
    train(dataset, folder)
  train(dataset, folder)
  assert saved == [(2, LINES[:1]), (5, LINES[:4]), (10, LINES[:8])]


def test_no_checkpoint_follows_metrics_that_are_not_on_disk(
  whole, dataset, tmp_path, monkeypatch, caplog
):
  folder = tmp_path / "run"
  sync, calls = Metrics.sync, itertools.count(1)

  def fails_at_first(self):
    if next(calls) == 1:
      raise errors.RunError("metrics.jsonl cannot be written: no space left")
    sync(self)

  monkeypatch.setattr(Metrics, "sync", fails_at_first)
  train(dataset, folder)
  assert "no space left; the training goes on" in caplog.text
  assert steps_saved(folder) == [10]
  assert end_of(folder) == whole


def test_a_second_process_changes_nothing(untouched, dataset, tmp_path):
  """Not even the configuration, if it would train for longer."""
  folder = tmp_path / "run"
  shutil.copytree(untouched, folder)
  longer = config_of(num_epochs=3)

  def content():
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}

  before = content()
  with (
    Checkpoints(folder / "checkpoints"),
    pytest.raises(CheckpointError, match="is being written by another run"),
  ):
    train(dataset, folder, longer)
  assert content() == before
  train(dataset, folder, longer)
  assert run_folder.read_config(folder) == longer


def test_the_rate_decays_once_an_epoch(dataset, tmp_path):
  """If almost nothing is left of it, the second epoch changes nothing."""
  train(dataset, tmp_path, config_of(learning_rate_decay=1e-12))
  _, lines = end_of(tmp_path)
  first, second = (line for line in lines if line["split"] == "validation")
  assert first == second | {"step": 5, "epoch": 1}


def test_a_run_without_a_finite_step_ends_with_its_accuracy_and_valid_json(
  broken, tmp_path, capsys
):
  train(broken, tmp_path)
  assert capsys.readouterr().out.splitlines()[-1].startswith("test accuracy 0.")
  assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()
  _, lines = end_of(tmp_path)
  assert all(line["loss"] is None for line in lines)


def test_a_run_that_skips_step_after_step_is_given_up(untouched, broken, tmp_path):
  """Images that are not finite, from the third epoch on: what was saved stays."""
  folder, longer = tmp_path / "run", config_of(num_epochs=5)
  shutil.copytree(untouched, folder)
  with pytest.raises(errors.RunError, match="given up at step 13: 3 steps in a row"):
    train(broken, folder, longer, max_skipped_steps=3)
  before, after = end_of(untouched), end_of(folder)
  assert after[0] == before[0]
  lines = [line for line in after[1] if line["step"] > 10]
  assert [line["skipped_steps"] for line in lines] == [2, 2]
  assert all(line["loss"] is None for line in lines)


def test_skipped_steps_are_shown_and_means_are_those_of_the_others(capsys):
  history = {"accuracy": [0.5, np.nan, 1.0, 7.0], "skipped": [0.0, 1.0, 0.0, 0.0]}
  history = {name: np.array(values) for name, values in history.items()}
  means = skipped.chunk_means({k: v[:3] for k, v in history.items()})
  assert means == {"accuracy": 0.75, "skipped_steps": 1}
  none_taken = skipped.chunk_means({k: v[1:2] for k, v in history.items()})
  assert np.isnan(none_taken["accuracy"])
  with progress.Progress(TrainConfig(), 4, 0) as bar:
    for step, chunk in ((3, means), (4, none_taken)):
      bar.update(1, step, [{**chunk, "examples_per_second": 1.0}])
    bar.epoch_done(1, 4, [0.5])
  shown = capsys.readouterr().out
  assert "train accuracy 0.7500" in shown
  assert shown.strip().endswith("2 steps skipped")


def test_skipped_steps_are_counted_in_a_row_over_chunks():
  count = skipped.SkippedSteps(3)
  count.add(np.array([True, False, True, True]), step=4)
  count.add(np.array([False, True]), step=6)
  with pytest.raises(errors.RunError, match="given up at step 8: 3 steps in a row"):
    count.add(np.array([True, True, False]), step=9)


@given(
  steps_per_epoch=st.integers(1, 60),
  steps_per_call=st.integers(1, 20),
  row=st.integers(0, 60),
)
def test_chunks_end_where_they_end_without_interruption(
  steps_per_epoch, steps_per_call, row
):
  def ends(row):
    found = list(chunks(row, steps_per_epoch, steps_per_call))
    assert all(0 < stop - start <= steps_per_call for start, stop in found)
    assert [start for start, _ in found[1:]] == [stop for _, stop in found[:-1]]
    return [stop for _, stop in found]

  assert ends(row) == [end for end in ends(0) if end > row]


def values(step):
  return {"loss": 1 / step, "accuracy": step / 100}


def test_lines_wait_for_space(tmp_path, caplog):
  """On a full disk nothing is lost and nothing is written twice."""
  place = workdir_lib.Workdir(tmp_path)
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  with Metrics(place, step=0) as metrics:
    try:
      resource.setrlimit(resource.RLIMIT_FSIZE, (150, before[1]))
      for step in range(1, 6):
        metrics.write(step=step, epoch=1, split="train", values=values(step))
      with pytest.raises(
        errors.RunError, match=r"metrics.jsonl cannot be written: File"
      ):
        metrics.sync()
    finally:
      resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caplog.text.count("its lines wait in memory") == 1
    metrics.write(step=6, epoch=1, split="train", values=values(6))
    metrics.sync()
  lines = read_metrics(place)
  assert [line["step"] for line in lines] == list(range(1, 7))
  assert all(line["loss"] == 1 / line["step"] for line in lines)


def test_what_a_killed_start_left_is_not_taken_for_somebody_elses(tmp_path):
  (tmp_path / "run" / ".new-abc").mkdir(parents=True)
  place = workdir_lib.Workdir(tmp_path / "run")
  workdir_lib.open_run(place, CONFIG)
  assert run_folder.read_config(place.path) == CONFIG


def test_label_of_a_run_names_its_data():
  def label(dataset, **options):
    return workdir_lib.data_label(TrainConfig(dataset=dataset, **options))

  assert label("mnist_cluttered_60") == "mnist_cluttered_60"
  assert label("mnist", canvas_size=80, num_clutter=6) == "mnist_canvas80_clutter6"
  assert label("npz:/somewhere/cells.npz") == "npz_cells"
  assert label("folder:/somewhere/cells/", canvas_size=9) == "folder_cells_canvas9"


@pytest.mark.slow
@pytest.mark.parametrize("signum", signals.SIGNALS)
def test_a_script_that_gets_a_signal(signum, npz_file, tmp_path):
  """Its status and its line; the state that the line names is there."""
  command = [sys.executable, "-m", "experiments.train", f"--workdir={tmp_path / 'run'}"]
  command += [f"--dataset=npz:{npz_file}", "--num_glimpses=2", "--hidden_size=16"]
  command += ["--steps_per_call=5", "--num_epochs=1000000"]
  with subprocess.Popen(
    command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
  ) as process:
    while not process.stdout.readline().startswith("epoch 1/"):
      assert process.poll() is None
    process.send_signal(signum)
    _, error = process.communicate(timeout=60)
  assert process.returncode == 128 + signum
  line = re.fullmatch(
    rf"train: {signum.name}: saved at step (\d+); run the same command again to go on\n",
    error,
  )
  assert line, error
  assert steps_saved(tmp_path / "run")[-1] == int(line[1])


@pytest.mark.slow
def test_a_short_campaign_of_kills():
  """`python -m tests.kill_campaign` kills hundreds; BUILD_NOTES.md has what it found."""
  command = [sys.executable, "-m", "tests.kill_campaign"]
  command += ["--mid_save=20", "--mid_training=10", "--seed=1"]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
  assert done.returncode == 0, done.stdout + done.stderr
  report = json.loads(done.stdout.splitlines()[-1])
  assert report["lost"] == "nothing"
  assert report["mid_save"]["kills"] == 20
  assert report["mid_save"]["saves_cut_short"] > 0
  assert report["mid_training"]["kills"] >= 10
