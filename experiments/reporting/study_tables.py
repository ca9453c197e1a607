"""Tables of studies in Markdown: a row for each variant, from the JSON that they write."""

from __future__ import annotations

import numpy as np

from experiments.reporting import published
from experiments.reporting.cells import (
  at_mean,
  error_percent,
  fixed,
  growth_of_norm,
  markdown,
  numbers_of,
  paired_difference,
  share,
  spread,
  values_of,
  with_half_width,
)
from experiments.reporting.groups import Results
from experiments.reporting.statistics import half_width

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
    mean = with_half_width(share(values.mean(), 3), float(half_width(values)))
    against = paired_difference(comparisons[name]) if name in comparisons else ""
    cells = [share(paper[name], 3)] if paper else []
    rows.append([name, str(len(values)), mean, against, *cells])
  head = [
    "objective",
    "n",
    "train accuracy, mean of the epoch, ± 95 % confidence",
    "against `original`, paired over the seeds",
    *(["paper"] if paper else []),
  ]
  return markdown(head, rows)


def stability(results: Results) -> str:
  """Stability after one epoch: one row for each lambda_2."""
  trained_with = results["config"]["train"]["num_glimpses"]
  most = results["variants"][0]["runs"][0]["fixed"][-1]["num_glimpses"]
  rows = [
    [
      variant["name"],
      str(len(variant["runs"])),
      spread(values_of(variant["runs"], "train_accuracy"), 3),
      spread(fixed(variant["runs"], trained_with, "accuracy"), 3),
      spread(fixed(variant["runs"], most, "accuracy"), 3),
      growth_of_norm(variant["runs"], trained_with, most),
    ]
    for variant in results["variants"]
  ]
  head = [
    "λ2",
    "n",
    "train accuracy",
    f"test, N = {trained_with}",
    f"test, N = {most}",
    f"norm of the state, N = {trained_with} → {most}",
  ]
  return markdown(head, rows)


def departures(results: Results) -> str:
  """Departures from the released code: one row for each."""
  trained_with = results["config"]["train"]["num_glimpses"]
  rows = []
  for variant in results["variants"]:
    runs = variant["runs"]
    rows.append(
      [
        variant["name"],
        str(len(runs)),
        spread(fixed(runs, trained_with, "accuracy"), 3),
        spread(fixed(runs, 50, "accuracy"), 3),
        spread(at_mean(runs, _MEAN_GLIMPSES), 3) if runs[0]["dynamic"] else "",
        spread(fixed(runs, trained_with, "calibration_error"), 3),
        spread(fixed(runs, trained_with, "uncertainty_correlation"), 2),
      ]
    )
  head = [
    "",
    "n",
    f"N = {trained_with}",
    "N = 50",
    f"stopped, {_MEAN_GLIMPSES:g} glimpses on average",
    f"calibration error, N = {trained_with}",
    "correlation of u with the error",
  ]
  return markdown(head, rows)


def ablation(results: Results) -> str:
  """Error of each combination of rollouts, gradient, baseline and core."""
  numbers = numbers_of([run for each in results["variants"] for run in each["runs"]])
  rows = [
    [
      *(variant["name"], str(len(variant["runs"]))),
      *(error_percent(variant["runs"], n) for n in numbers),
      spread(100 * (1 - values_of(variant["runs"], "train_accuracy")), 2, whole=True),
    ]
    for variant in results["variants"]
  ]
  return markdown(
    ["", "n", *(f"error, %, N = {n}" for n in numbers), "in training, last epoch"], rows
  )


def same_glimpses(results: Results) -> str:
  """Error with the same number of glimpses in training and test: one row for each."""
  dataset = results["config"]["train"]["dataset"]
  mnih = published.ERROR_RATES.get(dataset, {}).get("Mnih et al.", {})
  errors: dict[int, dict[int, str]] = {}
  counts: dict[int, str] = {}
  for variant in results["variants"]:
    number = variant["runs"][0]["fixed"][0]["num_glimpses"]
    wrong = 100 * (1 - fixed(variant["runs"], number, "accuracy"))
    by_samples = errors.setdefault(number, {})
    by_samples[variant["num_samples"]] = spread(wrong, 2, whole=True)
    counts[number] = str(len(wrong))
  rows = [
    [
      *(str(number), counts[number], *by_samples.values()),
      *([mnih.get(number, "")] if mnih else []),
    ]
    for number, by_samples in errors.items()
  ]
  columns = [
    f"error, %, M = {num_samples}" for num_samples in next(iter(errors.values()))
  ]
  theirs = ["Mnih et al., %"] if mnih else []
  return markdown(["glimpses N", "n", *columns, *theirs], rows)


def baselines(results: Results) -> str:
  """Error in % of networks that see the whole image: one row for each."""
  rows = [
    [
      model["name"].replace("_", " "),
      f"{model['num_parameters']:,}",
      str(len(model["runs"])),
      spread(100 * (1 - values_of(model["runs"], "accuracy")), 2, whole=True),
    ]
    for model in results["models"]
  ]
  return markdown(["network", "parameters", "n", "error, %"], rows)
