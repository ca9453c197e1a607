"""SHA-256 digests of trees of arrays, such as the state of a training run."""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import numpy as np

PyTree = Any


def to_host(tree: PyTree) -> PyTree:
  """A tree of arrays as NumPy arrays; typed keys become their key data.

  Args:
    tree: arrays on one device, or copied to each of several devices.

  Returns:
    The same tree of `numpy.ndarray`.
  """
  return jax.tree.map(np.asarray, jax.device_get(jax.tree.map(_raw, tree)))


def layout_digest(tree: PyTree) -> str:
  """SHA-256 of the names, dtypes and shapes of a tree of arrays.

  Args:
    tree: leaves with a shape and a dtype; keys as their key data.

  Returns:
    64 hexadecimal digits.
  """
  lines = (line for line, _ in _named(tree))
  return hashlib.sha256("".join(lines).encode()).hexdigest()


def state_digest(tree: PyTree) -> str:
  """SHA-256 of the names, dtypes, shapes and bytes of a tree of arrays.

  Two states with the same digest are equal bit for bit. The digest does not depend on the
  devices that hold the arrays.

  Args:
    tree: arrays, typed keys included.

  Returns:
    64 hexadecimal digits.
  """
  digest = hashlib.sha256()
  for line, array in _named(to_host(tree)):
    digest.update(line.encode())
    digest.update(array.tobytes())
  return digest.hexdigest()


def _named(tree: PyTree) -> list[tuple[str, Any]]:
  """The leaves with their descriptions (name, dtype, shape), sorted by description."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  named = [
    (f"{_name(path)} {np.dtype(leaf.dtype).name} {tuple(leaf.shape)}\n", leaf)
    for path, leaf in leaves
  ]
  return sorted(named, key=lambda pair: pair[0])


def _name(path: Any) -> str:
  return jax.tree_util.keystr(path, simple=True, separator="/")


def _raw(leaf: Any) -> Any:
  is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
  return jax.random.key_data(leaf) if is_key else leaf
