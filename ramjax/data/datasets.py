"""Datasets by name: found, divided, and with what is done to their images."""

from __future__ import annotations

import functools
import pathlib
from typing import NamedTuple

import jax
import numpy as np

from ramjax.config import Config, ConfigError
from ramjax.data import own, prepared, sources
from ramjax.data.idx import DataError
from ramjax.data.splits import (
  Split,
  Stored,
  channel_statistics,
  check_split,
  divide,
)
from ramjax.data.transforms import Transform, clutter, keep, normalize, translate


class Canvas(NamedTuple):
  """What images are put on.

  Attributes:
    size: side of the canvas in pixels; None leaves them as they are stored.
    num_clutter: number of crops of other images that are strewn on it.
  """

  size: int | None = None
  num_clutter: int = 0


_CANVASES = {
  "_translated_60": Canvas(60),
  "_cluttered_60": Canvas(60, 4),
  "_cluttered_100": Canvas(100, 8),
}
"""The tasks of Mnih et al. (2014), as endings of the name of a dataset."""

_CROP_SIZE = 8

_OWN = {"npz:": own.read_npz, "folder:": own.read_folder}

DATASETS = (
  *sources.SHA256,
  *(f"{name}{ending}" for name in sources.SHA256 for ending in _CANVASES),
  *prepared.KNOWN,
  "tfds:NAME",
  "npz:FILE",
  "folder:DIR",
)
"""Names of the known datasets; capitals stand for what the user names."""


