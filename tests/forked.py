"""Runs scripts in forks of a process that has already imported them.

Starting Python with JAX takes two seconds of every test of a script otherwise. The forked
process has not used JAX yet, so a fork is safe, and a script can do all its work in one.
"""

import multiprocessing
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile

_SCRIPTS = (
  "ablation",
  "baselines",
  "benchmark",
  "calibration",
  "convergence",
  "demo",
  "departures",
  "error_rates",
  "export",
  "glimpse_generalization",
  "look",
  "publish",
  "records",
  "report",
  "same_glimpses",
  "stability",
  "stopping_rules",
  "train",
)
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([f"experiments.{name}" for name in _SCRIPTS])


def run(script, *arguments, cwd=None, seconds=300):
  """Runs `python -m experiments.<script> <arguments>`; returns status and output."""
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    process = _CONTEXT.Process(
      target=_live, args=(f"experiments.{script}", arguments, cwd, folder)
    )
    process.start()
    process.join(seconds)
    try:
      if process.is_alive():
        raise subprocess.TimeoutExpired([script, *arguments], seconds)
    finally:
      process.kill()
    stdout, stderr = ((folder / stream).read_text() for stream in ("stdout", "stderr"))
    return subprocess.CompletedProcess(arguments, process.exitcode, stdout, stderr)


def _live(module, arguments, cwd, folder):
  for descriptor, stream in ((1, "stdout"), (2, "stderr")):
    os.dup2(os.open(folder / stream, os.O_WRONLY | os.O_CREAT), descriptor)
  if cwd is not None:
    os.chdir(cwd)
  sys.argv = [module, *arguments]
  sys.modules.pop(module, None)  # runpy warns if a module is already imported
  runpy.run_module(module, run_name="__main__", alter_sys=True)
