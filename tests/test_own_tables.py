"""Images in tables of Kaggle's form and in SVHN's .mat files."""

import sys

import numpy as np
import pytest
import scipy.io

from ramjax import data
from ramjax.data.own import read_csv, read_mat

RNG = np.random.RandomState(3)
IMAGES = RNG.randint(0, 256, (20, 4, 4)).astype(np.uint8)
LABELS = np.arange(20) % 3
PIXELS = [f"pixel{number}" for number in range(16)]


def write_csv(path, *, names=("label", *PIXELS), columns=None, quote=""):
  if columns is None:
    columns = [LABELS, *IMAGES.reshape(20, 16).T]
  rows = [[*map(str, row)] for row in zip(*columns, strict=True)]
  lines = ([[f"{quote}{name}{quote}" for name in names]] if names else []) + rows
  path.write_text("".join(",".join(line) + "\n" for line in lines))
  return path


@pytest.mark.parametrize(
  "form", ["kaggle", "no names", "counted", "quoted", "class last", "bom"]
)
def test_a_table_of_labels_and_pixels_is_a_dataset(form, tmp_path):
  path = tmp_path / "mine.csv"
  if form == "class last":
    columns = [*IMAGES.reshape(20, 16).T, LABELS]
    write_csv(path, names=(*PIXELS, "Class"), columns=columns)
  else:
    names = {"no names": (), "counted": range(17)}.get(form, ("label", *PIXELS))
    write_csv(path, names=names, quote='"' if form == "quoted" else "")
  if form == "bom":
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
  found = read_csv(path)
  np.testing.assert_array_equal(found.train.images[..., 0], IMAGES)
  np.testing.assert_array_equal(found.train.labels, LABELS)
  assert found.test is None
  dataset = data.load_dataset(f"csv:{path}")
  assert dataset.image_shape == (4, 4, 1)
  assert dataset.class_names == ("0", "1", "2")


def test_the_table_of_the_test_set_stands_beside(tmp_path):
  path = write_csv(tmp_path / "sign_train.csv")
  assert read_csv(path).test is None
  write_csv(
    tmp_path / "sign_test.csv", columns=[LABELS, *255 - IMAGES.reshape(20, 16).T]
  )
  found = read_csv(path)
  np.testing.assert_array_equal(found.test.images[..., 0], 255 - IMAGES)
  assert found.notes == (f"{tmp_path / 'sign_test.csv'} is the test set",)


def test_a_test_table_without_labels_is_not_used(tmp_path):
  """As in Kaggle's competition; before, any table had to be converted."""
  path = write_csv(tmp_path / "train.csv")
  test = tmp_path / "test.csv"
  write_csv(test, names=PIXELS, columns=IMAGES.reshape(20, 16).T)
  found = read_csv(path)
  assert found.test is None
  assert found.notes == (f"{test} has no labels and is not used",)
  with pytest.raises(data.DataError, match="must have a column called label beside"):
    read_csv(test)


BAD_TABLES = [
  ("", "cannot be read as a table of labels and pixels"),
  ("label,pixel0\n", "cannot be read as a table"),
  ("label,pixel0\n1,0.5\n0,1\n", "cannot be read as a table .* '0.5'"),
  ("label,pixel0\n1,\n", "cannot be read as a table"),
  ("label,pixel0\n1,2\n1,2,3\n", "cannot be read as a table"),
  ("label,pixel0\ncat,2\ndog,3\n", "cannot be read as a table .* 'cat'"),
  ("label,pixel0\n1,256\n0,3\n", "must have pixels from 0 to 255, not 3 to 256"),
  ("label,a,b\n1,2,3\n0,3,4\n", r"2 pixels in a row, .*reshape\(-1, H, W, C\)"),
]


@pytest.mark.parametrize(("content", "message"), BAD_TABLES)
def test_another_table_is_refused_in_one_line(content, message, tmp_path):
  path = tmp_path / "mine.csv"
  path.write_text(content)
  with pytest.raises(data.DataError, match=message) as caught:
    read_csv(path)
  assert str(path) in str(caught.value)
  assert "\n" not in str(caught.value)


