"""The figure of a rollout: where a model looked, what it saw, and how sure it was."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from experiments.reporting import figures
from experiments.reporting.paths import draw_path, short, show_image
from experiments.reporting.seen import corners, seen_pixels
from ramjax import first_decision, is_decided
from ramjax.config import ModelConfig
from ramjax.rollouts import Rollout

_COLUMN = 1.5
"""Width of an image in inches."""

_RATES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8, 1, 1.5, 2, 3, 5, 7, 10)
"""Exploration rates of the paper, and some between them."""

_TRUE, _RIVAL = figures.COLORS["intrinsic"], figures.COLORS["uncertainty"]


def glimpses(
  images: np.ndarray,
  labels: np.ndarray,
  rollout: Rollout,
  config: ModelConfig,
  *,
  class_names: Sequence[str] | None = None,
) -> Figure:
  """The glimpses at each image: their path, the seen pixels, and p.

  The boxes of the path are the smallest patches, with their numbers. The seen pixels have
  the resolution of the sharpest patch that covered them. p are the probabilities
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
    curves = axes[2]
    _draw_probs(curves, probs_t[:, i], error_t[:, i], int(labels[i]), beta, stops[i])
    curves.set_ylim(0, 1.05 * highest)
    curves.tick_params(labelsize=7, labelleft=i == 0)
  names = ("path", "seen pixels", "probability p")
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
    return float(first_decision(jnp.asarray(decided_t(beta))).mean())

  half = (1 + len(probs_t)) / 2
  beta = min(_RATES, key=lambda rate: abs(mean_glimpses(rate) - half))
  decided = decided_t(beta)
  return beta, [int(each.argmax()) + 1 if each.any() else None for each in decided.T]


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


def _draw_probs(
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
  """What the lines of p are."""
  bounds = f"p ± βu, β = {beta:g}"
  return [
    Line2D([], [], color=_TRUE, lw=1.8, label="p of the true class"),
    Line2D([], [], color=_RIVAL, lw=1.8, label="p of its rival"),
    Patch(color=_TRUE, alpha=0.2, lw=0, label=bounds),
    Line2D([], [], color=figures.INK, ls=(0, (3, 2)), lw=1, label="the rule stops"),
  ]
