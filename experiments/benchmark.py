"""Speed and memory of ramjax on this machine: `python -m experiments.benchmark`.

Prints a table and writes --output as JSON. Each round measures every case once, and also
the rate of large matrix products. So noise on a shared machine affects all cases alike.
--compare=JSON adds ratios to an earlier output.
"""

from __future__ import annotations

import json
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags as absl_flags

from experiments.benchmarks import cases as cases_lib
from experiments.cli import app, devices, errors, files, flags
from experiments.reporting import cells
from experiments.runs import output
from experiments.runs.provenance import provenance
from ramjax import data, parallel


def define_flags() -> None:
  """Defines the flags of the script."""
  absl_flags.DEFINE_list("cases", [], "Parts of the names of cases; by default all.")
  absl_flags.DEFINE_integer("rounds", 7, "How often everything is measured.")
  absl_flags.DEFINE_integer(
    "starts", 2, "How often whole trainings are started; 0 leaves them out."
  )
  absl_flags.DEFINE_list("batch_sizes", ["32", "128", "512"], "Examples a step.")
  absl_flags.DEFINE_list("num_runs", ["8"], "Runs trained in one program.")
  absl_flags.DEFINE_integer(
    "num_examples", None, "Use only so many images, of each split; by default all."
  )
  absl_flags.DEFINE_string("data_dir", None, "Folder with MNIST's four IDX files.")
  absl_flags.DEFINE_string("output", None, "Where to write the figures, as JSON.")
  absl_flags.DEFINE_string("compare", None, "An earlier --output to show ratios to.")
  devices.define_precision_flag()


def main() -> None:
  """Measures what the flags ask for."""
  options = flags.FLAGS
  flags.check_at_least(1, "rounds")
  flags.check_at_least(0, "starts")
  batch_sizes = flags.distinct("batch_sizes", int, least=1)
  num_runs = flags.distinct("num_runs", int, least=1)
  if options.output:
    files.make_folder(pathlib.Path(options.output).parent)
  earlier = read_results(pathlib.Path(options.compare)) if options.compare else None
  devices.set_precision()
  num_cpus = devices.num_cores()
  parallel.start(num_devices=num_cpus)  # runs in one program share the cores
  dataset = data.load_dataset(
    "mnist", data_dir=options.data_dir, num_train_examples=options.num_examples
  )
  if len(dataset.train.labels) < max(batch_sizes):
    raise errors.UsageError(
      f"num_examples must be at least the largest of batch_sizes, {max(batch_sizes)}"
    )
  dataset = dataset._replace(
    test=data.Split(*(array[: options.num_examples] for array in dataset.test))
  )
  chosen = [
    case
    for case in cases_lib.all_cases(
      dataset, batch_sizes=batch_sizes, num_runs=num_runs, starts=options.starts
    )
    if not options.cases or any(word in case.name for word in options.cases)
  ]
  if not chosen:
    raise errors.UsageError(f"cases: no case is called {', '.join(options.cases)}")
  results = {
    "matmul_precision": options.matmul_precision,
    **provenance(),
    "cpu_count": num_cpus,
    **measure(chosen, rounds=options.rounds),
  }
  print(table(results, earlier))
  for ratio in results["ratios"]:
    print(f"{ratio['name']}: {ratio['median']:.2f}")
  if options.output:
    output.write(output.Target(pathlib.Path(options.output)), results)


def measure(cases: Sequence[cases_lib.Case], *, rounds: int) -> dict[str, Any]:
  """Measurements of cases, one after the other in each round, for `table`."""
  matrix_rate = cases_lib.MatrixRate()
  prepared = [case.prepare() for case in cases]
  rates: list[float] = []
  values: list[list[float]] = [[] for _ in cases]
  shares: list[list[float]] = [[] for _ in cases]  # of the rate of matrix products
  for number in range(rounds):
    rates.append(matrix_rate())
    for case, run, found, share in zip(cases, prepared, values, shares, strict=True):
      if number < (case.most_rounds or rounds):
        found.append(run())
        if case.gflop is not None:
          share.append(case.gflop / found[-1] / rates[-1])
    print(f"round {number + 1} of {rounds}", flush=True)
  values_of = {case.name: found for case, found in zip(cases, values, strict=True)}
  return {
    "matrix_rate_gflops": _summary(rates),
    "ratios": [
      {
        "name": ratio.name,
        **_summary(list(map(ratio.of, values_of[ratio.above], values_of[ratio.below]))),
      }
      for ratio in cases_lib.ratios(cases)
    ],
    "measurements": [
      {
        "name": case.name,
        "unit": case.unit,
        **_summary(found),
        **({"share_of_matrix_rate": statistics.median(share)} if share else {}),
      }
      for case, found, share in zip(cases, values, shares, strict=True)
    ],
  }


def table(results: Mapping[str, Any], earlier: Mapping[str, Any] | None = None) -> str:
  """A Markdown table of measurements; `earlier` ones add a column of ratios to them."""
  before = {m["name"]: m for m in earlier["measurements"]} if earlier else {}
  head = ["what", "minimum", "median", "spread", "share of the matrix rate"]
  head += ["against earlier"] if earlier else []
  rows = []
  for m in results["measurements"]:
    share = m.get("share_of_matrix_rate")
    row = [m["name"], *(_quantity(m[x], m["unit"]) for x in ("minimum", "median"))]
    row += [f"{m['spread']:.0%}", "" if share is None else f"{share:.2f}"]
    if earlier:
      old = before.get(m["name"])
      row.append("" if old is None else f"{m['minimum'] / old['minimum']:.2f}")
    rows.append(row)
  return cells.markdown(head, rows)


def read_results(path: pathlib.Path) -> dict[str, Any]:
  """The results in the --output of an earlier benchmark.

  Raises:
    RunError: if the file cannot be read or is not an output of the benchmark.
  """
  try:
    results = json.loads(path.read_text())
    for measurement in results["measurements"]:
      if not isinstance(measurement["name"], str) or not measurement["minimum"] > 0:
        raise ValueError("a measurement has no name or no minimum")
    return results
  except OSError as error:
    raise errors.RunError(f"{path} cannot be read: {error.strerror}") from error
  except (ValueError, KeyError, TypeError, RecursionError) as error:
    raise errors.RunError(f"{path} is not an --output of the benchmark") from error


def _summary(values: list[float]) -> dict[str, Any]:
  """Minimum, median and spread: (maximum - minimum) / median."""
  lowest, median = min(values), statistics.median(values)
  spread = (max(values) - lowest) / median
  return {"minimum": lowest, "median": median, "spread": spread, "repeats": len(values)}


def _quantity(value: float, unit: str) -> str:
  """A quantity with its unit, to three significant digits."""
  if unit == "B":
    return f"{value / 1e9:.3g} GB"
  for factor, name in ((1.0, "s"), (1e-3, "ms")):
    if value >= factor:
      return f"{value / factor:.3g} {name}"
  return f"{value / 1e-6:.3g} μs"


if __name__ == "__main__":
  define_flags()
  app.run(main)
