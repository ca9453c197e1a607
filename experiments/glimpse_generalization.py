"""Figure 2: what trained models do with more glimpses than they were trained for.

`python -m experiments.glimpse_generalization --workdir=RUN[,RUN…]` evaluates each run
with a fixed number of glimpses, 1 to --max_glimpses, and with a dynamic one for each
of --betas, and writes glimpse_generalization.json and .png into the first folder.
"""

from __future__ import annotations

import math
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags as absl_flags
from jax.sharding import Mesh

import ramjax
from experiments.cli import app, errors, flags
from experiments.reporting import plots
from experiments.runs import files, trained
from experiments.runs import workdir as workdir_lib
from experiments.runs.program import run_keys
from experiments.runs.provenance import provenance
from ramjax import data, parallel
from ramjax.config import Config, TrainConfig
from ramjax.networks import Params

_BETAS = (
  "0,0.01,0.02,0.03,0.05,0.07,0.1,0.12,0.15,0.2,0.25,0.3,0.35,0.4,0.45,0.5,0.6,0.8,"
  "1,1.5,2,3,5,7,10"
)
"""Those of the paper, and some between them."""


def define_flags() -> None:
  """Defines the flags of the script."""
  absl_flags.DEFINE_integer("max_glimpses", 50, "Largest number of glimpses.")
  absl_flags.DEFINE_list(
    "betas", _BETAS, "Exploration rates of the stopping rule (comma-separated)."
  )
  flags.define_rollout_flags()
  absl_flags.DEFINE_enum(
    "checkpoint",
    "latest",
    ["latest", "best"],
    "Which state of a run: the newest, or the one with the best validation accuracy.",
  )
  flags.define_split_flag()
  flags.define_evaluation_flags()
  flags.define_device_flags()


def main() -> None:
  """Evaluates the runs that the flags name."""
  options = flags.FLAGS
  workdirs = trained.workdirs()
  TrainConfig(seed=options.seed)  # checks its range
  flags.check_at_least_one("max_glimpses", "num_samples")
  betas = _parse_betas()
  mesh = flags.open_mesh()
  first = parallel.is_first_process()
  with parallel.together():
    configs = [workdir_lib.read_config(workdir) for workdir in workdirs]
    params_of = [
      trained.restore_params(workdir, config, best=options.checkpoint == "best")
      for workdir, config in zip(workdirs, configs, strict=True)
    ]
    datasets = trained.datasets_of(configs, data_dir=options.data_dir)
  # A run that is still being trained may have gone on between two readers.
  params_of = parallel.from_first_process(params_of)
  if first:
    for told in dict.fromkeys(f"{d.name} from {d.source}" for d in datasets):
      print(told, flush=True)

  results = []
  runs = zip(workdirs, configs, params_of, datasets, strict=True)
  for workdir, config, params, dataset in runs:
    began = time.perf_counter()
    evaluated = _evaluate(config, params, dataset, betas, mesh)
    results.append(
      {"workdir": str(workdir.path), **results_of(config, evaluated, betas)}
    )
    seconds = time.perf_counter() - began
    if first:
      print(
        f"{workdir.path}: {config.objective.name}, M = {options.num_samples},"
        f" {seconds:.1f} s"
      )
      _print_table(results[-1])
  if first:
    _write(workdirs[0].path / "glimpse_generalization.json", results)


def _evaluate(
  config: Config,
  params: Params,
  dataset: data.Dataset,
  betas: list[float],
  mesh: Mesh,
) -> ramjax.Evaluation:
  """What the flags ask for of one run, on the host."""
  options = flags.FLAGS
  everywhere = parallel.copied(mesh)
  found = ramjax.evaluate(
    run_keys(options.seed).generalization,
    parallel.place(params, everywhere),
    *parallel.place(getattr(dataset, options.split), everywhere),
    jnp.array(betas, jnp.float32),
    model_config=config.model,
    num_glimpses=options.max_glimpses,
    preprocess=dataset.preprocess,
    num_samples=options.num_samples,
    location_policy=options.location_policy,
    sharding=parallel.divided(mesh),
  )
  return jax.device_get(found)


def _write(target: pathlib.Path, results: list[dict[str, Any]]) -> None:
  """Writes results and their figure."""
  options = flags.FLAGS
  files.write_json(
    target,
    {
      "num_samples": options.num_samples,
      "location_policy": options.location_policy,
      "checkpoint": options.checkpoint,
      "split": options.split,
      "evaluation_seed": options.seed,
      **provenance(),
      "runs": results,
    },
  )
  plots.glimpse_generalization(results, target.with_suffix(".png"))
  print(f"written to {target} and {target.with_suffix('.png').name}")


def results_of(
  config: Config, found: ramjax.Evaluation, betas: list[float]
) -> dict[str, Any]:
  """The evaluation of a run in the form of `glimpse_generalization.json`."""
  fixed = zip(found.accuracy_t.tolist(), found.hidden_norm_t.tolist(), strict=True)
  dynamic = zip(
    betas, found.mean_glimpses.tolist(), found.dynamic_accuracy.tolist(), strict=True
  )
  return {
    "objective": config.objective.name,
    "seed": config.train.seed,
    "train_num_glimpses": config.train.num_glimpses,
    "fixed": [
      {"num_glimpses": n, "accuracy": accuracy, "hidden_norm": norm}
      for n, (accuracy, norm) in enumerate(fixed, start=1)
    ],
    "dynamic": [
      {"beta": beta, "mean_glimpses": glimpses, "accuracy": accuracy}
      for beta, glimpses, accuracy in dynamic
    ],
  }


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
    print(
      f"  N = {point['num_glimpses']:<4} accuracy {point['accuracy']:.4f}"
      f"  norm of the state {point['hidden_norm']:.4g}"
    )
  for point in dynamic:
    print(
      f"  beta = {point['beta']:<5g} accuracy {point['accuracy']:.4f}"
      f"  mean glimpses {point['mean_glimpses']:.2f}"
    )


if __name__ == "__main__":
  define_flags()
  app.run(main)
