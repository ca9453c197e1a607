"""Drawings that a browser sends, made like the images that a model was trained on."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image, ImageOps

import ramjax
from experiments.runs import shown
from ramjax.data import DataError, folders

_HEAD = "data:image/png;base64,"
_MOST_CHARACTERS = 4_000_000
_MOST_PIXELS = 1_000_000
"""A drawing may have so many characters, and so many pixels; the pad sends far fewer."""

_LONGEST = 8
"""No side may be so many times as long as the other."""

_CONTRAST = 32
"""Grey levels that differ by less look alike."""


def read(address: object, model: ramjax.Predictor) -> np.ndarray:
  """A drawing as a model looks at it.

  Transparent pixels are white paper. Models of MNIST and Fashion-MNIST get what
  `ramjax.data.scans` makes of the drawing. Others get it in the size of their training,
  and white on black if their images are dark. Nothing is written to the disk.

  Args:
    address: a PNG as the data URL that a browser makes of a canvas.
    model: the model.

  Returns:
    [H, W, C], uint8.

  Raises:
    DataError: if it is no such address, is too large, or shows nothing.
  """
  drawing = _decoded(address)
  paper = Image.new("RGBA", drawing.size, "white")
  sheet = Image.alpha_composite(paper, drawing).convert("RGB")
  if np.ptp(np.asarray(sheet), axis=(0, 1)).max() < _CONTRAST:
    raise DataError("nothing can be seen on it: its pixels are nearly all alike")
  if not shown.is_made_alike(model):
    return _like_own(shown.prepare(np.asarray(_fitted(sheet, model)), model)[0], model)
  if np.asarray(drawing)[..., 3].min() < 255:
    # It is no photo, on which ink that touches the border is not part of the digit.
    sheet = ImageOps.expand(sheet, max(sheet.size) // 10, "white")
  return shown.prepare(np.asarray(sheet), model)[0]


def _fitted(sheet: Image.Image, model: ramjax.Predictor) -> Image.Image:
  """A sheet in the size of the images of a model's training."""
  resize = model.config.train.resize
  if resize:  # `shown.prepare` fills what is missing as in the training
    return ImageOps.contain(sheet, folders.size_of(resize)[::-1])
  height, width, _ = model.config.model.image_shape
  return ImageOps.pad(sheet, (width, height), color="white")


def _like_own(image: np.ndarray, model: ramjax.Predictor) -> np.ndarray:
  """An image [H, W, C]; a grey one on a bright ground as a negative if the model's are dark."""
  border = np.concatenate([*image[[0, -1]], *image[:, [0, -1]].transpose(1, 0, 2)])
  is_negative = np.median(border) > 127 and np.mean(model.info.mean) < 0.5
  return 255 - image if image.shape[-1] == 1 and is_negative else image


def address(drawing: Image.Image) -> str:
  """The data URL of a drawing, as a browser makes it."""
  file = io.BytesIO()
  drawing.save(file, "PNG")
  return _HEAD + base64.b64encode(file.getvalue()).decode()


def _decoded(address: object) -> Image.Image:
  """The PNG of an address, RGBA; a large one is refused before it is decoded."""
  if not isinstance(address, str) or not address.startswith(_HEAD):
    raise DataError("it is no PNG as a data URL")
  if len(address) > _MOST_CHARACTERS:
    raise DataError("it is too large")
  try:
    content = base64.b64decode(address.removeprefix(_HEAD), validate=True)
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
      width, height = image.size
      if width * height > _MOST_PIXELS:
        raise DataError("it is too large")
      if max(image.size) > _LONGEST * min(image.size):
        raise DataError("it is too narrow")
      return image.convert("RGBA")
  except DataError:
    raise
  except Exception as error:  # Pillow raises errors of many types
    raise DataError("it cannot be read as an image") from error
