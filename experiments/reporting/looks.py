"""What a model answered for images, as lines, JSON and for figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

import ramjax
from ramjax.data.scans import Grid


class Photo(NamedTuple):
  """The part of a file of which the model's image was made.

  Attributes:
    image: [h, w, C], uint8, made smaller to be shown.
    corner: row and column of its first pixel in the file.
    size: its height and width in the file.
  """

  image: np.ndarray
  corner: tuple[int, int]
  size: tuple[int, int]


class Look(NamedTuple):
  """An image, and the answer of a model for it.

  Attributes:
    file: the file of the image.
    image: [H, W, C], uint8, as the model looked at it.
    answer: the answer, of NumPy arrays for a single image.
    beta: exploration rate of the paper's stopping rule; None if another rule or none
      stopped the model.
    confidence: confidence at which the model stops; None as for `beta`.
    stopped: whether the rule stopped the model, and not the limit.
    label: name of the true class; None if it is unknown.
    grid: where the pixels of `image` lie in the image of the file.
    photo: the part of the file of which `image` was made, if it is another image.
    num_samples: rollouts that were averaged for the answer, M.
  """

  file: str
  image: np.ndarray
  answer: ramjax.Answer
  beta: float | None = None
  confidence: float | None = None
  stopped: bool = False
  label: str | None = None
  grid: Grid = Grid()
  photo: Photo | None = None
  num_samples: int = 1

  @property
  def has_rule(self) -> bool:
    """Whether the model stops by itself."""
    return self.beta is not None or self.confidence is not None

  @property
  def num_glimpses(self) -> int:
    """Number of glimpses taken."""
    return int(self.answer.num_glimpses)


def class_of(look: Look, model: ramjax.Predictor) -> str:
  """The name of the class that was answered."""
  return model.class_names[int(look.answer.label)]


def line(look: Look, model: ramjax.Predictor) -> str:
  """The answer in one line."""
  number = look.num_glimpses
  words = [
    f"{look.file}: {class_of(look, model)}",
    f"{'confidence' if model.is_calibrated else 'p'} {percent(look.answer.confidence)}",
    f"{number} glimpse{'s' * (number > 1)}",
  ]
  if look.has_rule and not look.stopped:
    words.append("still undecided")
  if look.label is not None and look.label != class_of(look, model):
    words.append(f"wrong, it is {look.label}")
  return ", ".join(words)


def percent(share: Any) -> str:
  """A share in percent, which is 100 % for exact certainty only."""
  value = 100 * float(share)
  if not math.isfinite(value):
    return "not finite"
  return f"{value:.0f} %" if value < 90 else f"{math.floor(value * 10) / 10:.1f} %"


def entry(look: Look, model: ramjax.Predictor) -> dict[str, Any]:
  """The answer as JSON."""
  answer, taken = look.answer, look.num_glimpses
  height, width, _ = look.image.shape
  return {
    "file": look.file,
    "class": class_of(look, model),
    "confidence": _rounded(answer.confidence),
    "is_calibrated": model.is_calibrated,
    "num_glimpses": taken,
    "num_samples": look.num_samples,
    "beta": look.beta,
    "least_confidence": look.confidence,
    "stopped": look.stopped if look.has_rule else None,
    "label": look.label,
    "height": height,
    "width": width,
    "probs": dict(zip(model.class_names, map(_rounded, answer.probs), strict=True)),
    "self_uncertainty": dict(
      zip(model.class_names, map(_rounded, answer.predicted_error), strict=True)
    ),
    "locations": [list(map(_rounded, xy)) for xy in answer.location_t[:taken]],
  }


def confidences(look: Look, model: ramjax.Predictor) -> np.ndarray:
  """The confidence after each glimpse, also those after the last one taken [T]."""
  return np.asarray(model.confidence_t(look.answer.probs_t))


def most_probable(look: Look, limit: int = 10) -> Sequence[int]:
  """The classes that a figure shows, in their order: those that were most probable."""
  highest = np.nan_to_num(np.asarray(look.answer.probs_t)).max(axis=0)
  return sorted(np.argsort(-highest, kind="stable")[:limit].tolist())


def _rounded(value: Any) -> float:
  return float(f"{float(value):.6g}")
