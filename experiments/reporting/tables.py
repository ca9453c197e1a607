"""Tables of results in Markdown, made from the JSON files that the scripts write.

Only runs that differ in nothing but the seed are pooled, see
`experiments.reporting.groups`; n is their number. The number after ± is the standard
deviation over them, unless the head of the column says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from experiments.cli.recipes import RECIPES
from experiments.reporting import against_published, published, study_tables
from experiments.reporting.cells import (
  at_mean,
  by_rollouts,
  error_percent,
  fixed,
  growth_of_norm,
  image_count,
  machine,
  markdown,
  numbers_of,
  paired_difference,
  spread,
  values_of,
)
from experiments.reporting.groups import Results, group_runs
from experiments.reporting.statistics import paired
from ramjax.config import OBJECTIVES, PER_GLIMPSE, Config, TrainConfig
from ramjax.data.datasets import reading

_ONE_ROLLOUT = (1, "sample")

_POLICIES = {"sample": "", "mean": ", mean of the policy"}
"""How rows tell policies apart."""

_NOT_OF_RECIPES = {"dataset", "seed", "accumulation_steps", *reading(TrainConfig())}
"""Settings of a training that `_recipe` does not name: data, and what changes nothing."""

_MOST_COLUMNS, _MOST_ROWS = 12, 20
"""Classes that a table shows: as columns of the confusions, and as rows."""

_MEAN_GLIMPSES = 5.0
"""Mean number of glimpses at which `records` tells dynamic accuracy."""


def generalization(results: Results) -> str:
  """Figure 2: accuracy with a fixed number of glimpses, and growth of the state norm."""
  runs = results["runs"]
  trained_with = sorted({run["train_num_glimpses"] for run in runs})
  numbers = numbers_of(runs)
  shown = [n for n in sorted({1, *trained_with, 10, 20, 50, 100}) if n in numbers]
  rows = []
  for group in group_runs(runs):
    own = group.runs[0]["train_num_glimpses"]
    growth = growth_of_norm(group.runs, own, shown[-1])
    rows.append(
      [
        *(group.label, str(len(group.runs))),
        *(spread(fixed(group.runs, n, "accuracy")) for n in shown),
        growth if len(trained_with) == 1 else f"N = {own}: {growth}",
      ]
    )
  first = f"N = {trained_with[0]}" if len(trained_with) == 1 else "as in training"
  norms = f"norm of the state, {first} → {shown[-1]}"
  return markdown(["objective", "n", *(f"N = {n}" for n in shown), norms], rows)


def dynamic(results: Results) -> str:
  """Figure 2: accuracy of each group of runs with dynamic stopping."""
  means = (3, 4, 5, 6)
  rows = [
    [
      *(group.label, str(len(group.runs))),
      *(spread(at_mean(group.runs, mean)) for mean in means),
    ]
    for group in group_runs(results["runs"])
  ]
  return markdown(
    ["objective", "n", *(f"{n} glimpses on average" for n in means)], rows
  )


def calibration(results: Results) -> str:
  """Calibration error of p and correlation of u with the error, by glimpses."""
  numbers = numbers_of(results["runs"])
  shown = [n for n in (2, 4, 6, 10, 20) if n in numbers] or numbers[-1:]
  metrics = {
    "calibration error": ("calibration_error", 3),
    "correlation of u with the error": ("uncertainty_correlation", 2),
  }
  rows = [
    [
      *(group.label, title, str(len(group.runs))),
      *(spread(fixed(group.runs, n, metric), digits) for n in shown),
    ]
    for group in group_runs(results["runs"])
    for title, (metric, digits) in metrics.items()
  ]
  return markdown(["objective", "", "n", *(f"N = {n}" for n in shown)], rows)


def error_rates(results: Results) -> str:
  """Error in % on each dataset, published and ours; one rollout (M = 1) first."""
  runs = results["runs"]
  numbers = numbers_of([score for run in runs for score in run["scores"]])
  groups = group_runs(runs)
  rows = []
  for dataset in dict.fromkeys(group.dataset for group in groups):
    of_others = published.ERROR_RATES if results.get("split", "test") == "test" else {}
    for source, errors in of_others.get(dataset, {}).items():
      cells = [errors.get(n, "") for n in numbers]
      if any(cells):
        rows.append([dataset, source, "", *cells])
    for group in groups:
      if group.dataset == dataset:
        for (num_samples, policy), scores in by_rollouts(group).items():
          suffix = _POLICIES.get(policy, f", {policy}")
          settings = f", {group.settings}" if group.settings else ""
          what = _recipe(group.runs[0]) or f"`{group.objective}`{settings}"
          label = f"{what}, M = {num_samples}{suffix}"
          cells = [error_percent(scores, n) for n in numbers]
          rows.append([dataset, label, str(len(scores)), *cells])
  images = (
    "" if results.get("split", "test") == "test" else f"{results['split']} images"
  )
  return markdown(["dataset", images, "n", *(f"N = {n}" for n in numbers)], rows)


def records(results: Results) -> str:
  """What a recipe costs and reaches: a row for each recipe and length.

  Errors of one rollout with as many glimpses as in training (N) and with 50, of the mean of
  ten, and the stopping rule. A length that is not the recipe's is named.
  """
  rows = []
  for group in group_runs(results["runs"]):
    first = group.runs[0]
    own = first["train_num_glimpses"]
    found = by_rollouts(group)
    one, ten = found[_ONE_ROLLOUT], found.get((10, "sample"), [])
    minutes = np.median(values_of(group.runs, "train_seconds")) / 60
    rows.append(
      [
        _recipe(first),
        *(str(len(group.runs)), f"{first['num_parameters']:,}"),
        f"{first['num_rollouts'] / 1e6:.2g} million",
        f"{minutes:.1f}",
        machine(first.get("device") or results["device"]),
        str(own),
        *(error_percent(one, own), error_percent(one, 50), error_percent(ten, own)),
        spread(100 * (1 - at_mean(one, _MEAN_GLIMPSES)), 2, whole=True),
      ]
    )
  head = [
    *("recipe", "n", "parameters", "rollouts of a run", "minutes, all n together"),
    "machine",
    *("N", "error, %, M = 1", "N = 50, M = 1", "error, %, M = 10"),
    f"stops by itself, {_MEAN_GLIMPSES:g} on average, M = 1",
  ]
  return markdown(head, rows)


def _recipe(run: Results) -> str:
  """The recipe of a run, with the settings in which it differs from it; or nothing."""
  if "recipe" not in run:
    return ""
  recipe, config = RECIPES[run["recipe"]], Config.from_dict(run["config"])
  changed = []
  for name, setting in Config.settings().items():
    part, field = name.split(".")
    flag = setting.flag or field
    expected = recipe.get(name, recipe.get(flag, setting.default))
    if expected == PER_GLIMPSE:
      expected = 1 / config.train.num_glimpses
    found = getattr(getattr(config, part), field)
    if found != expected and setting.reach != "data" and flag not in _NOT_OF_RECIPES:
      word = setting.word(found)
      value = f"{word:.3g}" if isinstance(word, float) else str(word)
      length = f"{value} of {expected} epochs"
      changed.append(length if flag == "num_epochs" else f"{flag}={value}")
  return ", ".join((f"`{run['recipe']}`", *changed))


def classes(results: Results) -> str:
  """Accuracy of each class and confusions, a table for each group of runs.

  With one sampled rollout and as many glimpses as in training, or with the largest number
  that was scored. Counts are means over the runs. Of many classes the worst are shown.
  """
  parts = []
  for group in group_runs(results["runs"]):
    for (num_samples, policy), scores in by_rollouts(group).items():
      if (num_samples, policy) == _ONE_ROLLOUT or len(by_rollouts(group)) == 1:
        numbers = numbers_of(scores)
        own = group.runs[0]["train_num_glimpses"]
        n = own if own in numbers else numbers[-1]
        heading = (
          f"{group.labelled}, M = {num_samples}, N = {n}:"
          f" accuracy {spread(fixed(scores, n, 'accuracy'))},"
          f" balanced accuracy {spread(fixed(scores, n, 'balanced_accuracy'))}"
        )
        names = group.runs[0].get("class_names")
        parts.append(f"{heading}\n\n{_classes(scores, n, names)}")
  return "\n\n".join(parts)


def _classes(
  scores: Sequence[Results], num_glimpses: int, names: Sequence[str] | None
) -> str:
  """The table of the classes, from scores with some number of glimpses."""
  accuracy = fixed(scores, num_glimpses, "class_accuracy")  # [S, K]
  confusion = fixed(scores, num_glimpses, "confusion").mean(axis=0)
  images = fixed(scores, num_glimpses, "class_images").mean(axis=0)
  numbers = range(len(confusion))
  names = [*names] if names else [str(number) for number in numbers]
  few = len(confusion) <= _MOST_COLUMNS
  shown: Sequence[int] = numbers
  if len(confusion) > _MOST_ROWS:
    mean = accuracy.mean(axis=0)
    shown = [int(k) for k in np.argsort(mean, kind="stable")[:_MOST_ROWS]]
  rows = []
  for k in shown:
    row = confusion[k]
    wrong = row.copy()
    wrong[k] = 0
    taken_for = (
      f"{names[wrong.argmax()]} ({image_count(wrong.max())})" if wrong.any() else ""
    )
    cells = [*map(image_count, row)] if few else [taken_for]
    rows.append([names[k], image_count(images[k]), spread(accuracy[:, k]), *cells])
  columns = [f"as {name}" for name in names] if few else ["most often taken for"]
  return markdown(["class", "images", "accuracy", *columns], rows)


def objectives(results: Results) -> str:
  """Error in % of one rollout on each dataset: one column for each objective.

  Runs on one dataset that differ in more than objective and seed have rows of their own.
  """
  groups = group_runs(results["runs"])
  names = sorted({group.objective for group in groups}, key=OBJECTIVES.index)
  numbers = numbers_of([run["scores"][0] for run in results["runs"]])
  rows = []
  for dataset, settings in dict.fromkeys((g.dataset, g.settings) for g in groups):
    found = {
      group.objective: [run["scores"][0] for run in group.runs]
      for group in groups
      if (group.dataset, group.settings) == (dataset, settings)
    }
    counts = [str(len(scores)) for scores in found.values()]
    count = counts[0] if len(set(counts)) == 1 else " / ".join(counts)
    for n in numbers:
      cells = [error_percent(found.get(name, ()), n) for name in names]
      if any(cells):
        where = f"{dataset}, {settings}" if settings else dataset
        rows.append([where, str(n), count, *cells])
  return markdown(["dataset", "N", "n", *(f"`{name}`" for name in names)], rows)


def stopping_rules(results: Results) -> str:
  """Accuracy of each stopping rule at some mean numbers of glimpses, and its area.

  The last column compares areas with the first rule's, paired over the runs.
  """
  means = (3, 4, 5, 6)
  rows = []
  for group in group_runs(results["runs"]):
    first = values_of([run["rules"][0] for run in group.runs], "area")
    for number, rule in enumerate(group.runs[0]["rules"]):
      of_runs = [run["rules"][number] for run in group.runs]
      curves = [{"dynamic": each["points"]} for each in of_runs]
      areas = values_of(of_runs, "area")
      against = number > 0 and np.isfinite(areas - first).all()
      rows.append(
        [
          *(group.label, rule["name"], str(len(of_runs))),
          *(spread(at_mean(curves, mean)) for mean in means),
          spread(areas),
          paired_difference(paired(areas - first)) if against else "",
        ]
      )
  numbers = sorted({run["train_num_glimpses"] for run in results["runs"]})
  until = str(numbers[0]) if len(numbers) == 1 else "N"
  columns = [f"{mean} glimpses on average" for mean in means]
  area = f"mean from 2 to {until}"
  head = ["objective", "rule", "n", *columns, area, "against the paper's, ± 95 %"]
  return markdown(head, rows)


def not_finite(results: Results) -> str:
  """A line for each run with probabilities that are not finite; empty if there is none."""
  lines = []
  variants = results.get("variants", ())
  runs = [*results.get("runs", ()), *(run for each in variants for run in each["runs"])]
  for run in runs:
    scored = [run, *run.get("scores", ())]
    points = [point for each in scored for point in each.get("fixed", ())]
    bad = [point for point in points if point.get("not_finite")]
    if bad:
      first = min(point["num_glimpses"] for point in bad)
      most = max(point["not_finite"] for point in bad)
      lines.append(
        f"{run.get('group', 'a run')}, seed {run.get('seed')}: images with probabilities"
        f" that are not finite: up to {image_count(most)}, from N = {first} on; they"
        " count as wrong"
      )
  return "\n".join(lines)


TABLES: Mapping[str, Callable[[Results], str]] = {
  "convergence": study_tables.convergence,
  "generalization": generalization,
  "published_and_ours": against_published.published_and_ours,
  "dynamic": dynamic,
  "stability": study_tables.stability,
  "ablation": study_tables.ablation,
  "departures": study_tables.departures,
  "same_glimpses": study_tables.same_glimpses,
  "calibration": calibration,
  "error_rates": error_rates,
  "records": records,
  "classes": classes,
  "objectives": objectives,
  "stopping_rules": stopping_rules,
  "baselines": study_tables.baselines,
}
"""The tables by name."""
