"""What a run records of its data, so that its model can be used without them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ramjax import fields
from ramjax.fields import ConfigError

_MOST_NAMED = 3
"""Number of classes that a message names."""


def _each(kind: type, low: float, what: str) -> Callable[[str, Any], tuple[Any, ...]]:
  """A check of a field that holds a list of values of one type."""

  def is_sound(value: Any) -> bool:
    if kind is str:
      return isinstance(value, str)
    number = isinstance(value, (int, kind)) and not isinstance(value, bool)
    return number and math.isfinite(value) and value >= low

  def check(name: str, value: Any) -> tuple[Any, ...]:
    if isinstance(value, (list, tuple)) and all(map(is_sound, value)):
      return tuple(map(kind, value))
    raise ConfigError(f"{name} must be a list of {what}, not {value!r}")

  return check


_SIZES = _each(int, 1, "positive integers")
_COUNTS = _each(int, 0, "integers of at least 0")
_NUMBERS = _each(float, 0.0, "finite numbers of at least 0")
_NAMES = _each(str, 0, "names")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetInfo(fields.Checked):
  """The facts of a dataset that a trained model needs. A run records them as JSON.

  Raises:
    ConfigError: if a field is missing or does not fit the others.

  >>> info = DatasetInfo(
  ...   image_shape=(28, 28, 1), mean=(0.13,), std=(0.31,), class_names=("cat", "dog"),
  ...   train_counts=(50, 40), validation_counts=(5, 4), test_counts=(5, 4),
  ... )
  >>> DatasetInfo.from_dict(info.to_dict()) == info
  True
  """

  image_shape: tuple[int, int, int] = fields.checked(
    None, "Height, width and channels of a stored image, before any canvas.", _SIZES
  )
  canvas_size: int | None = fields.integer(
    None, "Side of the canvas of the images; None without one.", low=1, optional=True
  )
  num_clutter: int = fields.integer(0, "Crops of other images on the canvas.", low=0)
  mean: tuple[float, ...] = fields.checked(
    None, "Mean of each channel in 0…1, with which images are normalised.", _NUMBERS
  )
  std: tuple[float, ...] = fields.checked(
    None, "Standard deviation of each channel, for the same purpose.", _NUMBERS
  )
  class_names: tuple[str, ...] = fields.checked(
    (), "Names of the K classes; empty if they only have numbers.", _NAMES
  )
  train_counts: tuple[int, ...] = fields.checked(
    None, "Number of images of each class in the complete training split.", _COUNTS
  )
  validation_counts: tuple[int, ...] = fields.checked(
    None, "Number of images of each class in the validation split.", _COUNTS
  )
  test_counts: tuple[int, ...] = fields.checked(
    None, "Number of images of each class in the test split.", _COUNTS
  )

  def __post_init__(self) -> None:
    super().__post_init__()
    if len(self.image_shape) != 3:
      raise ConfigError(
        f"image_shape must be height, width and channels, not {self.image_shape}"
      )
    lengths = {
      **dict.fromkeys(("mean", "std"), (self.image_shape[-1], "channel")),
      **dict.fromkeys(
        ("validation_counts", "test_counts"), (self.num_classes, "class")
      ),
    }
    if self.class_names:
      lengths["class_names"] = self.num_classes, "class"
    for name, (length, what) in lengths.items():
      if len(getattr(self, name)) != length:
        raise ConfigError(
          f"{name} must have {length} entries, one a {what}, not"
          f" {len(getattr(self, name))}"
        )
    if min(self.std) == 0:
      raise ConfigError(f"std must be greater than 0, not {self.std}")

  @property
  def num_classes(self) -> int:
    """Number of classes K."""
    return len(self.train_counts)

  @property
  def labels(self) -> tuple[str, ...]:
    """The names of the classes, or their numbers if they have no names."""
    return self.class_names or tuple(map(str, range(self.num_classes)))

  @property
  def counts(self) -> dict[str, tuple[int, ...]]:
    """Number of images of each class, by split."""
    splits = ("train", "validation", "test")
    return {split: getattr(self, f"{split}_counts") for split in splits}


def describe_changes(before: DatasetInfo, after: DatasetInfo) -> str:
  """How data differ from what a run recorded, in counts, for a message.

  Args:
    before: what the run recorded.
    after: the data.

  Returns:
    A clause without a subject: `121 images instead of 120 (cat: 61 instead of 60)`.
  """
  if before.image_shape != after.image_shape:
    sizes = (" x ".join(map(str, each.image_shape)) for each in (after, before))
    return "images of {} instead of {}".format(*sizes)
  earlier, later = (_totals([*each.counts.values()], each) for each in (before, after))
  if earlier != later:
    numbers = sum(later.values()), sum(earlier.values())
    total = "{:,} images".format(*numbers)
    if numbers[0] != numbers[1]:
      total += f" instead of {numbers[1]:,}"
    return f"{total} ({_differences(earlier, later)})"
  for split, counts in after.counts.items():
    earlier, later = _totals([before.counts[split]], before), _totals([counts], after)
    if earlier != later:
      return (
        f"as many images of each class, but others in the {split} split"
        f" ({_differences(earlier, later)})"
      )
  return "as many images of each class, but not the same ones in the same order"


def _totals(counts: Sequence[Sequence[int]], info: DatasetInfo) -> dict[str, int]:
  """Number of images of each class, by name."""
  totals = np.sum(counts, axis=0).tolist()
  return dict(zip(info.labels, totals, strict=True))


def _differences(before: dict[str, int], after: dict[str, int]) -> str:
  """The classes whose numbers of images differ: `cat: 61 instead of 60`."""
  changed = [
    f"{name}: {after.get(name, 0):,} instead of {before.get(name, 0):,}"
    for name in {**before, **after}
    if before.get(name, 0) != after.get(name, 0)
  ]
  more = len(changed) - _MOST_NAMED
  return ", ".join(changed[:_MOST_NAMED]) + (f", and {more} more" if more > 0 else "")


def listed(names: Sequence[str], limit: int = 10) -> str:
  """Names for a message, which shows the first of them."""
  more = len(names) - limit
  return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")
