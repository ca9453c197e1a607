"""Other data for a trained model: normalised and numbered as those of its training."""

from __future__ import annotations

import numpy as np

from ramjax.data.datasets import Dataset
from ramjax.data.idx import DataError
from ramjax.data.info import DatasetInfo, listed
from ramjax.data.splits import Split


def as_seen_by(dataset: Dataset, info: DatasetInfo) -> Dataset:
  """A dataset for a run that was trained on another one.

  Images get the mean and deviation of the run, and its class numbers. Classes are
  matched by their names, whatever their order. Data without names have the classes 0, 1
  and so on; these are the numbers of the run's classes if no class of the run is called
  by a number. The size of the images may differ from that of the run.

  Args:
    dataset: the other dataset.
    info: what the run recorded of its own.

  Returns:
    The dataset, with the K classes of the run.

  Raises:
    DataError: if images have another number of channels, or classes that the run does
      not know.

  >>> import numpy as np
  >>> info = DatasetInfo(
  ...   image_shape=(8, 8, 1), mean=(0.5,), std=(0.25,), class_names=("cat", "dog", "fox"),
  ...   train_counts=(5, 5, 5), validation_counts=(1, 1, 1), test_counts=(1, 1, 1),
  ... )
  >>> split = Split(np.zeros((2, 8, 8, 1), np.uint8), np.array([0, 1]))
  >>> other = Dataset("mine", "", 2, split, split, split, (0.1,), (0.9,))
  >>> as_seen_by(other, info).mean
  (0.5,)
  """
  channels = dataset.image_shape[-1]
  if channels != info.image_shape[-1]:
    raise DataError(
      f"{dataset.name} has images of {channels} channels, but the run was trained on"
      f" images of {info.image_shape[-1]}; convert them"
    )
  numbers, notes = _class_numbers(dataset, info), dataset.notes
  if _only_numbered(dataset, info):
    notes += (f"its classes 0, 1 and so on are taken as {listed(info.labels)}",)

  def renumbered(split: Split) -> Split:
    return Split(split.images, numbers[split.labels])

  return dataset._replace(
    num_classes=info.num_classes,
    train=renumbered(dataset.train),
    validation=renumbered(dataset.validation),
    test=renumbered(dataset.test),
    mean=info.mean,
    std=info.std,
    class_names=info.class_names,
    notes=notes,
  )


def _only_numbered(dataset: Dataset, info: DatasetInfo) -> bool:
  """Whether the classes of a dataset are the numbers of those of a run."""
  names = dataset.labels
  numbered = names == tuple(map(str, range(len(names))))
  return numbered and not any(name.isdecimal() for name in info.labels)


def _class_numbers(dataset: Dataset, info: DatasetInfo) -> np.ndarray:
  """The number that each class of a dataset has in a run, int32.

  Raises:
    DataError: if the run does not know a class of which there are images.
  """
  names, known = dataset.labels, info.labels
  if _only_numbered(dataset, info):
    known = tuple(map(str, range(info.num_classes)))
  splits = (dataset.train, dataset.validation, dataset.test)
  present = np.unique(np.concatenate([split.labels for split in splits]))
  unknown = [names[number] for number in present if names[number] not in known]
  if unknown:
    raise DataError(
      f"{dataset.name} has classes that the run does not know: {listed(unknown)}; those"
      f" of the run are {listed(known)}"
    )
  return np.array([known.index(n) if n in known else -1 for n in names], np.int32)
