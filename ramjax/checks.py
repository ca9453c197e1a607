"""Checks of arrays at the door: one line that names the argument and the remedy.

They look at shapes and types, which are known when a function is traced, and at values
only where these are known then, too.
"""

from __future__ import annotations

import operator
import types
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ramjax.config import ConfigError

TIME_FIRST = "time is axis 0 and the batch axis 1, see jnp.swapaxes"

Shape = Sequence["int | types.EllipsisType | None"]
"""Sizes; None stands for any size, and ... for any number of axes."""


def check_shape(shape: Shape, *, hint: str = "", **arrays: jax.Array) -> None:
  """Checks that arrays have a shape.

  Args:
    shape: the shape.
    hint: what to do otherwise.
    **arrays: the arrays, by the names of their arguments.

  Raises:
    AssertionError: if one has another shape.

  >>> import jax.numpy as jnp
  >>> check_shape((None, ..., 2), location=jnp.zeros((5, 3)))
  Traceback (most recent call last):
    ...
  AssertionError: location must have the shape [any, ..., 2], not [5, 3]
  """
  for name, array in arrays.items():
    if not _fits(array.shape, shape):
      raise AssertionError(
        f"{name} must have the shape {_text(shape)}, not {_text(array.shape)}"
        + (f"; {hint}" if hint else "")
      )


def check_type(kind: type, *, hint: str = "", **arrays: jax.Array) -> None:
  """Checks that arrays are floats or integers.

  Args:
    kind: `float` or `int`, of any size.
    hint: what to do otherwise.
    **arrays: the arrays, by the names of their arguments.

  Raises:
    AssertionError: if one is neither.
  """
  expected = jnp.floating if kind is float else jnp.integer
  for name, array in arrays.items():
    if not jnp.issubdtype(array.dtype, expected):
      raise AssertionError(
        f"{name} must be {kind.__name__}, not {array.dtype}"
        + (f"; {hint}" if hint else "")
      )


def as_count(name: str, value: Any) -> int:
  """A number as an integer of at least 1, which a static argument may be.

  Args:
    name: the argument.
    value: the number: an integer of Python, NumPy or JAX.

  Raises:
    ConfigError: if it is not.
  """
  try:
    if isinstance(value, bool):
      raise TypeError
    count = operator.index(value)
  except TypeError as error:
    raise ConfigError(f"{name} must be an integer, not {value!r}") from error
  if count < 1:
    raise ConfigError(f"{name} must be at least 1, not {value}")
  return count


def check_distribution(name: str, values: Any, *, hint: str = "") -> None:
  """Checks that values, if they are known, are probabilities that sum to one.

  Args:
    name: the argument.
    values: probabilities [..., K]; those with a NaN are not checked.
    hint: what to do otherwise.

  Raises:
    AssertionError: if they are not.
  """
  if isinstance(values, jax.core.Tracer):
    return
  known = np.asarray(values)
  is_float = jnp.issubdtype(known.dtype, jnp.floating)
  rounding = 4 * float(jnp.finfo(known.dtype).eps) if is_float else 0.0
  total = known.astype(np.float64).sum(axis=-1)
  wrong = (np.abs(total - 1.0) > max(1e-3, rounding)) | (known < 0).any(axis=-1)
  if wrong.any():
    raise AssertionError(
      f"{name} must be probabilities that sum to 1, not to {total[wrong][0]:g};"
      f" {hint or 'divide it by its sum'}"
    )


def check_positive(name: str, value: Any, *, or_zero: bool = False) -> None:
  """Checks that a number, if it is known, is greater than 0.

  Args:
    name: the argument.
    value: the number.
    or_zero: whether it may be 0.

  Raises:
    AssertionError: if it is not.
  """
  if isinstance(value, jax.core.Tracer):
    return
  if not np.all(np.asarray(value) >= 0 if or_zero else np.asarray(value) > 0):
    bound = "at least" if or_zero else "greater than"
    raise AssertionError(f"{name} must be {bound} 0, not {value}")


def _fits(found: tuple[int, ...], expected: Shape) -> bool:
  expected = tuple(expected)
  if Ellipsis in expected:
    place = expected.index(Ellipsis)
    before, after = expected[:place], expected[place + 1 :]
    if len(found) < len(before) + len(after):
      return False
    expected = (*before, *(None,) * (len(found) - len(before) - len(after)), *after)
  return len(found) == len(expected) and all(
    size is None or size == other for size, other in zip(expected, found, strict=True)
  )


def _text(shape: Shape) -> str:
  names: dict[Any, str] = {None: "any", Ellipsis: "..."}
  return f"[{', '.join(str(names.get(size, size)) for size in shape)}]"
