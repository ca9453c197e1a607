"""Image classification sets that TFDS prepares, which needs TensorFlow (an extra)."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import numpy as np

from ramjax.config import ConfigError
from ramjax.data import downloads
from ramjax.data.idx import DataError
from ramjax.data.splits import Split, Stored, fingerprint

KNOWN = ("cifar10", "cifar100", "svhn_cropped")
"""Those that are offered by name; any other one is `tfds:NAME`."""


def read_tfds(name: str, *, data_dir: str | None = None) -> Stored:
  """Images and classes of a set that TFDS has prepared, or prepares now.

  The test set is its split `test`, if it has one; other splits than `train` and `test`
  are not looked at.

  Args:
    name: its name in TFDS, `cifar10`, with a configuration `emnist/letters`.
    data_dir: folder with the sets that TFDS has prepared; None is TFDS's own,
      `$TFDS_DATA_DIR` or ~/tensorflow_datasets.

  Returns:
    The images.

  Raises:
    ConfigError: if TFDS has no set of that name, or it is none of images of one size
      and of their classes.
    DataError: if TensorFlow is not installed, or the set cannot be had.
  """
  if importlib.util.find_spec("tensorflow") is None:
    raise DataError(
      f"{name} is prepared and read by TFDS, which needs TensorFlow for it;"
      " pip install 'ramjax[tensorflow]', or pip install tensorflow"
    )
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  import tensorflow as tf
  import tensorflow_datasets as tfds

  # Accelerators are JAX's: TensorFlow would take all of their memory.
  tf.config.set_visible_devices([], "GPU")
  try:
    with downloads.impatient():
      builder = tfds.builder(name, data_dir=data_dir)
      _check_features(builder, name)
      if not builder.data_path.exists():
        for url in builder.url_infos or ():
          downloads.check_reachable(url)
        builder.download_and_prepare()
      splits = [
        _read_split(builder, split)
        for split in ("train", "test")
        if split in builder.info.splits
      ]
  except (ConfigError, DataError):
    raise
  except tfds.core.registered.DatasetNotFoundError as error:
    raise ConfigError(f"dataset {name!r} is not known to TFDS") from error
  except Exception as error:  # TFDS and TensorFlow have a hundred of them
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    raise DataError(f"{name} cannot be had from TFDS ({reason})") from error
  if not splits:
    raise ConfigError(f"dataset {name!r} of TFDS has no split to train on")
  _, label = builder.info.supervised_keys
  return Stored(
    source=f"TFDS, {builder.data_dir}",
    num_classes=builder.info.features[label].num_classes,
    train=splits[0],
    test=splits[1] if len(splits) > 1 else None,
    sha256=fingerprint(*splits),
  )


def _check_features(builder: Any, name: str) -> None:
  """Refuses what is no set of images of one size, of bytes, and of their classes."""
  import tensorflow_datasets as tfds

  kinds = (tfds.features.Image, tfds.features.ClassLabel)
  features = [builder.info.features[key] for key in builder.info.supervised_keys or ()]
  if len(features) != 2 or not all(map(isinstance, features, kinds)):
    raise ConfigError(f"dataset {name!r} of TFDS is none of images and their classes")
  if None in features[0].shape or features[0].np_dtype != np.uint8:
    raise ConfigError(
      f"dataset {name!r} of TFDS has images of several sizes, or of more than 8 bits;"
      " convert them, and give them by npz:FILE"
    )


def _read_split(builder: Any, split: str) -> Split:
  """A whole split, in the order in which TFDS keeps it."""
  import tensorflow_datasets as tfds

  batches = builder.as_dataset(split=split, as_supervised=True).batch(1000)
  images, labels = zip(*tfds.as_numpy(batches), strict=True)
  return Split(np.concatenate(images), np.concatenate(labels).astype(np.int32))
