"""As many glimpses in the test as in training: `python -m experiments.same_glimpses`.

The setting of Mnih et al. (2014), section 4.1, which the paper calls the first one: a
model is trained for each number of glimpses, two to eight, and tested with that number, one
rollout an image and the mean of ten. Writes same_glimpses.json into --workdir.
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags as absl_flags

from experiments.cli import app, errors, flags
from experiments.studies import study
from ramjax.config import Config

_NUMS_SAMPLES = (1, 10)


def define_flags() -> None:
  """Defines the flags of the script."""
  absl_flags.DEFINE_list(
    "glimpses", "2,3,4,5,6,7,8", "Numbers of glimpses N (comma-separated)."
  )
  flags.define_train_flags()


def variants(config: Config) -> Sequence[study.Variant]:
  """Two variants for each number of glimpses, M = 1 and 10, which are one training.

  Raises:
    UsageError: if they are not different integers of at least 1.
  """
  if flags.FLAGS["num_glimpses"].present:
    raise errors.UsageError("num_glimpses must not be given: --glimpses has its values")
  numbers = flags.distinct("glimpses", int, least=1)
  return [
    study.Variant(
      name=f"N = {number}, M = {num_samples}",
      folder=f"glimpses_{number}",
      config=config.replace(train={"num_glimpses": number}),
      glimpses=(number,),
      num_samples=num_samples,
    )
    for number in numbers
    for num_samples in _NUMS_SAMPLES
  ]


if __name__ == "__main__":
  define_flags()
  app.run(lambda: study.main("same_glimpses", variants))
