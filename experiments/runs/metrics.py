"""The metrics of a run: lines of `metrics.jsonl` and TensorBoard events."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging

from experiments.cli.errors import RunError
from experiments.cli.files import finite, replace
from experiments.runs.tensorboard import Events
from experiments.runs.workdir import Workdir

_SPLITS = ("train", "validation", "test")
_METRIC = re.compile(r"[\w/]+", re.ASCII)
_LARGEST = float(np.finfo(np.float32).max)


class Metrics:
  """Metrics of a run, to `metrics.jsonl` and TensorBoard; a context manager.

  Lines beyond `step`, from which the run goes on, are dropped first, so that an
  interrupted run leaves neither gaps nor duplicates. On a full disk lines wait in
  memory until there is space.
  """

  def __init__(self, workdir: Workdir, *, step: int) -> None:
    kept = [
      line
      for line in read_metrics(workdir)
      if line["step"] < step or (line["step"] == step and line["split"] != "test")
    ]
    replace(workdir.metrics, "".join(json.dumps(line) + "\n" for line in kept))
    self._path = workdir.metrics
    self._file = workdir.metrics.open("ab", buffering=0)
    self._waiting = b""
    self._tensorboard = Events(workdir.tensorboard, step=step)

  def __enter__(self) -> Metrics:
    return self

  def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
    try:
      if kind is None:
        self.sync()
    finally:
      self._file.close()
      self._tensorboard.close()

  def write(
    self, *, step: int, epoch: int, split: str, values: Mapping[str, float]
  ) -> None:
    """Adds a line; numbers that are not finite become null."""
    line = {"step": step, "epoch": epoch, "split": split, **values}
    text = json.dumps(finite(line), allow_nan=False) + "\n"
    self._waiting += text.encode()
    try:
      self._write_waiting()
    except OSError as error:
      if self._waiting.count(b"\n") == 1:  # the first to wait: told once
        logging.warning(
          "%s cannot be written: %s; its lines wait in memory",
          self._path,
          error.strerror,
        )
    self._tensorboard.write(
      step, {f"{split}/{name}": value for name, value in values.items()}
    )

  def sync(self) -> None:
    """Returns when all lines are on disk.

    Raises:
      RunError: if they cannot be written.
    """
    try:
      self._write_waiting()
      os.fsync(self._file.fileno())
    except OSError as error:
      raise RunError(f"{self._path} cannot be written: {error.strerror}") from error
    self._tensorboard.flush()

  def _write_waiting(self) -> None:
    while self._waiting:
      written = self._file.write(self._waiting)
      self._waiting = self._waiting[written:]


def read_metrics(workdir: Workdir) -> list[dict[str, Any]]:
  """The lines of `metrics.jsonl`; a last line that was cut off is left out.

  Raises:
    RunError: if another line is damaged, or the file cannot be read.
  """
  try:
    text = workdir.metrics.read_text(errors="replace")
  except FileNotFoundError:
    return []
  except OSError as error:
    raise RunError(f"{workdir.metrics} cannot be read: {error.strerror}") from error
  lines = []
  for number, line in enumerate(text.split("\n")[:-1], start=1):
    try:
      lines.append(_parse_metrics(line))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
      raise RunError(
        f"{workdir.metrics}, line {number}, is damaged; mend the line, or give another"
        " --workdir"
      ) from error
  return lines


def _parse_metrics(text: str) -> dict[str, Any]:
  """A line of metrics, as `Metrics.write` writes it."""
  line = json.loads(text)
  values = {k: v for k, v in line.items() if k not in ("step", "epoch", "split")}
  counts = line["step"], line["epoch"]
  sound = (
    all(type(count) is int and 0 <= count < 2**63 for count in counts)
    and line["split"] in _SPLITS
    and "accuracy" in values
    and all(_METRIC.fullmatch(name) for name in values)
    # This leaves out what JSON has no word for and Python reads all the same.
    and all(v is None or -_LARGEST <= v <= _LARGEST for v in values.values())
  )
  if not sound:
    raise ValueError("not a line of metrics")
  return line
