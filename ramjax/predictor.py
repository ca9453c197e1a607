"""Answers: what a trained run says of new images."""

from __future__ import annotations

import dataclasses
import functools
import math
import pathlib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from ramjax import calibration, model_file, run_folder, stopping
from ramjax.checks import as_count
from ramjax.config import Config, ConfigError, EvaluationConfig
from ramjax.data import DatasetInfo
from ramjax.data.transforms import normalize, standardize
from ramjax.model import Model, PyTree
from ramjax.ram import as_model
from ramjax.rollouts import rollout

_MODELS = resources.files("ramjax") / "models"
"""The trained models of the package."""

_LARGEST_COUNT = 1_000_000
"""So many glimpses may be asked for at most."""

_STORED = ("float16", "bfloat16", "float32", "float64")

_MOST_GLIMPSES = 50
"""So many glimpses a model takes at most when it stops by itself, unless asked."""

_CHANNELS = (1, 2, 3, 4)
"""An axis of so many entries is that of the channels, not of pixels."""


class Answer(NamedTuple):
  """What a model says of I images. For a single image, the axis I is missing.

  Attributes:
    label: number of the most probable class, int32.
    probs: softmax outputs p after the last glimpse taken.
    predicted_error: self-uncertainties u then.
    confidence: probability in [0, 1] that `label` is right: the largest p, calibrated
      (see `Predictor.is_calibrated`) for one rollout with the noise of the training. The
      mean of several rollouts is right more often than this says.
    num_glimpses: number of glimpses taken, int32.
    location_t: location (x, y) in [-1, 1] of each glimpse, also of those that the model
      would have taken after the last one; with several rollouts, of the first.
    probs_t: p after each of these glimpses.
    predicted_error_t: u after each of them.
  """

  label: jax.Array  # [I]
  probs: jax.Array  # [I, K]
  predicted_error: jax.Array  # [I, K]
  confidence: jax.Array  # [I]
  num_glimpses: jax.Array  # [I]
  location_t: jax.Array  # [T, I, 2]
  probs_t: jax.Array  # [T, I, K]
  predicted_error_t: jax.Array  # [T, I, K]


class Scanpaths(NamedTuple):
  """Rollouts of T glimpses at I images, M of each. For a single image, I is missing.

  Attributes:
    location_t: location (x, y) in [-1, 1] of each glimpse.
    probs_t: softmax outputs p after each glimpse.
    predicted_error_t: self-uncertainties u after each glimpse.
  """

  location_t: jax.Array  # [T, M, I, 2]
  probs_t: jax.Array  # [T, M, I, K]
  predicted_error_t: jax.Array  # [T, M, I, K]


