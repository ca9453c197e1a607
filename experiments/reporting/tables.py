"""Every table of results, as Markdown; drawn from what the scripts have on disk.

What stands behind ± is the standard deviation over the seeds, unless the head of the
column says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.reporting import published
from experiments.reporting.statistics import by_objective, half_width

Results = Mapping[str, Any]

_WITHIN = 4.0


def convergence(results: Results) -> str:
  """Figure 1: train accuracy of the first epoch, and comparisons with `original`."""
  dataset = results["config"]["train"]["dataset"]
  paper = published.CONVERGENCE.get(dataset, {})
  compared = {
    pair["faster"]: pair
    for pair in results["comparisons"]
    if pair["slower"] == "original"
  }
  rows = []
  for name, curve in results["curves"].items():
    values = np.array(curve["mean_of_all_steps"])
    pair = compared.get(name)
    rows.append(
      [
        name,
        f"{_share(values.mean(), 3)} ± {_share(float(half_width(values)), 3)}",
        f"{_signed(pair['difference'])} ± {_share(pair['half_width'], 3)},"
        f" {_p_value(pair['p_value'])}"
        if pair
        else "",
        *([_share(paper[name], 3)] if paper else []),
      ]
    )
  head = [
    "objective",
    "train accuracy, mean of the epoch, ± 95 % confidence",
    "against `original`, paired over the seeds",
    *(["paper"] if paper else []),
  ]
  return _markdown(head, rows)


def generalization(results: Results) -> str:
  """Figure 2: accuracy with a fixed number of glimpses, and norms of the state."""
  groups = by_objective(results["runs"])
  numbers = [point["num_glimpses"] for point in results["runs"][0]["fixed"]]
  trained_with = results["runs"][0]["train_num_glimpses"]
  shown = [n for n in sorted({1, trained_with, 10, 20, 50, 100}) if n in numbers]
  rows = [
    [
      name,
      *(spread(_fixed(runs, n, "accuracy")) for n in shown),
      _growth(runs, trained_with, shown[-1]),
    ]
    for name, runs in groups.items()
  ]
  norms = f"norm of the state, N = {trained_with} → {shown[-1]}"
  return _markdown(["objective", *(f"N = {n}" for n in shown), norms], rows)


def published_and_ours(results: Results) -> str:
  """Figure 2 beside what was published of it: fixed numbers of glimpses."""
  groups = by_objective(results["runs"])
  rows = [
    [f"{name}, N = {n}", value, spread(_fixed(groups[name], n, "accuracy"))]
    for name, values in published.FIXED.items()
    if name in groups
    for n, value in values.items()
  ]
  return _markdown(["", "paper and released code", "ours"], rows)


def dynamic(results: Results) -> str:
  """Figure 2: what each objective decides when it stops by itself."""
  rows = [
    [
      name,
      *(spread(_at_mean(runs, glimpses)) for glimpses in (3.0, 4.0, 5.0, 6.0)),
    ]
    for name, runs in by_objective(results["runs"]).items()
  ]
  return _markdown(
    ["objective", *(f"{n} glimpses on average" for n in (3, 4, 5, 6))], rows
  )


def dynamic_by_beta(results: Results) -> str:
  """The stopping rule at the exploration rates of the paper, beside its figures."""
  groups = by_objective(results["runs"])
  rows = []
  for name, values in published.DYNAMIC.items():
    for beta, (glimpses, accuracy) in values.items():
      points = [
        point
        for run in groups.get(name, ())
        for point in run["dynamic"]
        if abs(point["beta"] - beta) < 1e-9
      ]
      if points:
        taken = np.array([point["mean_glimpses"] for point in points])
        right = np.array([point["accuracy"] for point in points])
        rows.append(
          [
            f"{name}, β = {beta:g}",
            f"{glimpses:.2f} → {_share(accuracy)}",
            f"{spread(taken, 2)} → {spread(right)}",
          ]
        )
  return _markdown(["", "paper and released code", "ours"], rows)


def stability(results: Results) -> str:
  """The one-epoch claim: a row for each lambda_2."""
  trained_with = results["config"]["train"]["num_glimpses"]
  most = results["variants"][0]["runs"][0]["fixed"][-1]["num_glimpses"]
  rows = [
    [
      variant["name"],
      spread(_values(variant["runs"], "train_accuracy"), 3),
      spread(_fixed(variant["runs"], trained_with, "accuracy"), 3),
      spread(_fixed(variant["runs"], most, "accuracy"), 3),
      _growth(variant["runs"], trained_with, most),
    ]
    for variant in results["variants"]
  ]
  head = [
    "λ2",
    "train accuracy",
    f"test, N = {trained_with}",
    f"test, N = {most}",
    f"norm of the state, N = {trained_with} → {most}",
  ]
  return _markdown(head, rows)


def departures(results: Results) -> str:
  """The choices that the paper leaves open: a row for each."""
  trained_with = results["config"]["train"]["num_glimpses"]
  rows = []
  for variant in results["variants"]:
    runs = variant["runs"]
    numbers = [point["num_glimpses"] for point in runs[0]["fixed"]]
    rows.append(
      [
        variant["name"],
        spread(_fixed(runs, trained_with, "accuracy"), 3),
        spread(_fixed(runs, 50, "accuracy"), 3) if 50 in numbers else "",
        spread(_at_mean(runs, _WITHIN), 3) if runs[0]["dynamic"] else "",
        spread(_fixed(runs, trained_with, "calibration_error"), 3),
        spread(_fixed(runs, trained_with, "uncertainty_correlation"), 2),
      ]
    )
  head = [
    "",
    f"N = {trained_with}",
    "N = 50",
    f"stopped, {_WITHIN:g} glimpses on average",
    f"calibration error, N = {trained_with}",
    "correlation of u with the error",
  ]
  return _markdown(head, rows)


def same_glimpses(results: Results) -> str:
  """As many glimpses in the test as in training: a row for each number."""
  mnih = published.ERROR_RATES["mnist"]["Mnih et al."]
  errors: dict[int, dict[int, str]] = {}
  for variant in results["variants"]:
    number = variant["runs"][0]["fixed"][0]["num_glimpses"]
    wrong = 100 * (1 - _fixed(variant["runs"], number, "accuracy"))
    of_number = errors.setdefault(number, {})
    of_number[variant["num_samples"]] = spread(wrong, 2, whole=True)
  rows = [
    [str(number), *found.values(), mnih.get(number, "")]
    for number, found in errors.items()
  ]
  nums_samples = next(iter(errors.values()))
  told = [f"error, %, M = {num_samples}" for num_samples in nums_samples]
  return _markdown(["glimpses N", *told, "Mnih et al., %"], rows)


def calibration(results: Results) -> str:
  """How well runs know what they know, after some numbers of glimpses."""
  groups = by_objective(results["runs"])
  numbers = [point["num_glimpses"] for point in results["runs"][0]["fixed"]]
  shown = [n for n in (2, 4, 6, 10, 20) if n in numbers]
  kinds = {
    "calibration error": ("calibration_error", 3),
    "correlation of u with the error": ("uncertainty_correlation", 2),
  }
  rows = [
    [name, told, *(spread(_fixed(runs, n, kind), digits) for n in shown)]
    for name, runs in groups.items()
    for told, (kind, digits) in kinds.items()
  ]
  return _markdown(["objective", "", *(f"N = {n}" for n in shown)], rows)


def error_rates(results: Results) -> str:
  """Error in % on each dataset, beside what was published; M = 1 first."""
  runs = results["runs"]
  numbers = _numbers(runs)
  rows = []
  for dataset in dict.fromkeys(run["dataset"] for run in runs):
    here = [run for run in runs if run["dataset"] == dataset]
    for who, errors in published.ERROR_RATES.get(dataset, {}).items():
      rows.append([dataset, who, *(errors.get(n, "") for n in numbers)])
    for name, group in by_objective(here).items():
      for number, scored in enumerate(group[0]["scores"]):
        of_runs = [run["scores"][number] for run in group]
        cells = [_error(of_runs, n) for n in numbers]
        policy = "" if scored["location_policy"] == "sample" else ", mean of the policy"
        rows.append([dataset, f"`{name}`, M = {scored['num_samples']}{policy}", *cells])
  return _markdown(["images", "", *(f"N = {n}" for n in numbers)], rows)


def objectives(results: Results) -> str:
  """Error in % of one rollout on each dataset: a column for each objective."""
  runs = results["runs"]
  names = list(by_objective(runs))
  rows = []
  for dataset in dict.fromkeys(run["dataset"] for run in runs):
    here = by_objective([run for run in runs if run["dataset"] == dataset])
    of_name = {
      name: [run["scores"][0] for run in group] for name, group in here.items()
    }
    for n in _numbers(runs):
      cells = [_error(of_name.get(name, ()), n) for name in names]
      if any(cells):
        rows.append([dataset, str(n), *cells])
  return _markdown(["images", "N", *(f"`{name}`" for name in names)], rows)


def baselines(results: Results) -> str:
  """Networks that see the whole image: a row for each."""
  rows = [
    [
      model["name"].replace("_", " "),
      f"{model['num_parameters']:,}",
      spread(100 * (1 - _values(model["runs"], "accuracy")), 2, whole=True),
    ]
    for model in results["models"]
  ]
  return _markdown(["network", "parameters", "error, %"], rows)


TABLES: Mapping[str, Callable[[Results], str]] = {
  "convergence": convergence,
  "generalization": generalization,
  "published_and_ours": published_and_ours,
  "dynamic": dynamic,
  "dynamic_by_beta": dynamic_by_beta,
  "stability": stability,
  "departures": departures,
  "same_glimpses": same_glimpses,
  "calibration": calibration,
  "error_rates": error_rates,
  "objectives": objectives,
  "baselines": baselines,
}
"""The tables by name."""


def spread(values: np.ndarray, digits: int = 4, *, whole: bool = False) -> str:
  """Mean ± standard deviation of runs [S]; the value alone if there is one.

  Args:
    values: one a run; a dash stands for what is not a number in any of them.
    digits: digits behind the point.
    whole: whether to write the zero before the point.
  """
  if not np.isfinite(values).all():
    return "–"
  below_one = np.abs(values).max() < 1 and not whole

  def text(value: float) -> str:
    return _share(value, digits) if below_one else f"{value:.{digits}f}"

  mean = text(values.mean())
  if len(values) == 1:
    return mean
  return f"{mean} ± {text(values.std(ddof=1))}"


def _share(value: float, digits: int = 4) -> str:
  """A number below one, written as .1234."""
  return f"{value:.{digits}f}".replace("0.", ".", 1)


def _signed(value: float) -> str:
  return ("+" if value >= 0 else "−") + _share(abs(value), 3)


def _p_value(value: float) -> str:
  return "p < 0.0001" if value < 1e-4 else f"p = {value:.2g}"


def _values(runs: Sequence[Results], name: str) -> np.ndarray:
  return np.array([run[name] for run in runs], float)


def _fixed(runs: Sequence[Results], num_glimpses: int, name: str) -> np.ndarray:
  """A figure of each run with a number of glimpses [S]; NaN where there is none."""
  found = [
    point[name]
    for run in runs
    for point in run["fixed"]
    if point["num_glimpses"] == num_glimpses
  ]
  return np.array(found, float)


def _numbers(runs: Sequence[Results]) -> list[int]:
  """The numbers of glimpses that any of the runs was scored with, the smallest first."""
  return sorted(
    {
      point["num_glimpses"]
      for run in runs
      for scored in run["scores"]
      for point in scored["fixed"]
    }
  )


def _error(runs: Sequence[Results], num_glimpses: int) -> str:
  """Error of runs in % with a number of glimpses; empty where they have no such."""
  accuracy = _fixed(runs, num_glimpses, "accuracy")
  return spread(100 * (1 - accuracy), 2, whole=True) if accuracy.size else ""


def _at_mean(runs: Sequence[Results], mean_glimpses: float) -> np.ndarray:
  """Accuracy of each run where it stops after so many glimpses on average [S].

  Between two exploration rates it is interpolated; NaN where no rate takes so many.
  """
  found = []
  for run in runs:
    points = sorted(
      (point["mean_glimpses"], point["accuracy"]) for point in run["dynamic"]
    )
    taken, right = np.array(points).T
    found.append(np.interp(mean_glimpses, taken, right, left=np.nan, right=np.nan))
  return np.array(found)


def _growth(runs: Sequence[Results], fewer: int, more: int) -> str:
  """Norms of the state with two numbers of glimpses: medians of runs."""
  return " → ".join(
    _norm(np.median(_fixed(runs, number, "hidden_norm"))) for number in (fewer, more)
  )


def _norm(value: float) -> str:
  if value < 1000:
    return f"{value:.3g}"
  exponent = int(np.floor(np.log10(value)))
  digits = "⁰¹²³⁴⁵⁶⁷⁸⁹"
  power = "".join(digits[int(digit)] for digit in str(exponent))
  return f"{value / 10**exponent:.0f}·10{power}"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  lines = [head, ["---"] * len(head), *rows]
  return "\n".join(f"| {' | '.join(line)} |" for line in lines)
