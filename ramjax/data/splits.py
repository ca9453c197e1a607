"""Images and classes as arrays: checked, divided, counted, told apart."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np

from ramjax.data.idx import DataError


class Split(NamedTuple):
  """Images as they are stored, and their classes.

  Attributes:
    images: images [M, H, W, C], uint8.
    labels: classes [M], int32.
  """

  images: np.ndarray
  labels: np.ndarray


class Stored(NamedTuple):
  """What a source has, before validation images are set aside.

  Attributes:
    source: where it was found, in words.
    num_classes: number of classes K.
    train: images to train on, in the order of the source.
    test: the test set; None if the source has none of its own.
    sha256: what `fingerprint` makes of them; None if the source has checked them
      against sums that are known.
  """

  source: str
  num_classes: int
  train: Split
  test: Split | None
  sha256: str | None = None


class Divided(NamedTuple):
  """Images to train on, in a fixed random order, to choose by, and to judge by."""

  train: Split
  validation: Split
  test: Split


def check_split(split: Split, *, name: str, num_classes: int) -> Split:
  """Looks for what a device would not complain about: it clamps, wraps, or gives NaN.

  Cheap, and to be done before anything is compiled.

  Args:
    split: images [M, H, W, C], uint8 or finite float32, and classes [M], integer.
    name: what the split is called in messages, such as `mnist train`.
    num_classes: number of classes K.

  Returns:
    The split.

  Raises:
    DataError: if rank, shape, type or number of an array is another, if a label is not
      in [0, K), or if an image is not finite. The message names the array.
  """
  images, labels = np.asarray(split.images), np.asarray(split.labels)
  if images.dtype not in (np.uint8, np.float32):
    raise DataError(
      f"{name} images must be uint8 or float32, not {images.dtype}; convert them"
    )
  if images.ndim != 4 or 0 in images.shape:
    raise DataError(
      f"{name} images must be [M, H, W, C], none of them 0, not {list(images.shape)};"
      " images of one channel are images[..., None]"
    )
  if not np.issubdtype(labels.dtype, np.integer):
    raise DataError(f"{name} labels must be integers, not {labels.dtype}; convert them")
  if labels.shape != images.shape[:1]:
    raise DataError(
      f"{name} labels must be [{len(images)}], one for each image, not"
      f" {list(labels.shape)}"
    )
  lowest, highest = labels.min(), labels.max()
  if lowest < 0 or highest >= num_classes:
    worst = lowest if lowest < 0 else highest
    raise DataError(
      f"{name} labels must be from 0 to {num_classes - 1}, but label"
      f" {int(np.argmax(labels == worst))} is {worst}"
    )
  # NaN passes through minimum and maximum, and no array of the size is made.
  if images.dtype == np.float32 and not np.isfinite([images.min(), images.max()]).all():
    sound = np.array([np.isfinite(image).all() for image in images])
    raise DataError(
      f"{name} images must be finite, but image {int(np.argmin(sound))} is not"
    )
  return split


def divide(stored: Stored, *, name: str) -> Divided:
  """Sets validation images aside, and test images where the source has none.

  The same on every machine and for every run: a tenth, rounded down but at least one,
  is taken at random from all images for the test set if there is none, and then a
  tenth of the others for validation. The rest is in random order.

  Args:
    stored: images and classes.
    name: what they are called in messages.

  Returns:
    The three splits.

  Raises:
    DataError: if no image would be left to train on.
  """
  train, test = stored.train, stored.test
  needed = 2 if test else 3
  if len(train.labels) < needed:
    raise DataError(
      f"{name} must have at least {needed} images, so that one is left to train on,"
      f" not {len(train.labels)}"
    )
  if test is None:
    train, test = _set_aside(train, seed=1)
  return Divided(*_set_aside(train, seed=0), test)


def _set_aside(split: Split, *, seed: int) -> tuple[Split, Split]:
  """Nine tenths of a split in random order, and a tenth."""
  # RandomState and not Generator: NumPy keeps its streams the same in every version.
  order = np.random.RandomState(seed).permutation(len(split.labels))
  number = max(1, len(order) // 10)
  rest, aside = (
    Split(split.images[index], split.labels[index])
    for index in (order[:-number], order[-number:])
  )
  return rest, aside


def channel_statistics(
  images: np.ndarray,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Mean and standard deviation of each channel in 0…1, to the four digits in use.

  For MNIST they are the 0.1307 and 0.3081 of the released code. A channel that never
  changes has the deviation 1, by which it can be divided.

  Args:
    images: images [M, H, W, C], uint8.

  Returns:
    Means and standard deviations, C of each.
  """
  values = np.arange(256) / 255.0
  means, stds = [], []
  for channel in np.moveaxis(images, -1, 0):
    # In parts, since bincount makes eight bytes of each.
    parts = np.array_split(channel, -(-channel.size // 2**20))
    counts = sum(np.bincount(part.ravel(), minlength=256) for part in parts)
    share = counts / channel.size
    mean = share @ values
    means.append(round(float(mean), 4))
    stds.append(round(float(np.sqrt(share @ np.square(values - mean))), 4) or 1.0)
  return tuple(means), tuple(stds)


def fingerprint(*splits: Split | None) -> str:
  """SHA-256 of the arrays of splits: shapes, types and content.

  Args:
    *splits: the splits; None where there is none.

  Returns:
    64 hexadecimal digits.
  """
  digest = hashlib.sha256()
  for array in (array for split in splits if split for array in split):
    digest.update(f"{array.shape} {array.dtype.str} ".encode())
    digest.update(np.ascontiguousarray(array).data)
  return digest.hexdigest()
