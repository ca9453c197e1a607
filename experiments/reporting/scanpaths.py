"""Scanpaths as files for eye-movement research: a CSV of fixations, and JSON of trials.

A fixation is a glimpse, in the order in which the model takes them. A model has no clock,
so no file has durations.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from ramjax.data.scans import Grid

COLUMNS = (
  *("image", "label", "run", "rollout", "fixation", "x_px", "y_px", "x", "y", "scale"),
  *("p_true", "entropy_before", "entropy_after", "information_gain_bits"),
  *("self_uncertainty", "stopped", "x_file", "y_file"),
)
"""The columns of the CSV, see `rows`."""


class Scanpath(NamedTuple):
  """One rollout of a model at one image; what comes after the stop may stay in the arrays.

  Attributes:
    image: name of the file.
    label: name of the true class; None if it is unknown.
    run: the trained model.
    rollout: number of the rollout at this image, from 1.
    height: height of the image, in pixels.
    width: width of the image, in pixels.
    location_t: location (x, y) in [-1, 1] of each glimpse.
    probs_t: softmax outputs p after each glimpse.
    predicted_error_t: self-uncertainties u after each glimpse.
    class_names: names of the K classes.
    num_fixations: number of glimpses taken, at most T.
    stopped: whether the stopping rule ended the rollout; False if the limit did.
    patch_sides: sides of the patches of a glimpse, in pixels.
    grid: where the pixels of the image that the model saw lie in the image of the file.
  """

  image: str
  label: str | None
  run: str
  rollout: int
  height: int
  width: int
  location_t: np.ndarray  # [T, 2]
  probs_t: np.ndarray  # [T, K]
  predicted_error_t: np.ndarray  # [T, K]
  class_names: tuple[str, ...]
  num_fixations: int
  stopped: bool
  patch_sides: tuple[int, ...]
  grid: Grid = Grid()


def rows(scanpath: Scanpath) -> list[dict[str, Any]]:
  """The fixations of a scanpath, one row each.

  Args:
    scanpath: the scanpath.

  Returns:
    For each glimpse taken, the values of `COLUMNS`:
      image, label, run, rollout: those of the scanpath; an unknown label is empty.
      fixation: number of the glimpse, from 1.
      x_px, y_px: column and row of the pixel at the centre, from 0 at the top left. A
        location on the right or lower border belongs to the last pixel.
      x, y: the location in [-1, 1].
      scale: side of the widest patch (the field of view), in pixels.
      p_true: probability of the true class; empty if the model has no such class.
      entropy_before, entropy_after: entropy of p, in bits. Before the first
        glimpse all classes are equally probable.
      information_gain_bits: the first less the second.
      self_uncertainty: u of the class that is most probable after the glimpse.
      stopped: 1 if the stopping rule ended the rollout here, else 0.
      x_file, y_file: column and row of the same place in the file, which had another size
        if the image was made of it. They are outside it where the model looked beside it.
  """
  true_class = _true_class(scanpath)
  probs_t = np.asarray(scanpath.probs_t, np.float64)
  # Where p is 0, p log p is 0. (scipy.special has it, but takes half a second to import.)
  after = -np.sum(probs_t * np.log2(np.where(probs_t == 0, 1, probs_t)), axis=-1)
  before = np.append(math.log2(len(scanpath.class_names)), after[:-1])
  return [
    {
      "image": scanpath.image,
      "label": "" if scanpath.label is None else scanpath.label,
      "run": scanpath.run,
      "rollout": scanpath.rollout,
      "fixation": t + 1,
      "x_px": x_px,
      "y_px": y_px,
      "x": float(scanpath.location_t[t, 0]),
      "y": float(scanpath.location_t[t, 1]),
      "scale": max(scanpath.patch_sides),
      "p_true": "" if true_class is None else float(probs_t[t, true_class]),
      "entropy_before": float(before[t]),
      "entropy_after": float(after[t]),
      "information_gain_bits": float(before[t] - after[t]),
      "self_uncertainty": _error_of_best(probs_t[t], scanpath.predicted_error_t[t]),
      "stopped": int(scanpath.stopped and t + 1 == scanpath.num_fixations),
      "x_file": x_file,
      "y_file": y_file,
    }
    for t, ((x_px, y_px), (x_file, y_file)) in enumerate(
      zip(pixels(scanpath), pixels_of_file(scanpath), strict=True)
    )
  ]


def csv_text(scanpaths: Iterable[Scanpath]) -> str:
  """A CSV file with a head and a row for each fixation of some scanpaths.

  Args:
    scanpaths: the scanpaths.

  Returns:
    The content of the file. Fields are quoted as in RFC 4180 where they must be; lines
    end in a line feed. Floats have six significant digits. What is unknown is empty, and
    a value that is not a number is `nan`.
  """
  lines = [_line(COLUMNS)]
  for scanpath in scanpaths:
    lines += [_line([_text(row[name]) for name in COLUMNS]) for row in rows(scanpath)]
  return "".join(f"{line}\n" for line in lines)


def coco_search18(scanpaths: Iterable[Scanpath]) -> list[dict[str, Any]]:
  """Scanpaths as trials of COCO-Search18, one record for each.

  The fixation files of COCO-Search18 are such lists (Chen et al., 2021,
  https://doi.org/10.1038/s41598-021-87715-9). A model has no durations `T`, no reaction
  time `RT`, and no `condition`, `bbox`, `fixOnTarget` or `split`. These fields are
  missing, as no value would be true.

  Args:
    scanpaths: the scanpaths.

  Returns:
    Records for `json.dump`: `name` (image), `subject` (rollout), `task` (label, or empty
    if it is unknown), `X` and `Y` (columns and rows of the fixations, in pixels of the
    file), `length` (number of fixations) and `correct` (1 if the class that is most
    probable after the last fixation is the true one, else 0; None if the label is
    unknown or no class of the model).
  """
  return [
    {
      "name": scanpath.image,
      "subject": scanpath.rollout,
      "task": "" if scanpath.label is None else scanpath.label,
      "X": [x for x, _ in pixels_of_file(scanpath)],
      "Y": [y for _, y in pixels_of_file(scanpath)],
      "length": scanpath.num_fixations,
      "correct": _is_correct(scanpath),
    }
    for scanpath in scanpaths
  ]


def pixels(scanpath: Scanpath) -> list[tuple[int | float, int | float]]:
  """Column and row of the pixel at the centre of each glimpse taken.

  They are those of the sensor, `ramjax.patch_origin`, which computes in float32, but for
  a location on the right or lower border: the sensor's centre is just outside the image,
  and this is the last pixel. A location that is not a number has pixels that are none.
  """
  return [(_whole(x), _whole(y)) for x, y in _places(scanpath).tolist()]


def pixels_of_file(scanpath: Scanpath) -> list[tuple[int | float, int | float]]:
  """Column and row of the pixel of the file there, see `rows`."""
  places = [scanpath.grid.place(y, x) for x, y in _places(scanpath).tolist()]
  return [(_whole(x), _whole(y)) for y, x in places]


def _places(scanpath: Scanpath) -> np.ndarray:
  """Columns and rows of the centres, with fractions, less than width and height [T, 2]."""
  sizes = np.array([scanpath.width, scanpath.height], np.float32)
  location_t = np.asarray(scanpath.location_t, np.float32)[: scanpath.num_fixations]
  exact = np.float32(0.5) * ((location_t + np.float32(1)) * sizes)
  return np.clip(exact, 0, np.nextafter(sizes, np.float32(0)))


def _whole(value: float) -> int | float:
  return math.floor(value) if math.isfinite(value) else value


def _true_class(scanpath: Scanpath) -> int | None:
  """The number of the true class; None if the model has no such class."""
  if scanpath.label is None or scanpath.label not in scanpath.class_names:
    return None
  return scanpath.class_names.index(scanpath.label)


def _is_correct(scanpath: Scanpath) -> int | None:
  """Whether the last prediction is right; one that is not finite never is."""
  true_class = _true_class(scanpath)
  if true_class is None:
    return None
  probs = scanpath.probs_t[scanpath.num_fixations - 1]
  return int(np.isfinite(probs).all() and np.argmax(probs) == true_class)


def _error_of_best(probs: np.ndarray, predicted_error: np.ndarray) -> float:
  """The self-uncertainty u of the most probable class; NaN if p has a NaN."""
  return math.nan if np.isnan(probs).any() else float(predicted_error[probs.argmax()])


def _text(value: Any) -> str:
  """A value as the text of a field; a zero has no sign."""
  return format(value + 0.0, ".6g") if isinstance(value, float) else str(value)


def _line(fields: Iterable[str]) -> str:
  """A line of a CSV file, without its end.

  Written with the standard's end, so that a lone carriage return is quoted, too.
  """
  buffer = io.StringIO(newline="")
  csv.writer(buffer).writerow(fields)
  return buffer.getvalue().removesuffix("\r\n")
