"""What makes the whole network learn to look: `python -m experiments.ablation`.

Trains --num_seeds runs with each of --cores, with each of --rollouts of an image (S), with
and without REINFORCE's gradient in the state (c = 1/N or 0), and, if S > 1, with the
baseline network and with the other rollouts as the baseline. All have as many rollouts as
--num_epochs says, and as many in a step as --batch_size says. Writes errors on the
validation images into --workdir: ablation.json.
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags as absl_flags

from experiments.cli import app, flags
from experiments.cli.errors import UsageError
from experiments.studies import study
from ramjax.config import Config


def define_flags() -> None:
  """Defines the flags of the script."""
  absl_flags.DEFINE_list("cores", "rnn,lstm", "Recurrent cores (comma-separated).")
  absl_flags.DEFINE_list(
    "rollouts", "1,8", "Rollouts of an image, S (comma-separated)."
  )
  flags.define_train_flags(num_seeds=2, num_epochs=16)


def variants(config: Config) -> Sequence[study.Variant]:
  """The combinations, the released one first.

  Raises:
    UsageError: if batch and epochs cannot be divided by the rollouts of an image, values
      are not different, or a flag says what the variants say.
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
          changed = _with_rollouts(config, rollouts).replace(
            model={"core": core},
            objective={"location_gradient": share, "baseline": baseline},
          )
          text, words = "1/N" if share else "0", baseline.replace("_", " ")
          variants.append(
            study.Variant(
              name=f"{core.upper()}, S = {rollouts}, c = {text}, {words}",
              folder=f"{core}_{rollouts}_{baseline}_{'c' if share else '0'}",
              config=changed,
              glimpses=tuple(sorted({config.train.num_glimpses, 50})),
            )
          )
  return variants


def _with_rollouts(config: Config, rollouts: int) -> Config:
  """The same number of rollouts in a step and in all, several of each image.

  Raises:
    UsageError: if they cannot be divided.
  """
  train = config.train
  for name in ("batch_size", "num_epochs"):
    if getattr(train, name) % rollouts:
      raise UsageError(f"{name} must be a multiple of each of --rollouts, {rollouts}")
  return config.replace(
    train={
      "rollouts_per_image": rollouts,
      "batch_size": train.batch_size // rollouts,
      "num_epochs": train.num_epochs // rollouts,
      "warmup_epochs": train.warmup_epochs / rollouts,
    }
  )


if __name__ == "__main__":
  define_flags()
  app.run(lambda: study.main("ablation", variants, split="validation"))
