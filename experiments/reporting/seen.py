"""What a model saw: the pixels that its glimpses covered, and where their boxes are."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from ramjax import patch_origin
from ramjax.config import ModelConfig

_UNSEEN = 90
"""Grey level of pixels that no glimpse has covered."""

_EDGE = np.array([(0, 0), (0, 2), (2, 2), (2, 0), (0, 1), (1, 2), (2, 1), (1, 0)]) / 2
"""Corners of a box from the top left on, and the middles between: row and column."""


def seen_frames(
  image: np.ndarray, locations: np.ndarray, config: ModelConfig
) -> Iterator[np.ndarray]:
  """The pixels of an image that the glimpses up to each one have covered.

  A pixel has the resolution of the sharpest patch that covered it. Other pixels are grey.

  Args:
    image: [H, W, C], uint8.
    locations: of the glimpses [T, 2].
    config: the model.

  Yields:
    T images [H, W, C], uint8.
  """
  height, width, _ = image.shape
  sides = config.patch_sides
  corners_of = {side: corners(locations, (height, width), side) for side in sides}
  layers = {side: np.zeros_like(image) for side in sides}
  covered = {side: np.zeros((height, width), bool) for side in sides}
  for t in range(len(locations)):
    seen = np.full(image.shape, _UNSEEN, np.uint8)
    for side in reversed(sides):  # sharper patches cover wider ones
      row, column = corners_of[side][t]
      factor = side // config.patch_size
      rows = np.arange(max(row, 0), min(row + side, height))
      columns = np.arange(max(column, 0), min(column + side, width))
      if rows.size and columns.size:
        inside = np.ix_(rows, columns)
        blocks = (rows - row) // factor, (columns - column) // factor
        layers[side][inside] = _block_means(image[inside], *blocks)
        covered[side][inside] = True
      seen[covered[side]] = layers[side][covered[side]]
    yield seen


def seen_pixels(
  image: np.ndarray, locations: np.ndarray, config: ModelConfig
) -> np.ndarray:
  """The last of `seen_frames`."""
  *_, last = seen_frames(image, locations, config)
  return last


def corners(
  locations: np.ndarray, image_size: tuple[int, int], side: int
) -> np.ndarray:
  """Row and column of the corner of a patch at each location [T, 2]."""
  found = _origin(jnp.asarray(locations), image_size=image_size, side=side)
  return np.stack(found, axis=-1)


_origin = jax.jit(patch_origin, static_argnames=("image_size", "side"))


def number_places(
  corners: np.ndarray,
  side: int,
  limits: tuple[tuple[float, float], tuple[float, float]],
) -> list[np.ndarray]:
  """Where the numbers of boxes stand, (x, y) each: on the edge, inside the image.

  Boxes often lie on each other. A number takes the place farthest from those before.

  Args:
    corners: row and column of the corner of each box [T, 2].
    side: side of the boxes.
    limits: left and right end of the image, lower and upper end.
  """
  (left, right), (bottom, top) = limits
  margin = 0.045 * max(right - left, bottom - top)
  places: list[np.ndarray] = []
  for row, column in corners:
    ends = np.array([(column + dx, row + dy) for dy, dx in _EDGE * (side - 1)])
    ends = np.clip(
      ends, (left + margin, top + margin), (right - margin, bottom - margin)
    )
    room = [
      min(*(float(np.hypot(*(end - other))) for other in places), 2.5 * margin)
      if places
      else 0.0
      for end in ends
    ]
    places.append(ends[int(np.argmax(room))])
  return places


def _block_means(
  pixels: np.ndarray, row_block: np.ndarray, column_block: np.ndarray
) -> np.ndarray:
  """Pixels [H, W, C], each replaced by the mean of its block.

  Blocks are given by their numbers, of rows [H] and columns [W], in increasing order.
  """
  means = pixels.astype(float)
  for axis, block in enumerate((row_block, column_block)):
    _, first, size = np.unique(block, return_index=True, return_counts=True)
    totals = np.moveaxis(np.add.reduceat(means, first, axis), axis, -1) / size
    means = np.moveaxis(totals.repeat(size, -1), -1, axis)
  return np.round(means)
