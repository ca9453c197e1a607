"""One run while it is trained: its folder, its metrics, its checkpoints."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection, Iterator, Mapping

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


@dataclasses.dataclass
class Run:
  """A run that is open for writing.

  Attributes:
    config: the run.
    workdir: its folder.
    checkpoints: where it is saved; None in all processes but the first one.
    skipped: the count of its skipped steps.
    metrics: where its metrics are written; None until `resume`.
    failure: why it was given up, if it was and other runs go on.
  """

  config: Config
  workdir: workdir_lib.Workdir
  checkpoints: Checkpoints | None
  skipped: SkippedSteps
  metrics: Metrics | None = None
  failure: RunError | None = None

  def resume(self, step: int, stack: contextlib.ExitStack) -> None:
    """Opens the metrics, without the lines of steps beyond this one.

    Raises:
      RunError: if they cannot be used.
    """
    silent = self.checkpoints is None
    self.metrics = stack.enter_context(Metrics(self.workdir, step=step, silent=silent))

  def write(
    self, *, step: int, epoch: int, split: str, values: Mapping[str, float]
  ) -> None:
    """Writes a line of metrics."""
    assert self.metrics is not None
    self.metrics.write(step=step, epoch=epoch, split=split, values=values)

  def judge(self, skipped: np.ndarray, *, step: int, alone: bool) -> None:
    """Gives the run up if too many steps in a row were skipped.

    Args:
      skipped: whether each of the last steps was skipped [num_steps].
      step: number of steps taken with the last of them.
      alone: whether the run trains by itself, so that an error ends nothing else.

    Raises:
      RunError: if it is given up and trains alone.
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
  config: Config, workdir: workdir_lib.Workdir, *, max_skipped_steps: int
) -> Iterator[Run]:
  """A run that nobody else can write meanwhile; a context manager.

  Raises:
    CheckpointError: if its checkpoints cannot be used, or another run writes them.
  """
  skipped = SkippedSteps(max_skipped_steps)
  if not parallel.is_first_process():
    yield Run(config, workdir, None, skipped)
    return
  with Checkpoints(workdir.checkpoints) as checkpoints:
    workdir_lib.record_config(workdir, config)
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
