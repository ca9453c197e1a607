"""Error rates of trained models: `python -m experiments.error_rates`.

`--workdir=RUN[,RUN…]` names trained runs, each on its own dataset. For each number of
--glimpses, the script measures the test error of a single rollout (M = 1) and of the
average over M rollouts, with sampled locations and with the mean of the policy, and the
accuracy of each class. It writes error_rates.json into the first folder, or where --output
says.
"""

from __future__ import annotations

from absl import flags as absl_flags

from experiments.cli import app, devices, flags
from experiments.reporting import tables
from experiments.runs import output, trained
from experiments.studies import scores
from ramjax.config import LOCATION_POLICIES, EvaluationConfig


def define_flags() -> None:
  """Defines the flags of the script."""
  absl_flags.DEFINE_list(
    "glimpses", "4,6,8,50", "Numbers of glimpses N (comma-separated)."
  )
  absl_flags.DEFINE_list(
    "num_samples",
    "1,10",
    "Rollouts averaged for a prediction, M (comma-separated; Ba et al., 2014).",
  )
  flags.define_noise_flag()
  flags.define_evaluation_flags()
  devices.define_jax_flags()


def main() -> None:
  """Evaluates the runs that the flags name."""
  options = flags.FLAGS
  glimpses = sorted(flags.distinct("glimpses", int, least=1))
  nums_samples = sorted(flags.distinct("num_samples", int, least=1))
  noise = flags.location_noise()
  policies = LOCATION_POLICIES if noise == 1 else ("sample",)
  flags.check_seed()
  devices.set_up_jax()
  target = output.evaluation_target("error_rates")
  runs = []
  for run in trained.open_runs():
    described = run.describe()
    print(f"{described['workdir']}: {described['dataset']}", flush=True)
    scored = [
      {
        "num_samples": num_samples,
        "location_policy": policy,
        "location_noise": noise,
        "fixed": scores.score(
          run,
          EvaluationConfig(
            num_glimpses=glimpses[-1],
            num_samples=num_samples,
            location_policy=policy,
            location_noise=noise,
          ),
          glimpses=glimpses,
          split=options.split,
          seed=options.seed,
          classes=True,
        )["fixed"],
      }
      for num_samples in nums_samples
      for policy in policies
    ]
    names = list(run.dataset.class_names)
    runs.append({**described, "class_names": names, "scores": scored})
  results = output.evaluation(runs, split=options.split, seed=options.seed)
  print(tables.error_rates(results))
  print(f"\n{tables.classes(results)}")
  output.write(target, results)


if __name__ == "__main__":
  define_flags()
  app.run(main)
