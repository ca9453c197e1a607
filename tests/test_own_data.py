"""User arrays and datasets prepared by TFDS: read correctly, or refused in one line."""

import importlib.util
import io
import os
import pathlib
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from ramjax import Config, ConfigError, TrainConfig, data
from ramjax.data import prepared, splits
from ramjax.data.own import read_npz
from ramjax.data.splits import Split, Stored

RNG = np.random.RandomState(3)
ARRAYS = {
  "images": RNG.randint(0, 256, (30, 9, 12, 3)).astype(np.uint8),
  "labels": np.arange(30) % 3,
}
TEST = {
  "test_images": RNG.randint(0, 256, (4, 9, 12, 3)).astype(np.uint8),
  "test_labels": np.array([2, 0, 4, 1]),
}


def npz(folder, name="mine.npz", **arrays):
  path = folder / name
  np.savez_compressed(path, **arrays)
  return path


def test_npz_file_is_a_dataset(tmp_path):
  """Shapes and classes come from the arrays; a class may occur in the test set only."""
  path = npz(tmp_path, **ARRAYS, **TEST)
  found = data.load_dataset(f"npz:{path}")
  assert found.image_shape == (9, 12, 3)
  assert found.num_classes == 5
  assert found.name == f"npz:{path}"
  assert found.train.labels.dtype == np.int32
  sizes = [len(split.labels) for split in (found.train, found.validation, found.test)]
  assert sizes == [27, 3, 4]
  np.testing.assert_array_equal(found.test.images, TEST["test_images"])
  expected = ARRAYS["images"].reshape(-1, 3) / 255
  np.testing.assert_allclose(found.mean, expected.mean(0), atol=6e-5)
  np.testing.assert_allclose(found.std, expected.std(0), atol=6e-5)


def test_images_of_one_channel_need_no_last_axis(tmp_path):
  path = npz(tmp_path, images=ARRAYS["images"][..., 0], labels=ARRAYS["labels"])
  assert data.load_dataset(f"npz:{path}").image_shape == (9, 12, 1)


def numbered(labels):
  """A file of images that show their numbers, with these labels."""
  count = np.arange(len(labels), dtype=np.uint8)
  return {"images": count.repeat(4).reshape(-1, 2, 2), "labels": np.array(labels)}


def numbers_of(dataset):
  parts = (dataset.train, dataset.validation, dataset.test)
  return [part.images[:, 0, 0, 0].tolist() for part in parts]


def test_splits_of_user_images_never_change(tmp_path):
  """Each image is in exactly one split, with its class, the same on every machine."""
  path = npz(tmp_path, **numbered(np.arange(30) % 7))
  found = data.load_dataset(f"npz:{path}")
  numbers = numbers_of(found)
  assert sorted(np.concatenate(numbers).tolist()) == list(range(30))
  assert numbers[1:] == [[1, 23, 0, 19, 17, 13, 25], [24, 27, 28, 9, 8, 11, 5]]
  parts = (found.train, found.validation, found.test)
  for part, number in zip(parts, numbers, strict=True):
    assert part.labels.tolist() == [n % 7 for n in number]


def test_a_tenth_of_each_class_is_set_aside(tmp_path):
  """At least one image where there are two, so that no split lacks a rare class."""
  sizes = [100, 25, 4, 2, 1]
  path = npz(tmp_path, **numbered(np.repeat(np.arange(5), sizes)))
  found = data.load_dataset(f"npz:{path}")
  assert found.division == "by class"
  expected = [[81, 21, 2, 1, 1], [9, 2, 1, 0, 0], [10, 2, 1, 1, 0]]
  assert found.class_counts.tolist() == expected
  train = numbers_of(found)[0]
  assert train != sorted(train)


def test_other_sources_are_divided_at_random_as_before():
  """MNIST's splits are known; those of TFDS are, too."""
  images, labels = np.zeros((300, 2, 2, 1), np.uint8), np.repeat([0, 1], [290, 10])
  images[..., 0] = np.arange(300)[:, None, None] % 256
  whole = Split(images, labels)
  parts = splits.divide(Stored("here", 2, whole, whole), name="mine")
  order = np.random.RandomState(0).permutation(300)
  np.testing.assert_array_equal(parts.train.images, images[order[:-30]])
  np.testing.assert_array_equal(parts.validation.images, images[order[-30:]])


