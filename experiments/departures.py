"""What the choices are worth that the paper leaves open: `python -m experiments.departures`.

By default each is the choice of the released code; `experiments.train --set` changes it.
Trains --num_seeds runs with each, and writes accuracies, the stopping rule's and calibration
into --workdir: departures.json.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from experiments.cli import app, flags
from experiments.studies import study
from ramjax.config import Config

_BETAS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)


def define_flags() -> None:
  """Defines the flags of the script."""
  flags.define_train_flags(num_seeds=3, num_epochs=5)


def variants(config: Config) -> Sequence[study.Variant]:
  """The released choices, and each of the others in its place."""
  trained_with = config.train.num_glimpses
  released = study.Variant(
    name="as released",
    folder="released",
    config=config,
    glimpses=tuple(sorted({1, trained_with, 10, 20, 50})),
    betas=_BETAS,
  )

  def other(name: str, folder: str, **objective: Any) -> study.Variant:
    changed = config.replace(objective=objective)
    return dataclasses.replace(released, name=name, folder=folder, config=changed)

  lambda_uncertainty = config.objective.lambda_uncertainty
  return [
    released,
    *(
      other(f"λ1 × {n}", f"lambda1_x{n}", lambda_uncertainty=n * lambda_uncertainty)
      for n in (10, 100)
    ),
    other("error gradient `state`", "state", error_gradient="state"),
    *(
      other(
        f"error gradient `state`, λ1 × {n}",
        f"state_lambda1_x{n}",
        error_gradient="state",
        lambda_uncertainty=n * lambda_uncertainty,
      )
      for n in (10, 100)
    ),
    dataclasses.replace(
      released,
      name="density of the raw sample",
      folder="raw_density",
      config=config.replace(model={"location_density": "raw"}),
    ),
    other("last location not credited", "uncredited", credit_last_location=False),
    other("intrinsic term at all glimpses", "intrinsic_all", intrinsic_steps="all"),
    other(
      f"intrinsic term at all glimpses, λ2 × {trained_with}",
      f"intrinsic_all_lambda2_x{trained_with}",
      intrinsic_steps="all",
      lambda_intrinsic=trained_with * config.objective.lambda_intrinsic,
    ),
    dataclasses.replace(
      released, name="mean policy in the test", location_policy="mean"
    ),
    dataclasses.replace(
      released,
      name="M = 10 in the test",
      num_samples=10,
      glimpses=(trained_with,),
      betas=(),
    ),
  ]


if __name__ == "__main__":
  define_flags()
  app.run(lambda: study.main("departures", variants))
