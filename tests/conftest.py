"""Strictness for all tests, and the real MNIST that they share."""

import jax
import pytest

from ramjax import data


@pytest.fixture(autouse=True, scope="session")
def strict_jax():
  """Types and ranks are never promoted silently."""
  jax.config.update("jax_numpy_dtype_promotion", "strict")
  jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def mnist() -> data.Dataset:
  """The genuine MNIST, from wherever this machine has it."""
  return data.load_dataset("mnist")