def test_a_run_of_an_earlier_division_is_refused_with_the_reason(tmp_path):
  path = npz(tmp_path, **ARRAYS)
  found = data.load_dataset(f"npz:{path}")
  earlier = Config.from_dict(
    {
      "model": {},
      "objective": {},
      "train": {"dataset": found.name, "data_sha256": found.sha256},
    }
  )
  with pytest.raises(data.DataError, match=r"divided by class, and was at random when"):
    data.dataset_of(earlier)


def test_data_dir_replaces_the_folder_of_a_file(tmp_path, monkeypatch):
  """Without --data_dir, a relative path stays relative to the current folder."""
  (tmp_path / "new").mkdir()
  npz(tmp_path / "new", **ARRAYS)
  found = data.load_dataset("npz:/old/mine.npz", data_dir=str(tmp_path / "new"))
  assert found.name == f"npz:{tmp_path / 'new' / 'mine.npz'}"
  monkeypatch.chdir(tmp_path)
  assert data.load_dataset("npz:new/mine.npz").name == found.name


def test_changed_data_under_the_same_name_is_refused(tmp_path):
  path = npz(tmp_path, **ARRAYS)
  found = data.load_dataset(f"npz:{path}")
  train = TrainConfig(
    dataset=found.name, data_sha256=found.sha256, division=found.division
  )
  config = Config(train=train)
  assert data.dataset_of(config).sha256 == found.sha256
  np.savez(path, **ARRAYS)  # other bytes, the same arrays
  assert data.dataset_of(config).sha256 == found.sha256
  npz(tmp_path, **{**ARRAYS, "labels": ARRAYS["labels"][::-1]})
  with pytest.raises(data.DataError, match="is not the dataset that the run was"):
    data.dataset_of(config)


def test_fingerprint_depends_on_shapes_and_splits():
  one = Split(np.zeros((2, 3, 4, 1), np.uint8), np.zeros(2, np.int32))
  other = Split(one.images.reshape(2, 4, 3, 1), one.labels)
  digests = [splits.fingerprint(split, None) for split in (one, other)]
  assert digests[0] == splits.fingerprint(one)
  assert len({*digests, splits.fingerprint(one, one)}) == 3


