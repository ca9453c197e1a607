"""Which stopping rule earns its place: `python -m experiments.stopping_rules`.

`--workdir=RUN[,RUN…]` names trained runs. Each rule stops where a score of the probabilities
p and the self-uncertainty u exceeds a threshold. For all thresholds the script measures
accuracy and mean number of glimpses, with one rollout an image. It writes
stopping_rules.json and .png into the first folder, or where --output says.
"""

from __future__ import annotations

from absl import flags as absl_flags
from absl import logging

from experiments.cli import app, devices, flags
from experiments.reporting import plots, tables
from experiments.runs import output, trained
from experiments.studies import rules, scores
from ramjax.config import EvaluationConfig

_LOW = 2.0
"""Mean number of glimpses at which the area begins; it ends at that of the training."""


def define_flags() -> None:
  """Defines the flags of the script."""
  absl_flags.DEFINE_integer("max_glimpses", 30, "Largest number of glimpses.")
  flags.define_evaluation_flags()
  flags.define_figure_flag()
  devices.define_jax_flags()


def main() -> None:
  """Compares the rules on the runs that the flags name."""
  options = flags.FLAGS
  flags.check_at_least(2, "max_glimpses")
  flags.check_seed()
  devices.set_up_jax()
  target = output.evaluation_target("stopping_rules")
  look = EvaluationConfig(num_glimpses=options.max_glimpses)
  entries = []
  runs = trained.open_runs()
  flags.check_at_least(
    max(run.config.train.num_glimpses for run in runs), "max_glimpses"
  )
  if options.split != "test":
    logging.warning(
      "'largest p, calibrated' is judged on images to which its temperature is fitted"
    )
  for run in runs:
    described = run.describe()
    print(f"{described['workdir']}: {described['dataset']}", flush=True)
    validated = scores.predict(run, look, split="validation", seed=options.seed)
    tested = scores.predict(run, look, split=options.split, seed=options.seed)
    found = rules.curves(*tested, rules.temperatures(*validated))
    high = float(run.config.train.num_glimpses)
    entries.append(
      {
        **described,
        "rules": [
          {
            "name": name,
            "points": points,
            "area": rules.area(points, low=_LOW, high=high),
          }
          for name, points in found.items()
        ],
      }
    )
  results = output.evaluation(entries, split=options.split, seed=options.seed)
  print(tables.stopping_rules(results))
  output.write(target, results, plots.stopping_rules(results))


if __name__ == "__main__":
  define_flags()
  app.run(main)
