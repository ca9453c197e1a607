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

  Args:
    signum: the number of the signal.
    state: what there is to go on from.
  """

  def __init__(self, signum: int, state: str = "nothing is lost") -> None:
    name = signal.Signals(signum).name
    super().__init__(f"{name}: {state}; the same command goes on from there")
    self.status = 128 + signum


def raise_on_signals() -> None:
  """From now on a signal raises `Interrupted`, and a second one kills."""
  for signum in SIGNALS:
    signal.signal(signum, _raise)


class Stop:
  """Whether a signal has asked a loop to end; a context manager round the loop.

  Within it the first signal is only noted, so that the loop can save and leave where
  it can go on. A second one kills at once, as if the program had no handler. Only the
  main thread of a process can enter.
  """

  def __init__(self) -> None:
    self.signum: int | None = None

  @property
  def requested(self) -> bool:
    """Whether the loop should end; several processes combine theirs."""
    return self.signum is not None

  def __enter__(self) -> Stop:
    self._before = {signum: signal.signal(signum, self._note) for signum in SIGNALS}
    return self

  def __exit__(self, *exception: object) -> None:
    # After a first signal the second one still has to kill.
    if not self.requested:
      for signum, handler in self._before.items():
        signal.signal(signum, handler)

  def _note(self, signum: int, frame: FrameType | None) -> None:
    del frame
    _kill_next_time()
    self.signum = signum


def _raise(signum: int, frame: FrameType | None) -> None:
  del frame
  _kill_next_time()
  raise Interrupted(signum)


def _kill_next_time() -> None:
  for signum in SIGNALS:
    signal.signal(signum, signal.SIG_DFL)
