"""Figure 2: accuracy of trained models with more glimpses than in training.

`python -m experiments.glimpse_generalization --workdir=RUN[,RUN…]` evaluates each run
with fixed numbers of glimpses, 1 to --max_glimpses, and with a dynamic number for each of
--betas; with --protocol=released as the paper's code does. It writes
glimpse_generalization.json and .png into the first folder, or where --output says.
"""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

from absl import flags as absl_flags

from experiments.cli import app, devices, errors, flags
from experiments.reporting import plots
from experiments.runs import output, trained
from experiments.studies import scores
from ramjax import parallel

_BETAS = (
  "0,0.01,0.02,0.03,0.05,0.07,0.1,0.12,0.15,0.2,0.25,0.3,0.35,0.4,0.45,0.5,0.6,0.8,"
  "1,1.5,2,3,5,7,10"
)
"""The rates of the paper, and some between them."""


def define_flags() -> None:
  """Defines the flags of the script."""
  absl_flags.DEFINE_integer("max_glimpses", 50, "Largest number of glimpses.")
  absl_flags.DEFINE_list(
    "betas", _BETAS, "Exploration rates of the stopping rule (comma-separated)."
  )
  absl_flags.DEFINE_enum(
    "protocol",
    "paper",
    ["paper", "released"],
    "How a prediction is made: by the equations of the paper, or as in the released code,"
    " by its own stopping rule with M = 10 (if --num_samples is not given). The published"
    " figures are of the latter.",
  )
  flags.define_rollout_flags()
  absl_flags.DEFINE_enum(
    "checkpoint",
    "latest",
    ["latest", "best"],
    "Which state of a run: the newest, or the one with the best validation accuracy.",
  )
  flags.define_evaluation_flags()
  flags.define_figure_flag()
  devices.define_device_flags()


def main() -> None:
  """Evaluates the runs that the flags name."""
  options = flags.FLAGS
  trained.workdirs()  # before devices are started
  flags.check_seed()
  released = options.protocol == "released"
  evaluation_config = flags.evaluation_config()
  if released and not options["num_samples"].present:
    evaluation_config = dataclasses.replace(evaluation_config, num_samples=10)
  betas = _parse_betas()
  mesh = devices.open_mesh()
  is_first = parallel.is_first_process()
  with parallel.together():
    target = output.evaluation_target("glimpse_generalization") if is_first else None
  runs = trained.open_runs(best=options.checkpoint == "best")
  if is_first:
    sources = (f"{run.dataset.name} from {run.dataset.source}" for run in runs)
    for source in dict.fromkeys(sources):
      print(source, flush=True)

  described = []
  for run in runs:
    began = time.perf_counter()
    score = scores.score_as_released if released else scores.score
    scored = score(
      run,
      evaluation_config,
      betas=betas,
      split=options.split,
      seed=options.seed,
      mesh=mesh,
    )
    seconds = time.perf_counter() - began
    if is_first:
      described.append({**run.describe(), **scored})
      print(
        f"{run.workdir.path}: {run.config.objective.name},"
        f" M = {evaluation_config.num_samples}, {seconds:.1f} s"
      )
      _print_table(described[-1])
  if is_first:
    results = output.evaluation(
      described,
      split=options.split,
      seed=options.seed,
      protocol=options.protocol,
      num_samples=evaluation_config.num_samples,
      location_policy=evaluation_config.location_policy,
      location_noise=evaluation_config.location_noise,
      checkpoint=options.checkpoint,
    )
    assert target is not None
    output.write(target, results, plots.glimpse_generalization(results))


def _parse_betas() -> list[float]:
  betas = flags.numbers("betas", float)
  for beta in betas:
    if not (math.isfinite(beta) and beta >= 0):
      raise errors.UsageError(f"betas must be finite and at least 0, not {beta}")
  return betas


def _print_table(result: dict[str, Any]) -> None:
  fixed, dynamic = result["fixed"], result["dynamic"]
  shown = sorted({1, result["train_num_glimpses"], 10, 20, len(fixed)})
  for point in (fixed[n - 1] for n in shown if n <= len(fixed)):
    norm = (
      f"  norm of the state {point['hidden_norm']:.4g}"
      if "hidden_norm" in point
      else ""
    )
    print(f"  N = {point['num_glimpses']:<4} accuracy {point['accuracy']:.4f}{norm}")
  for point in dynamic:
    print(
      f"  beta = {point['beta']:<5g} accuracy {point['accuracy']:.4f}"
      f"  mean glimpses {point['mean_glimpses']:.2f}"
    )


if __name__ == "__main__":
  define_flags()
  app.run(main)
