"""Fields of a configuration: each says what it is for, and checks its values."""

from __future__ import annotations

import dataclasses
import math
import numbers
import textwrap
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, Self


class ConfigError(ValueError):
  """A setting that cannot be used; the message is one line that names it.

  >>> import ramjax
  >>> ramjax.ModelConfig(patch_size=0)
  Traceback (most recent call last):
    ...
  ramjax.fields.ConfigError: patch_size must be at least 1, not 0
  """


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
  """What a field of a configuration says about itself.

  Attributes:
    default: its value where none is given.
    help: what it is for; shown by `--help` and in the docstring of its class.
    check: from its name and a value to the value that is stored; raises ConfigError.
    kind: type of its values, which a command line turns words into.
    choices: the words that it accepts; empty if there is no list of them.
    reach: how a command line sets it: by a `flag`, by a flag that only `--helpfull`
      shows (`rare`), by `--set` (`set`), or not at all because the data fix it (`data`).
    flag: name of its flag; None if that is the name of the field.
    before: its value in releases that did not have it, see `Checked.from_dict`.
    none: what stands for None on a command line, a number or a word, if anything does.
  """

  default: Any
  before: Any
  help: str
  check: Callable[[str, Any], Any]
  kind: type = str
  choices: tuple[str, ...] = ()
  reach: Literal["flag", "rare", "set", "data"] = "flag"
  flag: str | None = None
  none: float | str | None = None

  def word(self, value: Any) -> Any:
    """A value of the field as a command line says it."""
    return self.none if value is None else value


def checked(
  default: Any,
  help: str,
  check: Callable[[str, Any], Any],
  *,
  optional: bool = False,
  **more: Any,
) -> Any:
  """A field with a check of its own; `more` are attributes of its `Setting`."""

  def check_or_none(name: str, value: Any) -> Any:
    return None if value is None and optional else check(name, value)

  setting = Setting(
    **{"default": default, "before": default, **more}, help=help, check=check_or_none
  )
  return dataclasses.field(default=default, metadata={"setting": setting})


def integer(
  default: int | None, help: str, *, low: int, high: int | None = None, **more: Any
) -> Any:
  """A field that holds an integer from `low` to `high`; for `more` see `checked`."""

  def check(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
      raise ConfigError(f"{name} must be an integer, not {value!r}")
    value = int(value)
    if value < low:
      raise ConfigError(f"{name} must be at least {low}, not {value}")
    if high is not None and value > high:
      raise ConfigError(f"{name} must be at most {high}, not {value}")
    return value

  return checked(default, help, check, kind=int, **more)


def number(
  default: float | None,
  help: str,
  *,
  above: float | None = None,
  low: float | None = None,
  **more: Any,
) -> Any:
  """A field that holds a finite number, greater than `above` and at least `low`.

  For `more` see `checked`.
  """

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

  return checked(default, help, check, kind=float, **more)


def number_or_several(default: float, help: str, *, low: float, **more: Any) -> Any:
  """A field that holds a number as in `number`, or a tuple of them."""
  check_one = number(default, help, low=low).metadata["setting"].check

  def check(name: str, value: Any) -> float | tuple[float, ...]:
    value = value.tolist() if hasattr(value, "tolist") else value  # an array
    if not isinstance(value, list | tuple):
      return check_one(name, value)
    if not value:
      raise ConfigError(f"{name} must be a number or several, not {value!r}")
    return tuple(check_one(name, each) for each in value)

  return checked(default, help, check, kind=float, **more)


def boolean(default: bool, help: str, **more: Any) -> Any:
  """A field that holds True or False; for `more` see `checked`."""

  def check(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
      raise ConfigError(f"{name} must be True or False, not {value!r}")
    return value

  return checked(default, help, check, kind=bool, **more)


def choice(default: str, choices: tuple[str, ...], help: str, **more: Any) -> Any:
  """A field that holds one of a few words; for `more` see `checked`."""

  def check(name: str, value: Any) -> str:
    if value not in choices:
      raise ConfigError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
    return value

  return checked(default, help, check, choices=choices, **more)


def word(default: str | None, help: str, **more: Any) -> Any:
  """A field that holds a name; for `more` see `checked`."""

  def check(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
      raise ConfigError(f"{name} must be a name, not {value!r}")
    return value

  return checked(default, help, check, **more)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checked:
  """A configuration: checks its fields, documents them, and converts to and from JSON."""

  removed: ClassVar[Mapping[str, Any]] = {}
  """Fields that earlier releases had, with the values that changed nothing."""

  def __init_subclass__(cls) -> None:
    """Writes the fields into the docstring."""
    lines = [f"{(cls.__doc__ or '').rstrip()}\n\n  Attributes:"]
    for name, field in vars(cls).items():
      if isinstance(field, dataclasses.Field):
        setting = field.metadata["setting"]
        choices = f" ({', '.join(setting.choices)})" if setting.choices else ""
        text = f"    {name}{choices}: {setting.help}"
        lines.append(textwrap.fill(text, width=88, subsequent_indent="      "))
    cls.__doc__ = "\n".join(lines)

  def __post_init__(self) -> None:
    for name, setting in self.settings().items():
      object.__setattr__(self, name, setting.check(name, getattr(self, name)))

  @classmethod
  def settings(cls) -> dict[str, Setting]:
    """What the fields say about themselves, by name."""
    return {field.name: field.metadata["setting"] for field in dataclasses.fields(cls)}

  def to_dict(self) -> dict[str, Any]:
    """The configuration as plain dictionaries, lists, numbers and strings."""
    return {
      name: list(value) if isinstance(value, tuple) else value
      for name, value in dataclasses.asdict(self).items()
    }

  @classmethod
  def from_dict(cls, values: Mapping[str, Any], *, prefix: str = "") -> Self:
    """The inverse of `to_dict`; also reads what earlier releases have written.

    A missing field takes its default, so the default of a new field must be what earlier
    releases did. Where it is not, `before` says what they did:
    `fields.integer(8, "Number of heads.", low=1, before=1)`. If the default changes
    later, the old one becomes `before`. A field that is taken away moves to `removed`,
    with the value that changed nothing; files with this value remain valid.

    Args:
      values: what `to_dict` returned, in this or in an earlier release.
      prefix: what stands before the names of fields in messages, such as `train.`.

    Returns:
      The configuration.

    Raises:
      ConfigError: if a field is unknown, out of range, or was removed and is in use.
    """
    if not isinstance(values, Mapping):
      raise ConfigError(f"{cls.__name__} must be a JSON object, not {values!r}")
    settings = cls.settings()
    refuse_unknown({*settings, *cls.removed}, values, prefix=prefix)
    for name, neutral in cls.removed.items():
      if values.get(name, neutral) != neutral:
        raise ConfigError(
          f"{prefix}{name}: this version of ramjax no longer has that setting, which is"
          f" {values[name]!r}"
        )
    return cls(
      **{name: values.get(name, each.before) for name, each in settings.items()}
    )


def refuse_unknown(
  known: set[str], values: Mapping[str, Any], *, prefix: str = ""
) -> None:
  """Refuses fields that this version does not have.

  Raises:
    ConfigError: if there is one.
  """
  unknown = sorted(f"{prefix}{name}" for name in set(values) - known)
  if unknown:
    raise ConfigError(
      f"written by a newer version of ramjax: field {', '.join(unknown)}"
    )


def one_line(error: BaseException) -> str:
  """What an error says, or else its type, in one line of at most 200 characters."""
  return (" ".join(str(error).split()) or type(error).__name__)[:200]
