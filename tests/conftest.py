"""Settings and fixtures for all tests: strict promotion, a shared cache, datasets."""

import os
import signal

import jax
import pytest
import synthetic

from ramjax import data

# Tests spend most of their time in compilation; without optimisation it takes a quarter.
_FLAGS = "--xla_backend_optimization_level=0"
if jax.__version_info__ < (0, 11):  # later versions do not know the flag, and end
  _FLAGS += " --xla_cpu_use_fusion_emitters=false"

_ON_ANY_DEVICE = (
  *("backprop", "calibration", "dynamic", "evaluation", "extra_terms", "glimpse"),
  *("location_gradient", "losses", "many", "model", "networks", "objective"),
  *("optimizer", "policy", "prediction", "predictor", "rollout", "scanpaths"),
  *("stopping", "training", "transforms"),
)
"""Test modules of what is computed on an accelerator: `-m accelerator`."""


def pytest_configure(config):
  """XLA's flags are for tests on a CPU."""
  if "accelerator" not in config.option.markexpr:
    os.environ.setdefault("XLA_FLAGS", _FLAGS)


def pytest_collection_modifyitems(items):
  """Marks the tests of `_ON_ANY_DEVICE`."""
  modules = {f"test_{name}.py" for name in _ON_ANY_DEVICE}
  for item in items:
    if item.path.name in modules:
      item.add_marker("accelerator")


@pytest.fixture(autouse=True, scope="session")
def strict_jax():
  """Types and ranks are never promoted silently."""
  jax.config.update("jax_numpy_dtype_promotion", "strict")
  jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def exact_products():
  """Products in float32 on every device; an accelerator rounds their factors else."""
  with jax.default_matmul_precision("float32"):
    yield


@pytest.fixture(autouse=True, scope="session")
def compiled_once(tmp_path_factory):
  """A cache of compiled programs for the tests of a session and the scripts they start."""
  folder = tmp_path_factory.getbasetemp() / "compiled"
  jax.config.update("jax_compilation_cache_dir", str(folder))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
  os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
  os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"


@pytest.fixture(scope="session")
def dataset() -> data.Dataset:
  """A small dataset that a small model learns; nothing may be written into its arrays."""
  return synthetic.make()


@pytest.fixture(scope="session")
def npz_file(tmp_path_factory):
  """The same images for scripts: `--dataset=npz:FILE`.

  They do not come from the fixture `dataset`, for which a module may have its own.
  """
  path = tmp_path_factory.mktemp("synthetic") / "images.npz"
  synthetic.write_npz(path, synthetic.make())
  return path


@pytest.fixture(scope="session")
def mnist() -> data.Dataset:
  """The genuine MNIST, from any source that this machine has.

  Without a source, its tests are skipped, or fail if RAMJAX_REQUIRE_MNIST is 1, as in CI.
  """
  try:
    return data.load_dataset("mnist")
  except data.DataError as error:
    if os.environ.get("RAMJAX_REQUIRE_MNIST") == "1":
      raise
    pytest.skip(f"genuine MNIST: {error}")


@pytest.fixture
def signal_handlers():
  """The handlers of SIGINT and SIGTERM, which this puts back after a test."""
  before = {
    signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)
  }
  yield before
  for signum, handler in before.items():
    signal.signal(signum, handler)
