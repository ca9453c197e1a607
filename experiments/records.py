"""Records: a recipe trained and judged, `python -m experiments.records --recipe=mnist`.

Trains --num_seeds runs of a recipe in one program, as `experiments.train` does, and judges
them on the test images: errors with several numbers of glimpses N, with one rollout (M = 1)
and all, half or none of the noise of the policy, with the mean of ten rollouts, and the
accuracy of the stopping rule. Writes records.json and records.png, with the error on the
validation images against the time of training, into --workdir. Started again, it resumes.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import ramjax
from experiments.cli import app, flags
from experiments.cli.errors import UsageError
from experiments.reporting import plots, tables
from experiments.runs import from_flags, output, trained
from experiments.runs.metrics import read_metrics
from experiments.studies import scores, study
from ramjax.config import Config, EvaluationConfig

_GLIMPSES = (4, 6, 8, 12, 50)

_BETAS = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.13, 0.16, 0.2, 0.25, 0.3, 0.4, 0.6, 1.0)


def define_flags() -> None:
  """Defines the flags of the script: those of a training."""
  flags.define_train_flags(num_seeds=3)
  flags.define_figure_flag()


def main() -> None:
  """Trains and judges the recipe that the flags name, and prints its tables.

  Raises:
    UsageError: if they name none.
  """
  recipe = flags.FLAGS.recipe
  if not flags.FLAGS["recipe"].present:
    raise UsageError("recipe must be given: the one that is trained and judged")
  flags.check_at_least(1, "num_epochs")
  if flags.FLAGS.coordinator_address is not None:
    raise UsageError(
      "coordinator_address must not be given: train by experiments.train, and judge by"
      " experiments.error_rates"
    )
  folder = pathlib.Path(flags.FLAGS.workdir or f"runs/records_{recipe}")

  def folders(configs: Sequence[Config]) -> list[pathlib.Path]:
    return [folder / f"seed{config.train.seed}" for config in configs]

  workdirs = from_flags.train(folders)
  if from_flags.say_if_judged_later():
    return
  runs = trained.open_own(workdirs, flags.FLAGS.data_dir)
  entries: list[dict[str, Any]] = [
    {**run.describe(), "recipe": recipe, **_training(run), "scores": []} for run in runs
  ]
  target = output.Target(folder / "records.json")
  ways = _ways(runs[0].config)
  for rollouts in ways:
    for run, entry in zip(runs, entries, strict=True):
      entry["scores"].append(_score(run, rollouts))
    results = output.evaluation(entries)
    done = rollouts == ways[-1]
    if done:
      print(f"{tables.records(results)}\n\n{tables.error_rates(results)}")
    output.write(target, results, plots.records(results) if done else None)


def _ways(config: Config) -> tuple[EvaluationConfig, ...]:
  """How the models of a recipe are judged."""
  return (
    EvaluationConfig(),
    EvaluationConfig(location_noise=0.5),
    EvaluationConfig(location_noise=scores.late_noise(config)),
    EvaluationConfig(location_policy="mean"),
    EvaluationConfig(num_samples=10),
  )


def _training(run: trained.TrainedRun) -> dict[str, Any]:
  """What the training of a run cost, and its curve."""
  lines = read_metrics(run.workdir)
  train = run.config.train
  step, seconds, curve = 0, 0.0, []
  for line in lines:
    if line["split"] == "train" and line["examples_per_second"]:
      seconds += (line["step"] - step) * train.batch_size / line["examples_per_second"]
      step = line["step"]
    elif line["split"] == "validation":
      error = 100 * (1 - line["accuracy"])
      curve.append({"seconds": round(seconds, 1), "error": scores.rounded(error)})
  return {
    "num_parameters": ramjax.num_parameters(run.params),
    "num_rollouts": lines[-1]["step"] * train.batch_size * train.rollouts_per_image,
    "train_accuracy": scores.rounded(study.read_train_curve(run.workdir).last_epoch),
    "validation": curve,
  }


def _score(run: trained.TrainedRun, rollouts: EvaluationConfig) -> dict[str, Any]:
  """Errors of a run, and with one rollout that is sampled the stopping rule."""
  glimpses = sorted({*_GLIMPSES, run.config.train.num_glimpses})
  one = (rollouts.num_samples, rollouts.location_policy) == (1, "sample")
  scored = scores.score(
    run,
    dataclasses.replace(rollouts, num_glimpses=glimpses[-1]),
    glimpses=glimpses,
    betas=_BETAS if one else (),
  )
  how = dataclasses.asdict(rollouts)
  del how["num_glimpses"]
  return {**how, **scored}


if __name__ == "__main__":
  define_flags()
  app.run(main)
