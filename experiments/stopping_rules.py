"""Which stopping rule earns its place: `python -m experiments.stopping_rules`.

`--workdir=RUN[,RUN…]` names trained runs. Each rule stops where a score of the probabilities
p and the self-uncertainty u exceeds a threshold. For all thresholds the script measures
accuracy and mean number of glimpses, with one rollout an image. It writes
stopping_rules.json and .png into the first folder, or where --output says.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from absl import flags as absl_flags

import ramjax
from experiments.cli import app, devices, flags
from experiments.reporting import groups, plots, tables
from experiments.runs import output, trained
from experiments.runs.program import run_keys
from experiments.runs.provenance import provenance
from experiments.studies import rules
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
  entries = []
  for run in trained.open_runs():
    described = run.describe()
    print(f"{described['workdir']}: {described['dataset']}", flush=True)
    temperature_t = rules.temperatures(*_predict(run, "validation"))
    found = rules.curves(*_predict(run, options.split), temperature_t)
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
  results = {
    "split": options.split,
    "evaluation_seed": options.seed,
    **provenance(),
    "runs": groups.with_groups(entries),
  }
  print(tables.stopping_rules(results))
  output.write(target, results, plots.stopping_rules(results))


def _predict(
  run: trained.TrainedRun, split: str
) -> tuple[ramjax.Prediction, jax.Array]:
  """Predictions for the images of a split, and their labels."""
  images, labels = getattr(run.dataset, split)
  prediction = ramjax.predict(
    run_keys(flags.FLAGS.seed).generalization,
    run.params,
    images,
    model=run.config.model,
    evaluation_config=EvaluationConfig(num_glimpses=flags.FLAGS.max_glimpses),
    preprocess=run.dataset.preprocess,
  )
  return prediction, jnp.asarray(labels)


if __name__ == "__main__":
  define_flags()
  app.run(main)
