"""What all figures have in common: colours, axes, legends, and the files they go to."""

from __future__ import annotations

import pathlib
from typing import Any

import matplotlib
import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.cli import files

INK = "#22272B"
GREY = "#B4BABF"
PALE = "#DDE1E4"

COLORS = {
  "original": "#5B6770",
  "uncertainty": "#E69F00",
  "intrinsic": "#0072B2",
  "both": "#C8321F",
}
"""One colour for each objective, distinguishable with colour blindness."""

MORE_COLORS = (
  *("#0072B2", "#E69F00", "#009E73", "#C8321F", "#CC79A7", "#56B4E9", "#5B6770"),
)
"""Colours of any lines, distinguishable with colour blindness."""

_ENDINGS = {"png": (".png",), "svg": (".svg",), "both": (".png", ".svg")}
"""The values of `--figure_format`, with the endings of the files."""

_SHORT = 12
"""Lines of at most so many points have markers: a single point has no line."""


def figure(width: float, height: float) -> Figure:
  """An empty figure, of a size in inches."""
  return Figure(
    figsize=(width, height), dpi=160, layout="constrained", facecolor="white"
  )


def save(drawn: Figure, path: pathlib.Path, figure_format: str) -> list[pathlib.Path]:
  """Writes a figure: `path`, with the endings that a `--figure_format` asks for.

  Returns:
    The files.
  """
  paths = [path.with_suffix(ending) for ending in _ENDINGS[figure_format]]
  for each in paths:
    # The same figure is the same file: no date, no random names.
    metadata = {"Date": None} if each.suffix == ".svg" else None
    with matplotlib.rc_context({"svg.hashsalt": "ramjax"}), files.whole(each) as new:
      drawn.savefig(new, metadata=metadata)
  return paths


def markers(num_points: int, *, most: int = _SHORT) -> dict[str, Any]:
  """Keyword arguments of a line: markers if it has at most so many points."""
  return {"marker": "o", "ms": 4} if num_points <= most else {}


def tidy(axes: Axes) -> None:
  """Removes frame lines and draws a faint grid."""
  axes.spines[["top", "right"]].set_visible(False)
  axes.grid(axis="y", color=PALE, linewidth=0.6)
  axes.set_axisbelow(True)


def in_percent(axes: Axes) -> None:
  """Writes the vertical axis, of shares that are drawn already, in percent."""
  axes.yaxis.set_major_formatter(ticker.PercentFormatter(1.0))
  low, high = axes.get_ylim()
  axes.set_ylim(max(low, 0.0), min(high, 1.02))


def legend_above(axes: Axes, *, ncols: int) -> None:
  """A legend above the axes, where it covers no data; none if nothing has a label."""
  if axes.get_legend_handles_labels()[1]:
    axes.legend(
      loc="lower left",
      bbox_to_anchor=(0.0, 1.0),
      borderaxespad=0.2,
      frameon=False,
      fontsize=8,
      ncols=ncols,
    )


def shared_legend(drawn: Figure) -> None:
  """A legend of all axes, above them, in as many columns as the figure is wide."""
  labels = [
    label for axes in drawn.axes for label in axes.get_legend_handles_labels()[1]
  ]
  longest = max(map(len, labels), default=1) + 6  # the line before it
  columns = int(drawn.get_figwidth() * 12 / longest)
  drawn.legend(
    loc="outside upper left",
    frameon=False,
    fontsize=9,
    ncols=max(1, min(columns, len(labels))),
  )


def say_if_blank(axes: Axes, reason: str) -> None:
  """Writes into axes without a finite point why they are empty."""
  values = [np.asarray(line.get_ydata(), float) for line in axes.lines]
  if not any(np.isfinite(each).any() for each in values):
    axes.text(
      *(0.5, 0.5, reason),
      transform=axes.transAxes,
      ha="center",
      va="center",
      fontsize=9,
      color=INK,
    )
