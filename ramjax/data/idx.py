"""Reading and checking IDX files, the format of MNIST."""

from __future__ import annotations

import gzip
import io
import math
import pathlib
import struct
import zlib
from typing import BinaryIO, NamedTuple

import numpy as np

_CHUNK = 2**16


class DataError(RuntimeError):
  """Data that cannot be found or used; the message is one line that says what to do."""


class IdxFile(NamedTuple):
  """The content of an IDX file.

  Attributes:
    array: the values, uint8.
    content: the bytes of the uncompressed file.
  """

  array: np.ndarray
  content: bytes


def read_idx(path: pathlib.Path, *, shape: tuple[int, ...]) -> IdxFile:
  """Reads an IDX file of unsigned bytes, plain or compressed (`.gz`).

  It reads at most one byte more than `shape` needs, whatever the header claims, and
  allocates memory only for bytes that it has read.

  Args:
    path: the file.
    shape: expected shape.

  Returns:
    The array and the bytes of the file.

  Raises:
    DataError: if the file cannot be read, is not an IDX file of this shape, or is too
      short or too long.
  """
  header = b"\0\0\x08" + struct.pack(f">B{len(shape)}I", len(shape), *shape)
  size = len(header) + math.prod(shape)
  try:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
      content = _read_at_most(file, size + 1)
  except (OSError, EOFError, zlib.error) as error:
    raise DataError(f"{path} cannot be read ({error}); download it again") from error
  if content[: len(header)] != header:
    raise DataError(
      f"{path} is not an IDX file of {' x '.join(map(str, shape))} bytes;"
      " download it again, or point --data_dir at the right folder"
    )
  if len(content) != size:
    problem = "is truncated" if len(content) < size else "has bytes left over"
    raise DataError(f"{path} {problem} ({size} bytes expected); download it again")
  array = np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)
  return IdxFile(array, content)


def _read_at_most(file: BinaryIO | gzip.GzipFile, size: int) -> bytes:
  """At most `size` bytes of a file; `file.read(size)` would allocate `size` bytes."""
  parts = io.BytesIO()
  while part := file.read(min(_CHUNK, size - parts.tell())):
    parts.write(part)
  return parts.getvalue()
