"""Trains a model: `python -m experiments.train --objective=both`.

Writes configuration, metrics, checkpoints, TensorBoard events and figures into
--workdir, and prints the test accuracy as its last line. With --num_seeds=R it trains R
seeds in one program, each into a folder of its own, <workdir>_seed0 and so on. Started
again, it resumes.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from jax.sharding import Mesh

from experiments.cli import app, devices, flags
from experiments.runs import trainer
from experiments.runs import workdir as workdir_lib
from ramjax import data, parallel
from ramjax.config import Config


def main() -> None:
  """Trains, evaluates and draws what the flags ask for."""
  options = flags.FLAGS
  flags.check_at_least(1, "steps_per_call", "max_skipped_steps")
  seeds = flags.seeds()
  checked = flags.config_from_flags()  # before the data are looked for
  mesh = None
  if len(seeds) > 1:
    devices.start_for_runs()
  else:
    mesh = devices.open_mesh(checked.train)

  def make_mesh(num_runs: int) -> Mesh:
    return mesh or devices.mesh_for_runs(num_runs)

  used = make_mesh(len(seeds))  # refused before a folder is made
  with parallel.together():
    configs, dataset, workdirs = _open_runs(seeds)
  if parallel.is_first_process():
    named = f"{used.size} x {used.devices.flat[0].device_kind}"
    others = f" to {workdirs[-1].path}" if len(workdirs) > 1 else ""
    print(dataset.describe())
    print(f"on {named}; writing to {workdirs[0].path}{others}", flush=True)
  trainer.train(
    configs,
    dataset,
    workdirs,
    steps_per_call=options.steps_per_call,
    max_skipped_steps=options.max_skipped_steps,
    make_mesh=make_mesh,
    figure_format=options.figure_format,
  )


def _open_runs(
  seeds: Sequence[int],
) -> tuple[list[Config], data.Dataset, list[workdir_lib.Workdir]]:
  """The runs that the flags describe: configurations, data, folders."""
  config, dataset = flags.load_run()
  configs = [config.replace(train={"seed": seed}) for seed in seeds]
  base = flags.FLAGS.workdir
  if not base:
    folders = list(map(workdir_lib.default_workdir, configs))
  elif len(seeds) == 1:
    folders = [base]
  else:
    folders = [f"{base}_seed{seed}" for seed in seeds]
  workdirs = [workdir_lib.Workdir(pathlib.Path(folder)) for folder in folders]
  if parallel.is_first_process():
    for each, workdir in zip(configs, workdirs, strict=True):
      workdir_lib.open_run(workdir, each, dataset.info)
  return configs, dataset, workdirs


if __name__ == "__main__":
  flags.define_train_flags()
  flags.define_figure_flag()
  app.run(main)
