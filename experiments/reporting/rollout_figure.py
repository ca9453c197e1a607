"""The figure of a rollout: where a model looked, what it saw, and what it believed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import jax.numpy as jnp
import numpy as np
from matplotlib import colormaps, patheffects, ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from experiments.reporting import figures
from ramjax import is_decided, patch_origin
from ramjax.config import ModelConfig
from ramjax.rollouts import Rollout

_UNSEEN = 90
"""Grey level of pixels that no glimpse has covered."""

_COLUMN = 1.5
"""Width of an image in inches."""

_MOST_NUMBERS = 12
"""So many boxes have a number; of more, some."""

_RATES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8, 1, 1.5, 2, 3, 5, 7, 10)
"""Exploration rates of the paper, and some between them."""

_EDGE = np.array([(0, 0), (0, 2), (2, 2), (2, 0), (0, 1), (1, 2), (2, 1), (1, 0)]) / 2
"""Corners of a box from the top left on, and the middles between: row and column."""

_LUMINANCE = np.array([0.30, 0.59, 0.11])
"""How bright red, green and blue are."""

_TRUE, _RIVAL = figures.COLORS["intrinsic"], figures.COLORS["uncertainty"]


def glimpses(
  images: np.ndarray,
  labels: np.ndarray,
  rollout: Rollout,
  config: ModelConfig,
  *,
  class_names: Sequence[str] | None = None,
) -> Figure:
  """The glimpses at each image: their path, the seen pixels, and the beliefs.

  The boxes of the path are the smallest patches, with their numbers. The seen pixels have
  the resolution of the sharpest patch that covered them. Beliefs are the probabilities p
  of all classes; those of the true class and of its rival have the bounds p ± βu, which
  the stopping rule compares. The rival is the other class with the highest upper bound
  where the rule stops. β is the rate with which the rule takes about half of the glimpses.

  Args:
    images: batch [B, H, W, C], uint8; images without three channels are drawn as the
      mean of their channels.
    labels: true classes [B], integer.
    rollout: T glimpses at each of these images.
    config: the model.
    class_names: names of the K classes; None writes their numbers.
  """
  num_images, height, width, _ = images.shape
  probs_t, error_t = np.asarray(rollout.probs_t), np.asarray(rollout.predicted_error_t)
  beta, stops = _stops(probs_t, error_t)
  aspect = float(np.clip(height / width, 0.4, 2.5))
  drawn = figures.figure(
    max(6.5, _COLUMN * num_images + 0.6), _COLUMN * (2 * aspect + 1) + 1.1
  )
  grid = drawn.subplots(
    3, num_images, squeeze=False, height_ratios=(aspect, aspect, 0.9)
  )
  bounds = np.where(np.isfinite(probs_t), probs_t, 0.0) + beta * np.nan_to_num(error_t)
  highest = np.clip(bounds.max(), 0.1, 1.0)
  for i, axes in enumerate(grid.T):
    locations = np.asarray(rollout.location_t[:, i])
    show_image(axes[0], images[i])
    draw_path(axes[0], corners(locations, (height, width), config.patch_size), config)
    _set_title(axes[0], probs_t[-1, i], int(labels[i]), class_names)
    show_image(axes[1], seen_pixels(images[i], locations, config))
    belief = axes[2]
    _draw_belief(belief, probs_t[:, i], error_t[:, i], int(labels[i]), beta, stops[i])
    belief.set_ylim(0, 1.05 * highest)
    belief.tick_params(labelsize=7, labelleft=i == 0)
  names = ("path", "seen pixels", "belief")
  for axes, name in zip(grid[:, 0], names, strict=True):
    axes.set_ylabel(name, color=figures.INK, fontsize=9)
  drawn.legend(
    handles=_legend(beta),
    loc="outside lower center",
    ncols=4 if num_images > 5 else 2,
    frameon=False,
    fontsize=8,
  )
  return drawn


def _stops(probs_t: np.ndarray, error_t: np.ndarray) -> tuple[float, list[int | None]]:
  """A rate with which the rule takes about half of the glimpses, and where it stops [B].

  None is an image for which all glimpses are too few.
  """

  def decided_t(beta: float) -> np.ndarray:
    return np.asarray(is_decided(jnp.asarray(probs_t), jnp.asarray(error_t), beta=beta))

  def mean_glimpses(beta: float) -> float:
    decided = decided_t(beta)
    return float(np.where(decided.any(0), decided.argmax(0) + 1, len(decided)).mean())

  half = (1 + len(probs_t)) / 2
  beta = min(_RATES, key=lambda rate: abs(mean_glimpses(rate) - half))
  decided = decided_t(beta)
  return beta, [int(each.argmax()) + 1 if each.any() else None for each in decided.T]


def path_colors(number: int) -> np.ndarray:
  """The colours of so many glimpses, RGBA [T, 4], from purple to yellow."""
  return colormaps["plasma"](np.linspace(0.3, 0.95, number))


def draw_path(
  axes: Axes, corners: np.ndarray, config: ModelConfig, *, of: int | None = None
) -> None:
  """Draws the boxes of the smallest patches, their numbers, and the path.

  Dark edges keep the bright colours visible on bright images.

  Args:
    axes: where an image is shown.
    corners: row and column of the corner of each box [T, 2].
    config: the model.
    of: the number of glimpses for which the colours are; None is T.
  """
  side = config.patch_size
  colors = path_colors(of or len(corners))[: len(corners)]
  dark = [patheffects.withStroke(linewidth=2.2, foreground=figures.INK, alpha=0.75)]
  centres = corners[:, ::-1] + side / 2 - 0.5
  axes.plot(*centres.T, color="white", linewidth=0.8, alpha=0.8, path_effects=dark)
  for (row, column), color in zip(corners, colors, strict=True):
    square = (column - 0.5, row - 0.5)
    box = Rectangle(square, side, side, fill=False, ec=color, lw=1.3, path_effects=dark)
    axes.add_patch(box)
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


def _set_title(
  axes: Axes, probs: np.ndarray, label: int, class_names: Sequence[str] | None
) -> None:
  """The predicted class and its probability; red with the true class if it is wrong."""
  names = class_names or [str(number) for number in range(len(probs))]
  if not np.isfinite(probs).all():
    axes.set_title(
      f"not finite\nis {short(names[label])}",
      color=figures.COLORS["both"],
      fontsize=8.5,
    )
    return
  prediction = int(probs.argmax())
  text = f"{short(names[prediction])}  {probs[prediction]:.0%}"
  wrong = prediction != label
  axes.set_title(
    f"{text}\nis {short(names[label])}" if wrong else text,
    color=figures.COLORS["both"] if wrong else figures.INK,
    fontsize=8.5,
  )


def short(name: str) -> str:
  """The name of a class, not too long, in which Matplotlib reads no formula."""
  return (name if len(name) <= 13 else f"{name[:12]}…").replace("$", r"\$")


def _draw_belief(
  axes: Axes,
  probs_t: np.ndarray,
  error_t: np.ndarray,
  label: int,
  beta: float,
  stop: int | None,
) -> None:
  """Draws probabilities [T, K] of an image, the bounds of two classes, and the stop."""
  steps = np.arange(1, len(probs_t) + 1)
  last = -1 if stop is None else stop - 1
  upper = probs_t[last] + beta * error_t[last]
  upper[label] = -np.inf
  rival = int(np.argmax(np.nan_to_num(upper, nan=-np.inf)))
  others = np.delete(probs_t, [label, rival], axis=1)
  dots = figures.markers(len(steps), most=1)
  axes.plot(steps, others, color=figures.GREY, lw=0.8, **dots)
  for number, color in ((rival, _RIVAL), (label, _TRUE)):
    p, margin = probs_t[:, number], beta * error_t[:, number]
    axes.fill_between(steps, p - margin, p + margin, color=color, alpha=0.2, lw=0)
    axes.plot(steps, p, color=color, lw=1.8, **dots)
  if stop is None:
    axes.text(
      0.97,
      0.95,
      "undecided",
      transform=axes.transAxes,
      ha="right",
      va="top",
      fontsize=7,
      color=figures.INK,
    )
  else:
    axes.axvline(stop, color=figures.INK, lw=1.0, ls=(0, (3, 2)))
  axes.set_xlabel("glimpses", fontsize=7.5, labelpad=2)
  axes.set(xticks=steps[:: -(-len(steps) // 7)], xlim=(0.6, len(steps) + 0.4))
  axes.yaxis.set_major_formatter(ticker.PercentFormatter(1.0, decimals=0))
  figures.tidy(axes)


def _legend(beta: float) -> list[Line2D | Patch]:
  """What the lines of a belief are."""
  bounds = f"p ± βu, β = {beta:g}"
  return [
    Line2D([], [], color=_TRUE, lw=1.8, label="p of the true class"),
    Line2D([], [], color=_RIVAL, lw=1.8, label="p of its rival"),
    Patch(color=_TRUE, alpha=0.2, lw=0, label=bounds),
    Line2D([], [], color=figures.INK, ls=(0, (3, 2)), lw=1, label="the rule stops"),
  ]


def show_image(axes: Axes, image: np.ndarray) -> None:
  grey = image.shape[-1] != 3
  pixels = image.mean(-1, keepdims=True).repeat(3, -1) if grey else image
  axes.imshow(pixels.astype(np.uint8))
  axes.set(xticks=[], yticks=[])
  axes.set_xlim(-0.5, image.shape[1] - 0.5)
  axes.set_ylim(image.shape[0] - 0.5, -0.5)


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
  factors = [config.scale_factor**scale for scale in range(config.num_scales)]
  corners_of = {
    factor: corners(locations, (height, width), config.patch_size * factor)
    for factor in factors
  }
  layers = {factor: np.zeros_like(image) for factor in factors}
  covered = {factor: np.zeros((height, width), bool) for factor in factors}
  for t in range(len(locations)):
    seen = np.full(image.shape, _UNSEEN, np.uint8)
    for factor in reversed(factors):  # sharper patches cover wider ones
      row, column = corners_of[factor][t]
      side = config.patch_size * factor
      rows = np.arange(max(row, 0), min(row + side, height))
      columns = np.arange(max(column, 0), min(column + side, width))
      if rows.size and columns.size:
        inside = np.ix_(rows, columns)
        blocks = (rows - row) // factor, (columns - column) // factor
        layers[factor][inside] = _block_means(image[inside], *blocks)
        covered[factor][inside] = True
      seen[covered[factor]] = layers[factor][covered[factor]]
    yield seen


def seen_pixels(
  image: np.ndarray, locations: np.ndarray, config: ModelConfig
) -> np.ndarray:
  """The last of `seen_frames`."""
  *_, last = seen_frames(image, locations, config)
  return last


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


def corners(
  locations: np.ndarray, image_size: tuple[int, int], side: int
) -> np.ndarray:
  """Row and column of the corner of a patch at each location [T, 2]."""
  found = patch_origin(jnp.asarray(locations), image_size=image_size, side=side)
  return np.stack(found, axis=-1)
