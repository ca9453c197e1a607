"""Answers of a trained run: those of a rollout, with a confidence, for any images."""

import json
import logging
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import synthetic
import trainings

import ramjax
from experiments.runs import workdir as workdir_lib
from ramjax import data, run_folder
from ramjax.config import (
  Config,
  ConfigError,
  ModelConfig,
  ObjectiveConfig,
  TrainConfig,
)

CONFIG = Config(
  model=ModelConfig(hidden_size=64, branch_size=32),
  objective=ObjectiveConfig(name="intrinsic", lambda_intrinsic=0.02),
  train=TrainConfig(batch_size=32, num_glimpses=3, num_epochs=6, learning_rate=3e-3),
)


@pytest.fixture(scope="module")
def dataset():
  """More images than other tests have, so that something is learned."""
  return synthetic.make(640, 160, 160)


@pytest.fixture(scope="module")
def folder(dataset, tmp_path_factory):
  """The folder of a run that has learned something."""
  path = tmp_path_factory.mktemp("runs") / "run"
  counts = {f"{part}_counts": (16,) * 10 for part in ("train", "validation", "test")}
  info = data.DatasetInfo(
    image_shape=(28, 28, 1), mean=dataset.mean, std=dataset.std, **counts
  )
  workdir_lib.open_run(workdir_lib.Workdir(path), CONFIG, info)
  trainings.train(dataset, [path], [CONFIG], steps_per_call=20)
  return path


@pytest.fixture(scope="module")
def predictor(folder):
  return ramjax.load(folder)


def test_counts_may_be_integers_of_any_library(predictor, dataset):
  image = dataset.test.images[0]
  found = predictor(image, num_glimpses=jnp.int32(2), num_samples=np.int64(3))
  expected = predictor(image, num_glimpses=2, num_samples=3)
  chex.assert_trees_all_equal(found, expected)
  assert found.num_glimpses == 2


def test_an_answer_is_that_of_a_rollout(predictor, dataset):
  """With as many glimpses as in training, the sums of two rollouts, and noise of its own."""
  images, key = dataset.test.images[:20], jax.random.key(5)
  found = predictor(images, key=key, num_samples=2, location_noise=[0.5, 2])
  shown = jax.vmap(dataset.preprocess, (None, 0))(key, jnp.asarray(images))
  rollouts = [
    ramjax.rollout(
      jax.random.fold_in(key, sample),
      predictor.params,
      shown,
      model=CONFIG.model,
      num_glimpses=3,
      location_noise=[0.5, 2],
    )
    for sample in range(2)
  ]
  probs_t = (rollouts[0].probs_t + rollouts[1].probs_t) / 2
  np.testing.assert_allclose(found.probs_t, probs_t, rtol=1e-4)
  np.testing.assert_allclose(found.location_t, rollouts[0].location_t, atol=1e-5)
  np.testing.assert_array_equal(found.label, probs_t[-1].argmax(-1))
  np.testing.assert_array_equal(found.probs, found.probs_t[-1])
  assert found.num_glimpses.tolist() == [3] * 20
  labels = dataset.test.labels
  assert (predictor(dataset.test.images).label == labels).mean() > 0.5


def test_it_stops_by_itself(predictor, dataset):
  found = predictor(dataset.test.images, beta=0.2, num_glimpses=8)
  taken = ramjax.stopping_time(found.probs_t, found.predicted_error_t, beta=0.2)
  np.testing.assert_array_equal(found.num_glimpses, taken)
  assert len(np.unique(taken)) > 2
  for image, number in enumerate(np.asarray(taken)):
    np.testing.assert_array_equal(found.probs[image], found.probs_t[number - 1, image])
  assert predictor(dataset.test.images[:2], beta=0.2).probs_t.shape[0] == 50


def test_it_stops_when_it_is_sure(predictor, dataset):
  """At the first glimpse after which the confidence is as high, computed by hand."""
  images, least = dataset.test.images[:40], 0.5
  every = predictor(images, num_glimpses=8)
  temperature_t = [predictor.temperature_t[min(t, 2)] for t in range(8)]
  sure_t = [
    np.asarray(ramjax.temper(probs, jnp.float32(temperature)).max(-1)) >= least
    for probs, temperature in zip(every.probs_t, temperature_t, strict=True)
  ]
  first = np.argmax(sure_t, axis=0)
  expected = np.where(np.any(sure_t, axis=0), first + 1, 8)
  found = predictor(images, confidence=least, num_glimpses=8)
  np.testing.assert_array_equal(found.num_glimpses, expected)
  assert len(set(expected.tolist())) > 2
  stopped = np.asarray(found.num_glimpses) < 8
  assert (np.asarray(found.confidence)[stopped] >= least).all()


