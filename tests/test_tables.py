"""Tables of results: values by hand, and the tables in the documents."""

import json

import numpy as np
import pytest

from experiments import report
from experiments.cli import errors
from experiments.reporting import against_published, study_tables, tables
from experiments.reporting.cells import machine, rollouts_of, spread
from ramjax.config import Config


def config(objective, seed, **parts):
  parts = {"objective": {"name": objective}} | parts
  return Config().replace(**parts).replace(train={"seed": seed}).to_dict()


def run(seed, accuracies, *, objective="both", dynamic=(), norms=(1.0, 2.0), **parts):
  return {
    "config": config(objective, seed, **parts),
    "objective": objective,
    "seed": seed,
    "train_num_glimpses": 6,
    "train_accuracy": 0.5,
    "fixed": [
      {
        "num_glimpses": n,
        "accuracy": accuracy,
        "hidden_norm": norm,
        "calibration_error": 0.1,
        "uncertainty_correlation": 0.5,
      }
      for n, accuracy, norm in zip((6, 50), accuracies, norms, strict=True)
    ],
    "dynamic": [
      {"beta": beta, "mean_glimpses": taken, "accuracy": accuracy}
      for beta, taken, accuracy in dynamic
    ],
  }


def cells(table):
  return [line[2:-2].split(" | ") for line in table.splitlines()[2:]]


def test_spread_is_mean_and_standard_deviation():
  """.6 and .8: mean .7, standard deviation .2 / sqrt 2."""
  assert spread(np.array([0.6, 0.8]), 3) == ".700 ± .141"
  assert spread(np.array([0.6])) == ".6000"
  assert spread(np.array([1.2, 1.4]), 1) == "1.3 ± 0.1"
  assert spread(np.array([0.5, np.nan])) == "–"


def test_generalization_by_objective_in_the_order_of_the_paper():
  runs = [
    run(0, (0.9, 0.8), norms=(2.0, 4.0)),
    run(1, (0.7, 0.8), norms=(3.0, 6e12)),
    run(0, (0.5, 0.1), objective="original", norms=(7.25, 8e6)),
  ]
  rows = cells(tables.generalization({"runs": runs}))
  assert rows == [
    ["original", "1", ".5000", ".1000", "7.25 → 8·10⁶"],
    ["both", "2", ".8000 ± .1414", ".8000 ± .0000", "2.5 → 3·10¹²"],
  ]


def test_dynamic_accuracy_is_interpolated_between_rates():
  """4 glimpses are half way between 3 (.8) and 5 (.9); no rate takes 6 glimpses."""
  dynamic = [(0.0, 1.0, 0.2), (0.2, 5.0, 0.9), (0.1, 3.0, 0.8)]
  [row] = cells(tables.dynamic({"runs": [run(0, (0.9, 0.8), dynamic=dynamic)]}))
  assert row == ["both", "1", ".8000", ".8500", ".9000", "–"]


def test_published_values_are_beside_ours_under_each_protocol():
  """t(.975, 4 degrees) = 2.7764; of the deviation .1, one more run is within ± .3041."""
  values = 0.8 + 0.1 * np.array([-1, -1, 0, 1, 1])

  def judged(seed, accuracy, protocol):
    points = [(0.15, 3.0, accuracy), (0.16, 3.1, 0.81)]  # they have no β of .16
    return run(seed, (accuracy, 0.8), dynamic=points) | {"protocol": protocol}

  runs = [judged(seed, value, "paper") for seed, value in enumerate(values)]
  runs += [judged(seed, 0.98, "released") for seed in range(5)]
  table = against_published.published_and_ours({"runs": runs})
  assert table.splitlines()[0].count("protocol") == 2
  rows = {row[0]: row[1:] for row in cells(table)}
  inside = ".8000 ± .3041 ✓"
  assert rows["both, N = 6"] == [".9899", ".9800 ± .0000 ✗", inside, "5"]
  assert rows["both, N = 50"][0] == "≈ .983"
  assert not set("✓✗") & set("".join(rows["both, N = 50"]))  # read off a figure
  assert rows["both, β = 0.15"] == [
    "3.19 → .9368",
    "3.00 ± 0.00 ✗ → .9800 ± .0000 ✗",
    f"3.00 ± 0.00 ✗ → {inside}",
    "5",
  ]
  assert "both, β = 0.16" not in rows


