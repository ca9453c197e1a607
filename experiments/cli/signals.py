"""SIGTERM and SIGINT: a run ends where it can go on, and a second one ends it at once."""

from __future__ import annotations

import signal
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""What a terminal, a cluster or a container sends before it kills."""


class Interrupted(BaseException):
  """A signal ended the program; the exit status is 128 + its number.

  Not an `Exception`, as `KeyboardInterrupt` is none: nothing but the end of the program
  may catch it.

  Attributes:
    status: the exit status.
    midway: whether it broke in anywhere, perhaps while a device is at work.
  """

  def __init__(self, signum: int, state: str, *, midway: bool) -> None:
    name = signal.Signals(signum).name
    on = "" if midway else " to go on"
    super().__init__(f"{name}: {state}; run the same command again{on}")
    self.status = 128 + signum
    self.midway = midway


def raise_on_signals() -> None:
  """From now on a signal raises `Interrupted`, and a second one kills."""
  for signum in SIGNALS:
    signal.signal(signum, _raise)


class Stop:
  """Whether a signal has asked a loop to end; a context manager round the loop.

  Within it the first signal is only noted, so that the loop can save and leave where
  it can go on. A second one kills at once, as if the program had no handler, also after
  the loop. Only the main thread of a process can enter.
  """

  def __init__(self) -> None:
    self.signum: int | None = None

  @property
  def requested(self) -> bool:
    """Whether the loop should end; several processes combine theirs."""
    return self.signum is not None

  def request(self, signum: int) -> None:
    """Notes a signal that this process, or another one of the run, has received."""
    self.signum = signum

  def interrupted(self, state: str = "interrupted") -> Interrupted:
    """The exception that ends the program, once it is `requested`."""
    assert self.signum is not None
    return Interrupted(self.signum, state, midway=False)

  def __enter__(self) -> Stop:
    self._before = {signum: signal.signal(signum, self._note) for signum in SIGNALS}
    return self

  def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
    if self.signum is None:
      for signum, handler in self._before.items():
        signal.signal(signum, handler)
    elif kind is None:  # it came when the loop looked for the last time
      raise self.interrupted()

  def _note(self, signum: int, frame: FrameType | None) -> None:
    del frame
    _kill_next_time()
    self.request(signum)


def _raise(signum: int, frame: FrameType | None) -> None:
  del frame
  _kill_next_time()
  raise Interrupted(signum, "interrupted", midway=True)


def _kill_next_time() -> None:
  for signum in SIGNALS:
    signal.signal(signum, signal.SIG_DFL)
