"""Many devices, in one process or in several: each works on its part of every batch.

Data parallelism in its plainest form. State and images are copied to all devices and
the batches are divided: `epoch_order` is a table of indices [steps, B], whose columns
go to the devices in blocks. `train_chunk` is the same function as on one device, the
computation follows the data, and XLA adds the sums over devices that gradients and
metrics take. Random numbers belong to an image and not to a device, so that results do
not depend on the number of devices, but for rounding.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ramjax.config import ConfigError, TrainConfig

PyTree = Any

_BATCH = "batch"
_FORCED = "xla_force_host_platform_device_count"
_MOST_CPUS = 64  # devices made of CPU cores; for tests, as they do not make it faster
_EXCHANGE = re.compile("Gloo|NCCL|RCCL|coordination service")
_SHUTDOWN_SECONDS = 60  # how long a process waits for the others at its end


class ParallelError(RuntimeError):
  """Processes that cannot work together; the message is one line."""


def start(
  *,
  num_devices: int | None = None,
  coordinator_address: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
) -> None:
  """Makes the devices that are asked for ready: CPUs, and other processes.

  To be called before JAX is used, and before handlers of signals are installed: with
  several processes JAX takes SIGTERM for itself.

  Args:
    num_devices: how many devices are to be used, see `make_mesh`; JAX shows no more
      than one CPU unless it is told to before.
    coordinator_address: host and port of the first process, if this one is one of
      several; `auto` takes everything from the cluster (Slurm, Open MPI, Kubernetes,
      Cloud TPU).
    num_processes: number of processes.
    process_id: number of this process, from 0.

  Raises:
    ConfigError: if one of the three is missing or out of range, or there is no cluster.
    ParallelError: if the processes do not find each other.
  """
  if num_devices is not None and _FORCED not in os.environ.get("XLA_FLAGS", ""):
    of_each = num_devices // max(num_processes or 1, 1)
    jax.config.update("jax_num_cpu_devices", min(max(of_each, 1), _MOST_CPUS))
  named = (coordinator_address, num_processes, process_id)
  if named == (None, None, None):
    return
  if coordinator_address == "auto":
    coordinator_address = None
    if (num_processes, process_id) != (None, None):
      raise ConfigError(
        "num_processes and process_id must not be given: coordinator_address is auto"
      )
  elif coordinator_address is None or num_processes is None or process_id is None:
    raise ConfigError(
      "coordinator_address, num_processes and process_id must be given together"
    )
  elif num_processes < 1:
    raise ConfigError(f"num_processes must be at least 1, not {num_processes}")
  elif not 0 <= process_id < num_processes:
    raise ConfigError(
      f"process_id must be from 0 to {num_processes - 1}, not {process_id}"
    )
  try:
    jax.distributed.initialize(
      coordinator_address,
      num_processes,
      process_id,
      shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
    )
  except ValueError as error:
    raise ConfigError(f"coordinator_address must be another: {error}") from error
  except RuntimeError as error:
    where = coordinator_address or "the address that the cluster gives"
    raise ParallelError(
      f"the processes do not find each other at {where}: {error}"
    ) from error


def make_mesh(
  *, num_devices: int | None = None, train: TrainConfig | None = None
) -> Mesh:
  """The devices that share the work.

  Args:
    num_devices: how many, over all processes, each of which gives the same number.
      None takes all accelerators, or as many of them as divide the batch. Of CPUs it
      takes one for each process: further ones are the same cores once more.
    train: the training whose batches are to be divided; None if there is none.

  Returns:
    A mesh with one axis.

  Raises:
    ConfigError: if there are fewer devices, or they do not divide the batch.
  """
  num_processes = jax.process_count()
  available = jax.local_device_count()
  # What is divided is the part of a batch that is worked on at once.
  part = None if train is None else train.batch_size // train.accumulation_steps
  if num_devices is None:
    most = 1 if jax.default_backend() == "cpu" else available
    fitting = (n for n in range(most, 0, -1) if (part or 0) % (n * num_processes) == 0)
    num_devices = next(fitting, 1) * num_processes
  if num_devices < 1:
    raise ConfigError(f"num_devices must be at least 1, not {num_devices}")
  if num_devices % num_processes:
    raise ConfigError(
      f"num_devices must be a multiple of num_processes, {num_processes},"
      f" not {num_devices}"
    )
  if num_devices > available * num_processes:
    raise ConfigError(
      f"num_devices must be at most {available * num_processes}, not {num_devices}"
    )
  if train is not None and part is not None and part % num_devices:
    parts = train.accumulation_steps
    times = f" times accumulation_steps, {parts}," if parts > 1 else ""
    raise ConfigError(
      f"batch_size must be a multiple of the number of devices, {num_devices},{times}"
      f" not {train.batch_size}; give another batch_size or num_devices"
    )
  of_each = num_devices // num_processes
  devices = [
    device
    for process in range(num_processes)
    for device in jax.devices()
    if device.process_index == process
  ]
  chosen = np.array(devices).reshape(num_processes, available)[:, :of_each]
  return Mesh(chosen.ravel(), (_BATCH,))


def copied(mesh: Mesh) -> NamedSharding:
  """The sharding of what every device has whole.

  Args:
    mesh: the devices.

  Returns:
    A sharding for arrays of any rank.
  """
  return NamedSharding(mesh, PartitionSpec())


def divided(mesh: Mesh, *, axis: int = 0) -> NamedSharding:
  """The sharding of what the devices have a block each of.

  Args:
    mesh: the devices.
    axis: the axis that is divided, whose size is a multiple of their number.

  Returns:
    A sharding for arrays of more than `axis` axes.
  """
  return NamedSharding(mesh, PartitionSpec(*[None] * axis, _BATCH))


def place(tree: PyTree, sharding: NamedSharding) -> PyTree:
  """Puts arrays on devices; in each process those that are its own.

  Args:
    tree: arrays in the memory or on a device of this process, the same in all
      processes; typed keys may be among them.
    sharding: where to put each, `copied` or `divided`.

  Returns:
    The same tree of arrays on the devices of `sharding`.
  """

  def put(leaf: Any) -> jax.Array:
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda i: host[i])

  return _through_key_data(put, tree)


def from_first_process(tree: PyTree) -> PyTree:
  """The arrays of the first process, in every process.

  Args:
    tree: arrays on a device of this process, of the same shapes in all processes.

  Returns:
    The tree of the first process; in a single process the tree itself.
  """
  if jax.process_count() == 1:
    return tree
  return _through_key_data(multihost_utils.broadcast_one_to_all, tree)


def on_this_process(tree: PyTree) -> PyTree:
  """This process's copy of arrays that all devices have, for it to use alone.

  Args:
    tree: arrays that are `copied`.

  Returns:
    The same tree, on one device of this process.
  """
  return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


def is_first_process() -> bool:
  """Whether this is the process that prints and writes; the only one, if there is one."""
  return jax.process_index() == 0


def any_process(flag: bool) -> bool:
  """Whether a flag is up in any process; every process gets the same answer.

  All processes have to call it, in the same order as everything else that they do
  together: once after each chunk, for instance, so that they stop at the same step.

  Args:
    flag: that of this process.

  Returns:
    Whether it is up in this or another process.
  """
  if jax.process_count() == 1:
    return flag
  return bool(multihost_utils.process_allgather(np.array(flag)).any())


@contextlib.contextmanager
def together() -> Iterator[None]:
  """Within it a process may fail by itself: the others fail then, too, at its end.

  Without it they would wait for that process for minutes.

  Raises:
    ParallelError: if another process has failed, and this one has not.
  """
  try:
    yield
  except BaseException:
    any_process(True)
    raise
  if any_process(False):
    raise ParallelError("another process has failed, and says why")


def is_lost_process(error: BaseException) -> bool:
  """Whether an error says that another process is gone: killed, or its machine.

  JAX has no type for it: what failed is an exchange of this process with the others.

  Args:
    error: what was raised by a computation of several processes.

  Returns:
    Whether its message is that of a failed exchange.
  """
  return jax.distributed.is_initialized() and bool(_EXCHANGE.search(str(error)))


def _through_key_data(function: Any, tree: PyTree) -> PyTree:
  """Maps the leaves of a tree; of typed keys it is their data that is mapped."""

  def apply(leaf: Any) -> Any:
    if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      return function(leaf)
    data = function(jax.random.key_data(leaf))
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))

  return jax.tree.map(apply, tree)
