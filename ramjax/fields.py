"""Fields of a configuration that check themselves on construction."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any, Self


class ConfigError(ValueError):
  """A setting that cannot be used; the message is one line that names it."""


def integer(
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


def number(
  default: float | None,
  *,
  above: float | None = None,
  low: float | None = None,
  below: float | None = None,
  optional: bool = False,
) -> Any:
  """A field that holds a finite number (or None, if optional) within bounds.

  It is greater than `above`, at least `low`, and less than `below`.
  """

  def check(name: str, value: Any) -> float | None:
    if value is None and optional:
      return None
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
    if below is not None and value >= below:
      raise ConfigError(f"{name} must be less than {below:g}, not {value}")
    return value

  return dataclasses.field(default=default, metadata={"check": check})


def boolean(default: bool) -> Any:
  """A field that holds True or False."""

  def check(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
      raise ConfigError(f"{name} must be True or False, not {value!r}")
    return value

  return dataclasses.field(default=default, metadata={"check": check})


def choice(default: str, choices: tuple[str, ...]) -> Any:
  """A field that holds one of a few words."""

  def check(name: str, value: Any) -> str:
    if value not in choices:
      raise ConfigError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
    return value

  return dataclasses.field(default=default, metadata={"check": check})


def word(default: str | None, *, optional: bool = False) -> Any:
  """A field that holds a name (or None, if optional)."""

  def check(name: str, value: Any) -> str | None:
    if value is None and optional:
      return None
    if not isinstance(value, str) or not value:
      raise ConfigError(f"{name} must be a name, not {value!r}")
    return value

  return dataclasses.field(default=default, metadata={"check": check})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checked:
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
