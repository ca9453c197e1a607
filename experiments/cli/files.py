"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import math
import os
import pathlib
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from experiments.cli.errors import UsageError

UNFINISHED = ".new-"
"""How the names of files begin that a killed process had not finished."""


_OF_FILES = {".csv", ".gif", ".html", ".jpg", ".md", ".pdf", ".png", ".svg", ".txt"}
"""How names end that stand for a file."""


def make_folder(path: pathlib.Path, *, flag: str = "output") -> pathlib.Path:
  """Makes the folder that a flag names, if it is not there; before long work.

  Raises:
    UsageError: if it has the name of a file, cannot be made, or cannot be written to.
  """
  if path.suffix in _OF_FILES and not path.is_dir():
    raise UsageError(f"{flag} must name a folder, not {path}")
  try:
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path, prefix=UNFINISHED):
      pass
  except OSError as error:
    raise UsageError(
      f"{flag} {path} cannot be written: {error.strerror}; give another --{flag}"
    ) from error
  return path


def write_json(path: pathlib.Path, content: Any) -> None:
  """Writes a JSON file, whole or not at all; numbers that are not finite are null."""
  replace(path, json.dumps(finite(content), indent=2, allow_nan=False) + "\n")


def replace(path: pathlib.Path, content: str | bytes) -> None:
  """Gives a file another content, which is on disk before the old one is gone."""
  if isinstance(content, str):
    content = content.encode()
  with whole(path) as new:
    new.write_bytes(content)


@contextlib.contextmanager
def whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """A file to write, of the same name; on disk, it takes the place of the old one."""
  try:
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=UNFINISHED) as temporary:
      new = pathlib.Path(temporary) / path.name
      yield new
      with new.open("rb+") as file:
        os.fsync(file.fileno())
      new.replace(path)
  except OSError as error:
    if error.errno is None:  # as Pillow raises it, with a message alone
      raise
    raise OSError(error.errno, error.strerror, str(path)) from error


def finite(content: Any) -> Any:
  """JSON content with null in the place of numbers that JSON does not know."""
  if isinstance(content, Mapping):
    return {name: finite(value) for name, value in content.items()}
  if isinstance(content, list):
    return [finite(value) for value in content]
  if isinstance(content, float) and not math.isfinite(content):
    return None
  return content
