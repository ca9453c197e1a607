"""Batches: which images they hold, in which order, and how a model sees them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ramjax.config import ConfigError
from ramjax.keys import image_keys

PyTree = Any

Preprocess = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""From a key [], a stored image [H, W, C] and all images of its split [M, H, W, C]
to a normalised float image; vmapped over the first two."""

_IMAGES = 0x7069_6373
"""Folded into key 0, this gives the key of the evaluation images; no run has this key."""


def epoch_order(
  key: jax.Array, epoch: int | jax.Array, *, num_examples: int, batch_size: int
) -> jax.Array:
  """The batches of an epoch: a fresh permutation, without the incomplete last batch.

  Args:
    key: typed PRNG key, the same in each epoch.
    epoch: number of the epoch.
    num_examples: number of training images.
    batch_size: examples a step, at most `num_examples`.

  Returns:
    Indices [num_examples // batch_size, batch_size], int32.

  Raises:
    ConfigError: if there are fewer examples than `batch_size`, or it is less than 1.
  """
  if not 1 <= batch_size <= num_examples:
    raise ConfigError(
      f"batch_size must be from 1 to the number of examples, {num_examples},"
      f" not {batch_size}"
    )
  order = jax.random.permutation(jax.random.fold_in(key, epoch), num_examples)
  num_batches = num_examples // batch_size
  return order[: num_batches * batch_size].reshape(num_batches, batch_size)


def epoch_orders(
  keys: jax.Array, epoch: int | jax.Array, *, num_examples: int, batch_size: int
) -> jax.Array:
  """The batches of an epoch of R runs, see `epoch_order`.

  Args:
    keys: typed PRNG keys [R], the same in each epoch.
    epoch: number of the epoch.
    num_examples: number of training images.
    batch_size: examples a step of one run.

  Returns:
    Indices [R, num_examples // batch_size, batch_size], int32.

  Raises:
    ConfigError: as `epoch_order`.
  """
  order = functools.partial(
    epoch_order, num_examples=num_examples, batch_size=batch_size
  )
  return jax.vmap(order, in_axes=(0, None))(keys, epoch)


def take_images(images: jax.Array, index: jax.Array) -> jax.Array:
  """Some of many images, `images[index]`.

  Each image is gathered as one row of bytes: on the CPU, XLA copies runs along the last
  axis, and a single channel would make runs of one byte.

  Args:
    images: stored images [M, H, W, C].
    index: numbers of the images [B], each in [0, M).

  Returns:
    Images [B, H, W, C].
  """
  rows = images.reshape(images.shape[0], -1)[index]
  return rows.reshape(index.shape[0], *images.shape[1:])


def preprocess_batch(
  key: jax.Array,
  images: jax.Array,
  index: jax.Array,
  pool: jax.Array,
  *,
  preprocess: Preprocess,
) -> jax.Array:
  """Preprocesses images, each with its own key.

  Args:
    key: typed PRNG key [].
    images: stored images [B, H, W, C].
    index: numbers of the images [B], from which their keys are made.
    pool: all images of their split [M, H, W, C].
    preprocess: preprocesses one image.

  Returns:
    Images [B, H, W, C], float.
  """
  keys = image_keys(key, index)
  return jax.vmap(preprocess, in_axes=(0, 0, None))(keys, images, pool)


def evaluation_images(
  images: jax.Array, index: jax.Array, *, preprocess: Preprocess
) -> jax.Array:
  """Some of many images, preprocessed in the same way in every evaluation.

  A random `preprocess`, such as a translation, gets a fixed key for each image. The key
  depends neither on the key of the evaluation nor on the seed of the run nor on JAX's
  default generator, so all models are evaluated on the same images.

  Args:
    images: all images of the split [M, H, W, C], stored. Give all of them, even if only
      some are used: clutter is cut from any of them.
    index: numbers of the images [B], each in [0, M).
    preprocess: preprocesses one image.

  Returns:
    Images [B, H, W, C], of the size and type that `preprocess` returns.
  """
  key = jax.random.fold_in(jax.random.key(0, impl="threefry2x32"), _IMAGES)
  stored = take_images(images, index)
  return preprocess_batch(key, stored, index, images, preprocess=preprocess)


def map_batches(
  function: Callable[[jax.Array], PyTree],
  num_images: int,
  *,
  batch_size: int,
  axis: int = 0,
  sharding: jax.sharding.NamedSharding | None = None,
) -> PyTree:
  """Applies a function to all images, one batch after another.

  The last batch is padded with the last image, and so is every batch whose size is not a
  multiple of the number of devices.

  Args:
    function: from the numbers of the images of a batch [B] to a tree of arrays, whose
      axis `axis` has the size B.
    num_images: number of images M.
    batch_size: images in a batch; bounds the memory that `function` needs.
    axis: the axis of the images in the results.
    sharding: how devices divide each batch, see `ramjax.parallel.divided`; every device
      then gets all results. None is for a single device.

  Returns:
    The tree, whose axis `axis` has the size M.

  Raises:
    ConfigError: if `batch_size` is less than 1.
  """
  if batch_size < 1:
    raise ConfigError(f"batch_size must be at least 1, not {batch_size}")
  num_devices = 1 if sharding is None else sharding.num_devices
  batch_size = -(-min(batch_size, num_images) // num_devices) * num_devices
  num_batches = -(-num_images // batch_size)
  index = jnp.minimum(jnp.arange(num_batches * batch_size), num_images - 1)

  def apply(index: jax.Array) -> PyTree:
    if sharding is not None:
      index = jax.lax.with_sharding_constraint(index, sharding)
    return function(index)

  batches = jax.lax.map(apply, index.reshape(num_batches, batch_size))

  def concatenate(values: jax.Array) -> jax.Array:
    """From [num_batches, ..., B, ...] to [..., M, ...]."""
    values = jnp.moveaxis(values, 0, axis)
    shape = (*values.shape[:axis], -1, *values.shape[axis + 2 :])
    return jax.lax.slice_in_dim(values.reshape(shape), 0, num_images, axis=axis)

  results = jax.tree.map(concatenate, batches)
  if sharding is not None:
    copied = jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec())
    results = jax.lax.with_sharding_constraint(results, copied)
  return results
