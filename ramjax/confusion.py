"""Accuracy class by class: what unbalanced data hide in one number.

The conventions are those of scikit-learn. An image whose probabilities are not finite has
no predicted class.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ramjax.checks import check_shape, check_type


def confusion_matrix(probs: jax.Array, label: jax.Array) -> jax.Array:
  """Number of images of each true class (row) by predicted class (column).

  Args:
    probs: softmax outputs p [M, K] after one glimpse; use `jax.vmap` for a time axis.
    label: true classes [M], integer in [0, K).

  Returns:
    Counts [K, K], int32. Images whose probabilities are not finite are in no column.

  Raises:
    AssertionError: if an array has another rank, shape or type.

  >>> import jax.numpy as jnp
  >>> probs = jnp.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
  >>> confusion_matrix(probs, jnp.array([0, 1, 1])).tolist()
  [[1, 0], [1, 1]]
  """
  _check(probs, label)
  num_classes = probs.shape[-1]
  predicted = jnp.argmax(probs, axis=-1)
  is_finite = jnp.isfinite(probs).all(axis=-1).astype(jnp.int32)
  zeros = jnp.zeros((num_classes, num_classes), jnp.int32)
  return zeros.at[label, predicted].add(is_finite)


def class_accuracy(probs: jax.Array, label: jax.Array) -> jax.Array:
  """The share of the images of each class that are recognised (its recall).

  Args:
    probs: softmax outputs p [M, K] after one glimpse.
    label: true classes [M], integer in [0, K).

  Returns:
    Shares [K], float; NaN for a class without images.

  Raises:
    AssertionError: if an array has another rank, shape or type.

  >>> import jax.numpy as jnp
  >>> probs = jnp.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0], [0.3, 0.7, 0.0]])
  >>> class_accuracy(probs, jnp.array([0, 1, 1])).tolist()
  [1.0, 0.5, nan]
  """
  correct = jnp.diagonal(confusion_matrix(probs, label)).astype(jnp.float32)
  number = jnp.bincount(label, length=probs.shape[-1]).astype(jnp.float32)
  return correct / number  # 0 / 0 is NaN


def balanced_accuracy(probs: jax.Array, label: jax.Array) -> jax.Array:
  """The mean of `class_accuracy` over the classes that have images.

  Args:
    probs: softmax outputs p [M, K] after one glimpse.
    label: true classes [M], integer in [0, K).

  Returns:
    The balanced accuracy [], float.

  Raises:
    AssertionError: if an array has another rank, shape or type.

  >>> import jax.numpy as jnp
  >>> probs = jnp.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0], [0.3, 0.7, 0.0]])
  >>> float(balanced_accuracy(probs, jnp.array([0, 1, 1])))
  0.75
  """
  return jnp.nanmean(class_accuracy(probs, label))


def _check(probs: jax.Array, label: jax.Array) -> None:
  check_shape((None, None), hint="for a time axis, use jax.vmap", probs=probs)
  check_type(float, probs=probs)
  check_type(int, label=label)
  check_shape(probs.shape[:1], label=label)
