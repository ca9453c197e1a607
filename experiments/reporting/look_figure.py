"""A figure of one answer: the path of the glimpses, what was seen, the probabilities."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import numpy as np
from matplotlib import animation, ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import ramjax
from experiments.cli import files
from experiments.reporting import figures, looks, paths
from experiments.reporting.looks import Look
from experiments.reporting.seen import corners, seen_frames

_HOLD = 3
"""So many frames the last glimpse of an animation stays."""

_FRAMES_A_SECOND = 2

_PLACES = (
  *((0.012, 0.12, 0.268, 0.76), (0.295, 0.12, 0.268, 0.76), (0.66, 0.17, 0.328, 0.71)),
)
"""Left, bottom, width and height of the axes: a layout computed for each frame is slow."""


def look_figure(look: Look, model: ramjax.Predictor) -> Figure:
  """The figure of an answer, after the last glimpse taken."""
  drawn = _empty()
  *_, seen = _seen_frames(look, model)
  draw_glimpse(drawn, look, model, look.num_glimpses, seen)
  return drawn


def write_animation(look: Look, model: ramjax.Predictor, path: pathlib.Path) -> None:
  """Writes an animated GIF, a frame for each glimpse; the last one stays longer."""
  drawn, taken = _empty(), look.num_glimpses
  seen = list(_seen_frames(look, model))

  def draw(frame: int) -> list[Axes]:
    drawn.clear()
    number = min(frame + 1, taken)
    draw_glimpse(drawn, look, model, number, seen[number - 1])
    return drawn.axes

  moving = animation.FuncAnimation(
    drawn, draw, frames=taken + _HOLD, init_func=list, cache_frame_data=False
  )
  speed = _FRAMES_A_SECOND * max(1, taken // 12)
  with files.whole(path) as new:
    moving.save(new, writer=animation.PillowWriter(fps=speed), dpi=100)


def _empty() -> Figure:
  return Figure(figsize=(6.8, 2.4), dpi=160, facecolor="white")


def _seen_frames(look: Look, model: ramjax.Predictor) -> Iterator[np.ndarray]:
  """What the model has seen after each glimpse taken."""
  locations = np.asarray(look.answer.location_t)[: look.num_glimpses]
  return seen_frames(look.image, locations, model.config.model)


def draw_glimpse(
  drawn: Figure, look: Look, model: ramjax.Predictor, number: int, seen: np.ndarray
) -> None:
  """Draws what is known after a number of glimpses, and what was seen, into a figure."""
  path, so_far, bars = map(drawn.add_axes, _PLACES)
  config, answer = model.config.model, look.answer
  locations, size = np.asarray(answer.location_t), look.image.shape[:2]
  paths.show_image(path, look.image)
  paths.draw_path(
    path,
    corners(locations, size, config.patch_size)[:number],
    config,
    num_colors=look.num_glimpses,
  )
  paths.show_image(so_far, seen)
  path.set_title(f"glimpse {number}", fontsize=9, color=figures.INK)
  so_far.set_title("seen so far", fontsize=9, color=figures.INK)
  _draw_probs(bars, look, model, number)


def _draw_probs(axes: Axes, look: Look, model: ramjax.Predictor, number: int) -> None:
  """Bars of p with u as error bars, and the bound above which the model stops."""
  shown = looks.most_probable(look)
  probs = np.asarray(look.answer.probs_t)[number - 1]
  error = np.asarray(look.answer.predicted_error_t)[number - 1]
  rate = 1.0 if look.beta is None else look.beta
  margin = rate * error
  best = int(np.nan_to_num(probs, nan=-1).argmax())
  colors = [
    figures.COLORS["intrinsic"] if each == best else figures.GREY for each in shown
  ]
  axes.bar(range(len(shown)), probs[shown], color=colors, width=0.75)
  axes.errorbar(
    range(len(shown)), probs[shown], margin[shown], fmt="none", ecolor=figures.INK, lw=1
  )
  names = [paths.short(model.class_names[each]) for each in shown]
  wide = max(map(len, names)) > 2
  if wide:  # room for slanted names
    axes.set_position((0.66, 0.29, 0.328, 0.59))
  axes.set_xticks(
    range(len(shown)),
    names,
    fontsize=7.5,
    rotation=40 if wide else 0,
    ha="right" if wide else "center",
    rotation_mode="anchor",
  )
  highest = np.nan_to_num(look.answer.probs_t + rate * look.answer.predicted_error_t)
  axes.set_ylim(0, 1.08 * float(np.clip(highest.max(), 0.1, 1.0)))
  axes.yaxis.set_major_formatter(ticker.PercentFormatter(1.0, decimals=0))
  axes.tick_params(labelsize=7.5)
  figures.tidy(axes)
  decided = ""
  if look.has_rule:
    is_last = number == look.num_glimpses and look.stopped
    decided = "stops: " if is_last else "undecided: "
    if look.confidence is not None and is_last:
      decided = f"stops at {100 * look.confidence:.6g} %: "
  if look.beta is not None:
    bound = np.delete(probs + margin, best).max()
    axes.axhline(bound, color=figures.COLORS["both"], lw=0.9, ls=(0, (3, 2)))
    # Away from the highest bar.
    on_right = sum(each < best for each in shown) < len(shown) / 2
    axes.annotate(
      "bound of all others",
      (on_right, bound),
      (-2 if on_right else 2, 2),
      xycoords=axes.get_yaxis_transform(),
      textcoords="offset points",
      ha="right" if on_right else "left",
      fontsize=6.5,
      color=figures.COLORS["both"],
    )
  confidence = looks.percent(looks.confidences(look, model)[number - 1])
  what = "confidence" if model.is_calibrated else "p"
  name = paths.short(model.class_names[best])
  title = f"{decided}{name}, {what} {confidence}"
  axes.set_title(title, fontsize=9, color=figures.INK)
  label = "p ± u" if look.beta is None else f"p ± {look.beta:g} u"
  axes.set_ylabel(label, fontsize=7.5, color=figures.INK)
