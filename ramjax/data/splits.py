"""Splits of images and classes: checks, division, channel statistics, digests."""

import hashlib
from typing import NamedTuple

import numpy as np

from ramjax.data.idx import DataError


class Split(NamedTuple):
  """Stored images and their classes.

  Attributes:
    images: all images of the split [M, H, W, C], uint8.
    labels: their classes [M], int32.
  """

  images: np.ndarray
  labels: np.ndarray


class Stored(NamedTuple):
  """The content of a source, before validation images are set aside.

  Attributes:
    source: description of the source, for messages.
    num_classes: number of classes K.
    train: training images, in the order of the source.
    test: the test set; None if the source has none.
    sha256: `fingerprint` of both splits; None for datasets with published checksums.
    class_names: names of the classes, K of them; empty if they have none.
  """

  source: str
  num_classes: int
  train: Split
  test: Split | None
  sha256: str | None = None
  class_names: tuple[str, ...] = ()


class Divided(NamedTuple):
  """The training, validation and test split; training images in fixed random order."""

  train: Split
  validation: Split
  test: Split


def check_split(split: Split, *, name: str, num_classes: int) -> Split:
  """Checks a split for errors that a device would not report.

  For example, JAX clamps a label that is out of range. The check is fast; do it before
  anything is compiled.

  Args:
    split: images [M, H, W, C], uint8 or finite float32, and classes [M], integer.
    name: name of the split in messages, such as `mnist train`.
    num_classes: number of classes K.

  Returns:
    The split, unchanged.

  Raises:
    DataError: if an array has the wrong rank, shape or dtype, if a label is not in
      [0, K), or if an image is not finite. The message names the array.

  >>> import numpy as np
  >>> split = Split(np.zeros((2, 8, 8, 1), np.uint8), np.array([0, 3]))
  >>> check_split(split, name="mine", num_classes=3)
  Traceback (most recent call last):
    ...
  ramjax.data.idx.DataError: mine labels must be from 0 to 2, but label 1 is 3
  """
  images, labels = np.asarray(split.images), np.asarray(split.labels)
  if images.dtype not in (np.uint8, np.float32):
    raise DataError(
      f"{name} images must be uint8 or float32, not {images.dtype}; convert them"
    )
  if images.ndim != 4 or 0 in images.shape:
    raise DataError(
      f"{name} images must be [M, H, W, C], all at least 1, not {list(images.shape)};"
      " add a channel axis by images[..., None]"
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
  # Minimum and maximum propagate NaN and allocate no array of booleans.
  if images.dtype == np.float32 and not np.isfinite([images.min(), images.max()]).all():
    finite = np.array([np.isfinite(image).all() for image in images])
    raise DataError(
      f"{name} images must be finite, but image {int(np.argmin(finite))} is not"
    )
  return split


def divide(stored: Stored, *, name: str) -> Divided:
  """The training, validation and test split of a source.

  Without a test set, a random tenth of all images becomes the test split. Then a random
  tenth of the rest becomes the validation split. A tenth is rounded down, but is at least
  one image. The remaining images are in random order. The result is the same on every
  machine and in every run.

  Args:
    stored: images and classes.
    name: name of the dataset in messages.

  Returns:
    The three splits.

  Raises:
    DataError: if no training image would be left.
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
  """Nine tenths of a split, in random order, and the other tenth."""
  # RandomState, not Generator: NumPy keeps its random streams fixed in all versions.
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
  """Mean and standard deviation of each channel in 0…1, rounded to four digits.

  For MNIST these are 0.1307 and 0.3081, as in the released code. A constant channel gets
  the deviation 1, so that images can be divided by it.

  Args:
    images: all images [M, H, W, C], uint8.

  Returns:
    C means and C standard deviations.
  """
  values = np.arange(256) / 255.0
  means, stds = [], []
  for channel in np.moveaxis(images, -1, 0):
    # In parts, because bincount converts each byte to eight bytes.
    parts = np.array_split(channel, -(-channel.size // 2**20))
    counts = sum(np.bincount(part.ravel(), minlength=256) for part in parts)
    frequency = counts / channel.size
    mean = frequency @ values
    means.append(round(float(mean), 4))
    stds.append(round(float(np.sqrt(frequency @ np.square(values - mean))), 4) or 1.0)
  return tuple(means), tuple(stds)


def fingerprint(*splits: Split | None) -> str:
  """SHA-256 of the shapes, dtypes and bytes of splits.

  Args:
    *splits: the splits; None is skipped.

  Returns:
    64 hexadecimal digits.
  """
  digest = hashlib.sha256()
  for array in (array for split in splits if split for array in split):
    digest.update(f"{array.shape} {array.dtype.str} ".encode())
    digest.update(np.ascontiguousarray(array).data)
  return digest.hexdigest()
