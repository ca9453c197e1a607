"""Updates figures and tables from the committed results: `python -m experiments.report`.

Reads experiments/results/*.json and draws the figures beside them. Writes each table into
the documents, between the marks `<!-- table: NAME of FILE -->` and
`<!-- end of table -->`. `FILE + FILE` makes one table of the runs in several files. With
--check, nothing is written, and the exit status is 1 if a document differs from the
results.
"""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from absl import flags as absl_flags
from matplotlib.figure import Figure

from experiments.cli import app, errors, files, flags
from experiments.reporting import figures, groups, plots, tables

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = ROOT / "experiments" / "results"
DOCUMENTS = ("README.md", "experiments/README.md", "BUILD_NOTES.md")

_FIGURES: Mapping[str, Callable[[Mapping[str, Any]], Figure]] = {
  "convergence": plots.convergence,
  "glimpse_generalization": plots.glimpse_generalization,
  "calibration": plots.calibration,
  "stopping_rules": plots.stopping_rules,
}
"""Functions that draw the figures, by the beginning of the name of a results file."""

_FIGURES_OF_ALL: Mapping[str, Callable[[Mapping[str, Any]], Figure]] = {
  "records": plots.records
}
"""Functions that draw one figure of all results files whose names begin so."""

_TABLE = re.compile(
  r"(<!-- table: (?P<name>\w+) of (?P<files>[\w.]+(?: \+ [\w.]+)*) -->\n)"
  r".*?(<!-- end of table -->)",
  re.DOTALL,
)

_START = re.compile(r"^<!--\s*table\b.*$", re.MULTILINE)


def define_flags() -> None:
  """Defines the flags of the script."""
  absl_flags.DEFINE_boolean("check", False, "Whether only to compare.")
  flags.define_figure_flag()


def main() -> None:
  """Updates figures and documents; with --check, compares the documents only."""
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
    print("the documents agree with the results")
    return
  for path, figure in _draw():
    for written in figures.save(figure, path, flags.FLAGS.figure_format):
      print(f"drew {written.name}")
  print(f"updated tables in: {', '.join(stale) or 'no document, all are up to date'}")


def _draw() -> Iterator[tuple[pathlib.Path, Figure]]:
  """The figures of the results, and the names that they get."""
  names = sorted(path.name for path in RESULTS.glob("*.json"))
  for beginning, draw in _FIGURES.items():
    for name in names:
      if name.startswith(beginning):
        yield RESULTS / name, draw(read_results(name))
  for beginning, draw in _FIGURES_OF_ALL.items():
    alike = [name for name in names if name.startswith(beginning)]
    if alike:
      yield RESULTS / f"{beginning}.json", draw(_merge_runs(alike))


def with_tables(document: str) -> str:
  """A document with all marked tables updated from the results.

  Raises:
    RunError: if a mark is of another form or has no end, a table is unknown, or a file cannot
      be read or is of another table.
  """
  whole = [mark for mark in _TABLE.finditer(document) if not _START.search(mark[0], 1)]
  sound = {mark.start() for mark in whole}
  for start in _START.finditer(document):
    if start.start() not in sound:
      raise errors.RunError(
        f"{start[0]} has no end mark, or is not of the form"
        " <!-- table: NAME of FILE + FILE -->"
      )

  def update(mark: re.Match[str]) -> str:
    name = mark["name"]
    if name not in tables.TABLES:
      raise errors.RunError(
        f"table {name} is unknown; the tables are {', '.join(tables.TABLES)}"
      )
    results = _merge_runs(mark["files"].split(" + "))
    try:
      return f"{mark[1]}\n{tables.TABLES[name](results)}\n\n{mark[4]}"
    except (KeyError, TypeError, IndexError, ValueError) as error:
      raise errors.RunError(
        f"table {name} cannot be made of {mark['files']} ({error!r} in it)"
      ) from error

  return _TABLE.sub(update, document)


def _merge_runs(names: Sequence[str]) -> Mapping[str, Any]:
  """The content of the first results file, with the runs of all files.

  Each run says how it was evaluated, so that only those evaluated alike are pooled.
  """
  contents = [read_results(name) for name in names]
  if len(contents) == 1:
    return contents[0]
  runs: list[Mapping[str, Any]] = []
  for name, results in zip(names, contents, strict=True):
    if "runs" not in results:
      raise errors.RunError(
        f"{RESULTS / name} has no runs and cannot be combined with other files"
      )
    shared = ("device", *groups.EVALUATION)
    how = {field: results[field] for field in shared if field in results}
    runs += [{**how, **run} for run in results["runs"]]
  return {**contents[0], "runs": runs}


def read_results(name: str) -> Mapping[str, Any]:
  """The content of a results file.

  Raises:
    RunError: if the file cannot be read or is not valid JSON.
  """
  try:
    return json.loads((RESULTS / name).read_text())
  except (OSError, ValueError) as error:
    raise errors.RunError(f"{RESULTS / name} cannot be read: {error}") from error


if __name__ == "__main__":
  define_flags()
  app.run(main)
