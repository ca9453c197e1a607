"""What --help prints: flags in the order of their definition, the required ones first.

absl prints the flags of one module, sorted by name, and so hides those that a script
takes from another module.
"""

from __future__ import annotations

import contextlib
import os
import sys
import textwrap
from collections.abc import Iterable
from typing import Any

from absl import flags

FLAGS = flags.FLAGS

REQUIRED: set[str] = set()
"""Names of flags that a script cannot do without."""

RARE: set[str] = set()
"""Names of flags that only --helpfull shows."""


def define() -> None:
  """Defines --help and --helpfull, in the place of absl's."""
  for name, what in (
    ("help", "Show this help."),
    ("helpshort", "Show this help."),
    ("helpfull", "Show all flags."),
  ):
    flags.DEFINE_flag(_Help(name, what), module_name="absl.app")


class _Help(flags.BooleanFlag):
  """A flag that prints the help and ends the program."""

  def __init__(self, name: str, what: str) -> None:
    short_name = "?" if name == "help" else None
    super().__init__(name, False, what, short_name, allow_override=True)

  def parse(self, argument: Any) -> None:
    super().parse(argument)
    if self.value:
      text = describe(sys.modules["__main__"].__doc__, full=self.name == "helpfull")
      with contextlib.suppress(BrokenPipeError):  # `--help | head`
        print(text, flush=True)
        sys.exit(0)
      os._exit(0)  # at Python's own end, the closed pipe would be an error again


def describe(docstring: str | None, *, full: bool = False) -> str:
  """What a script does, and its flags; with `full` also rare ones and absl's own."""
  ours = [name for name in FLAGS if _module(name) in (sys.argv[0], "experiments")]
  required = [name for name in ours if name in REQUIRED]
  rare = [name for name in ours if name in RARE]
  usual = [name for name in ours if name not in REQUIRED | RARE]
  parts = [(docstring or "").strip()]
  if required:
    parts.append(_section("required", required))
  parts.append(_section("flags", usual))
  if full:
    parts.append(_section("rarely needed", rare))
    others = {FLAGS[name].name for name in FLAGS if name not in ours}
    parts.append(_section("flags of other packages", sorted(others)))
  else:
    parts.append(f"--helpfull shows the rest: {len(rare)} rare flags, and absl's own.")
  return "\n\n".join(parts)


def _module(name: str) -> str:
  """The package of the module that defines a flag; of a script its file."""
  module = str(FLAGS.find_module_defining_flag(name))
  return module if module == sys.argv[0] else module.partition(".")[0]


def _section(title: str, names: Iterable[str]) -> str:
  return "\n".join([f"{title}:", *map(_entry, names)])


def _entry(name: str) -> str:
  """A flag, its choices, what it is for, and its default."""
  flag = FLAGS[name]
  shown = f"--[no]{name}" if flag.boolean else f"--{name}"
  default = (flag.default_as_str or "").strip("'")
  help = flag.help
  choices = help.partition(":")[0]
  if len(choices) > 60:  # too long for one line
    help = choices.replace("|", "| ") + help.removeprefix(choices)
  first, *more = f"{shown}: {help}".split("\n")
  if default:
    first += f" (default: {default})"
  return "\n".join(
    textwrap.fill(
      line,
      width=80,
      initial_indent=" " * indent,
      subsequent_indent=" " * (indent + 4),
      break_on_hyphens=False,
      break_long_words=False,
    )
    for indent, line in ((2, first), *((6, line) for line in more))
  )
