"""A page to watch a model look at images: one HTML file that needs no network."""

from __future__ import annotations

import base64
import functools
import io
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jinja2
import numpy as np
from matplotlib import colors
from PIL import Image

import ramjax
from experiments.reporting import looks, seen
from experiments.reporting.looks import Look, Photo
from experiments.reporting.paths import path_colors
from ramjax.config import ModelConfig
from ramjax.data.scans import Grid

_FOLDER = pathlib.Path(__file__).parent

_RATES = (0, 0.02, 0.05, 0.08, 0.1, 0.13, 0.16, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7, 1, 2, 5)
"""Exploration rates that the page offers, beside the one that was asked for."""


_NUM_COLORS = 64


def page(
  found: Sequence[Look],
  model: ramjax.Predictor,
  source: str,
  *,
  embedded: bool = False,
) -> str:
  """The page of some answers.

  It shows the path over each image, the pixels seen so far, the patches of the sensor,
  and the probabilities p with the self-uncertainties u. Its controls choose the glimpse
  and the exploration rate of the stopping rule, which the page computes itself. If the
  model stops at a confidence, that takes the place of the rate.

  Args:
    found: the answers, at least one.
    model: the model.
    source: name or folder of the model.
    embedded: whether it is shown inside another page: it has no title then, its
      explanation is folded, and it plays at once.
  """
  beta = found[0].beta
  rates = sorted({*_RATES, *(() if beta is None else (beta,))})
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_FOLDER),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  return environment.get_template("look.html.jinja").render(
    title=f"{source} looks at {len(found)} image{'s' * (len(found) > 1)}",
    source=source,
    is_calibrated=model.is_calibrated,
    embedded=embedded,
    data={
      "playsAtOnce": embedded,
      "beta": beta,
      "leastConfidence": found[0].confidence,
      "rates": rates,
      "numSamples": found[0].num_samples,
      "confidenceName": "confidence" if model.is_calibrated else "p",
      "palette": [colors.to_hex(c) for c in path_colors(_NUM_COLORS)],
      "classNames": list(model.class_names),
      "looks": [_content(look, model) for look in found],
    },
  )


def _content(look: Look, model: ramjax.Predictor) -> dict[str, Any]:
  """What the page knows of an answer, as JSON. Images are PNG, in frames below another."""
  config, answer = model.config.model, look.answer
  height, width, _ = look.image.shape
  locations = np.asarray(answer.location_t)
  corners = seen.corners(locations, (height, width), config.patch_size)
  limits = (-0.5, width - 0.5), (height - 0.5, -0.5)
  places = seen.number_places(corners, config.patch_size, limits)
  frames = list(seen.seen_frames(look.image, locations, config))
  return {
    "file": look.file,
    "label": look.label,
    "width": width,
    "height": height,
    "image": _png(look.image),
    "seen": _png(np.concatenate(frames)),
    "patches": _png(_patches(look.image, locations, config, model.info.mean)),
    "patchSize": config.patch_size,
    "numScales": config.num_scales,
    "patchSides": list(config.patch_sides),
    "corners": corners.tolist(),
    "numbers": [[round(float(c), 2) for c in place] for place in places],
    "shown": list(looks.most_probable(look)),
    "p": _numbers(answer.probs_t),
    "u": _numbers(answer.predicted_error_t),
    "confidence": _numbers(looks.confidences(look, model)),
    "taken": look.num_glimpses,
    "photo": None if look.photo is None else _photo(look.photo, look.grid),
  }


def _photo(photo: Photo, grid: Grid) -> dict[str, Any]:
  """What the page knows of the part of a file of which an image was made."""
  return {
    "image": _png(photo.image),
    "shown": [photo.image.shape[1], photo.image.shape[0]],
    "corner": list(photo.corner),
    "size": list(photo.size),
    "origin": list(grid.origin),
    "step": list(grid.step),
  }


def _patches(
  image: np.ndarray, locations: np.ndarray, config: ModelConfig, mean: Sequence[float]
) -> np.ndarray:
  """What the sensor gives at each location, side by side by scale [T g, S g, C], uint8.

  Pixels outside the image have its mean, which is 0 after normalisation.
  """
  levels = 255 * np.array(mean, np.float32)
  found = _glimpses(
    jnp.asarray(np.float32(image) - levels),
    jnp.asarray(locations),
    patch_size=config.patch_size,
    num_scales=config.num_scales,
    scale_factor=config.scale_factor,
  )
  glimpses = np.asarray(found) + levels
  side_by_side = np.concatenate(np.moveaxis(glimpses, 1, 0), axis=2)  # [T, g, S g, C]
  return np.round(side_by_side.reshape(-1, *side_by_side.shape[2:])).astype(np.uint8)


@functools.partial(
  jax.jit, static_argnames=("patch_size", "num_scales", "scale_factor")
)
def _glimpses(image: jax.Array, locations: jax.Array, **sensor: int) -> jax.Array:
  """What the sensor gives at each location [T, S, g, g, C]."""
  return jax.vmap(lambda location: ramjax.extract_glimpse(image, location, **sensor))(
    locations
  )


def _png(image: np.ndarray) -> str:
  """An image [H, W, C] as the address of an embedded PNG."""
  if image.shape[-1] != 3:
    image = np.round(image.mean(axis=-1)).astype(np.uint8)
  file = io.BytesIO()
  Image.fromarray(image).save(file, "PNG")
  return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _numbers(values: Any) -> list[Any]:
  """Numbers with five digits; those that are not finite are null."""
  array = np.asarray(values, float)
  if array.ndim > 1:
    return [_numbers(row) for row in array]
  return [float(f"{value:.5g}") if np.isfinite(value) else None for value in array]