@dataclasses.dataclass(frozen=True, eq=False)
class Predictor:
  """A trained model with what it needs of its data; see `ramjax.load`.

  Attributes:
    config: the run.
    params: its parameters.
    info: what it recorded of its data: normalisation and names of the classes.
    temperature_t: the temperature of p after each glimpse, fitted to the validation
      images; None if the run has none.
    facts: what was recorded of a published model: its task, recipe and errors.
  """

  config: Config
  params: PyTree
  info: DatasetInfo
  temperature_t: tuple[float, ...] | None = None
  facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def class_names(self) -> tuple[str, ...]:
    """The names of the K classes, or their numbers."""
    return self.info.labels

  @property
  def is_calibrated(self) -> bool:
    """Whether `Answer.confidence` is calibrated; if not, it is the largest p."""
    return self.temperature_t is not None

  def __call__(
    self,
    images: Any,
    *,
    key: jax.Array | None = None,
    beta: float | None = None,
    confidence: float | None = None,
    num_glimpses: int | None = None,
    num_samples: int = 1,
    location_noise: float | Sequence[float] = 1.0,
  ) -> Answer:
    """Looks at images.

    Args:
      images: one image [H, W] or [H, W, C], or several [I, H, W] or [I, H, W, C]. They
        are uint8 from 0 to 255, or float from 0 to 1. Height and width may differ from
        those of the training; objects should have the size that they had there.
      key: typed PRNG key of first locations and policy; None is key 0.
      beta: exploration rate: the model stops by itself, by the rule of the paper. None
        takes all glimpses.
      confidence: the model stops by itself as soon as it is so sure, such as 0.95; in
        the place of `beta`. It stops at a lucky moment: fewer answers are right than
        `Answer.confidence` then says, and about as many as were asked for.
      num_glimpses: number of glimpses, at most if the model stops by itself; None is as
        many as in training, or 50 if it stops by itself.
      num_samples: rollouts whose predictions are averaged, M.
      location_noise: factor on the noise of the policy, at least 0, or a factor for each
        glimpse, of which the last one serves all later glimpses. On clutter, half of the
        noise errs less in few glimpses. On MNIST, twice the noise after the N glimpses of
        the training, `[1.0] * N + [2.0]`, errs less in fifty.

    Returns:
      The answer.

    Raises:
      ConfigError: if the images do not fit the model, or a number is out of range.
    """
    num_glimpses = self.number_of_glimpses(
      num_glimpses, beta=beta, confidence=confidence
    )
    num_samples = as_count("num_samples", num_samples)
    noise = EvaluationConfig(location_noise=location_noise).location_noise
    shown, single = self.prepare(images)
    found = answer(
      _key(key),
      self.params,
      shown,
      None if beta is None else jnp.float32(beta),
      None if confidence is None else jnp.float32(confidence),
      self.temperatures,
      jnp.asarray(noise, jnp.float32),
      model=as_model(self.config.model),
      num_glimpses=num_glimpses,
      num_samples=num_samples,
    )
    if not single:
      return found
    return Answer(
      **{
        name: values[:, 0] if name.endswith("_t") else values[0]
        for name, values in found._asdict().items()
      }
    )

  def scanpaths(
    self,
    images: Any,
    *,
    key: jax.Array | None = None,
    num_glimpses: int | None = None,
    num_samples: int = 1,
    location_noise: float | Sequence[float] = 1.0,
  ) -> Scanpaths:
    """The rollouts behind an answer, one by one.

    Args:
      images: see `__call__`, as the other arguments; the same ones give the rollouts of
        the same answer.
      key: typed PRNG key; None is key 0.
      num_glimpses: number of glimpses T; None is as many as in training.
      num_samples: rollouts of each image, M.
      location_noise: factor on the noise of the policy.

    Returns:
      The rollouts.

    Raises:
      ConfigError: as `__call__`.
    """
    num_glimpses = self.number_of_glimpses(num_glimpses, beta=None)
    num_samples = as_count("num_samples", num_samples)
    noise = EvaluationConfig(location_noise=location_noise).location_noise
    shown, single = self.prepare(images)
    found = _scanpaths(
      _key(key),
      self.params,
      shown,
      jnp.asarray(noise, jnp.float32),
      model=as_model(self.config.model),
      num_glimpses=num_glimpses,
      num_samples=num_samples,
    )
    return Scanpaths(*(values[:, :, 0] for values in found)) if single else found

  def confidence_t(self, probs_t: Any) -> jax.Array:
    """The confidence after each of T glimpses [T, ...], from p then [T, ..., K]."""
    return _confidence_t(jnp.asarray(probs_t), self.temperatures)

  def decided_t(
    self,
    probs_t: Any,
    predicted_error_t: Any,
    *,
    beta: float | None = None,
    confidence: float | None = None,
  ) -> jax.Array:
    """Whether the model would stop after each of T glimpses [T, ...].

    Args:
      probs_t: softmax outputs p after each glimpse [T, ..., K].
      predicted_error_t: self-uncertainties u after each glimpse [T, ..., K].
      beta: see `__call__`.
      confidence: see `__call__`.

    Returns:
      Booleans; False everywhere without a rule.
    """
    return _decided_t(probs_t, predicted_error_t, beta, confidence, self.temperatures)

  @property
  def temperatures(self) -> jax.Array:
    """The temperatures of p after each glimpse [N]; one of 1 where none were fitted."""
    return jnp.asarray(self.temperature_t or (1.0,), jnp.float32)

  def save(self, path: str | pathlib.Path, *, dtype: Any = np.float32) -> None:
    """Writes the model into one file, which `ramjax.load` reads.

    Args:
      path: the file; its name ends in `.safetensors`.
      dtype: type of the stored parameters: float16, bfloat16, float32, float64. float16
        halves the file.

    Raises:
      ConfigError: if the name ends otherwise, the type is not one of float, or a parameter
        is too large for it.
      OSError: if the file cannot be written.
    """
    path = pathlib.Path(path)
    if path.suffix != model_file.SUFFIX:
      raise ConfigError(f"path must end in {model_file.SUFFIX}, not {path.name}")
    content = model_file.ModelFile(
      self.config, self.params, self.info, self.temperature_t, self.facts
    )
    if (kind := np.dtype(dtype)).name not in _STORED:
      raise ConfigError(f"dtype must be one of {', '.join(_STORED)}, not {kind.name}")
    model_file.write(path, content, dtype=kind)

  def number_of_glimpses(
    self, asked: int | None, *, beta: float | None, confidence: float | None = None
  ) -> int:
    """How many glimpses are taken, at most if the model stops by itself.

    Args:
      asked: the number, or None for the default.
      beta: see `__call__`.
      confidence: see `__call__`.

    Raises:
      ConfigError: if it is no number from 1 to 1,000,000, `beta` or `confidence` is out of range, both are
        given, or confidence is not calibrated.
    """
    if asked is None:
      given = self.config.train.num_glimpses
      stops = beta is not None or confidence is not None
      asked = max(given, _MOST_GLIMPSES) if stops else given
    asked = as_count("num_glimpses", asked)
    if asked > _LARGEST_COUNT:
      raise ConfigError(f"num_glimpses must be at most {_LARGEST_COUNT:,}, not {asked}")
    if beta is not None and not 0 <= _number(beta) < math.inf:
      raise ConfigError(f"beta must be finite and at least 0, not {beta!r}")
    if confidence is not None:
      if beta is not None:
        raise ConfigError("give either beta or confidence, not both")
      if not 0 < _number(confidence) < 1:
        raise ConfigError(
          f"confidence must be greater than 0 and less than 1, not {confidence!r}"
        )
      if not self.is_calibrated:
        raise ConfigError(
          "confidence needs the temperatures of a training that has ended; this run has"
          " none, so give beta"
        )
    return asked

  def prepare(self, images: Any) -> tuple[jax.Array, bool]:
    """Images as the model sees them.

    Args:
      images: see `__call__`.

    Returns:
      Normalised images [I, H, W, C], float32, and whether a single one was given.

    Raises:
      ConfigError: if they do not fit the model.
    """
    pixels = _as_pixels(images)
    channels = self.info.image_shape[-1]
    has_channels = pixels.ndim == 3 and pixels.shape[-1] in {*_CHANNELS, channels}
    if pixels.ndim == 2 or (pixels.ndim == 3 and not has_channels):
      pixels = pixels[..., None]
    single = pixels.ndim == 3
    if single:
      pixels = pixels[None]
    if pixels.ndim != 4 or pixels.shape[-1] != channels:
      raise ConfigError(
        f"images must be [H, W, {channels}] or [I, H, W, {channels}], as the run was"
        f" trained on images of {channels} channel{'s' * (channels > 1)}, not"
        f" {list(np.shape(images))}; convert them"
      )
    least = self.config.model.patch_size
    if min(pixels.shape[1:3]) < least:
      raise ConfigError(
        f"images of {pixels.shape[1]} x {pixels.shape[2]} pixels are smaller than a"
        f" patch of the model, {least} x {least}; enlarge them"
      )
    mean, std = self.info.mean, self.info.std
    if pixels.dtype == np.uint8:
      return as_seen(pixels, mean=mean, std=std), single
    floats = jnp.asarray(pixels.astype(np.float32))
    return standardize(floats, mean=mean, std=std), single


