"""Figure 1: how fast the four objectives learn, `python -m experiments.convergence`.

Trains --num_seeds runs of each objective side by side in one program and writes their
train accuracy, with means, 95 % confidence bands and comparisons paired over the seeds,
into --workdir: convergence.json and convergence.png.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import os
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from absl import flags as absl_flags
from jax.sharding import Mesh

import ramjax
from experiments import flags, plots
from experiments import workdir as workdir_lib
from experiments.programs import run_keys
from ramjax import data, parallel
from ramjax.config import OBJECTIVES, Config, TrainConfig

_CONFIDENCE = 0.95


def define_flags() -> None:
  """Defines the flags of the binary: those of a training, for all objectives."""
  flags.define_train_flags()
  absl_flags.DEFINE_integer("num_seeds", 8, "Runs of each objective, from --seed on.")
  absl_flags.DEFINE_integer("window", 100, "Steps of the windowed mean.")
  for name, value in (("lambda_intrinsic", 3e-3), ("num_epochs", 1)):
    flags.FLAGS.set_default(name, value)


def main() -> None:
  """Trains, compares and draws what the flags ask for."""
  options = flags.FLAGS
  if options["objective"].present:
    raise flags.UsageError("objective must not be given: all four are trained")
  for name in ("num_seeds", "window", "num_epochs", "steps_per_call"):
    if getattr(options, name) < 1:
      raise flags.UsageError(f"{name} must be at least 1, not {getattr(options, name)}")
  flags.train_config(image_shape=(28, 28, 1), num_classes=10)  # before data are sought
  TrainConfig(seed=options.seed + options.num_seeds - 1)
  flags.set_up_jax()
  num_runs = options.num_seeds * len(OBJECTIVES)
  cores = math.gcd(num_runs, len(os.sched_getaffinity(0)))
  parallel.start(num_devices=options.num_devices or cores)
  mesh = parallel.make_mesh(
    num_devices=options.num_devices or math.gcd(num_runs, jax.device_count())
  )
  if num_runs % mesh.size:
    raise flags.UsageError(
      f"num_devices must divide the number of runs, {num_runs}, not be {mesh.size}"
    )
  config, dataset = flags.load_run()
  label = workdir_lib.data_label(config.train)
  folder = pathlib.Path(options.workdir or f"runs/convergence_{label}")
  folder.mkdir(parents=True, exist_ok=True)
  print(
    f"{dataset.name} from {dataset.source}; {num_runs} runs on {mesh.size} x"
    f" {mesh.devices.flat[0].device_kind}; writing to {folder}",
    flush=True,
  )
  seeds = list(range(options.seed, options.seed + options.num_seeds))
  accuracy = train_all(
    config, dataset, seeds, mesh=mesh, steps_per_call=options.steps_per_call
  )
  results = {
    "config": config.to_dict(),
    "seeds": seeds,
    **workdir_lib.provenance(),
    **summary(accuracy, window=options.window),
  }
  for line in in_words(results):
    print(line)
  target = folder / "convergence.json"
  workdir_lib.write_json(target, results)
  plots.convergence(results, target.with_suffix(".png"), half_width=half_width)
  print(f"written to {target} and {target.with_suffix('.png').name}")


def train_all(
  config: Config,
  dataset: data.Dataset,
  seeds: list[int],
  *,
  mesh: Mesh,
  steps_per_call: int,
) -> dict[str, np.ndarray]:
  """Trains every objective with every seed, all runs in one program.

  Args:
    config: what the runs have in common; its objective and seed are not used.
    dataset: what they train on.
    seeds: S seeds, each of which draws what `experiments.train` draws with it.
    mesh: the devices that share the runs.
    steps_per_call: steps between two looks.

  Returns:
    Train accuracy of each step of each run of an objective [S, steps].

  Raises:
    RunError: if a step was skipped, since then the runs cannot be compared.
  """
  num_examples, batch_size = len(dataset.train.labels), config.train.batch_size
  steps_per_epoch = num_examples // batch_size
  steps_per_call = min(steps_per_call, steps_per_epoch)
  optimizer = ramjax.make_optimizer(config.train, steps_per_epoch=steps_per_epoch)
  keys = [run_keys(seed) for _ in OBJECTIVES for seed in seeds]
  weights = [
    ramjax.TermWeights.of(dataclasses.replace(config.objective, name=name))
    for name in OBJECTIVES
    for _ in seeds
  ]
  init = functools.partial(ramjax.init_train_states, config=config, optimizer=optimizer)
  chunks = functools.partial(
    ramjax.train_chunks,
    config=config,
    optimizer=optimizer,
    preprocess=dataset.preprocess,
    max_steps=steps_per_call,
    mesh=mesh,
  )
  program = jax.jit(chunks, donate_argnames="states")
  shared = parallel.divided(mesh)
  states, term_weights = parallel.place(
    (
      jax.jit(init)(jnp.stack([key.init for key in keys])),
      jax.tree.map(lambda *values: jnp.array(values), *weights),
    ),
    shared,
  )
  pictures = parallel.place(dataset.train, parallel.copied(mesh))
  accuracy: list[np.ndarray] = []
  began = time.perf_counter()
  for epoch in range(1, config.train.num_epochs + 1):
    orders = ramjax.epoch_orders(
      jnp.stack([key.order for key in keys]),
      epoch,
      num_examples=num_examples,
      batch_size=batch_size,
    )
    orders = parallel.place(orders, shared)
    for start in range(0, steps_per_epoch, steps_per_call):
      stop = min(start + steps_per_call, steps_per_epoch)
      states, history = program(states, *pictures, orders, start, stop, term_weights)
      found = jax.device_get(history)
      if found["skipped"].any():
        raise flags.RunError(
          f"a step before step {stop} of epoch {epoch} was not finite and skipped;"
          " train with a lower --learning_rate"
        )
      accuracy.append(found["accuracy"][:, : stop - start])
    seconds = time.perf_counter() - began
    print(f"epoch {epoch} of {config.train.num_epochs}, {seconds:.0f} s", flush=True)
  by_objective = np.concatenate(accuracy, axis=1).reshape(
    len(OBJECTIVES), len(seeds), -1
  )
  return dict(zip(OBJECTIVES, by_objective, strict=True))


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
      **_paired(accuracy[faster].mean(axis=1) - accuracy[slower].mean(axis=1)),
    }
    for slower, faster in itertools.combinations(accuracy, 2)
  ]
  return {
    "steps": steps.tolist(),
    "window": window,
    "curves": curves,
    "comparisons": comparisons,
  }


def half_width(values: np.ndarray) -> np.ndarray:
  """Half of the 95 % confidence interval of a mean over runs, by Student's t.

  Args:
    values: values [S, ...], one a run.

  Returns:
    Half-widths [...]; NaN for a single run.
  """
  count = len(values)
  if count < 2:
    return np.full(values.shape[1:], np.nan)
  quantile = scipy.stats.t.ppf(0.5 + _CONFIDENCE / 2, count - 1)
  return quantile * values.std(axis=0, ddof=1) / np.sqrt(count)


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


def _paired(differences: np.ndarray) -> dict[str, float]:
  """Mean, confidence and two-sided p-value of differences [S] between two objectives."""
  test = scipy.stats.ttest_1samp(differences, 0.0) if len(differences) > 1 else None
  return {
    "difference": float(differences.mean()),
    "half_width": float(half_width(differences)),
    "p_value": float(test.pvalue) if test else math.nan,
  }


if __name__ == "__main__":
  define_flags()
  absl_flags.adopt_module_key_flags(flags)  # so that --help shows them
  flags.run(main)
