"""The reference that pdoc renders: no warning, every name, an example of each."""

import inspect
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

import ramjax
from ramjax import data, objectives

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PUBLIC = {
  module: {name: getattr(module, name) for name in module.__all__}
  for module in (ramjax, data)
}
MULTILINE = re.MULTILINE | re.DOTALL
NETWORKS = re.compile(r"\b(glimpse|core|action|location|baseline|error)\b")


@pytest.mark.slow
def test_the_reference_has_every_public_name_and_renders_without_warnings(tmp_path):
  program, *arguments = shlex.split(re.search(r"`(pdoc [^`]*)`", README)[1])
  ended = subprocess.run(
    [sys.executable, "-W", "error", "-m", program, *arguments, "-o", tmp_path],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert (ended.returncode, ended.stderr) == (0, "")
  for module, names in PUBLIC.items():
    page = tmp_path.joinpath(*module.__name__.split(".")).with_suffix(".html")
    shown = re.findall(r'<section id="(\w+)"', page.read_text())
    assert set(shown) == set(names)
  table = (tmp_path / "ramjax/objectives.html").read_text()
  assert "<td>location network, and a share" in table


def examples():
  """All examples, which run as tests: code of the READMEs, doctests with their output."""
  for path in (ROOT / "README.md", *ROOT.glob("experiments/*.md")):
    yield from re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)
  for path in pathlib.Path(ramjax.__file__).parent.rglob("*.py"):
    yield from re.findall(r"^ *>>> .*?(?=\n\n|\"{3})", path.read_text(), MULTILINE)


def test_every_public_name_is_in_an_example():
  """A type is shown, too, by an example of a function that returns it."""
  shown = set(re.findall(r"\w+", "\n".join(examples())))
  for names in PUBLIC.values():
    for name, value in names.items():
      if name in shown and callable(value) and not inspect.isclass(value):
        returned = inspect.signature(value).return_annotation
        shown |= set(re.findall(r"\w+", str(returned)))
  missing = {name for names in PUBLIC.values() for name in names} - shown
  assert not missing


def gradient_table(text):
  """The networks that the gradient of each loss reaches, as a table in a text says."""
  rows = re.findall(
    r"^\|.*?\| `(?:ramjax\.)?(\w+_loss)` \| (.*) \|$", text, re.MULTILINE
  )
  return {function: set(NETWORKS.findall(reached)) for function, reached in rows}


def test_the_first_page_and_the_reference_agree_which_gradient_goes_where():
  table = gradient_table(objectives.__doc__)
  assert set(table) == {name for name in ramjax.__all__ if name.endswith("_loss")}
  assert gradient_table(README) == table