def load(path: str | pathlib.Path, *, best: bool = False) -> Predictor:
  """A trained model, ready to look at images.

  Neither its training data nor the network is needed. Reading checkpoints needs the
  extra `checkpoint`.

  Args:
    path: the folder of a run, what `python -m experiments.train` calls --workdir, or a
      file that `Predictor.save` wrote.
    best: whether to take the state of a run with the best validation accuracy, not the
      newest. The temperatures of the confidence are those of the newest all the same.

  Returns:
    The model.

  Raises:
    RunError: if it is neither, or an earlier version wrote it, which recorded too little.
    ConfigError: if `best` is asked of a file.
    CheckpointError: if a run has no checkpoint, or that cannot be read.
  """
  path = pathlib.Path(path)
  if path.suffix == model_file.SUFFIX and not path.is_dir():
    if best:
      raise ConfigError(f"best is for the folder of a run; {path.name} has one state")
    return Predictor(**model_file.read(path)._asdict())
  if path.is_file():
    raise run_folder.RunError(
      f"{path} is no model: the names of their files end in {model_file.SUFFIX}"
    )
  if not path.exists() and str(path) in pretrained_names():
    raise run_folder.RunError(
      f"{path} is no folder of a run; ramjax.pretrained('{path}') gives the model of the"
      " package"
    )
  config = run_folder.read_config(path)
  info = run_folder.read_info(path)
  if info is None:
    raise run_folder.RunError(
      f"{path} was trained by an earlier version of ramjax, which did not record the"
      " normalisation; resume it by its command, and it will be recorded"
    )
  temperature_t = run_folder.read_temperatures(path)
  if temperature_t is None:
    logging.warning(
      "%s has no %s: confidence is the largest p, not calibrated; its training has not"
      " ended, or an earlier version wrote it",
      path,
      run_folder.CONFIDENCE,
    )
  params, _ = run_folder.restore(path, config, best=best)
  return Predictor(config, params, info, temperature_t)