def test_published_values_are_not_judged_by_few_runs():
  old = [run(0, (0.98, 0.8), dynamic=[(0.15, 3.0, 0.9)])]  # names no protocol
  rows = cells(against_published.published_and_ours({"runs": old}))
  assert ["both, N = 6", ".9899", ".9800", "1"] in rows
  assert ["both, β = 0.15", "3.19 → .9368", "3.00 → .9000", "1"] in rows
  rows = cells(
    against_published.published_and_ours({"runs": [*old, run(1, (0.96, 0.8))]})
  )
  assert ["both, N = 6", ".9899", ".9700 ± .0141", "2"] in rows


def scored(
  seed, accuracy, *, dataset="mnist_translated_60", objective="both", n=8, **parts
):
  """A run as in error_rates.json, with M = 1 and 10; accuracy increases with M."""
  kinds = ((1, "sample"), (10, "mean"))
  train = {"dataset": dataset}
  return {
    "config": config(objective, seed, train=train, **parts),
    "dataset": dataset,
    "objective": objective,
    "seed": seed,
    "scores": [
      {
        "num_samples": num_samples,
        "location_policy": policy,
        "fixed": [{"num_glimpses": n, "accuracy": accuracy + 0.001 * num_samples}],
      }
      for num_samples, policy in kinds
    ],
  }


def test_error_rates_are_below_the_published_ones():
  """Accuracies .98 and .99: the error is 1.5 %, its deviation 1 % / sqrt(2)."""
  runs = [scored(0, 0.979), scored(1, 0.989)]
  place = "mnist_translated_60"
  assert cells(tables.error_rates({"runs": runs})) == [
    [place, "Mnih et al.", "", "1.20"],
    [place, "best public, M = 1", "", "0.94"],
    [place, "`both`, M = 1", "2", "1.50 ± 0.71"],
    [place, "`both`, M = 10, mean of the policy", "2", "0.60 ± 0.71"],
  ]


def test_records_say_what_a_recipe_costs_and_reaches(monkeypatch):
  """A run that differs from its recipe is not shown as if it were the recipe."""
  recipe = {"location_gradient": "1/N", "num_glimpses": 4, "num_epochs": 6}
  recipe["credit_decay"] = 0.7
  monkeypatch.setattr(tables, "RECIPES", {"translated_60_small": recipe})

  def entry(seed, accuracy, num_epochs=6, **objective):
    parts = {
      "objective": {"location_gradient": 0.25, "credit_decay": 0.7, **objective},
      "train": {"num_glimpses": 4, "num_epochs": num_epochs},
    }
    one, ten = scored(seed, accuracy)["scores"]
    ten["location_policy"] = "sample"
    one["fixed"].append({"num_glimpses": 50, "accuracy": 0.99})
    one["dynamic"] = [
      {"mean_glimpses": 3.0, "accuracy": 0.96},
      {"mean_glimpses": 5.0, "accuracy": 0.98},
    ]
    run_config = Config.from_dict(scored(seed, accuracy)["config"]).replace(**parts)
    return scored(seed, accuracy) | {
      "config": run_config.to_dict(),
      "scores": [one, ten],
      "recipe": "translated_60_small",
      "num_parameters": 212347,
      "num_rollouts": 1_296_000,
      "train_seconds": 90.0,
      "train_num_glimpses": 8,
      "num_epochs": num_epochs,
    }

  device = "NVIDIA H200 (gpu) x 1"
  table = tables.records({"device": device, "runs": [entry(0, 0.979), entry(1, 0.989)]})
  [row] = cells(table)
  assert row == [
    *("`translated_60_small`", "2", "212,347", "1.3 million", "1.5", "1 NVIDIA H200"),
    "8",
    *("1.50 ± 0.71", "1.00 ± 0.00", "0.60 ± 0.71", "2.00 ± 0.00"),
  ]
  for changed, expected in (
    ({"num_epochs": 2}, "2 of 6 epochs"),
    ({"reward_temperature": 0.5}, "reward_temperature=0.5"),
    ({"credit_decay": None}, "credit_decay=none"),
    (
      {"location_gradient": 0.1, "num_epochs": 2},
      "location_gradient=0.1, 2 of 6 epochs",
    ),
  ):
    runs = [entry(0, 0.979, **changed)]
    [[name, *_]] = cells(tables.records({"device": device, "runs": runs}))
    assert name == f"`translated_60_small`, {expected}"
  labels = [row[1] for row in cells(tables.error_rates({"runs": [entry(0, 0.979)]}))]
  assert labels[2:] == ["`translated_60_small`, M = 1", "`translated_60_small`, M = 10"]


