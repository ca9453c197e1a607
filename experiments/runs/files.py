"""Files that are written whole or not at all."""

from __future__ import annotations

import json
import math
import os
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

UNFINISHED = ".new-"
"""How the names of files begin that a killed process had not finished."""


def write_json(path: pathlib.Path, content: Any) -> None:
  """Writes a JSON file, whole or not at all; numbers that are not finite are null."""
  replace(path, json.dumps(finite(content), indent=2, allow_nan=False) + "\n")


def replace(path: pathlib.Path, content: str | bytes) -> None:
  """Gives a file another content, which is on disk before the old one is gone."""
  if isinstance(content, str):
    content = content.encode()
  try:
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=UNFINISHED) as temporary:
      new = pathlib.Path(temporary) / path.name
      with new.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
      new.replace(path)
  except OSError as error:
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
