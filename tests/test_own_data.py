"""User images and datasets prepared by TFDS: read correctly, or refused in one line."""

import importlib.util
import io
import os
import pathlib
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from ramjax import Config, ConfigError, TrainConfig, data
from ramjax.data import prepared, splits
from ramjax.data.own import read_folder, read_npz
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


def test_splits_of_user_images_never_change(tmp_path):
  """Each image is in exactly one split, with its class, the same on every machine."""
  images = np.arange(30, dtype=np.uint8).repeat(4).reshape(30, 2, 2)
  path = npz(tmp_path, images=images, labels=np.arange(30) % 7)
  found = data.load_dataset(f"npz:{path}")
  parts = [found.train, found.validation, found.test]
  numbers = [part.images[:, 0, 0, 0].tolist() for part in parts]
  assert sorted(np.concatenate(numbers).tolist()) == list(range(30))
  assert numbers[1:] == [[18, 2], [12, 11, 5]]
  for part, number in zip(parts, numbers, strict=True):
    assert part.labels.tolist() == [n % 7 for n in number]


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
  train = TrainConfig(dataset=found.name, data_sha256=found.sha256)
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
  ({"labels": np.array([None] * 30)}, "cannot be read as an .npz file .Object arrays"),
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
  path = tmp_path / "mine.npz"
  path.write_bytes(content)
  with pytest.raises(data.DataError, match="cannot be read as an") as caught:
    read_npz(path)
  assert "\n" not in str(caught.value)


def test_npy_file_and_missing_file_are_refused(tmp_path):
  path = tmp_path / "mine.npz"
  with pytest.raises(data.DataError, match="No such file"):
    read_npz(path)
  with path.open("wb") as file:
    np.save(file, ARRAYS["images"])
  with pytest.raises(data.DataError, match="holds one array"):
    read_npz(path)


def write_images(folder, images, labels, suffix=".png"):
  for number, (image, label) in enumerate(zip(images, labels, strict=True)):
    place = folder / f"class {label}"
    place.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.squeeze()).save(place / f"{number:03}{suffix}")
  return folder


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("with_test", [False, True])
def test_folder_with_a_subfolder_for_each_class_is_a_dataset(
  channels, with_test, tmp_path
):
  """Images are sorted by class and file name; grey images have one channel."""
  images, labels = ARRAYS["images"][..., :channels], ARRAYS["labels"]
  root = tmp_path / "train" if with_test else tmp_path
  write_images(root, images, labels)
  (root / ".hidden").write_text("mine")
  if with_test:
    write_images(tmp_path / "test", images[:3], labels[:3])
  found = read_folder(tmp_path)
  order = np.argsort(labels, kind="stable")
  np.testing.assert_array_equal(found.train.images, images[order])
  np.testing.assert_array_equal(found.train.labels, labels[order])
  assert (found.test is not None) == with_test
  if with_test:
    np.testing.assert_array_equal(found.test.images, images[:3])
  dataset = data.load_dataset(f"folder:{tmp_path}")
  assert dataset.image_shape == (9, 12, channels)
  assert dataset.num_classes == 3


def test_grey_images_beside_colour_images_get_three_channels(tmp_path):
  write_images(tmp_path, ARRAYS["images"][:2], [0, 0])
  write_images(tmp_path, ARRAYS["images"][:2, ..., 0], [1, 1])
  found = read_folder(tmp_path).train.images
  assert found.shape == (4, 9, 12, 3)
  for channel in range(3):
    np.testing.assert_array_equal(found[2:, ..., channel], ARRAYS["images"][:2, ..., 0])


def spoil_text(folder):
  (folder / "class 1" / "notes.png").write_text("not an image")


def spoil_size(folder):
  Image.fromarray(ARRAYS["images"][0, :5]).save(folder / "class 2" / "odd.png")


def spoil_depth(folder):
  deep = np.zeros((9, 12), np.uint16)
  Image.fromarray(deep).save(folder / "class 2" / "deep.png")


def spoil_with_a_file(folder):
  (folder / "labels.csv").write_text("0,1")


def spoil_with_an_empty_class(folder):
  (folder / "class 3").mkdir()


def spoil_classes(folder):
  for name in ("class 1", "class 2"):
    for file in (folder / name).iterdir():
      file.unlink()
    (folder / name).rmdir()


def spoil_by_folders(folder):
  (folder / "class 0" / "more").mkdir()


@pytest.mark.parametrize(
  ("spoil", "message"),
  [
    (spoil_text, r"class 1/notes\.png cannot be read as an image"),
    (spoil_size, r"class 2/odd\.png is 12 x 5 pixels, .*000\.png is 12 x 9"),
    (spoil_depth, r"class 2/deep\.png has pixels of the mode I;16"),
    (spoil_with_a_file, r"one folder for each class .* labels\.csv is a file"),
    (spoil_with_an_empty_class, "class 3 holds no images"),
    (spoil_classes, "at least two classes, not 1"),
    (spoil_by_folders, "class 0/more cannot be read as an image"),
  ],
)
def test_invalid_folder_gives_one_line(spoil, message, tmp_path):
  write_images(tmp_path, ARRAYS["images"][:6], ARRAYS["labels"][:6])
  spoil(tmp_path)
  with pytest.raises(data.DataError, match=message) as caught:
    read_folder(tmp_path)
  assert "\n" not in str(caught.value)


def test_missing_folder_is_refused(tmp_path):
  with pytest.raises(data.DataError, match="nowhere cannot be read"):
    read_folder(tmp_path / "nowhere")


@pytest.mark.parametrize(("count", "with_test"), [(2, False), (1, True)])
def test_too_few_images_to_divide(count, with_test):
  few = Split(np.zeros((count, 2, 2, 1), np.uint8), np.zeros(count, np.int32))
  stored = Stored("here", 2, few, few if with_test else None)
  with pytest.raises(data.DataError, match="so that one is left to train on, not"):
    splits.divide(stored, name="mine")


def test_constant_channel_has_deviation_one():
  images = np.zeros((3, 2, 2, 2), np.uint8)
  images[0, ..., 1] = 255
  assert splits.channel_statistics(images)[1] == (1.0, 0.4714)


BAD_CANVASES = [
  ("npz:", {}, "dataset must be one of mnist, .*npz:FILE, folder:DIR, not 'npz:'"),
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
    with pytest.raises(data.DataError, match=r"pip install 'ramjax\[tensorflow\]'"):
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
