"""The folder of a run: its configuration, and where things are in it."""

from __future__ import annotations

import dataclasses
import json
import pathlib

from experiments.cli.errors import RunError, UsageError
from experiments.runs import files
from experiments.runs.provenance import provenance
from ramjax.config import Config, ConfigError, TrainConfig, differing_fields

_MAY_CHANGE = {"train.num_epochs", "train.accumulation_steps"}
"""Fields in which a resumed run may differ: the training remains the same.

A run is longer than it was only if the rate of a step does not depend on the length.
"""


@dataclasses.dataclass(frozen=True)
class Workdir:
  """The folder of a run, and the names of what it writes there."""

  path: pathlib.Path

  config = property(lambda self: self.path / "config.json")
  metrics = property(lambda self: self.path / "metrics.jsonl")
  checkpoints = property(lambda self: self.path / "checkpoints")
  tensorboard = property(lambda self: self.path / "tensorboard")
  figures = property(lambda self: self.path / "figures")


def default_workdir(config: Config) -> str:
  """`runs/<dataset>_<objective>_seed<seed>`."""
  label = data_label(config.train)
  return f"runs/{label}_{config.objective.name}_seed{config.train.seed}"


def data_label(train: TrainConfig) -> str:
  """The dataset of a run as a part of a file name: `mnist`, `npz_cells_canvas80`."""
  kind, colon, rest = train.dataset.partition(":")
  label = f"{kind}_{pathlib.Path(rest).stem}" if colon else kind
  if train.canvas_size is not None:
    label += f"_canvas{train.canvas_size}"
  if train.num_clutter:
    label += f"_clutter{train.num_clutter}"
  return label


def open_run(workdir: Workdir, config: Config) -> None:
  """Makes the folder of a run, or checks that it is the folder of this run.

  The configuration of a run that is there already is left as it is: another process
  may be training it. `record_config` changes it, under the lock of the checkpoints.

  Raises:
    UsageError: if it holds a run of another configuration, or something else.
    RunError: if it cannot be written.
  """
  found = read_config(workdir) if workdir.config.exists() else None
  if found is not None:
    clashes = [
      f"{name} is {theirs} there and {ours} here"
      for name, (ours, theirs) in differing_fields(config, found).items()
      if name not in _MAY_CHANGE
    ]
    if clashes:
      raise UsageError(
        f"{workdir.path} holds a run of another configuration: {', '.join(clashes)};"
        " give another --workdir, or the flags of that run"
      )
    other_length = config.train.num_epochs != found.train.num_epochs
    if other_length and config.train.learning_rate_schedule == "cosine":
      raise UsageError(
        f"{workdir.path} holds a run whose rate falls along a cosine for"
        f" {found.train.num_epochs} epochs; give --num_epochs={found.train.num_epochs},"
        " or another --workdir"
      )
    if config.train.num_epochs < found.train.num_epochs:
      raise UsageError(
        f"{workdir.path} holds a run of {found.train.num_epochs} epochs; give at least"
        f" --num_epochs={found.train.num_epochs}, or another --workdir"
      )
  elif workdir.path.is_dir() and not all(
    path.name.startswith(files.UNFINISHED) for path in workdir.path.iterdir()
  ):
    raise UsageError(f"{workdir.path} holds files but no run; give another --workdir")
  try:
    workdir.path.mkdir(parents=True, exist_ok=True)
    if found is None:
      _write_config(workdir, config)
    workdir.figures.mkdir(exist_ok=True)
  except OSError as error:
    raise RunError(
      f"workdir {workdir.path} cannot be written: {error.strerror}; give another"
      " --workdir"
    ) from error


def record_config(workdir: Workdir, config: Config) -> None:
  """Writes the configuration of a run that goes on for longer than was planned."""
  if read_config(workdir) != config:
    _write_config(workdir, config)


def _write_config(workdir: Workdir, config: Config) -> None:
  files.write_json(workdir.config, {"config": config.to_dict(), **provenance()})


def read_config(workdir: Workdir) -> Config:
  """The configuration of the run in a folder.

  Raises:
    RunError: if there is no run, its configuration is damaged, or this version of
      ramjax cannot read it.
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
    if isinstance(error, ConfigError):
      raise RunError(f"{file}: {reason}") from error
    raise RunError(f"{file} is damaged ({reason}); give another --workdir") from error
