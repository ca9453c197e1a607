"""Whether trained models know what they know: `python -m experiments.calibration`.

`--workdir=RUN[,RUN…]` names trained runs. For each number of glimpses up to
--max_glimpses, the expected calibration error of the belief p and how well the
self-uncertainty u predicts the true error, on the test set: calibration.json and .png in
the first folder.
"""

from __future__ import annotations

import pathlib

from absl import flags as absl_flags

from experiments import binary, flags, plots, scores, tables
from experiments import workdir as workdir_lib
from experiments.glimpse_generalization import datasets_of, restore_params
from ramjax.config import LOCATION_POLICIES, TrainConfig


def define_flags() -> None:
  """Defines the flags of the binary."""
  absl_flags.DEFINE_list(
    "workdir", None, "Folders of trained runs, separated by commas."
  )
  absl_flags.DEFINE_integer("max_glimpses", 20, "Largest number of glimpses.")
  absl_flags.DEFINE_integer(
    "num_samples", 1, "Rollouts averaged for a prediction, M (Ba et al., 2014)."
  )
  absl_flags.DEFINE_enum(
    "location_policy", "sample", LOCATION_POLICIES, "How the next location is chosen."
  )
  flags.define_data_flag()
  absl_flags.DEFINE_integer("seed", 0, "Seed of first locations and policy.")
  absl_flags.DEFINE_boolean(
    "compilation_cache", True, "Whether compiled programs are kept for the next start."
  )
  flags.define_precision_flag()


def main() -> None:
  """Judges the runs that the flags name."""
  options = flags.FLAGS
  if not options.workdir:
    raise binary.UsageError(
      "--workdir must name a trained run, or several, with commas"
    )
  for name in ("max_glimpses", "num_samples"):
    if getattr(options, name) < 1:
      raise binary.UsageError(
        f"{name} must be at least 1, not {getattr(options, name)}"
      )
  TrainConfig(seed=options.seed)  # checks its range
  flags.set_up_jax()
  workdirs = [workdir_lib.Workdir(pathlib.Path(path)) for path in options.workdir]
  configs = [workdir_lib.read_config(workdir) for workdir in workdirs]
  trained = [
    restore_params(workdir, config)
    for workdir, config in zip(workdirs, configs, strict=True)
  ]
  datasets = datasets_of(configs, data_dir=options.data_dir)
  runs = []
  for workdir, config, params, dataset in zip(
    workdirs, configs, trained, datasets, strict=True
  ):
    scored = scores.score(
      config,
      params,
      dataset,
      glimpses=range(1, options.max_glimpses + 1),
      num_samples=options.num_samples,
      location_policy=options.location_policy,
      seed=options.seed,
    )
    runs.append(
      {
        "workdir": str(workdir.path),
        "objective": config.objective.name,
        "seed": config.train.seed,
        "train_num_glimpses": config.train.num_glimpses,
        "fixed": scored["fixed"],
      }
    )
  results = {
    "num_samples": options.num_samples,
    "location_policy": options.location_policy,
    "evaluation_seed": options.seed,
    **workdir_lib.provenance(),
    "runs": runs,
  }
  print(tables.calibration(results))
  target = workdirs[0].path / "calibration.json"
  workdir_lib.write_json(target, results)
  plots.calibration(runs, target.with_suffix(".png"))
  print(f"written to {target} and {target.with_suffix('.png').name}")


if __name__ == "__main__":
  define_flags()
  binary.run(main)
