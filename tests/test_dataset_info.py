"""What a run records of its data, and other data as that run sees them."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from ramjax import ConfigError, data
from ramjax.data.info import DatasetInfo, describe_changes
from ramjax.data.splits import Split

INFO = DatasetInfo(
  image_shape=(4, 5, 1),
  mean=(0.25,),
  std=(0.5,),
  class_names=("cat", "dog", "fox"),
  train_counts=(8, 7, 6),
  validation_counts=(1, 1, 1),
  test_counts=(2, 2, 2),
)


def changed(**values):
  return DatasetInfo.from_dict({**INFO.to_dict(), **values})


def write_folder(path, counts, *, seed=0):
  """A folder of images of 9×12 pixels for each class."""
  rng = np.random.RandomState(seed)
  for name, count in counts.items():
    (path / name).mkdir(parents=True)
    for number in range(count):
      pixels = rng.randint(0, 256, (9, 12)).astype(np.uint8)
      Image.fromarray(pixels).save(path / name / f"{number:03}.png")


def test_what_is_recorded_is_plain_json():
  written = json.dumps(INFO.to_dict(), allow_nan=False)
  assert DatasetInfo.from_dict(json.loads(written)) == INFO


def test_a_folder_says_all_that_inference_needs(tmp_path):
  """Counts are those of all images, also if only some of them are for training."""
  write_folder(tmp_path / "pets", {"cat": 20, "dog": 30})
  found = data.load_dataset(
    f"folder:{tmp_path / 'pets'}", num_train_examples=5, canvas_size=40, num_clutter=2
  )
  info = found.info
  assert info.class_names == ("cat", "dog")
  assert info.image_shape == (9, 12, 1)
  assert (info.canvas_size, info.num_clutter) == (40, 2)
  assert (info.mean, info.std) == (found.mean, found.std)
  assert np.sum([*info.counts.values()], axis=0).tolist() == [20, 30]
  assert sum(info.train_counts) > 5
  for split in ("validation", "test"):
    counts = np.bincount(getattr(found, split).labels, minlength=2)
    assert info.counts[split] == tuple(counts)


def test_the_canvas_of_a_name_is_recorded(mnist):
  assert mnist.info.canvas_size is None
  info = data.load_dataset("mnist_cluttered_60").info
  assert (info.image_shape, info.canvas_size, info.num_clutter) == ((28, 28, 1), 60, 4)
  assert info.class_names == tuple("0123456789")
  assert sum(info.test_counts) == 10_000


@pytest.mark.parametrize(
  ("values", "message"),
  [
    ({"mean": None}, "data.mean must be a list of finite numbers"),
    ({"mean": [0.1, 0.2]}, "mean must have 1 entries, one a channel, not 2"),
    ({"mean": [float("nan")]}, "mean must be a list of finite numbers"),
    ({"std": [0.0]}, "std must be greater than 0"),
    ({"image_shape": [28, 28]}, "image_shape must be height, width and channels"),
    ({"class_names": [0, 1, 2]}, "class_names must be a list of names"),
    ({"class_names": ["a"]}, "class_names must have 3 entries, one a class, not 1"),
    ({"test_counts": [1, 2]}, "test_counts must have 3 entries"),
    ({"train_counts": [1, 2, -1]}, "train_counts must be a list of integers"),
    ({"width": 3}, "written by a newer version of ramjax: field data.width"),
  ],
)
def test_a_damaged_record_is_refused(values, message):
  with pytest.raises(ConfigError) as caught:
    DatasetInfo.from_dict({**INFO.to_dict(), **values}, prefix="data.")
  assert message.removeprefix("data.") in str(caught.value)


@pytest.mark.parametrize(
  ("values", "message"),
  [
    (
      {"train_counts": (9, 7, 6)},
      "31 images instead of 30 (cat: 12 instead of 11)",
    ),
    (
      {"train_counts": (9, 6, 6)},
      "30 images (cat: 12 instead of 11, dog: 9 instead of 10)",
    ),
    (
      {"class_names": ("cat", "dog", "wolf")},
      "30 images (fox: 0 instead of 9, wolf: 9 instead of 0)",
    ),
    (
      {"train_counts": (8, 7, 5), "test_counts": (2, 2, 3)},
      "as many images of each class, but others in the train split (fox: 5 instead of 6)",
    ),
    ({"image_shape": (8, 5, 1)}, "images of 8 x 5 x 1 instead of 4 x 5 x 1"),
    ({}, "as many images of each class, but not the same ones in the same order"),
  ],
)
def test_changes_are_told_in_counts(values, message):
  assert describe_changes(INFO, changed(**values)) == message


def test_changes_of_many_classes_are_one_short_line():
  def of(count):
    counts = [count] * 100
    names = [f"class{number}" for number in range(100)]
    return changed(
      class_names=names,
      train_counts=counts,
      validation_counts=counts,
      test_counts=counts,
    )

  found = describe_changes(of(1), of(2))
  assert found.startswith("600 images instead of 300 (class0: 6 instead of 3, class1")
  assert found.endswith(", and 97 more)")


def other(labels, *, class_names=(), channels=1, num_classes=3):
  """Images whose value is their label, in three splits."""
  labels = np.array(labels, np.int32)
  images = np.broadcast_to(
    labels.astype(np.uint8)[:, None, None, None], (len(labels), 6, 7, channels)
  )
  split = Split(images, labels)
  zeros = (0,) * num_classes
  info = DatasetInfo(
    image_shape=(6, 7, channels),
    mean=(0.9,) * channels,
    std=(0.9,) * channels,
    class_names=class_names,
    train_counts=zeros,
    validation_counts=zeros,
    test_counts=zeros,
  )
  return data.Dataset(
    *("mine", "", num_classes, split, split, split, info.mean, info.std),
    class_names=class_names,
    info=info,
  )


def test_other_images_are_normalised_as_in_training():
  seen = data.as_seen_by(other([0, 2]), INFO)
  found = seen.preprocess(jax.random.key(0), seen.test.images[1])
  np.testing.assert_allclose(found, (2 / 255 - 0.25) / 0.5, rtol=1e-6)


@pytest.mark.parametrize(
  ("class_names", "num_classes", "expected"),
  [
    (("cat", "dog", "fox"), 3, [0, 1, 2]),
    (("dog", "fox"), 2, [1, 2]),  # a part of the classes
    (("fox", "cat", "dog"), 3, [2, 0, 1]),  # in another order
    ((), 3, [0, 1, 2]),  # numbers
    (("0", "1"), 2, [0, 1]),  # the same
    (("ant", "cat"), 2, None),  # no image is of an ant
  ],
)
def test_classes_are_matched_by_name(class_names, num_classes, expected):
  labels = [1, 1] if expected is None else range(num_classes)
  found = other(labels, class_names=class_names, num_classes=num_classes)
  seen = data.as_seen_by(found, INFO)
  assert seen.num_classes == 3
  for split in (seen.train, seen.validation, seen.test):
    assert split.labels.tolist() == (expected or [0, 0])
    assert split.labels.dtype == np.int32
    np.testing.assert_array_equal(split.images[:, 0, 0, 0], labels)  # as they were


def test_it_is_said_how_numbers_are_taken():
  seen = data.as_seen_by(other([0, 1]), INFO)
  assert seen.notes == ("its classes 0, 1 and so on are taken as cat, dog, fox",)


def test_folders_named_by_numbers_are_the_classes_of_a_run_without_names():
  seen = data.as_seen_by(
    other([0, 1], class_names=("0", "2"), num_classes=2), changed(class_names=())
  )
  assert seen.test.labels.tolist() == [0, 2]


def test_numbers_are_the_names_of_classes_where_those_of_the_run_are_numbers():
  """A run of digits 1 to 3 calls its first class 1, not 0."""
  info = changed(class_names=("1", "2", "3"))
  seen = data.as_seen_by(other([1, 3], num_classes=4), info)
  assert seen.test.labels.tolist() == [0, 2]
  assert not seen.notes
  with pytest.raises(data.DataError, match="not know: 0; those of the run are 1, 2, 3"):
    data.as_seen_by(other([0, 2]), info)


@pytest.mark.parametrize(
  ("found", "message"),
  [
    (
      other([0, 1], class_names=("cat", "wolf"), num_classes=2),
      "mine has classes that the run does not know: wolf; those of the run are cat, dog,"
      " fox",
    ),
    (
      other([0, 3, 4], num_classes=5),
      "mine has classes that the run does not know: 3, 4; those of the run are 0, 1, 2",
    ),
    (
      other([0, 1], channels=3),
      "mine has images of 3 channels, but the run was trained on images of 1",
    ),
  ],
)
def test_data_that_a_run_cannot_be_judged_on_are_one_line(found, message):
  with pytest.raises(data.DataError) as caught:
    data.as_seen_by(found, INFO)
  assert message in str(caught.value)
  assert "\n" not in str(caught.value)
