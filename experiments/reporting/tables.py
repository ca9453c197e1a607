"""Tables of results in Markdown, made from the JSON files that the scripts write.

The number after ± is the standard deviation over the seeds, unless the head of the column
says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.reporting import published
from experiments.reporting.statistics import by_objective, half_width

Results = Mapping[str, Any]

_MEAN_GLIMPSES = 4.0
"""Mean number of glimpses at which `departures` compares dynamic accuracy."""


def convergence(results: Results) -> str:
  """Figure 1: training accuracy of the first epoch, and comparisons with `original`."""
  dataset = results["config"]["train"]["dataset"]
  paper = published.CONVERGENCE.get(dataset, {})
  comparisons = {
    comparison["faster"]: comparison
    for comparison in results["comparisons"]
    if comparison["slower"] == "original"
  }
  rows = []
  for name, curve in results["curves"].items():
    values = np.array(curve["mean_of_all_steps"])
    mean = f"{_share(values.mean(), 3)} ± {_share(float(half_width(values)), 3)}"
    against = _comparison(comparisons[name]) if name in comparisons else ""
    rows.append([name, mean, against, *([_share(paper[name], 3)] if paper else [])])
  head = [
    "objective",
    "train accuracy, mean of the epoch, ± 95 % confidence",
    "against `original`, paired over the seeds",
    *(["paper"] if paper else []),
  ]
  return _markdown(head, rows)


def generalization(results: Results) -> str:
  """Figure 2: accuracy with a fixed number of glimpses, and growth of the state norm."""
  groups = by_objective(results["runs"])
  trained_with = results["runs"][0]["train_num_glimpses"]
  numbers = _numbers(results["runs"][:1])
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
  """Figure 2, published and ours: accuracy with a fixed number of glimpses."""
  groups = by_objective(results["runs"])
  rows = [
    [f"{name}, N = {n}", value, spread(_fixed(groups[name], n, "accuracy"))]
    for name, values in published.FIXED.items()
    if name in groups
    for n, value in values.items()
  ]
  return _markdown(["", "paper and released code", "ours"], rows)


def dynamic(results: Results) -> str:
  """Figure 2: accuracy of each objective with dynamic stopping."""
  means = (3, 4, 5, 6)
  rows = [
    [name, *(spread(_at_mean(runs, mean)) for mean in means)]
    for name, runs in by_objective(results["runs"]).items()
  ]
  return _markdown(["objective", *(f"{n} glimpses on average" for n in means)], rows)


def dynamic_by_beta(results: Results) -> str:
  """Dynamic stopping at the exploration rates of the paper, published and ours."""
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
        mean_glimpses = spread(_values(points, "mean_glimpses"), 2)
        rows.append(
          [
            f"{name}, β = {beta:g}",
            f"{glimpses:.2f} → {_share(accuracy)}",
            f"{mean_glimpses} → {spread(_values(points, 'accuracy'))}",
          ]
        )
  return _markdown(["", "paper and released code", "ours"], rows)


def stability(results: Results) -> str:
  """Stability after one epoch: one row for each lambda_2."""
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
  """Departures from the released code: one row for each."""
  trained_with = results["config"]["train"]["num_glimpses"]
  rows = []
  for variant in results["variants"]:
    runs = variant["runs"]
    rows.append(
      [
        variant["name"],
        spread(_fixed(runs, trained_with, "accuracy"), 3),
        spread(_fixed(runs, 50, "accuracy"), 3) if 50 in _numbers(runs) else "",
        spread(_at_mean(runs, _MEAN_GLIMPSES), 3) if runs[0]["dynamic"] else "",
        spread(_fixed(runs, trained_with, "calibration_error"), 3),
        spread(_fixed(runs, trained_with, "uncertainty_correlation"), 2),
      ]
    )
  head = [
    "",
    f"N = {trained_with}",
    "N = 50",
    f"stopped, {_MEAN_GLIMPSES:g} glimpses on average",
    f"calibration error, N = {trained_with}",
    "correlation of u with the error",
  ]
  return _markdown(head, rows)


def same_glimpses(results: Results) -> str:
  """Error with the same number of glimpses in training and test: one row for each."""
  mnih = published.ERROR_RATES["mnist"]["Mnih et al."]
  errors: dict[int, dict[int, str]] = {}
  for variant in results["variants"]:
    number = variant["runs"][0]["fixed"][0]["num_glimpses"]
    wrong = 100 * (1 - _fixed(variant["runs"], number, "accuracy"))
    by_samples = errors.setdefault(number, {})
    by_samples[variant["num_samples"]] = spread(wrong, 2, whole=True)
  rows = [
    [str(number), *by_samples.values(), mnih.get(number, "")]
    for number, by_samples in errors.items()
  ]
  columns = [
    f"error, %, M = {num_samples}" for num_samples in next(iter(errors.values()))
  ]
  return _markdown(["glimpses N", *columns, "Mnih et al., %"], rows)


def calibration(results: Results) -> str:
  """Calibration error of p and correlation of u with the error, by glimpses."""
  groups = by_objective(results["runs"])
  numbers = _numbers(results["runs"][:1])
  shown = [n for n in (2, 4, 6, 10, 20) if n in numbers]
  metrics = {
    "calibration error": ("calibration_error", 3),
    "correlation of u with the error": ("uncertainty_correlation", 2),
  }
  rows = [
    [name, title, *(spread(_fixed(runs, n, metric), digits) for n in shown)]
    for name, runs in groups.items()
    for title, (metric, digits) in metrics.items()
  ]
  return _markdown(["objective", "", *(f"N = {n}" for n in shown)], rows)


def error_rates(results: Results) -> str:
  """Error in % on each dataset, published and ours; one rollout (M = 1) first."""
  runs = results["runs"]
  numbers = _numbers([score for run in runs for score in run["scores"]])
  rows = []
  for dataset in dict.fromkeys(run["dataset"] for run in runs):
    for source, errors in published.ERROR_RATES.get(dataset, {}).items():
      rows.append([dataset, source, *(errors.get(n, "") for n in numbers)])
    for name, group in _by_objective_on(dataset, runs).items():
      for scores in zip(*(run["scores"] for run in group), strict=True):
        policy = scores[0]["location_policy"]
        suffix = "" if policy == "sample" else ", mean of the policy"
        label = f"`{name}`, M = {scores[0]['num_samples']}{suffix}"
        rows.append([dataset, label, *(_error(scores, n) for n in numbers)])
  return _markdown(["dataset", "", *(f"N = {n}" for n in numbers)], rows)


def objectives(results: Results) -> str:
  """Error in % of one rollout on each dataset: one column for each objective."""
  runs = results["runs"]
  names = list(by_objective(runs))
  rows = []
  for dataset in dict.fromkeys(run["dataset"] for run in runs):
    groups = _by_objective_on(dataset, runs)
    for n in _numbers([run["scores"][0] for run in runs]):
      cells = [_error([r["scores"][0] for r in groups.get(o, ())], n) for o in names]
      if any(cells):
        rows.append([dataset, str(n), *cells])
  return _markdown(["dataset", "N", *(f"`{name}`" for name in names)], rows)


def baselines(results: Results) -> str:
  """Error in % of networks that see the whole image: one row for each."""
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
  """Mean ± standard deviation of values [S] of runs; only the value of a single run.

  A dash if one is not finite. `whole` keeps the zero before the decimal point.
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
  """A number below one, without the zero before the decimal point: .1234."""
  return f"{value:.{digits}f}".replace("0.", ".", 1)


