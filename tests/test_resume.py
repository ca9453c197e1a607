"""An interrupted run ends as one that nobody has touched: parameters, metrics, files."""

import dataclasses
import functools
import itertools
import json
import os
import pathlib
import re
import resource
import signal
import subprocess
import sys

import jax
import pytest
import synthetic
from hypothesis import given
from hypothesis import strategies as st

import ramjax
from experiments.cli import errors, signals
from experiments.runs import trainer
from experiments.runs import workdir as workdir_lib
from experiments.runs.metrics import Metrics, read_metrics
from experiments.runs.program import chunks
from ramjax.checkpoint import CheckpointError, Checkpoints
from ramjax.config import Config, ModelConfig, TrainConfig
from ramjax.digest import state_digest

pytestmark = pytest.mark.slow

CONFIG = Config(
  model=ModelConfig(hidden_size=16, branch_size=8),
  train=TrainConfig(num_glimpses=2, num_epochs=2),
)
STEPS_PER_EPOCH, STEPS_PER_CALL = 5, 2  # two whole chunks and a short one
LINES = [(2, "train"), (4, "train"), (5, "train"), (5, "validation")]
LINES += [(7, "train"), (9, "train"), (10, "train"), (10, "validation"), (10, "test")]


@pytest.fixture(scope="module", autouse=True)
def quick(tmp_path_factory):
  """Every life would compile the same."""
  cache = tmp_path_factory.mktemp("cache")
  names = {
    "jax_compilation_cache_dir": str(cache),
    "jax_persistent_cache_min_compile_time_secs": 0,
  }
  before = {name: getattr(jax.config, name) for name in names}
  with pytest.MonkeyPatch.context() as patch:
    for name, value in names.items():
      jax.config.update(name, value)
      patch.setenv(name.upper(), str(value))  # for the scripts
    yield
    for name, value in before.items():
      jax.config.update(name, value)


@pytest.fixture(autouse=True)
def handlers():
  before = {signum: signal.getsignal(signum) for signum in signals.SIGNALS}
  yield
  for signum, handler in before.items():
    signal.signal(signum, handler)


@pytest.fixture(scope="module")
def dataset():
  return synthetic.make(160, 160, 160)


def train(dataset, folder, config=CONFIG):
  place = workdir_lib.Workdir(folder)
  workdir_lib.open_run(place, config)
  trainer.train(
    [config], dataset, [place], steps_per_call=STEPS_PER_CALL, figures=False
  )


def last_state(folder, config=CONFIG):
  optimizer = ramjax.make_optimizer(config.train, steps_per_epoch=STEPS_PER_EPOCH)
  init = functools.partial(ramjax.init_train_state, config=config, optimizer=optimizer)
  like = jax.eval_shape(lambda: init(jax.random.key(0)))
  with Checkpoints(folder / "checkpoints", read_only=True) as checkpoints:
    return checkpoints.restore(like)


def end_of(folder, config=CONFIG):
  """Digest of the last state, its step, and the metrics but for what a clock says."""
  state = last_state(folder, config)
  digest, step = state_digest(state), int(state.step)
  lines = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
  for line in lines:
    line.pop("examples_per_second", None)
  return digest, step, lines


@pytest.fixture(scope="module")
def whole(dataset, tmp_path_factory):
  """The end of a run that nobody has touched, and its printed epochs."""
  folder = tmp_path_factory.mktemp("runs") / "whole"
  train(dataset, folder)
  found = end_of(folder)
  assert found[1] == 10
  assert [(line["step"], line["split"]) for line in found[2]] == LINES
  return found


def signal_after(monkeypatch, number, signum):
  """Sends this process a signal when so many lines of metrics have been written."""
  written = itertools.count(1)
  write = Metrics.write

  def write_and_signal(self, **line):
    write(self, **line)
    if next(written) == number:
      os.kill(os.getpid(), signum)

  monkeypatch.setattr(Metrics, "write", write_and_signal)


def epochs_printed(text):
  return [
    line.split("  ")[:4] for line in text.splitlines() if line.startswith("epoch")
  ]


