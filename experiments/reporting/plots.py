"""Figures of measured results: curves against glimpses and against steps."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure

from experiments.reporting import figures
from experiments.reporting.cells import machine, rollouts_of
from experiments.reporting.groups import Group, Results, group_runs
from experiments.reporting.statistics import half_width
from ramjax.config import ObjectiveConfig

_WIDTHS = {"original": 3.0, "uncertainty": 1.4, "intrinsic": 3.0, "both": 1.4}
"""Widths of lines: where two lines coincide, a narrow one lies on a wide one."""

_MOST_GLIMPSES = 10.5
"""Where the panel of the stopping rule ends, if it has points before."""

_DASHES = {(1, "sample"): "-", (10, "sample"): "--"}
"""Lines of errors by number of rollouts M and policy."""


def learning_curves(lines: Sequence[Results], objective: ObjectiveConfig) -> Figure:
  """Accuracy, loss and its terms in `metrics.jsonl`, against the step.

  The terms are drawn as they count: times their weights in the objective. Those without
  a weight are left out.
  """
  train = [line for line in lines if line["split"] == "train"]
  validation = [line for line in lines if line["split"] == "validation"]
  drawn = figures.figure(10.0, 4.0)
  accuracy, loss = drawn.subplots(1, 2)
  color = figures.COLORS["intrinsic"]
  _draw_series(accuracy, train, "accuracy", color=color, alpha=0.6, label="train")
  _draw_points(accuracy, validation, "accuracy", color=color)
  accuracy.set_ylabel("accuracy")
  figures.in_percent(accuracy)

  weights = {
    "classification": 1.0,
    "reinforce": 1.0,
    "baseline": 1.0,
    "error_fit": 1.0,
    "uncertainty": objective.uncertainty_weight,
    "intrinsic": objective.intrinsic_weight,
  }
  counted = {name: weight for name, weight in weights.items() if weight}
  for (name, weight), color in zip(counted.items(), figures.MORE_COLORS, strict=False):
    label = name.replace("_", " ")
    label = label if weight == 1.0 else f"{label} × {weight:.3g}"
    _draw_series(
      loss, train, f"loss/{name}", weight=weight, color=color, alpha=0.85, label=label
    )
  _draw_series(loss, train, "loss", color=figures.INK, label="total, train", lw=1.8)
  _draw_points(loss, validation, "loss", color=figures.INK, label="total, validation")
  loss.set_ylabel("loss and its terms, weighted")
  loss.set_yscale("symlog", linthresh=0.1)
  for axes, ncols in ((accuracy, 2), (loss, 3)):
    figures.say_if_blank(axes, "no step was trained")
    figures.legend_above(axes, ncols=ncols)
    figures.tidy(axes)
    axes.set_xlabel("step")
  return drawn


def glimpse_generalization(results: Results) -> Figure:
  """Figure 2 of the paper: accuracy and norm of the state against glimpses.

  A line is the mean over runs that differ in nothing but the seed, of the norm the median;
  its band reaches from the lowest to the highest of them.
  """
  groups = group_runs(results["runs"])
  drawn = figures.figure(13.0, 4.4)
  accuracy, dynamic, norm = drawn.subplots(1, 3, width_ratios=(1.3, 1.0, 1.0))
  for group, style in zip(groups, _styles(groups), strict=True):
    _band(accuracy, group, "accuracy", label=group.labelled, **style)
    if "hidden_norm" in group.runs[0]["fixed"][0]:
      _band(norm, group, "hidden_norm", middle=np.median, **style)
    for run in group.runs:
      x, y = (
        np.array([point[metric] for point in run["dynamic"]], float)
        for metric in ("mean_glimpses", "accuracy")
      )
      line = {**style, "lw": 0.8}
      dynamic.plot(x, y, marker="o", mec="white", mew=0.5, ms=4.5, **line)
  accuracy.set(ylabel="accuracy", ylim=(0, 1.02))
  dynamic.set(ylabel="accuracy")
  norm.set(ylabel="l2 norm of the internal state", yscale="log")
  for axes in (accuracy, dynamic):
    figures.in_percent(axes)
  figures.say_if_blank(dynamic, "no exploration rate was tried")
  measured = bool(norm.lines)
  figures.say_if_blank(norm, "no norm is finite" if measured else "not measured")
  _show_the_best(dynamic)
  _mark_training(results["runs"], accuracy, dynamic, norm)
  dynamic.set(xlabel="mean number of glimpses, one dot for each β")
  titles = ("fixed number", "dynamic stopping, each run", "internal state")
  for axes, title in zip((accuracy, dynamic, norm), titles, strict=True):
    axes.set_title(title, fontsize=9, color=figures.INK, loc="left")
  figures.shared_legend(drawn)
  return drawn


def calibration(results: Results) -> Figure:
  """Calibration error of p and correlation of u with the error, against glimpses."""
  groups = group_runs(results["runs"])
  drawn = figures.figure(11.0, 4.0)
  error, correlation = drawn.subplots(1, 2)
  for group, style in zip(groups, _styles(groups), strict=True):
    _band(error, group, "calibration_error", label=group.labelled, **style)
    _band(correlation, group, "uncertainty_correlation", **style)
  error.set(ylabel="calibration error of the probabilities p", ylim=(0, None))
  correlation.set(ylabel="correlation of u with the true error", ylim=(None, 1.0))
  figures.say_if_blank(correlation, "no correlation: u is the same for all images")
  _mark_training(results["runs"], error, correlation, height=0.93)
  figures.shared_legend(drawn)
  return drawn


def stopping_rules(results: Results) -> Figure:
  """Error of each stopping rule against the mean number of glimpses.

  A panel for each group of runs, a line for each rule: the mean over the runs.
  """
  groups = group_runs(results["runs"])
  drawn = figures.figure(max(7.5, 3.8 * len(groups)), 4.6)
  panels = drawn.subplots(1, len(groups), sharey=True, squeeze=False)[0]
  for axes, group in zip(panels, groups, strict=True):
    curves = zip(*(run["rules"] for run in group.runs), strict=True)
    for of_runs, color in zip(curves, figures.MORE_COLORS, strict=False):
      means = [_points([rule["points"]], "mean_glimpses")[0] for rule in of_runs]
      errors = [100 * (1 - _points([r["points"]], "accuracy")[0]) for r in of_runs]
      most = min(_MOST_GLIMPSES, max(each[-1] for each in means))
      x = np.linspace(1.0, most, 200)
      y = [
        np.interp(x, mean, error, left=np.nan, right=np.nan)
        for mean, error in zip(means, errors, strict=True)
      ]
      label = of_runs[0]["name"] if axes is panels[0] else None
      axes.plot(x, np.mean(y, axis=0), color=color, lw=1.6, label=label)
    axes.set_xlabel("mean number of glimpses")
    axes.set_title(group.labelled, fontsize=9, color=figures.INK, loc="left")
    _logarithmic(axes)
  panels[0].set_ylabel("error, %")
  figures.shared_legend(drawn)
  return drawn


def records(results: Results) -> Figure:
  """What recipes reach: error against time, glimpses and mean number of glimpses.

  A line is the mean over the seeds of a recipe; its band reaches from the lowest to the
  highest of them. A small recipe has a thin line in the colour of its task.
  """
  drawn = figures.figure(13.0, 4.2)
  time, fixed, dynamic = drawn.subplots(1, 3)
  colors = itertools.cycle(figures.MORE_COLORS)
  color_of: dict[str, str] = collections.defaultdict(lambda: next(colors))
  for group in group_runs(results["runs"]):
    first = group.runs[0]
    where = machine(first.get("device") or results["device"])
    label = f"{first['recipe']} (n = {len(group.runs)}, {where})"
    color = color_of[first["recipe"].removesuffix("_small")]
    is_small = first["recipe"].endswith("_small")
    width, size = (0.8, 2.5) if is_small else (1.6, 4.5)
    curves = [run["validation"] for run in group.runs]
    minutes = _points(curves, "seconds").mean(axis=0) / 60
    errors = _points(curves, "error")
    _range(time, minutes, errors, color=color, lw=width, label=label)
    for kind, dashes in _DASHES.items():
      scored = [
        score["fixed"]
        for run in group.runs
        for score in run["scores"]
        if rollouts_of(score) == kind
      ]
      if scored:
        error = 100 * (1 - _points(scored, "accuracy"))
        numbers = _points(scored, "num_glimpses")[0]
        _range(fixed, numbers, error, color=color, lw=width, ls=dashes)
    for run in group.runs:
      stops = [run["scores"][0]["dynamic"]]
      x, y = _points(stops, "mean_glimpses")[0], _points(stops, "accuracy")[0]
      line = {"color": color, "lw": width / 2, "marker": "o", "ms": size}
      dynamic.plot(x, 100 * (1 - y), mec="white", mew=0.5, **line)
  titles = {
    time: ("validation, M = 1", "minutes of training, all seeds together"),
    fixed: ("test, M = 1 and, dashed, M = 10", "glimpses"),
    dynamic: ("test, dynamic stopping, each run", "mean number of glimpses"),
  }
  for axes, (title, label) in titles.items():
    axes.set_title(title, fontsize=9, color=figures.INK, loc="left")
    axes.set(xlabel=label, ylabel="error, %")
    _logarithmic(axes)
  time.set_xscale("log")
  _plain_numbers(time.xaxis)
  fixed.set_xscale("log")
  numbers = sorted({int(x) for line in fixed.lines for x in line.get_xdata()})
  fixed.set_xticks(numbers, map(str, numbers))
  fixed.minorticks_off()
  dynamic.set_xlim(0.5, _MOST_GLIMPSES)
  figures.shared_legend(drawn)
  return drawn


def _points(lists: Sequence[Sequence[Mapping[str, Any]]], name: str) -> np.ndarray:
  """A number of each point of each list [runs, points]."""
  return np.array([[point[name] for point in points] for points in lists], float)


def _logarithmic(axes: Axes) -> None:
  """A logarithmic vertical axis of errors in percent."""
  axes.set_yscale("log")
  _plain_numbers(axes.yaxis)
  figures.tidy(axes)


def _plain_numbers(axis: Axis) -> None:
  """1, 2, 5, 10 … on a logarithmic axis."""
  axis.set_major_locator(ticker.LogLocator(10, (1, 2, 5)))
  axis.set_major_formatter(ticker.FormatStrFormatter("%g"))
  axis.set_minor_formatter(ticker.NullFormatter())


def _range(
  axes: Axes,
  x: np.ndarray,
  values: np.ndarray,
  middle: Callable[..., np.ndarray] = np.mean,
  **style: Any,
) -> None:
  """Draws mean, or another middle, and range of values [runs, points]."""
  line = {"lw": 1.6, **style, **figures.markers(len(x))}
  axes.plot(x, middle(values, axis=0), **line)
  low, high = values.min(axis=0), values.max(axis=0)
  axes.fill_between(x, low, high, color=style["color"], alpha=0.15, lw=0)


def convergence(results: Results) -> Figure:
  """Figure 1 of the paper: training accuracy of the objectives against the step.

  A line is the mean over the seeds; its band is the 95 % confidence interval.
  """
  drawn = figures.figure(11.0, 4.2)
  panels = drawn.subplots(1, 2)
  averages = {
    "running_mean": "mean since the first step",
    "windowed_mean": f"mean of {results['window']} steps",
  }
  steps = results["steps"]
  for axes, (average, title) in zip(panels, averages.items(), strict=True):
    for name, curve in results["curves"].items():
      values = np.array(curve[average], float)
      mean, band = values.mean(axis=0), half_width(values)
      color = figures.COLORS[name]
      label = f"{name} (n = {len(values)})" if average == "running_mean" else None
      axes.plot(
        steps, mean, color=color, lw=1.6, label=label, **figures.markers(len(steps))
      )
      axes.fill_between(steps, mean - band, mean + band, color=color, alpha=0.15, lw=0)
    axes.set_title(title, fontsize=9, color=figures.INK, loc="left")
    axes.set(xlabel="step", ylabel="train accuracy")
    figures.in_percent(axes)
    figures.say_if_blank(axes, "every step was skipped")
    figures.tidy(axes)
  figures.shared_legend(drawn)
  return drawn


def _styles(groups: Sequence[Group]) -> list[dict[str, Any]]:
  """Colour, width and dashes of the line of each group.

  Each objective has its own colour as long as it has one group.
  """
  if len({group.objective for group in groups}) == len(groups):
    return [
      {"color": figures.COLORS[group.objective], "lw": _WIDTHS[group.objective]}
      for group in groups
    ]
  colors, dashes = figures.MORE_COLORS, ("-", "--", ":", "-.")
  return [
    {
      "color": colors[number % len(colors)],
      "lw": 1.8,
      "ls": dashes[number // len(colors) % len(dashes)],
    }
    for number in range(len(groups))
  ]


def _band(
  axes: Axes,
  group: Group,
  metric: str,
  *,
  label: str | None = None,
  middle: Callable[..., np.ndarray] = np.mean,
  **style: Any,
) -> None:
  """Draws middle and range of a metric over the runs of a group, against glimpses."""
  scored = [run["fixed"] for run in group.runs]
  numbers = _points(scored, "num_glimpses")[0]
  _range(axes, numbers, _points(scored, metric), middle, label=label, **style)


def _show_the_best(axes: Axes) -> None:
  """Limits the panel of the stopping rule to where its accuracies are good.

  A large exploration rate takes all glimpses, and a small one too few.
  """
  if not axes.lines:
    return
  x, y = np.concatenate([line.get_xydata() for line in axes.lines]).T
  inside = (x <= _MOST_GLIMPSES) & np.isfinite(y)
  if not inside.any():
    return
  best, lowest = y[inside].max(), y[inside].min()
  margin = 0.04 * max(0.1, min(best - lowest, 0.4))
  axes.set_xlim(0.5, min(_MOST_GLIMPSES, 1.05 * x.max() + 0.2))
  axes.set_ylim(max(lowest, best - 0.4) - margin, best + margin)


def _mark_training(
  runs: Sequence[Mapping[str, Any]], *panels: Axes, height: float = 0.02
) -> None:
  """Labels the axis of glimpses, and marks the number of glimpses of the training.

  The first panel has a text label at `height`, a fraction of the panel.
  """
  for axes in panels:
    figures.tidy(axes)
    axes.set_xlabel("glimpses")
    axes.set_xlim(0.5, max(axes.get_xlim()[1], 1.5))
    axes.xaxis.set_major_locator(
      ticker.MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1)
    )
  first, right = panels[0], panels[0].get_xlim()[1]
  for row, number in enumerate(sorted({run["train_num_glimpses"] for run in runs})):
    for axes in panels:
      if number <= axes.get_xlim()[1]:
        axes.axvline(number, color=figures.PALE, lw=1.2, zorder=0)
    if number <= right:
      before = number > right / 2
      first.annotate(
        f"trained with {number}",
        (number, height),
        xycoords=("data", "axes fraction"),
        xytext=(-4 if before else 4, 10 * row * (1 if height < 0.5 else -1)),
        textcoords="offset points",
        ha="right" if before else "left",
        fontsize=8,
        color=figures.INK,
      )


def _draw_series(
  axes: Axes,
  lines: Sequence[Results],
  name: str,
  *,
  weight: float = 1.0,
  **style: Any,
) -> None:
  """Draws a metric of lines of metrics, against the step."""
  steps, values = _series(lines, name)
  if np.isfinite(values).any():
    axes.plot(
      steps, weight * values, **{"lw": 1.2, **style}, **figures.markers(len(steps))
    )


def _draw_points(
  axes: Axes,
  lines: Sequence[Results],
  name: str,
  *,
  label: str = "validation",
  **style: Any,
) -> None:
  """Draws a metric of the few lines of the validation, against the step."""
  steps, values = _series(lines, name)
  if np.isfinite(values).any():
    axes.plot(
      steps,
      values,
      marker="D",
      ms=4.5,
      mec="white",
      mew=0.5,
      lw=0.8,
      label=label,
      **style,
    )


def _series(lines: Sequence[Results], name: str) -> tuple[np.ndarray, np.ndarray]:
  """Steps and values of a metric; NaN for null or missing values."""
  values = np.array([line.get(name) for line in lines], float)
  return np.array([line["step"] for line in lines]), values
