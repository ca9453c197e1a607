"""Skipped steps, of which loss or gradient was not finite: counted and judged."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from experiments.cli.errors import RunError


class SkippedSteps:
  """Counts the steps in a row that were skipped, and gives the run up at a limit.

  One bad batch is nothing; if step after step is skipped, the parameters do not change
  any more, and the run would go on to its end for nothing.
  """

  def __init__(self, limit: int) -> None:
    self._limit = limit
    self._in_a_row = 0

  def add(self, skipped: np.ndarray, *, step: int) -> None:
    """Adds the steps up to `step`, of which each was `skipped` or not [num_steps].

    Raises:
      RunError: if the limit is reached.
    """
    for number, skip in enumerate(skipped, start=step - len(skipped) + 1):
      self._in_a_row = self._in_a_row + 1 if skip else 0
      if self._in_a_row == self._limit:
        raise RunError(
          f"given up at step {number}: {self._limit} steps in a row had a loss or"
          " gradient that is not finite and were skipped; what was saved is from before"
          " and sound; look at the data, or train with a lower --learning_rate into"
          " another --workdir"
        )


def chunk_means(history: Mapping[str, np.ndarray]) -> dict[str, float]:
  """What is reported of a chunk of steps, from the metrics of each [num_steps].

  Returns:
    The means over the steps that were not skipped (NaN if all were), with
    `skipped_steps`, the number of the others.
  """
  skipped = history["skipped"] > 0
  means = {
    name: math.nan if skipped.all() else float(values[~skipped].mean())
    for name, values in history.items()
    if name != "skipped"
  }
  return {**means, "skipped_steps": int(skipped.sum())}
