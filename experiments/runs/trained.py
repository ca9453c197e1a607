"""Trained runs that a script judges: from the flags that name them to their results."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

import ramjax
from experiments.cli import errors, flags
from experiments.runs import workdir as workdir_lib
from experiments.runs.metrics import read_metrics
from ramjax import data, parallel
from ramjax.checkpoint import Checkpoints
from ramjax.config import Config
from ramjax.networks import Params


class TrainedRun(NamedTuple):
  """A run, its parameters, and the dataset that it was trained on."""

  workdir: workdir_lib.Workdir
  config: Config
  params: Params
  dataset: data.Dataset

  def describe(self) -> dict[str, Any]:
    """The entry of this run in a result file, without the results."""
    return {
      "workdir": str(self.workdir.path),
      "dataset": workdir_lib.data_label(self.config.train),
      "objective": self.config.objective.name,
      "seed": self.config.train.seed,
      "train_num_glimpses": self.config.train.num_glimpses,
      "num_epochs": self.config.train.num_epochs,
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
  return [workdir_lib.Workdir(pathlib.Path(path)) for path in flags.FLAGS.workdir]


def open_runs(*, best: bool = False) -> list[TrainedRun]:
  """The runs that the flags of `flags.define_evaluation_flags` name.

  Several processes get the parameters that the first one has read, since a run may still
  be training. They are the newest ones, or with `best` those with the best validation
  accuracy.

  Raises:
    UsageError: if they name none.
    RunError: if one is no run.
    CheckpointError: if one has no checkpoint, or it cannot be read.
    ConfigError: if one has data that are not its own.
    DataError: if the data of one cannot be found.
  """
  folders = workdirs()
  with parallel.together():
    configs = [workdir_lib.read_config(folder) for folder in folders]
    params = [
      restore_params(folder, config, best=best)
      for folder, config in zip(folders, configs, strict=True)
    ]
    datasets = _datasets_of(configs)
  params = parallel.from_first_process(params)
  return list(map(TrainedRun, folders, configs, params, datasets))


def restore_params(
  workdir: workdir_lib.Workdir, config: Config, *, best: bool = False
) -> Params:
  """The parameters of the newest checkpoint of a run, or of the best.

  Raises:
    CheckpointError: if it has none yet, or it cannot be read.
  """
  optimizer = ramjax.make_optimizer(config.train, steps_per_epoch=1)
  init = functools.partial(ramjax.init_train_state, config=config, optimizer=optimizer)
  with Checkpoints(workdir.checkpoints, read_only=True) as checkpoints:
    state = checkpoints.restore(jax.eval_shape(init, jax.random.key(0)), best=best)
  return state.params


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


def _datasets_of(configs: Sequence[Config]) -> list[data.Dataset]:
  """The dataset of each run; runs on the same one share it."""
  found: dict[Hashable, data.Dataset] = {}
  datasets = []
  for config in configs:
    train = config.train
    named = train.dataset, train.canvas_size, train.num_clutter, train.data_sha256
    if named not in found:
      found[named] = data.dataset_of(config, data_dir=flags.FLAGS.data_dir)
    datasets.append(found[named])
  return datasets
