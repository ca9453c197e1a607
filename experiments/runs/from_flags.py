"""The runs that flags ask for, trained: from the command line to the last line."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence

from jax.sharding import Mesh

from experiments.cli import devices, flags
from experiments.cli.errors import UsageError
from experiments.runs import trainer
from experiments.runs import workdir as workdir_lib
from ramjax import data, parallel
from ramjax.config import Config


def train(
  folders: Callable[[Sequence[Config]], Sequence[pathlib.Path]],
) -> list[workdir_lib.Workdir]:
  """Trains, tests and draws the runs that the flags of a training ask for.

  Args:
    folders: from the configurations of the runs, one for each seed, to their folders.

  Returns:
    The folders of the runs that this process has trained, see `devices.share`.

  Raises:
    UsageError: if there is no run for this process.
  """
  options = flags.FLAGS
  when = schedule()
  seeds: Sequence[int] = flags.seeds()
  checked = flags.config_from_flags()  # before the data are looked for
  mesh = None
  if len(seeds) > 1:
    devices.start_for_runs()
    num_seeds, seeds = len(seeds), devices.share(seeds)
    if not seeds:
      raise UsageError(f"process_id must be less than num_seeds, {num_seeds}")
  else:
    mesh = devices.open_mesh(checked.train)

  def make_mesh(num_runs: int) -> Mesh:
    return mesh or devices.mesh_for_runs(num_runs)

  if mesh is None:
    devices.check_divide(len(seeds))  # refused before a folder is made
  used = make_mesh(len(seeds))
  with parallel.together():
    configs, dataset, workdirs = _open_runs(seeds, folders)
  if parallel.is_first_process():
    named = f"{used.size} x {used.devices.flat[0].device_kind}"
    others = f" to {workdirs[-1].path}" if len(workdirs) > 1 else ""
    print(dataset.describe())
    print(f"on {named}; writing to {workdirs[0].path}{others}", flush=True)
  trainer.train(
    configs,
    dataset,
    workdirs,
    when,
    make_mesh=make_mesh,
    figure_format=options.figure_format,
  )
  return workdirs


def schedule() -> trainer.Schedule:
  """When a training reports, saves and gives up, as the flags say.

  Raises:
    UsageError: if a value is not in its range.
  """
  flags.check_at_least(1, "steps_per_call", "max_skipped_steps")
  flags.check_at_least(0, "save_every_seconds")
  names = ("steps_per_call", "max_skipped_steps", "save_every_seconds")
  return trainer.Schedule(**{name: getattr(flags.FLAGS, name) for name in names})


def say_if_judged_later() -> bool:
  """Says how to judge all runs if this process has trained a share; whether it has."""
  if devices.is_one_of_several():
    print("trained; when all processes have ended, the same command without")
    print("--num_processes and --process_id judges all runs")
  return devices.is_one_of_several()


def _open_runs(
  seeds: Sequence[int],
  folders: Callable[[Sequence[Config]], Sequence[pathlib.Path]],
) -> tuple[list[Config], data.Dataset, list[workdir_lib.Workdir]]:
  """The runs that the flags describe: configurations, data, folders."""
  config, dataset = flags.load_run()
  configs = [config.replace(train={"seed": seed}) for seed in seeds]
  workdirs = list(map(workdir_lib.Workdir, folders(configs)))
  if parallel.is_first_process():
    for each, workdir in zip(configs, workdirs, strict=True):
      workdir_lib.open_run(workdir, each, dataset.info)
  return configs, dataset, workdirs