def test_one_image_and_many_in_bytes_and_floats_are_the_same(predictor, dataset):
  image = dataset.test.images[0]  # [H, W, 1]
  many = predictor(dataset.test.images[:2])
  for form in (image, image[..., 0], np.float32(image) / 255):
    one = predictor(form)
    assert one.label.shape == ()
    assert one.location_t.shape == (3, 2)
    np.testing.assert_allclose(one.probs_t, many.probs_t[:, 0], rtol=1e-4)
  stack = predictor(dataset.test.images[:2, :, :, 0])
  np.testing.assert_array_equal(stack.probs, many.probs)


def test_images_of_another_size_are_looked_at(predictor, dataset):
  """A digit on a larger canvas, of the colour of its background."""
  large = np.pad(dataset.test.images[:3], ((0, 0), (10, 30), (5, 0), (0, 0)))
  assert np.isfinite(predictor(large).probs).all()


def test_confidence_is_calibrated(predictor, dataset):
  """The intrinsic term keeps p low; the temperatures of validation images mend it."""
  assert predictor.is_calibrated
  found = predictor(dataset.test.images)
  accuracy = (found.label == dataset.test.labels).mean()
  assert abs(found.confidence.mean() - accuracy) < 0.1
  assert abs(found.probs.max(-1).mean() - accuracy) > 0.15
  more = predictor(dataset.test.images, num_glimpses=9)  # more than it has fitted
  last = ramjax.temper(more.probs, jnp.float32(predictor.temperature_t[-1]))
  np.testing.assert_allclose(more.confidence, last.max(-1), rtol=1e-5)


@pytest.mark.parametrize(
  ("images", "options", "message"),
  [
    (np.zeros((28, 28, 3), np.uint8), {}, r"not \[28, 28, 3\]; convert them"),
    (np.zeros((2, 28, 28, 3), np.uint8), {}, r"not \[2, 28, 28, 3\]; convert"),
    (np.zeros(28, np.uint8), {}, r"not \[28\]"),
    (np.zeros((3, 28), np.uint8), {}, "3 x 28 pixels are smaller than a patch"),
    (np.zeros((28, 28), np.int32), {}, "or float from 0 to 1, not int32"),
    (np.zeros((28, 28), bool), {}, "or float from 0 to 1, not bool"),
    ("digit.png", {}, "or float from 0 to 1, not str"),
    (None, {}, "or float from 0 to 1, not NoneType"),
    ([np.zeros((28, 28)), np.zeros((9, 9))], {}, "images must be of one size"),
    (np.full((28, 28), 255.0), {}, "not from 255 to 255; divide them"),
    (np.full((28, 28), -1.0), {}, "not from -1 to -1; shift and scale them"),
    (np.full((28, 28), np.nan), {}, "images have pixels that are not finite"),
    (np.zeros((28, 28), np.uint8), {"num_glimpses": 0}, "num_glimpses must be at"),
    (np.zeros((28, 28), np.uint8), {"num_samples": 0}, "num_samples must be at"),
    (np.zeros((28, 28), np.uint8), {"location_noise": -1.0}, "location_noise must be"),
    (np.zeros((28, 28), np.uint8), {"location_noise": [1, -1]}, "location_noise must"),
    (np.zeros((28, 28), np.uint8), {"num_samples": 1.5}, "must be an integer, not 1.5"),
    (np.zeros((28, 28), np.uint8), {"num_glimpses": 2.5}, "must be an integer"),
    (np.zeros((28, 28), np.uint8), {"num_glimpses": True}, "must be an integer"),
    (np.zeros((28, 28), np.uint8), {"beta": -1.0}, "beta must be finite and at"),
    (np.zeros((28, 28), np.uint8), {"beta": np.ones(2)}, "beta must be finite and at"),
    (np.zeros((28, 28), np.uint8), {"beta": "0.2"}, "beta must be finite and at"),
    (np.zeros((28, 28), np.uint8), {"beta": True}, "beta must be finite and at"),
    (np.zeros((28, 28), np.uint8), {"beta": 10**400}, "beta must be finite and at"),
    (np.zeros((28, 28), np.uint8), {"confidence": 1}, "confidence must be greater"),
    (
      np.zeros((28, 28), np.uint8),
      {"confidence": 0.5, "beta": 0.2},
      "give either beta or confidence, not both",
    ),
    (
      np.zeros((28, 28), np.uint8),
      {"num_glimpses": 2**31},
      "must be at most 1,000,000",
    ),
    (
      np.zeros((28, 28), np.uint8),
      {"key": jax.random.split(jax.random.key(0))},
      "key must be a typed PRNG key",
    ),
    (np.zeros((28, 28), np.uint8), {"key": 3}, "key must be a typed PRNG key"),
    (
      np.zeros((28, 28), np.uint8),
      {"key": jax.random.PRNGKey(3)},
      r"key must be a typed PRNG key, such as jax\.random\.key\(0\)",
    ),
  ],
)
def test_what_it_cannot_look_at_is_refused(predictor, images, options, message):
  with pytest.raises(ConfigError, match=message):
    predictor(images, **options)


