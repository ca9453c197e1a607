"""Datasets by name: images in three splits, and the transform that the model needs."""

import functools
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging

from ramjax.checks import as_count
from ramjax.config import Config, ConfigError, TrainConfig
from ramjax.data import background as colours
from ramjax.data import folders, own, prepared, sources, summary
from ramjax.data.batches import Preprocess
from ramjax.data.idx import DataError
from ramjax.data.info import DatasetInfo, describe_changes
from ramjax.data.splits import (
  Split,
  Stored,
  channel_statistics,
  check_split,
  divide,
)
from ramjax.data.transforms import (
  Transform,
  clutter,
  keep,
  mirror_half,
  normalize,
  shift,
  translate,
)


class Canvas(NamedTuple):
  """A square canvas for images.

  Attributes:
    size: side of the canvas in pixels; None is no canvas.
    num_clutter: number of crops of other images on the canvas.
  """

  size: int | None = None
  num_clutter: int = 0


_CANVASES = {
  "_translated_60": Canvas(60),
  "_cluttered_60": Canvas(60, 4),
  "_cluttered_100": Canvas(100, 8),
}
"""The tasks of Mnih et al. (2014), section 4.1, as endings of dataset names."""

_CROP_SIZE = 8

_OWN = {
  "npz:": own.read_npz,
  "csv:": own.read_csv,
  "mat:": own.read_mat,
  "folder:": folders.read_folder,
}

DATASETS = (
  *sources.SHA256,
  *(f"{name}{ending}" for name in sources.SHA256 for ending in _CANVASES),
  *prepared.KNOWN,
  "tfds:NAME",
  "npz:FILE",
  "csv:FILE",
  "mat:FILE",
  "folder:DIR",
)
"""The names that `load_dataset` accepts; words in capitals are placeholders."""


