"""Checkpoints: a training state on disk, whole or not at all, by Orbax.

Orbax writes a step under another name and renames it when it is complete. Here is what
that leaves open: one writer at a time, deletion that is never seen half done, and a
digest of the state, so that what is read is what was written, bit for bit, or an older
step, or one clear line.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import gc
import hashlib
import math
import os
import pathlib
import re
import shutil
from collections.abc import Collection, Coroutine, Iterator
from logging import LogRecord, getLogger
from types import TracebackType
from typing import Any, NamedTuple, Self

import jax
import numpy as np
from absl import logging

from ramjax import digest
from ramjax.training import TrainState

_KEPT = 2
_STEP = re.compile(r"0|[1-9][0-9]*")
_LEFTOVER = re.compile(r"[0-9]+\.(deleted|orbax-checkpoint-tmp.*)")
_SET_ASIDE = re.compile(r"damaged-[0-9]+(-[0-9]+)?")
_PATIENCE = 60.0
"""Seconds that a failed save or load waits for what it has begun to end."""
_NOT_DAMAGE = {errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""Errors in reading that are the machine's, or its owner's, and not the checkpoint's."""


class CheckpointError(RuntimeError):
  """A checkpoint that cannot be written or read; the message is one line."""


class _Damaged(Exception):
  """A step that does not hold what was written; the message says why."""


class _Record(NamedTuple):
  """What is written beside a state, and known of it without reading it.

  Attributes:
    layout: SHA-256 of names, types and shapes.
    state: SHA-256 of all that and of the bytes.
    accuracy: the validation accuracy; None if there is none, or it is not finite.
  """

  layout: str
  state: str
  accuracy: float | None

  @property
  def seal(self) -> str:
    """SHA-256 of the record itself."""
    return hashlib.sha256(repr(tuple(self)).encode()).hexdigest()


