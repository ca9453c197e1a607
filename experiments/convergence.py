"""Figure 1: how fast the four objectives learn, `python -m experiments.convergence`.

Trains --num_seeds runs of each objective side by side in one program and writes their
train accuracy, with means, 95 % confidence bands and comparisons paired over the seeds,
into --workdir: convergence.json and convergence.png.
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags as absl_flags

from experiments.cli import app, errors, flags
from experiments.reporting import plots
from experiments.reporting.statistics import half_width, paired
from experiments.runs import files, side_by_side
from experiments.runs import workdir as workdir_lib
from experiments.runs.provenance import provenance
from ramjax.config import OBJECTIVES, Config


def define_flags() -> None:
  """Defines the flags of the script: those of a training, for all objectives."""
  absl_flags.DEFINE_integer("window", 100, "Steps of the windowed mean.")
  flags.define_train_flags(num_seeds=8, lambda_intrinsic=3e-3, num_epochs=1)


def main() -> None:
  """Trains, compares and draws what the flags ask for."""
  options = flags.FLAGS
  if options["objective"].present:
    raise errors.UsageError("objective must not be given: all four are trained")
  flags.check_at_least_one("window", "num_epochs", "steps_per_call")
  flags.config_from_flags()  # before the data are looked for
  seeds = flags.seeds()
  side_by_side.start_devices()
  num_runs = len(seeds) * len(OBJECTIVES)
  mesh = side_by_side.make_mesh(num_runs)
  config, dataset = flags.load_run()
  label = workdir_lib.data_label(config.train)
  folder = pathlib.Path(options.workdir or f"runs/convergence_{label}")
  print(
    f"{dataset.name} from {dataset.source}; {num_runs} runs on {mesh.size} x"
    f" {mesh.devices.flat[0].device_kind}; writing to {folder}",
    flush=True,
  )
  trained = side_by_side.train(
    configs_of(config, seeds),
    dataset,
    folder / "runs",
    mesh=mesh,
    steps_per_call=options.steps_per_call,
  )
  by_objective = trained.accuracy.reshape(len(OBJECTIVES), len(seeds), -1)
  accuracy = dict(zip(OBJECTIVES, by_objective, strict=True))
  results = {
    "config": config.to_dict(),
    "seeds": seeds,
    **provenance(),
    **summary(accuracy, window=options.window),
  }
  for line in in_words(results):
    print(line)
  target = folder / "convergence.json"
  files.write_json(target, results)
  plots.convergence(results, target.with_suffix(".png"))
  print(f"written to {target} and {target.with_suffix('.png').name}")


def configs_of(config: Config, seeds: Sequence[int]) -> list[Config]:
  """The runs of every objective with every seed, the seeds of one after another."""
  return [
    dataclasses.replace(
      config,
      objective=dataclasses.replace(config.objective, name=name),
      train=dataclasses.replace(config.train, seed=seed),
    )
    for name in OBJECTIVES
    for seed in seeds
  ]


def summary(accuracy: dict[str, np.ndarray], *, window: int) -> dict[str, Any]:
  """What there is to say of the train accuracies of many runs.

  Args:
    accuracy: train accuracy of each step of each run of an objective [S, steps].
    window: number of steps of the windowed mean.

  Returns:
    `steps`, the last step of each window; for each objective of `curves` the mean over
    each window and the running mean since the first step, [S, windows] each; and
    `comparisons` of the mean over all steps, paired over the seeds.
  """
  num_steps = next(iter(accuracy.values())).shape[1]
  window = min(window, num_steps)
  steps = np.arange(window, num_steps + 1, window)
  curves = {}
  for name, values in accuracy.items():
    windows = values[:, : steps[-1]].reshape(len(values), -1, window)
    running = np.cumsum(values, axis=1)[:, steps - 1] / steps
    curves[name] = {
      "windowed_mean": windows.mean(axis=2).tolist(),
      "running_mean": running.tolist(),
      "mean_of_all_steps": values.mean(axis=1).tolist(),
    }
  comparisons = [
    {
      "slower": slower,
      "faster": faster,
      **paired(accuracy[faster].mean(axis=1) - accuracy[slower].mean(axis=1)),
    }
    for slower, faster in itertools.combinations(accuracy, 2)
  ]
  return {
    "steps": steps.tolist(),
    "window": window,
    "curves": curves,
    "comparisons": comparisons,
  }


def in_words(results: dict[str, Any]) -> list[str]:
  """The figures as lines of text, the objectives first and then the comparisons."""
  lines = []
  for name, curve in results["curves"].items():
    values = np.array(curve["mean_of_all_steps"])
    lines.append(
      f"  {name:<12} train accuracy {values.mean():.4f} ± {half_width(values):.4f}"
    )
  for pair in results["comparisons"]:
    lines.append(
      f"  {pair['faster']} - {pair['slower']}: {pair['difference']:+.4f}"
      f" ± {pair['half_width']:.4f}, p = {pair['p_value']:.2g}"
    )
  return lines


if __name__ == "__main__":
  define_flags()
  app.run(main)
