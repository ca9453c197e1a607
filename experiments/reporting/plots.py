"""All figures, as PNG files drawn from measured results."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps, ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from experiments.reporting.statistics import by_objective, half_width
from ramjax import patch_origin
from ramjax.config import ModelConfig
from ramjax.rollouts import Rollout

COLORS = {
  "original": "#5B6770",
  "uncertainty": "#E69F00",
  "intrinsic": "#0072B2",
  "both": "#C8321F",
}
"""One colour for each objective, distinguishable with colour blindness."""

_WIDTHS = {"original": 3.0, "uncertainty": 1.4, "intrinsic": 3.0, "both": 1.4}
"""Widths of lines: where two lines coincide, a narrow one lies on a wide one."""

_INK = "#22272B"
_GREY = "#B4BABF"
_PALE = "#DDE1E4"
_UNSEEN = 90
"""Grey level of pixels that no glimpse has covered."""


def glimpses(
  images: np.ndarray,
  labels: np.ndarray,
  rollout: Rollout,
  config: ModelConfig,
  path: pathlib.Path,
) -> None:
  """The glimpses at each image: their path, the seen pixels, and the predictions.

  The boxes of the path are the smallest patches. The seen pixels have the resolution of
  the sharpest patch that covered them.

  Args:
    images: batch [B, H, W, C], uint8; images without three channels are drawn as the
      mean of their channels.
    labels: true classes [B], integer.
    rollout: T glimpses at each of these images.
    config: the model.
    path: the PNG file to write, as in all functions here.
  """
  num_images, height, width, _ = images.shape
  probs_t = np.asarray(rollout.probs_t)
  num_glimpses, side = len(probs_t), config.patch_size
  highest = np.max(probs_t, initial=0.1, where=np.isfinite(probs_t))
  figure = _figure(1.35 * num_images + 0.5, 5.0)
  grid = figure.subplots(3, num_images, squeeze=False)
  time_colors = colormaps["plasma"](np.linspace(0.3, 0.95, num_glimpses))
  for i, axes in enumerate(grid.T):
    corners = _corners(rollout, i, (height, width), side)
    prediction = int(probs_t[-1, i].argmax())
    correct = prediction == labels[i]
    _show_image(axes[0], images[i])
    centres = corners[:, ::-1] + side / 2 - 0.5
    axes[0].plot(*centres.T, color="white", linewidth=0.8, alpha=0.7)
    for (row, column), color in zip(corners, time_colors, strict=True):
      square = (column - 0.5, row - 0.5)
      axes[0].add_patch(Rectangle(square, side, side, fill=False, ec=color, lw=1.4))
    axes[0].set_title(
      f"{prediction} ({probs_t[-1, i, prediction]:.0%})"
      if correct
      else f"{prediction}, is {labels[i]}",
      color=_INK if correct else COLORS["both"],
      fontsize=9,
    )
    _show_image(axes[1], seen_pixels(images[i], rollout, i, config))
    panel = axes[2]
    steps = np.arange(1, num_glimpses + 1)
    panel.plot(steps, np.delete(probs_t[:, i], labels[i], axis=1), color=_GREY, lw=1)
    panel.plot(steps, probs_t[:, i, labels[i]], color=COLORS["intrinsic"], lw=2)
    panel.set(ylim=(0, 1.05 * highest), xticks=steps[:: -(-num_glimpses // 10)])
    panel.yaxis.set_major_formatter(ticker.PercentFormatter(1.0, decimals=0))
    panel.tick_params(labelsize=7, labelleft=i == 0)
    _tidy(panel)
  names = ("path, purple to yellow", "seen pixels", "probability")
  for axes, name in zip(grid[:, 0], names, strict=True):
    axes.set_ylabel(name, color=_INK, fontsize=9)
  figure.supxlabel(
    "glimpses (blue: probability of the true class)", fontsize=9, color=_INK
  )
  figure.savefig(path)


def learning_curves(lines: Sequence[Mapping[str, Any]], path: pathlib.Path) -> None:
  """Accuracy and the terms of the loss in `metrics.jsonl`, against the step."""
  train = [line for line in lines if line["split"] == "train"]
  validation = [line for line in lines if line["split"] == "validation"]
  figure = _figure(9.0, 3.6)
  accuracy, loss = figure.subplots(1, 2)
  color = COLORS["intrinsic"]
  accuracy.plot(
    *_series(train, "accuracy"), color=color, alpha=0.45, lw=1, label="train"
  )
  accuracy.plot(
    *_series(validation, "accuracy"), "o-", color=color, ms=3.5, label="validation"
  )
  accuracy.set_ylabel("accuracy")
  accuracy.yaxis.set_major_formatter(ticker.PercentFormatter(1.0, decimals=0))
  accuracy.legend(frameon=False, loc="lower right")
  names = [name for name in (train[0] if train else {}) if name.startswith("loss/")]
  for name, line_color in zip(names, colormaps["tab10"](range(10)), strict=False):
    loss.plot(*_series(train, name), color=line_color, lw=1, label=name.split("/")[1])
  loss.set_ylabel("terms of the loss, unweighted")
  loss.set_yscale("symlog", linthresh=0.1)
  if names:
    loss.legend(frameon=False, fontsize=8, ncols=2)
  for axes in (accuracy, loss):
    _tidy(axes)
    axes.set_xlabel("step")
  figure.savefig(path)


def glimpse_generalization(results: Mapping[str, Any], path: pathlib.Path) -> None:
  """Figure 2 of the paper: accuracy and norm of the state against glimpses.

  A line is the mean over the runs of one objective; its band reaches from the lowest to
  the highest run.
  """
  runs = results["runs"]
  figure = _figure(13.0, 4.2)
  accuracy, dynamic, norm = figure.subplots(1, 3, width_ratios=(1.3, 1.0, 1.0))
  for name, group in by_objective(runs).items():
    color = COLORS[name]
    _band(accuracy, group, "accuracy", label=name)
    _band(norm, group, "hidden_norm")
    for run in group:
      x, y = (
        [point[metric] for point in run["dynamic"]]
        for metric in ("mean_glimpses", "accuracy")
      )
      dynamic.plot(x, y, "o-", color=color, mec="white", mew=0.5, ms=4.5, lw=0.8)
  figure.legend(frameon=False, loc="outside upper left", ncols=4, fontsize=9)
  accuracy.set(ylabel="accuracy", ylim=(0, 1.02))
  dynamic.set(ylabel="accuracy", ylim=(0.6, 1.005))
  norm.set(ylabel="l2 norm of the internal state", yscale="log")
  for axes in (accuracy, dynamic):
    axes.yaxis.set_major_formatter(ticker.PercentFormatter(1.0, decimals=0))
  _mark_training(runs, accuracy, dynamic, norm)
  dynamic.set(xlim=(1.5, 10.5), xlabel="mean number of glimpses, one dot for each β")
  titles = ("fixed number", "dynamic stopping, each run", "internal state")
  for axes, title in zip((accuracy, dynamic, norm), titles, strict=True):
    axes.set_title(title, fontsize=9, color=_INK, loc="left")
  figure.savefig(path)


def calibration(results: Mapping[str, Any], path: pathlib.Path) -> None:
  """Calibration error of p and correlation of u with the error, against glimpses."""
  runs = results["runs"]
  figure = _figure(11.0, 3.8)
  error, correlation = figure.subplots(1, 2)
  for name, group in by_objective(runs).items():
    _band(error, group, "calibration_error", label=name)
    _band(correlation, group, "uncertainty_correlation")
  figure.legend(frameon=False, loc="outside upper left", ncols=4, fontsize=9)
  error.set(ylabel="calibration error of the probabilities p", ylim=(0, None))
  correlation.set(ylabel="correlation of u with the true error", ylim=(None, 1.0))
  _mark_training(runs, error, correlation, height=0.93)
  figure.savefig(path)


def convergence(results: Mapping[str, Any], path: pathlib.Path) -> None:
  """Figure 1 of the paper: training accuracy of the objectives against the step.

  A line is the mean over the seeds; its band is the 95 % confidence interval.
  """
  figure = _figure(11.0, 4.2)
  panels = figure.subplots(1, 2)
  averages = {
    "running_mean": "mean since the first step",
    "windowed_mean": f"mean of {results['window']} steps",
  }
  for axes, (average, title) in zip(panels, averages.items(), strict=True):
    for name, curve in results["curves"].items():
      values = np.array(curve[average])
      mean, band = values.mean(axis=0), half_width(values)
      label = name if average == "running_mean" else None
      axes.plot(results["steps"], mean, color=COLORS[name], lw=1.6, label=label)
      axes.fill_between(
        results["steps"], mean - band, mean + band, color=COLORS[name], alpha=0.15, lw=0
      )
    axes.set_title(title, fontsize=9, color=_INK, loc="left")
    axes.set(xlabel="step", ylabel="train accuracy")
    axes.yaxis.set_major_formatter(ticker.PercentFormatter(1.0, decimals=0))
    _tidy(axes)
  figure.legend(frameon=False, loc="outside upper left", ncols=4, fontsize=9)
  figure.savefig(path)


def _band(
  axes: Axes,
  group: Sequence[Mapping[str, Any]],
  metric: str,
  *,
  label: str | None = None,
) -> None:
  """Draws mean and range of a metric over runs of one objective, against glimpses."""
  name = group[0]["objective"]
  color = COLORS[name]
  steps = [point["num_glimpses"] for point in group[0]["fixed"]]
  values = np.array([[point[metric] for point in run["fixed"]] for run in group], float)
  axes.plot(steps, values.mean(axis=0), color=color, lw=_WIDTHS[name], label=label)
  lowest, highest = values.min(axis=0), values.max(axis=0)
  axes.fill_between(steps, lowest, highest, color=color, alpha=0.15, lw=0)


def _mark_training(
  runs: Sequence[Mapping[str, Any]], *panels: Axes, height: float = 0.02
) -> None:
  """Labels the axis of glimpses, and marks the number of glimpses of the training.

  The first panel has a text label at `height`, a fraction of the panel.
  """
  for axes in panels:
    _tidy(axes)
    axes.set_xlabel("glimpses")
    axes.set_xlim(left=0.5)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
  for num_glimpses in {run["train_num_glimpses"] for run in runs}:
    for axes in panels:
      axes.axvline(num_glimpses, color=_PALE, lw=1.2, zorder=0)
    panels[0].annotate(
      f"trained with {num_glimpses}",
      (num_glimpses, height),
      xycoords=("data", "axes fraction"),
      xytext=(4, 0),
      textcoords="offset points",
      fontsize=8,
      color=_INK,
    )


def _figure(width: float, height: float) -> Figure:
  return Figure(
    figsize=(width, height), dpi=160, layout="constrained", facecolor="white"
  )


def _tidy(axes: Axes) -> None:
  axes.spines[["top", "right"]].set_visible(False)
  axes.grid(axis="y", color=_PALE, linewidth=0.6)
  axes.set_axisbelow(True)


def _show_image(axes: Axes, image: np.ndarray) -> None:
  grey = image.shape[-1] != 3
  pixels = image.mean(-1, keepdims=True).repeat(3, -1) if grey else image
  axes.imshow(pixels.astype(np.uint8))
  axes.set(xticks=[], yticks=[])
  axes.set_xlim(-0.5, image.shape[1] - 0.5)
  axes.set_ylim(image.shape[0] - 0.5, -0.5)


def _series(
  lines: Sequence[Mapping[str, Any]], name: str
) -> tuple[np.ndarray, np.ndarray]:
  """Steps and values of a metric; NaN for null or missing values."""
  values = np.array([line.get(name) for line in lines], float)
  return np.array([line["step"] for line in lines]), values


def seen_pixels(
  image: np.ndarray, rollout: Rollout, example: int, config: ModelConfig
) -> np.ndarray:
  """The pixels of an image that the glimpses of a rollout have covered.

  A pixel has the resolution of the sharpest patch that covered it. Other pixels are grey.
  The image, number `example` of a batch, and the result are [H, W, C], uint8.
  """
  height, width, _ = image.shape
  seen = np.full(image.shape, _UNSEEN, np.uint8)
  for scale in reversed(range(config.num_scales)):  # sharper patches cover wider ones
    factor = config.scale_factor**scale
    side = config.patch_size * factor
    for row, column in _corners(rollout, example, (height, width), side):
      rows = np.arange(max(row, 0), min(row + side, height))
      columns = np.arange(max(column, 0), min(column + side, width))
      if rows.size and columns.size:
        inside = np.ix_(rows, columns)
        blocks = (rows - row) // factor, (columns - column) // factor
        seen[inside] = _block_means(image[inside], *blocks)
  return seen


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


def _corners(
  rollout: Rollout, example: int, image_size: tuple[int, int], side: int
) -> np.ndarray:
  """Row and column of the corner of a patch of each glimpse at one image [T, 2]."""
  locations = rollout.location_t[:, example]
  return np.stack(patch_origin(locations, image_size=image_size, side=side), axis=-1)
