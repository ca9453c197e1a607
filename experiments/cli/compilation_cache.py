"""Compiled programs kept on disk, so that a run that starts again does not compile."""

from __future__ import annotations

import hashlib
import os
import pathlib
import platform

import jax
import jaxlib

from ramjax.data.sources import cache_dir


def enable() -> None:
  """Lets JAX keep what it compiles, beside the datasets.

  A program that XLA has compiled for one processor may not run on another, so that each
  version of jaxlib on each kind of processor has a folder of its own. A folder that the
  user has given to JAX ($JAX_COMPILATION_CACHE_DIR) is left as it is, and one that
  cannot be written does without.
  """
  if "JAX_COMPILATION_CACHE_DIR" in os.environ:
    return
  folder = cache_dir("xla") / f"jaxlib-{jaxlib.__version__}-{_processor()}"
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError:
    return
  jax.config.update("jax_compilation_cache_dir", str(folder))
  # The many small programs of the start take longer together than the large one.
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _processor() -> str:
  """A word for the kind of processor: its model and what instructions it has."""
  try:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
  except OSError:
    lines = []
  names = sorted(
    {x for x in lines if x.startswith(("model name", "flags", "Features", "CPU part"))}
  )
  text = "\n".join([platform.machine(), platform.processor(), *names])
  return hashlib.sha256(text.encode()).hexdigest()[:12]