class Dataset(NamedTuple):
  """A dataset in memory.

  The splits hold images as they are stored, uint8. `preprocess` converts a stored image
  to the input of a model.

  Attributes:
    name: name of the dataset; for user data, with the absolute path.
    source: description of the source, for messages.
    num_classes: number of classes K.
    train: training images, in a fixed random order.
    validation: images set aside from the training set for model selection.
    test: the test set.
    mean: mean of each channel of the stored training set, in 0…1, to four digits.
    std: standard deviation of each channel of the stored training set, to four digits.
    transform: applied to a stored image before normalisation. Training draws a new
      transform at each step; evaluation always draws the same one for an image.
    sha256: digest of the stored arrays, see `ramjax.data.splits.fingerprint`; None for
      datasets with published checksums.
    class_names: names of the classes, K of them.
    division: how images were set aside, `at random` or `by class`.
    background: the colour around images, as `load_dataset` takes it; None if nothing was
      filled, or each image's darkest value is taken.
    notes: what was done to the images when they were read, for the user.
    info: what a run on the dataset records; None for a dataset that `load_dataset` has
      not made.
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
  class_names: tuple[str, ...] = ()
  division: str = "at random"
  background: str | None = None
  notes: tuple[str, ...] = ()
  info: DatasetInfo | None = None

  @property
  def all(self) -> Split:
    """The images of all splits: for a model that was trained on other data."""
    parts = zip(self.train, self.validation, self.test, strict=True)
    return Split(*map(np.concatenate, parts))

  @property
  def image_shape(self) -> tuple[int, int, int]:
    """Height, width and channels of the input of a model."""
    images = self.test.images
    pool = jax.ShapeDtypeStruct(images.shape, images.dtype)
    stored = jax.ShapeDtypeStruct(images.shape[1:], images.dtype)
    key = jax.eval_shape(jax.random.key, 0)
    height, width, channels = jax.eval_shape(self.transform, key, stored, pool).shape
    return height, width, channels

  @property
  def class_frequencies(self) -> tuple[float, ...]:
    """Fraction of each class in the training split, K numbers."""
    counts = np.bincount(self.train.labels, minlength=self.num_classes)
    return tuple((counts / counts.sum()).tolist())

  @property
  def class_counts(self) -> np.ndarray:
    """Numbers of images [3, K] of each class in the three splits."""
    splits = (self.train, self.validation, self.test)
    counts = [np.bincount(each.labels, minlength=self.num_classes) for each in splits]
    return np.stack(counts)

  @property
  def labels(self) -> tuple[str, ...]:
    """The names of the classes, or their numbers if they have no names."""
    return self.class_names or tuple(map(str, range(self.num_classes)))

  def describe(self) -> str:
    """What was loaded, in one line: source, sizes, classes, images of each class."""
    height, width, channels = self.test.images.shape[1:]
    where = "" if self.source in self.name else f" from {self.source}"
    sizes = self.class_counts.sum(1).tolist()
    parts = [
      f"{self.name}{where}: {sum(sizes)} images"
      f" ({' + '.join(map(str, sizes))} for {', '.join(summary.SPLITS)}) of {height} x"
      f" {width} pixels and {channels} channel{'s' * (channels > 1)}",
      summary.class_table(self.class_counts, self.labels),
      *self.notes,
    ]
    if self.transform is not keep:
      size = " x ".join(map(str, self.image_shape[:2]))
      filled = f"colour {self.background}" if self.background else "darkest value"
      parts.append(f"on a canvas of {size} pixels of the {filled}")
    return "; ".join(parts)

  def warnings(self) -> list[str]:
    """What is unusual about classes and channels, each in one line with a remedy."""
    found = summary.class_warnings(self.class_counts, self.labels)
    channels = self.test.images.shape[-1]
    if channels > 4:
      found.append(
        f"the images have {channels} channels; if they are [M, C, H, W], convert them:"
        " images = images.transpose(0, 2, 3, 1)"
      )
    return found

  def preprocess(
    self, key: jax.Array, image: jax.Array, pool: jax.Array | None = None
  ) -> jax.Array:
    """A stored image, transformed and normalised.

    Args:
      key: typed PRNG key [] of the transform.
      image: stored image [H, W, C], uint8.
      pool: images [M, H, W, C] from which clutter is cut, uint8; None cuts it from
        `image` itself.

    Returns:
      The input of a model [H', W', C], float32.
    """
    pool = image[None] if pool is None else pool
    return normalize(self.transform(key, image, pool), mean=self.mean, std=self.std)

  def train_preprocess(self, *, max_shift: int = 0, mirror: bool = False) -> Preprocess:
    """What stands in the place of `preprocess` in training, and there alone.

    Args:
      max_shift: by how many pixels the transformed image is moved at most, see
        `ramjax.data.shift`.
      mirror: whether half of the transformed images are mirrored, left and right. With
        neither of the two this is `preprocess` itself.

    Returns:
      From a key [], a stored image [H, W, C] and the images of its split to the input of
      a model [H', W', C], float32.

    Raises:
      ConfigError: if nothing of an image could be left.
    """
    if not (max_shift or mirror):
      return self.preprocess
    if max_shift >= (side := min(self.image_shape[:2])):
      raise ConfigError(
        f"max_shift must be less than {side}, the shorter side of the images, not"
        f" {max_shift}"
      )

    def preprocess(key: jax.Array, image: jax.Array, pool: jax.Array) -> jax.Array:
      transform_key, shift_key, mirror_key = jax.random.split(key, 3)
      shown = self.preprocess(transform_key, image, pool)
      if max_shift:
        shown = shift(shift_key, shown, max_shift=max_shift)
      return mirror_half(mirror_key, shown) if mirror else shown

    return preprocess


def load_dataset(
  name: str,
  *,
  data_dir: str | None = None,
  num_train_examples: int | None = None,
  canvas_size: int | None = None,
  num_clutter: int | None = None,
  resize: str | None = None,
  transparent_as: str = "white",
  background: str | None = "border",
) -> Dataset:
  """A dataset by name, loaded from the first source that has it.

  The training set is shuffled in the same order on every machine and in every run. One
  tenth of it becomes the validation split, unless the source has one. Without a test set
  in the source, one tenth of all images becomes the test split (see
  `ramjax.data.splits.divide`). `Dataset.warnings` are logged.

  Args:
    name: one of `DATASETS`.
      `mnist`, `fashion_mnist` and `kmnist` are downloaded if necessary.
      The ending `_translated_60` puts each image at a random place on a canvas of 60x60
      pixels; `_cluttered_60` and `_cluttered_100` add crops of other images.
      `cifar10`, `cifar100`, `svhn_cropped` and `tfds:NAME` need TensorFlow.
      `npz:FILE`, `csv:FILE`, `mat:FILE` and `folder:DIR` are your own images (see
      `ramjax.data.own` and `ramjax.data.folders`).
    data_dir: folder with the four IDX files (see `ramjax.data.sources.find_files`), with
      datasets prepared by TFDS, or with FILE or DIR, replacing the folder in `name`.
    num_train_examples: number of training images to keep; None keeps all.
    canvas_size: side in pixels of a canvas on which each image gets a random place;
      None uses the canvas of `name`, if it has one.
    num_clutter: number of crops of other images, 8x8 pixels each, on the canvas; None
      uses the number of `name`, or 0.
    resize: size such as `48x64` (height and width) to which the images of `folder:DIR`
      are resized; they keep their aspect, and the rest is filled with the background.
    transparent_as: what is seen through transparent pixels of `folder:DIR`, `white` or
      `black`.
    background: the colour around an image, on a canvas or after `resize`. It is one number
      from 0 to 255 as text, or one for each channel with commas. `border` is the commonest
      colour on the borders of the training images; for `mnist`, `fashion_mnist` and
      `kmnist` it is as None. None is the darkest value of each image.

  Returns:
    The dataset.

  Raises:
    ConfigError: if the name is unknown, `num_train_examples` exceeds the training
      split, the canvas does not fit, or a setting has no use with this dataset.
    DataError: if no source has the dataset, or it is damaged.

  >>> mnist = load_dataset("mnist_translated_60", num_train_examples=100)
  >>> mnist.train.images.shape, mnist.image_shape  # as stored, as a model sees them
  ((100, 28, 28, 1), (60, 60, 1))
  >>> [name for name in DATASETS if name.startswith("mnist")]  # doctest: +ELLIPSIS
  ['mnist', 'mnist_translated_60', ...]
  """
  base, canvas = _parse(name, canvas_size, num_clutter)
  if resize is not None and not base.startswith("folder:"):
    raise ConfigError(
      f"resize must not be given with {name}, but with folder:DIR alone"
    )
  as_image = {
    "resize": resize,
    "transparent_as": transparent_as,
    "background": background,
  }
  name, stored = _read(name, base, data_dir, as_image)
  _check_canvas(canvas, stored.train.images.shape[1:3])
  parts = divide(stored, name=name)
  num_train = len(parts.train.labels)
  if num_train_examples is not None:
    num_train_examples = as_count("num_train_examples", num_train_examples)
    if num_train_examples > num_train:
      raise ConfigError(
        f"num_train_examples must be at most {num_train}, the size of the training split"
        f" of {name}, not {num_train_examples}"
      )
  for part, split in parts._asdict().items():
    check_split(split, name=f"{name} {part}", num_classes=stored.num_classes)
  try:
    mean, std = channel_statistics(stored.train.images, name=name)
  except DataError as error:
    raise DataError("; ".join([str(error), *stored.notes])) from error
  filled = _filling(canvas, background, stored, base)
  counts = {
    f"{part}_counts": np.bincount(split.labels, minlength=stored.num_classes).tolist()
    for part, split in parts._asdict().items()
  }
  dataset = Dataset(
    name=name,
    source=stored.source,
    num_classes=stored.num_classes,
    train=Split(*(array[:num_train_examples] for array in parts.train)),
    validation=parts.validation,
    test=parts.test,
    mean=mean,
    std=std,
    transform=_transform(canvas, filled, stored.train.images.shape[-1]),
    sha256=stored.sha256,
    class_names=stored.class_names,
    division="by class" if stored.by_class else "at random",
    background=filled,
    notes=stored.notes,
    info=DatasetInfo(
      image_shape=stored.train.images.shape[1:],
      canvas_size=canvas.size,
      num_clutter=canvas.num_clutter,
      mean=mean,
      std=std,
      class_names=stored.class_names,
      **counts,
    ),
  )
  for warning in dataset.warnings():
    logging.warning("%s: %s", name, warning)
  return dataset


def reading(train: TrainConfig) -> dict[str, Any]:
  """The settings of a run that say how images are shown, as `load_dataset` takes them.

  >>> reading(TrainConfig(canvas_size=60))["canvas_size"]
  60
  """
  return {
    "canvas_size": train.canvas_size,
    "num_clutter": train.num_clutter,
    "resize": train.resize,
    "transparent_as": train.transparent_as,
    "background": train.background,
  }


def dataset_of(
  config: Config, *, data_dir: str | None = None, info: DatasetInfo | None = None
) -> Dataset:
  """The dataset of a run, with the complete training split.

  Args:
    config: the run.
    data_dir: see `load_dataset`.
    info: what the run recorded of it, with which an error says what has changed.

  Returns:
    The dataset.

  Raises:
    ConfigError: if the name is unknown.
    DataError: if no source has the dataset, it is damaged, or it differs from the data
      of the run.

  >>> dataset = dataset_of(Config())
  >>> dataset.name, dataset.validation.labels.shape
  ('mnist', (6000,))
  """
  train = config.train
  dataset = load_dataset(train.dataset, data_dir=data_dir, **reading(train))
  check_dataset(dataset, config, info=info)
  return dataset


def is_dataset_of(dataset: Dataset, config: Config) -> bool:
  """Whether a run was trained on a dataset, wherever that lies."""
  train = config.train
  if dataset.division != train.division:
    return False
  if dataset.sha256 is None:
    return train.data_sha256 is None and dataset.name == train.dataset
  return dataset.sha256 == train.data_sha256


def check_dataset(
  dataset: Dataset, config: Config, *, info: DatasetInfo | None = None
) -> None:
  """Checks that a run was trained on a dataset, see `is_dataset_of`.

  Args:
    dataset: the dataset.
    config: the run.
    info: what the run recorded of its data; None if it recorded nothing.

  Raises:
    DataError: if it was not. The message says how the dataset differs.
  """
  if is_dataset_of(dataset, config):
    return
  if dataset.division != config.train.division:
    raise DataError(
      f"{dataset.name} is now divided {dataset.division}, and was {config.train.division}"
      " when the run was trained by an earlier version of ramjax, which also read image"
      " files and ordered classes differently; train it again, or evaluate it with that"
      " version"
    )
  if info and dataset.info:
    changes = describe_changes(info, dataset.info)
  else:
    sums = dataset.sha256, config.train.data_sha256
    changes = "images and classes whose SHA-256 is {}, not {}".format(*sums)
  raise DataError(
    f"{dataset.name} is not the dataset that the run was trained on: it has {changes}"
  )


def _parse(
  name: str, canvas_size: int | None, num_clutter: int | None
) -> tuple[str, Canvas]:
  """The name of the stored dataset, without the ending for a canvas, and the canvas."""
  canvas = Canvas(canvas_size, num_clutter or 0)
  ending = next((ending for ending in _CANVASES if name.endswith(ending)), None)
  if name in DATASETS and ending:
    if (canvas_size, num_clutter) != (None, None):
      raise ConfigError(
        f"canvas_size and num_clutter must not be given with {name}, which has its own;"
        f" give them with {name.removesuffix(ending)}"
      )
    return name.removesuffix(ending), _CANVASES[ending]
  kind, _, rest = name.partition(":")
  if name in DATASETS if not rest else f"{kind}:" in (*_OWN, "tfds:"):
    if canvas.num_clutter and canvas.size is None:
      raise ConfigError(
        f"num_clutter must be 0 without a canvas_size, not {canvas.num_clutter}"
      )
    return name, canvas
  raise ConfigError(f"dataset must be one of {', '.join(DATASETS)}, not {name!r}")


def _read(
  name: str, base: str, data_dir: str | None, as_image: dict[str, Any]
) -> tuple[str, Stored]:
  """The name of a dataset, with an absolute path for user data, and its content.

  `as_image` has the arguments of `read_folder`.
  """
  kind, _, rest = base.partition(":")
  if base in sources.SHA256:
    return name, sources.read_idx_files(base, data_dir=data_dir)
  if reader := _OWN.get(f"{kind}:"):
    path = pathlib.Path(rest).expanduser()
    path = pathlib.Path(data_dir, path.name) if data_dir else path
    path = path.absolute()
    stored = reader(path, **as_image) if kind == "folder" else reader(path)
    return f"{kind}:{path}", stored
  return name, prepared.read_tfds(rest or base, data_dir=data_dir)


def _check_canvas(canvas: Canvas, size: tuple[int, ...]) -> None:
  """Checks that images fit on the canvas, early: not while a program is traced."""
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


def _filling(
  canvas: Canvas, background: str | None, stored: Stored, base: str
) -> str | None:
  """The colour around images; None if there is nothing around them, or their minimum."""
  if canvas.size is None or stored.background is not None:
    return stored.background
  if background != "border":
    return background
  if base in sources.SHA256:  # black on all borders, and runs of earlier releases go on
    return None
  return colours.text_of(colours.border_colour([stored.train.images]))


def _transform(canvas: Canvas, background: str | None, channels: int) -> Transform:
  """The transform that puts images on a canvas."""
  if canvas.size is None:
    return keep
  options: dict[str, Any] = {"canvas_size": (canvas.size, canvas.size)}
  if background is not None:
    options["background"] = colours.colour_of(background, channels=channels)
  if canvas.num_clutter:
    return functools.partial(
      clutter, num_crops=canvas.num_clutter, crop_size=_CROP_SIZE, **options
    )
  return lambda key, image, pool: translate(key, image, **options)
