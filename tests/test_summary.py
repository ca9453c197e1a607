"""What is unusual about a dataset is told when it is loaded."""

import logging

import numpy as np
import pytest

from ramjax import data
from ramjax.data.background import border_colour
from ramjax.data.summary import class_table, class_warnings

SHAPE = (8, 8)


def warnings_of(tmp_path, caplog, labels, *, test_labels=None, shape=SHAPE):
  """The warnings of a file with these labels."""
  rng = np.random.RandomState(0)
  arrays = {}
  for prefix, of_part in (("", labels), ("test_", test_labels)):
    if of_part is not None:
      images = rng.randint(0, 256, (len(of_part), *shape)).astype(np.uint8)
      arrays |= {f"{prefix}images": images, f"{prefix}labels": np.array(of_part)}
  path = tmp_path / "mine.npz"
  np.savez(path, **arrays)
  with caplog.at_level(logging.WARNING, logger="absl"):
    data.load_dataset(f"npz:{path}")
  prefix = f"npz:{path}: "
  assert all(line.startswith(prefix) for line in caplog.messages)
  return [line.removeprefix(prefix) for line in caplog.messages]


def test_ordinary_data_are_loaded_without_a_word(tmp_path, caplog):
  assert warnings_of(tmp_path, caplog, np.arange(40) % 4) == []


@pytest.mark.parametrize(
  ("labels", "message"),
  [
    (np.arange(300) % 3 + 1, "the labels begin at 1, so that class 0 has no images"),
    (
      np.arange(300) % 3 * 5,
      "the labels leave gaps, as no image is of class 1, 2, 3, 4",
    ),
  ],
)
def test_labels_with_gaps_are_told_with_python_that_renumbers(
  labels, message, tmp_path, caplog
):
  (found,) = warnings_of(tmp_path, caplog, labels)
  assert found.startswith(message)
  _, _, code = found.partition("renumber them: ")
  names = {"numpy": np, "labels": labels}
  exec(code, names)
  assert names["labels"].tolist() == (np.arange(300) % 3).tolist()
  caplog.clear()
  assert warnings_of(tmp_path, caplog, names["labels"]) == []


def test_classes_that_only_the_test_has_are_told(tmp_path, caplog):
  labels, test_labels = np.arange(40) % 2, [0, 1, 2]
  assert warnings_of(tmp_path, caplog, labels, test_labels=test_labels) == [
    "the test split has images of 2, which cannot be learned, as the training split has"
    " none"
  ]


def test_splits_without_a_class_are_told(tmp_path, caplog):
  """Their accuracy was 1.0000 before, without a word."""
  labels = np.arange(40) % 2
  assert warnings_of(tmp_path, caplog, labels, test_labels=[1, 1, 1]) == [
    "the test split has no image of 0, so its accuracy says nothing about it"
  ]
  caplog.clear()
  found = warnings_of(tmp_path, caplog, [0] * 20 + [1] * 20 + [2])
  assert [line.split(",")[0] for line in found] == [
    "the validation split has no image of 2",
    "the test split has no image of 2",
  ]


def test_many_channels_are_told(tmp_path, caplog):
  labels = np.arange(40) % 2
  assert warnings_of(tmp_path, caplog, labels, shape=(8, 8, 5)) == [
    "the images have 5 channels; if they are [M, C, H, W], convert them: images ="
    " images.transpose(0, 2, 3, 1)"
  ]


def test_of_many_classes_only_some_are_listed():
  counts, names = np.ones((3, 100), int), [f"c{number}" for number in range(100)]
  table = class_table(counts, names)
  assert table.startswith("100 classes (c0: 1 + 1 + 1, c1: 1 + 1 + 1,")
  assert table.endswith("c9: 1 + 1 + 1, …, c99: 1 + 1 + 1)")
  counts[2] = 0
  (warning,) = class_warnings(counts, names)
  assert "no image of c0, c1, c2" in warning
  assert "c9 and 90 more, so" in warning


def test_the_background_of_noisy_paper_is_its_colour():
  """Although no exact colour of it is as common as the black edge of the scanner."""
  rng = np.random.RandomState(0)
  paper = np.clip(rng.normal(245, 5, (8, 40, 30, 3)), 0, 255).astype(np.uint8)
  paper[0, :, 0] = 0
  assert np.abs(np.array(border_colour([paper])) - 245).max() <= 1
