"""What produced a result: command, versions, commit, device."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import os
import pathlib
import platform
import shlex
import subprocess
import sys
from typing import Any

import jax

import ramjax
from experiments.cli import devices


def provenance() -> dict[str, Any]:
  """What produced a result: command, date, versions, git commit, device."""
  packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
  return {
    "command": shlex.join(["python", "-m", _module_name(), *sys.argv[1:]]),
    "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    "versions": {
      "ramjax": ramjax.__version__,
      "python": platform.python_version(),
      **{name: importlib.metadata.version(name) for name in packages},
    },
    "git_commit": _git_commit(),
    "device": f"{_device()} ({jax.default_backend()}) x {jax.device_count()}",
  }


def _device() -> str:
  """The name of an accelerator; of a CPU with the cores that this process may use."""
  if jax.default_backend() != "cpu":
    return jax.devices()[0].device_kind
  name = platform.processor() or platform.machine()
  with contextlib.suppress(OSError):
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2] for line in lines if line.startswith("model name"))
    name = next(names, name).strip()
  return f"{name}, {devices.num_cores()} of {os.cpu_count()} cores"


def _module_name() -> str:
  main = sys.modules["__main__"].__spec__
  return main.name if main else os.path.basename(sys.argv[0])


def _git_commit() -> str | None:
  here = os.path.dirname(os.path.abspath(__file__))
  command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
  try:
    found = subprocess.run(
      command, cwd=here, capture_output=True, text=True, timeout=10
    )
  except (OSError, subprocess.TimeoutExpired):
    return None
  return found.stdout.strip() or None