@pytest.mark.parametrize(
  ("device", "expected"),
  [
    ("NVIDIA H200 (gpu) x 1", "1 NVIDIA H200"),
    ("AMD EPYC, 1 of 2 cores (cpu) x 1", "1 CPU core"),
    ("cpu (cpu) x 2", "2 CPU cores"),
  ],
)
def test_a_table_names_the_machine(device, expected):
  assert machine(device) == expected


@pytest.mark.parametrize(
  ("noise", "expected"),
  [
    (1.0, "sample"),
    (0.5, "0.5 of the noise"),
    ([1.0, 1.0, 1.0], "sample"),
    ([1.0, 1.0, 2.5], "2.5 times the noise after 2 glimpses"),
    ([0.5, 1.0, 2.0], "noise times 0.5, 1, 2"),
  ],
)
def test_a_table_names_the_noise_of_the_policy(noise, expected):
  score = {"num_samples": 3, "location_policy": "sample", "location_noise": noise}
  assert rollouts_of(score) == (3, expected)


def test_error_rates_of_datasets_with_different_numbers_of_glimpses():
  """Cells without a score are empty."""
  runs = [scored(0, 0.979), scored(0, 0.899, dataset="npz:x", n=6)]
  assert cells(tables.error_rates({"runs": runs}))[2:] == [
    ["mnist_translated_60", "`both`, M = 1", "1", "", "2.00"],
    ["mnist_translated_60", "`both`, M = 10, mean of the policy", "1", "", "1.10"],
    ["npz:x", "`both`, M = 1", "1", "10.00", ""],
    ["npz:x", "`both`, M = 10, mean of the policy", "1", "9.10", ""],
  ]


def test_objectives_are_columns_and_datasets_are_rows():
  """With M = 1 only; one dataset has 6 glimpses, the other 8."""
  runs = [
    scored(0, 0.979),
    scored(1, 0.989),
    scored(0, 0.899, objective="original"),
    scored(0, 0.799, dataset="npz:x", n=6),
  ]
  table = tables.objectives({"runs": runs})
  assert table.splitlines()[0] == "| dataset | N | n | `original` | `both` |"
  assert cells(table) == [
    ["mnist_translated_60", "8", "1 / 2", "10.00", "1.50 ± 0.71"],
    ["npz:x", "6", "1", "", "20.00"],
  ]