class Checkpoints:
  """The checkpoints of one run, named by their step; a context manager.

  The latest two are kept, and the one with the best validation accuracy. There is one
  writer at a time; readers may look on while it writes.

  Args:
    directory: where they are; made, with its parents, if it does not exist.
    read_only: whether nothing may be made, moved or removed, so that a run that is
      still being trained can be read.

  Raises:
    CheckpointError: if the directory cannot be used, or another writer is using it.
  """

  def __init__(self, directory: str | pathlib.Path, *, read_only: bool = False) -> None:
    self._directory = pathlib.Path(directory).absolute()
    self._read_only = read_only
    self._records: dict[int, _Record] = {}
    self._lock: int | None = None
    if read_only:
      if not self._directory.is_dir():
        raise CheckpointError(
          f"{directory} holds no checkpoint, there is no such folder"
        )
      return
    try:
      self._directory.mkdir(parents=True, exist_ok=True)
      if not os.access(self._directory, os.W_OK, effective_ids=True):
        raise PermissionError(None, "it is read-only")
      self._refuse_foreign()
      self._lock = _lock(self._directory)
    except OSError as error:
      raise CheckpointError(
        f"{directory} cannot hold checkpoints: {error.strerror}"
      ) from error
    self._sweep()

  def __enter__(self) -> Self:
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    traceback: TracebackType | None,
  ) -> None:
    self.close()

  def close(self) -> None:
    """Lets another writer in."""
    if self._lock is not None:
      os.close(self._lock)
      self._lock = None

  @property
  def steps(self) -> list[int]:
    """Steps of the checkpoints, in rising order; not yet read, so perhaps damaged."""
    names = (path.name for path in self._directory.iterdir() if path.is_dir())
    return sorted(int(name) for name in names if _STEP.fullmatch(name))

  @property
  def latest_step(self) -> int | None:
    """Step of the newest checkpoint; None if there is none."""
    return max(self.steps, default=None)

  @property
  def best_step(self) -> int | None:
    """Step of the best validation accuracy, the newest of equals; None if none has one."""
    return next(iter(self._ranked(best=True)), None)

  def save(
    self,
    state: TrainState,
    *,
    accuracy: float | None = None,
    keep: Collection[int] = (),
  ) -> None:
    """Writes a state; the same state of the same step is left as it is.

    When it returns, the checkpoint is complete, and older ones that are not kept are
    gone. When it fails, the checkpoints are those from before.

    Args:
      state: the state, on one device, or the same on each of several.
      accuracy: its validation accuracy; one that is not finite is never the best.
      keep: steps that are not removed this time, though they are neither among the
        latest nor the best.

    Raises:
      CheckpointError: if it cannot be written, or the step is there with another state.
    """
    if self._lock is None:
      raise CheckpointError(f"{self._directory} is not open for writing")
    host = digest.to_host(state)
    step = int(host.step)
    if accuracy is not None and not math.isfinite(accuracy):
      accuracy = None
    record = _Record(digest.layout_digest(host), digest.state_digest(host), accuracy)
    if self._path(step).exists():
      found = self._record(step)
      if found is not None and found.state == record.state:
        return
      raise CheckpointError(
        f"{self._path(step)} is there already, with another state; give another folder"
      )
    self._write(step, host, record, lock=self._lock)
    self._prune(keep)

  def restore(
    self, like: TrainState, *, best: bool = False, step: int | None = None
  ) -> TrainState:
    """Reads the newest state that is whole, the best, or the one of a step.

    A damaged one is passed over with a warning. A writer sets it aside, as
    `damaged-<step>`, so that it is never in the way again.

    Args:
      like: a state, or `jax.ShapeDtypeStruct`s, of the same structure and shapes; the
        result is placed as it is.
      best: whether to read the state with the best validation accuracy.
      step: the step to read, and no other; None is the newest or the best.

    Returns:
      The state.

    Raises:
      CheckpointError: if there is none, or none that can be read.
    """
    damaged: dict[int, str] = {}
    # Looked at anew each time: a run that is being trained removes old steps.
    while steps := [
      s for s in self._ranked(best=best) if s not in damaged and step in (None, s)
    ]:
      newest = steps[0]
      try:
        return self._read(newest, like)
      except _Damaged as error:
        why = str(error)
      _forget_failures()
      if self._path(newest).exists():
        damaged[newest] = why
        self._pass_over(newest, why)
    if damaged:
      reasons = "; ".join(f"{step}: {why}" for step, why in damaged.items())
      raise CheckpointError(
        f"{self._directory} holds no checkpoint that can be read ({reasons})"
        + ("" if self._read_only else "; what was damaged is set aside there")
      )
    which = " with a validation accuracy" if best and self.steps else ""
    if step is not None:
      which = f" of step {step}"
    raise CheckpointError(f"{self._directory} holds no checkpoint{which}")

  def _path(self, step: int) -> pathlib.Path:
    return self._directory / str(step)

  def _rank(self, step: int) -> tuple[float, int]:
    record = self._record(step)
    accuracy = None if record is None else record.accuracy
    return (-math.inf if accuracy is None else accuracy, step)

  def _ranked(self, *, best: bool) -> list[int]:
    """Steps, the one to be read first in front."""
    if not best:
      return self.steps[::-1]
    rated = [s for s in self.steps if self._rank(s)[0] > -math.inf]
    return sorted(rated, key=self._rank, reverse=True)

  def _write(self, step: int, host: TrainState, record: _Record, *, lock: int) -> None:
    from orbax.checkpoint import v1 as ocp

    note = {**record._asdict(), "seal": record.seal}
    try:
      with _alone():
        ocp.save(self._path(step), host, custom_metadata=note)
      os.fsync(lock)  # the folder's entry, so that it outlives a power failure
    except Exception as error:
      self._sweep()  # a full disk is not left fuller than it was
      raise CheckpointError(
        f"checkpoint {step} cannot be written to {self._directory}: {_cause(error)}"
      ) from error
    self._records[step] = record

  def _read(self, step: int, like: TrainState) -> TrainState:
    from orbax.checkpoint import v1 as ocp

    record = self._record(step)
    if record is None:
      raise _Damaged("its record of what was written is damaged")
    target = jax.tree.map(_empty, like)
    if digest.layout_digest(target) != record.layout:
      raise CheckpointError(
        f"checkpoint {self._path(step)} cannot be read: it is of another model"
      )
    try:
      with _alone():
        host = ocp.load(self._path(step), target)
      found = digest.state_digest(host)
    except Exception as error:
      raise self._unreadable(step, error) from error
    if found != record.state:
      raise _Damaged(f"its SHA-256 is {found[:8]}…, not {record.state[:8]}…")
    if int(host.step) != step:
      raise _Damaged(f"it is of step {int(host.step)}")
    return jax.tree.map(_place, host, like)

  def _record(self, step: int) -> _Record | None:
    """The record of a step; None if it is damaged."""
    from orbax.checkpoint import v1 as ocp

    if step in self._records:
      return self._records[step]
    try:
      with _alone():
        note = ocp.metadata(self._path(step)).custom_metadata
      record = _Record(*(note[name] for name in _Record._fields))
      if note["seal"] == record.seal:
        self._records[step] = record
    except Exception as error:
      self._unreadable(step, error)
    return self._records.get(step)

  def _unreadable(self, step: int, error: Exception) -> Exception:
    """Damage, to be returned; what is the machine's failure instead is raised."""
    if isinstance(error, MemoryError) or _errno(error) in _NOT_DAMAGE:
      raise CheckpointError(
        f"checkpoint {self._path(step)} cannot be read: {_cause(error)}"
      ) from error
    return _Damaged(_cause(error))

  def _pass_over(self, step: int, why: str) -> None:
    path = self._path(step)
    if self._lock is None:
      logging.warning("checkpoint %s is damaged and passed over: %s", path, why)
      return
    name, number = f"damaged-{step}", 1
    while (self._directory / name).exists():
      number += 1
      name = f"damaged-{step}-{number}"
    path.rename(self._directory / name)
    self._records.pop(step, None)
    logging.warning("checkpoint %s is damaged, set aside as %s: %s", path, name, why)

  def _prune(self, keep: Collection[int]) -> None:
    """Removes what is not kept; only what this class has written is ever removed."""
    known = [step for step in self.steps if self._record(step) is not None]
    kept = {*known[-_KEPT:], self.best_step, *keep}
    for step in known:
      if step not in kept:
        # Renamed first: a deletion that is cut short leaves nothing named like a step.
        self._path(step).rename(self._directory / f"{step}.deleted")
        del self._records[step]
    self._sweep()

  def _sweep(self) -> None:
    """Removes what an interrupted save or deletion has left."""
    for path in self._directory.iterdir():
      if _LEFTOVER.fullmatch(path.name):
        shutil.rmtree(path, ignore_errors=True)

  def _refuse_foreign(self) -> None:
    names = [path.name for path in self._directory.iterdir()]
    patterns = (_STEP, _LEFTOVER, _SET_ASIDE)
    if names and not any(p.fullmatch(name) for p in patterns for name in names):
      raise CheckpointError(
        f"{self._directory} holds files but no checkpoint; give another folder"
      )


