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
    sha256: `fingerprint` of all splits; None for datasets with published checksums.
    validation: the validation images; None if the source does not name any.
    class_names: names of the classes, K of them; empty if they have none.
    by_class: whether `divide` sets the same part of each class aside.
    background: the colour with which images were padded, see
      `ramjax.data.background.text_of`; None if none was.
    notes: what was done to the images when they were read, for the user.
  """

  source: str
  num_classes: int
  train: Split
  test: Split | None
  sha256: str | None = None
  validation: Split | None = None
  class_names: tuple[str, ...] = ()
  by_class: bool = False
  background: str | None = None
  notes: tuple[str, ...] = ()


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

  Without a test set, a random tenth of all images becomes the test split. Without
  validation images, a random tenth of the rest becomes the validation split. A tenth is
  rounded down, but is at least one image. If `stored.by_class`, it is a tenth of each
  class that has at least two images. The remaining images are in random order. The result
  is the same on every machine and in every run.

  Args:
    stored: images and classes.
    name: name of the dataset in messages.

  Returns:
    The three splits.

  Raises:
    DataError: if a split would have no image.
  """
  train, validation, test = stored.train, stored.validation, stored.test
  if test is None:
    train, test = _set_aside(train, seed=1, by_class=stored.by_class)
  if validation is None:
    train, validation = _set_aside(train, seed=0, by_class=stored.by_class)
  else:
    train = _take(train, _random_order(train, seed=0))
  parts = Divided(train, validation, test)
  for part, split in parts._asdict().items():
    if not len(split.labels):
      raise DataError(
        f"{name} has too few images: none is left for the {part} split; add images, at"
        " least three of each class"
      )
  return parts


def _random_order(split: Split, *, seed: int) -> np.ndarray:
  # RandomState, not Generator: NumPy keeps its random streams fixed in all versions.
  return np.random.RandomState(seed).permutation(len(split.labels))


def _take(split: Split, index: np.ndarray) -> Split:
  return Split(split.images[index], split.labels[index])


def _set_aside(split: Split, *, seed: int, by_class: bool) -> tuple[Split, Split]:
  """Nine tenths of a split, in random order, and the other tenth."""
  order = _random_order(split, seed=seed)
  labels = split.labels[order] if by_class else np.zeros_like(order)
  aside = np.zeros(len(order), bool)
  for label in np.unique(labels):
    places = np.flatnonzero(labels == label)
    if len(places) > 1:
      aside[places[-max(1, len(places) // 10) :]] = True
  return _take(split, order[~aside]), _take(split, order[aside])


def channel_statistics(
  images: np.ndarray, *, name: str = "the dataset"
) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Mean and standard deviation of each channel in 0…1, rounded to four digits.

  For MNIST these are 0.1307 and 0.3081, as in the released code.

  Args:
    images: all images [M, H, W, C], uint8.
    name: name of the dataset in messages.

  Returns:
    C means and C standard deviations.

  Raises:
    DataError: if a channel is constant, so that images cannot be divided by its deviation.
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
    stds.append(round(float(np.sqrt(frequency @ np.square(values - mean))), 4))
  constant = [channel for channel, std in enumerate(stds) if std == 0]
  pixel = images[0, 0, 0].tolist()
  if len(constant) == len(stds):
    raise DataError(
      f"the training images of {name} show nothing: every pixel is {pixel}"
    )
  if constant:
    raise DataError(
      f"channel {constant[0]} of the training images of {name} is"
      f" {pixel[constant[0]]} everywhere; leave it out:"
      f" images = numpy.delete(images, {constant}, axis=-1)"
    )
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
