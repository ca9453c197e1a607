"""Runs that train together: opened where they were left, written down, and saved."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence

import ramjax
from experiments.cli.errors import RunError
from experiments.runs.metrics import Metrics, read_metrics
from experiments.runs.program import Program, step_of
from experiments.runs.progress import Progress
from experiments.runs.run import Run, opened
from experiments.runs.workdir import Workdir
from ramjax import parallel
from ramjax.checkpoint import CheckpointError, Checkpoints
from ramjax.config import Config
from ramjax.data import DatasetInfo
from ramjax.networks import num_parameters


@dataclasses.dataclass
class Training:
  """Runs that train together.

  Attributes:
    program: what they compute.
    runs: their folders.
    state: the state that they have reached, on all devices.
    step: number of steps taken.
    progress: where they are shown.
    saved_step: the newest step that all of them have saved.
    saved_at: when saving ended last, in seconds of a clock.
    save_seconds: how long it took.
  """

  program: Program
  runs: Sequence[Run]
  state: ramjax.TrainState
  step: int
  progress: Progress
  saved_step: int
  saved_at: float = dataclasses.field(default_factory=time.monotonic)
  save_seconds: float = 0.0

  @property
  def epochs_done(self) -> int:
    """Number of epochs that are complete."""
    return self.step // self.program.steps_per_epoch

  def is_due(self, seconds: float) -> bool:
    """Whether so many seconds have gone by since the last save.

    All processes must call it, and get the same answer.
    """
    return parallel.any_process(time.monotonic() - self.saved_at >= seconds)

  def write(self, split: str, values: Sequence[Mapping[str, float]]) -> None:
    """Writes a line of metrics of each run, at the step that they have reached."""
    epoch = -(-self.step // self.program.steps_per_epoch)
    for run, of_run in zip(self.runs, values, strict=True):
      if run.metrics is not None:
        run.metrics.write(step=self.step, epoch=epoch, split=split, values=of_run)

  def save(
    self, *, accuracy: Sequence[float] | None = None, required: bool = False
  ) -> None:
    """Saves all runs, see `Run.save`.

    The newest step that all have saved is kept until all have saved a newer one.
    """
    began = time.monotonic()
    with parallel.together():
      self._save(accuracy, required)
    self.saved_at = time.monotonic()
    self.save_seconds = self.saved_at - began

  def _save(self, accuracy: Sequence[float] | None, required: bool) -> None:
    if parallel.is_first_process():
      states = self.program.split(self.state)
      rated: Sequence[float | None] = accuracy or [None] * len(states)
      saved = [
        run.save(state, accuracy=rate, required=required, keep={self.saved_step})
        for run, state, rate in zip(self.runs, states, rated, strict=True)
      ]
      if all(saved):
        self.saved_step = self.step


@contextlib.contextmanager
def resumed(
  program: Program,
  folders: Sequence[tuple[Config, Workdir]],
  max_skipped_steps: int,
  info: DatasetInfo | None = None,
) -> Iterator[Training]:
  """Runs at their newest common checkpoint, or before their first step.

  A context manager, within which nobody else can write the runs. Of several processes
  the first one reads and writes, and all have the state that it has read.

  Raises:
    CheckpointError: if checkpoints cannot be used, or another process writes them.
    RunError: if metrics cannot be used, or the runs have no step in common.
  """
  first = parallel.is_first_process()
  state = program.init()
  with contextlib.ExitStack() as stack:
    with parallel.together():
      runs = [
        stack.enter_context(
          opened(config, workdir, info=info, max_skipped_steps=max_skipped_steps)
        )
        for config, workdir in folders
      ]
      if first:
        state = program.join(_restore(runs, program.split(state)))
        for run in runs:
          metrics = Metrics(run.workdir, step=step_of(state))
          run.metrics = stack.enter_context(metrics)
    state = parallel.from_first_process(state)
    step = step_of(state)
    config = folders[0][0].train
    epoch, row = divmod(step, program.steps_per_epoch)
    if first and epoch < config.num_epochs:
      for run in runs:  # of the state at the end of a shorter training
        run.workdir.confidence.unlink(missing_ok=True)
    if first:
      print(f"{num_parameters(state.params) // program.num_runs:,} parameters")
      if step > 0:
        where = f"within epoch {epoch + 1}" if row else f"after epoch {epoch}"
        print(f"resuming {where}, step {step}", flush=True)
    progress = Progress(
      config, program.steps_per_epoch, epoch, num_runs=len(runs), silent=not first
    )
    if first:
      progress.resume(
        [
          line
          for line in read_metrics(run.workdir)
          if line["split"] == "train" and line["step"] > step - row
        ]
        for run in runs
      )
    yield Training(program, runs, program.place(state), step, progress, step)


def _restore(
  runs: Sequence[Run], fresh: Sequence[ramjax.TrainState]
) -> Sequence[ramjax.TrainState]:
  """The states that runs go on from.

  A run alone goes on from its newest checkpoint. Runs that train together go on from the
  newest step that all of them have saved. They begin anew if there is none, as after a
  first save that was cut short.

  Raises:
    CheckpointError: if a checkpoint cannot be read and no older one serves.
    RunError: if runs that train together have saved several steps, but none in common.
  """
  checkpoints = [run.checkpoints for run in runs if run.checkpoints is not None]
  if len(runs) == 1:
    steps = checkpoints[0].steps
    return [checkpoints[0].restore(fresh[0])] if steps else fresh
  while (step := _newest_common_step(checkpoints)) is not None:
    try:
      return [
        each.restore(like, step=step)
        for each, like in zip(checkpoints, fresh, strict=True)
      ]
    except CheckpointError:
      # A damaged checkpoint is set aside by now, and an older step may serve.
      if step == _newest_common_step(checkpoints):
        raise
  if max(len(each.steps) for each in checkpoints) > 1:
    reached = ", ".join(
      f"{run.workdir.path} {each.latest_step or 0}"
      for run, each in zip(runs, checkpoints, strict=True)
    )
    raise RunError(
      f"the runs cannot go on together, as no step is saved by all of them ({reached});"
      " train each alone, with its --seed, or give another --workdir"
    )
  return fresh


def _newest_common_step(checkpoints: Sequence[Checkpoints]) -> int | None:
  """The newest step that all have; None if there is none."""
  common = set.intersection(*(set(each.steps) for each in checkpoints))
  return max(common, default=None)
