"""Strictness for all tests, and the real MNIST that they share."""

import os

import jax
import pytest

from ramjax import data

# Most of the time is compilation, which need not optimise here: a third less of it.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")


@pytest.fixture(autouse=True, scope="session")
def strict_jax():
  """Types and ranks are never promoted silently."""
  jax.config.update("jax_numpy_dtype_promotion", "strict")
  jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def mnist() -> data.Dataset:
  """The genuine MNIST, from wherever this machine has it."""
  return data.load_dataset("mnist")
