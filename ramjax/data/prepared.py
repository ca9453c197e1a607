"""Image classification datasets prepared by TFDS; they need TensorFlow (an extra)."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import numpy as np

from ramjax import fields
from ramjax.config import ConfigError
from ramjax.data import downloads
from ramjax.data.idx import DataError
from ramjax.data.splits import Split, Stored, fingerprint

KNOWN = ("cifar10", "cifar100", "svhn_cropped")
"""Datasets with a name of their own; any other dataset of TFDS is `tfds:NAME`."""


def read_tfds(name: str, *, data_dir: str | None = None) -> Stored:
  """Images and classes of a TFDS dataset, which is prepared first if necessary.

  The splits `train` and, if there is one, `test` are read; other splits are ignored.

  Args:
    name: name in TFDS, such as `cifar10`, or `emnist/letters` with a configuration.
    data_dir: folder of datasets prepared by TFDS; None uses the default of TFDS,
      `$TFDS_DATA_DIR` or ~/tensorflow_datasets.

  Returns:
    Images and classes.

  Raises:
    ConfigError: if TFDS does not know the name, or the dataset does not consist of
      8-bit images of one size and their classes.
    DataError: if TensorFlow or TFDS is not installed, or TFDS cannot prepare the
      dataset.
  """
  if importlib.util.find_spec("tensorflow") is None:
    raise DataError(
      f"{name} needs TensorFlow, with which TFDS prepares it;"
      " pip install '.[tensorflow]' in a checkout of ramjax"
    )
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  downloads.check_tfds()
  import tensorflow as tf
  import tensorflow_datasets as tfds

  # TensorFlow would reserve all memory of the GPUs, which JAX needs.
  tf.config.set_visible_devices([], "GPU")
  try:
    with downloads.few_retries():
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
  except Exception as error:  # TFDS and TensorFlow raise many types of errors
    raise DataError(
      f"{name} cannot be prepared by TFDS ({fields.one_line(error)})"
    ) from error
  if not splits:
    raise ConfigError(f"dataset {name!r} of TFDS has no training split")
  _, label = builder.info.supervised_keys
  return Stored(
    source=f"TFDS, {builder.data_dir}",
    num_classes=builder.info.features[label].num_classes,
    train=splits[0],
    test=splits[1] if len(splits) > 1 else None,
    sha256=fingerprint(*splits),
    class_names=tuple(builder.info.features[label].names),
  )


def _check_features(builder: Any, name: str) -> None:
  """Checks that a dataset consists of 8-bit images of one size and their classes."""
  import tensorflow_datasets as tfds

  kinds = (tfds.features.Image, tfds.features.ClassLabel)
  features = [builder.info.features[key] for key in builder.info.supervised_keys or ()]
  if len(features) != 2 or not all(map(isinstance, features, kinds)):
    raise ConfigError(f"dataset {name!r} of TFDS does not have images and classes")
  if None in features[0].shape or features[0].np_dtype != np.uint8:
    raise ConfigError(
      f"dataset {name!r} of TFDS has images of several sizes or of more than 8 bits;"
      " convert them and use npz:FILE"
    )


def _read_split(builder: Any, split: str) -> Split:
  """A complete split, in the order of TFDS."""
  import tensorflow_datasets as tfds

  batches = builder.as_dataset(split=split, as_supervised=True).batch(1000)
  images, labels = zip(*tfds.as_numpy(batches), strict=True)
  return Split(np.concatenate(images), np.concatenate(labels).astype(np.int32))
