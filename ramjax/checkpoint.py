"""Checkpoints: a training state on disk, whole or not at all, by Orbax."""

from __future__ import annotations

import pathlib
from types import TracebackType
from typing import Self

import jax

from ramjax.training import TrainState

_KEPT = 2


class CheckpointError(RuntimeError):
  """A checkpoint that cannot be written or read; the message is one line."""


class Checkpoints:
  """The checkpoints of one run, named by their step; the latest two are kept.

  A context manager, which waits for unfinished writes at its end.

  Args:
    directory: where they are; made, with its parents, if it does not exist.
    read_only: whether nothing may be made or tidied up, so that a run that is still
      being trained can be read.

  Raises:
    CheckpointError: if the directory cannot be used.
  """

  def __init__(self, directory: str | pathlib.Path, *, read_only: bool = False) -> None:
    from orbax.checkpoint import v1 as ocp

    self._directory = pathlib.Path(directory).absolute()
    if read_only and not self._directory.is_dir():
      raise CheckpointError(f"{directory} holds no checkpoint, there is no such folder")
    try:
      if not read_only:
        self._directory.mkdir(parents=True, exist_ok=True)
      self._checkpointer = ocp.training.Checkpointer(
        self._directory,
        preservation_policy=ocp.training.preservation_policies.LatestN(_KEPT),
        cleanup_tmp_directories=not read_only,
      )
    except (OSError, ValueError) as error:
      raise CheckpointError(f"{directory} cannot hold checkpoints: {error}") from error

  def __enter__(self) -> Self:
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    traceback: TracebackType | None,
  ) -> None:
    self._checkpointer.close()

  @property
  def latest_step(self) -> int | None:
    """Step of the newest checkpoint; None if there is none."""
    latest = self._checkpointer.latest
    return None if latest is None else latest.step

  def save(self, state: TrainState) -> None:
    """Writes a state; a step that exists already is left as it is.

    Raises:
      CheckpointError: if it cannot be written.
    """
    step = int(state.step)
    if step == self.latest_step:
      return
    try:
      self._checkpointer.save(step, state, force=True)
    except Exception as error:
      raise CheckpointError(
        f"checkpoint {step} cannot be written to {self._directory}: {_cause(error)}"
      ) from error

  def restore(self, like: TrainState) -> TrainState:
    """Reads the newest state.

    Args:
      like: a state, or `jax.ShapeDtypeStruct`s, of the same structure and shapes.

    Returns:
      The state.

    Raises:
      CheckpointError: if there is none, or it cannot be read.
    """
    step = self.latest_step
    if step is None:
      raise CheckpointError(f"{self._directory} holds no checkpoint")
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding or here),
      like,
    )
    try:
      return self._checkpointer.load(step, shapes)
    except Exception as error:
      raise CheckpointError(
        f"checkpoint {self._directory / str(step)} cannot be read: {_cause(error)};"
        " remove it to go on from the one before"
      ) from error


def _cause(error: BaseException) -> str:
  """The first line of the innermost cause: Orbax wraps what really happened."""
  while error.__cause__ is not None:
    error = error.__cause__
  text = str(error) or type(error).__name__
  return text.splitlines()[0]
