"""Images that a model is shown: from files to pixels of the kind it was trained on."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from absl import logging
from PIL import Image

import ramjax
from experiments.reporting.looks import Photo
from ramjax.data import DataError, folders, image_files
from ramjax.data.scans import LIKE, Grid, Made

_LUMA = np.array([0.299, 0.587, 0.114])
"""How bright red, green and blue are (ITU-R BT.601), as Pillow converts them."""


_PHOTO = 320
"""So many pixels a side the part of a file has at most that is shown."""

_AROUND = 0.2
"""What is shown around the part of which an image was made, as a share of its side."""

_DARK = 0.2
"""Images of digits have a lower mean, from 0 to 1, as most of their pixels are black."""


class Shown(NamedTuple):
  """An image as a model looks at it.

  Attributes:
    file: where it comes from.
    image: [H, W, C], uint8, of as many channels as the model knows.
    grid: where its pixels lie in the image of the file, upright as a viewer shows it.
    photo: the part of the file of which it was made; None if that is the same.
  """

  file: pathlib.Path
  image: np.ndarray
  grid: Grid = Grid()
  photo: Photo | None = None


def find_files(names: Sequence[str], *, output: pathlib.Path) -> list[pathlib.Path]:
  """The files that names stand for; a folder stands for all images in it.

  Args:
    names: names of files and folders.
    output: a folder that is left out within others: figures of an earlier call.

  Raises:
    DataError: if a folder holds no image.
    OSError: if a folder cannot be read.
  """
  files: list[pathlib.Path] = []
  drawn = output.resolve()
  for path in map(pathlib.Path, names):
    found = folders.files_in(path) if path.is_dir() else [path]
    if path.resolve() in drawn.parents:
      found = [file for file in found if drawn not in file.resolve().parents]
    if not found:
      raise DataError(f"{path} holds no image")
    files += found
  return list(dict.fromkeys(files))  # each once


def read(
  files: Sequence[pathlib.Path], model: ramjax.Predictor, *, as_is: bool = False
) -> tuple[list[Shown], str]:
  """Images for a model, made like those of its training.

  Models of MNIST and Fashion-MNIST get images as in `ramjax.data.scans`, models of
  resized folders get them resized and padded in the same way. Others get them as they
  are. Grey and colour are converted.

  A file that cannot be shown is left out with a warning, unless there is no other.

  Args:
    files: image files, see `ramjax.data.image_files.read`.
    model: the model.
    as_is: whether pixels stay as they are in any case.

  Returns:
    An image for each file that can be shown, and a line that says how they were prepared.

  Raises:
    DataError: if no file can be shown: it is no image, shows nothing, or is smaller than
      a patch.
  """
  train, way = model.config.train, _way(model, as_is)
  channels = model.info.image_shape[-1]
  preparation = {
    "made alike": f"made like those of {train.dataset} (--as_is leaves them as they are)",
    "resized": f"resized to {train.resize}, as in training (--as_is leaves them)",
    "as is": "as they are",
  }[way]
  shown, num_converted, failures = [], 0, []
  for file in files:
    try:
      image, converted = _read_file(file, model, as_is=as_is)
    except DataError as error:
      failures.append(error)
      continue
    shown.append(image)
    num_converted += converted and way != "made alike"
  for failure in failures if shown else failures[1:]:
    logging.warning("%s; left out", failure)
  if not shown:
    raise failures[0]
  if num_converted:
    preparation += (
      f", {num_converted} converted to {'grey' if channels == 1 else 'colour'}"
    )
  return shown, preparation


def _read_file(
  file: pathlib.Path, model: ramjax.Predictor, *, as_is: bool
) -> tuple[Shown, bool]:
  """The image of a file, and whether it had other channels than the model knows.

  White ink on a transparent ground shows nothing on white, and is then seen on black.

  Raises:
    DataError: if it cannot be shown.
  """
  train, least = model.config.train, model.config.model.patch_size
  size = _size(model) if _way(model, as_is) == "resized" else None

  def read_on(ground: str) -> tuple[np.ndarray, Grid, int]:
    found = image_files.read([file], size=size, transparent_as=ground)
    (pixels,), (whole,), (num_pages,) = found.arrays, found.sizes, found.num_pages
    return pixels, Grid().resized(whole, pixels.shape), num_pages

  pixels, grid, num_pages = read_on(train.transparent_as)
  if num_pages > 1:
    logging.warning("%s has %d pages; the first is read", file, num_pages)
  if not np.ptp(pixels):
    pixels, grid, _ = read_on("black" if train.transparent_as == "white" else "white")
  try:
    image, grid = prepare(pixels, model, as_is=as_is, grid=grid)
  except DataError as error:
    raise DataError(f"{file}: {error}") from error
  height, width, _ = image.shape
  if min(height, width) < least:
    raise DataError(
      f"{file} has {height} x {width} pixels, less than a patch of"
      f" the model, {least} x {least}; enlarge it"
    )
  photo = None
  if _way(model, as_is) == "made alike":
    photo = _photo(pixels, image.shape[:2], grid)
  return Shown(file, image, grid, photo), pixels.shape[-1] != model.info.image_shape[-1]


def _photo(pixels: np.ndarray, shape: tuple[int, ...], grid: Grid) -> Photo:
  """The part of a file [H, W, C] of which an image was made, and a little around it."""
  edges = [
    np.array(grid.place(*(share * side for side in shape)))
    for share in (-_AROUND, 1 + _AROUND)
  ]
  (top, left), (bottom, right) = (
    np.clip(np.round(edge), 0, pixels.shape[:2]).astype(int).tolist() for edge in edges
  )
  part = pixels[top:bottom, left:right]
  image = Image.fromarray(part[..., 0] if part.shape[-1] == 1 else part)
  image.thumbnail((_PHOTO, _PHOTO))
  return Photo(np.atleast_3d(np.asarray(image)), (top, left), part.shape[:2])


def warn_of_sizes(images: Sequence[Shown], model: ramjax.Predictor) -> None:
  """Warns of each image that has another size than those of the training."""
  trained = model.config.model.image_shape[:2]
  for file, image, *_ in images:
    ratio = max(image.shape[:2]) / max(trained)
    if not 0.5 < ratio < 2:
      sizes = [" x ".join(map(str, each[:2])) for each in (image.shape, trained)]
      logging.warning(
        "%s has %s pixels, but the model was trained on images of %s: if objects differ"
        " in size, too, the answer means little",
        *(file, *sizes),
      )


def warn_of_ground(images: Sequence[Shown], model: ramjax.Predictor) -> None:
  """Warns of each image with a light ground, if those of the training had a dark one."""
  if max(model.info.mean) > _DARK:
    return
  for file, image, *_ in images:
    border = np.concatenate([*image[[0, -1]], *image[:, [0, -1]].swapaxes(0, 1)])
    if np.median(border) > 255 / 2:
      logging.warning(
        "%s has a light ground, but the model was trained on a dark one: invert the"
        " image, or the answer means little",
        file,
      )


def is_made_alike(model: ramjax.Predictor) -> bool:
  """Whether `ramjax.data.scans` can make images like those of the model's training."""
  return model.info.canvas_size is None and model.config.train.dataset in LIKE


