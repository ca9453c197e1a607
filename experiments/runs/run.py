"""One run while it is trained: its folder, its metrics, its checkpoints."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection, Iterator

import numpy as np
from absl import logging

import ramjax
from experiments.cli.errors import RunError
from experiments.runs import workdir as workdir_lib
from experiments.runs.metrics import Metrics, read_metrics
from experiments.runs.skipped import SkippedSteps
from ramjax import parallel
from ramjax.checkpoint import CheckpointError, Checkpoints
from ramjax.config import Config
from ramjax.data import DatasetInfo


@dataclasses.dataclass
class Run:
  """A run that is open for writing.

  Attributes:
    config: the run.
    workdir: its folder.
    checkpoints: where it is saved; None in all processes but the first one.
    skipped: the count of its skipped steps.
    metrics: where its metrics are written; None until the step is known from which it
      goes on, and in all processes but the first one.
    failure: why it was given up, if it was and other runs go on.
  """

  config: Config
  workdir: workdir_lib.Workdir
  checkpoints: Checkpoints | None
  skipped: SkippedSteps
  metrics: Metrics | None = None
  failure: RunError | None = None

  def judge(self, skipped: np.ndarray, *, step: int, alone: bool) -> None:
    """Gives the run up if too many steps in a row were skipped, see `SkippedSteps.add`.

    Raises:
      RunError: if it is given up and trains alone, so that the error ends nothing else.
    """
    if self.failure is not None:
      return
    try:
      self.skipped.add(skipped, step=step)
    except RunError as error:
      if alone:
        raise
      self.failure = RunError(f"{self.workdir.path}: {error}")
      logging.warning("%s (the other runs go on)", self.failure)

  def save(
    self,
    state: ramjax.TrainState,
    *,
    accuracy: float | None,
    required: bool,
    keep: Collection[int],
  ) -> bool:
    """Saves a state. If it is not required, a failure, as on a full disk, is a warning.

    The metrics of the steps up to here are on disk before the checkpoint is there, so
    that a resumed run has no gap.

    Args:
      state: the state.
      accuracy: its validation accuracy.
      required: whether a failure is an error.
      keep: steps whose checkpoints are not removed yet.

    Returns:
      Whether it is saved.
    """
    assert self.metrics is not None
    assert self.checkpoints is not None
    try:
      self.metrics.sync()
      self.checkpoints.save(state, accuracy=accuracy, keep=keep)
    except (CheckpointError, RunError) as error:
      if required:
        raise
      logging.warning("%s; the training goes on and tries again later", error)
      return False
    return True


@contextlib.contextmanager
def opened(
  config: Config,
  workdir: workdir_lib.Workdir,
  *,
  info: DatasetInfo | None = None,
  max_skipped_steps: int,
) -> Iterator[Run]:
  """A run that nobody else can write meanwhile; a context manager.

  Its `config.json` gets `config` and, if it is given, `info`.

  Raises:
    CheckpointError: if its checkpoints cannot be used, or another run writes them.
  """
  skipped = SkippedSteps(max_skipped_steps)
  if not parallel.is_first_process():
    yield Run(config, workdir, None, skipped)
    return
  with Checkpoints(workdir.checkpoints) as checkpoints:
    workdir_lib.record_config(workdir, config, info)
    yield Run(config, workdir, checkpoints, skipped)


def finished_accuracy(workdir: workdir_lib.Workdir, config: Config) -> float | None:
  """The test accuracy of a run that is at its end; None if it is not.

  Raises:
    RunError: if its metrics are damaged.
  """
  for line in read_metrics(workdir):
    if line["split"] == "test" and line["epoch"] == config.train.num_epochs:
      return line["accuracy"]
  return None


def given_up(workdir: workdir_lib.Workdir, max_skipped_steps: int) -> list[RunError]:
  """Why a run that is at its end was given up; nothing if it was not.

  It was if its last chunks were skipped, with as many steps as `SkippedSteps` allows.

  Raises:
    RunError: if its metrics are damaged.
  """
  lines = [line for line in read_metrics(workdir) if line["split"] == "train"]
  skipped = 0
  for line in reversed(lines):
    if line["accuracy"] is not None:  # a step was taken
      break
    skipped += int(line.get("skipped_steps") or 0)
  if skipped < max_skipped_steps:
    return []
  message = f"{workdir.path}: given up: its last {skipped} steps were skipped"
  return [RunError(f"{message}, since loss or gradient was not finite")]
