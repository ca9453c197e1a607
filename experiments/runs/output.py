"""The results of a script: where they go, as JSON and as figures."""

from __future__ import annotations

import pathlib
from typing import Any, NamedTuple

from absl import logging
from matplotlib.figure import Figure

from experiments.cli import files, flags
from experiments.cli.errors import UsageError
from experiments.reporting import figures, tables
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
    UsageError: if there is no run, or no folder can be made there.
  """
  folders = workdirs()
  output = flags.FLAGS.output
  if not output:
    why = " (the first folder; --output names another)" if len(folders) > 1 else ""
    return Target(folders[0].path / f"{name}.json", why)
  path = pathlib.Path(output)
  if path.suffix != ".json":
    path /= f"{name}.json"
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UsageError(
      f"output {output} cannot be written: {error.strerror}; give another --output"
    ) from error
  return Target(path)


def write(
  target: Target, results: dict[str, Any], figure: Figure | None = None
) -> None:
  """Writes results as JSON and their figure, if there is one, beside it; says where.

  Beliefs that are not finite are a warning.
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
