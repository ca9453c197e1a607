"""Settings and fixtures for all tests: strict promotion, a shared cache, real MNIST."""

import os

import jax
import pytest

from ramjax import data

# Tests spend most of their time in compilation; without optimisation it takes half.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")


@pytest.fixture(autouse=True, scope="session")
def strict_jax():
  """Types and ranks are never promoted silently."""
  jax.config.update("jax_numpy_dtype_promotion", "strict")
  jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(autouse=True, scope="session")
def compiled_once(tmp_path_factory):
  """A cache of compiled programs for the tests of a session; saves a quarter of the time."""
  folder = tmp_path_factory.getbasetemp() / "compiled"
  jax.config.update("jax_compilation_cache_dir", str(folder))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@pytest.fixture(scope="session")
def mnist() -> data.Dataset:
  """The genuine MNIST, from any source that this machine has."""
  return data.load_dataset("mnist")
