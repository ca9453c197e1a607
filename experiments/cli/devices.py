"""The devices of a training: one run divides its batches among them, many runs share them."""

from __future__ import annotations

import math
import os

import jax
from jax.sharding import Mesh

from experiments.cli import flags
from experiments.cli.errors import UsageError
from ramjax import parallel
from ramjax.config import ConfigError


def start_for_runs() -> None:
  """Makes a device of each core of a CPU, or as the flags say; before JAX is used.

  Raises:
    UsageError: if several processes are asked for.
  """
  if flags.FLAGS.coordinator_address is not None:
    raise UsageError(
      "coordinator_address must not be given for several runs: one process trains them"
    )
  flags.set_up_jax()
  cores = len(os.sched_getaffinity(0))
  parallel.start(num_devices=flags.FLAGS.num_devices or cores)


def mesh_for_runs(num_runs: int) -> Mesh:
  """The devices that share R runs: as many as divide them, or as the flags say.

  Raises:
    ConfigError: if the number that the flags name does not divide R.
  """
  num_devices = flags.FLAGS.num_devices
  if num_devices and num_runs % num_devices:
    raise ConfigError(
      f"num_devices must divide the number of runs, {num_runs}, not be {num_devices}"
    )
  return parallel.make_mesh(
    num_devices=num_devices or math.gcd(num_runs, jax.device_count())
  )
