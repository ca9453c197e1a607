"""User images in arrays: an `.npz` file, a `.csv` table, a `.mat` file of SVHN's form."""

from __future__ import annotations

import csv
import math
import pathlib
import warnings
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from ramjax import fields
from ramjax.data.idx import DataError
from ramjax.data.splits import Split, Stored, check_split, fingerprint

RENUMBER = "labels = numpy.searchsorted(numpy.unique(labels), labels)"
"""Python that numbers classes, numbers or words, from 0 without gaps."""

_LABEL_COLUMNS = ("label", "labels", "class", "target", "y")


def read_npz(path: pathlib.Path) -> Stored:
  """Reads images and classes from an `.npz` file, the format of `numpy.savez`.

  The file has the arrays `images` [M, H, W] or [M, H, W, C], uint8, and `labels` [M],
  integers from 0. A test set is optional: `test_images` and `test_labels`. Other arrays
  are ignored. The number of classes is the highest label plus one.

  Args:
    path: the file.

  Returns:
    Images and classes.

  Raises:
    DataError: if the file cannot be read or lacks an array, if an array has the wrong
      dtype or shape, if a label is out of range, or if there is only one class.
  """
  names = ("images", "labels", "test_images", "test_labels")
  try:
    with path.open("rb") as opened:
      if not zipfile.is_zipfile(opened):
        raise DataError(f"{path} cannot be read as an .npz file{_use_instead(path)}")
    with (
      warnings.catch_warnings(action="ignore"),  # for headers written by Python 2
      np.load(path, allow_pickle=False) as file,
    ):
      found = sorted(file.files)
      arrays = {name: _numbers(path, file, name) for name in names if name in file}
  except DataError:
    raise
  except Exception as error:  # zipfile, zlib and NumPy raise many types of errors
    raise DataError(
      f"{path} cannot be read as an .npz file ({fields.one_line(error)})"
    ) from error
  needed = names if {"test_images", "test_labels"} & set(arrays) else names[:2]
  for name in needed:
    if name not in arrays:
      raise DataError(
        f"{path} must hold the arrays {', '.join(needed)}, but has no {name}. It has"
        f" {', '.join(found) or 'none'}. This writes such a file:"
        " numpy.savez('FILE.npz', images=..., labels=...)"
      )
  splits = [
    make_split(path, images.removesuffix("images"), arrays[images], arrays[labels])
    for images, labels in zip(needed[::2], needed[1::2], strict=True)
  ]
  return make_stored(str(path), splits[0], test=splits[1] if splits[1:] else None)


def _numbers(path: pathlib.Path, file: Any, name: str) -> np.ndarray:
  """An array of an `.npz` file."""
  try:
    return np.asarray(file[name])
  except ValueError as error:
    if "allow_pickle" not in str(error):
      raise
    remedy = RENUMBER if "labels" in name else "images = images.astype('uint8')"
    raise DataError(
      f"{path} has Python objects in {name}; write numbers: {remedy}"
    ) from error


def _use_instead(path: pathlib.Path) -> str:
  """What to do with a file that is no `.npz` file."""
  kind = path.suffix.lower()[1:]
  if kind in ("csv", "mat"):
    return f"; give --dataset={kind}:{path}"
  with path.open("rb") as opened:
    one_array = opened.read(6) == b"\x93NUMPY"
  what = "holds one array" if one_array else "is no zip archive, or is cut short"
  return (
    f", as it {what}; this writes such a file:"
    " numpy.savez('FILE.npz', images=images, labels=labels)"
  )


def read_csv(path: pathlib.Path) -> Stored:
  """Reads images and classes from a table with an image in each row, as on Kaggle.

  The columns are the class, a number from 0, and the pixels of a square grey image, row
  by row, from 0 to 255. Without a line of names, or where it counts the columns, the class
  is the first column. Else it is the column called `label` (or `class`, `target`, `y`).

  Where the name of the file has the word `train`, and a table of the same name with
  `test` stands beside it, this is the test set, if it has classes.

  Args:
    path: the file.

  Returns:
    Images and classes.

  Raises:
    DataError: if the file cannot be read, is no such table, or as in `read_npz`.
  """
  train = _csv_split(path)
  if train is None:
    raise DataError(
      f"{path} must have a column called label beside the pixels, separated by commas; the"
      " first line names the columns, if it is not an image"
    )
  beside = _test_beside(path)
  test = _csv_split(beside) if beside else None
  notes: tuple[str, ...] = ()
  if beside:
    how = "is the test set" if test else "has no labels and is not used"
    notes = (f"{beside} {how}",)
  return make_stored(str(path), train, test=test, notes=notes)


