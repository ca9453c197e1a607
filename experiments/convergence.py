"""Figure 1: how fast the four objectives learn, `python -m experiments.convergence`.

Trains --num_seeds runs of each objective in one program and writes their train accuracy,
with means, 95 % confidence bands and comparisons paired over the seeds, into --workdir:
convergence.json and convergence.png.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.cli import app, flags
from experiments.cli.errors import UsageError
from experiments.reporting import plots
from experiments.reporting.statistics import paired
from experiments.runs.workdir import data_label
from experiments.studies import study
from ramjax.config import OBJECTIVES, Config

_FEWEST_POINTS = 10
"""Curves have at least so many points, if there are as many steps."""


def define_flags() -> None:
  """Defines the flags of the script: those of a training, for all objectives."""
  flags.define_train_flags(num_seeds=8, lambda_intrinsic=3e-3, num_epochs=1)
  flags.define_figure_flag()


def variants(config: Config) -> Sequence[study.Variant]:
  """A variant for each objective.

  Raises:
    UsageError: if the flags name one.
  """
  if flags.FLAGS["objective"].present:
    raise UsageError("objective must not be given: all four are trained")
  return [
    study.Variant(
      name=name,
      folder=name,
      config=config.replace(objective={"name": name}),
      glimpses=(config.train.num_glimpses,),
    )
    for name in OBJECTIVES
  ]


def summarize(members: study.Members) -> dict[str, Any]:
  """The results of a study: what `summary` makes of the curves of its runs."""
  return summary(
    {
      name: [study.read_train_curve(workdir) for workdir in workdirs]
      for name, workdirs in members.items()
    }
  )


def summary(curves: Mapping[str, Sequence[study.TrainCurve]]) -> dict[str, Any]:
  """Means and comparisons of the train accuracies of S runs of each objective.

  Returns:
    `steps`, the last step of each chunk; for each objective of `curves` the mean over
    each chunk and the running mean since the first step, [S, chunks] each, and the mean
    of all steps [S]; and `comparisons` of the mean of all steps, paired over the seeds.
  """
  steps = next(iter(curves.values()))[0].step
  final = {
    name: np.array([curve.running_mean[-1] for curve in of_runs])
    for name, of_runs in curves.items()
  }
  return {
    "steps": steps.tolist(),
    "window": int(steps[0]),
    "curves": {
      name: {
        "windowed_mean": [curve.accuracy.tolist() for curve in of_runs],
        "running_mean": [curve.running_mean.tolist() for curve in of_runs],
        "mean_of_all_steps": final[name].tolist(),
      }
      for name, of_runs in curves.items()
    },
    "comparisons": [
      {"slower": slower, "faster": faster, **paired(final[faster] - final[slower])}
      for slower, faster in itertools.combinations(curves, 2)
    ],
  }


if __name__ == "__main__":
  define_flags()
  app.run(
    lambda: study.main(
      "convergence",
      variants,
      default_workdir=lambda config: f"runs/convergence_{data_label(config.train)}",
      summarize=summarize,
      draw=plots.convergence,
      fewest_lines=_FEWEST_POINTS,
    )
  )