def _lock(directory: pathlib.Path) -> int:
  """Takes the lock of a folder, which ends with the process at the latest."""
  descriptor = os.open(directory, os.O_RDONLY)
  try:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError as error:
    os.close(descriptor)
    raise CheckpointError(
      f"{directory} is being written by another run; wait for its end, or give"
      " another folder"
    ) from error
  except OSError as error:  # NFS does not lock folders
    logging.warning(
      "%s cannot be locked (%s): start no second run there", directory, error.strerror
    )
  return descriptor


@contextlib.contextmanager
def _alone() -> Iterator[None]:
  """A save or load by this process, whatever others do; failures are raised, not logged."""
  from orbax.checkpoint import v1 as ocp
  from orbax.checkpoint._src import asyncio_utils
  from orbax.checkpoint.experimental.v1._src.saving import execution

  process = jax.process_index()
  context = ocp.Context()
  context.multiprocessing.primary_host = process
  context.multiprocessing.active_processes = {process}
  context.multiprocessing.barrier_sync_key_prefix = f"process_{process}"
  # Orbax 0.12 compares the folder's name among all processes, also where one alone is
  # active, and would wait for them.
  compare = execution._check_directory_consistency
  execution._check_directory_consistency = lambda directory: None
  run_sync = asyncio_utils.run_sync
  asyncio_utils.run_sync = lambda coroutine: run_sync(_to_the_end(coroutine))
  logger = logging.get_absl_logger()
  logger.addFilter(_is_not_of_orbax)
  try:
    with context:
      yield
  finally:
    execution._check_directory_consistency = compare
    asyncio_utils.run_sync = run_sync
    logger.removeFilter(_is_not_of_orbax)


async def _to_the_end(coroutine: Coroutine[Any, Any, Any]) -> Any:
  """The result of a coroutine; its failure only when all that it has begun has ended.

  Orbax 0.12 writes all arrays at once and closes the event loop at the first failure, but
  TensorStore's threads go on: they would put files back into a folder that is removed,
  and report to a loop that is gone, with a traceback each.
  """
  try:
    return await coroutine
  except Exception:
    begun = asyncio.all_tasks() - {asyncio.current_task()}
    ended = asyncio.gather(*begun, return_exceptions=True)
    await asyncio.wait({ended}, timeout=_PATIENCE)
    raise


def _forget_failures() -> None:
  """Collects the tasks of a failed read, each of which would tell its failure once more."""
  logger = getLogger("asyncio")
  logger.addFilter(_nothing)
  try:
    gc.collect()
  finally:
    logger.removeFilter(_nothing)


def _nothing(record: LogRecord) -> bool:
  del record
  return False


def _is_not_of_orbax(record: LogRecord) -> bool:
  return f"{os.sep}orbax{os.sep}" not in record.pathname


def _empty(like: Any) -> np.ndarray:
  """An array of NumPy in the shape that a leaf, or the data of a key, has on disk."""
  if jax.dtypes.issubdtype(like.dtype, jax.dtypes.prng_key):
    like = jax.eval_shape(jax.random.key_data, like)
  return np.empty(like.shape, like.dtype)


def _place(host: np.ndarray, like: Any) -> jax.Array:
  """An array where another one is, as a key if that is one."""
  array = jax.device_put(host, getattr(like, "sharding", None))
  if not jax.dtypes.issubdtype(like.dtype, jax.dtypes.prng_key):
    return array
  impl = jax.random.key_impl(like) if isinstance(like, jax.Array) else None
  return jax.random.wrap_key_data(array, impl=impl)


def _innermost(error: BaseException) -> BaseException:
  """The innermost cause: Orbax wraps what really happened."""
  while error.__cause__ is not None:
    error = error.__cause__
  return error


def _errno(error: BaseException) -> int | None:
  """The number of the system's error that is behind another one, if there is one."""
  cause = _innermost(error)
  if isinstance(cause, OSError):
    return cause.errno
  told = re.search(r"os_error_code='(\d+)'", str(cause))  # TensorStore's way
  return int(told[1]) if told else None


def _cause(error: BaseException) -> str:
  """The innermost cause, in a line."""
  number = _errno(error)
  if number is not None:
    return os.strerror(number)
  cause = _innermost(error)
  return (str(cause) or type(cause).__name__).splitlines()[0]
