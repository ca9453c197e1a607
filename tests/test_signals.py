"""Signals: the first is noted, the second kills, and nothing is left changed behind."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from experiments.cli import signals

ROOT = pathlib.Path(__file__).parent.parent
pytestmark = pytest.mark.usefixtures("signal_handlers")


LOOP = """
import time
from experiments.cli import signals
{before}
with signals.Stop() as stop:
  print("looping", flush=True)
  while not stop.requested:
    time.sleep(0.01)
  print("noted", flush=True)
  {inside}
{after}
time.sleep(60)
"""


def start(*, before="", inside="pass", after=""):
  script = LOOP.format(before=before, inside=inside, after=after)
  return subprocess.Popen(
    [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True
  )


@pytest.mark.parametrize("first", signals.SIGNALS)
@pytest.mark.parametrize("second", signals.SIGNALS)
def test_a_second_signal_kills_at_once(first, second):
  """In the loop, that is while the state is being saved."""
  with start(inside="time.sleep(60)") as process:
    assert process.stdout.readline() == "looping\n"
    process.send_signal(first)
    assert process.stdout.readline() == "noted\n"
    process.send_signal(second)
    assert process.wait(timeout=10) == -second


def test_a_second_signal_kills_after_the_loop_too():
  inside = "raise SystemExit(stop.interrupted('saved').status)"
  ending = (
    "import atexit; atexit.register(lambda: (print('end', flush=True), time.sleep(60)))"
  )
  with start(before=ending, inside=inside) as process:
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert [process.stdout.readline() for _ in range(2)] == ["noted\n", "end\n"]
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) == -signal.SIGINT


def test_a_loop_without_a_signal_leaves_the_handlers(signal_handlers):
  with signals.Stop() as stop:
    assert signal.getsignal(signal.SIGTERM) != signal_handlers[signal.SIGTERM]
    assert not stop.requested
  assert {s: signal.getsignal(s) for s in signal_handlers} == signal_handlers


def stop_at_step_7():
  with signals.Stop() as stop:
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.requested
    raise stop.interrupted("saved at step 7")


def test_the_exception_says_how_to_go_on():
  with pytest.raises(signals.Interrupted) as caught:
    stop_at_step_7()
  assert str(caught.value) == (
    "SIGTERM: saved at step 7; run the same command again to go on"
  )
  assert caught.value.status == 143
  assert not caught.value.midway
  assert not isinstance(caught.value, Exception)  # no handler of errors catches it


def test_a_signal_after_the_last_look_is_not_lost():
  with pytest.raises(signals.Interrupted, match="SIGINT") as caught, signals.Stop():
    os.kill(os.getpid(), signal.SIGINT)
  assert caught.value.status == 130


def fail_after_a_signal():
  with signals.Stop():
    os.kill(os.getpid(), signal.SIGINT)
    raise ZeroDivisionError


def test_an_error_in_the_loop_is_not_hidden_by_a_signal():
  with pytest.raises(ZeroDivisionError):
    fail_after_a_signal()


def test_outside_of_a_loop_a_signal_raises():
  signals.raise_on_signals()
  with pytest.raises(signals.Interrupted, match="SIGTERM: interrupted") as caught:
    os.kill(os.getpid(), signal.SIGTERM)
  assert caught.value.midway
  assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL


def test_a_loop_can_be_stopped_by_another_process_of_the_run():
  with pytest.raises(signals.Interrupted, match="SIGTERM"), signals.Stop() as stop:
    stop.request(signal.SIGTERM)
