"""User images: arrays in an `.npz` file, or a folder of image files for each class."""

from __future__ import annotations

import pathlib
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from ramjax.data.idx import DataError
from ramjax.data.splits import Split, Stored, check_split, fingerprint

_GREY = ("1", "L", "LA")
_COLOURED = ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr")


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
    with warnings.catch_warnings(action="ignore"):  # for headers written by Python 2
      file = np.load(path, allow_pickle=False)
      if not isinstance(file, np.lib.npyio.NpzFile):
        raise DataError(
          f"{path} holds one array, not images and labels; write it with numpy.savez"
        )
      with file:
        arrays = {name: np.asarray(file[name]) for name in names if name in file}
  except DataError:
    raise
  except Exception as error:  # zipfile, zlib and NumPy raise many types of errors
    raise DataError(
      f"{path} cannot be read as an .npz file ({_one_line(error)})"
    ) from error
  needed = names if {"test_images", "test_labels"} & set(arrays) else names[:2]
  for name in needed:
    if name not in arrays:
      raise DataError(
        f"{path} must hold the arrays {', '.join(needed)}, but has no {name}"
      )
  splits = [
    _make_split(path, images.removesuffix("images"), arrays[images], arrays[labels])
    for images, labels in zip(needed[::2], needed[1::2], strict=True)
  ]
  return _stored(str(path), splits)


def read_folder(path: pathlib.Path) -> Stored:
  """Reads images from a folder with one subfolder of image files for each class.

  Classes are numbered in the alphabetical order of their folders. If the folder holds
  exactly `train` and `test`, each of them has the subfolders of the classes. Every file
  must be an image in a format that Pillow reads; hidden files are ignored. If any image
  has colours, all images get three channels. Transparency is dropped.

  Args:
    path: the folder.

  Returns:
    Images and classes.

  Raises:
    DataError: if the folder cannot be read, a file is not an image, the images differ in
      size, or there is only one class.
  """
  try:
    with_test = [entry.name for entry in _visible_entries(path)] == ["test", "train"]
    parts = [path / "train", path / "test"] if with_test else [path]
    files = [_files_by_class(part) for part in parts]
  except OSError as error:
    raise DataError(
      f"{error.filename or path} cannot be read ({error.strerror})"
    ) from error
  classes = list(files[0])
  if len(classes) < 2:
    raise DataError(
      f"{path} must have a folder for each of at least two classes, not {len(classes)}"
    )
  if list(files[-1]) != classes:
    raise DataError(f"{parts[-1]} must have the same folders of classes as {parts[0]}")
  images = _read_images(
    [file for part in files for group in part.values() for file in group]
  )
  splits, begin = [], 0
  for part in files:
    counts = [len(group) for group in part.values()]
    labels = np.repeat(np.arange(len(counts)), counts)
    splits.append(_make_split(path, "", images[begin : begin + len(labels)], labels))
    begin += len(labels)
  return _stored(str(path), splits)._replace(class_names=tuple(classes))


def _files_by_class(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
  """The files in each subfolder of a folder."""
  files = {}
  for entry in _visible_entries(folder):
    if not entry.is_dir():
      raise DataError(
        f"{folder} must hold one folder for each class and nothing else, but"
        f" {entry.name} is a file"
      )
    files[entry.name] = _visible_entries(entry)
    if not files[entry.name]:
      raise DataError(
        f"{entry} holds no images; add images, or move the folder elsewhere"
      )
  return files


def _make_split(path: pathlib.Path, part: str, images: Any, labels: Any) -> Split:
  """A checked split of arrays; `part` is the prefix of their names, for messages."""
  if images.dtype != np.uint8:
    raise DataError(
      f"{path} {part}images must be uint8, 0 to 255, not {images.dtype}; convert them"
    )
  if images.ndim == 3:
    images = images[..., None]
  num_classes = 1
  if labels.size and np.issubdtype(labels.dtype, np.integer):
    lowest, highest = int(labels.min()), int(labels.max())
    # A huge label would make a network with one output for each class below it.
    if lowest < 0 or highest >= max(len(images), 256):
      worst = lowest if lowest < 0 else highest
      raise DataError(
        f"{path} {part}labels must number the classes from 0, but label"
        f" {int(np.argmax(labels.ravel() == worst))} is {worst}"
      )
    num_classes = highest + 1
  name = f"{path} {part}".rstrip(" _")
  split = check_split(Split(images, labels), name=name, num_classes=num_classes)
  return Split(split.images, split.labels.astype(np.int32))


def _stored(source: str, splits: Sequence[Split]) -> Stored:
  """A training split and, if there are two, a test split, checked for consistency."""
  train, test = splits[0], (splits[1] if len(splits) > 1 else None)
  num_classes = 1 + max(int(split.labels.max()) for split in splits)
  if len(np.unique(train.labels)) < 2:
    raise DataError(
      f"{source} must have images of at least two classes to train on, but all labels"
      f" are {train.labels[0]}"
    )
  if test and test.images.shape[1:] != train.images.shape[1:]:
    shapes = [" x ".join(map(str, split.images.shape[1:])) for split in splits]
    raise DataError(
      f"{source} must have test images of the size of the training images,"
      f" {shapes[0]}, not {shapes[1]}"
    )
  return Stored(source, num_classes, train, test, fingerprint(*splits))


def _read_images(files: Sequence[pathlib.Path]) -> np.ndarray:
  """Images [M, H, W, C], uint8, from files of images of one size."""
  try:
    from PIL import Image
  except ImportError as error:
    raise DataError(
      f"Pillow, which reads image files, cannot be imported ({error}); pip install"
      " 'ramjax[data]'"
    ) from error
  arrays: list[Any] = []
  for file in files:
    try:
      with Image.open(file) as opened:
        if opened.mode not in _GREY + _COLOURED:
          raise DataError(
            f"{file} has pixels of the mode {opened.mode}; convert it to 8-bit grey"
            " or colour"
          )
        grey = opened.mode in _GREY
        pixels = np.asarray(opened.convert("L" if grey else "RGB"))
    except DataError:
      raise
    except Exception as error:  # each format of Pillow raises its own types of errors
      raise DataError(
        f"{file} cannot be read as an image; convert it or move it elsewhere"
      ) from error
    if arrays and pixels.shape[:2] != arrays[0].shape[:2]:
      sizes = [f"{p.shape[1]} x {p.shape[0]}" for p in (arrays[0], pixels)]
      raise DataError(
        f"all images must have one size: {file} is {sizes[1]} pixels, {files[0]} is"
        f" {sizes[0]}; resize them"
      )
    arrays.append(pixels)
  if all(pixels.ndim == 2 for pixels in arrays):
    return np.stack(arrays)[..., None]
  return np.stack(
    [p if p.ndim == 3 else np.repeat(p[..., None], 3, axis=-1) for p in arrays]
  )


def _visible_entries(folder: pathlib.Path) -> list[pathlib.Path]:
  """The entries of a folder that are not hidden, sorted by name."""
  return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _one_line(error: BaseException) -> str:
  return (" ".join(str(error).split()) or type(error).__name__)[:200]