def pretrained_names() -> tuple[str, ...]:
  """The names of the trained models that come with the package."""
  with resources.as_file(_MODELS) as folder:
    return tuple(sorted(file.stem for file in folder.glob(f"*{model_file.SUFFIX}")))


def pretrained(name: str) -> Predictor:
  """A trained model that comes with the package.

  Args:
    name: one of `pretrained_names`.

  Returns:
    The model; its `facts` tell how it was trained and its errors.

  Raises:
    ConfigError: if there is no such model.

  >>> import numpy as np
  >>> "mnist" in pretrained_names()
  True
  >>> answer = pretrained("mnist")(np.zeros((28, 28), np.uint8))
  >>> answer.location_t.shape  # six glimpses
  (6, 2)
  """
  known = pretrained_names()
  if name not in known:
    raise ConfigError(f"model must be one of {', '.join(known)}, not {name!r}")
  with resources.as_file(_MODELS) as folder:
    return load(folder / f"{name}{model_file.SUFFIX}")


def _as_pixels(images: Any) -> np.ndarray:
  """Images as an array of uint8, or of floats from 0 to 1.

  Raises:
    ConfigError: if they are neither.
  """
  try:
    pixels = np.asarray(images)
  except ValueError as error:
    raise ConfigError(
      "images must be of one size; look at those of other sizes apart"
    ) from error
  is_float = jnp.issubdtype(pixels.dtype, jnp.floating)
  if pixels.dtype != np.uint8 and not is_float:
    what = pixels.dtype if pixels.dtype.kind in "biuc" else type(images).__name__
    raise ConfigError(
      f"images must be uint8 from 0 to 255 or float from 0 to 1, not {what}"
    )
  if not pixels.size:
    return pixels
  low, high = float(pixels.min()), float(pixels.max())
  if is_float and not (np.isfinite(low) and np.isfinite(high)):
    raise ConfigError("images have pixels that are not finite")
  if is_float and not 0 <= low <= high <= 1:
    remedy = (
      "shift and scale them" if low < 0 else "divide them by what stands for white"
    )
    raise ConfigError(
      f"images of float must be from 0 to 1, not from {low:g} to {high:g}; {remedy}"
    )
  if not is_float and high == 1:
    logging.warning("no pixel exceeds 1, but white is 255 in images of uint8")
  return pixels


as_seen = jax.jit(normalize, static_argnames=("mean", "std"))
"""Images of bytes as the model sees them, see `ramjax.data.normalize`."""


def _number(value: Any) -> float:
  """A number of any library as a float; NaN for what is none."""
  try:
    return math.nan if isinstance(value, str | bool) else float(value)
  except (TypeError, ValueError, OverflowError):
    return math.nan


def _key(key: jax.Array | None) -> jax.Array:
  """The key, or key 0.

  Raises:
    ConfigError: if it is not a typed one.
  """
  if key is None:
    return jax.random.key(0)
  dtype = getattr(key, "dtype", None)
  if dtype is None or not jnp.issubdtype(dtype, jax.dtypes.prng_key) or key.ndim:
    raise ConfigError("key must be a typed PRNG key, such as jax.random.key(0)")
  return key


