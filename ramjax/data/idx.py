"""The IDX files of MNIST and its relatives: read, checked, and nothing else."""

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
  """Data that cannot be had or used; the message is one line with the remedy."""


class IdxFile(NamedTuple):
  """The content of an IDX file.

  Attributes:
    array: the numbers, uint8.
    content: the bytes of the uncompressed file.
  """

  array: np.ndarray
  content: bytes


def read_idx(path: pathlib.Path, *, shape: tuple[int, ...]) -> IdxFile:
  """Reads an IDX file of unsigned bytes, plain or compressed (`.gz`).

  No more is read than the shape calls for, whatever the header claims, and no more
  memory is taken than there are bytes.

  Args:
    path: the file.
    shape: the shape that it must have.

  Returns:
    Its array and its bytes.

  Raises:
    DataError: if it cannot be read, is no IDX file of that shape, is truncated or
      has bytes left over.
  """
  header = b"\0\0\x08" + struct.pack(f">B{len(shape)}I", len(shape), *shape)
  size = len(header) + math.prod(shape)
  try:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
      content = _read_at_most(file, size + 1)
  except (OSError, EOFError, zlib.error) as error:
    raise DataError(f"{path} cannot be read ({error}); get it again") from error
  if content[: len(header)] != header:
    raise DataError(
      f"{path} is not an IDX file of {' x '.join(map(str, shape))} bytes;"
      " get it again, or point --data_dir at the right folder"
    )
  if len(content) != size:
    problem = "is truncated" if len(content) < size else "has bytes left over"
    raise DataError(f"{path} {problem} ({size} bytes expected); get it again")
  array = np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)
  return IdxFile(array, content)


def _read_at_most(file: BinaryIO | gzip.GzipFile, size: int) -> bytes:
  """The first bytes of a file; `file.read(size)` would take all the memory first."""
  parts = io.BytesIO()
  while part := file.read(min(_CHUNK, size - parts.tell())):
    parts.write(part)
  return parts.getvalue()
