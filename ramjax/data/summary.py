"""What a user should know of a dataset: images of each class, and what is unusual."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ramjax.data.info import listed
from ramjax.data.own import RENUMBER

SPLITS = ("training", "validation", "test")

_MOST_CLASSES = 20
"""More classes than this are not all listed."""


def class_table(counts: np.ndarray, names: Sequence[str]) -> str:
  """The classes with their numbers of images, in one line.

  Args:
    counts: numbers of images of each class in the three splits [3, K].
    names: names of the classes, K of them.

  Returns:
    The line.

  >>> import numpy as np
  >>> class_table(np.array([[48, 8], [6, 1], [6, 1]]), ("cat", "dog"))
  '2 classes (cat: 48 + 6 + 6, dog: 8 + 1 + 1)'
  """
  entries = [
    f"{name}: {' + '.join(map(str, numbers))}"
    for name, numbers in zip(names, counts.T.tolist(), strict=True)
  ]
  if len(entries) > _MOST_CLASSES:
    entries[_MOST_CLASSES // 2 : -1] = ["…"]
  return f"{len(names)} classes ({', '.join(entries)})"


def class_warnings(counts: np.ndarray, names: Sequence[str]) -> list[str]:
  """What is unusual about classes: gaps in the labels, splits without a class.

  Args:
    counts: numbers of images of each class in the three splits [3, K].
    names: names of the classes, K of them.

  Returns:
    One line for each kind of trouble, with a remedy where there is one.

  >>> import numpy as np
  >>> class_warnings(np.array([[9, 9], [1, 1], [1, 0]]), ("cat", "dog"))
  ['the test split has no image of dog, so its accuracy says nothing about it']
  """

  def named(classes: np.ndarray) -> str:
    return listed([names[i] for i in classes])

  found = []
  absent = np.flatnonzero(counts.sum(0) == 0)
  if absent.tolist() == [0]:
    found.append(
      "the labels begin at 1, so that class 0 has no images; renumber them:"
      " labels = labels - 1"
    )
  elif absent.size:
    found.append(
      f"the labels leave gaps, as no image is of class {named(absent)}; renumber"
      f" them: {RENUMBER}"
    )
  train, *others = counts
  for part, other in zip(SPLITS[1:], others, strict=True):
    untrained = np.flatnonzero((train == 0) & (other > 0))
    if untrained.size:
      found.append(
        f"the {part} split has images of {named(untrained)}, which cannot be"
        " learned, as the training split has none"
      )
    missing = np.flatnonzero((train > 0) & (other == 0))
    if missing.size:
      found.append(
        f"the {part} split has no image of {named(missing)}, so its accuracy says"
        " nothing about it"
      )
  return found
