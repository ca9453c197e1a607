"""The examples of the documents run as they stand, with JAX as its users have it."""

import pathlib
import re

import jax
import pytest

ROOT = pathlib.Path(__file__).parent.parent
EXAMPLES = [
  pytest.param(code, id=f"{path.relative_to(ROOT)}-{number}")
  for path in (ROOT / "README.md", *sorted(ROOT.glob("experiments/*.md")))
  for number, code in enumerate(
    re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL), start=1
  )
]


@pytest.mark.parametrize("code", EXAMPLES)
def test_example_runs(code):
  with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
    exec(compile(code, "example", "exec"), {})
