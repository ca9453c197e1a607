"""The table of Figure 2 of the paper: published values beside ours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from experiments.reporting import published
from experiments.reporting.cells import (
  fixed,
  markdown,
  share,
  spread,
  values_of,
)
from experiments.reporting.groups import Results, group_runs
from experiments.reporting.statistics import prediction_half_width

_TITLES = {
  "released": "ours, protocol of the released code",
  "paper": "ours, protocol of the paper",
}
"""The protocols of evaluation, in the order of their columns."""

_FEWEST_TO_JUDGE = 5
"""Runs from which on the interval of one more is narrow enough to say something."""


def published_and_ours(results: Results) -> str:
  """Figure 2, published and ours, a column for each protocol of evaluation.

  With a fixed number of glimpses N an accuracy; at an exploration rate β mean number of
  glimpses → accuracy. From five runs on, ± is the 95 % interval of one more, since a published
  value is of one run: ✓ says that it lies inside, ✗ that it does not.
  """
  by_objective: dict[str, dict[str, list[Results]]] = {}
  for group in group_runs(results["runs"]):
    # Files of earlier versions do not name the protocol, which was that of the paper.
    protocol = group.runs[0].get("protocol", results.get("protocol", "paper"))
    of_protocol = by_objective.setdefault(group.objective, {})
    if of_protocol.setdefault(protocol, group.runs) is not group.runs:
      raise ValueError(f"two groups of {group.objective} have the protocol {protocol}")
  shown = [
    protocol
    for protocol in _TITLES
    if any(protocol in found for found in by_objective.values())
  ]
  rows = []
  for objective, found in by_objective.items():
    columns = [found.get(protocol, []) for protocol in shown]
    counts = "/".join(dict.fromkeys(str(len(runs)) for runs in columns if runs))
    of_others = (
      *((f"N = {n}", *each) for n, each in _fixed_rows(objective, columns)),
      *((f"β = {beta:g}", *each) for beta, each in _dynamic_rows(objective, columns)),
    )
    rows += [
      [f"{objective}, {setting}", *cells, counts] for setting, *cells in of_others
    ]
  heads = [_TITLES[protocol] for protocol in shown]
  return markdown(["", "published", *heads, "n"], rows)


def _fixed_rows(
  objective: str, columns: Sequence[Sequence[Results]]
) -> Iterator[tuple[int, list[str]]]:
  """For each published number of glimpses its value and ours, a cell for each column."""
  for n, value in published.FIXED[objective].items():
    yield n, [value, *(_beside(value, fixed(runs, n, "accuracy")) for runs in columns)]


def _dynamic_rows(
  objective: str, columns: Sequence[Sequence[Results]]
) -> Iterator[tuple[float, list[str]]]:
  """For each published rate at which ours were evaluated the values, likewise."""
  for beta, (mean, accuracy) in published.DYNAMIC.get(objective, {}).items():
    cells = []
    for runs in columns:
      points = [
        point
        for run in runs
        for point in run["dynamic"]
        if abs(point["beta"] - beta) < 1e-9
      ]
      of_means = _beside(f"{mean:.2f}", values_of(points, "mean_glimpses"), digits=2)
      of_accuracies = _beside(share(accuracy), values_of(points, "accuracy"))
      cells.append(" → ".join(filter(None, (of_means, of_accuracies))))
    if any(cells):
      yield beta, [f"{mean:.2f} → {share(accuracy)}", *cells]


def _beside(value: str, ours: np.ndarray, digits: int = 4) -> str:
  """Our values [S] beside a published one: their mean and whether it could be theirs.

  Few runs have an interval that holds anything, so of them it is the usual ±, without a
  verdict. A value that is read off a figure is not judged. Shares have four digits and no
  zero before the point, numbers of glimpses two.
  """
  if not ours.size:
    return ""
  is_share = digits == 4
  if len(ours) < _FEWEST_TO_JUDGE:
    return spread(ours, digits, whole=not is_share)
  mean, half_width = float(ours.mean()), prediction_half_width(ours)
  text = " ± ".join(
    share(number) if is_share else f"{number:.{digits}f}"
    for number in (mean, half_width)
  )
  try:
    inside = abs(float(value) - mean) <= half_width + 0.5 * 10.0**-digits
  except ValueError:
    return text
  return f"{text} {'✓' if inside else '✗'}"