def _csv_split(path: pathlib.Path) -> Split | None:
  """The images of a table; None if it has no column of classes."""
  try:
    with path.open(newline="", encoding="utf-8-sig") as file:
      first = next(csv.reader(file), [])
    names = [word.strip().lower() for word in first]
    numbered = names == [str(number) for number in range(len(names))]  # by pandas
    named = numbered or not all(word.isdecimal() for word in names)
    column = next((i for i, n in enumerate(names) if n in _LABEL_COLUMNS), None)
    if named and not numbered and column is None:
      return None
    with warnings.catch_warnings(action="error"):  # no numbers, or no integers
      table = np.loadtxt(
        path,
        dtype=np.int32,
        delimiter=",",
        comments=None,
        skiprows=int(named),
        quotechar='"',
        encoding="utf-8-sig",
        ndmin=2,
      )
  except Exception as error:  # Python and NumPy raise many types of errors
    raise DataError(
      f"{path} cannot be read as a table of labels and pixels ({fields.one_line(error)})"
    ) from error
  labels = table[:, column or 0]
  pixels = np.delete(table, column or 0, axis=1)
  side = math.isqrt(pixels.shape[1])
  if side * side != pixels.shape[1] or not side:
    raise DataError(
      f"{path} has {pixels.shape[1]} pixels in a row, which is no square. This converts"
      f" it, with H, W and C filled in: table = numpy.loadtxt('{path}', int,"
      f" delimiter=',', skiprows={int(named)}); numpy.savez('FILE.npz',"
      " images=table[:, 1:].reshape(-1, H, W, C).astype('uint8'), labels=table[:, 0])"
    )
  if pixels.min() < 0 or pixels.max() > 255:
    raise DataError(
      f"{path} must have pixels from 0 to 255, not {pixels.min()} to {pixels.max()}"
    )
  images = pixels.astype(np.uint8).reshape(-1, side, side)
  return make_split(path, "", images, labels)


def read_mat(path: pathlib.Path) -> Stored:
  """Reads images and classes from a `.mat` file of the form of SVHN (cropped digits).

  The file has the arrays `X` [H, W, C, M], uint8, and `y` [M, 1]. In SVHN, class 10 is
  the digit 0; so where the training set has classes 1 to 10, they become 1 to 9 and 0.
  For `train_32x32.mat`, the file `test_32x32.mat` beside it is the test set, see
  `read_csv`.

  Args:
    path: the file.

  Returns:
    Images and classes.

  Raises:
    DataError: if SciPy is not installed, if the file cannot be read or lacks an array, or
      as in `read_npz`.
  """
  beside = _test_beside(path)
  train, test = _mat_split(path), _mat_split(beside) if beside else None
  if train.labels.size and (train.labels.min(), train.labels.max()) == (1, 10):
    train = train._replace(labels=train.labels % 10)
    test = test and test._replace(labels=test.labels % 10)
  notes = (f"{beside} is the test set",) if beside else ()
  return make_stored(str(path), train, test=test, notes=notes)


def _mat_split(path: pathlib.Path) -> Split:
  """The images of one file."""
  try:
    from scipy.io import loadmat
  except ImportError as error:
    raise DataError(
      f"SciPy, which reads .mat files, cannot be imported ({error}); pip install"
      " '.[data]' in a checkout of ramjax"
    ) from error
  try:
    content = loadmat(path)
  except NotImplementedError as error:  # MATLAB 7.3, which is HDF5
    raise DataError(
      f"{path} is a .mat file of version 7.3. This converts it, with the names of its"
      f" arrays: file = h5py.File('{path}'); numpy.savez('FILE.npz',"
      " images=numpy.transpose(file['X'], (0, 3, 2, 1)), labels=numpy.ravel(file['y']))"
    ) from error
  except Exception as error:  # SciPy raises many types of errors
    raise DataError(
      f"{path} cannot be read as a .mat file ({fields.one_line(error)})"
    ) from error
  found = {name: value for name, value in content.items() if name[:2] != "__"}
  if "X" not in found or "y" not in found or np.ndim(found["X"]) != 4:
    shapes = (f"{name} {list(np.shape(value))}" for name, value in found.items())
    raise DataError(
      f"{path} must hold X [H, W, C, M] and y [M, 1] as the files of SVHN, but has"
      f" {', '.join(shapes) or 'nothing'}. This converts it, with the names of its"
      f" arrays: content = scipy.io.loadmat('{path}'); numpy.savez('FILE.npz',"
      " images=content['IMAGES'], labels=content['LABELS'].ravel())"
    )
  images = np.ascontiguousarray(np.moveaxis(found["X"], -1, 0))
  return make_split(path, "", images, found["y"].ravel())