def test_the_python_in_the_message_converts_the_table(tmp_path, monkeypatch):
  """Images that are not square: the sizes are filled in, the rest is run as it stands."""
  monkeypatch.chdir(tmp_path)
  images = RNG.randint(0, 256, (20, 2, 3)).astype(np.uint8)
  path = write_csv(
    tmp_path / "mine.csv",
    names=("label", *PIXELS[:6]),
    columns=[LABELS, *images.reshape(20, 6).T],
  )
  with pytest.raises(data.DataError) as caught:
    read_csv(path)
  _, _, code = str(caught.value).partition("filled in: ")
  exec(code, {"numpy": np, "H": 2, "W": 3, "C": 1})
  found = data.load_dataset("npz:FILE.npz")
  assert found.image_shape == (2, 3, 1)
  assert found.class_counts.sum() == 20


def svhn(labels):
  images = RNG.randint(0, 256, (len(labels), 5, 6, 3)).astype(np.uint8)
  stored = {"X": np.moveaxis(images, 0, -1), "y": np.array(labels, np.uint8)[:, None]}
  return images, stored


def test_svhn_is_a_dataset_with_its_own_test_set(tmp_path):
  """Class 10 is the digit 0."""
  digits = np.arange(30) % 10 + 1
  images, stored = svhn(digits)
  scipy.io.savemat(tmp_path / "train_32x32.mat", stored)
  test_images, stored = svhn([10, 1, 2])
  scipy.io.savemat(tmp_path / "test_32x32.mat", stored)
  found = read_mat(tmp_path / "train_32x32.mat")
  np.testing.assert_array_equal(found.train.images, images)
  np.testing.assert_array_equal(found.train.labels, digits % 10)
  np.testing.assert_array_equal(found.test.images, test_images)
  assert found.test.labels.tolist() == [0, 1, 2]
  assert found.num_classes == 10
  assert found.notes == (f"{tmp_path / 'test_32x32.mat'} is the test set",)


@pytest.mark.parametrize(
  ("train", "test", "expected"),
  [
    ([*range(1, 11)], [10, 2], [0, 2]),  # SVHN
    ([*range(11)], [1, 10], [1, 10]),  # eleven classes
  ],
)
def test_the_training_set_says_what_class_ten_is(train, test, expected, tmp_path):
  for name, labels in (("train", train), ("test", test)):
    scipy.io.savemat(tmp_path / f"{name}_32x32.mat", svhn(3 * labels)[1])
  found = read_mat(tmp_path / "train_32x32.mat")
  assert found.test.labels.tolist() == 3 * expected
  assert found.num_classes == len(train)


def test_another_mat_file_is_refused_with_python_that_converts_it(
  tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  path = tmp_path / "mine.mat"
  content = {"IMAGES": IMAGES, "LABELS": LABELS[:, None]}
  scipy.io.savemat(path, content)
  with pytest.raises(
    data.DataError, match=r"must hold X .* but has IMAGES .20, 4, 4"
  ) as e:
    read_mat(path)
  _, _, code = str(e.value).partition("arrays: ")
  exec(code, {"numpy": np, "scipy": scipy})
  found = data.load_dataset("npz:FILE.npz")
  assert found.class_counts.sum(0).tolist() == [7, 7, 6]


def test_a_mat_file_that_cannot_be_read_is_refused(tmp_path):
  path = tmp_path / "mine.mat"
  path.write_bytes(b"text")
  with pytest.raises(data.DataError, match=r"cannot be read as a .mat file") as caught:
    read_mat(path)
  assert "\n" not in str(caught.value)
  header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
  path.write_bytes(header + bytes(600))
  with pytest.raises(data.DataError, match=r"version 7\.3\. .* h5py\.File\("):
    read_mat(path)


def test_missing_scipy_is_named_with_its_extra(monkeypatch, tmp_path):
  monkeypatch.setitem(sys.modules, "scipy.io", None)
  with pytest.raises(
    data.DataError, match=r"pip install '\.\[data\]' in a checkout of ramjax"
  ):
    read_mat(tmp_path / "mine.mat")