def _way(model: ramjax.Predictor, as_is: bool) -> str:
  """How images are prepared: `made alike`, `resized` or `as is`."""
  if as_is:
    return "as is"
  if is_made_alike(model):
    return "made alike"
  return "resized" if model.config.train.resize else "as is"


def _size(model: ramjax.Predictor) -> tuple[int, int]:
  """Height and width to which the images of a resized folder were resized."""
  assert model.config.train.resize is not None
  return folders.size_of(model.config.train.resize)


def prepare(
  pixels: np.ndarray,
  model: ramjax.Predictor,
  *,
  as_is: bool = False,
  grid: Grid | None = None,
) -> Made:
  """The pixels of an image, made like those of a model's training, see `read`.

  Args:
    pixels: [H, W, C], uint8; for models of resized folders they fit into that size.
    model: the model.
    as_is: whether pixels stay as they are, but for their channels.
    grid: where these pixels lie in the image of the file; None if they are it.

  Returns:
    An image [H, W, C], uint8, of as many channels as the model knows, and where its pixels
    lie in the image of the file.

  Raises:
    DataError: if the image shows nothing, or has channels that cannot be converted.
  """
  way, grid = _way(model, as_is), grid or Grid()
  if way == "made alike":
    pixels, inner = LIKE[model.config.train.dataset](pixels)
    grid = Grid(grid.place(*inner.origin), inner.step)
  elif way == "resized" and pixels.shape[:2] != (size := _size(model)):
    row, column = folders.padding(pixels, size)
    pixels = folders.pad(pixels, size, model.config.train.background)
    grid = grid.part(-row, -column)
  return _converted(pixels, model.info.image_shape[-1]), grid


def _converted(pixels: np.ndarray, channels: int) -> np.ndarray:
  """Pixels [H, W, C] with other channels: colour as grey, and grey as colour."""
  if pixels.shape[-1] == channels:
    return np.ascontiguousarray(pixels)
  if channels == 1:
    return np.round(pixels @ _LUMA)[..., None].astype(np.uint8)
  if channels == 3:
    return pixels.repeat(3, axis=-1)
  raise DataError(
    f"it has {pixels.shape[-1]} channels, and the model was trained on images of"
    f" {channels}, which image files do not have"
  )
