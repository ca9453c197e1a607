"""Checkpoints: a training state on disk, either complete or absent, written with Orbax.

Orbax writes a step under a temporary name and renames it when it is complete. This
module adds three things: one writer at a time; deletion that never leaves half a
checkpoint; and a digest, so that a restored state is the saved one bit for bit. A damaged
checkpoint is never used: an older one takes its place, or a `CheckpointError` is raised.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import math
import os
import pathlib
import re
import shutil
from collections.abc import Collection
from types import TracebackType
from typing import Any, NamedTuple, Self

import jax
import numpy as np
from absl import logging

from ramjax import digest, orbax_patches
from ramjax.training import TrainState

_NUM_LATEST = 2
"""How many of the newest checkpoints are kept."""

_STEP = re.compile(r"0|[1-9][0-9]*")
_LEFTOVER = re.compile(r"[0-9]+\.(deleted|orbax-checkpoint-tmp.*)")
_SET_ASIDE = re.compile(r"damaged-[0-9]+(-[0-9]+)?")

_NO_DAMAGE = {errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""Errors in reading that are due to permissions or the machine, not to the files."""


class CheckpointError(RuntimeError):
  """A checkpoint cannot be written or read; the message is one line."""


class _DamageError(Exception):
  """A checkpoint does not hold the saved state; the message says why."""


class _Record(NamedTuple):
  """Metadata of a checkpoint, which can be read without the state.

  Attributes:
    layout: SHA-256 of names, types and shapes of the state.
    state: SHA-256 of names, types, shapes and bytes.
    accuracy: validation accuracy; None if it is unknown or not finite.
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

  The latest two are kept, and the one with the best validation accuracy. One process
  writes at a time; others may read meanwhile.

  Args:
    directory: folder of the checkpoints; created with its parents if it is missing.
    read_only: whether nothing may be created, moved or removed. A run can then be read
      while it is being trained.

  Raises:
    CheckpointError: if the directory cannot be used, another process writes there, or
      Orbax is not installed.
  """

  def __init__(self, directory: str | pathlib.Path, *, read_only: bool = False) -> None:
    self._directory = pathlib.Path(directory).absolute()
    self._read_only = read_only
    self._records: dict[int, _Record] = {}
    self._lock: int | None = None
    _check_orbax()
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
    self._remove_leftovers()

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
    """Releases the folder, so that another process can write."""
    if self._lock is not None:
      os.close(self._lock)
      self._lock = None

  @property
  def steps(self) -> list[int]:
    """Steps of the checkpoints, in rising order; damaged ones may be among them."""
    names = (path.name for path in self._directory.iterdir() if path.is_dir())
    return sorted(int(name) for name in names if _STEP.fullmatch(name))

  @property
  def latest_step(self) -> int | None:
    """Step of the newest checkpoint; None if there is none."""
    return max(self.steps, default=None)

  @property
  def best_step(self) -> int | None:
    """Step with the best validation accuracy, the newest in a tie; None if unknown."""
    return next(iter(self._candidates(best=True)), None)

  def save(
    self,
    state: TrainState,
    *,
    accuracy: float | None = None,
    keep: Collection[int] = (),
  ) -> None:
    """Writes a state; does nothing if the same state is saved already.

    On return the checkpoint is complete, and older ones that need not be kept are
    removed. After a failure the checkpoints are the same as before.

    Args:
      state: the state, on one device or replicated on several.
      accuracy: its validation accuracy; one that is not finite is never the best.
      keep: steps that this call does not remove, even if they are neither among the
        latest nor the best.

    Raises:
      CheckpointError: if the state cannot be written, or the step is saved already with
        another state.
    """
    if self._lock is None:
      raise CheckpointError(f"{self._directory} is not open for writing")
    host = digest.to_host(state)
    step = int(host.step)
    if accuracy is not None and not math.isfinite(accuracy):
      accuracy = None
    record = _Record(digest.layout_digest(host), digest.state_digest(host), accuracy)
    if self._path(step).exists():
      saved = self._record(step)
      if saved is not None and saved.state == record.state:
        return
      raise CheckpointError(
        f"{self._path(step)} is there already, with another state; give another folder"
      )
    self._write(step, host, record, lock=self._lock)
    self._prune(keep)

  def restore(
    self, like: TrainState, *, best: bool = False, step: int | None = None
  ) -> TrainState:
    """Reads the newest state, the best, or the state of a given step.

    A damaged checkpoint is skipped with a warning, and the next older (or next best) one
    is read instead, unless a step is given. If this process may write, it renames the
    damaged one to `damaged-<step>`, so that the step can be saved again.

    Args:
      like: a state of the same structure and shapes, of arrays or of
        `jax.ShapeDtypeStruct`; the result gets its sharding.
      best: whether to read the state with the best validation accuracy.
      step: the only step to read; None for the newest or the best.

    Returns:
      The state.

    Raises:
      CheckpointError: if there is no such checkpoint, or none that can be read.
    """
    damaged: dict[int, str] = {}
    # The folder is listed anew each time, since a run in training removes old steps.
    while steps := [
      s for s in self._candidates(best=best) if s not in damaged and step in (None, s)
    ]:
      first = steps[0]
      try:
        return self._read(first, like)
      except _DamageError as error:
        reason = str(error)
      orbax_patches.discard_failed_tasks()
      if self._path(first).exists():
        damaged[first] = reason
        self._set_aside(first, reason)
    if damaged:
      reasons = "; ".join(f"{step}: {reason}" for step, reason in damaged.items())
      raise CheckpointError(
        f"{self._directory} holds no checkpoint that can be read ({reasons})"
        + ("" if self._read_only else "; what was damaged is set aside there")
      )
    which = "; nothing has been saved there yet"
    if self.steps:
      which = " with a validation accuracy" if best else ""
    if step is not None:
      which = f" of step {step}"
    raise CheckpointError(f"{self._directory} holds no checkpoint{which}")

  def _path(self, step: int) -> pathlib.Path:
    return self._directory / str(step)

  def _candidates(self, *, best: bool) -> list[int]:
    """Steps in the order of preference: the newest first, or the best first."""
    steps = self.steps[::-1]
    if not best:
      return steps
    records = ((step, self._record(step)) for step in steps)
    accuracies = {
      step: record.accuracy
      for step, record in records
      if record is not None and record.accuracy is not None
    }
    return sorted(accuracies, key=accuracies.__getitem__, reverse=True)

  def _write(self, step: int, host: TrainState, record: _Record, *, lock: int) -> None:
    metadata = {**record._asdict(), "seal": record.seal}
    try:
      with orbax_patches.local_orbax() as orbax:
        orbax.save(self._path(step), host, custom_metadata=metadata)
      os.fsync(lock)  # the folder's entry, so that it survives a power failure
    except Exception as error:
      self._remove_leftovers()  # so that a full disk has its space back
      reason = orbax_patches.reason(error)
      raise CheckpointError(
        f"checkpoint {step} cannot be written to {self._directory}: {reason}"
      ) from error
    self._records[step] = record

  def _read(self, step: int, like: TrainState) -> TrainState:
    record = self._record(step)
    if record is None:
      raise _DamageError("its metadata is damaged")
    target = jax.tree.map(_empty, like)
    if digest.layout_digest(target) != record.layout:
      raise CheckpointError(
        f"checkpoint {self._path(step)} cannot be read: it is of another model"
      )
    try:
      with orbax_patches.local_orbax() as orbax:
        host = orbax.load(self._path(step), target)
      found = digest.state_digest(host)
    except Exception as error:
      self._raise_unless_damaged(step, error)
      raise _DamageError(orbax_patches.reason(error)) from error
    if found != record.state:
      raise _DamageError(f"its SHA-256 is {found[:8]}…, not {record.state[:8]}…")
    if int(host.step) != step:
      raise _DamageError(f"it is of step {int(host.step)}")
    return jax.tree.map(_place, host, like)

  def _record(self, step: int) -> _Record | None:
    """The metadata of a step; None if it is damaged."""
    if step in self._records:
      return self._records[step]
    try:
      with orbax_patches.local_orbax() as orbax:
        metadata = orbax.metadata(self._path(step)).custom_metadata
      record = _Record(*(metadata[name] for name in _Record._fields))
      if metadata["seal"] == record.seal:
        self._records[step] = record
    except Exception as error:
      self._raise_unless_damaged(step, error)
    return self._records.get(step)

  def _raise_unless_damaged(self, step: int, error: Exception) -> None:
    """Raises a `CheckpointError` if reading failed for a reason other than damage."""
    if isinstance(error, MemoryError) or (
      orbax_patches.error_number(error) in _NO_DAMAGE
    ):
      reason = orbax_patches.reason(error)
      raise CheckpointError(
        f"checkpoint {self._path(step)} cannot be read: {reason}"
      ) from error

  def _set_aside(self, step: int, reason: str) -> None:
    """Renames a damaged checkpoint, if this process may write, and warns."""
    path = self._path(step)
    if self._lock is None:
      logging.warning("checkpoint %s is damaged and skipped: %s", path, reason)
      return
    name, number = f"damaged-{step}", 1
    while (self._directory / name).exists():
      number += 1
      name = f"damaged-{step}-{number}"
    path.rename(self._directory / name)
    self._records.pop(step, None)
    logging.warning("checkpoint %s is damaged, set aside as %s: %s", path, name, reason)

  def _prune(self, keep: Collection[int]) -> None:
    """Removes old checkpoints; folders that this class has not written are left."""
    own = [step for step in self.steps if self._record(step) is not None]
    kept = {*own[-_NUM_LATEST:], self.best_step, *keep}
    for step in own:
      if step not in kept:
        # Renamed first: an interrupted deletion leaves no folder that is named as a step.
        self._path(step).rename(self._directory / f"{step}.deleted")
        del self._records[step]
    self._remove_leftovers()

  def _remove_leftovers(self) -> None:
    """Removes the files of interrupted saves and deletions."""
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


