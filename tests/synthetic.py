"""A dataset that needs no file and no network, and that a small model learns in seconds."""

import numpy as np

from ramjax import data
from ramjax.data.splits import channel_statistics


def make(
  num_train=160, num_validation=160, num_test=160, *, size=28, channels=1, seed=0
):
  """Ten classes, each a pattern of blocks of 4×4 pixels, with noise and brightness.

  Every glimpse of 8×8 pixels shows some blocks, so that a few of them tell the class.
  """
  rng = np.random.RandomState(seed)
  blocks = rng.randint(0, 2, (10, -(-size // 4), -(-size // 4), channels))
  patterns = blocks.repeat(4, axis=1).repeat(4, axis=2)[:, :size, :size]

  def split(number):
    labels = rng.randint(0, 10, number).astype(np.int32)
    brightness = rng.randint(150, 226, (number, 1, 1, 1))
    noise = rng.randint(0, 30, (number, size, size, channels))
    images = (patterns[labels] * brightness + noise).astype(np.uint8)
    return data.Split(images, labels)

  train, validation, test = map(split, (num_train, num_validation, num_test))
  mean, std = channel_statistics(train.images)
  return data.Dataset(
    name="synthetic",
    source="tests/synthetic.py",
    num_classes=10,
    train=train,
    validation=validation,
    test=test,
    mean=mean,
    std=std,
  )


def write_npz(path, dataset):
  """Writes a dataset as `--dataset=npz:FILE` reads it; validation is set aside anew."""
  np.savez(
    path,
    images=np.concatenate([dataset.train.images, dataset.validation.images]),
    labels=np.concatenate([dataset.train.labels, dataset.validation.labels]),
    test_images=dataset.test.images,
    test_labels=dataset.test.labels,
  )
