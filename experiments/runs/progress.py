"""How far a training is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from rich import console, progress

from ramjax.config import TrainConfig


class Progress:
  """Shows epoch, step, accuracy and examples per second; a context manager.

  The bar is shown on a terminal alone; a line for each epoch is printed everywhere. Of
  several runs it shows the mean accuracy, and in the line of an epoch their range.

  Args:
    config: how the runs are trained.
    steps_per_epoch: number of steps in an epoch.
    first_epoch: number of epochs that were done before.
    num_runs: number of runs that train together.
    silent: whether to show nothing, as another process does it.
  """

  def __init__(
    self,
    config: TrainConfig,
    steps_per_epoch: int,
    first_epoch: int,
    *,
    num_runs: int = 1,
    silent: bool = False,
  ) -> None:
    self._num_epochs = config.num_epochs
    self._steps_per_epoch = steps_per_epoch
    self._batch_size = config.batch_size * num_runs
    self._num_runs = num_runs
    self._console = console.Console(highlight=False, soft_wrap=True, quiet=silent)
    self._bar = progress.Progress(
      progress.TextColumn("epoch {task.fields[epoch]}/{task.fields[num_epochs]}"),
      progress.BarColumn(),
      progress.TextColumn("step {task.completed}"),
      progress.TextColumn("accuracy {task.fields[accuracy]:.3f}"),
      progress.TextColumn("{task.fields[speed]:,.0f} examples/s"),
      progress.TextColumn("{task.fields[skipped]}"),
      progress.TimeRemainingColumn(),
      console=self._console,
      transient=True,
      disable=not self._console.is_terminal,
    )
    self._task = self._bar.add_task(
      "training",
      total=max(config.num_epochs, first_epoch) * steps_per_epoch,
      completed=first_epoch * steps_per_epoch,
      epoch=first_epoch,
      num_epochs=config.num_epochs,
      accuracy=0.0,
      speed=0.0,
      skipped="",
    )
    self._done = first_epoch * steps_per_epoch
    self._begin_epoch()

  def __enter__(self) -> Progress:
    self._bar.start()
    self._epoch_began = time.perf_counter()
    return self

  def __exit__(self, *exception: object) -> None:
    self._bar.stop()

  def resume(self, lines_of_runs: Iterable[Sequence[Mapping[str, Any]]]) -> None:
    """Takes in what the metrics of each run say of an epoch that was interrupted."""
    for lines in zip(*lines_of_runs, strict=False):
      self.update(lines[0]["epoch"], lines[0]["step"], lines)
    self._epoch_began_at = self._done

  def update(self, epoch: int, step: int, means: Sequence[Mapping[str, Any]]) -> None:
    """Shows the chunk that ended with a step, from the mean metrics of each run."""
    skipped = np.array([int(run.get("skipped_steps") or 0) for run in means])
    taken = step - self._done - skipped
    accuracy = np.array([run["accuracy"] for run in means], float)
    # Where all steps were skipped there is no accuracy.
    self._correct += np.where(taken > 0, accuracy * taken, 0.0)
    self._skipped += skipped
    self._done = step
    speeds = [run.get("examples_per_second") for run in means]
    self._bar.update(
      self._task,
      completed=step,
      epoch=epoch,
      accuracy=accuracy.mean(),
      speed=np.array(speeds, float).sum(),
      skipped=self._skipped_in_words(),
    )

  def epoch_done(self, epoch: int, step: int, validation: Sequence[float]) -> None:
    """Prints the line of an epoch, with the validation accuracy of each run."""
    seconds = time.perf_counter() - self._epoch_began
    examples = (step - self._epoch_began_at) * self._batch_size
    taken = np.maximum(self._steps_per_epoch - self._skipped, 1)
    parts = [
      f"epoch {epoch}/{self._num_epochs}",
      f"step {step}",
      *([f"{self._num_runs} runs"] if self._num_runs > 1 else []),
      f"train accuracy {_mean_and_range(self._correct / taken)}",
      f"validation accuracy {_mean_and_range(np.array(validation))}",
      f"{examples / seconds:,.0f} examples/s",
      f"{seconds:.1f} s",
      *([self._skipped_in_words("steps ")] if self._skipped.any() else []),
    ]
    self._console.print("  ".join(parts))
    self._begin_epoch()

  def _begin_epoch(self) -> None:
    self._correct = np.zeros(self._num_runs)
    self._skipped = np.zeros(self._num_runs, int)
    self._epoch_began_at = self._done
    self._epoch_began = time.perf_counter()

  def _skipped_in_words(self, what: str = "") -> str:
    return f"{self._skipped.sum()} {what}skipped" if self._skipped.any() else ""


def _mean_and_range(values: np.ndarray) -> str:
  """`0.9812`, or of several runs `0.9812 (0.9790 to 0.9831)`."""
  if len(values) == 1:
    return f"{values[0]:.4f}"
  return f"{values.mean():.4f} ({values.min():.4f} to {values.max():.4f})"