def _check_orbax() -> None:
  """Imports Orbax now: without it a run would be trained in vain until its first save."""
  try:
    orbax_patches.import_orbax()
  except ImportError as error:
    raise CheckpointError(
      f"Orbax cannot be imported ({error}); pip install '.[checkpoint]' in a checkout of"
      " ramjax"
    ) from error


def _lock(directory: pathlib.Path) -> int:
  """Locks a folder until the returned descriptor is closed, or the process ends."""
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


def _empty(like: Any) -> np.ndarray:
  """A NumPy array of the shape and type that a leaf has on disk: of a key, its data."""
  if jax.dtypes.issubdtype(like.dtype, jax.dtypes.prng_key):
    like = jax.eval_shape(jax.random.key_data, like)
  return np.empty(like.shape, like.dtype)


def _place(host: np.ndarray, like: Any) -> jax.Array:
  """A NumPy array on the devices of `like`; a typed key if `like` is one."""
  array = jax.device_put(host, getattr(like, "sharding", None))
  if not jax.dtypes.issubdtype(like.dtype, jax.dtypes.prng_key):
    return array
  found: list[Any] = []  # of a `jax.ShapeDtypeStruct`, only a traced key tells it
  jax.eval_shape(lambda key: found.append(jax.random.key_impl(key)), like)
  return jax.random.wrap_key_data(array, impl=found[0])
