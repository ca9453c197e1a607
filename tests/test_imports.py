"""Order of the modules: imports only go down, and heavy packages are imported late."""

import ast
import pathlib
import subprocess
import sys

import pytest

import ramjax

LIBRARY = pathlib.Path(ramjax.__file__).parent
ORDER = [
  "fields",
  "config",
  "keys",
  "checks",
  "data.idx",
  "data.background",
  "data.transforms",
  "data.batches",
  "data.splits",
  "data.info",
  "data.downloads",
  "data.sources",
  "data.own",
  "data.image_files",
  "data.scans",
  "data.folders",
  "data.prepared",
  "data.summary",
  "data.datasets",
  "data.transfer",
  "data",
  "glimpse",
  "policy",
  "losses",
  "stopping",
  "calibration",
  "confusion",
  "scanpaths",
  "model",
  "networks",
  "unroll",
  "backprop",
  "ram",
  "rollouts",
  "objectives",
  "optimizer",
  "training",
  "many",
  "dynamic",
  "prediction",
  "evaluation",
  "parallel",
  "digest",
  "orbax_patches",
  "checkpoint",
  "run_folder",
  "model_file",
  "predictor",
  "exported",
]
"""A module may import only modules that stand above it in this list."""


NOT_IN_THE_LIBRARY = {
  *("experiments", "absl.flags", "matplotlib", "rich", "tensorboardX")
}
"""What no module of the library imports, not even inside a function."""

EXPERIMENTS = LIBRARY.parent / "experiments"
FLOORS = {"cli": 0, "reporting": 1, "runs": 2, "studies": 3, "benchmarks": 3, "": 4}
"""The folders of experiments/ with their floors; the scripts are at the top."""


def module_name(path):
  parts = path.relative_to(LIBRARY).with_suffix("").parts
  return ".".join(part for part in parts if part != "__init__")


def imported_modules(path):
  """Names of the library's modules that a file imports, also inside functions."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{path}: a relative import"
      names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    else:
      continue
    for name in names:
      package, _, inside = name.partition(".")
      if package == "ramjax" and inside in ORDER:
        yield inside
      assert not {package, name} & NOT_IN_THE_LIBRARY, f"{path} imports {name}"


def test_order_lists_every_module():
  found = {module_name(path) for path in LIBRARY.rglob("*.py")} - {""}
  assert found == set(ORDER)


@pytest.mark.parametrize("name", ORDER)
def test_imports_only_go_down(name):
  path = LIBRARY.joinpath(*name.split("."))
  path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
  above = ORDER[: ORDER.index(name)]
  own = {inside for inside in imported_modules(path) if inside != name}
  # `from ramjax.data import idx` also names the package `data`.
  if name.startswith("data."):
    own.discard("data")
  assert own <= set(above)


def room_of(module):
  """The folder of a module: `runs` for `experiments.runs.trainer`, empty for a script."""
  parts = module.split(".")
  return parts[1] if len(parts) > 1 and parts[1] in FLOORS else ""


@pytest.mark.parametrize("room", FLOORS)
def test_experiments_import_from_their_own_floor_and_below(room):
  """Folders on the same floor do not import each other, and no module imports a script."""
  paths = sorted((EXPERIMENTS / room).glob("*.py"))
  assert paths
  for path in paths:
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.ImportFrom):
        modules = [f"{node.module}.{alias.name}" for alias in node.names]
      elif isinstance(node, ast.Import):
        modules = [alias.name for alias in node.names]
      else:
        continue
      for module in modules:
        if module.split(".")[0] != "experiments":
          continue
        other = room_of(module)
        assert other, f"{path} imports a script, {module}"
        assert other == room or FLOORS[other] < FLOORS[room], f"{path}: {module}"


def test_importing_the_library_does_not_import_heavy_packages():
  """TFDS, Orbax and matplotlib are imported when they are used, not before."""
  script = (
    "import sys, ramjax, ramjax.data, ramjax.checkpoint;"
    "print([m for m in ('tensorflow_datasets', 'orbax.checkpoint', 'matplotlib',"
    " 'tensorboardX', 'requests', 'tensorflow') if m in sys.modules])"
  )
  found = subprocess.run(
    [sys.executable, "-c", script], capture_output=True, text=True, check=True
  )
  assert found.stdout.strip() == "[]"
