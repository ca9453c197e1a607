"""Data sets as arrays: whole splits of bytes, ready to be put on a device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

from ramjax.config import ConfigError
from ramjax.data import sources
from ramjax.data.idx import DataError
from ramjax.data.transforms import Transform, keep, normalize, shift, translate

_TRANSFORMED: Mapping[str, tuple[str, Transform]] = {
  "translated_mnist": ("mnist", translate),
}
"""Data sets that are made of another one, on the device, picture by picture."""

DATASETS = (*sources.SHA256, *_TRANSFORMED)
"""Names of the known data sets."""

NUM_VALIDATION = 6_000
"""Number of training pictures that are set aside for validation."""


class Split(NamedTuple):
  """Pictures as they are stored, and their classes.

  Attributes:
    images: pictures [M, H, W, C], uint8.
    labels: classes [M], int32.
  """

  images: np.ndarray
  labels: np.ndarray


class Dataset(NamedTuple):
  """A data set in memory.

  Its splits hold pictures as they are stored; what a model sees of them is what
  `preprocess` makes of each.

  Attributes:
    name: its name.
    source: where it was found, in words.
    num_classes: number of classes K.
    train: pictures to train on, in a fixed random order.
    validation: pictures set aside from the training set, to choose by.
    test: the test set.
    mean: mean of each channel of the stored training set, in 0…1, to four digits.
    std: standard deviation of each channel of the stored training set, likewise.
    transform: what is done to a stored picture before it is normalised: in training
      anew at each step, in evaluation always the same (see
      `ramjax.evaluation.evaluation_pictures`).
  """

  name: str
  source: str
  num_classes: int
  train: Split
  validation: Split
  test: Split
  mean: tuple[float, ...]
  std: tuple[float, ...]
  transform: Transform = keep

  @property
  def image_shape(self) -> tuple[int, int, int]:
    """Height, width and channels of the pictures that a model sees."""
    images = self.test.images
    stored = jax.ShapeDtypeStruct(images.shape[1:], images.dtype)
    key = jax.eval_shape(jax.random.key, 0)
    height, width, channels = jax.eval_shape(self.transform, key, stored).shape
    return height, width, channels

  def preprocess(self, key: jax.Array, image: jax.Array) -> jax.Array:
    """A stored picture [H, W, C], transformed, from uint8 to normalised float32."""
    return normalize(self.transform(key, image), mean=self.mean, std=self.std)

  def train_preprocess(self, max_shift: int) -> Transform:
    """What stands in the place of `preprocess` in training, and there alone.

    Args:
      max_shift: by how many pixels the transformed picture is moved at most, see
        `ramjax.data.shift`; with 0 this is `preprocess` itself.

    Returns:
      From a key [] and a stored picture [H, W, C] to a normalised float32 picture.
    """
    if max_shift == 0:
      return self.preprocess

    def preprocess(key: jax.Array, image: jax.Array) -> jax.Array:
      transform_key, shift_key = jax.random.split(key)
      picture = self.transform(transform_key, image)
      moved = shift(shift_key, picture, max_shift=max_shift)
      return normalize(moved, mean=self.mean, std=self.std)

    return preprocess


def check_split(split: Split, *, name: str, num_classes: int) -> Split:
  """Looks for what a device would not complain about: it clamps, wraps, or gives NaN.

  Cheap, and to be done before anything is compiled.

  Args:
    split: pictures [M, H, W, C], uint8 or finite float32, and classes [M], integer.
    name: what the split is called in messages, such as `mnist train`.
    num_classes: number of classes K.

  Returns:
    The split.

  Raises:
    DataError: if rank, shape, type or number of an array is another, if a label is not
      in [0, K), or if a picture is not finite. The message names the array.
  """
  images, labels = np.asarray(split.images), np.asarray(split.labels)
  if images.dtype not in (np.uint8, np.float32):
    raise DataError(
      f"{name} images must be uint8 or float32, not {images.dtype}; convert them"
    )
  if images.ndim != 4 or 0 in images.shape:
    raise DataError(
      f"{name} images must be [M, H, W, C], none of them 0, not {list(images.shape)};"
      " pictures of one channel are images[..., None]"
    )
  if not np.issubdtype(labels.dtype, np.integer):
    raise DataError(f"{name} labels must be integers, not {labels.dtype}; convert them")
  if labels.shape != images.shape[:1]:
    raise DataError(
      f"{name} labels must be [{len(images)}], one for each picture, not"
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
      f"{name} images must be finite, but picture {int(np.argmin(sound))} is not"
    )
  return split


def load_dataset(
  name: str, *, data_dir: str | None = None, num_train_examples: int | None = None
) -> Dataset:
  """Loads a data set, from wherever it can be had.

  The training set is shuffled once, in the same way on every machine and for every
  run, and its last 6,000 pictures are set aside for validation.

  Args:
    name: `mnist`, `fashion_mnist`, `kmnist`, or `translated_mnist`, which is MNIST with
      each digit somewhere on a canvas of 60x60 pixels.
    data_dir: folder with the four IDX files, see `ramjax.data.sources.find_files`.
    num_train_examples: how many of the training pictures to keep; None is all.

  Returns:
    The data set.

  Raises:
    ConfigError: if the name is unknown or there are fewer training pictures.
    DataError: if it cannot be found or is damaged.
  """
  if name not in DATASETS:
    raise ConfigError(f"dataset must be one of {', '.join(DATASETS)}, not {name!r}")
  stored, transform = _TRANSFORMED.get(name, (name, keep))
  arrays, source = sources.find_files(stored, data_dir=data_dir)
  images = arrays["train-images-idx3-ubyte"][..., None]
  labels = arrays["train-labels-idx1-ubyte"].astype(np.int32)

  # RandomState and not Generator: NumPy keeps its streams the same in every version.
  order = np.random.RandomState(0).permutation(len(images))
  train, validation = order[:-NUM_VALIDATION], order[-NUM_VALIDATION:]
  if num_train_examples is not None and num_train_examples > len(train):
    raise ConfigError(
      f"num_train_examples must be at most {len(train)}, the size of the training split"
      f" of {name}, not {num_train_examples}"
    )
  train = train[:num_train_examples]
  splits = {
    "train": Split(images[train], labels[train]),
    "validation": Split(images[validation], labels[validation]),
    "test": Split(
      arrays["t10k-images-idx3-ubyte"][..., None],
      arrays["t10k-labels-idx1-ubyte"].astype(np.int32),
    ),
  }
  mean, std = _channel_statistics(images)
  return Dataset(
    name=name,
    source=source,
    num_classes=sources.NUM_CLASSES,
    **{
      part: check_split(split, name=f"{name} {part}", num_classes=sources.NUM_CLASSES)
      for part, split in splits.items()
    },
    mean=mean,
    std=std,
    transform=transform,
  )


def _channel_statistics(
  images: np.ndarray,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Mean and standard deviation of each channel in 0…1, to the four digits in use.

  For MNIST they are the 0.1307 and 0.3081 of the released code.
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
    stds.append(round(float(np.sqrt(share @ np.square(values - mean))), 4))
  return tuple(means), tuple(stds)