class Dataset(NamedTuple):
  """A dataset in memory.

  Its splits hold images as they are stored; what a model sees of them is what
  `preprocess` makes of each.

  Attributes:
    name: its name; of one's own data with the whole path.
    source: where it was found, in words.
    num_classes: number of classes K.
    train: images to train on, in a fixed random order.
    validation: images set aside from the training set, to choose by.
    test: the test set.
    mean: mean of each channel of the stored training set, in 0…1, to four digits.
    std: standard deviation of each channel of the stored training set, likewise.
    transform: what is done to a stored image before it is normalised: in training
      anew at each step, in evaluation always the same (see
      `ramjax.prediction.evaluation_images`).
    sha256: sum of the stored arrays, see `ramjax.data.splits.fingerprint`; None if they
      were checked against sums that are known.
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
  sha256: str | None = None

  @property
  def image_shape(self) -> tuple[int, int, int]:
    """Height, width and channels of the images that a model sees."""
    images = self.test.images
    pool = jax.ShapeDtypeStruct(images.shape, images.dtype)
    stored = jax.ShapeDtypeStruct(images.shape[1:], images.dtype)
    key = jax.eval_shape(jax.random.key, 0)
    height, width, channels = jax.eval_shape(self.transform, key, stored, pool).shape
    return height, width, channels

  @property
  def class_frequencies(self) -> tuple[float, ...]:
    """Share of each class in the training split, K of them."""
    counts = np.bincount(self.train.labels, minlength=self.num_classes)
    return tuple((counts / counts.sum()).tolist())

  def preprocess(
    self, key: jax.Array, image: jax.Array, pool: jax.Array | None = None
  ) -> jax.Array:
    """A stored image [H, W, C], transformed, from uint8 to normalised float32.

    Clutter is cut out of `pool` [M, H, W, C]; by itself an image is its own.
    """
    pool = image[None] if pool is None else pool
    return normalize(self.transform(key, image, pool), mean=self.mean, std=self.std)


def load_dataset(
  name: str,
  *,
  data_dir: str | None = None,
  num_train_examples: int | None = None,
  canvas_size: int | None = None,
  num_clutter: int | None = None,
) -> Dataset:
  """Loads a dataset, from wherever it can be had.

  The training set is shuffled once, in the same way on every machine and for every
  run, and its last tenth is set aside for validation; where there is no test set, a
  tenth of all is one (see `ramjax.data.splits.divide`).

  Args:
    name: one of `DATASETS`: `mnist`, `fashion_mnist` or `kmnist`; one of these with
      `_translated_60`, each digit somewhere on a canvas of 60x60 pixels, or
      `_cluttered_60` or `_cluttered_100`, with pieces of others, too; `cifar10`,
      `cifar100`, `svhn_cropped` or `tfds:NAME`, which TFDS prepares with TensorFlow;
      `npz:FILE` or `folder:DIR`, one's own images (see `ramjax.data.own`).
    data_dir: folder with the four IDX files, see `ramjax.data.sources.find_files`; with
      what TFDS has prepared; or with one's own FILE or DIR, whatever folder its name
      says.
    num_train_examples: how many of the training images to keep; None is all.
    canvas_size: side of a canvas on which each image is put somewhere; None is that
      of the name, or none.
    num_clutter: number of crops of 8x8 pixels of other images on that canvas; None is
      that of the name, or 0.

  Returns:
    The dataset.

  Raises:
    ConfigError: if the name is unknown, there are fewer training images, or the
      canvas cannot be had.
    DataError: if it cannot be found or is damaged.
  """
  base, canvas = _parse(name, canvas_size, num_clutter)
  name, stored = _read(name, base, data_dir)
  _check_canvas(canvas, stored.train.images.shape[1:3])
  parts = divide(stored, name=name)
  num_train = len(parts.train.labels)
  if num_train_examples is not None and num_train_examples > num_train:
    raise ConfigError(
      f"num_train_examples must be at most {num_train}, the size of the training split"
      f" of {name}, not {num_train_examples}"
    )
  for part, split in parts._asdict().items():
    check_split(split, name=f"{name} {part}", num_classes=stored.num_classes)
  mean, std = channel_statistics(stored.train.images)
  return Dataset(
    name=name,
    source=stored.source,
    num_classes=stored.num_classes,
    train=Split(*(array[:num_train_examples] for array in parts.train)),
    validation=parts.validation,
    test=parts.test,
    mean=mean,
    std=std,
    transform=_transform(canvas),
    sha256=stored.sha256,
  )


def dataset_of(config: Config, *, data_dir: str | None = None) -> Dataset:
  """The dataset of a run, with all of its training images.

  Args:
    config: the run.
    data_dir: see `load_dataset`.

  Returns:
    The dataset.

  Raises:
    ConfigError: if the name is unknown.
    DataError: if it cannot be found, is damaged, or is not what the run has seen.
  """
  dataset = load_dataset(
    config.train.dataset,
    data_dir=data_dir,
    canvas_size=config.train.canvas_size,
    num_clutter=config.train.num_clutter,
  )
  if dataset.sha256 != config.train.data_sha256:
    raise DataError(
      f"{dataset.name} is not the dataset that the run was trained on: the SHA-256 of"
      f" its images and classes is {dataset.sha256}, not {config.train.data_sha256}"
    )
  return dataset


def _parse(
  name: str, canvas_size: int | None, num_clutter: int | None
) -> tuple[str, Canvas]:
  """The stored dataset that a name is about, and the canvas."""
  asked = Canvas(canvas_size, num_clutter or 0)
  named = next((ending for ending in _CANVASES if name.endswith(ending)), None)
  if name in DATASETS and named:
    if (canvas_size, num_clutter) != (None, None):
      raise ConfigError(
        f"canvas_size and num_clutter must not be given with {name}, which has its own;"
        f" give them with {name.removesuffix(named)}"
      )
    return name.removesuffix(named), _CANVASES[named]
  kind, _, rest = name.partition(":")
  if name in DATASETS if not rest else f"{kind}:" in (*_OWN, "tfds:"):
    if asked.num_clutter and asked.size is None:
      raise ConfigError(
        f"num_clutter must be 0 without a canvas_size, not {asked.num_clutter}"
      )
    return name, asked
  raise ConfigError(f"dataset must be one of {', '.join(DATASETS)}, not {name!r}")


def _read(name: str, base: str, data_dir: str | None) -> tuple[str, Stored]:
  """The whole name of a dataset, and what its source has."""
  kind, _, rest = base.partition(":")
  if base in sources.SHA256:
    return name, sources.read_idx_files(base, data_dir=data_dir)
  if reader := _OWN.get(f"{kind}:"):
    path = pathlib.Path(rest).expanduser()
    path = pathlib.Path(data_dir, path.name) if data_dir else path
    path = path.absolute()
    return f"{kind}:{path}", reader(path)
  return name, prepared.read_tfds(rest or base, data_dir=data_dir)


def _check_canvas(canvas: Canvas, size: tuple[int, ...]) -> None:
  """Refuses what does not go on a canvas: here, and not while a program is traced."""
  if canvas.size is not None and canvas.size < max(size):
    raise ConfigError(
      f"canvas_size must be at least {max(size)}, the larger side of the images, not"
      f" {canvas.size}"
    )
  if canvas.num_clutter and min(size) < _CROP_SIZE:
    raise ConfigError(
      f"num_clutter must be 0 for images of {size[0]} x {size[1]} pixels, which are"
      f" smaller than a crop of {_CROP_SIZE} x {_CROP_SIZE}"
    )


def _transform(canvas: Canvas) -> Transform:
  """What puts images on a canvas."""
  if canvas.size is None:
    return keep
  canvas_size = canvas.size, canvas.size
  if canvas.num_clutter:
    return functools.partial(
      clutter,
      canvas_size=canvas_size,
      num_crops=canvas.num_clutter,
      crop_size=_CROP_SIZE,
    )
  return lambda key, image, pool: translate(key, image, canvas_size=canvas_size)
