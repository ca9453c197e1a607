"""Configurations: frozen, validated, and the same in JSON as in Python.

Every default is the setting of the paper and of its released code (MNIST, one
8x8 glimpse at a time, six glimpses). A configuration that exists is valid: each
field is checked on construction, and a bad one raises a `ConfigError` of one line
that names the field.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from ramjax import fields
from ramjax.fields import ConfigError, Setting

OBJECTIVES = ("original", "uncertainty", "intrinsic", "both")
"""The four objectives of the paper, section 4: which extra terms are added."""

PER_GLIMPSE = "1/N"
"""A share of one over the number of glimpses."""

LOCATION_POLICIES = ("sample", "mean")
"""How the next location is chosen: drawn from the policy, or its mean."""


def _check_image_shape(name: str, value: Any) -> tuple[int, int, int]:
  sizes = tuple(value) if isinstance(value, (tuple, list)) else ()
  if len(sizes) != 3 or not all(type(size) is int and size >= 1 for size in sizes):
    raise ConfigError(
      f"{name} must be three positive integers (height, width, channels), not {value!r}"
    )
  height, width, channels = sizes
  return height, width, channels


def _check_prior(name: str, value: Any) -> tuple[float, ...]:
  numbers_only = isinstance(value, (tuple, list)) and all(
    isinstance(p, (int, float)) and 0 <= p <= 1 for p in value
  )
  if not numbers_only or abs(math.fsum(value) - 1.0) > 1e-5:
    raise ConfigError(
      f"{name} must be class probabilities that sum to 1 (or None), not {value!r}"
    )
  return tuple(float(p) for p in value)


def _check_factory(name: str, value: Any) -> str:
  parts = value.split(":") if isinstance(value, str) else ()
  if len(parts) != 2 or not all(
    word.isidentifier() for part in parts for word in part.split(".")
  ):
    raise ConfigError(
      f"{name} must be package.module:function (or None), not {value!r}"
    )
  return str(value)


def _check_size(name: str, value: Any) -> str:
  found = re.fullmatch(r"0*([1-9]\d{0,4})x0*([1-9]\d{0,4})", str(value))
  if not found:
    raise ConfigError(
      f"{name} must be HEIGHTxWIDTH in pixels, such as 48x64, not {value!r}"
    )
  return "x".join(found.groups())


def _check_background(name: str, value: Any) -> str:
  words = str(value).split(",")
  colour = all(re.fullmatch(r"\d{1,3}", word) and int(word) <= 255 for word in words)
  if value != "border" and not colour:
    raise ConfigError(
      f"{name} must be border, minimum, one number from 0 to 255, or one for each"
      f" channel with commas, not {value!r}"
    )
  return str(value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig(fields.Checked):
  """The shape of the network and of what it sees."""

  image_shape: tuple[int, int, int] = fields.checked(
    (28, 28, 1), "Height, width and channels.", _check_image_shape, reach="data"
  )
  num_classes: int = fields.integer(10, "Number of classes K.", low=2, reach="data")
  patch_size: int = fields.integer(8, "Side of the smallest patch in pixels.", low=1)
  num_scales: int = fields.integer(1, "Patches in a glimpse, with one centre.", low=1)
  scale_factor: int = fields.integer(2, "Ratio of a patch to the smaller one.", low=1)
  branch_size: int = fields.integer(
    128, "Width of the first layers of the glimpse network.", low=1, reach="set"
  )
  hidden_size: int = fields.integer(
    256, "Width of the glimpse feature and of the internal state h.", low=1
  )
  core: str = fields.choice(
    "rnn",
    ("rnn", "lstm"),
    "What carries the state: one layer with a relu (as released), or an LSTM.",
  )
  compute_dtype: str = fields.choice(
    "float32",
    ("float32", "bfloat16"),
    "Type of the factors in the products of glimpse network and core. Parameters,"
    " states and sums are float32.",
    reach="rare",
  )
  first_location: str = fields.choice(
    "random",
    ("random", "centre"),
    "Place of the first glimpse: uniform in [-1, 1]² (as released), or the centre.",
    reach="set",
  )
  location_std: float = fields.number(
    0.10,
    "Standard deviation of the location policy, in location units. The released code"
    " has 0.10 on 28x28 and 0.03 on 60x60 images.",
    above=0.0,
  )
  location_density: str = fields.choice(
    "clipped",
    ("clipped", "raw"),
    "Which log-density REINFORCE differentiates: that of the location, clipped to the"
    " image (as released), or that of the raw sample, whose score is unbiased.",
    reach="set",
  )
  fill_value: float = fields.number(
    0.0, "Value of pixels outside of the image, in normalised units.", reach="set"
  )
  factory: str | None = fields.checked(
    None,
    "A model of your own, package.module:function; the function makes a `ramjax.Model`"
    " from these settings. By default it is the model of the paper.",
    _check_factory,
    optional=True,
    flag="model",
    reach="rare",
  )

  @property
  def patch_sides(self) -> tuple[int, ...]:
    """Sides of the patches of a glimpse, in pixels of the image, the sharpest first."""
    return tuple(
      self.patch_size * self.scale_factor**scale for scale in range(self.num_scales)
    )


def _check_fraction(name: str, value: Any, *, otherwise: str = "") -> float:
  try:
    fraction = math.nan if isinstance(value, bool) else float(value)
  except (TypeError, ValueError, OverflowError):
    fraction = math.nan
  if not 0 <= fraction <= 1:
    raise ConfigError(f"{name} must be a number from 0 to 1{otherwise}, not {value!r}")
  return fraction


def _check_share(name: str, value: Any) -> float | str:
  if value == PER_GLIMPSE:
    return PER_GLIMPSE
  return _check_fraction(name, value, otherwise=f", or {PER_GLIMPSE}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObjectiveConfig(fields.Checked):
  """What is minimised."""

  removed: ClassVar = {"reinforce_weight": 1.0}

  name: str = fields.choice(
    "both", OBJECTIVES, "Extra terms beside the original objective.", flag="objective"
  )
  lambda_uncertainty: float = fields.number(1e-5, "The paper's lambda_1.", low=0.0)
  lambda_intrinsic: float = fields.number(
    0.1, "The paper's lambda_2: 0.1 for stability, 3e-3 in Figure 1.", low=0.0
  )
  regularizer_scale: float = fields.number(
    32.0,
    "Factor on both lambdas. The released code sums the two terms over its batch of 32"
    " and averages all others, so the published lambdas need the factor 32; 1 gives the"
    " equations as printed.",
    low=0.0,
  )
  error_gradient: str = fields.choice(
    "all",
    ("all", "state"),
    "Where the gradient of the uncertainty term goes: to the weights of the error"
    " network too (all, as released), or only to its inputs (state).",
    reach="set",
  )
  credit_last_location: bool = fields.boolean(
    True,
    "Whether REINFORCE credits the location after the last glimpse too (as released).",
    reach="set",
  )
  location_gradient: float | str = fields.checked(
    0.0,
    "Share of the gradient of REINFORCE that goes on into the state, so that core and"
    " glimpse network learn to look, too: a number from 0 (as released) to 1, or 1/N.",
    _check_share,
  )
  baseline: str = fields.choice(
    "network",
    ("network", "leave_one_out"),
    "Baseline of REINFORCE: the baseline network (as released), or the mean reward of"
    " the other rollouts of the same image (--rollouts_per_image).",
    reach="rare",
  )
  reward_temperature: float = fields.number(
    0.0,
    "Temperature of the reward: 0 is 1 for a right prediction and 0 for a wrong one (as"
    " released); above 0 it is smooth, sigmoid(margin of the right class / temperature).",
    low=0.0,
    reach="rare",
  )
  credit_decay: float | None = fields.checked(
    None,
    "Decay of generalised advantage estimation, from 0 to 1: a location is credited with"
    " how much each later glimpse raises the expected reward, times the decay for every"
    " glimpse between. 1 has no bias. By default (none) the final reward is credited, as"
    " released.",
    _check_fraction,
    optional=True,
    none="none",
    reach="rare",
  )
  intrinsic_steps: str = fields.choice(
    "last",
    ("last", "all"),
    "Predictions in the intrinsic term: the last one (as released), or the mean of all.",
    reach="set",
  )
  prior: tuple[float, ...] | None = fields.checked(
    None,
    "Classes that the intrinsic term prefers; None is uniform, as in the paper.",
    _check_prior,
    optional=True,
    reach="data",
  )

  def __post_init__(self) -> None:
    super().__post_init__()
    for name in ("lambda_uncertainty", "lambda_intrinsic"):
      if not math.isfinite(self.regularizer_scale * getattr(self, name)):
        raise ConfigError(
          f"{name} must be smaller: times regularizer_scale it overflows"
        )

  @property
  def uncertainty_weight(self) -> float:
    """Weight of the uncertainty term; 0 if the objective does not have it."""
    used = self.name in ("uncertainty", "both")
    return self.regularizer_scale * self.lambda_uncertainty if used else 0.0

  @property
  def intrinsic_weight(self) -> float:
    """Weight of the intrinsic term; 0 if the objective does not have it."""
    used = self.name in ("intrinsic", "both")
    return self.regularizer_scale * self.lambda_intrinsic if used else 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(fields.Checked):
  """How it is minimised."""

  removed: ClassVar = {"weight_decay": 0.0, "average_decay": 0.0}

  dataset: str = fields.word(
    "mnist",
    "mnist, fashion_mnist or kmnist, also with _translated_60, _cluttered_60 or"
    " _cluttered_100; cifar10, cifar100, svhn_cropped or tfds:NAME; folder:DIR, npz:FILE,"
    " csv:FILE or mat:FILE for your own images.",
  )
  resize: str | None = fields.checked(
    None,
    "HEIGHTxWIDTH in pixels to which the images of folder:DIR are resized. They keep"
    " their aspect; the rest is filled with the background.",
    _check_size,
    optional=True,
  )
  transparent_as: str = fields.choice(
    "white",
    ("white", "black"),
    "What is seen through transparent pixels of a file.",
    reach="rare",
  )
  canvas_size: int | None = fields.integer(
    None,
    "Side of a canvas on which each image is put at a random place; by default as the"
    " name of the dataset says.",
    low=1,
    optional=True,
  )
  num_clutter: int | None = fields.integer(
    None,
    "Crops of 8x8 pixels of other images on that canvas; by default as the name says.",
    low=0,
    optional=True,
  )
  background: str | None = fields.checked(
    "border",
    "Colour around an image on a canvas or after --resize: 0 to 255, or R,G,B. border is"
    " the commonest colour on the borders of the training images; minimum is the darkest"
    " value of each image, as in earlier releases.",
    _check_background,
    optional=True,
    before=None,
    none="minimum",
    reach="rare",
  )
  division: str = fields.choice(
    "at random",
    ("at random", "by class"),
    "How images were set aside for validation and test.",
    reach="data",
  )
  data_sha256: str | None = fields.word(
    None,
    "Sum of images and classes (`ramjax.data.splits.fingerprint`); None if it is known.",
    optional=True,
    reach="data",
  )
  num_train_examples: int | None = fields.integer(
    None, "Training images to use; by default all.", low=1, optional=True
  )
  max_shift: int = fields.integer(
    0,
    "Pixels by which a training image is moved at most, up or down and left or right. Its"
    " border fills what becomes free.",
    low=0,
    high=1024,
    reach="rare",
  )
  mirror: bool = fields.boolean(
    False,
    "Whether half of the training images are mirrored, left and right.",
    reach="rare",
  )
  num_epochs: int = fields.integer(10, "Passes over the training images.", low=0)
  batch_size: int = fields.integer(32, "Images in a step.", low=1)
  rollouts_per_image: int = fields.integer(
    1,
    "Rollouts of each image in a batch, each with its own first location and noise.",
    low=1,
  )
  accumulation_steps: int = fields.integer(
    1, "Parts of a batch, one after another to save memory.", low=1, reach="rare"
  )
  num_glimpses: int = fields.integer(6, "Glimpses in a training rollout, N.", low=1)
  optimizer: str = fields.choice(
    "adam",
    ("adam", "muon"),
    "Adam (as released), or Muon for the matrices between wide layers.",
  )
  learning_rate: float = fields.number(3e-4, "Learning rate at the start.", above=0.0)
  learning_rate_schedule: str = fields.choice(
    "exponential",
    ("exponential", "cosine"),
    "How the learning rate falls: by a factor after each epoch (as released), or along"
    " half of a cosine to 0 at the end of the last epoch.",
  )
  learning_rate_decay: float = fields.number(
    0.95, "Factor of the exponential schedule.", above=0.0, reach="rare"
  )
  warmup_epochs: float = fields.number(
    0.0, "Epochs in which the learning rate rises from 0.", low=0.0, reach="rare"
  )
  initial_location_noise: float = fields.number(
    1.0,
    "Factor on the deviation of the policy at the start of the training. It falls along"
    " a line to 1 at the end of the last epoch.",
    above=0.0,
    reach="rare",
  )
  max_gradient_norm: float | None = fields.number(
    None,
    "Norm to which a larger gradient is scaled down; by default (0 on a command line)"
    " there is no limit.",
    above=0.0,
    optional=True,
    none=0.0,
  )
  seed: int = fields.integer(  # JAX would drop higher bits
    0, "Seed of all randomness.", low=0, high=2**32 - 1
  )

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.batch_size % self.accumulation_steps:
      raise ConfigError(
        f"accumulation_steps must divide batch_size, {self.batch_size},"
        f" not be {self.accumulation_steps}"
      )


_PARTS: Mapping[str, type[fields.Checked]] = {
  "model": ModelConfig,
  "objective": ObjectiveConfig,
  "train": TrainConfig,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """One run: the model, its objective and its training.

  Raises:
    ConfigError: if the prior does not have one entry for each class, or there is one
      rollout of an image where its baseline is the mean of the others, or one image in a
      part of a batch with a credit decay.
  """

  model: ModelConfig = ModelConfig()
  objective: ObjectiveConfig = ObjectiveConfig()
  train: TrainConfig = TrainConfig()

  def __post_init__(self) -> None:
    for part, kind in _PARTS.items():
      if not isinstance(value := getattr(self, part), kind):
        raise ConfigError(f"{part} must be a {kind.__name__}, not {value!r}")
    if self.objective.location_gradient == PER_GLIMPSE:
      share = 1 / self.train.num_glimpses
      objective = dataclasses.replace(self.objective, location_gradient=share)
      object.__setattr__(self, "objective", objective)
    if self.objective.baseline == "leave_one_out" and self.train.rollouts_per_image < 2:
      raise ConfigError(
        "baseline leave_one_out needs rollouts_per_image of at least 2, not"
        f" {self.train.rollouts_per_image}"
      )
    if (
      self.objective.credit_decay is not None
      and self.train.batch_size // self.train.accumulation_steps < 2
    ):
      raise ConfigError(
        "credit_decay needs at least two images in each part of a batch; take a larger"
        " batch_size or fewer accumulation_steps"
      )
    prior = self.objective.prior
    if prior is not None and len(prior) != self.model.num_classes:
      raise ConfigError(
        f"prior must have {self.model.num_classes} entries, one a class, not {len(prior)}"
      )

  def replace(self, **parts: Mapping[str, Any]) -> Self:
    """A copy with other values in some fields: `config.replace(train={"seed": 1})`."""
    changed = {
      part: dataclasses.replace(getattr(self, part), **values)
      for part, values in parts.items()
    }
    return dataclasses.replace(self, **changed)

  @classmethod
  def settings(cls) -> dict[str, Setting]:
    """What all fields say about themselves, by name: `train.batch_size`."""
    return {
      f"{part}.{name}": setting
      for part, kind in _PARTS.items()
      for name, setting in kind.settings().items()
    }

  def to_dict(self) -> dict[str, Any]:
    """The configuration as plain dictionaries, lists, numbers and strings."""
    return {part: getattr(self, part).to_dict() for part in _PARTS}

  @classmethod
  def from_dict(cls, values: Mapping[str, Any]) -> Self:
    """The inverse of `to_dict`; also reads what earlier releases have written.

    See `ramjax.fields.Checked.from_dict`, which says how fields are added and removed.

    Raises:
      ConfigError: if a field is unknown, out of range, or was removed and is in use.
    """
    if not isinstance(values, Mapping) or not _PARTS.keys() <= values.keys():
      raise ConfigError(f"Config must be a JSON object of {', '.join(_PARTS)}")
    fields.refuse_unknown(set(_PARTS), values)
    parts: dict[str, Any] = {
      part: kind.from_dict(values[part], prefix=f"{part}.")
      for part, kind in _PARTS.items()
    }
    return cls(**parts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationConfig(fields.Checked):
  """How a trained model is evaluated.

  With several rollouts of each image (M > 1), probabilities and self-uncertainties are
  averaged glimpse by glimpse before any decision (Ba et al., 2014,
  https://arxiv.org/abs/1412.7755). State M with each result.
  """

  num_glimpses: int = fields.integer(6, "Number of glimpses T.", low=1)
  num_samples: int = fields.integer(1, "Rollouts of each image, M.", low=1)
  location_policy: str = fields.choice(
    "sample", LOCATION_POLICIES, "How the next location is chosen."
  )
  location_noise: float | Sequence[float] = fields.number_or_several(
    1.0,
    "Factor on the noise of the policy, thus on the deviation of a Gaussian; or a factor"
    " for each glimpse, of which the last one serves all later glimpses. A policy"
    " explores in training; afterwards a model may err less with less noise, or, in far"
    " more glimpses than in training, with more.",
    low=0.0,
  )

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.location_policy == "mean" and self.location_noise != 1:
      raise ConfigError(
        "location_noise has no effect with location_policy mean, which has no noise;"
        " leave one of them out"
      )


def differing_fields(ours: Config, theirs: Config) -> dict[str, tuple[Any, Any]]:
  """The fields in which two configurations differ: `{"train.seed": (0, 1)}`."""
  left, right = ours.to_dict(), theirs.to_dict()
  return {
    f"{part}.{name}": (left[part][name], right[part][name])
    for part in left
    for name in left[part]
    if left[part][name] != right[part][name]
  }
