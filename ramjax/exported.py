"""Trained models as programs that run without ramjax: StableHLO, by `jax.export`.

`python -m experiments.export` writes such a program into a file. Its parameters are
constants in it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.export import Exported, symbolic_shape
from jax.export import export as jax_export
from jax.extend.core import InconclusiveDimensionOperation

from ramjax import dynamic
from ramjax import predictor as predictor_lib
from ramjax.config import ConfigError, EvaluationConfig
from ramjax.predictor import Predictor, answer, as_seen
from ramjax.ram import as_model

_LARGEST_SIDE = 2**15
"""Images of a program have so many pixels a side at most."""

_PLATFORMS = ("cpu", "cuda", "rocm", "tpu")

Program = Callable[[jax.Array, jax.Array], dict[str, jax.Array]]
"""From images [b, H, W, C] and a seed [] to what `export` lists."""


def export(
  predictor: Predictor,
  *,
  num_glimpses: int | None = None,
  beta: float | None = None,
  confidence: float | None = None,
  ends_early: bool = True,
  location_noise: float | Sequence[float] = 1.0,
  image_size: tuple[int, int] | Literal["any"] | None = None,
  platforms: Sequence[str] = ("cpu", "cuda"),
) -> Exported:
  """A trained model as a program that runs without ramjax.

  Its `serialize()` makes the bytes of a file (this needs the extra `export`), and
  `jax.export.deserialize` reads them. Its answers are those of the model with the key
  `jax.random.key(seed)`, to rounding; on the CPU with XLA's own settings to the bit,
  unless the program ends early. Matrix products have the precision that JAX is
  configured to (`jax_default_matmul_precision`) at the export.

  Args:
    predictor: the model.
    num_glimpses: number of glimpses, at most if the model stops by itself; None is as many
      as in training, or 50 if it stops by itself.
    beta: exploration rate: the model stops by itself. Without it and `confidence` it takes
      all glimpses.
    confidence: confidence at which the model stops by itself, in the place of `beta`; see
      `Predictor`.
    ends_early: whether the program of a model that stops by itself ends when all images
      are decided. If not, it takes all glimpses, and the rule is applied afterwards.
    location_noise: factor on the noise of the policy, see `Predictor`.
    image_size: height and width of the images; None is the size in the training, and
      `any` makes a program for every size.
    platforms: where the program runs: `cpu`, `cuda`, `rocm`, `tpu`.

  Returns:
    The program. It takes images [b, H, W, C] of any number b from 1 on, uint8, and a seed [],
    uint32, and returns a dictionary, see `Answer`: `label` [b] (int32), `probs` [b, K],
    `predicted_error` [b, K], `confidence` [b], `num_glimpses` [b] (int32), and
    `location_t` [T, b, 2], which is NaN after the glimpse at which the model stopped.

  Raises:
    ConfigError: if images are smaller than a patch, a number or a platform is not one of
      those allowed, or the model is one of your own whose sensor needs images of a fixed size.

  >>> import numpy as np
  >>> import ramjax
  >>> program = export(ramjax.pretrained("mnist"), num_glimpses=3)
  >>> found = program.call(np.zeros((2, 28, 28, 1), np.uint8), np.uint32(0))
  >>> found["probs"].shape, found["location_t"].shape
  ((2, 10), (3, 2, 2))
  """
  look = as_function(
    predictor,
    num_glimpses=num_glimpses,
    beta=beta,
    confidence=confidence,
    ends_early=ends_early,
    location_noise=location_noise,
  )
  height, width = _image_size(predictor, image_size)
  platforms = list(platforms) if not isinstance(platforms, str) else [platforms]
  unknown = [each for each in platforms if each not in _PLATFORMS]
  if unknown or not platforms:
    raise ConfigError(
      f"platforms must be some of {', '.join(_PLATFORMS)}, not {', '.join(unknown) or 'none'}"
    )
  least, channels = predictor.config.model.patch_size, predictor.info.image_shape[-1]
  symbolic = [f"{side} >= {least}" for side in (height, width) if side in ("H", "W")]
  shape = symbolic_shape(f"b, {height}, {width}, {channels}", constraints=symbolic)
  images = jax.ShapeDtypeStruct(shape, jnp.uint8)
  seed = jax.ShapeDtypeStruct((), jnp.uint32)
  try:
    return jax_export(jax.jit(look), platforms=platforms)(images, seed)
  except InconclusiveDimensionOperation as error:
    first, *_ = str(error).splitlines()
    raise ConfigError(
      f"image_size must be a fixed one, as the model needs it ({first})"
    ) from error


def as_function(
  predictor: Predictor,
  *,
  num_glimpses: int | None = None,
  beta: float | None = None,
  confidence: float | None = None,
  ends_early: bool = True,
  location_noise: float | Sequence[float] = 1.0,
) -> Program:
  """A trained model as a pure function of images and a seed; see `export`.

  Args:
    predictor: the model.
    num_glimpses: number of glimpses, at most if the model stops by itself.
    beta: exploration rate.
    confidence: confidence at which it stops, in the place of `beta`.
    ends_early: whether the program ends when all images are decided.
    location_noise: factor on the noise of the policy, see `Predictor`.

  Returns:
    The function.

  Raises:
    ConfigError: if a number is out of range.
  """
  rule: dict[str, Any] = {"beta": beta, "confidence": confidence}
  stops = any(given is not None for given in rule.values())
  most = predictor.number_of_glimpses(num_glimpses, **rule)
  noise = EvaluationConfig(location_noise=location_noise).location_noise
  model, params = as_model(predictor.config.model), predictor.params
  temperature_t = predictor.temperatures

  def look(images: jax.Array, seed: jax.Array) -> dict[str, jax.Array]:
    shown = as_seen(images, mean=predictor.info.mean, std=predictor.info.std)
    found = answer(
      jax.random.key(seed),
      params,
      shown,
      *(None if given is None else jnp.float32(given) for given in rule.values()),
      temperature_t,
      jnp.asarray(noise, jnp.float32),
      model=model,
      num_glimpses=most,
      num_samples=1,
    )
    location_t = found.location_t
    if stops:
      taken = jnp.arange(most)[:, None] < found.num_glimpses[None]
      location_t = jnp.where(taken[..., None], location_t, jnp.nan)
    return {
      "label": found.label,
      "probs": found.probs,
      "predicted_error": found.predicted_error,
      "confidence": found.confidence,
      "num_glimpses": found.num_glimpses,
      "location_t": location_t,
    }

  def is_sure(probs: jax.Array, _: jax.Array) -> jax.Array:
    return probs.max(axis=-1) >= jnp.float32(confidence)

  def look_until_decided(images: jax.Array, seed: jax.Array) -> dict[str, jax.Array]:
    decision = dynamic.look_until_decided(
      jax.random.fold_in(jax.random.key(seed), 0),  # of the first rollout, see `answer`
      params,
      as_seen(images, mean=predictor.info.mean, std=predictor.info.std),
      beta=beta,
      rule=None if confidence is None else is_sure,
      temperature_t=None if confidence is None else temperature_t,
      model=model,
      max_glimpses=most,
      location_noise=noise,
    )
    probs, taken = decision.probs, decision.num_glimpses
    return {
      "label": jnp.argmax(probs, axis=-1).astype(jnp.int32),
      "confidence": predictor_lib.confidence(probs, taken, temperature_t),
      **decision._asdict(),
    }

  return look_until_decided if ends_early and stops else look


def _image_size(
  predictor: Predictor, asked: tuple[int, int] | Literal["any"] | None
) -> tuple[int | str, int | str]:
  """Height and width of the images, or their names if they may be any.

  Raises:
    ConfigError: if they are no numbers, or images are smaller than a patch.
  """
  if asked == "any":
    return "H", "W"
  try:
    sides = predictor.config.model.image_shape[:2] if asked is None else asked
    height, width = map(operator.index, sides)
  except (TypeError, ValueError) as error:
    raise ConfigError(
      f"image_size must be (height, width) or any, not {asked!r}"
    ) from error
  least = predictor.config.model.patch_size
  if min(height, width) < least:
    raise ConfigError(
      f"image_size must be at least {least}x{least}, a patch of the model,"
      f" not {height}x{width}"
    )
  if max(height, width) > _LARGEST_SIDE:
    raise ConfigError(
      f"image_size must be at most {_LARGEST_SIDE}x{_LARGEST_SIDE}, not {height}x{width}"
    )
  return height, width
