"""The folder of a run: its configuration, its metrics, where things are in it."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from absl import logging

import ramjax
from experiments.flags import RunError, UsageError
from ramjax.config import Config, differing_fields

_MAY_CHANGE = {"train.num_epochs", "train.accumulation_steps"}
"""Fields in which a resumed run may differ: the training remains the same."""

_UNFINISHED = ".new-"
_SPLITS = ("train", "validation", "test")
_METRIC = re.compile(r"[\w/]+", re.ASCII)
_LARGEST = float(np.finfo(np.float32).max)


@dataclasses.dataclass(frozen=True)
class Workdir:
  """Names of what a run writes.

  Attributes:
    path: the folder of the run.
  """

  path: pathlib.Path

  @property
  def config(self) -> pathlib.Path:
    return self.path / "config.json"

  @property
  def metrics(self) -> pathlib.Path:
    return self.path / "metrics.jsonl"

  @property
  def checkpoints(self) -> pathlib.Path:
    return self.path / "checkpoints"

  @property
  def tensorboard(self) -> pathlib.Path:
    return self.path / "tensorboard"

  @property
  def figures(self) -> pathlib.Path:
    return self.path / "figures"


def default_workdir(config: Config) -> str:
  """`runs/<dataset>_<objective>_seed<seed>`."""
  return f"runs/{config.train.dataset}_{config.objective.name}_seed{config.train.seed}"


def open_run(workdir: Workdir, config: Config) -> None:
  """Makes the folder of a run, or checks that it is the folder of this run.

  The configuration of a run that is there already is left as it is: another process
  may be training it. `record_config` changes it, under the lock of the checkpoints.

  Args:
    workdir: the folder.
    config: the configuration of the run that is about to begin or to go on.

  Raises:
    UsageError: if it holds a run of another configuration, or something else.
    RunError: if it cannot be written.
  """
  found = read_config(workdir) if workdir.config.exists() else None
  if found is not None:
    different = differing_fields(config, found)
    clashes = [
      f"{name} is {theirs} there and {ours} here"
      for name, (ours, theirs) in different.items()
      if name not in _MAY_CHANGE
    ]
    if clashes:
      raise UsageError(
        f"{workdir.path} holds a run of another configuration: {', '.join(clashes)};"
        " give another --workdir, or the flags of that run"
      )
    if config.train.num_epochs < found.train.num_epochs:
      raise UsageError(
        f"{workdir.path} holds a run of {found.train.num_epochs} epochs; give at least"
        f" --num_epochs={found.train.num_epochs}, or another --workdir"
      )
  elif workdir.path.is_dir() and not all(map(_is_unfinished, workdir.path.iterdir())):
    raise UsageError(f"{workdir.path} holds files but no run; give another --workdir")
  try:
    workdir.path.mkdir(parents=True, exist_ok=True)
    if found is None:
      _write_config(workdir, config)
    workdir.figures.mkdir(exist_ok=True)
  except OSError as error:
    raise RunError(
      f"workdir {workdir.path} cannot be written: {error.strerror}; give another --workdir"
    ) from error


def record_config(workdir: Workdir, config: Config) -> None:
  """Writes the configuration of a run that goes on for longer than was planned."""
  if read_config(workdir) != config:
    _write_config(workdir, config)


def _write_config(workdir: Workdir, config: Config) -> None:
  write_json(workdir.config, {"config": config.to_dict(), **provenance()})


def _is_unfinished(path: pathlib.Path) -> bool:
  """Whether `write_json` was killed while it wrote this."""
  return path.name.startswith(_UNFINISHED)


def read_config(workdir: Workdir) -> Config:
  """The configuration of the run in a folder.

  Raises:
    RunError: if there is no run, or its configuration is damaged.
  """
  file = workdir.config
  try:
    return Config.from_dict(json.loads(file.read_text())["config"])
  except OSError as error:
    raise RunError(
      f"{workdir.path} holds no run ({file.name}: {error.strerror}); train one by"
      f" `python -m experiments.train --workdir={workdir.path}`"
    ) from error
  except (ValueError, KeyError, TypeError, RecursionError) as error:
    reason = " ".join(str(error).split())[:200]
    raise RunError(
      f"{file} is damaged ({reason}); give another --workdir, or remove {workdir.path}"
    ) from error


def provenance() -> dict[str, Any]:
  """What produced a result: command, date, versions, git commit, device."""
  packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
  return {
    "command": shlex.join(["python", "-m", _module_name(), *sys.argv[1:]]),
    "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    "versions": {
      "ramjax": ramjax.__version__,
      "python": platform.python_version(),
      **{name: importlib.metadata.version(name) for name in packages},
    },
    "git_commit": _git_commit(),
    "device": f"{jax.devices()[0].device_kind} ({jax.default_backend()}) x {jax.device_count()}",
  }


def write_json(path: pathlib.Path, content: Any) -> None:
  """Writes a JSON file, whole or not at all; numbers that are not finite are null."""
  _replace(path, json.dumps(_finite(content), indent=2, allow_nan=False) + "\n")


def _replace(path: pathlib.Path, text: str) -> None:
  """Gives a file another content, which is on disk before the old one is gone."""
  try:
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=_UNFINISHED) as temporary:
      new = pathlib.Path(temporary) / path.name
      with new.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
      new.replace(path)
  except OSError as error:
    raise OSError(error.errno, error.strerror, str(path)) from error


class Metrics:
  """Metrics of a run, to `metrics.jsonl` and TensorBoard; a context manager.

  Lines beyond the step from which the run goes on are dropped first, so that an
  interrupted run leaves neither gaps nor duplicates. On a full disk lines wait in
  memory until there is space.

  Args:
    workdir: the folder of the run.
    step: the step from which it goes on, 0 at the start.
    silent: whether to write nothing, as another process does it.
  """

  def __init__(self, workdir: Workdir, *, step: int, silent: bool = False) -> None:
    from experiments.tensorboard import Events

    self._silent = silent
    if silent:
      return

    kept = [
      line
      for line in read_metrics(workdir)
      if line["step"] < step or (line["step"] == step and line["split"] != "test")
    ]
    _replace(workdir.metrics, "".join(json.dumps(line) + "\n" for line in kept))
    self._path = workdir.metrics
    self._file = workdir.metrics.open("ab", buffering=0)
    self._waiting = b""
    self._tensorboard = Events(workdir.tensorboard, step=step)

  def __enter__(self) -> Metrics:
    return self

  def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
    if self._silent:
      return
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
    if self._silent:
      return
    line = {"step": step, "epoch": epoch, "split": split, **values}
    text = json.dumps(_finite(line), allow_nan=False) + "\n"
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
        f"{workdir.metrics}, line {number}, is damaged; mend or remove it to go on"
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


def _finite(content: Any) -> Any:
  """JSON content with null in the place of numbers that JSON does not know."""
  if isinstance(content, Mapping):
    return {name: _finite(value) for name, value in content.items()}
  if isinstance(content, list):
    return [_finite(value) for value in content]
  if isinstance(content, float) and not math.isfinite(content):
    return None
  return content


def _module_name() -> str:
  main = sys.modules["__main__"].__spec__
  return main.name if main else os.path.basename(sys.argv[0])


def _git_commit() -> str | None:
  here = os.path.dirname(os.path.abspath(__file__))
  command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
  try:
    found = subprocess.run(
      command, cwd=here, capture_output=True, text=True, timeout=10
    )
  except (OSError, subprocess.TimeoutExpired):
    return None
  return found.stdout.strip() or None