def test_images_of_bytes_that_look_like_shares_are_told(predictor, caplog):
  with caplog.at_level(logging.WARNING, logger="absl"):
    predictor(np.eye(28, dtype=np.uint8))
  assert "no pixel exceeds 1, but white is 255" in caplog.text


@pytest.mark.parametrize("dtype", [np.int32, bool, np.complex64, jnp.float8_e4m3fn])
def test_parameters_are_stored_as_floats_alone(predictor, tmp_path, dtype):
  path = tmp_path / "mine.safetensors"
  predictor.save(path, dtype=jnp.bfloat16)
  before = path.read_bytes()
  with pytest.raises(ConfigError, match="dtype must be one of float16, bfloat16"):
    predictor.save(path, dtype=dtype)
  assert path.read_bytes() == before
  assert ramjax.load(path).config == predictor.config
  with pytest.raises(ConfigError, match=r"mine\.safetensors has one state"):
    ramjax.load(path, best=True)


def test_files_that_are_no_models_are_told(tmp_path):
  (tmp_path / "model.py").touch()
  with pytest.raises(ramjax.RunError, match=r"model\.py is no model: the names of"):
    ramjax.load(tmp_path / "model.py")


def test_runs_of_earlier_versions_say_what_they_lack(folder, dataset, tmp_path, caplog):
  old = tmp_path / "old"
  shutil.copytree(folder, old)
  (old / "confidence.json").unlink()
  with caplog.at_level(logging.WARNING, logger="absl"):
    predictor = ramjax.load(old)
  assert "confidence is the largest p, not calibrated" in caplog.text
  assert not predictor.is_calibrated
  found = predictor(dataset.test.images[:5])
  np.testing.assert_allclose(found.confidence, found.probs.max(-1), rtol=1e-5)
  content = json.loads((old / "config.json").read_text())
  del content["data"]
  (old / "config.json").write_text(json.dumps(content))
  with pytest.raises(ramjax.RunError, match="did not record the normalisation"):
    ramjax.load(old)
  with pytest.raises(ramjax.RunError, match="holds no run"):
    ramjax.load(tmp_path)


def test_a_folder_beside_a_run_is_told_what_to_give(folder, tmp_path):
  for name in ("run_seed0", "run_seed1"):
    shutil.copytree(folder, tmp_path / name)
  seeds = f"{tmp_path / 'run_seed0'},{tmp_path / 'run_seed1'}"
  for path, advice in (
    (tmp_path / "run", f"give {seeds}"),
    (folder / "checkpoints", f"give {folder}"),
    (tmp_path / "none", "train one by "),
  ):
    with pytest.raises(ramjax.RunError, match="holds no run") as caught:
      run_folder.read_config(path)
    assert f"No such file or directory); {advice}" in str(caught.value)
  (tmp_path / "file").touch()
  with pytest.raises(ramjax.RunError, match="; give the folder of a run, not a file"):
    run_folder.read_config(tmp_path / "file")


@pytest.mark.parametrize("content", ["{}", '{"temperature_t": [1.0, null]}', "[", "[]"])
def test_damaged_temperatures_are_told(folder, tmp_path, content):
  damaged = tmp_path / "damaged"
  shutil.copytree(folder, damaged)
  (damaged / "confidence.json").write_text(content)
  with pytest.raises(ramjax.RunError, match=r"confidence.json is damaged"):
    ramjax.load(damaged)


def test_a_name_of_the_package_is_no_folder_of_a_run(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(ramjax.RunError, match=r"ramjax\.pretrained\('mnist'\) gives"):
    ramjax.load("mnist")
