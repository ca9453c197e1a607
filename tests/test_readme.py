"""The README's Python runs as it stands, and its files exist."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_there_are_examples():
  assert len(BLOCKS) >= 3


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_examples_run(number):
  exec(compile(BLOCKS[number], f"README.md, example {number + 1}", "exec"), {})


def test_images_and_files_exist():
  names = re.findall(r"\]\(([^)#]+)\)", README)
  local = [name for name in names if "://" not in name]
  assert local
  for name in local:
    assert (ROOT / name).exists(), name
