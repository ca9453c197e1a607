"""--help shows every flag of a script, those first that it cannot do without."""

import ast
import pathlib
import re

import forked
import pytest

SCRIPTS = sorted(
  path
  for path in (pathlib.Path(__file__).parent.parent / "experiments").glob("*.py")
  if path.stem != "__init__"
)
JUDGES_OF_RUNS = (
  "calibration",
  "error_rates",
  "glimpse_generalization",
  "stopping_rules",
)
REQUIRED = {
  **{name: ["workdir"] for name in JUDGES_OF_RUNS},
  "export": ["output"],
  "publish": ["name", "workdir"],
}


def flags_of(path):
  """Names of the flags that a script defines or reads itself."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
      if node.func.attr.startswith("DEFINE_"):
        yield node.args[0].value
    elif isinstance(node, ast.Attribute):
      owner = getattr(node.value, "attr", getattr(node.value, "id", None))
      if owner in ("FLAGS", "options"):
        yield node.attr


def sections(text):
  """The flags below each heading, in their order."""
  found = {}
  for line in text.splitlines():
    if heading := re.fullmatch(r"(required|flags|rarely needed|flags of .*):", line):
      names = found.setdefault(heading[1], [])
    elif flag := re.match(r"  --(?:\[no\])?(\w+): \S", line):
      names.append(flag[1])
  return found


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_help_shows_what_a_script_has(path):
  short, full = (forked.run(path.stem, flag) for flag in ("--help", "--helpfull"))
  for shown in (short, full):
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith(ast.get_docstring(ast.parse(path.read_text())))
  usual, all_of_them = sections(short.stdout), sections(full.stdout)
  rare = all_of_them.pop("rarely needed")
  assert {"verbosity", "helpfull"} <= set(all_of_them.pop("flags of other packages"))
  assert usual == all_of_them
  required = usual.get("required", [])
  assert required == REQUIRED.get(path.stem, [])
  assert list(usual) == (["required", "flags"] if required else ["flags"])
  assert set(flags_of(path)) <= {*required, *usual["flags"], *rare}
  *_, last = short.stdout.splitlines()
  assert last == f"--helpfull shows the rest: {len(rare)} rare flags, and absl's own."


def test_the_help_of_a_training_is_short_and_in_the_order_of_definition():
  shown = sections(forked.run("train", "--help").stdout)["flags"]
  assert len(shown) <= 33
  assert shown.index("recipe") < shown.index("dataset") < shown.index("batch_size")


def test_choices_and_the_defaults_of_the_script_are_shown():
  text = " ".join(forked.run("convergence", "--help").stdout.split())
  assert "--core: <rnn|lstm>: " in text
  assert re.search(r"--lambda_intrinsic: [^()]*\(default: 0.003\)", text)
  assert re.search(r"model.branch_size: [^()]*\(default: 128\)", text)
