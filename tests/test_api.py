"""The public interface: names, docstrings, signatures."""

import inspect

import pytest

import ramjax
from ramjax import data

PUBLIC = [(module, name) for module in (ramjax, data) for name in module.__all__]
FUNCTIONS = [
  (name, function)
  for module, name in PUBLIC
  if inspect.isroutine(function := inspect.unwrap(getattr(module, name)))
]


@pytest.mark.parametrize("module", [ramjax, data])
def test_all_lists_every_public_name(module):
  visible = {
    name
    for name, value in vars(module).items()
    if not name.startswith("_") and not inspect.ismodule(value)
  }
  assert visible == set(module.__all__)


@pytest.mark.parametrize(("module", "name"), PUBLIC)
def test_every_public_name_is_documented(module, name):
  value = getattr(module, name)
  if isinstance(value, tuple):
    return
  first = (value.__doc__ or "").strip().splitlines()[0]
  assert first.endswith((".", "?")), f"{name}: the first line must be a sentence"


@pytest.mark.parametrize(("name", "function"), FUNCTIONS)
def test_docstrings_describe_arguments_and_results(name, function):
  parameters = inspect.signature(function).parameters
  text = inspect.getdoc(function)
  if len(parameters) > 1:
    assert "Args:" in text
    assert "Returns:" in text
    for parameter in parameters:
      assert f"{parameter}:" in text, f"{name}: {parameter} is not documented"


@pytest.mark.parametrize(("name", "function"), FUNCTIONS)
def test_key_comes_first_and_options_are_named(name, function):
  parameters = list(inspect.signature(function).parameters.values())
  names = [parameter.name for parameter in parameters]
  assert "key" not in names[1:]
  if name == "intrinsic_loss":  # its optional prior is an array, not an option
    return
  for parameter in parameters:
    if parameter.default is not inspect.Parameter.empty:
      assert parameter.kind is inspect.Parameter.KEYWORD_ONLY, f"{name}: {parameter}"


@pytest.mark.parametrize(("name", "function"), FUNCTIONS)
def test_signatures_are_typed(name, function):
  signature = inspect.signature(function)
  assert signature.return_annotation is not inspect.Signature.empty
  for parameter in signature.parameters.values():
    assert parameter.annotation is not inspect.Parameter.empty, f"{name}: {parameter}"
