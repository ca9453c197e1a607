"""Scans, photos and drawings, made like the images of MNIST or Fashion-MNIST.

A model that was trained on MNIST knows white digits of 20 pixels on black, centred. A
photo of a digit is something else. The functions here do to it what was done to the
images of MNIST (http://yann.lecun.com/exdb/mnist) and Fashion-MNIST (Xiao et al., 2017,
section 2, https://arxiv.org/abs/1708.07747). They need Pillow and SciPy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

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
  from scipy import ndimage

  ink = _ink(image)
  mask = _main_parts(ink > _INK * ink.max())
  rows, columns = _box(mask)
  near = ndimage.binary_dilation(mask, iterations=max(1, max(mask.shape) // 100))
  ink = np.where(near, ink, 0.0)[rows, columns]
  digit = _fitted(_widened(ink, mask[rows, columns]), _DIGIT)
  digit *= 255 / digit.max()
  centre = np.array(ndimage.center_of_mass(digit))
  corner = np.round(_SIDE / 2 - centre).astype(int)  # as in MNIST: pixel 14
  return _placed(digit, corner)


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
  shade = _ink(image)
  rows, columns = _box(shade > 0.1 * shade.max())
  garment = _fitted(shade[rows, columns], _SIDE)
  corner = (_SIDE - np.array(garment.shape)) // 2
  return _placed(garment, corner)


LIKE: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
  "mnist": like_mnist,
  "fashion_mnist": like_fashion_mnist,
}
"""From the name of a dataset to the function that makes images like its own."""


def _ink(image: np.ndarray) -> np.ndarray:
  """How far each pixel of the sheet is from its ground [h, w], from 0 to 255."""
  from PIL import Image

  grey = Image.fromarray(np.round(image.mean(axis=-1)).astype(np.uint8))
  if max(grey.size) > _WORKED_ON:
    grey.thumbnail((_WORKED_ON, _WORKED_ON))
  sheet = _sheet(np.asarray(grey, np.float32))
  ground = np.median(_border(sheet))
  sides = [np.maximum(side, 0) for side in (ground - sheet, sheet - ground)]
  ink = max(sides, key=lambda side: side[side > _CONTRAST].sum())
  if ink.max() <= _CONTRAST:
    raise DataError("nothing can be seen on it: its pixels are nearly all alike")
  return ink


def _sheet(grey: np.ndarray) -> np.ndarray:
  """An image [h, w] without the frames around a sheet of paper."""
  while True:
    frame = np.median(_border(grey))
    other = np.abs(grey - frame) > _CONTRAST
    if not other.any():
      return grey
    rows, columns = _box(other)
    inner = grey[rows, columns][2:-2, 2:-2]  # its edge is blurred
    if min(inner.shape) < 0.35 * min(grey.shape):  # too small for a sheet: it is ink
      return grey
    edge = _border(inner)
    paper = np.median(edge)
    is_sheet = np.mean(np.abs(edge - paper) < _CONTRAST) > 0.95
    has_ink = np.mean(np.abs(inner - paper) > _CONTRAST) > 0.01
    if not (is_sheet and has_ink and abs(paper - frame) > _CONTRAST):
      return grey
    grey = inner


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


def _widened(ink: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """Ink with strokes of at least the width that MNIST has, at its scale."""
  from scipy import ndimage

  edge = mask.sum() - ndimage.binary_erosion(mask).sum()
  width = 2 * mask.sum() / max(edge, 1)
  missing = _STROKE * max(mask.shape) / _DIGIT - width
  if missing < 1:
    return ink
  margin = int(np.ceil(missing / 2))
  ink = np.pad(ink, margin)
  return ndimage.grey_dilation(ink, size=(2 * margin + 1, 2 * margin + 1))


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


def _placed(content: np.ndarray, corner: np.ndarray) -> np.ndarray:
  """An image of 28x28 pixels with a content whose first pixel is at a corner."""
  shape = np.array(content.shape)
  row, column = np.clip(corner, 0, _SIDE - shape)
  image = np.zeros((_SIDE, _SIDE, 1), np.uint8)
  image[row : row + shape[0], column : column + shape[1], 0] = np.round(content)
  return image
