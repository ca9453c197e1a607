"""A run while it is trained: opened where it was left, written down, and saved."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
from absl import logging

import ramjax
from experiments.runs import workdir as workdir_lib
from experiments.cli.errors import RunError
from experiments.runs.metrics import Metrics, read_metrics
from experiments.runs.programs import Programs
from experiments.runs.progress import Progress
from experiments.runs.skipped import SkippedSteps
from ramjax import parallel
from ramjax.checkpoint import CheckpointError, Checkpoints
from ramjax.config import Config


@dataclasses.dataclass
class Run:
  """A run that is open: how far it is, and what is written of it.

  Attributes:
    programs: what it computes.
    state: the state that it has reached, on all devices.
    step: number of steps taken.
    checkpoints: where it is saved; None in all processes but the first one.
    metrics: where its metrics are written.
    progress: where they are shown.
    skipped: the count of skipped steps, which may give the run up.
  """

  programs: Programs
  state: ramjax.TrainState
  step: int
  checkpoints: Checkpoints | None
  metrics: Metrics
  progress: Progress
  skipped: SkippedSteps

  def chunk_done(
    self, epoch: int, means: Mapping[str, float], skipped: np.ndarray
  ) -> None:
    """Writes, shows and judges a chunk, of which this is the last step.

    Args:
      epoch: number of its epoch.
      means: its metrics.
      skipped: whether each of its steps was skipped [num_steps].

    Raises:
      RunError: if too many steps in a row were.
    """
    self.metrics.write(step=self.step, epoch=epoch, split="train", values=means)
    self.progress.update(epoch, self.step, means)
    self.skipped.add(skipped, step=self.step)

  def epoch_done(self, epoch: int, scores: Mapping[str, float]) -> None:
    """Writes and shows the metrics of the validation after an epoch."""
    self.metrics.write(step=self.step, epoch=epoch, split="validation", values=scores)
    self.progress.epoch_done(epoch, self.step, scores["accuracy"])

  def save(self, *, accuracy: float | None = None, required: bool) -> None:
    """Saves; what is not required may fail, as on a full disk, with a warning.

    The lines of the steps up to here are on disk before the checkpoint is there, so
    that going on from it leaves no gap. What is required and fails, fails in all
    processes.
    """
    with parallel.together():
      if self.checkpoints is None:
        return
      state = parallel.on_this_process(self.state)
      try:
        self.metrics.sync()
        self.checkpoints.save(state, accuracy=accuracy)
      except (CheckpointError, RunError) as error:
        if required:
          raise
        logging.warning("%s; the training goes on and tries again later", error)


@contextlib.contextmanager
def resumed(
  config: Config,
  workdir: workdir_lib.Workdir,
  programs: Programs,
  skipped: SkippedSteps,
) -> Iterator[Run]:
  """A run at its newest checkpoint, or before its first step; a context manager.

  Within it nobody else can write the run. Of several processes the first one reads and
  writes, and all have the state that it has read.

  Args:
    config: the run.
    workdir: its folder.
    programs: what it computes.
    skipped: the count of skipped steps.

  Raises:
    CheckpointError: if its checkpoints cannot be used, or another run writes them.
    RunError: if its metrics cannot be used.
  """
  first = parallel.is_first_process()
  state = programs.init()
  checkpoints = None
  with contextlib.ExitStack() as stack:
    with parallel.together():
      if first:
        checkpoints = stack.enter_context(Checkpoints(workdir.checkpoints))
        workdir_lib.record_config(workdir, config)
        if checkpoints.latest_step is not None:
          state = checkpoints.restore(state)
      metrics = stack.enter_context(
        Metrics(workdir, step=int(state.step), silent=not first)
      )
    state = parallel.from_first_process(state)
    step = int(state.step)
    state = programs.place(state)
    epoch, row = divmod(step, programs.steps_per_epoch)
    if first and step > 0:
      where = f"within epoch {epoch + 1}" if row else f"after epoch {epoch}"
      print(f"resuming {where}, step {step}", flush=True)
    progress = Progress(config.train, programs.steps_per_epoch, epoch, silent=not first)
    if first:
      progress.resume(
        line
        for line in read_metrics(workdir)
        if line["split"] == "train" and line["step"] > step - row
      )
    yield Run(programs, state, step, checkpoints, metrics, progress, skipped)
