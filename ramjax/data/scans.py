"""Scans, photos and drawings, made like the images of MNIST or Fashion-MNIST.

A model that was trained on MNIST knows white digits of 20 pixels on black, centred. A
photo of a digit is something else. The functions here do to it what was done to the
images of MNIST (http://yann.lecun.com/exdb/mnist) and Fashion-MNIST (Xiao et al., 2017,
section 2, https://arxiv.org/abs/1708.07747). They need Pillow and SciPy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from ramjax.data.idx import DataError

_SIDE = 28
"""Side of an image of MNIST, in pixels."""

_DIGIT = 20
"""Side of the box into which MNIST fits a digit."""

_WORKED_ON = 600
"""Larger images are first reduced to so many pixels a side."""

_CONTRAST = 32
"""Grey levels that differ by so much are not the same surface."""

_INK = 0.3
"""What has so much of the strongest ink is part of the digit."""

_STROKE = 2.0
"""Strokes in MNIST are at least so wide, in pixels of the box."""


class Grid(NamedTuple):
  """Where the pixels of an image lie in another one, of which it was made.

  Attributes:
    origin: row and column of its upper left corner, in pixels of the other.
    step: height and width of one of its pixels, in pixels of the other.
  """

  origin: tuple[float, float] = (0.0, 0.0)
  step: tuple[float, float] = (1.0, 1.0)

  def place(self, row: float, column: float) -> tuple[float, float]:
    """Row and column in the other image; places inside a pixel are fractions."""
    (top, left), (height, width) = self
    return top + height * row, left + width * column

  def part(self, row: int, column: int) -> Grid:
    """The grid of an image that begins there; with numbers below 0, before this one."""
    return Grid(self.place(row, column), self.step)

  def resized(self, shape: tuple[int, ...], to: tuple[int, ...]) -> Grid:
    """The grid of the same image with another number of rows and columns."""
    height, width = self.step
    return Grid(self.origin, (height * shape[0] / to[0], width * shape[1] / to[1]))


Made = tuple[np.ndarray, Grid]
"""An image [H, W, C], uint8, and where its pixels lie in the image it was made of."""


def like_mnist(image: np.ndarray) -> np.ndarray:
  """An image of a digit, as MNIST has them.

  Frames around the sheet of paper are cut off. Ink becomes white and the ground black,
  whichever was darker. Specks, and what touches the border, are removed where something
  else remains. The digit is cropped to its ink, fitted into 20x20 pixels with its aspect
  kept, and set into 28x28 pixels with its centre of mass in the middle. Strokes that
  would be thinner than in MNIST are widened.

  Args:
    image: [H, W, C] of any size, uint8; the channels of a colour are averaged.

  Returns:
    [28, 28, 1], uint8.

  Raises:
    DataError: if all pixels are alike.
  """
  return make_like_mnist(image)[0]


def make_like_mnist(image: np.ndarray) -> Made:
  """`like_mnist`, and where its pixels lie in the image.

  Raises:
    DataError: if all pixels are alike.
  """
  from scipy import ndimage

  ink, grid = _ink(image)
  mask = _main_parts(ink > _INK * ink.max())
  rows, columns = _box(mask)
  near = ndimage.binary_dilation(mask, iterations=max(1, max(mask.shape) // 100))
  ink = np.where(near, ink, 0.0)[rows, columns]
  ink, margin = _widened(ink, mask[rows, columns])
  grid = grid.part(rows.start, columns.start).part(-margin, -margin)
  digit = _fitted(ink, _DIGIT)
  digit *= 255 / digit.max()
  centre = np.array(ndimage.center_of_mass(digit))
  corner = np.round(_SIDE / 2 - centre).astype(int)  # as in MNIST: pixel 14
  return _placed(digit, corner, grid.resized(ink.shape, digit.shape))


def like_fashion_mnist(image: np.ndarray) -> np.ndarray:
  """An image of a garment, as Fashion-MNIST has them.

  Frames around the image are cut off. The garment becomes bright and the ground black,
  whichever was darker. It is cropped, fitted into 28x28 pixels with its aspect kept, and
  centred.

  Args:
    image: [H, W, C] of any size, uint8; the channels of a colour are averaged.

  Returns:
    [28, 28, 1], uint8.

  Raises:
    DataError: if all pixels are alike.
  """
  return make_like_fashion_mnist(image)[0]


def make_like_fashion_mnist(image: np.ndarray) -> Made:
  """`like_fashion_mnist`, and where its pixels lie in the image.

  Raises:
    DataError: if all pixels are alike.
  """
  shade, grid = _ink(image)
  rows, columns = _box(shade > 0.1 * shade.max())
  shade, grid = shade[rows, columns], grid.part(rows.start, columns.start)
  garment = _fitted(shade, _SIDE)
  corner = (_SIDE - np.array(garment.shape)) // 2
  return _placed(garment, corner, grid.resized(shade.shape, garment.shape))


LIKE: Mapping[str, Callable[[np.ndarray], Made]] = {
  "mnist": make_like_mnist,
  "fashion_mnist": make_like_fashion_mnist,
}
"""From the name of a dataset to the function that makes images like its own."""


def _ink(image: np.ndarray) -> tuple[np.ndarray, Grid]:
  """How far each pixel of the sheet is from its ground [h, w], from 0 to 255; its grid."""
  from PIL import Image

  grey = Image.fromarray(np.round(image.mean(axis=-1)).astype(np.uint8))
  if max(grey.size) > _WORKED_ON:
    grey.thumbnail((_WORKED_ON, _WORKED_ON))
  levels = np.asarray(grey, np.float32)
  sheet, grid = _sheet(levels, Grid().resized(image.shape, levels.shape))
  ground = np.median(_border(sheet))
  sides = [np.maximum(side, 0) for side in (ground - sheet, sheet - ground)]
  ink = max(sides, key=lambda side: side[side > _CONTRAST].sum())
  if ink.max() <= _CONTRAST:
    raise DataError(
      "nothing can be seen on it: its pixels are nearly all alike in grey"
    )
  return ink, grid


def _sheet(grey: np.ndarray, grid: Grid) -> tuple[np.ndarray, Grid]:
  """An image [h, w] without the frames around a sheet of paper, and its grid."""
  while True:
    frame = np.median(_border(grey))
    other = np.abs(grey - frame) > _CONTRAST
    if not other.any():
      return grey, grid
    rows, columns = _box(other)
    inner = grey[rows, columns][2:-2, 2:-2]  # its edge is blurred
    if min(inner.shape) < 0.35 * min(grey.shape):  # too small for a sheet: it is ink
      return grey, grid
    edge = _border(inner)
    paper = np.median(edge)
    is_sheet = np.mean(np.abs(edge - paper) < _CONTRAST) > 0.95
    has_ink = np.mean(np.abs(inner - paper) > _CONTRAST) > 0.01
    if not (is_sheet and has_ink and abs(paper - frame) > _CONTRAST):
      return grey, grid
    grey, grid = inner, grid.part(rows.start + 2, columns.start + 2)


def _border(grey: np.ndarray) -> np.ndarray:
  """The pixels on the border of an image."""
  return np.concatenate([*grey[[0, -1]], *grey[:, [0, -1]].T])


def _box(mask: np.ndarray) -> tuple[slice, slice]:
  """Rows and columns of the smallest box around what is true."""
  rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
  return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _main_parts(mask: np.ndarray) -> np.ndarray:
  """The connected parts that are large, and do not touch the border if some do not."""
  from scipy import ndimage

  parts, number = ndimage.label(mask, np.ones((3, 3)))
  sizes = np.bincount(parts.ravel(), minlength=number + 1)
  sizes[0] = 0
  inside = sizes.copy()
  inside[_border(parts)] = 0
  if inside.max() >= 0.002 * mask.size:
    sizes = inside
  return (sizes >= 0.03 * sizes.max())[parts] & mask


def _widened(ink: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, int]:
  """Ink with strokes of at least the width that MNIST has, and its new margin."""
  from scipy import ndimage

  edge = mask.sum() - ndimage.binary_erosion(mask).sum()
  width = 2 * mask.sum() / max(edge, 1)
  missing = _STROKE * max(mask.shape) / _DIGIT - width
  if missing < 1:
    return ink, 0
  margin = int(np.ceil(missing / 2))
  ink = np.pad(ink, margin)
  return ndimage.grey_dilation(ink, size=(2 * margin + 1, 2 * margin + 1)), margin


def _fitted(ink: np.ndarray, side: int) -> np.ndarray:
  """An image [h, w], resized so that its longer side is `side`."""
  from PIL import Image

  height, width = ink.shape
  scale = side / max(height, width)
  size = max(1, round(width * scale)), max(1, round(height * scale))
  resized = Image.fromarray(ink.astype(np.float32)).resize(
    size, Image.Resampling.HAMMING
  )
  return np.clip(np.asarray(resized, np.float32), 0, 255)


def _placed(content: np.ndarray, corner: np.ndarray, grid: Grid) -> Made:
  """An image of 28x28 pixels with a content whose first pixel is at a corner."""
  shape = np.array(content.shape)
  row, column = np.clip(corner, 0, _SIDE - shape).tolist()
  image = np.zeros((_SIDE, _SIDE, 1), np.uint8)
  image[row : row + shape[0], column : column + shape[1], 0] = np.round(content)
  return image, grid.part(-row, -column)
