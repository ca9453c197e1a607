"""TensorBoard events, written when they are given and not by a thread.

tensorboardX's own writer hands events to a thread; on a full disk the thread dies and
the next events wait for it for ever.
"""

from __future__ import annotations

import os
import pathlib
import time
from collections.abc import Mapping

from absl import logging


class Events:
  """An event file of a run; it is a copy, so a failure ends it and nothing else.

  Args:
    directory: where the event files of the run are; made if it does not exist.
    step: the step from which the run goes on; TensorBoard forgets what came after it.
  """

  def __init__(self, directory: pathlib.Path, *, step: int) -> None:
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto import event_pb2

    directory.mkdir(exist_ok=True)
    # Runs that follow each other within a second must not share a file.
    self._writer: EventsWriter | None = EventsWriter(
      str(directory / "events"), filename_suffix=f".{os.getpid()}"
    )
    restart = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    self._write(step + 1, session_log=restart)

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Adds the values of a step, by their names."""
    from tensorboardX.proto.summary_pb2 import Summary

    scalars = [Summary.Value(tag=tag, simple_value=x) for tag, x in values.items()]
    self._write(step, summary=Summary(value=scalars))

  def flush(self) -> None:
    """Puts what was written on disk."""
    self._try("flush")

  def close(self) -> None:
    """Ends the file."""
    self._try("close")
    self._writer = None

  def _write(self, step: int, **content: object) -> None:
    from tensorboardX.proto.event_pb2 import Event

    self._try("write_event", Event(wall_time=time.time(), step=step, **content))

  def _try(self, method: str, *arguments: object) -> None:
    if self._writer is None:
      return
    try:
      getattr(self._writer, method)(*arguments)
    except OSError as error:
      self._writer = None
      logging.warning(
        "no more TensorBoard events from this run: %s; metrics.jsonl has the numbers",
        error.strerror,
      )
