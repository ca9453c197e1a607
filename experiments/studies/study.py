"""Studies: variants of a run, several seeds each, trained and compared.

A script says which variants there are. Here they are trained, in as few programs as
possible, and scored. Every run has a folder of its own, like those of
`experiments.train`, so that a study is resumed and its runs are read by every script.
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.cli import devices, flags
from experiments.reporting import tables
from experiments.runs import from_flags, output, trained, trainer
from experiments.runs import workdir as workdir_lib
from experiments.runs.metrics import read_metrics
from experiments.runs.program import common_part
from experiments.runs.provenance import provenance
from experiments.studies import scores
from ramjax import data, run_folder
from ramjax.config import Config, EvaluationConfig, differing_fields

Members = Mapping[str, Sequence[workdir_lib.Workdir]]
"""From the name of each variant to the folders of its runs, one for each seed."""


@dataclasses.dataclass(frozen=True)
class Variant:
  """A way to train and to evaluate, which is tried with every seed.

  Attributes:
    name: what tables call it.
    folder: how the folders of its runs begin; `_seed0` and so on follow. Variants that
      train alike have the folder of the first of them.
    config: how it is trained; its seed is not used.
    glimpses: with what numbers of glimpses it is evaluated.
    betas: with what exploration rates.
    num_samples: how many rollouts are averaged, M.
    location_policy: `sample` or `mean`, in evaluation.
  """

  name: str
  folder: str
  config: Config
  glimpses: tuple[int, ...]
  betas: tuple[float, ...] = ()
  num_samples: int = 1
  location_policy: str = "sample"


@dataclasses.dataclass(frozen=True)
class TrainCurve:
  """Train accuracy over the chunks of a run's steps, see `read_train_curve`.

  Attributes:
    step: last step of each chunk [W].
    accuracy: mean accuracy of each chunk [W]; NaN where all steps were skipped.
    running_mean: mean of all steps up to the end of each chunk [W].
    last_epoch: mean of the last epoch.
  """

  step: np.ndarray
  accuracy: np.ndarray
  running_mean: np.ndarray
  last_epoch: float


def read_train_curve(workdir: workdir_lib.Workdir) -> TrainCurve:
  """The train accuracy of a run, as its metrics have it.

  Raises:
    RunError: if they are damaged.
  """
  lines = [line for line in read_metrics(workdir) if line["split"] == "train"]
  step = np.array([line["step"] for line in lines])
  accuracy = np.array([line["accuracy"] for line in lines], float)
  taken = np.diff(step, prepend=0) - [line["skipped_steps"] for line in lines]
  correct = np.where(taken > 0, accuracy * taken, 0.0)
  last = np.array([line["epoch"] == lines[-1]["epoch"] for line in lines])
  return TrainCurve(
    step,
    accuracy,
    correct.cumsum() / np.maximum(taken.cumsum(), 1),
    float(correct[last].sum() / max(taken[last].sum(), 1)),
  )


def main(
  name: str,
  variants: Callable[[Config], Sequence[Variant]],
  *,
  default_workdir: Callable[[Config], str] | None = None,
  summarize: Callable[[Members], dict[str, Any]] = lambda _: {},
  draw: Callable[[dict[str, Any]], Figure] | None = None,
  fewest_lines: int = 1,
  split: str = "test",
) -> None:
  """Trains and scores the study that the flags ask for, and prints its table.

  Args:
    name: what it is called: its results are `<name>.json` in --workdir.
    variants: from the configuration of the flags to the variants; the first one is that
      which the others are compared with.
    default_workdir: from the configuration to the --workdir; None is `runs/<name>`.
    summarize: from all runs to further results.
    draw: from the results to a figure.
    fewest_lines: lines of metrics that a run shall have at least, for curves; a short
      run has fewer steps in a line than `--steps_per_call`.
    split: what the runs are scored on, `test` or `validation`.
  """
  options = flags.FLAGS
  flags.check_at_least(1, "num_epochs")
  schedule = from_flags.schedule()
  variants(flags.config_from_flags())  # flags are checked before the data are sought
  seeds = flags.seeds()
  devices.start_for_runs()
  config, dataset = from_flags.load_run()
  folder = pathlib.Path(
    options.workdir or (default_workdir(config) if default_workdir else f"runs/{name}")
  )
  print(f"{dataset.describe()}; writing to {folder}", flush=True)
  chosen = variants(config)
  steps_per_epoch = len(dataset.train.labels) // config.train.batch_size
  num_steps = config.train.num_epochs * steps_per_epoch
  shorter = min(schedule.steps_per_call, max(1, num_steps // fewest_lines))
  schedule = dataclasses.replace(schedule, steps_per_call=shorter)
  members = train(chosen, seeds, dataset, folder, schedule)
  if from_flags.say_if_judged_later():
    return
  results = {
    "study": name,
    "seeds": seeds,
    "config": config.to_dict(),
    **provenance(),
    "split": split,
    "variants": score(chosen, members, dataset, split=split),
    **summarize(members),
  }
  print(tables.TABLES[name](results))
  figure = draw(results) if draw else None
  output.write(output.Target(folder / f"{name}.json"), results, figure)


def train(
  variants: Sequence[Variant],
  seeds: Sequence[int],
  dataset: data.Dataset,
  folder: pathlib.Path,
  schedule: trainer.Schedule,
) -> Members:
  """Trains every variant with every seed, each run into its own subfolder of `folder`.

  Variants that are trained alike have the same runs. Of several processes each trains its
  share, see `devices.share`.

  Raises:
    UsageError: if the number of devices that the flags name does not divide the runs, or a
      folder holds something else.
  """
  programs: dict[Config, dict[Config, workdir_lib.Workdir]] = {}
  members: dict[str, list[workdir_lib.Workdir]] = {}
  for variant in variants:
    for seed in seeds:
      config = variant.config.replace(train={"seed": seed})
      own = workdir_lib.Workdir(folder / f"{variant.folder}_seed{seed}")
      workdir = programs.setdefault(common_part(config), {}).setdefault(config, own)
      members.setdefault(variant.name, []).append(workdir)
  shares = [devices.share(list(runs.items())) for runs in programs.values()]
  shares = [runs for runs in shares if runs]
  for runs in shares:
    devices.check_divide(len(runs))  # refused before a folder is made
  for config, workdir in itertools.chain(*shares):
    workdir_lib.open_run(workdir, config, dataset.info)
  for number, runs in enumerate(shares, start=1):
    configs, workdirs = zip(*runs, strict=True)
    names = ", ".join(workdir.path.name for workdir in workdirs)
    print(f"program {number}/{len(shares)}: {names}", flush=True)
    trainer.train(
      configs,
      dataset,
      workdirs,
      schedule,
      make_mesh=devices.mesh_for_runs,
      figure_format=None,
    )
  return members


def score(
  variants: Sequence[Variant],
  members: Members,
  dataset: data.Dataset,
  *,
  split: str = "test",
) -> list[dict[str, Any]]:
  """What results on disk say of the runs of a study.

  Returns:
    For each variant `name`, `settings`, the fields in which it differs from the first
    one, and `runs`: for each seed the train accuracy of the last epoch, and the scores
    of `experiments.studies.scores.score`.
  """
  return [
    {
      "name": variant.name,
      "settings": {
        name: ours
        for name, (ours, _) in differing_fields(
          variant.config, variants[0].config
        ).items()
      },
      "num_samples": variant.num_samples,
      "location_policy": variant.location_policy,
      "runs": [
        _score_run(variant, workdir, dataset, split)
        for workdir in members[variant.name]
      ],
    }
    for variant in variants
  ]


def _score_run(
  variant: Variant,
  workdir: workdir_lib.Workdir,
  dataset: data.Dataset,
  split: str,
) -> dict[str, Any]:
  """The entry of one run, see `score`."""
  config = run_folder.read_config(workdir.path)
  params, step = run_folder.restore(workdir.path, config)
  run = trained.TrainedRun(workdir, config, params, dataset, own_data=True, step=step)
  return {
    "seed": config.train.seed,
    "workdir": str(workdir.path),
    "train_accuracy": scores.rounded(read_train_curve(workdir).last_epoch),
    **scores.score(
      run,
      EvaluationConfig(
        num_glimpses=max(variant.glimpses),
        num_samples=variant.num_samples,
        location_policy=variant.location_policy,
      ),
      glimpses=variant.glimpses,
      betas=variant.betas,
      split=split,
    ),
  }