def _test_beside(path: pathlib.Path) -> pathlib.Path | None:
  """The file of the test set beside that of the training set; None if there is none."""
  before, found, after = path.name.rpartition("train")
  test = path.with_name(f"{before}test{after}")
  return test if found and test.is_file() else None


def make_split(path: pathlib.Path, part: str, images: Any, labels: Any) -> Split:
  """A checked split of arrays.

  Args:
    path: where they are from, for messages.
    part: the prefix of their names, for messages.
    images: [M, H, W] or [M, H, W, C], uint8.
    labels: [M], integers from 0.

  Returns:
    The split.

  Raises:
    DataError: see `read_npz`.
  """
  if images.dtype != np.uint8:
    raise DataError(
      f"{path} {part}images must be uint8, 0 to 255, not {images.dtype}; convert them"
    )
  if images.ndim == 3:
    images = images[..., None]
  if images.ndim == 4 and images.shape[1] in (1, 3, 4) and images.shape[3] > 4:
    raise DataError(
      f"{path} {part}images must be [M, H, W, C], but {list(images.shape)} looks like"
      " [M, C, H, W]; convert them: images = images.transpose(0, 2, 3, 1)"
    )
  if labels.dtype.kind in "US":
    raise DataError(f"{path} {part}labels are words; number them: {RENUMBER}")
  num_classes = 1
  if labels.size and np.issubdtype(labels.dtype, np.integer):
    lowest, highest = int(labels.min()), int(labels.max())
    # A huge label would make a network with one output for each class below it.
    if lowest < 0 or highest >= max(len(images), 256):
      worst = lowest if lowest < 0 else highest
      raise DataError(
        f"{path} {part}labels must number the classes from 0, but label"
        f" {int(np.argmax(labels.ravel() == worst))} is {worst}; renumber them:"
        f" {RENUMBER}"
      )
    num_classes = highest + 1
  name = f"{path} {part}".rstrip(" _")
  split = check_split(Split(images, labels), name=name, num_classes=num_classes)
  return Split(split.images, split.labels.astype(np.int32))


def make_stored(
  source: str,
  train: Split,
  *,
  validation: Split | None = None,
  test: Split | None = None,
  class_names: Sequence[str] = (),
  **more: Any,
) -> Stored:
  """The content of a source of user images, checked for consistency.

  Args:
    source: description of the source.
    train: training images.
    validation: validation images; None sets some of the training images aside.
    test: test images; None sets some of the training images aside.
    class_names: names of the classes; without names the highest label says how many
      there are, and the names are numbers.
    **more: further fields of `Stored`.

  Returns:
    Images and classes.

  Raises:
    DataError: if the splits have images of several sizes, or there is one class.
  """
  given = {
    name: split
    for name, split in (("validation", validation), ("test", test))
    if split is not None
  }
  if len(np.unique(train.labels)) < 2:
    raise DataError(
      f"{source} must have images of at least two classes to train on, but all labels"
      f" are {train.labels[0]}"
    )
  for name, split in given.items():
    if split.images.shape[1:] != train.images.shape[1:]:
      shapes = [" x ".join(map(str, s.images.shape[1:])) for s in (train, split)]
      raise DataError(
        f"{source} must have {name} images of the size of the training images,"
        f" {shapes[0]}, not {shapes[1]}"
      )
  num_classes = 1 + max(int(s.labels.max()) for s in (train, *given.values()))
  none = Split(train.images[:0], train.labels[:0])
  summed = (train, test or none, validation) if validation else (train, test)
  names = tuple(class_names) or tuple(map(str, range(num_classes)))
  return Stored(
    source=source,
    num_classes=len(names),
    train=train,
    sha256=fingerprint(*summed),
    class_names=names,
    by_class=True,
    validation=validation,
    test=test,
    **more,
  )
