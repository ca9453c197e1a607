"""Configurations: frozen, validated, and the same in JSON as in Python.

Every default is the setting of the paper and of its released code (MNIST, one
8x8 glimpse at a time, six glimpses). A configuration that exists is valid: each
field is checked on construction, and a bad one raises a `ConfigError` of one line
that names the field.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Self

from ramjax import fields
from ramjax.fields import ConfigError

OBJECTIVES = ("original", "uncertainty", "intrinsic", "both")
"""The four objectives of the paper, section 4: which extra terms are added."""

ERROR_GRADIENTS = ("all", "state")
"""Where the gradient of the uncertainty term goes, see `ObjectiveConfig`."""

INTRINSIC_STEPS = ("last", "all")
"""Which predictions the intrinsic term looks at, see `ObjectiveConfig`."""

CORES = ("rnn", "lstm")
"""The recurrent cores, see `ModelConfig`."""

FIRST_LOCATIONS = ("random", "centre")
"""Where the first glimpse is taken, see `ModelConfig`."""

LOCATION_DENSITIES = ("clipped", "raw")
"""Whose density REINFORCE differentiates, see `ModelConfig`."""

OPTIMIZERS = ("adam", "muon")
"""What makes an update of a gradient, see `TrainConfig`."""

LEARNING_RATE_SCHEDULES = ("exponential", "cosine")
"""How the rate falls, see `TrainConfig`."""

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


def _check_prior(name: str, value: Any) -> tuple[float, ...] | None:
  if value is None:
    return None
  numbers_only = isinstance(value, (tuple, list)) and all(
    isinstance(p, (int, float)) and 0 <= p <= 1 for p in value
  )
  if not numbers_only or abs(math.fsum(value) - 1.0) > 1e-5:
    raise ConfigError(
      f"{name} must be class probabilities that sum to 1 (or None), not {value!r}"
    )
  return tuple(float(p) for p in value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig(fields.Checked):
  """The shape of the network and of what it sees.

  Attributes:
    image_shape: height, width and channels of the images.
    num_classes: number of classes K.
    patch_size: side g of the smallest glimpse patch, in pixels.
    num_scales: number of patches round one centre, k.
    scale_factor: ratio s between the sides of neighbouring scales.
    branch_size: width of the first layer of the two glimpse branches (what, where).
    hidden_size: width of the glimpse feature and of the internal state h.
    core: what carries the state from glimpse to glimpse: `rnn`, one layer with a relu
      (as released), or `lstm`, Flax's own cell, whose memory has the width of h, too.
    first_location: where the first glimpse is taken: `random`, uniformly in [-1, 1]²
      (as released), or `centre`, in the middle of the image.
    location_std: standard deviation of the location policy, in location units.
      The released code has 0.10 on 28x28 and 0.03 on 60x60 images.
    location_density: which sample's log-density a rollout records for REINFORCE:
      `clipped`, the location itself, clipped to the image (as released), or `raw`,
      what was drawn before it was clipped, whose score is the unbiased one.
    fill_value: what the sensor sees outside of the image, in normalised units.
  """

  image_shape: tuple[int, int, int] = dataclasses.field(
    default=(28, 28, 1), metadata={"check": _check_image_shape}
  )
  num_classes: int = fields.integer(10, low=2)
  patch_size: int = fields.integer(8, low=1)
  num_scales: int = fields.integer(1, low=1)
  scale_factor: int = fields.integer(2, low=1)
  branch_size: int = fields.integer(128, low=1)
  hidden_size: int = fields.integer(256, low=1)
  core: str = fields.choice("rnn", CORES)
  first_location: str = fields.choice("random", FIRST_LOCATIONS)
  location_std: float = fields.number(0.10, above=0.0)
  location_density: str = fields.choice("clipped", LOCATION_DENSITIES)
  fill_value: float = fields.number(0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObjectiveConfig(fields.Checked):
  """What is minimised.

  Attributes:
    name: `original`, `uncertainty`, `intrinsic` or `both`.
    lambda_uncertainty: the paper's lambda_1.
    lambda_intrinsic: the paper's lambda_2. 0.1 is the value of its stability claim
      and of Figure 2; Figure 1 uses 3e-3.
    regularizer_scale: factor on both lambdas. The released code sums the two terms
      over its batch of 32 and averages everything else, so that the published
      lambdas carry a factor of 32; 1 gives the equations as printed.
    error_gradient: where the gradient of the uncertainty term goes: `all` lets it
      reach the weights of the error network too (as released), `state` only what
      the error network looks at.
    credit_last_location: whether REINFORCE credits the location that is drawn after
      the last glimpse too, though nothing is seen there (as released).
    intrinsic_steps: the intrinsic term is that of the prediction after the `last`
      glimpse (as released), or the mean over the predictions after `all` of them.
    reinforce_weight: factor on the REINFORCE term, which the location network alone
      learns from; 1 as released. Adam makes steps of the same size with any factor, but
      for the share that the term has of a norm that is clipped.
    prior: distribution over the classes that the intrinsic term prefers; None is
      the uniform one of the paper.
  """

  name: str = fields.choice("both", OBJECTIVES)
  lambda_uncertainty: float = fields.number(1e-5, low=0.0)
  lambda_intrinsic: float = fields.number(0.1, low=0.0)
  regularizer_scale: float = fields.number(32.0, low=0.0)
  error_gradient: str = fields.choice("all", ERROR_GRADIENTS)
  credit_last_location: bool = fields.boolean(True)
  intrinsic_steps: str = fields.choice("last", INTRINSIC_STEPS)
  reinforce_weight: float = fields.number(1.0, low=0.0)
  prior: tuple[float, ...] | None = dataclasses.field(
    default=None, metadata={"check": _check_prior}
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
  """How it is minimised.

  Attributes:
    dataset: name of the dataset.
    canvas_size: side of a canvas on which images are put; None is that of the name.
    num_clutter: crops of other images on it; None is the number of the name.
    data_sha256: sum of the stored images and classes, see
      `ramjax.data.splits.fingerprint`; None where the dataset has sums of its own.
    num_train_examples: how many of the training images are used; None is all.
    num_epochs: passes over the training images.
    batch_size: examples a step.
    accumulation_steps: in how many parts a batch is worked on, one after the other,
      so that it may be larger than the memory; divides `batch_size`.
    num_glimpses: glimpses of a training rollout, N.
    optimizer: `adam` (as released), or `muon`, which makes orthogonal the updates of the
      matrices between wide layers and leaves the rest to Adam, see `ramjax.make_optimizer`.
    learning_rate: rate of the optimiser at the start.
    learning_rate_schedule: `exponential`, by a factor after each epoch (as released), or
      `cosine`, along half of a cosine to 0 at the end of the last epoch. See
      `ramjax.make_schedule`.
    learning_rate_decay: the factor of the exponential schedule.
    warmup_epochs: epochs, or a fraction of one, in which the rate rises from 0 to what
      the schedule has there.
    max_gradient_norm: l2 norm of the whole gradient beyond which it is scaled down to
      it; None is no limit.
    weight_decay: rate at which weights decay, in units of the learning rate (AdamW).
      Biases do not.
    average_decay: decay of the exponential moving average of the parameters that the run
      is evaluated with, see `ramjax.keep_average`; 0 is no average, but the last
      parameters.
    max_shift: pixels by which a training image is moved at most, up or down and left or
      right, at random at each step; see `ramjax.data.shift`. Never in evaluation.
    seed: seed of initialisation, batches, first locations and policy.
  """

  dataset: str = fields.word("mnist")
  canvas_size: int | None = fields.integer(None, low=1, optional=True)
  num_clutter: int | None = fields.integer(None, low=0, optional=True)
  data_sha256: str | None = fields.word(None, optional=True)
  num_train_examples: int | None = fields.integer(None, low=1, optional=True)
  num_epochs: int = fields.integer(10, low=0)
  batch_size: int = fields.integer(32, low=1)
  accumulation_steps: int = fields.integer(1, low=1)
  num_glimpses: int = fields.integer(6, low=1)
  optimizer: str = fields.choice("adam", OPTIMIZERS)
  learning_rate: float = fields.number(3e-4, above=0.0)
  learning_rate_schedule: str = fields.choice("exponential", LEARNING_RATE_SCHEDULES)
  learning_rate_decay: float = fields.number(0.95, above=0.0)
  warmup_epochs: float = fields.number(0.0, low=0.0)
  max_gradient_norm: float | None = fields.number(None, above=0.0, optional=True)
  weight_decay: float = fields.number(0.0, low=0.0)
  average_decay: float = fields.number(0.0, low=0.0, below=1.0)
  max_shift: int = fields.integer(0, low=0)
  seed: int = fields.integer(0, low=0, high=2**32 - 1)  # JAX would drop higher bits

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.batch_size % self.accumulation_steps:
      raise ConfigError(
        f"accumulation_steps must divide batch_size, {self.batch_size},"
        f" not be {self.accumulation_steps}"
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(fields.Checked):
  """One run: the model, its objective and its training.

  Raises:
    ConfigError: also if the prior does not have one entry a class, or if images could
      be moved out of sight.
  """

  model: ModelConfig = ModelConfig()
  objective: ObjectiveConfig = ObjectiveConfig()
  train: TrainConfig = TrainConfig()

  def __post_init__(self) -> None:
    super().__post_init__()
    for name, kind in (
      ("model", ModelConfig),
      ("objective", ObjectiveConfig),
      ("train", TrainConfig),
    ):
      if not isinstance(getattr(self, name), kind):
        raise ConfigError(
          f"{name} must be a {kind.__name__}, not {getattr(self, name)!r}"
        )
    prior = self.objective.prior
    if prior is not None and len(prior) != self.model.num_classes:
      raise ConfigError(
        f"prior must have {self.model.num_classes} entries, one a class, not {len(prior)}"
      )
    side = min(self.model.image_shape[:2])
    if self.train.max_shift >= side:
      raise ConfigError(
        f"max_shift must be less than {side}, the shorter side of the images, not"
        f" {self.train.max_shift}"
      )

  def to_dict(self) -> dict[str, Any]:
    """The configuration as plain dictionaries, lists, numbers and strings."""
    return {
      field.name: getattr(self, field.name).to_dict()
      for field in dataclasses.fields(self)
    }

  @classmethod
  def from_dict(cls, values: Mapping[str, Any]) -> Self:
    """The inverse of `to_dict`.

    Raises:
      ConfigError: if a field is missing, unknown or out of range.
    """
    parts = [field.name for field in dataclasses.fields(cls)]
    if not isinstance(values, Mapping) or set(values) != set(parts):
      raise ConfigError(f"Config must be a JSON object of {', '.join(parts)}")
    return cls(
      model=ModelConfig.from_dict(values["model"]),
      objective=ObjectiveConfig.from_dict(values["objective"]),
      train=TrainConfig.from_dict(values["train"]),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationConfig(fields.Checked):
  """How a trained model is evaluated.

  Attributes:
    num_glimpses: number of glimpses T.
    num_samples: number of rollouts M of each image, whose probabilities and
      self-uncertainties are averaged glimpse by glimpse before any decision (Ba et al.,
      2014, https://arxiv.org/abs/1412.7755). State M with each result.
    location_policy: `sample` draws the next location from the policy, `mean` takes its
      mean.
  """

  num_glimpses: int = fields.integer(6, low=1)
  num_samples: int = fields.integer(1, low=1)
  location_policy: str = fields.choice("sample", LOCATION_POLICIES)


def differing_fields(ours: Config, theirs: Config) -> dict[str, tuple[Any, Any]]:
  """The fields in which two configurations differ: `{"train.seed": (0, 1)}`."""
  left, right = ours.to_dict(), theirs.to_dict()
  return {
    f"{part}.{name}": (left[part][name], right[part][name])
    for part in left
    for name in left[part]
    if left[part][name] != right[part][name]
  }
