"""The folder of a run: its configuration, and where things are in it."""

from __future__ import annotations

import dataclasses
import pathlib

from experiments.cli import files
from experiments.cli.errors import RunError, UsageError
from experiments.runs.provenance import provenance
from ramjax import run_folder
from ramjax.config import Config, TrainConfig, differing_fields
from ramjax.data import DatasetInfo
from ramjax.data.info import describe_changes

_MAY_CHANGE = {"train.num_epochs", "train.accumulation_steps"}
"""Fields in which a resumed run may differ: the training remains the same.

A run is longer than it was only if rate and noise of a step do not depend on the length.
With generalised advantages, which compare the images of a part, the parts stay.
"""

_FOLLOW_FROM_DATA = {
  *("model.image_shape", "model.num_classes", "objective.prior", "train.data_sha256")
}
"""Fields that say nothing new where the data have changed."""


@dataclasses.dataclass(frozen=True)
class Workdir:
  """The folder of a run, and the names of what it writes there."""

  path: pathlib.Path

  config = property(lambda self: self.path / run_folder.CONFIG)
  metrics = property(lambda self: self.path / "metrics.jsonl")
  checkpoints = property(lambda self: self.path / run_folder.CHECKPOINTS)
  confidence = property(lambda self: self.path / run_folder.CONFIDENCE)
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


def open_run(workdir: Workdir, config: Config, info: DatasetInfo | None = None) -> None:
  """Makes the folder of a run, or checks that it is the folder of this run.

  The configuration of a run that is there already is left as it is: another process
  may be training it. `record_config` changes it, under the lock of the checkpoints.

  Args:
    workdir: the folder.
    config: the run. Its data may have another path than in the folder, if their
      checksum is the same.
    info: what `config.json` records of the data.

  Raises:
    UsageError: if it holds a run of another configuration, or something else.
    RunError: if it cannot be written.
  """
  found = run_folder.read_config(workdir.path) if workdir.config.exists() else None
  if found is not None:
    clashes = _clashes(config, found, info, run_folder.read_info(workdir.path))
    if clashes:
      raise UsageError(
        f"{workdir.path} holds a run of another configuration: {', '.join(clashes)};"
        " give another --workdir, or flags and data of that run"
      )
    other_length = config.train.num_epochs != found.train.num_epochs
    if other_length and (falls := _what_falls(config.train)):
      raise UsageError(
        f"{workdir.path} holds a run whose {falls} for {found.train.num_epochs} epochs;"
        f" give --num_epochs={found.train.num_epochs}, or another --workdir"
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
      _write_config(workdir, config, info)
    workdir.figures.mkdir(exist_ok=True)
  except OSError as error:
    raise RunError(
      f"workdir {workdir.path} cannot be written: {error.strerror}; give another"
      " --workdir"
    ) from error


def _clashes(
  ours: Config,
  theirs: Config,
  our_info: DatasetInfo | None,
  their_info: DatasetInfo | None,
) -> list[str]:
  """In what a run differs from the one in a folder; empty if it can go on."""
  settings, differing = Config.settings(), differing_fields(ours, theirs)
  sums = ours.train.data_sha256, theirs.train.data_sha256
  clashes = []
  if sums[0] != sums[1]:
    differing = {n: v for n, v in differing.items() if n not in _FOLLOW_FROM_DATA}
    if our_info and their_info:
      clashes = [f"the data have {describe_changes(their_info, our_info)}"]
    else:
      clashes = [f"the SHA-256 of the data is {sums[1]} there and {sums[0]} here"]
  elif sums[0] is not None:  # the same data, wherever they lie
    differing.pop("train.dataset", None)
    if our_info and their_info and our_info.class_names != their_info.class_names:
      names = (", ".join(info.class_names) for info in (their_info, our_info))
      clashes = ["the classes are called {} there and {} here".format(*names)]
  may_change = _MAY_CHANGE
  if ours.objective.credit_decay is not None:
    may_change = may_change - {"train.accumulation_steps"}
  for name, (here, there) in differing.items():
    if name not in may_change:
      why = " (an earlier version divided the images)" * (name == "train.division")
      there, here = (settings[name].word(value) for value in (there, here))
      clashes.append(f"{name} is {there} there and {here} here{why}")
  return clashes


def _what_falls(config: TrainConfig) -> str:
  """What of a training depends on its length; empty if nothing does."""
  if config.learning_rate_schedule == "cosine":
    return "rate falls along a cosine"
  return "noise falls along a line" if config.initial_location_noise != 1 else ""


def record_config(
  workdir: Workdir, config: Config, info: DatasetInfo | None = None
) -> None:
  """Writes the configuration of a run where it has changed.

  A run may go on for longer than was planned, or its data may have another path. A run
  of an earlier version gets what it lacks.
  """
  recorded = run_folder.read_info(workdir.path)
  if (run_folder.read_config(workdir.path), recorded) != (config, info or recorded):
    _write_config(workdir, config, info or recorded)


def _write_config(workdir: Workdir, config: Config, info: DatasetInfo | None) -> None:
  described = {"data": info.to_dict()} if info else {}
  files.write_json(
    workdir.config, {"config": config.to_dict(), **described, **provenance()}
  )