def test_same_glimpses_has_a_row_for_each_n_and_a_column_for_each_m():
  def variant(num_glimpses, num_samples, accuracy):
    fixed = [{"num_glimpses": num_glimpses, "accuracy": accuracy}]
    return {"num_samples": num_samples, "runs": [{"seed": 0, "fixed": fixed}]}

  results = {
    "config": config("both", 0),
    "variants": [
      variant(5, 1, 0.96),
      variant(5, 10, 0.98),
      variant(6, 1, 0.9755),
      variant(6, 10, 0.99),
    ],
  }
  table = study_tables.same_glimpses(results)
  assert table.splitlines()[0].count("M = 1 ") == table.count("M = 10") == 1
  assert cells(table) == [
    ["5", "1", "4.00", "2.00", ""],  # nothing published
    ["6", "1", "2.45", "1.00", "1.29 to 1.12"],
  ]
  results["config"] = config("both", 0, train={"dataset": "kmnist"})
  assert cells(study_tables.same_glimpses(results))[1] == ["6", "1", "2.45", "1.00"]


def test_missing_correlation_is_a_dash():
  """Null in JSON, from a self-uncertainty that has collapsed to zero."""
  one = run(0, (0.9, 0.8))
  for point in one["fixed"]:
    point["uncertainty_correlation"] = None
  results = {
    "config": {"train": {"num_glimpses": 6}},
    "variants": [{"name": "released", "runs": [one]}],
  }
  [row] = cells(study_tables.departures(results))
  assert row == ["released", "1", ".900", ".800", "", ".100", "–"]


def test_documents_agree_with_the_results():
  """If this fails, run `python -m experiments.report`."""
  for name in report.DOCUMENTS:
    text = (report.ROOT / name).read_text()
    assert text == report.with_tables(text), name


def test_table_is_written_between_its_marks(tmp_path, monkeypatch):
  monkeypatch.setattr(report, "RESULTS", tmp_path)
  (tmp_path / "x.json").write_text(json.dumps({"runs": [run(0, (0.9, 0.8))]}))
  marks = "a\n<!-- table: generalization of x.json -->\n{}\n<!-- end of table -->\nb"
  text = report.with_tables(marks.format("old"))
  assert "| both | 1 | .9000 | .8000 |" in text
  assert "old" not in text
  assert text.startswith("a\n<!-- table")
  assert text.endswith("\n<!-- end of table -->\nb")
  assert report.with_tables(text) == text


def test_table_of_several_files_has_the_runs_of_all(tmp_path, monkeypatch):
  monkeypatch.setattr(report, "RESULTS", tmp_path)
  for name, seed, accuracy in (("x", 0, 0.9), ("y", 1, 0.8)):
    runs = [scored(seed, accuracy)]
    (tmp_path / f"{name}.json").write_text(json.dumps({"runs": runs}))
  mark = "<!-- table: error_rates of x.json + y.json -->"
  text = report.with_tables(f"{mark}\n<!-- end of table -->")
  assert text.startswith(mark)
  assert "| `both`, M = 1 | 2 | 14.90 ± 7.07 |" in text


