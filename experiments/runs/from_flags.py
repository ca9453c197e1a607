"""The runs that flags ask for, trained: from the command line to the last line."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence

from absl import logging
from jax.sharding import Mesh

from experiments.cli import devices, flags
from experiments.cli.errors import UsageError
from experiments.runs import trainer
from experiments.runs import workdir as workdir_lib
from ramjax import data, parallel
from ramjax.config import Config, ConfigError, ModelConfig
from ramjax.data.datasets import reading
from ramjax.ram import check_model_of


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
  config, dataset = load_run()
  configs = [config.replace(train={"seed": seed}) for seed in seeds]
  workdirs = list(map(workdir_lib.Workdir, folders(configs)))
  if parallel.is_first_process():
    for each, workdir in zip(configs, workdirs, strict=True):
      workdir_lib.open_run(workdir, each, dataset.info)
  return configs, dataset, workdirs


def load_run() -> tuple[Config, data.Dataset]:
  """The configuration that flags and data describe, and the dataset.

  Raises:
    ConfigError: if a flag is out of range, or does not go with the data.
    UsageError: see `flags.config_from_flags`.
    DataError: if the dataset cannot be found or is damaged.
  """
  config = flags.config_from_flags()
  dataset = data.load_dataset(
    config.train.dataset,
    data_dir=flags.FLAGS.data_dir,
    num_train_examples=config.train.num_train_examples,
    **reading(config.train),
  )
  _check_fits(config, dataset)
  if advice := glimpse_advice(config.model, dataset.image_shape[:2]):
    logging.warning("%s", advice)
  found = _with_data(config, dataset)
  check_model_of(found)  # so that one that cannot be used is refused here
  return found, dataset


def _check_fits(config: Config, dataset: data.Dataset) -> None:
  """Raises a `ConfigError` if flags do not go with the data."""
  given = config.train.background
  if given != "border" and dataset.background != given and not config.train.resize:
    raise ConfigError(
      f"background must not be given without canvas_size or resize, but is {given}"
    )
  side = min(dataset.image_shape[:2])
  if config.model.patch_size > side:
    raise ConfigError(
      f"patch_size must be at most {side}, the smaller side of the images of"
      f" {dataset.name}, not {config.model.patch_size}"
    )
  num_examples = len(dataset.train.labels)
  if config.train.batch_size > num_examples:
    raise ConfigError(
      f"batch_size must be at most the number of training examples, {num_examples},"
      f" not {config.train.batch_size}"
    )


def _with_data(config: Config, dataset: data.Dataset) -> Config:
  """The configuration with what the data say: shape, classes, prior and checksum."""
  prior = dataset.class_frequencies if flags.FLAGS.prior == "train" else None
  return config.replace(
    model={"image_shape": dataset.image_shape, "num_classes": dataset.num_classes},
    objective={"prior": prior},
    train={
      "dataset": dataset.name,
      "data_sha256": dataset.sha256,
      "division": dataset.division,
      "background": dataset.background,
    },
  )


def glimpse_advice(model: ModelConfig, size: tuple[int, ...]) -> str | None:
  """What to do where images are more than four times as large as the widest patch.

  It proposes patches of 8, 12 or 16 pixels, of which the widest has at least half the
  side of the image.

  Args:
    model: the glimpses.
    size: height and width of the images.

  Returns:
    One line; None if the glimpses are large enough.
  """
  side = max(size)
  widest = model.patch_sides[-1]
  if 4 * widest >= side:
    return None
  patch_size = min(8 if side <= 32 else 12 if side <= 100 else 16, *size)
  factor = max(2, model.scale_factor)
  num_scales = 1
  while 2 * patch_size * factor ** (num_scales - 1) < side:
    num_scales += 1
  scale_factor = "" if model.scale_factor > 1 else f" --scale_factor={factor}"
  return (
    f"a glimpse sees at most {widest} x {widest} pixels of {size[0]} x {size[1]}; for"
    f" larger ones give --patch_size={patch_size} --num_scales={num_scales}{scale_factor}"
  )
