"""The benchmark: operation counts, ratios, tables, and running cases."""

import itertools
import json
import pathlib

import forked
import pytest

from experiments import benchmark
from experiments.benchmarks import cases as cases_lib
from experiments.benchmarks.cases import Case, Ratio, gflop
from experiments.cli import errors
from ramjax.config import ModelConfig

ROOT = pathlib.Path(__file__).parent.parent


def test_operations_of_a_step_by_hand():
  """All matrix products of the paper's model, two operations for each multiplication."""
  glimpse = 64 * 128 + 2 * 128 + 2 * 128 * 256
  core = 2 * 256 * 256
  heads = 256 * 2 + 256 * 1 + 256 * 10 + 266 * 10
  forward = glimpse + core + heads
  assert gflop(ModelConfig(), examples=1, num_glimpses=1) == pytest.approx(
    2e-9 * forward
  )
  lstm = ModelConfig(core="lstm")
  assert gflop(lstm, examples=1, num_glimpses=1) == pytest.approx(
    2e-9 * (glimpse + 4 * core + heads)
  )
  no_input_gradient = 64 * 128 + 2 * 128 + 256 * 2 + 256 * 1
  step = gflop(ModelConfig(), examples=32, num_glimpses=6, backward=True)
  assert step == pytest.approx(2e-9 * 192 * (3 * forward - no_input_gradient))


def counting_case(name, values, **options):
  """A case with given measurements."""
  measured = itertools.cycle(values)
  return Case(name, lambda: lambda: next(measured), **options)


def test_ratios_and_shares_are_computed_within_each_round(monkeypatch):
  rates = itertools.chain([100.0], [100.0, 50.0, 200.0])
  monkeypatch.setattr(cases_lib, "MatrixRate", lambda: lambda: next(rates))
  next(rates)
  decided, fixed = cases_lib.DYNAMIC, cases_lib.FIXED
  results = benchmark.measure(
    [
      counting_case(decided, [2.0, 6.0, 3.0], gflop=50.0),
      counting_case(fixed, [1.0, 2.0, 3.0]),
      counting_case("memory", [5e8], unit="B", most_rounds=1),
    ],
    rounds=3,
  )
  first, second, third = results["measurements"]
  assert first["minimum"] == 2.0
  assert first["median"] == 3.0
  assert first["spread"] == pytest.approx(4 / 3)
  # 50 / 2 / 100 = 1/4, 50 / 6 / 50 = 1/6 and 50 / 3 / 200 = 1/12; the median is 1/6.
  assert first["share_of_matrix_rate"] == pytest.approx(1 / 6)
  assert "share_of_matrix_rate" not in second
  assert third["repeats"] == 1
  [ratio] = results["ratios"]
  assert ratio["median"] == 2.0
  assert results["matrix_rate_gflops"]["minimum"] == 50.0


def test_joint_runs_are_compared_with_the_same_number_of_single_runs():
  single = counting_case(cases_lib.STEP.format(32), [1.0])
  runs = counting_case(cases_lib.RUNS.format(8, 32), [4.0], runs=8)
  [ratio] = cases_lib.ratios([single, runs])
  assert ratio.of(4.0, 1.0) == 0.5
  assert isinstance(ratio, Ratio)


RESULTS = {
  "measurements": [
    {
      "name": "step",
      "unit": "s",
      "minimum": 0.00125,
      "median": 0.0015,
      "spread": 0.25,
      "repeats": 5,
      "share_of_matrix_rate": 0.5,
    },
    {
      "name": "memory",
      "unit": "B",
      "minimum": 8.5e8,
      "median": 9e8,
      "spread": 0.0,
      "repeats": 1,
    },
  ],
}


def test_table_of_measurements():
  assert benchmark.table(RESULTS).splitlines() == [
    "| what | minimum | median | spread | share of the matrix rate |",
    "| --- | --- | --- | --- | --- |",
    "| step | 1.25 ms | 1.5 ms | 25% | 0.50 |",
    "| memory | 0.85 GB | 0.9 GB | 0% |  |",
  ]


def test_the_table_of_the_results_page_is_that_of_the_results():
  results = json.loads((ROOT / "experiments/results/benchmark.json").read_text())
  assert benchmark.table(results) in (ROOT / "experiments/README.md").read_text()


def test_table_shows_ratios_to_earlier_results():
  earlier = {"measurements": [{"name": "step", "minimum": 0.0025}]}
  rows = benchmark.table(RESULTS, earlier).splitlines()
  assert rows[2].endswith("| 0.50 |")
  assert rows[3].endswith("|  |")


@pytest.mark.parametrize(
  "text", ["{", "[]", '{"measurements": [{"name": "step", "minimum": 0}]}', "[" * 5000]
)
def test_file_that_is_not_an_output_is_refused(tmp_path, text):
  path = tmp_path / "earlier.json"
  path.write_text(text)
  with pytest.raises(errors.RunError, match=r"earlier\.json is not an --output"):
    benchmark.read_results(path)


@pytest.mark.slow
def test_cases_run(tmp_path):
  """Fixed and dynamic evaluation, and memory of a training, on a few images."""
  output = tmp_path / "benchmark.json"
  ended = forked.run(
    "benchmark",
    "--rounds=1",
    "--starts=1",
    "--num_examples=64",
    "--batch_sizes=32",
    "--cases=4 glimpses,peak",
    f"--output={output}",
  )
  assert ended.returncode == 0, ended.stderr
  results = json.loads(output.read_text())
  names = [m["name"] for m in results["measurements"]]
  assert names == [cases_lib.FIXED, cases_lib.DYNAMIC, cases_lib.MEMORY]
  for measurement in results["measurements"]:
    assert measurement["minimum"] > 0
  assert benchmark.table(results) in ended.stdout
  assert len(results["ratios"]) == 1
