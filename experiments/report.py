"""Redraws figures and tables from the committed results: `python -m experiments.report`.

Reads experiments/results/*.json, draws a PNG beside each that has a figure, and puts the
tables between the marks of the documents, `<!-- table: NAME of FILE -->` and
`<!-- end of table -->`; of several files, `FILE + FILE`, the table has all the runs. With
--check nothing is written, and the exit status is 1 if a document differs from the
results.
"""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import flags as absl_flags

from experiments.cli import app, errors, flags
from experiments.reporting import plots, tables
from experiments.runs import files

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = ROOT / "experiments" / "results"
DOCUMENTS = ("README.md", "experiments/README.md", "BUILD_NOTES.md")

_FIGURES: Mapping[str, Callable[[Mapping[str, Any], pathlib.Path], None]] = {
  "convergence": plots.convergence,
  "glimpse_generalization": lambda results, path: plots.glimpse_generalization(
    results["runs"], path
  ),
  "calibration": lambda results, path: plots.calibration(results["runs"], path),
}
"""By the beginning of the name of a file."""

_TABLE = re.compile(
  r"(<!-- table: (?P<name>\w+) of (?P<files>[\w.]+(?: \+ [\w.]+)*) -->\n)"
  r".*?(<!-- end of table -->)",
  re.DOTALL,
)


def define_flags() -> None:
  """Defines the flags of the script."""
  absl_flags.DEFINE_boolean("check", False, "Whether only to compare.")


def main() -> None:
  """Draws and writes, or compares."""
  check = flags.FLAGS.check
  stale = []
  for name in DOCUMENTS:
    document = ROOT / name
    before = document.read_text()
    after = with_tables(before)
    if after != before:
      stale.append(name)
      if not check:
        files.replace(document, after)
  if check:
    if stale:
      raise errors.RunError(
        f"{', '.join(stale)} differs from the results; run `python -m experiments.report`"
      )
    print("the documents have the tables of the results")
    return
  for path in sorted(RESULTS.glob("*.json")):
    for beginning, draw in _FIGURES.items():
      if path.stem.startswith(beginning):
        draw(read_results(path.name), path.with_suffix(".png"))
        print(f"drew {path.with_suffix('.png').name}")
  print(f"wrote the tables of {', '.join(stale) or 'no document: they are the same'}")


def with_tables(document: str) -> str:
  """A document with each of its marked tables as the results have it.

  Raises:
    RunError: if a table or a file is unknown.
  """

  def table(found: re.Match[str]) -> str:
    name = found["name"]
    if name not in tables.TABLES:
      raise errors.RunError(
        f"table {name} is unknown; the tables are {', '.join(tables.TABLES)}"
      )
    results = _together(found["files"].split(" + "))
    return f"{found[1]}\n{tables.TABLES[name](results)}\n\n{found[4]}"

  return _TABLE.sub(table, document)


def _together(names: Sequence[str]) -> Mapping[str, Any]:
  """The first of some files of results, with the runs of them all."""
  first, *others = map(read_results, names)
  if not others:
    return first
  for name, results in zip(names, (first, *others), strict=True):
    if "runs" not in results:
      raise errors.RunError(
        f"{RESULTS / name} has no runs to put beside those of others"
      )
  return {**first, "runs": [run for each in (first, *others) for run in each["runs"]]}


def read_results(name: str) -> Mapping[str, Any]:
  """The content of a file of results.

  Raises:
    RunError: if there is none, or it is damaged.
  """
  try:
    return json.loads((RESULTS / name).read_text())
  except (OSError, ValueError) as error:
    raise errors.RunError(f"{RESULTS / name} cannot be read: {error}") from error


if __name__ == "__main__":
  define_flags()
  app.run(main)
