"""Trained runs that a script judges: from the flags that name them to their results."""

from __future__ import annotations

import contextlib
import functools
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.cli import errors, flags
from experiments.runs import workdir as workdir_lib
from experiments.runs.metrics import read_metrics
from ramjax import data, parallel, run_folder
from ramjax.config import Config, ConfigError, TrainConfig
from ramjax.data.datasets import check_dataset, is_dataset_of, reading
from ramjax.networks import Params


class TrainedRun(NamedTuple):
  """A run that is judged.

  Attributes:
    workdir: its folder.
    config: its configuration.
    params: its parameters.
    dataset: the data that it is judged on, with the normalisation of its training.
    own_data: whether it was trained on them.
    step: step of its parameters, so that a run that has not ended is told from
      one that has; None for the best one, whose step is another for each seed.
  """

  workdir: workdir_lib.Workdir
  config: Config
  params: Params
  dataset: data.Dataset
  own_data: bool
  step: int | None

  def describe(self) -> dict[str, Any]:
    """The entry of this run in a result file, without the results."""
    label = workdir_lib.data_label(self.config.train)
    if not self.own_data:
      other = TrainConfig(dataset=self.dataset.name)
      label += f" on {workdir_lib.data_label(other)}"
    return {
      "workdir": str(self.workdir.path),
      "dataset": label,
      "judged_on": {
        "dataset": self.dataset.name,
        "data_sha256": self.dataset.sha256,
        "own_data": self.own_data,
      },
      "objective": self.config.objective.name,
      "seed": self.config.train.seed,
      "train_num_glimpses": self.config.train.num_glimpses,
      "num_epochs": self.config.train.num_epochs,
      "step": self.step,
      "train_seconds": train_seconds(self.workdir, self.config),
      "config": self.config.to_dict(),
    }


def workdirs() -> list[workdir_lib.Workdir]:
  """The folders of the runs that the flags name.

  Raises:
    UsageError: if they name none.
  """
  if not flags.FLAGS.workdir:
    raise errors.UsageError(
      "--workdir must name a trained run, or several, with commas"
    )
  if not all(flags.FLAGS.workdir):
    raise errors.UsageError("--workdir has an empty name; remove a comma")
  return [workdir_lib.Workdir(pathlib.Path(path)) for path in flags.FLAGS.workdir]


def open_runs(*, best: bool = False) -> list[TrainedRun]:
  """The runs that the flags of `flags.define_evaluation_flags` name.

  Several processes get the parameters that the first one has read, since a run may still
  be training. They are the newest ones, or with `best` those with the best validation
  accuracy.

  They are judged on their own data, or on those of `--dataset`. Then a line says so.

  Raises:
    UsageError: if they name none, or `--split=all` of their own data.
    RunError: if one is no run.
    CheckpointError: if one has no checkpoint, or it cannot be read.
    ConfigError: if the data are unknown.
    DataError: if the data of one cannot be found, are not its own, or do not suit it.
  """
  folders = workdirs()
  datasets = Datasets(flags.FLAGS.dataset, flags.FLAGS.data_dir)
  with parallel.together():
    configs = [run_folder.read_config(folder.path) for folder in folders]
    states = [
      run_folder.restore(folder.path, config, best=best)
      for folder, config in zip(folders, configs, strict=True)
    ]
    found = list(map(datasets.find, folders, configs))
  params, steps = parallel.from_first_process(
    ([params for params, _ in states], np.array([step for _, step in states]))
  )
  runs = [
    TrainedRun(folder, config, own_params, *judged_on, None if best else int(step))
    for folder, config, own_params, step, judged_on in zip(
      folders, configs, params, steps, found, strict=True
    )
  ]
  split = flags.FLAGS.split
  for run in runs:
    if run.own_data and split == "all":
      raise errors.UsageError(
        f"split must be test or validation, as {run.workdir.path} was trained on other"
        f" images of {run.dataset.name}"
      )
    if not run.own_data and parallel.is_first_process():
      print(_say(run, split), flush=True)
  return runs


def open_own(
  folders: Sequence[workdir_lib.Workdir], data_dir: str | None
) -> list[TrainedRun]:
  """Runs that were just trained, with their newest parameters and their own data.

  Raises:
    As `open_runs`.
  """
  datasets = Datasets(None, data_dir)
  runs = []
  for folder in folders:
    config = run_folder.read_config(folder.path)
    params, step = run_folder.restore(folder.path, config)
    found = datasets.find(folder, config)
    runs.append(TrainedRun(folder, config, params, *found, step))
  return runs


