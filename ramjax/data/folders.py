"""User images in a folder of image files, with a folder for each class."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ramjax.data import background as colours
from ramjax.data import image_files
from ramjax.data.idx import DataError
from ramjax.data.info import listed
from ramjax.data.own import make_split, make_stored
from ramjax.data.splits import Stored

_SPLITS: Mapping[str, str] = {
  **dict.fromkeys(("train", "training"), "train"),
  **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
  **dict.fromkeys(("test", "testing"), "test"),
}
"""From the names of folders, in small letters, to the splits that they hold."""

_EXPECTED = "expected are DIR/CLASS/IMAGE, or DIR/SPLIT/CLASS/IMAGE with the splits train, val, test"

_NO_IMAGES = {
  *(".txt", ".md", ".csv", ".tsv", ".json", ".xml", ".yaml", ".yml"),
  *(".html", ".ini", ".db"),
}
"""Endings of files that stand beside images and are left out."""

_Files = dict[str, list[pathlib.Path]]
"""The image files of each class, by the name of the class."""


def read_folder(
  path: pathlib.Path,
  *,
  resize: str | None = None,
  transparent_as: str = "white",
  background: str | None = "border",
) -> Stored:
  """Reads images from a folder with one subfolder of image files for each class.

  Or the folder holds splits: `train` and, if there are any, `val` and `test`, each with
  the subfolders of the classes. A split may also be called `training`; `valid`,
  `validation`, `dev`; `testing`, with small or capital letters.

  Classes are numbered in the natural order of their folders, `2` before `10`. Every file
  must be an image in a format that Pillow reads, see `ramjax.data.image_files.read`.
  Hidden files are ignored. Files of text and tables are left out, and a note says so.

  Args:
    path: the folder.
    resize: size to which images are resized, such as `48x64` (height and width). They
      keep their aspect, and the rest is filled with the background. None demands images
      of one size.
    transparent_as: the ground of transparent pixels, `white` or `black`.
    background: the colour of the rest, see `ramjax.data.background.colour_of`; `border`
      is the commonest colour on the borders of the training images, and None the darkest
      value of each image.

  Returns:
    Images and classes.

  Raises:
    DataError: if the folder cannot be read, is built otherwise, a file is not an image,
      the images differ in size, or there is only one class.
    ConfigError: if the background has the wrong number of channels.
  """
  left_out: set[pathlib.Path] = set()
  try:
    parts = {
      part: _files_by_class(folder, left_out)
      for part, folder in _split_folders(path, left_out).items()
    }
  except OSError as error:
    raise DataError(
      f"{error.filename or path} cannot be read ({error.strerror})"
    ) from error
  classes = list(parts["train"])
  _check_classes(path, parts)
  files = [file for part in parts.values() for name in part for file in part[name]]
  size = None if resize is None else size_of(resize)
  read = image_files.read(files, size=size, transparent_as=transparent_as)
  pixels, notes = read.arrays, read.notes
  num_train = sum(map(len, parts["train"].values()))
  filled = None
  if size is None:
    _check_sizes(files, pixels)
  elif any(array.shape[:2] != size for array in pixels):
    if background == "border":
      background = colours.text_of(colours.border_colour(pixels[:num_train]))
    pixels = [pad(array, size, background) for array in pixels]
    filled = background
    shown = "its darkest value" if filled is None else f"the colour {filled}"
    notes += (f"aspect kept, the rest filled with {shown}",)
  if left_out:
    notes += (f"left out: {listed(sorted(file.name for file in left_out), 5)}",)
  images, splits, begin = np.stack(pixels), {}, 0
  for part, of_class in parts.items():
    numbers = [classes.index(name) for name, group in of_class.items() for _ in group]
    end = begin + len(numbers)
    labels = np.array(numbers, np.int32)
    splits[part] = make_split(path, f"{part} ", images[begin:end], labels)
    begin = end
  return make_stored(
    str(path), **splits, class_names=classes, background=filled, notes=notes
  )


def files_in(path: pathlib.Path) -> list[pathlib.Path]:
  """The image files in a folder and its subfolders, in natural order.

  Hidden files are left out, and files of text and tables.

  Raises:
    OSError: if a folder cannot be read.
  """
  folders, images = _entries(path, set())
  return [*images, *(file for folder in folders for file in files_in(folder))]


def _split_folders(
  path: pathlib.Path, left_out: set[pathlib.Path]
) -> dict[str, pathlib.Path]:
  """The folder of each split; the whole folder is for training if there are none."""
  folders = _only_folders(path, left_out)
  split_of = {folder: _SPLITS.get(folder.name.lower()) for folder in folders}
  train = next((folder for folder in folders if split_of[folder] == "train"), None)
  # Vehicles may have a class `train`.
  if train is None or not (
    all(split_of.values()) or any(entry.is_dir() for entry in _visible(train))
  ):
    return {"train": path}
  splits: dict[str, pathlib.Path] = {}
  for folder, split in split_of.items():
    if split is None:
      raise DataError(
        f"{folder} stands beside the split {train.name}, but is no split; {_EXPECTED};"
        " rename it, or move it elsewhere"
      )
    if split in splits:
      raise DataError(
        f"{path} holds {splits[split].name} and {folder.name}, two folders of the"
        f" {split} split; rename one, or move it elsewhere"
      )
    splits[split] = folder
  return {split: splits[split] for split in _SPLITS.values() if split in splits}


def _files_by_class(folder: pathlib.Path, left_out: set[pathlib.Path]) -> _Files:
  """The images in each subfolder of a folder."""
  files = {}
  for each in _only_folders(folder, left_out):
    deeper, files[each.name] = _entries(each, left_out)
    if deeper:
      raise DataError(
        f"{deeper[0]} is a folder in {each.name}, where images are expected;"
        f" {_EXPECTED}; give the folder that holds the classes or splits as DIR"
      )
  return files


def _only_folders(
  folder: pathlib.Path, left_out: set[pathlib.Path]
) -> list[pathlib.Path]:
  """The folders in a folder, which must hold no images."""
  folders, images = _entries(folder, left_out)
  if images:
    raise DataError(
      f"{images[0]} is a file where a folder for each class is expected; move it into"
      f" the folder of its class; {_EXPECTED}"
    )
  return folders


def _check_classes(path: pathlib.Path, parts: Mapping[str, _Files]) -> None:
  """Checks that there are classes, and that training has all of them."""
  train = parts["train"]
  if len(train) < 2:
    raise DataError(
      f"{path} must have a folder for each of at least two classes, not {len(train)};"
      f" {_EXPECTED}"
    )
  for part, files in parts.items():
    empty = [name for name, group in files.items() if not group]
    if empty and (part == "train" or len(empty) == len(files)):
      raise DataError(
        f"{path} holds no {part} images of the class {empty[0]}; add images, or move"
        " its folder elsewhere"
      )
    unknown = [name for name in files if name not in train]
    if unknown:
      raise DataError(
        f"{path} has {part} images of the class {unknown[0]}, but no train images of"
        f" it; the classes to train on are {listed([*train], 5)}"
      )


def _check_sizes(files: Sequence[pathlib.Path], pixels: Sequence[np.ndarray]) -> None:
  """Checks that all images have the size of the first one."""
  height, width = pixels[0].shape[:2]
  for file, array in zip(files, pixels, strict=True):
    if array.shape[:2] != (height, width):
      raise DataError(
        f"all images must have one size: {file} is {array.shape[1]} x"
        f" {array.shape[0]} pixels, {files[0]} is {width} x {height};"
        " resize them, in training by --resize=HEIGHTxWIDTH, such as --resize=64x64"
      )


def size_of(resize: str) -> tuple[int, int]:
  """Height and width of a size such as `48x64`."""
  height, width = map(int, resize.split("x"))
  return height, width


def pad(
  pixels: np.ndarray, size: tuple[int, int], background: str | None
) -> np.ndarray:
  """An image [h, w, C] in the middle of an image of a size [H, W, C]."""
  height, width, channels = pixels.shape
  padded = np.empty((*size, channels), np.uint8)
  if background is None:
    padded[:] = pixels.min()
  else:
    padded[:] = colours.colour_of(background, channels=channels)
  row, column = padding(pixels, size)
  padded[row : row + height, column : column + width] = pixels
  return padded


def padding(pixels: np.ndarray, size: tuple[int, int]) -> tuple[int, int]:
  """Row and column at which `pad` sets an image [h, w, C] into one of a size."""
  height, width, _ = pixels.shape
  return (size[0] - height) // 2, (size[1] - width) // 2


def _entries(
  folder: pathlib.Path, left_out: set[pathlib.Path]
) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
  """The folders and the image files in a folder; adds other files to `left_out`."""
  folders, images = [], []
  for entry in _visible(folder):
    if entry.is_dir():
      folders.append(entry)
    elif entry.suffix.lower() in _NO_IMAGES:
      left_out.add(entry)
    else:
      images.append(entry)
  return folders, images


def _visible(folder: pathlib.Path) -> list[pathlib.Path]:
  """The entries of a folder that are not hidden, in natural order."""
  hidden = (".", "__MACOSX")
  entries = (path for path in folder.iterdir() if not path.name.startswith(hidden))
  return sorted(entries, key=lambda path: _natural(path.name))


def _natural(name: str) -> tuple[Any, ...]:
  """A key that sorts `2` before `10`."""
  words = re.split(r"([0-9]+)", name)  # every second one is a number
  return tuple(int(w) if i % 2 else w for i, w in enumerate(words)), name
