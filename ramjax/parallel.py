"""Data parallelism over several devices, in one process or in several.

State and images are copied to all devices; each batch is divided. `epoch_order` returns
indices [steps, B], and each device gets a block of the columns. `train_chunk` is the same
function as on one device: JAX follows the sharding of its inputs, and XLA inserts the
sums over devices that gradients and metrics need. Random numbers belong to images, not
to devices, so results do not depend on the number of devices, except for rounding.

>>> import numpy as np
>>> mesh = make_mesh()
>>> params = place({"weights": np.ones(3)}, copied(mesh))
>>> images = place(np.zeros((8, 28, 28, 1)), divided(mesh))
>>> images.sharding.num_devices == mesh.size
True
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
_MAX_CPU_DEVICES = 64  # enough for tests; more CPU devices do not make training faster
_COMMUNICATION = re.compile("Gloo|NCCL|RCCL|coordination service")
_SHUTDOWN_SECONDS = 60  # time that a process waits for the others when it ends


class ParallelError(RuntimeError):
  """An error in the communication of processes; the message is one line."""


def start(
  *,
  num_devices: int | None = None,
  coordinator_address: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
) -> None:
  """Prepares CPU devices, and connects to the other processes if there are several.

  Call it before JAX is used and before signal handlers are installed: with several
  processes JAX installs its own handler of SIGTERM.

  Args:
    num_devices: number of devices over all processes, see `make_mesh`. JAX offers a
      single CPU device unless more are configured before its first use.
    coordinator_address: host and port of the first process; None for a single process.
      `auto` takes all three settings from the cluster (Slurm, Open MPI, Kubernetes,
      Cloud TPU).
    num_processes: number of processes.
    process_id: number of this process, from 0.

  Raises:
    ConfigError: if some of the last three arguments are missing or out of range, or
      `auto` finds no cluster.
    ParallelError: if the processes cannot connect.
  """
  if num_devices is not None and _FORCED not in os.environ.get("XLA_FLAGS", ""):
    per_process = num_devices // max(num_processes or 1, 1)
    jax.config.update("jax_num_cpu_devices", min(max(per_process, 1), _MAX_CPU_DEVICES))
  if (coordinator_address, num_processes, process_id) == (None, None, None):
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
    raise ConfigError(f"coordinator_address cannot be used: {error}") from error
  except RuntimeError as error:
    address = coordinator_address or "the address that the cluster gives"
    raise ParallelError(
      f"the processes cannot connect at {address}: {error}"
    ) from error


def make_mesh(
  *, num_devices: int | None = None, train: TrainConfig | None = None
) -> Mesh:
  """The mesh of devices that share the work.

  Args:
    num_devices: number of devices over all processes; each process uses the same number.
      None uses all accelerators, or the largest number of them that divides the batch.
      On CPUs, None uses one device for each process, because more CPU devices share the
      same cores.
    train: the training whose batches are divided; None without training.

  Returns:
    A mesh with one axis.

  Raises:
    ConfigError: if there are fewer devices, or their number does not divide the batch.
  """
  num_processes = jax.process_count()
  available = jax.local_device_count()
  # With gradient accumulation, the devices divide each part of a batch.
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
  per_process = num_devices // num_processes
  devices = [
    device
    for process in range(num_processes)
    for device in jax.devices()
    if device.process_index == process
  ]
  chosen = np.array(devices).reshape(num_processes, available)[:, :per_process]
  return Mesh(chosen.ravel(), (_BATCH,))


def copied(mesh: Mesh) -> NamedSharding:
  """The sharding of an array that every device holds completely.

  Args:
    mesh: the devices.

  Returns:
    A sharding for arrays of any rank.
  """
  return NamedSharding(mesh, PartitionSpec())


def divided(mesh: Mesh, *, axis: int = 0) -> NamedSharding:
  """The sharding of an array of which each device holds one block.

  Args:
    mesh: the devices.
    axis: the divided axis; its size must be a multiple of the number of devices.

  Returns:
    A sharding for arrays of more than `axis` axes.
  """
  return NamedSharding(mesh, PartitionSpec(*[None] * axis, _BATCH))


def place(tree: PyTree, sharding: NamedSharding) -> PyTree:
  """Puts arrays on the devices of a sharding; each process fills its own devices.

  Args:
    tree: arrays in memory or on a device of this process, equal in all processes; typed
      keys are allowed.
    sharding: a sharding from `copied` or `divided`.

  Returns:
    The same tree of arrays on the devices of `sharding`.
  """

  def put(leaf: Any) -> jax.Array:
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda i: host[i])

  return _through_key_data(put, tree)


def from_first_process(tree: PyTree) -> PyTree:
  """Broadcasts arrays of the first process to every process.

  Args:
    tree: arrays on a device of this process, with the same shapes in all processes.

  Returns:
    The tree of the first process; with a single process, `tree` itself.
  """
  if jax.process_count() == 1:
    return tree
  return _through_key_data(multihost_utils.broadcast_one_to_all, tree)


def on_this_process(tree: PyTree) -> PyTree:
  """The copy of arrays that this process holds, for use without the other processes.

  Args:
    tree: arrays with the sharding of `copied`.

  Returns:
    The same tree, on one device of this process.
  """
  return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


def is_first_process() -> bool:
  """Whether this process prints and writes; true in a single process."""
  return jax.process_index() == 0


def any_process(flag: bool) -> bool:
  """Whether a flag is true in any process; all processes get the same answer.

  Every process must call it, in the same order as all other collective operations. For
  example, processes that call it after each chunk can stop at the same step.

  Args:
    flag: the flag of this process.

  Returns:
    Whether the flag is true in at least one process.
  """
  if jax.process_count() == 1:
    return flag
  return bool(multihost_utils.process_allgather(np.array(flag)).any())


@contextlib.contextmanager
def together() -> Iterator[None]:
  """A context in which all processes fail if one of them fails.

  Without it, the other processes would wait for the failed process for minutes.

  Raises:
    ParallelError: at the end of the context, if another process has failed but not this
      one.
  """
  try:
    yield
  except BaseException:
    any_process(True)
    raise
  if any_process(False):
    raise ParallelError("another process has failed; see its error message")


def is_lost_process(error: BaseException) -> bool:
  """Whether an error means that another process, or its machine, is gone.

  JAX has no exception type for this case, so the message is searched for the names of
  the communication libraries.

  Args:
    error: an exception raised by a computation of several processes.

  Returns:
    Whether its message reports failed communication.
  """
  return jax.distributed.is_initialized() and bool(_COMMUNICATION.search(str(error)))


def _through_key_data(function: Any, tree: PyTree) -> PyTree:
  """Applies a function to the leaves of a tree; for typed keys, to their key data."""

  def apply(leaf: Any) -> Any:
    if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      return function(leaf)
    data = function(jax.random.key_data(leaf))
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))

  return jax.tree.map(apply, tree)
