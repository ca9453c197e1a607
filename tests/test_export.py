"""Exported programs: the answers of the model, where ramjax is not installed."""

import os
import subprocess
import sys

import forked
import jax
import numpy as np
import pytest
from jax.export import deserialize

import ramjax
from experiments.runs import workdir as workdir_lib
from ramjax import data
from ramjax.config import Config, ConfigError, ModelConfig, TrainConfig

CONFIG = Config(
  model=ModelConfig(
    image_shape=(14, 12, 2),
    num_classes=3,
    patch_size=4,
    num_scales=3,  # the widest patch is larger than the images
    hidden_size=16,
    branch_size=8,
  ),
  train=TrainConfig(num_glimpses=3),
)
INFO = data.DatasetInfo(
  image_shape=(14, 12, 2),
  mean=(0.4, 0.5),
  std=(0.3, 0.2),
  **{f"{split}_counts": (5, 5, 5) for split in ("train", "validation", "test")},
)
BETA = 0.1
CONFIDENCE = 0.381
SEED = 7
NAMES = {
  *("label", "probs", "predicted_error", "confidence", "num_glimpses", "location_t")
}
PROGRAM = """
import sys
import jax
import numpy as np
from jax import export

with open(sys.argv[1], "rb") as file:
  program = export.deserialize(bytearray(file.read()))
images = np.load(sys.argv[2])
answer = jax.jit(program.call)(images, np.uint32(7))
np.savez(sys.argv[3], **answer)
"""
MODEL = """
import sys
import jax
import numpy as np
import ramjax

answer = ramjax.load(sys.argv[1])(np.load(sys.argv[2]), key=jax.random.key(7))
np.savez(sys.argv[3], **answer._asdict())
"""


def make_predictor(config=CONFIG):
  params = ramjax.init_params(jax.random.key(0), config.model)
  return ramjax.Predictor(config, params, INFO, temperature_t=(0.5, 0.6))


@pytest.fixture(scope="module")
def predictor():
  return make_predictor()


def make_images(number, height=14, width=12):
  rng = np.random.RandomState(number)
  return rng.randint(0, 256, (number, height, width, 2)).astype(np.uint8)


def expect(predictor, images, **options):
  """The answer of the model; with a stopping rule, locations not taken are NaN."""
  found = predictor(images, key=jax.random.key(SEED), **options)._asdict()
  taken = np.arange(len(found["location_t"]))[:, None] < found["num_glimpses"][None]
  if "beta" in options or "confidence" in options:
    found["location_t"] = np.where(taken[..., None], found["location_t"], np.nan)
  return found


def assert_same(found, expected, **tolerance):
  assert set(found) == NAMES
  for name in NAMES:
    values, other = found[name], expected[name]
    assert (values.dtype, values.shape) == (other.dtype, other.shape), name
    np.testing.assert_allclose(values, other, **tolerance, err_msg=name)


@pytest.mark.parametrize("rule", [{"beta": BETA}, {"confidence": CONFIDENCE}])
@pytest.mark.parametrize("ends_early", [True, False])
def test_a_program_that_stops_by_itself_answers_as_the_model(
  predictor, ends_early, rule
):
  """More images than a block has, of which some are decided early and some never."""
  options = {"num_glimpses": 6, "location_noise": [0.5, 2.0], **rule}
  exported = ramjax.export(predictor, ends_early=ends_early, **options)
  program = deserialize(bytearray(exported.serialize()))
  images = make_images(45)
  found = program.call(images, np.uint32(SEED))
  assert_same(found, expect(predictor, images, **options), rtol=1e-4, atol=1e-6)
  assert len(np.unique(found["num_glimpses"])) > 2


@pytest.mark.parametrize("options", [{}, {"beta": BETA}])
def test_a_program_for_images_of_any_size(predictor, options):
  """Also smaller than the widest patch, but not than the smallest."""
  options = {"num_glimpses": 2, **options}
  program = ramjax.export(predictor, image_size="any", **options)
  images = make_images(1, 4, 30)
  found = program.call(images, np.uint32(SEED))
  assert_same(found, expect(predictor, images, **options), rtol=1e-4, atol=1e-6)
  with pytest.raises(ValueError, match="symbolic shape constraint"):
    program.call(make_images(1, 3, 12), np.uint32(SEED))