@functools.partial(jax.jit, static_argnames=("model", "num_glimpses", "num_samples"))
def _scanpaths(
  key: jax.Array,
  params: PyTree,
  images: jax.Array,
  location_noise: jax.Array,
  *,
  model: Model,
  num_glimpses: int,
  num_samples: int,
) -> Scanpaths:
  """Rollouts at normalised images [I, H, W, C]."""

  def look(sample: jax.Array) -> Scanpaths:
    unrolled = rollout(
      jax.random.fold_in(key, sample),
      params,
      images,
      model=model,
      num_glimpses=num_glimpses,
      location_noise=location_noise,
    )
    return Scanpaths(unrolled.location_t, unrolled.probs_t, unrolled.predicted_error_t)

  rollouts = jax.lax.map(look, jnp.arange(num_samples))
  return Scanpaths(*(jnp.moveaxis(values, 0, 1) for values in rollouts))


@functools.partial(jax.jit, static_argnames=("model", "num_glimpses", "num_samples"))
def answer(
  key: jax.Array,
  params: PyTree,
  images: jax.Array,
  beta: jax.Array | None,
  least_confidence: jax.Array | None,
  temperature_t: jax.Array,
  location_noise: jax.Array,
  *,
  model: Model,
  num_glimpses: int,
  num_samples: int,
) -> Answer:
  """The answer for normalised images [I, H, W, C].

  Args:
    key: typed PRNG key.
    params: parameters of the model.
    images: images, float32.
    beta: exploration rate [] of the paper's rule; None has another rule, or none.
    least_confidence: confidence [] at which the model stops; None as for `beta`.
    temperature_t: temperature of p after each glimpse; the last one serves all later.
    location_noise: factor on the noise of the policy [], or of each glimpse [N].
    model: the model.
    num_glimpses: number of glimpses T, at most if the model stops by itself.
    num_samples: rollouts whose predictions are averaged.

  Returns:
    The answer.
  """
  options = {"model": model, "num_glimpses": num_glimpses, "num_samples": num_samples}
  rollouts = _scanpaths(key, params, images, location_noise, **options)
  location_t = rollouts.location_t[:, 0]
  probs_t, error_t = (
    rollouts.probs_t.mean(axis=1),
    rollouts.predicted_error_t.mean(axis=1),
  )
  if beta is None and least_confidence is None:
    taken = jnp.full(images.shape[:1], num_glimpses, jnp.int32)
  else:
    taken = stopping.first_decision(
      _decided_t(probs_t, error_t, beta, least_confidence, temperature_t)
    )
  at_stop = jax.vmap(stopping.at_stop, (-1, None), -1)
  probs, error = at_stop(probs_t, taken), at_stop(error_t, taken)
  return Answer(
    label=jnp.argmax(probs, axis=-1).astype(jnp.int32),
    probs=probs,
    predicted_error=error,
    confidence=confidence(probs, taken, temperature_t),
    num_glimpses=taken,
    location_t=location_t,
    probs_t=probs_t,
    predicted_error_t=error_t,
  )


@jax.jit
def _decided_t(
  probs_t: jax.Array,
  predicted_error_t: jax.Array,
  beta: float | jax.Array | None,
  least_confidence: float | jax.Array | None,
  temperature_t: jax.Array,
) -> jax.Array:
  """Whether the rule of an answer holds after each of T glimpses [T, ...].

  Arguments are those of `answer`, with p and u after each glimpse [T, ..., K]. Without a
  rule it never holds.
  """
  if beta is not None:
    return stopping.is_decided(probs_t, predicted_error_t, beta=beta)
  if least_confidence is not None:
    return _confidence_t(probs_t, temperature_t) >= least_confidence
  return jnp.zeros(probs_t.shape[:-1], bool)


@jax.jit
def _confidence_t(probs_t: jax.Array, temperature_t: jax.Array) -> jax.Array:
  """See `Predictor.confidence_t`."""
  shape = probs_t.shape[:-1]
  number_t = jax.lax.broadcasted_iota(jnp.int32, shape, 0) + 1
  return confidence(probs_t, number_t, temperature_t)


def confidence(
  probs: jax.Array, num_glimpses: jax.Array, temperature_t: jax.Array
) -> jax.Array:
  """The largest probability at the temperature of the last glimpse taken [...].

  Args:
    probs: softmax outputs p [..., K] after that glimpse.
    num_glimpses: its number [...], from 1.
    temperature_t: see `answer`.
  """
  temperature = temperature_t[jnp.minimum(num_glimpses, temperature_t.shape[0]) - 1]
  return calibration.temper(probs, temperature).max(axis=-1)
