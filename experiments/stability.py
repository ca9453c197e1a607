"""The one-epoch claim: `python -m experiments.stability`.

The paper, section 4: with lambda_2 = 0.1 the intrinsic term steadies the model "even when
trained for only 1 epoch". Trains --num_seeds runs with each of --lambdas in one program,
tests them with as many glimpses as in training and with up to 50, and writes accuracies
and norms of the internal state into --workdir: stability.json. The table that it prints
is `stability` in experiments/reporting/study_tables.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags as absl_flags

from experiments.cli import app, errors, flags
from experiments.studies import study
from ramjax.config import Config


def define_flags() -> None:
  """Defines the flags of the script."""
  absl_flags.DEFINE_list(
    "lambdas",
    "0,0.003,0.01,0.03,0.1,0.3",
    "Values of lambda_2 (comma-separated), in the place of --lambda_intrinsic.",
  )
  flags.define_train_flags(num_seeds=8, num_epochs=1)


def variants(config: Config) -> Sequence[study.Variant]:
  """A variant for each value of lambda_2.

  Raises:
    UsageError: if a value is no number, or not in its range.
  """
  if flags.FLAGS["lambda_intrinsic"].present:
    raise errors.UsageError(
      "lambda_intrinsic must not be given: --lambdas has its values"
    )
  if config.objective.name not in ("intrinsic", "both"):
    raise errors.UsageError("objective must be intrinsic or both, to have lambda_2")
  values = flags.distinct("lambdas", float)
  trained_with = config.train.num_glimpses
  return [
    study.Variant(
      name=f"{value:g}",
      folder=f"lambda_{value:g}",
      config=config.replace(objective={"lambda_intrinsic": value}),
      glimpses=tuple(sorted({1, trained_with, 10, 20, 50})),
    )
    for value in values
  ]


if __name__ == "__main__":
  define_flags()
  app.run(lambda: study.main("stability", variants))
