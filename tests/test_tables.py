"""Tables of results: values by hand, and the tables in the documents."""

import json

import numpy as np
import pytest

from experiments import report
from experiments.cli import errors
from experiments.reporting import tables


def run(seed, accuracies, *, objective="both", dynamic=(), norms=(1.0, 2.0)):
  return {
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
  assert tables.spread(np.array([0.6, 0.8]), 3) == ".700 ± .141"
  assert tables.spread(np.array([0.6])) == ".6000"
  assert tables.spread(np.array([1.2, 1.4]), 1) == "1.3 ± 0.1"
  assert tables.spread(np.array([0.5, np.nan])) == "–"


def test_generalization_by_objective_in_the_order_of_the_paper():
  runs = [
    run(0, (0.9, 0.8), norms=(2.0, 4.0)),
    run(1, (0.7, 0.8), norms=(3.0, 6e12)),
    run(0, (0.5, 0.1), objective="original", norms=(7.25, 8e6)),
  ]
  rows = cells(tables.generalization({"runs": runs}))
  assert rows == [
    ["original", ".5000", ".1000", "7.25 → 8·10⁶"],
    ["both", ".8000 ± .1414", ".8000 ± .0000", "2.5 → 3·10¹²"],
  ]


def test_dynamic_accuracy_is_interpolated_between_rates():
  """4 glimpses are half way between 3 (.8) and 5 (.9); no rate takes 6 glimpses."""
  dynamic = [(0.0, 1.0, 0.2), (0.2, 5.0, 0.9), (0.1, 3.0, 0.8)]
  [row] = cells(tables.dynamic({"runs": [run(0, (0.9, 0.8), dynamic=dynamic)]}))
  assert row == ["both", ".8000", ".8500", ".9000", "–"]


def test_dynamic_table_has_only_rates_of_the_paper():
  dynamic = [(0.15, 3.0, 0.8), (0.16, 3.1, 0.81)]
  rows = cells(tables.dynamic_by_beta({"runs": [run(0, (0.9, 0.8), dynamic=dynamic)]}))
  assert rows == [["both, β = 0.15", "3.19 → .9368", "3.00 → .8000"]]


def scored(seed, accuracy, *, dataset="mnist_translated_60", objective="both", n=8):
  """A run as in error_rates.json, with M = 1 and 10; accuracy increases with M."""
  kinds = ((1, "sample"), (10, "mean"))
  return {
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
    [place, "Mnih et al.", "1.20"],
    [place, "best public reimplementation", "0.94"],
    [place, "`both`, M = 1", "1.50 ± 0.71"],
    [place, "`both`, M = 10, mean of the policy", "0.60 ± 0.71"],
  ]


def test_error_rates_of_datasets_with_different_numbers_of_glimpses():
  """Cells without a score are empty."""
  runs = [scored(0, 0.979), scored(0, 0.899, dataset="npz:x", n=6)]
  assert cells(tables.error_rates({"runs": runs}))[2:] == [
    ["mnist_translated_60", "`both`, M = 1", "", "2.00"],
    ["mnist_translated_60", "`both`, M = 10, mean of the policy", "", "1.10"],
    ["npz:x", "`both`, M = 1", "10.00", ""],
    ["npz:x", "`both`, M = 10, mean of the policy", "9.10", ""],
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
  assert table.splitlines()[0] == "| dataset | N | `original` | `both` |"
  assert cells(table) == [
    ["mnist_translated_60", "8", "10.00", "1.50 ± 0.71"],
    ["npz:x", "6", "", "20.00"],
  ]


def test_same_glimpses_has_a_row_for_each_n_and_a_column_for_each_m():
  def variant(num_glimpses, num_samples, accuracy):
    fixed = [{"num_glimpses": num_glimpses, "accuracy": accuracy}]
    return {"num_samples": num_samples, "runs": [{"seed": 0, "fixed": fixed}]}

  results = {
    "variants": [
      variant(5, 1, 0.96),
      variant(5, 10, 0.98),
      variant(6, 1, 0.9755),
      variant(6, 10, 0.99),
    ]
  }
  table = tables.same_glimpses(results)
  assert table.splitlines()[0].count("M = 1 ") == table.count("M = 10") == 1
  assert cells(table) == [
    ["5", "4.00", "2.00", ""],  # nothing published
    ["6", "2.45", "1.00", "1.29 to 1.12"],
  ]


def test_missing_correlation_is_a_dash():
  """Null in JSON, from a self-uncertainty that has collapsed to zero."""
  one = run(0, (0.9, 0.8))
  for point in one["fixed"]:
    point["uncertainty_correlation"] = None
  results = {
    "config": {"train": {"num_glimpses": 6}},
    "variants": [{"name": "released", "runs": [one]}],
  }
  [row] = cells(tables.departures(results))
  assert row == ["released", ".900", ".800", "", ".100", "–"]


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
  assert "| both | .9000 | .8000 |" in text
  assert "old" not in text
  assert text.startswith("a\n<!-- table")
  assert text.endswith("\n<!-- end of table -->\nb")
  assert report.with_tables(text) == text


def test_table_of_several_files_has_the_runs_of_all(tmp_path, monkeypatch):
  monkeypatch.setattr(report, "RESULTS", tmp_path)
  for name, accuracy in (("x", 0.9), ("y", 0.8)):
    (tmp_path / f"{name}.json").write_text(json.dumps({"runs": [scored(0, accuracy)]}))
  mark = "<!-- table: error_rates of x.json + y.json -->"
  text = report.with_tables(f"{mark}\n<!-- end of table -->")
  assert text.startswith(mark)
  assert "| `both`, M = 1 | 14.90 ± 7.07 |" in text


@pytest.mark.parametrize(
  ("mark", "message"),
  [
    ("nothing of x.json", "table nothing is unknown; the tables are convergence,"),
    ("generalization of y.json", "y.json cannot be read"),
    ("error_rates of y.json + z.json", "y.json cannot be read"),
    ("error_rates of no_runs.json + no_runs.json", "no_runs.json has no runs"),
  ],
)
def test_invalid_mark_gives_one_line(tmp_path, monkeypatch, mark, message):
  monkeypatch.setattr(report, "RESULTS", tmp_path)
  (tmp_path / "no_runs.json").write_text("{}")
  with pytest.raises(errors.RunError, match=message) as caught:
    report.with_tables(f"<!-- table: {mark} -->\n\n<!-- end of table -->")
  assert "\n" not in str(caught.value)
