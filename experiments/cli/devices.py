"""The devices of a script: their flags, and how work is divided among them.

A single run divides its batches among devices and processes. Several runs are divided
themselves: each process trains its share of them, apart from the others, and its devices
share these.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TypeVar

import jax
from absl import flags
from jax.sharding import Mesh

from experiments.cli import compilation_cache, help_text, signals
from experiments.cli.errors import UsageError
from ramjax import parallel
from ramjax.config import TrainConfig

FLAGS = flags.FLAGS

T = TypeVar("T")


def define_device_flags() -> None:
  """Defines the flags that say which devices and processes share the work."""
  flags.DEFINE_integer(
    "num_devices",
    None,
    "Devices of all processes together; by default as many as divide the work evenly.",
  )
  flags.DEFINE_string(
    "coordinator_address",
    None,
    "host:port of the first process; auto on Slurm, Open MPI, Kubernetes, Cloud TPU.",
  )
  flags.DEFINE_integer(
    "num_processes",
    None,
    "Number of processes: with coordinator_address they train one run together; without,"
    " each trains its share of several runs.",
  )
  flags.DEFINE_integer("process_id", None, "Number of this process, from 0.")
  help_text.RARE.update(
    ("num_devices", "coordinator_address", "num_processes", "process_id")
  )
  define_jax_flags()


def define_jax_flags() -> None:
  """Defines the flags that `set_up_jax` obeys."""
  flags.DEFINE_boolean(
    "compilation_cache", True, "Keep compiled programs for the next start."
  )
  help_text.RARE.add("compilation_cache")
  define_precision_flag()


def define_precision_flag() -> None:
  """Defines the flag that `set_precision` obeys."""
  flags.DEFINE_enum(
    "matmul_precision",
    "float32",
    ["float32", "tensorfloat32", "bfloat16"],
    "Type to which GPUs and TPUs round the factors of matrix products; CPUs use float32.",
  )
  help_text.RARE.add("matmul_precision")


def set_precision() -> None:
  """Has matrix products computed as `--matmul_precision` says."""
  jax.config.update("jax_default_matmul_precision", FLAGS.matmul_precision)


def set_up_jax() -> None:
  """Obeys the flags that say how JAX computes and compiles; before it is used."""
  set_precision()
  if FLAGS.compilation_cache:
    compilation_cache.enable()


def open_mesh(train: TrainConfig | None = None) -> Mesh:
  """The devices, as the flags of `define_device_flags` say; before JAX is used.

  They divide the batches of `train`, if there is a training.

  Raises:
    ConfigError: if there are fewer, or they do not divide the batch.
    ParallelError: if the other processes are not found.
  """
  set_up_jax()
  parallel.start(
    num_devices=FLAGS.num_devices,
    coordinator_address=FLAGS.coordinator_address,
    num_processes=FLAGS.num_processes,
    process_id=FLAGS.process_id,
  )
  signals.raise_on_signals()  # with several processes, JAX has taken SIGTERM for itself
  return parallel.make_mesh(num_devices=FLAGS.num_devices, train=train)


def start_for_runs() -> None:
  """Makes a device of each core of a CPU, or as the flags say; before JAX is used.

  Raises:
    UsageError: if the flags of processes do not fit several runs, or no device is asked
      for.
  """
  if FLAGS.coordinator_address is not None:
    raise UsageError(
      "coordinator_address must not be given for several runs: with num_processes and"
      " process_id alone, each process trains its share of them"
    )
  if (FLAGS.num_processes is None) != (FLAGS.process_id is None):
    raise UsageError("num_processes and process_id must be given together")
  if is_one_of_several() and not 0 <= FLAGS.process_id < FLAGS.num_processes:
    raise UsageError(
      f"process_id must be at least 0 and less than num_processes, {FLAGS.num_processes},"
      f" not {FLAGS.process_id}"
    )
  if FLAGS.num_devices is not None and FLAGS.num_devices < 1:
    raise UsageError(f"num_devices must be at least 1, not {FLAGS.num_devices}")
  set_up_jax()
  parallel.start(num_devices=FLAGS.num_devices or num_cores())


def num_cores() -> int:
  """Number of cores of the CPU that this process may use."""
  if hasattr(os, "sched_getaffinity"):  # not on macOS
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def is_one_of_several() -> bool:
  """Whether this process trains a share of several runs, see `share`."""
  return FLAGS.num_processes is not None and FLAGS.coordinator_address is None


def share(runs: Sequence[T]) -> Sequence[T]:
  """The runs that this process trains: all, or as the flags say every n-th one."""
  if not is_one_of_several():
    return runs
  return runs[FLAGS.process_id :: FLAGS.num_processes]


def check_divide(num_runs: int) -> None:
  """Checks that the number of devices that the flags name divides the number of runs.

  Raises:
    UsageError: if it does not.
  """
  if FLAGS.num_devices and num_runs % FLAGS.num_devices:
    raise UsageError(
      f"num_devices must divide the number of runs, {num_runs}, not be"
      f" {FLAGS.num_devices}"
    )


def mesh_for_runs(num_runs: int) -> Mesh:
  """The devices that share R runs, of which some may have ended: as many as divide them."""
  most = FLAGS.num_devices or jax.device_count()
  return parallel.make_mesh(num_devices=math.gcd(num_runs, most))