def test_a_program_for_images_of_another_fixed_size_runs_on_two_platforms(predictor):
  program = ramjax.export(predictor, image_size=(20, 9))
  assert str(program.in_avals[0]) == "uint8[b,20,9,2]"
  assert program.platforms == ("cpu", "cuda")
  assert ramjax.export(predictor, num_glimpses=1, platforms="cpu").platforms == ("cpu",)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"num_glimpses": 0}, "num_glimpses must be at least 1, not 0"),
    ({"beta": -1.0}, "beta must be finite and at least 0"),
    ({"num_glimpses": 2.5}, "num_glimpses must be an integer, not 2.5"),
    ({"image_size": (3, 9)}, "image_size must be at least 4x4, a patch of the model"),
    (
      {"image_size": "28x28"},
      r"image_size must be \(height, width\) or any, not '28x28'",
    ),
    ({"image_size": (28, 28, 1)}, r"image_size must be \(height, width\) or any"),
    (
      {"platforms": ("gpu",)},
      "platforms must be some of cpu, cuda, rocm, tpu, not gpu",
    ),
  ],
)
def test_what_cannot_be_exported_is_refused(predictor, options, message):
  with pytest.raises(ConfigError, match=message):
    ramjax.export(predictor, **options)


def make_sensor_of_fixed_size(config):
  """A model whose sensor asks for the size of images, as Python does."""
  model = ramjax.recurrent_attention_model(config)

  def sensor(image, location):
    assert image.shape[0] >= 14
    return model.sensor(image, location)

  return model._replace(sensor=sensor)


def test_a_sensor_that_needs_a_fixed_size_is_exported_for_one():
  factory = f"{__name__}:make_sensor_of_fixed_size"
  predictor = make_predictor(CONFIG.replace(model={"factory": factory}))
  with pytest.raises(ConfigError, match="image_size must be a fixed one") as raised:
    ramjax.export(predictor, image_size="any")
  assert "\n" not in str(raised.value)
  assert ramjax.export(predictor, num_glimpses=1).platforms


def start(code, *arguments):
  """Starts Python, with XLA's own settings."""
  environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
  return subprocess.Popen([sys.executable, "-c", code, *arguments], env=environment)


def test_the_file_of_the_script_needs_no_ramjax(predictor, tmp_path):
  """As XLA compiles for its users, its answers are those of the model to the bit."""
  model, output = tmp_path / "model.safetensors", tmp_path / "program"
  predictor.save(model)
  done = forked.run("export", f"--workdir={model}", f"--output={output}")
  assert done.returncode == 0, done.stderr
  size = f"{output.stat().st_size:,}"
  assert f"written to {output} ({size} bytes): images uint8[b,14,12,2]" in done.stdout
  images = tmp_path / "images.npy"
  np.save(images, make_images(3))
  hide = "import sys; sys.modules['ramjax'] = None\n"
  started = [
    start(hide + PROGRAM, output, images, tmp_path / "found.npz"),
    start(MODEL, model, images, tmp_path / "expected.npz"),
  ]
  assert [process.wait(300) for process in started] == [0, 0]
  found, expected = (
    dict(np.load(tmp_path / f"{name}.npz")) for name in ("found", "expected")
  )
  assert_same(found, expected, rtol=0)


def test_what_the_script_cannot_read_or_write_is_one_line(predictor, tmp_path):
  model, run = tmp_path / "model.safetensors", tmp_path / "run"
  predictor.save(model)
  workdir_lib.open_run(workdir_lib.Workdir(run), CONFIG, INFO)
  before = sorted(tmp_path.rglob("*"))
  for source, output, message, status in (
    (model, model / "program", "cannot be written: File exists; give another", 2),
    (model, model, f"output would overwrite {model}; give another --output", 2),
    (model, run, f"{run}: Is a directory", 1),
    (run, tmp_path / "program", "checkpoint", 1),
  ):
    done = forked.run("export", f"--workdir={source}", f"--output={output}")
    assert done.returncode == status
    line = done.stderr.splitlines()[-1]
    assert line.startswith("export: ")
    assert message in line
  assert sorted(tmp_path.rglob("*")) == before
