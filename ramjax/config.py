"""Configurations: frozen, validated, and the same in JSON as in Python.

Every default is the setting of the paper and of its released code (MNIST, one
8x8 glimpse at a time, six glimpses). A configuration that exists is valid: each
field is checked on construction, and a bad one raises a `ConfigError` of one line
that names the field.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any, Self

OBJECTIVES = ("original", "uncertainty", "intrinsic", "both")
"""The four objectives of the paper, section 4: which extra terms are added."""

ERROR_GRADIENTS = ("all", "state")
"""Where the gradient of the uncertainty term goes, see `ObjectiveConfig`."""

LOCATION_POLICIES = ("sample", "mean")
"""How the next location is chosen: drawn from the policy, or its mean."""


class ConfigError(ValueError):
  """A setting that cannot be used; the message is one line that names it."""


def _integer(
  default: int | None, *, low: int, high: int | None = None, optional: bool = False
) -> Any:
  """A field that holds an integer from `low` to `high` (or None, if optional)."""

  def check(name: str, value: Any) -> int | None:
    if value is None and optional:
      return None
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
      raise ConfigError(f"{name} must be an integer, not {value!r}")
    value = int(value)
    if value < low:
      raise ConfigError(f"{name} must be at least {low}, not {value}")
    if high is not None and value > high:
      raise ConfigError(f"{name} must be at most {high}, not {value}")
    return value

  return dataclasses.field(default=default, metadata={"check": check})


def _number(
  default: float, *, above: float | None = None, low: float | None = None
) -> Any:
  """A field that holds a finite number, greater than `above`, at least `low`."""

  def check(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
      raise ConfigError(f"{name} must be a number, not {value!r}")
    try:
      value = float(value)
    except OverflowError:
      value = math.inf
    if not math.isfinite(value):
      raise ConfigError(f"{name} must be a finite number, not {value}")
    if above is not None and value <= above:
      raise ConfigError(f"{name} must be greater than {above:g}, not {value}")
    if low is not None and value < low:
      raise ConfigError(f"{name} must be at least {low:g}, not {value}")
    return value

  return dataclasses.field(default=default, metadata={"check": check})


def _choice(default: str, choices: tuple[str, ...]) -> Any:
  """A field that holds one of a few words."""

  def check(name: str, value: Any) -> str:
    if value not in choices:
      raise ConfigError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
    return value

  return dataclasses.field(default=default, metadata={"check": check})


def _word(default: str) -> Any:
  """A field that holds a name."""

  def check(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
      raise ConfigError(f"{name} must be a name, not {value!r}")
    return value

  return dataclasses.field(default=default, metadata={"check": check})


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
    isinstance(p, (int, float)) and math.isfinite(p) and p >= 0 for p in value
  )
  if not numbers_only or abs(math.fsum(value) - 1.0) > 1e-5:
    raise ConfigError(
      f"{name} must be class probabilities that sum to 1 (or None), not {value!r}"
    )
  return tuple(float(p) for p in value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Checked:
  """Runs the check of each field, and converts to and from plain JSON types."""

  def __post_init__(self) -> None:
    for field in dataclasses.fields(self):
      check: Callable[[str, Any], Any] | None = field.metadata.get("check")
      if check is not None:
        object.__setattr__(
          self, field.name, check(field.name, getattr(self, field.name))
        )

  def to_dict(self) -> dict[str, Any]:
    """The configuration as plain dictionaries, lists, numbers and strings."""
    return {
      name: list(value) if isinstance(value, tuple) else value
      for name, value in dataclasses.asdict(self).items()
    }

  @classmethod
  def from_dict(cls, values: Mapping[str, Any]) -> Self:
    """The inverse of `to_dict`.

    Raises:
      ConfigError: if a field is missing, unknown or out of range.
    """
    if not isinstance(values, Mapping):
      raise ConfigError(f"{cls.__name__} must be a JSON object, not {values!r}")
    known = {field.name for field in dataclasses.fields(cls)}
    for problem, names in (
      ("no", known - set(values)),
      ("an unknown", set(values) - known),
    ):
      if names:
        raise ConfigError(
          f"{cls.__name__} has {problem} field {', '.join(sorted(names))}"
        )
    return cls(**values)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig(_Checked):
  """The shape of the network and of what it sees.

  Attributes:
    image_shape: height, width and channels of the pictures.
    num_classes: number of classes K.
    patch_size: side g of the smallest glimpse patch, in pixels.
    num_scales: number of patches round one centre, k.
    scale_factor: ratio s between the sides of neighbouring scales.
    branch_size: width of the first layer of the two glimpse branches (what, where).
    hidden_size: width of the glimpse feature and of the internal state h.
    location_std: standard deviation of the location policy, in location units.
      The released code has 0.10 on 28x28 and 0.03 on 60x60 pictures.
    fill_value: what the sensor sees outside of the picture, in normalised units.
  """

  image_shape: tuple[int, int, int] = dataclasses.field(
    default=(28, 28, 1), metadata={"check": _check_image_shape}
  )
  num_classes: int = _integer(10, low=2)
  patch_size: int = _integer(8, low=1)
  num_scales: int = _integer(1, low=1)
  scale_factor: int = _integer(2, low=1)
  branch_size: int = _integer(128, low=1)
  hidden_size: int = _integer(256, low=1)
  location_std: float = _number(0.10, above=0.0)
  fill_value: float = _number(0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObjectiveConfig(_Checked):
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
    prior: distribution over the classes that the intrinsic term prefers; None is
      the uniform one of the paper.
  """

  name: str = _choice("both", OBJECTIVES)
  lambda_uncertainty: float = _number(1e-5, low=0.0)
  lambda_intrinsic: float = _number(0.1, low=0.0)
  regularizer_scale: float = _number(32.0, low=0.0)
  error_gradient: str = _choice("all", ERROR_GRADIENTS)
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
class TrainConfig(_Checked):
  """How it is minimised.

  Attributes:
    dataset: name of the data set.
    num_train_examples: how many of the training pictures are used; None is all.
    num_epochs: passes over the training pictures.
    batch_size: examples a step.
    num_glimpses: glimpses of a training rollout, N.
    learning_rate: rate of Adam in the first epoch.
    learning_rate_decay: factor on the rate after each epoch.
    seed: seed of initialisation, batches, first locations and policy.
  """

  dataset: str = _word("mnist")
  num_train_examples: int | None = _integer(None, low=1, optional=True)
  num_epochs: int = _integer(10, low=0)
  batch_size: int = _integer(32, low=1)
  num_glimpses: int = _integer(6, low=1)
  learning_rate: float = _number(3e-4, above=0.0)
  learning_rate_decay: float = _number(0.95, above=0.0)
  seed: int = _integer(0, low=0, high=2**32 - 1)  # JAX would drop higher bits


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(_Checked):
  """One run: the model, its objective and its training.

  Raises:
    ConfigError: also if the prior does not have one entry a class.
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


def differing_fields(ours: Config, theirs: Config) -> dict[str, tuple[Any, Any]]:
  """The fields in which two configurations differ: `{"train.seed": (0, 1)}`."""
  left, right = ours.to_dict(), theirs.to_dict()
  return {
    f"{part}.{name}": (left[part][name], right[part][name])
    for part in left
    for name in left[part]
    if left[part][name] != right[part][name]
  }
