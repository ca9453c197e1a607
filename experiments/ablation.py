"""What makes the whole network learn to look: `python -m experiments.ablation`.

Trains --num_seeds runs with one or eight rollouts of each image (S), with and without
REINFORCE's gradient in the state (c = 1/N or 0), with the baseline network or the other
rollouts as the baseline, with the RNN and the LSTM. All have as many rollouts as
--num_epochs says, and as many in a step as --batch_size says. Writes errors on the
validation images into --workdir: ablation.json.
"""

from __future__ import annotations

from collections.abc import Sequence

from experiments.cli import app, flags
from experiments.cli.errors import UsageError
from experiments.studies import study
from ramjax.config import Config

_ROLLOUTS = 8


def define_flags() -> None:
  """Defines the flags of the script."""
  flags.define_train_flags(num_seeds=2, num_epochs=16)


def variants(config: Config) -> Sequence[study.Variant]:
  """The combinations, the released one first.

  Raises:
    UsageError: if batch and epochs cannot be divided by the rollouts of an image.
  """
  train = config.train
  for name in ("batch_size", "num_epochs"):
    if getattr(train, name) % _ROLLOUTS:
      raise UsageError(f"{name} must be a multiple of {_ROLLOUTS} here")
  several = {
    "rollouts_per_image": _ROLLOUTS,
    "batch_size": train.batch_size // _ROLLOUTS,
    "num_epochs": train.num_epochs // _ROLLOUTS,
    "warmup_epochs": train.warmup_epochs / _ROLLOUTS,
  }
  chosen = []
  for core in ("rnn", "lstm"):
    for rollouts, baseline in ((1, "network"), (8, "network"), (8, "leave_one_out")):
      for share, text in ((0.0, "0"), (1 / train.num_glimpses, "1/N")):
        changed = config.replace(
          model={"core": core},
          objective={"location_gradient": share},
          train=several if rollouts > 1 else {},
        ).replace(objective={"baseline": baseline})
        words = baseline.replace("_", " ")
        chosen.append(
          study.Variant(
            name=f"{core.upper()}, S = {rollouts}, c = {text}, {words}",
            folder=f"{core}_{rollouts}_{baseline}_{'c' if share else '0'}",
            config=changed,
            glimpses=tuple(sorted({train.num_glimpses, 50})),
          )
        )
  return chosen


if __name__ == "__main__":
  define_flags()
  app.run(lambda: study.main("ablation", variants, split="validation"))
