"""The results of a script: where they go, as JSON and as figures."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from absl import logging
from matplotlib.figure import Figure

from experiments.cli import files, flags
from experiments.reporting import figures, groups, tables
from experiments.runs.provenance import provenance
from experiments.runs.trained import workdirs


class Target(NamedTuple):
  """Where results go.

  Attributes:
    path: the JSON file; a figure goes beside it.
    why: why there, for the line that says so; empty if it was asked for.
  """

  path: pathlib.Path
  why: str = ""


def evaluation_target(name: str) -> Target:
  """Where an evaluation writes `<name>.json`: `--output`, or the folder of the first run.

  Raises:
    UsageError: if there is no run, or nothing can be written there.
  """
  folders = workdirs()
  output = flags.FLAGS.output
  if not output:
    if folders[0].path.is_dir():
      files.make_folder(folders[0].path)  # it may not be ours to write
    why = " (the first folder; --output names another)" if len(folders) > 1 else ""
    return Target(folders[0].path / f"{name}.json", why)
  path = pathlib.Path(output)
  if path.suffix != ".json":
    path /= f"{name}.json"
  files.make_folder(path.parent)
  return Target(path)


def evaluation(
  entries: Sequence[Mapping[str, Any]],
  *,
  split: str = "test",
  seed: int = 0,
  **how: Any,
) -> dict[str, Any]:
  """The results of an evaluation: how it was done, by what, and an entry for each run."""
  unknown = set(how) - set(groups.EVALUATION)
  assert not unknown, f"groups.EVALUATION lacks {unknown}"
  return {
    **how,
    "split": split,
    "evaluation_seed": seed,
    **provenance(),
    "runs": groups.with_groups(entries),
  }


def write(
  target: Target, results: dict[str, Any], figure: Figure | None = None
) -> None:
  """Writes results as JSON and their figure, if there is one, beside it; says where.

  Probabilities that are not finite are a warning.
  """
  if warning := tables.not_finite(results):
    logging.warning("%s", warning)
  files.write_json(target.path, results)
  written = [target.path]
  if figure:
    written += figures.save(figure, target.path, flags.FLAGS.figure_format)
  first, *others = written
  names = " and ".join([str(first), *(path.name for path in others)])
  print(f"written to {names}{target.why}")
