"""Cells of tables, and the numbers in them, from the entries of results files.

The number after ± is the standard deviation over runs; S is the number of runs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from experiments.reporting.groups import Group, Results


def spread(values: np.ndarray, digits: int = 4, *, whole: bool = False) -> str:
  """Mean ± standard deviation of values [S] of runs; only the value of a single run.

  A dash if one is not finite, and nothing if there are none. `whole` keeps the zero
  before the decimal point.
  """
  if not values.size:
    return ""
  if not np.isfinite(values).all():
    return "–"
  below_one = np.abs(values).max() < 1 and not whole

  def text(value: float) -> str:
    return share(value, digits) if below_one else f"{value:.{digits}f}"

  mean = text(values.mean())
  if len(values) == 1:
    return mean
  return f"{mean} ± {text(values.std(ddof=1))}"


def share(value: float, digits: int = 4) -> str:
  """A number below one, without the zero before the decimal point: .1234."""
  return f"{value:.{digits}f}".replace("0.", ".", 1)


def paired_difference(test: Results) -> str:
  """A paired test, as `experiments.reporting.statistics.paired` writes it."""
  difference, p_value = test["difference"], test["p_value"]
  sign = "+" if difference >= 0 else "−"
  text = f"{sign}{share(abs(difference), 3)}"
  if p_value is None or np.isnan(p_value):  # of a single seed
    return text
  p = "p < 0.0001" if p_value < 1e-4 else f"p = {p_value:.2g}"
  return f"{with_half_width(text, test['half_width'])}, {p}"


def with_half_width(mean: str, half_width: float) -> str:
  """A mean and the half-width of its interval; a single run has none."""
  return mean if np.isnan(half_width) else f"{mean} ± {share(half_width, 3)}"


def values_of(runs: Sequence[Results], name: str) -> np.ndarray:
  return np.array([run[name] for run in runs], float)


def fixed(runs: Sequence[Results], num_glimpses: int, name: str) -> np.ndarray:
  """A metric of each run with a fixed number of glimpses [S].

  NaN for null, and for a run that was not scored with this number; [0] if none was.
  """
  found = [
    [point[name] for point in run["fixed"] if point["num_glimpses"] == num_glimpses]
    for run in runs
  ]
  if not any(found):
    return np.zeros(0)
  return np.array([values[0] if values else None for values in found], float)


def by_rollouts(group: Group) -> dict[tuple[int, str], list[Results]]:
  """The scores of a group's runs by `rollouts_of`."""
  found: dict[tuple[int, str], list[Results]] = {}
  for run in group.runs:
    for score in run["scores"]:
      found.setdefault(rollouts_of(score), []).append(score)
  return found


def rollouts_of(score: Results) -> tuple[int, str]:
  """M and policy of a score: `sample`, `mean`, or how much of the noise it has."""
  policy = score["location_policy"]
  if policy == "sample":
    policy = _sampled(score.get("location_noise", 1.0))
  return score["num_samples"], policy


def _sampled(noise: float | Sequence[float]) -> str:
  """How much of the noise a policy has that is sampled, in words."""
  *early, last = noise if isinstance(noise, Sequence) else [noise]
  if {*early, last} == {1.0}:
    return "sample"
  if not early:
    return f"{last:g} of the noise"
  if set(early) == {1.0}:
    return f"{last:g} times the noise after {len(early)} glimpses"
  return f"noise times {', '.join(f'{factor:g}' for factor in (*early, last))}"


def numbers_of(runs: Sequence[Results]) -> list[int]:
  """All numbers of glimpses with which runs were scored, in increasing order."""
  return sorted({point["num_glimpses"] for run in runs for point in run["fixed"]})


def error_percent(runs: Sequence[Results], num_glimpses: int) -> str:
  """Error of runs in % with a number of glimpses; empty if none was scored with it."""
  accuracy = fixed(runs, num_glimpses, "accuracy")
  return spread(100 * (1 - accuracy), 2, whole=True)


def at_mean(runs: Sequence[Results], mean_glimpses: float) -> np.ndarray:
  """Accuracy of each run [S] with dynamic stopping after `mean_glimpses` on average.

  The accuracy is interpolated between two exploration rates. It is NaN if
  `mean_glimpses` is outside the range of the rates.
  """
  accuracies = []
  for run in runs:
    points = sorted(
      (point["mean_glimpses"], point["accuracy"]) for point in run["dynamic"]
    )
    x, y = np.array(points).T
    accuracies.append(np.interp(mean_glimpses, x, y, left=np.nan, right=np.nan))
  return np.array(accuracies)


def growth_of_norm(runs: Sequence[Results], fewer: int, more: int) -> str:
  """Norms of the state after two numbers of glimpses: medians over the runs."""
  return " → ".join(
    _norm(np.median(fixed(runs, number, "hidden_norm"))) for number in (fewer, more)
  )


def _norm(value: float) -> str:
  if not np.isfinite(value):
    return "–"
  if value < 1000:
    return f"{value:.3g}"
  exponent = int(np.floor(np.log10(value)))
  digits = "⁰¹²³⁴⁵⁶⁷⁸⁹"
  power = "".join(digits[int(digit)] for digit in str(exponent))
  return f"{value / 10**exponent:.0f}·10{power}"


def image_count(value: float) -> str:
  """A number of images, or the mean of several."""
  return f"{value:.0f}" if value == round(value) else f"{value:.1f}"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  lines = [head, ["---"] * len(head), *rows]
  return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine(device: str) -> str:
  """The devices of a result, as its `device` names them: `1 NVIDIA H200`, `2 CPU cores`."""
  name, _, count = device.rpartition(" x ")
  if name.endswith("(cpu)"):
    return f"{count} CPU core{'s' if count != '1' else ''}"
  return f"{count} {name.rpartition(' (')[0]}"
