"""What each setting of a training is worth: `python -m experiments.ablation`.

Trains --num_seeds runs with each of --cores, with each of --rollouts of an image (S), with
and without REINFORCE's gradient in the state (c = 1/N or 0), and, if S > 1, with the
baseline network and with the other rollouts as the baseline. With --change it compares the
training that the other flags describe with trainings that differ from it in one setting:
--change=optimizer=adam --change=rollouts_per_image=4. All have as many rollouts, in a step
and in all, as the flags say.

Writes errors on the validation images into --workdir: ablation.json.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from absl import flags as absl_flags

from experiments.cli import app, flags
from experiments.cli.errors import UsageError
from experiments.studies import study
from ramjax.config import Config, TrainConfig
from ramjax.data.datasets import reading

_SHARED = {
  *("seed", "batch_size", "num_epochs", "warmup_epochs", "num_train_examples"),
  *("dataset", "num_glimpses", *reading(TrainConfig())),
}
"""Settings of a training that all variants have: data, glimpses, and how many rollouts."""


def define_flags() -> None:
  """Defines the flags of the script."""
  absl_flags.DEFINE_list("cores", "rnn,lstm", "Recurrent cores (comma-separated).")
  absl_flags.DEFINE_list(
    "rollouts", "1,8", "Rollouts of an image, S (comma-separated)."
  )
  absl_flags.DEFINE_multi_string(
    "change",
    None,
    "SETTING=VALUE, a flag of a training or a field of --set with another value; may be"
    " given several times. Each is compared with the settings that all other flags give.",
  )
  flags.define_train_flags(num_seeds=2, num_epochs=16)


def variants(config: Config) -> Sequence[study.Variant]:
  """What is compared: the changes that the flags name, or else the combinations.

  Raises:
    UsageError: if batch and epochs cannot be divided by the rollouts of an image, values
      are not different, or a flag says what the variants say.
  """
  return changes(config) if flags.FLAGS.change else combinations(config)


def changes(config: Config) -> Sequence[study.Variant]:
  """The training that the flags describe, and one for each change to it.

  Raises:
    UsageError: see `variants`.
  """
  for name in ("cores", "rollouts"):
    if flags.FLAGS[name].present:
      raise UsageError(f"{name} must not be given with --change: it is not compared")
  given = {"as it is": config}
  for change in flags.FLAGS.change:
    if (name := change.partition("=")[0].removeprefix("train.")) in _SHARED:
      raise UsageError(f"change must not be of {name}: all variants have the same")
    given[change] = _like(config, flags.changed(config, "change", change))
  if len(set(given.values())) <= len(flags.FLAGS.change):
    raise UsageError(
      "change must name settings that are different, and not as they are"
    )
  return [
    _variant(name, each, re.sub(r"\W+", "_", name)) for name, each in given.items()
  ]


def combinations(config: Config) -> Sequence[study.Variant]:
  """The combinations of rollouts, gradient, baseline and core, the released one first.

  Raises:
    UsageError: see `variants`.
  """
  for name in ("core", "rollouts_per_image", "baseline", "location_gradient"):
    if flags.FLAGS[name].present:
      raise UsageError(f"{name} must not be given: its values are compared")
  cores, variants = flags.FLAGS.cores, []
  if not cores or len(set(cores)) < len(cores):
    raise UsageError(f"cores must be different, not {','.join(cores)!r}")
  for core in cores:
    for rollouts in flags.distinct("rollouts", int, least=1):
      for baseline in ("network", "leave_one_out") if rollouts > 1 else ("network",):
        for share in (0.0, 1 / config.train.num_glimpses):
          changed = config.replace(
            model={"core": core},
            objective={"location_gradient": share, "baseline": baseline},
            train={"rollouts_per_image": rollouts},
          )
          text, words = "1/N" if share else "0", baseline.replace("_", " ")
          variants.append(
            _variant(
              f"{core.upper()}, S = {rollouts}, c = {text}, {words}",
              _like(config, changed),
              f"{core}_{rollouts}_{baseline}_{'c' if share else '0'}",
            )
          )
  return variants


def _variant(name: str, config: Config, folder: str) -> study.Variant:
  glimpses = tuple(sorted({config.train.num_glimpses, 50}))
  return study.Variant(name=name, folder=folder, config=config, glimpses=glimpses)


def _like(config: Config, changed: Config) -> Config:
  """`changed` with as many rollouts in a step and in all as `config` has.

  Raises:
    UsageError: if they cannot be divided.
  """
  train, rollouts = config.train, changed.train.rollouts_per_image
  before = train.rollouts_per_image
  for name in ("batch_size", "num_epochs"):
    if getattr(train, name) * before % rollouts:
      raise UsageError(
        f"{name} must be a multiple of {rollouts // math.gcd(rollouts, before)}, to be"
        f" divided by {rollouts} rollouts of each image"
      )
  return changed.replace(
    train={
      "batch_size": train.batch_size * before // rollouts,
      "num_epochs": train.num_epochs * before // rollouts,
      "warmup_epochs": train.warmup_epochs * before / rollouts,
    }
  )


if __name__ == "__main__":
  define_flags()
  app.run(lambda: study.main("ablation", variants, split="validation"))
