"""Strictness for all tests, and the real MNIST that they share."""

import os

import jax
import pytest

from ramjax import data

# Most of the time is compilation, which need not optimise here: half of it.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")


@pytest.fixture(autouse=True, scope="session")
def strict_jax():
  """Types and ranks are never promoted silently."""
  jax.config.update("jax_numpy_dtype_promotion", "strict")
  jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(autouse=True, scope="session")
def compiled_once(tmp_path_factory):
  """What several tests of a worker compile alike is compiled once: a quarter less of all."""
  folder = tmp_path_factory.getbasetemp() / "compiled"
  jax.config.update("jax_compilation_cache_dir", str(folder))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@pytest.fixture(scope="session")
def mnist() -> data.Dataset:
  """The genuine MNIST, from wherever this machine has it."""
  return data.load_dataset("mnist")