def test_signals_within_epochs_and_between_them(
  whole, dataset, tmp_path, monkeypatch, capsys
):
  """Each line of metrics is there once, and the last state is the same bit for bit."""
  folder = tmp_path / "run"
  train(dataset, folder)
  expected = epochs_printed(capsys.readouterr().out)
  (tmp_path / "run").rename(tmp_path / "untouched")

  # Chunk 1 (epoch 1), 3 (its end), 4 (epoch 2); the numbers count lines of one life.
  for lines, signum, step in (
    (1, signal.SIGTERM, 2),
    (2, signal.SIGINT, 5),
    (1, signal.SIGTERM, 7),
  ):
    with monkeypatch.context() as patch:
      signal_after(patch, lines, signum)
      with pytest.raises(signals.Interrupted, match=f"saved at step {step}") as caught:
        train(dataset, folder)
    assert caught.value.status == 128 + signum
    with Checkpoints(folder / "checkpoints", read_only=True) as checkpoints:
      assert checkpoints.latest_step == step
    for again in signals.SIGNALS:
      signal.signal(again, signal.default_int_handler)
  train(dataset, folder)
  assert end_of(folder) == end_of(tmp_path / "untouched") == whole
  printed = capsys.readouterr().out
  assert "resuming within epoch 1, step 2" in printed
  assert "resuming after epoch 1, step 5" in printed
  assert "resuming within epoch 2, step 7" in printed
  assert epochs_printed(printed) == expected  # the train accuracy is of the whole epoch


def test_an_optimizer_with_all_its_parts_outlives_an_interruption(
  dataset, tmp_path, monkeypatch
):
  options = {"optimizer": "muon", "learning_rate": 0.01, "max_gradient_norm": 5.0}
  options |= {"learning_rate_schedule": "cosine", "warmup_epochs": 0.5}
  config = dataclasses.replace(
    CONFIG, train=dataclasses.replace(CONFIG.train, **options)
  )
  train(dataset, tmp_path / "untouched", config)
  folder = tmp_path / "run"
  with monkeypatch.context() as patch:
    signal_after(patch, 1, signal.SIGTERM)
    with pytest.raises(signals.Interrupted, match="saved at step 2"):
      train(dataset, folder, config)
  train(dataset, folder, config)
  assert end_of(folder, config) == end_of(tmp_path / "untouched", config)


@pytest.mark.parametrize("num_epochs", [1, 3])
def test_a_run_whose_rate_falls_to_nothing_has_the_length_that_it_has(
  num_epochs, tmp_path
):
  cosine = dataclasses.replace(CONFIG.train, learning_rate_schedule="cosine")
  place = workdir_lib.Workdir(tmp_path)
  workdir_lib.open_run(place, dataclasses.replace(CONFIG, train=cosine))
  other = dataclasses.replace(cosine, num_epochs=num_epochs)
  with pytest.raises(errors.UsageError) as caught:
    workdir_lib.open_run(place, dataclasses.replace(CONFIG, train=other))
  assert str(caught.value) == (
    f"{tmp_path} holds a run whose rate falls along a cosine for 2 epochs;"
    " give --num_epochs=2, or another --workdir"
  )


def test_a_damaged_checkpoint_costs_time_and_nothing_else(whole, dataset, tmp_path):
  folder = tmp_path / "run"
  train(dataset, folder)
  (folder / "checkpoints" / "10" / "_CHECKPOINT_METADATA").write_text("{")
  train(dataset, folder)
  assert end_of(folder) == whole
  assert (folder / "checkpoints" / "damaged-10").is_dir()


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
  with Checkpoints(folder / "checkpoints", read_only=True) as checkpoints:
    assert checkpoints.steps == [10]

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
  with monkeypatch.context() as patch:
    signal_after(patch, 1, signal.SIGTERM)
    with pytest.raises(signals.Interrupted):
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
  with Checkpoints(folder / "checkpoints", read_only=True) as checkpoints:
    assert checkpoints.steps == [10]
  assert end_of(folder) == whole


def test_a_second_run_changes_nothing(dataset, tmp_path):
  """Not even the configuration, if it would train for longer."""
  folder = tmp_path / "run"
  train(dataset, folder)
  longer = Config(model=CONFIG.model, train=TrainConfig(num_glimpses=2, num_epochs=3))

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
  assert workdir_lib.read_config(workdir_lib.Workdir(folder)) == longer


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
  assert workdir_lib.read_config(place) == CONFIG


ROOT = pathlib.Path(__file__).parent.parent


@pytest.mark.parametrize("signum", signals.SIGNALS)
def test_a_script_that_gets_a_signal(signum, tmp_path):
  """Its status, its line, and the same command goes on."""
  command = [sys.executable, "-m", "experiments.train", f"--workdir={tmp_path / 'run'}"]
  command += ["--num_train_examples=640", "--num_glimpses=2", "--hidden_size=16"]
  command += ["--steps_per_call=5", "--num_epochs=1000"]
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
  with Checkpoints(tmp_path / "run" / "checkpoints", read_only=True) as checkpoints:
    assert checkpoints.latest_step == int(line[1])


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