def _comparison(test: Results) -> str:
  """A paired test, as `experiments.reporting.statistics.paired` writes it."""
  difference, p_value = test["difference"], test["p_value"]
  sign = "+" if difference >= 0 else "−"
  p = "p < 0.0001" if p_value < 1e-4 else f"p = {p_value:.2g}"
  return f"{sign}{_share(abs(difference), 3)} ± {_share(test['half_width'], 3)}, {p}"


def _values(runs: Sequence[Results], name: str) -> np.ndarray:
  return np.array([run[name] for run in runs], float)


def _fixed(runs: Sequence[Results], num_glimpses: int, name: str) -> np.ndarray:
  """A metric of each run with a fixed number of glimpses [S]; NaN for null."""
  values = [
    point[name]
    for run in runs
    for point in run["fixed"]
    if point["num_glimpses"] == num_glimpses
  ]
  return np.array(values, float)


def _by_objective_on(dataset: str, runs: Sequence[Results]) -> dict[str, list[Results]]:
  """The runs on one dataset, grouped by objective."""
  return by_objective([run for run in runs if run["dataset"] == dataset])


def _numbers(runs: Sequence[Results]) -> list[int]:
  """All numbers of glimpses with which runs were scored, in increasing order."""
  return sorted({point["num_glimpses"] for run in runs for point in run["fixed"]})


def _error(runs: Sequence[Results], num_glimpses: int) -> str:
  """Error of runs in % with a number of glimpses; empty if they were not scored."""
  accuracy = _fixed(runs, num_glimpses, "accuracy")
  return spread(100 * (1 - accuracy), 2, whole=True) if accuracy.size else ""


def _at_mean(runs: Sequence[Results], mean_glimpses: float) -> np.ndarray:
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


def _growth(runs: Sequence[Results], fewer: int, more: int) -> str:
  """Norms of the state after two numbers of glimpses: medians over the runs."""
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
