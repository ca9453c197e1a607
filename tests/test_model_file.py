"""A model in one file: the same answers, and one line where it cannot be read."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import ramjax
from ramjax.config import Config, ConfigError, ModelConfig, TrainConfig
from ramjax.data import DatasetInfo

INFO = DatasetInfo(
  image_shape=(28, 28, 1),
  mean=(0.1,),
  std=(0.3,),
  class_names=("cat", "dög", "fox"),
  train_counts=(8, 7, 6),
  validation_counts=(1, 1, 1),
  test_counts=(2, 2, 2),
)
IMAGES = np.random.RandomState(0).randint(0, 256, (4, 28, 28)).astype(np.uint8)


@pytest.fixture(params=["rnn", "lstm"])
def model(request):
  config = Config(
    model=ModelConfig(core=request.param, num_classes=3, hidden_size=16, branch_size=8),
    train=TrainConfig(num_glimpses=3),
  )
  params = ramjax.recurrent_attention_model(config.model).init(jax.random.key(0))
  return ramjax.Predictor(config, params, INFO, (0.5, 0.4, 0.3), {"error": 1.5})


def test_a_saved_model_is_the_same(model, tmp_path):
  file = tmp_path / "model.safetensors"
  model.save(file)
  loaded = ramjax.load(file)
  for name in ("config", "info", "temperature_t", "facts"):
    assert getattr(loaded, name) == getattr(model, name)
  for found, expected in zip(loaded(IMAGES), model(IMAGES), strict=True):
    np.testing.assert_array_equal(found, expected)


def test_parameters_come_back_in_their_tree(model, tmp_path):
  model.save(tmp_path / "model.safetensors")
  loaded = ramjax.load(tmp_path / "model.safetensors")
  assert jax.tree.structure(loaded.params) == jax.tree.structure(model.params)


@pytest.mark.parametrize("part", ["header", "parameters"])
def test_an_altered_file_is_refused(model, tmp_path, part):
  """Also where it is still a file of safetensors, and all numbers are finite."""
  file = tmp_path / "model.safetensors"
  model.save(file)
  content = bytearray(file.read_bytes())
  if part == "header":
    at = content.index(b"num_glimpses") + len(b'num_glimpses\\": ')
    content[at : at + 1] = b"7"
  else:
    content[-1000:-996] = np.float32(0.5).tobytes()
  file.write_bytes(content)
  with pytest.raises(ramjax.RunError, match="is not what was written: its SHA-256"):
    ramjax.load(file)


def test_float16_halves_the_file_and_rounds_the_parameters(model, tmp_path):
  sizes = []
  for dtype in (np.float32, np.float16):
    model.save(tmp_path / "model.safetensors", dtype=dtype)
    arrays = load_file(tmp_path / "model.safetensors")
    sizes.append(sum(array.nbytes for array in arrays.values()))
  assert sizes[0] == 2 * sizes[1]
  loaded = ramjax.load(tmp_path / "model.safetensors")
  for leaf, whole in zip(
    *map(jax.tree.leaves, (loaded.params, model.params)), strict=True
  ):
    assert leaf.dtype == np.float32
    np.testing.assert_array_equal(leaf, np.float32(np.float16(whole)))


def test_what_cannot_be_stored_is_refused(model, tmp_path):
  with pytest.raises(ConfigError, match=r"must end in .safetensors, not model.npz"):
    model.save(tmp_path / "model.npz")
  huge = dataclasses.replace(
    model, params=jax.tree.map(lambda a: a + 1e5, model.params)
  )
  with pytest.raises(
    ConfigError, match="parameter ram/action/bias is not finite in float16"
  ):
    huge.save(tmp_path / "model.safetensors", dtype=np.float16)
  assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_model_is_one_line(model, tmp_path):
  file = tmp_path / "model.safetensors"
  with pytest.raises(ramjax.RunError, match="does not exist"):
    ramjax.load(file)
  model.save(file)
  whole, arrays = file.read_bytes(), load_file(file)
  for content in (b"", b"mine", whole[:-1], whole[:200]):
    file.write_bytes(content)
    with pytest.raises(ramjax.RunError, match="cannot be read as a model") as refused:
      ramjax.load(file)
    assert "\n" not in str(refused.value)
  save_file(arrays, file)  # of another program
  with pytest.raises(ramjax.RunError, match="this version of ramjax did not write it"):
    ramjax.load(file)
  header = {
    "format": "1",
    "config": json.dumps(model.config.to_dict()),
    "data": json.dumps(INFO.to_dict()),
    "temperature_t": "[1.0, -1.0]",
    "facts": "{}",
  }

  def write(arrays, **changes):
    metadata = {f"ramjax.{name}": text for name, text in {**header, **changes}.items()}
    save_file(arrays, file, metadata=metadata)

  write(arrays)
  with pytest.raises(ramjax.RunError, match="temperatures must be above 0"):
    ramjax.load(file)
  arrays.pop("ram/action/bias")
  write(arrays, temperature_t="null")
  with pytest.raises(ramjax.RunError, match="parameters do not fit its configuration"):
    ramjax.load(file)


@pytest.mark.parametrize("name", ramjax.pretrained_names())
def test_models_of_the_package_are_small_and_have_a_card(name):
  model = ramjax.pretrained(name)
  shape = model.config.model.image_shape
  assert model.is_calibrated
  assert np.isfinite(model(np.zeros(shape, np.uint8)).probs).all()
  folder = ramjax.predictor._MODELS
  assert (folder / f"{name}.safetensors").stat().st_size < 1.5e6
  error = model.facts["test_error"]["float16"]
  assert f"| {error:.2f} |" in (folder / f"{name}.md").read_text()


def test_another_name_is_refused():
  with pytest.raises(ConfigError, match=r"must be one of .*mnist.*, not 'mist'"):
    ramjax.pretrained("mist")


def test_a_folder_that_does_not_exist_is_named(model, tmp_path):
  with pytest.raises(OSError, match=r"its folder does not exist: '.*no/mine\.safeten"):
    model.save(tmp_path / "no" / "mine.safetensors")
