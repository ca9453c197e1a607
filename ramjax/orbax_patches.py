"""Everything about Orbax that is not its public interface, written for version 0.12.

`setup.cfg` admits orbax-checkpoint 0.12.8 and later, below 0.13. Before that limit is
raised, check whether Orbax still needs each patch: the reason stands beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import re
from collections.abc import Coroutine, Iterator
from logging import LogRecord, getLogger
from typing import Any

import jax
from absl import logging

_TIMEOUT_SECONDS = 60.0
"""How long a failed save or load waits for the tasks that it has started."""


def import_orbax() -> tuple[Any, Any, Any]:
  """Orbax's v1 interface and the two private modules that `local_orbax` patches.

  Raises:
    ImportError: if Orbax is not installed, or a version without these modules.
  """
  from orbax.checkpoint import v1
  from orbax.checkpoint._src import asyncio_utils
  from orbax.checkpoint.experimental.v1._src.saving import execution

  return v1, asyncio_utils, execution


@contextlib.contextmanager
def local_orbax() -> Iterator[Any]:
  """Orbax's v1 interface, for saves and loads by this process alone.

  Within the context Orbax does not wait for other processes, and raises its failures
  instead of logging them.

  Yields:
    The module `orbax.checkpoint.v1`.
  """
  v1, asyncio_utils, execution = import_orbax()
  process = jax.process_index()
  context = v1.Context()
  context.multiprocessing.primary_host = process
  context.multiprocessing.active_processes = {process}
  context.multiprocessing.barrier_sync_key_prefix = f"process_{process}"

  # Orbax 0.12 compares the name of the folder among all processes, even if only one is
  # active, and would wait for the others.
  check_directory = execution._check_directory_consistency
  execution._check_directory_consistency = lambda directory: None
  run_sync = asyncio_utils.run_sync
  asyncio_utils.run_sync = lambda coroutine: run_sync(_finish_tasks(coroutine))
  # Orbax 0.12 logs each failure with its traceback before it raises it.
  logger = logging.get_absl_logger()
  logger.addFilter(_is_not_from_orbax)
  try:
    with context:
      yield v1
  finally:
    execution._check_directory_consistency = check_directory
    asyncio_utils.run_sync = run_sync
    logger.removeFilter(_is_not_from_orbax)


async def _finish_tasks(coroutine: Coroutine[Any, Any, Any]) -> Any:
  """Awaits a coroutine; if it fails, waits for all tasks that it has started, too.

  Orbax 0.12 writes all arrays at once and closes the event loop at the first failure.
  TensorStore's threads continue: they would write files into a folder that is being
  removed, and report to a closed loop, each with a traceback.
  """
  try:
    return await coroutine
  except Exception:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    finished = asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.wait({finished}, timeout=_TIMEOUT_SECONDS)
    raise


def discard_failed_tasks() -> None:
  """Collects the tasks of a failed load, which would log their failures when collected.

  To be called when the exception of the load is gone, since it refers to the tasks.
  """
  logger = getLogger("asyncio")
  logger.addFilter(_is_never_logged)
  try:
    gc.collect()
  finally:
    logger.removeFilter(_is_never_logged)


def error_number(error: BaseException) -> int | None:
  """The `errno` of the operating system's error that caused a failure, if there is one."""
  cause = _root_cause(error)
  if isinstance(cause, OSError):
    return cause.errno
  # TensorStore 0.1 raises a ValueError that has the number in its text alone.
  found = re.search(r"os_error_code='(\d+)'", str(cause))
  return int(found[1]) if found else None


def reason(error: BaseException) -> str:
  """What caused a failure, in one line."""
  number = error_number(error)
  if number is not None:
    return os.strerror(number)
  cause = _root_cause(error)
  return (str(cause) or type(cause).__name__).splitlines()[0]


def _root_cause(error: BaseException) -> BaseException:
  """The first of a chain of causes: Orbax wraps an error in several others."""
  while error.__cause__ is not None:
    error = error.__cause__
  return error


def _is_not_from_orbax(record: LogRecord) -> bool:
  return f"{os.sep}orbax{os.sep}" not in record.pathname


def _is_never_logged(record: LogRecord) -> bool:
  del record
  return False
