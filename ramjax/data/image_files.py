"""Image files, read as a viewer shows them: upright, and transparency composed."""

from __future__ import annotations

import pathlib
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ramjax.data.idx import DataError

_GREY = ("1", "L", "LA")
_COLOURED = ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr")
_ORIENTATION = 0x0112
"""The number of EXIF's tag for the orientation of the camera."""


class Pixels(NamedTuple):
  """The pixels of image files.

  Attributes:
    arrays: one array [h, w, C] a file, uint8, all with the same C, 1 or 3.
    notes: what was done to them, for the user.
    sizes: height and width of each file's image, upright and not resized.
    num_pages: number of pages or frames of each file, of which the first one is read.
  """

  arrays: list[np.ndarray]
  notes: tuple[str, ...]
  sizes: list[tuple[int, int]]
  num_pages: list[int]


def read(
  files: Sequence[pathlib.Path],
  *,
  size: tuple[int, int] | None = None,
  transparent_as: str = "white",
) -> Pixels:
  """Reads image files.

  An image is turned as its EXIF orientation says. Of several pages or frames, the first
  one is read. Transparent pixels show a white or black ground. If any image has colours,
  all get three channels.

  Args:
    files: the files, in formats that Pillow reads.
    size: height and width into which each image is resized, with its aspect kept, so that
      one of its sides may be shorter. None keeps the sizes.
    transparent_as: the ground of transparent pixels, `white` or `black`.

  Returns:
    Pixels of each file.

  Raises:
    DataError: if Pillow is not installed, a file is no image of 8 bits a channel, or it
      has more pixels than Pillow thinks safe (`PIL.Image.MAX_IMAGE_PIXELS`).
  """
  try:
    from PIL import Image
  except ImportError as error:
    raise DataError(
      f"Pillow, which reads image files, cannot be imported ({error}); pip install"
      " '.[data]' in a checkout of ramjax"
    ) from error
  arrays: list[np.ndarray] = []
  sizes: list[tuple[int, int]] = []
  num_pages: list[int] = []
  num_turned = num_transparent = num_resized = 0
  for file in files:
    try:
      with _open(file) as opened:
        if opened.mode not in _GREY + _COLOURED:
          what = (
            "more than 8 bits" if opened.mode[0] in "IF" else "another kind of colours"
          )
          raise DataError(
            f"{file} has pixels of {what} (mode {opened.mode}); convert it to 8-bit grey or"
            " colour"
          )
        # The second image of a photo of a phone (MPO) is the same, or smaller.
        pages = 1 if opened.format == "MPO" else getattr(opened, "n_frames", 1)
        whole, turned, image = _upright(opened, size)
        transparent, image = _opaque(image, transparent_as)
        resized, image = _resized(image, size)
        pixels = np.asarray(image)
    except DataError:
      raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
      raise DataError(
        f"{file} has more than {Image.MAX_IMAGE_PIXELS:,} pixels; make it smaller"
      ) from error
    except FileNotFoundError as error:
      raise DataError(f"{file} does not exist") from error
    except IsADirectoryError as error:
      raise DataError(f"{file} is a folder, not an image") from error
    except Exception as error:  # each format of Pillow raises its own types of errors
      raise DataError(
        f"{file} cannot be read as an image; convert it to PNG or JPEG, or move it"
        " elsewhere"
      ) from error
    num_turned += turned
    num_transparent += transparent
    num_resized += resized
    sizes.append(whole)
    num_pages.append(pages)
    arrays.append(pixels if pixels.ndim == 3 else pixels[..., None])
  channels = max(array.shape[-1] for array in arrays)
  other = "black" if transparent_as == "white" else "white"
  num_several = sum(number > 1 for number in num_pages)
  notes = {
    f"{num_turned} turned upright as EXIF says": num_turned,
    f"{num_transparent} with transparent pixels on {transparent_as}"
    f" (--transparent_as={other} for the other)": num_transparent,
    f"{num_resized} resized": num_resized,
    f"{num_several} with several pages, of which the first is read": num_several,
  }
  return Pixels(
    [np.broadcast_to(a, (*a.shape[:2], channels)) for a in arrays],
    tuple(note for note, count in notes.items() if count),
    sizes,
    num_pages,
  )


def _open(file: pathlib.Path) -> Any:
  """An image file, opened by Pillow; huge ones are refused before they are decoded."""
  from PIL import Image

  with warnings.catch_warnings():
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    return Image.open(file)


def _upright(
  image: Any, size: tuple[int, int] | None
) -> tuple[tuple[int, int], bool, Any]:
  """Height and width upright, whether EXIF says so, and the image, perhaps smaller."""
  from PIL import ImageOps

  orientation = image.getexif().get(_ORIENTATION, 1)
  whole = image.size if orientation in range(5, 9) else image.size[::-1]
  if size is not None:
    # A JPEG is decoded at a fraction of its size, but at twice the size that is needed.
    image.draft(None, (2 * max(size), 2 * max(size)))
  return whole, orientation in range(2, 9), ImageOps.exif_transpose(image)


def _opaque(image: Any, ground: str) -> tuple[bool, Any]:
  """Whether some pixels are transparent, and the image, grey or RGB, on a ground."""
  from PIL import Image

  mode = "L" if image.mode in _GREY else "RGB"
  if not image.has_transparency_data:
    return False, image.convert(mode)
  image = image.convert("RGBA")
  transparent = image.getchannel("A").getextrema()[0] < 255
  base = Image.new("RGBA", image.size, ground)
  return transparent, Image.alpha_composite(base, image).convert(mode)


def _resized(image: Any, size: tuple[int, int] | None) -> tuple[bool, Any]:
  """Whether an image has another size, and the largest one of its aspect that fits."""
  from PIL import ImageOps

  if size is None or image.size == size[::-1]:
    return False, image
  fitted = ImageOps.contain(image, size[::-1])
  if 0 in fitted.size:  # of an image that is very thin
    fitted = image.resize([max(side, 1) for side in fitted.size])
  return True, fitted