BAD_NPZ = [
  ({"images": None}, "must hold the arrays images, labels, but has no images"),
  ({"labels": None}, "must hold the arrays images, labels, but has no labels"),
  ({"test_labels": TEST["test_labels"]}, "has no test_images"),
  ({**TEST, "test_labels": np.zeros(3, int)}, "test labels must be .4., one for each"),
  ({"images": ARRAYS["images"] / 255}, "images must be uint8, 0 to 255, not float64"),
  ({"images": ARRAYS["images"][0, 0]}, "images must be .M, H, W, C."),
  ({"labels": ARRAYS["labels"] * 1.0}, "labels must be integers, not float64"),
  ({"labels": ARRAYS["labels"][1:]}, "labels must be .30., one for each image"),
  ({"labels": ARRAYS["labels"] - 1}, "number the classes from 0, but label 0 is -1"),
  ({"labels": ARRAYS["labels"] * 10**9}, "but label 2 is 2000000000"),
  ({"labels": np.zeros(30, int)}, "at least two classes .* all labels are 0"),
  (
    {"labels": np.array([None] * 30)},
    "Python objects in labels; write numbers: labels =",
  ),
  (
    {"images": np.array([None] * 30)},
    "Python objects in images; write numbers: images = images.astype",
  ),
  ({"labels": np.array(["cat"] * 30)}, "labels are words; number them: labels = numpy"),
  (
    {"images": np.moveaxis(ARRAYS["images"], -1, 1)},
    r"\[30, 3, 9, 12\] looks like \[M, C, H, W\]; .* images.transpose\(0, 2, 3, 1\)",
  ),
  (
    {"images": None, "x_train": ARRAYS["images"]},
    r"It has labels, x_train\. This writes such a file: numpy\.savez",
  ),
  ({**TEST, "test_images": TEST["test_images"][:, 1:]}, "9 x 12 x 3, not 8 x 12 x 3"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_NPZ)
def test_invalid_npz_array_is_named(changes, message, tmp_path):
  arrays = {k: v for k, v in {**ARRAYS, **changes}.items() if v is not None}
  path = npz(tmp_path, **arrays)
  with pytest.raises(data.DataError, match=message) as caught:
    read_npz(path)
  assert str(path) in str(caught.value)
  assert "\n" not in str(caught.value)


def damaged_npz():
  """Contents of damaged .npz files."""
  buffer = io.BytesIO()
  np.savez_compressed(buffer, **ARRAYS)
  whole = buffer.getvalue()
  yield from [b"", b"text\n" * 9, whole[:-30], whole[:200]]
  yield whole[:300] + bytes(64) + whole[364:]
  array = io.BytesIO()
  np.save(array, ARRAYS["images"])
  for shape in (b"(99999, 9, 99)", b"(9999999999, )", b"(3, 2 ** 999) "):
    claims = io.BytesIO()
    with zipfile.ZipFile(claims, "w") as file:
      file.writestr("images.npy", array.getvalue().replace(b"(30, 9, 12, 3)", shape))
    yield claims.getvalue()


@pytest.mark.parametrize("content", damaged_npz())
def test_damaged_npz_file_gives_one_line(content, tmp_path):
  """Which does not advise to load pickles."""
  path = tmp_path / "mine.npz"
  path.write_bytes(content)
  with pytest.raises(data.DataError, match="cannot be read as an") as caught:
    read_npz(path)
  assert "\n" not in str(caught.value)
  assert "pickle" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["csv", "mat"])
def test_a_file_of_another_kind_is_named_by_its_kind(suffix, tmp_path):
  path = tmp_path / f"mine.{suffix}"
  path.write_text("label,pixel0\n")
  with pytest.raises(data.DataError, match=f"; give --dataset={suffix}:{path}$"):
    read_npz(path)


def test_npy_file_and_missing_file_are_refused(tmp_path):
  path = tmp_path / "mine.npz"
  with pytest.raises(data.DataError, match="No such file"):
    read_npz(path)
  with path.open("wb") as file:
    np.save(file, ARRAYS["images"])
  with pytest.raises(data.DataError, match="holds one array"):
    read_npz(path)


@pytest.mark.parametrize(("count", "with_test"), [(2, False), (1, True)])
def test_too_few_images_to_divide(count, with_test):
  few = Split(np.zeros((count, 2, 2, 1), np.uint8), np.zeros(count, np.int32))
  stored = Stored("here", 2, few, few if with_test else None)
  with pytest.raises(data.DataError, match="mine has too few images: none is left for"):
    splits.divide(stored, name="mine")


def test_constant_images_are_refused(tmp_path):
  """All of them, or one channel; before, they were trained on without a word."""
  images = ARRAYS["images"].copy()
  images[..., 1] = 7
  path = npz(tmp_path, images=images, labels=ARRAYS["labels"])
  with pytest.raises(
    data.DataError,
    match=r"channel 1 of .* is 7 everywhere; .* numpy.delete\(images, \[1\], axis=-1\)",
  ):
    data.load_dataset(f"npz:{path}")
  path = npz(tmp_path, images=images[..., 1], labels=ARRAYS["labels"])
  with pytest.raises(data.DataError, match=r"show nothing: every pixel is \[7\]"):
    data.load_dataset(f"npz:{path}")


BAD_CANVASES = [
  ("npz:", {}, "dataset must be one of mnist, .*npz:FILE, .*folder:DIR, not 'npz:'"),
  ("zip:mine.zip", {}, "dataset must be one of mnist"),
  ("translated_mnist", {}, "mnist_translated_60, .* not 'translated_mnist'"),
  ("mnist", {"num_clutter": 4}, "num_clutter must be 0 without a canvas_size, not 4"),
  ("mnist", {"canvas_size": 27}, "canvas_size must be at least 28, .* not 27"),
  (
    "mnist_cluttered_60",
    {"num_clutter": 6},
    "must not be given with mnist_cluttered_60, which has its own; .* with mnist$",
  ),
]