def train_seconds(workdir: workdir_lib.Workdir, config: Config) -> float | None:
  """How long the steps of a run took, with compilation and without validation.

  Raises:
    RunError: if `metrics.jsonl` is damaged.
  """
  lines = [line for line in read_metrics(workdir) if line["split"] == "train"]
  speeds = [line.get("examples_per_second") for line in lines]
  if not all(speeds):
    return None
  steps = np.diff([0, *(line["step"] for line in lines)])
  return round(float(np.sum(steps * config.train.batch_size / np.array(speeds))), 1)


class Datasets:
  """The data that runs are judged on. What runs have in common is read once.

  Args:
    name: `--dataset`; None is the own dataset of each run.
    data_dir: `--data_dir`.
  """

  def __init__(self, name: str | None, data_dir: str | None) -> None:
    self._name, self._data_dir = name, data_dir
    self._load = functools.cache(data.load_dataset)
    self._seen = functools.cache(self._load_as_seen_by)

  def find(
    self, workdir: workdir_lib.Workdir, config: Config
  ) -> tuple[data.Dataset, bool]:
    """The dataset that a run is judged on, and whether it was trained on it."""
    train, info = config.train, run_folder.read_info(workdir.path)
    if self._name is None:
      try:
        own = self._load(train.dataset, data_dir=self._data_dir, **reading(train))
      except data.DataError as error:
        flag = "--dataset" if "dataset" in flags.FLAGS else "--data_dir"
        raise data.DataError(
          f"{error}; if the data of {workdir.path} have moved, give {flag}"
        ) from error
      check_dataset(own, config, info=info)
      return own, True
    with contextlib.suppress(data.DataError, ConfigError):  # they may not be read so
      own = self._load(self._name, data_dir=self._data_dir, **reading(train))
      if is_dataset_of(own, config):
        return own, True
    plain = {**reading(train), "canvas_size": None, "num_clutter": None}
    plain["background"] = "border"  # that of the other images, if any is needed
    if not self._name.startswith("folder:"):
      plain["resize"] = None
    found = self._load(self._name, data_dir=self._data_dir, **plain)
    info = info or self._info_of_own(workdir, config)
    sides, canvas_size = found.image_shape[:2], info.canvas_size
    has_canvas = sides != found.test.images.shape[1:3]
    if (
      canvas_size is not None
      and sides != config.model.image_shape[:2]
      and not has_canvas
      and max(sides) <= canvas_size
    ):
      plain |= {"canvas_size": canvas_size, "num_clutter": info.num_clutter}
    return self._seen(info, **plain), False

  def _load_as_seen_by(self, info: data.DatasetInfo, **reading: Any) -> data.Dataset:
    assert self._name is not None
    found = self._load(self._name, data_dir=self._data_dir, **reading)
    return data.as_seen_by(found, info)

  def _info_of_own(
    self, workdir: workdir_lib.Workdir, config: Config
  ) -> data.DatasetInfo:
    """What a run of an earlier version, which recorded nothing, was trained on."""
    try:
      own = self._load(config.train.dataset, data_dir=None, **reading(config.train))
      check_dataset(own, config)
    except data.DataError as error:
      raise errors.RunError(
        f"{workdir.path} was trained by an earlier version of ramjax, which did not"
        f" record the normalisation, and its data cannot be read: {error}"
      ) from error
    assert own.info is not None
    return own.info


def _say(run: TrainedRun, split: str) -> str:
  """On what a run is judged that was trained on other data."""
  train, dataset = run.config.train, run.dataset
  number = len(getattr(dataset, split).labels)
  images = "all of its" if split == "all" else f"its {split}"
  line = (
    f"{run.workdir.path}: trained on {train.dataset}, judged on {dataset.name}"
    f" ({images} images, {number:,}), normalised as in training"
  )
  if dataset.image_shape != run.config.model.image_shape:
    sizes = [
      " x ".join(map(str, shape[:2]))
      for shape in (dataset.image_shape, run.config.model.image_shape)
    ]
    line += "; images are {} pixels, in training {}".format(*sizes)
  for note in dataset.notes:
    line += f"; {note}"
  if dataset.name == train.dataset:
    line += (
      "; the data have changed since: the run may have been trained on these images"
    )
  return line
