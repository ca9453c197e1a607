"""Calibration of trained models: `python -m experiments.calibration`.

`--workdir=RUN[,RUN…]` names trained runs. For each number of glimpses up to
--max_glimpses, the script measures the expected calibration error of the probabilities p,
and how well the self-uncertainty u predicts the true error: on the test set of each run,
or on other data (--dataset). It writes calibration.json and .png into the first folder, or
where --output says.
"""

from __future__ import annotations

from absl import flags as absl_flags

from experiments.cli import app, devices, flags
from experiments.reporting import plots, tables
from experiments.runs import output, trained
from experiments.studies import scores


def define_flags() -> None:
  """Defines the flags of the script."""
  absl_flags.DEFINE_integer("max_glimpses", 20, "Largest number of glimpses.")
  flags.define_rollout_flags()
  flags.define_evaluation_flags()
  flags.define_figure_flag()
  devices.define_jax_flags()


def main() -> None:
  """Evaluates the runs that the flags name."""
  options = flags.FLAGS
  evaluation_config = flags.evaluation_config()
  flags.check_seed()
  devices.set_up_jax()
  target = output.evaluation_target("calibration")
  runs = []
  for run in trained.open_runs():
    scored = scores.score(
      run, evaluation_config, split=options.split, seed=options.seed
    )
    runs.append({**run.describe(), "fixed": scored["fixed"]})
  results = output.evaluation(
    runs,
    split=options.split,
    seed=options.seed,
    num_samples=evaluation_config.num_samples,
    location_policy=evaluation_config.location_policy,
    location_noise=evaluation_config.location_noise,
  )
  print(tables.calibration(results))
  output.write(target, results, plots.calibration(results))


if __name__ == "__main__":
  define_flags()
  app.run(main)