@pytest.mark.parametrize(("name", "options", "message"), BAD_CANVASES)
def test_unknown_name_or_invalid_canvas_is_refused(name, options, message):
  with pytest.raises(ConfigError, match=message):
    data.load_dataset(name, **options)


def test_small_images_can_be_translated_but_not_cluttered(tmp_path):
  path = npz(tmp_path, images=ARRAYS["images"][:, :7], labels=ARRAYS["labels"])
  found = data.load_dataset(f"npz:{path}", canvas_size=20)
  assert found.image_shape == (20, 20, 3)
  with pytest.raises(ConfigError, match="num_clutter must be 0 for images of 7 x 12"):
    data.load_dataset(f"npz:{path}", canvas_size=20, num_clutter=1)


def test_missing_tensorflow_gives_one_line(monkeypatch):
  monkeypatch.setattr(prepared.importlib.util, "find_spec", lambda name: None)
  for name in (*prepared.KNOWN, "tfds:emnist/letters"):
    with pytest.raises(
      data.DataError, match=r"pip install '\.\[tensorflow\]' in a checkout of ramjax"
    ):
      data.load_dataset(name)


TINY_BUILDERS = """
import numpy as np
import tensorflow_datasets as tfds


class Tiny(tfds.core.GeneratorBasedBuilder):
  "Coloured images of three classes."

  VERSION = tfds.core.Version("1.0.0")

  def _info(self):
    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict({
        "image": tfds.features.Image(shape=(6, 5, 3)),
        "label": tfds.features.ClassLabel(num_classes=3),
      }),
      supervised_keys=("image", "label"),
    )

  def _split_generators(self, dl_manager):
    return {"train": self._generate_examples(20), "test": self._generate_examples(4)}

  def _generate_examples(self, count):
    for i in range(count):
      yield i, {"image": np.full((6, 5, 3), i, np.uint8), "label": i % 3}


class Ragged(Tiny):
  "Images of no fixed size."

  def _info(self):
    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict({
        "image": tfds.features.Image(), "label": tfds.features.ClassLabel(num_classes=3),
      }),
      supervised_keys=("image", "label"),
    )
"""

TINY_TEST = """
import sys
import tiny_builders
from ramjax import data

found = data.load_dataset("tfds:tiny", data_dir=sys.argv[1])
assert found.image_shape == (6, 5, 3), found.image_shape
assert found.num_classes == 3
assert [len(s.labels) for s in (found.train, found.validation, found.test)] == [18, 2, 4]
for split in (found.train, found.validation, found.test):
  assert (split.images[:, 0, 0, 0] % 3 == split.labels).all()
again = data.load_dataset("tfds:tiny", data_dir=sys.argv[1])
assert again.sha256 == found.sha256
for name in ("tfds:ragged", "tfds:nonesuch", "tfds:imdb_reviews"):
  try:
    data.load_dataset(name, data_dir=sys.argv[1])
  except data.datasets.ConfigError as error:
    print(str(error).count("\\n"), error)
try:
  data.load_dataset("cifar10", data_dir=sys.argv[1])
except data.DataError as error:
  print(str(error).count("\\n"), error)
"""


@pytest.mark.slow
@pytest.mark.skipif(
  importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is an extra"
)
def test_dataset_prepared_by_tfds(tmp_path):
  """With two small builders, defined in this test."""
  package = tmp_path / "tiny_builders"
  package.mkdir()
  (package / "__init__.py").write_text(TINY_BUILDERS)
  done = subprocess.run(
    [sys.executable, "-c", TINY_TEST, str(tmp_path / "prepared")],
    cwd=tmp_path,
    capture_output=True,
    text=True,
    env={**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[1])},
  )
  assert done.returncode == 0, done.stderr
  lines = done.stdout.splitlines()[-4:]  # TFDS prints its progress before
  assert all(line.startswith("0 ") for line in lines)
  for line, expected in zip(
    lines, ["several sizes", "not known to TFDS", "images and classes", ""], strict=True
  ):
    assert expected in line
