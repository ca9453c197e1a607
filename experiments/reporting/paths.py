"""Images with the path of the glimpses on them, as Matplotlib draws them."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps, patheffects
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from experiments.reporting import figures
from experiments.reporting.seen import number_places
from ramjax.config import ModelConfig

_MOST_NUMBERS = 12
"""So many boxes have a number; of more, some."""

_LUMINANCE = np.array([0.30, 0.59, 0.11])
"""How bright red, green and blue are."""


def path_colors(number: int) -> np.ndarray:
  """The colours of so many glimpses, RGBA [T, 4], from purple to yellow."""
  return colormaps["plasma"](np.linspace(0.3, 0.95, number))


def draw_path(
  axes: Axes, corners: np.ndarray, config: ModelConfig, *, num_colors: int | None = None
) -> None:
  """Draws the boxes of the smallest patches, their numbers, and the path.

  Dark edges keep the bright colours visible on bright images.

  Args:
    axes: where an image is shown.
    corners: row and column of the corner of each box [T, 2].
    config: the model.
    num_colors: number of glimpses for which there are colours; None is T.
  """
  side = config.patch_size
  colors = path_colors(num_colors or len(corners))[: len(corners)]
  dark = [patheffects.withStroke(linewidth=2.2, foreground=figures.INK, alpha=0.75)]
  centres = corners[:, ::-1] + side / 2 - 0.5
  many = len(corners) > _MOST_NUMBERS
  thin = {"lw": 0.4, "alpha": 0.7}  # so that many do not hide the image
  line = thin if many else {"lw": 0.8, "alpha": 0.8, "path_effects": dark}
  axes.plot(*centres.T, color="white", **line)
  for t, ((row, column), color) in enumerate(zip(corners, colors, strict=True)):
    square = (column - 0.5, row - 0.5)
    is_thin = many and t < len(corners) - 1
    style = thin if is_thin else {"lw": 1.3, "path_effects": dark}
    axes.add_patch(Rectangle(square, side, side, fill=False, ec=color, **style))
  every = -(-len(corners) // _MOST_NUMBERS)
  numbered = sorted({*range(0, len(corners), every), len(corners) - 1})
  limits = axes.get_xlim(), axes.get_ylim()
  places = number_places(corners[numbered], side, limits)
  for t, (x, y) in zip(numbered, places, strict=True):
    axes.text(
      x,
      y,
      str(t + 1),
      color="white" if colors[t][:3] @ _LUMINANCE < 0.5 else figures.INK,
      fontsize=6,
      fontweight="bold",
      ha="center",
      va="center",
      bbox={"boxstyle": "round,pad=0.12", "fc": colors[t], "ec": "none"},
    )


def show_image(axes: Axes, image: np.ndarray) -> None:
  """Shows an image [H, W, C]; without three channels as the mean of its channels."""
  grey = image.shape[-1] != 3
  pixels = image.mean(-1, keepdims=True).repeat(3, -1) if grey else image
  axes.imshow(pixels.astype(np.uint8))
  axes.set(xticks=[], yticks=[])
  axes.set_xlim(-0.5, image.shape[1] - 0.5)
  axes.set_ylim(image.shape[0] - 0.5, -0.5)


def short(name: str) -> str:
  """The name of a class, not too long, in which Matplotlib reads no formula."""
  return (name if len(name) <= 13 else f"{name[:12]}…").replace("$", r"\$")
