"""How far a training is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

from rich import console, progress

from ramjax.config import TrainConfig


class Progress:
  """Shows epoch, step, accuracy and examples per second; a context manager.

  The bar is shown on a terminal alone; a line for each epoch is printed everywhere.

  Args:
    config: how the run is trained.
    steps_per_epoch: number of steps in an epoch.
    first_epoch: number of epochs that were done before.
    silent: whether to show nothing, as another process does it.
  """

  def __init__(
    self,
    config: TrainConfig,
    steps_per_epoch: int,
    first_epoch: int,
    *,
    silent: bool = False,
  ) -> None:
    num_epochs = config.num_epochs
    self._num_epochs = num_epochs
    self._steps_per_epoch = steps_per_epoch
    self._batch_size = config.batch_size
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
      total=max(num_epochs, first_epoch) * steps_per_epoch,
      completed=first_epoch * steps_per_epoch,
      epoch=first_epoch,
      num_epochs=num_epochs,
      accuracy=0.0,
      speed=0.0,
      skipped="",
    )
    self._epoch_began = time.perf_counter()
    self._done = self._epoch_began_at = first_epoch * steps_per_epoch
    self._correct = 0.0
    self._skipped = 0

  def __enter__(self) -> Progress:
    self._bar.start()
    self._epoch_began = time.perf_counter()
    return self

  def __exit__(self, *exception: object) -> None:
    self._bar.stop()

  def resume(self, lines: Iterable[Mapping[str, Any]]) -> None:
    """Takes the chunks of an epoch that was interrupted from the lines of its metrics."""
    for line in lines:
      self.update(line["epoch"], line["step"], line)
    self._epoch_began_at = self._done

  def update(self, epoch: int, step: int, means: Mapping[str, Any]) -> None:
    """Shows the mean metrics of the chunk that ended with a step."""
    skipped = int(means.get("skipped_steps") or 0)
    taken = step - self._done - skipped
    accuracy = math.nan if means["accuracy"] is None else means["accuracy"]
    if taken:  # else there is no accuracy
      self._correct += accuracy * taken
    self._skipped += skipped
    self._done = step
    self._bar.update(
      self._task,
      completed=step,
      epoch=epoch,
      accuracy=accuracy,
      speed=means.get("examples_per_second") or math.nan,
      skipped=f"{self._skipped} skipped" if self._skipped else "",
    )

  def epoch_done(self, epoch: int, step: int, validation_accuracy: float) -> None:
    """Prints the line of an epoch."""
    seconds = time.perf_counter() - self._epoch_began
    examples = (step - self._epoch_began_at) * self._batch_size
    taken = self._steps_per_epoch - self._skipped
    skipped = f"  {self._skipped} steps skipped" if self._skipped else ""
    self._console.print(
      f"epoch {epoch}/{self._num_epochs}  step {step}"
      f"  train accuracy {self._correct / max(taken, 1):.4f}"
      f"  validation accuracy {validation_accuracy:.4f}"
      f"  {examples / seconds:,.0f} examples/s  {seconds:.1f} s"
      f"{skipped}"
    )
    self._correct = 0.0
    self._skipped = 0
    self._epoch_began_at = step
    self._epoch_began = time.perf_counter()