def test_runs_of_two_files_that_were_evaluated_otherwise_are_not_pooled(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(report, "RESULTS", tmp_path)
  for seed, split in enumerate(("test", "validation")):
    content = {"split": split, "runs": [scored(seed, 0.9)]}
    (tmp_path / f"{split}.json").write_text(json.dumps(content))
  mark = "<!-- table: error_rates of test.json + validation.json -->"
  text = report.with_tables(f"{mark}\n<!-- end of table -->")
  assert "| `both`, split test, M = 1 | 1 | 9.90 |" in text
  assert "| `both`, split validation, M = 1 | 1 | 9.90 |" in text


def test_runs_of_other_settings_are_rows_of_their_own():
  """Patch sizes and numbers of epochs, which once became one mean and deviation."""
  runs = [
    run(0, (0.9, 0.8), model={"patch_size": 8}),
    run(1, (0.7, 0.6), model={"patch_size": 8}),
    run(0, (0.5, 0.4), model={"patch_size": 12}),
  ]
  assert [row[:4] for row in cells(tables.generalization({"runs": runs}))] == [
    ["both, patch_size 8", "2", ".8000 ± .1414", ".7000 ± .1414"],
    ["both, patch_size 12", "1", ".5000", ".4000"],
  ]
  assert [row[:3] for row in cells(tables.calibration({"runs": runs}))] == [
    [label, metric, n]
    for label, n in (("both, patch_size 8", "2"), ("both, patch_size 12", "1"))
    for metric in ("calibration error", "correlation of u with the error")
  ]
  small = [scored(0, 0.979), scored(0, 0.959, model={"patch_size": 12})]
  assert [row[1:] for row in cells(tables.error_rates({"runs": small}))[2::2]] == [
    ["`both`, patch_size 8, M = 1", "1", "2.00"],
    ["`both`, patch_size 12, M = 1", "1", "4.00"],
  ]
  assert cells(tables.objectives({"runs": small})) == [
    ["mnist_translated_60, patch_size 8", "8", "1", "2.00"],
    ["mnist_translated_60, patch_size 12", "8", "1", "4.00"],
  ]


def test_runs_that_trained_with_other_numbers_of_glimpses_say_so():
  runs = [run(0, (0.9, 0.8), norms=(2.0, 4.0))]
  runs.append(run(0, (0.7, 0.6), norms=(3.0, 5.0), train={"num_glimpses": 50}))
  runs[1]["train_num_glimpses"] = 50
  table = tables.generalization({"runs": runs})
  assert "| norm of the state, as in training → 50 |" in table
  assert [row[-1] for row in cells(table)] == ["N = 6: 2 → 4", "N = 50: 5 → 5"]


def test_a_score_that_one_run_does_not_have_is_no_mean():
  """Not that of the runs that have it."""
  runs = [scored(0, 0.979), scored(1, 0.989)]
  for scores in runs[1]["scores"]:
    scores["fixed"][0]["num_glimpses"] = 4
  for row in cells(tables.error_rates({"runs": runs}))[2:]:
    assert row[2:] == ["2", "–", "–"]


def test_a_study_of_one_seed_has_no_interval():
  values = {"mean_of_all_steps": [0.6]}
  results = {
    "config": {"train": {"dataset": "npz:x"}},
    "curves": {"original": values, "both": {"mean_of_all_steps": [0.7]}},
    "comparisons": [
      {
        "slower": "original",
        "faster": "both",
        "difference": 0.1,
        "half_width": None,
        "p_value": None,
      }
    ],
  }
  assert cells(study_tables.convergence(results)) == [
    ["original", "1", ".600", ""],
    ["both", "1", ".700", "+.100"],
  ]


def with_classes(seed, *, confusion, accuracy):
  """A run with six glimpses, of which each class is known."""
  found = scored(seed, 0.8, n=6)
  found |= {"train_num_glimpses": 6, "class_names": ["cat", "dog"]}
  for scores in found["scores"]:
    scores["fixed"][0] |= {
      "balanced_accuracy": float(np.mean(accuracy)),
      "class_accuracy": accuracy,
      "class_images": np.sum(confusion, axis=1).tolist(),
      "confusion": confusion,
    }
  return found


def test_images_whose_probabilities_are_not_finite_are_counted():
  """They are in no column, and still images of their class."""
  one = scored(0, 0.0, n=6) | {"train_num_glimpses": 6, "class_names": ["cat", "dog"]}
  for scores in one["scores"]:
    scores["fixed"][0] |= {
      "balanced_accuracy": 0.0,
      "class_accuracy": [0.0, 0.0],
      "class_images": [7, 3],
      "confusion": [[0, 0], [0, 0]],
    }
  rows = [line.split(" | ") for line in tables.classes({"runs": [one]}).splitlines()]
  assert [row[1] for row in rows if row[0] in ("| cat", "| dog")] == ["7", "3"]


def test_classes_of_unbalanced_data():
  """Means over two seeds, of one rollout only."""
  runs = [
    with_classes(0, confusion=[[90, 0], [8, 2]], accuracy=[1.0, 0.2]),
    with_classes(1, confusion=[[80, 10], [6, 4]], accuracy=[0.9, 0.4]),
  ]
  heading, _, *table = tables.classes({"runs": runs}).splitlines()
  assert heading == (
    "both (n = 2), M = 1, N = 6: accuracy .8010 ± .0000, balanced accuracy .6250 ± .0354"
  )
  assert table[0] == "| class | images | accuracy | as cat | as dog |"
  assert cells("\n".join(table)) == [
    ["cat", "90", "0.9500 ± 0.0707", "85", "5"],
    ["dog", "10", ".3000 ± .1414", "7", "3"],
  ]


def test_of_many_classes_the_worst_are_shown():
  confusion = np.diag(np.arange(30))
  confusion[7] = 0
  confusion[7, 9] = 7
  accuracy = [None, *[1.0] * 6, 0.0, *[1.0] * 22]
  one = with_classes(0, confusion=confusion.tolist(), accuracy=[0.0, 0.0])
  for scores in one["scores"]:
    scores["fixed"][0]["class_accuracy"] = accuracy
  one["class_names"] = []
  shown = cells(tables.classes({"runs": [one]}).partition("\n\n")[2])
  assert len(shown) == 20
  assert shown[0] == ["7", "7", ".0000", "9 (7)"]


@pytest.mark.parametrize(
  ("mark", "message"),
  [
    ("nothing of x.json", "table nothing is unknown; the tables are convergence,"),
    ("generalization of y.json", "y.json cannot be read"),
    ("error_rates of y.json + z.json", "y.json cannot be read"),
    ("error_rates of no_runs.json + no_runs.json", "no_runs.json has no runs"),
    ("dynamic of no_runs.json", "table dynamic cannot be made of no_runs.json"),
    ("dynamic of no-runs.json", "has no end mark, or is not of the form"),
    ("dynamic of a.json+b.json", "has no end mark, or is not of the form"),
  ],
)
def test_invalid_mark_gives_one_line(tmp_path, monkeypatch, mark, message):
  monkeypatch.setattr(report, "RESULTS", tmp_path)
  (tmp_path / "no_runs.json").write_text("{}")
  with pytest.raises(errors.RunError, match=message) as caught:
    report.with_tables(f"<!-- table: {mark} -->\n\n<!-- end of table -->")
  assert "\n" not in str(caught.value)


def test_a_table_without_an_end_does_not_eat_the_next(tmp_path, monkeypatch):
  monkeypatch.setattr(report, "RESULTS", tmp_path)
  (tmp_path / "x.json").write_text(json.dumps({"runs": [run(0, (0.9, 0.8))]}))
  mark = "<!-- table: generalization of x.json -->"
  with pytest.raises(errors.RunError, match="has no end mark"):
    report.with_tables(f"{mark}\n\nmine\n\n{mark}\n\n<!-- end of table -->\n")


def test_probabilities_that_are_not_finite_are_named():
  points = [{"num_glimpses": n, "not_finite": max(0, n - 2)} for n in (1, 2, 3, 4)]
  runs = [
    {"group": "both", "seed": 3, "fixed": points},
    {"group": "original", "seed": 0, "scores": [{"fixed": points[:2]}]},
  ]
  assert tables.not_finite({"runs": runs}) == (
    "both, seed 3: images with probabilities that are not finite: up to 2, from N = 3"
    " on; they count as wrong"
  )


def test_errors_on_validation_images_are_not_held_against_published_ones():
  one = scored(0, 0.9, n=6) | {"train_num_glimpses": 6}
  on_test, on_validation = (
    tables.error_rates({"runs": [one], "split": split})
    for split in ("test", "validation")
  )
  assert "Mnih et al." in on_test
  assert "Mnih et al." not in on_validation
  assert "validation images" in on_validation.splitlines()[0]
