"""Figures: the seen pixels, images with any number of channels, and those of a run."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ramjax
from experiments.reporting import plots
from experiments.runs import trainer
from experiments.runs import workdir as workdir_lib
from ramjax import Config, ModelConfig, Rollout, TrainConfig, data, extract_glimpse
from ramjax.checkpoint import Checkpoints
from ramjax.networks import RecurrentAttentionModel, initial_state

CONFIG = ModelConfig(patch_size=4, num_scales=2, scale_factor=3)
IMAGE = np.random.RandomState(0).randint(0, 256, (40, 50, 3)).astype(np.uint8)


def rollout_at(*locations):
  """A rollout of one image with given locations and no prediction."""
  location_t = jnp.array(locations)[:, None]
  logits_t = jnp.zeros((len(locations), 1, 2))
  empty = Rollout(*[None] * len(Rollout._fields))
  return empty._replace(location_t=location_t, logits_t=logits_t)


def test_seen_pixels_equal_the_glimpse():
  """At the centre 4 x 4 sharp pixels, around them blocks of 3 x 3, the rest grey."""
  seen = plots.seen_pixels(IMAGE, rollout_at([0.0, 0.0]), 0, CONFIG)
  sharp, coarse = np.asarray(
    extract_glimpse(
      jnp.asarray(IMAGE, jnp.float32),
      jnp.zeros(2),
      patch_size=4,
      num_scales=2,
      scale_factor=3,
    )
  )
  expected = np.full(IMAGE.shape, 90, np.uint8)
  blocks = np.round(coarse).repeat(3, 0).repeat(3, 1)
  expected[20 - 6 : 20 + 6, 25 - 6 : 25 + 6] = blocks
  expected[20 - 2 : 20 + 2, 25 - 2 : 25 + 2] = sharp
  np.testing.assert_allclose(seen, expected, atol=1)


def test_later_glimpse_does_not_blur_a_sharp_one():
  seen = plots.seen_pixels(IMAGE, rollout_at([0.0, 0.0], [0.2, 0.0]), 0, CONFIG)
  for column in (25, 30):
    inside = np.s_[18:22, column - 2 : column + 2]
    np.testing.assert_array_equal(seen[inside], IMAGE[inside])


@pytest.mark.parametrize("location", [[-1.0, -1.0], [1.0, 1.0], [1.0, -1.0]])
@pytest.mark.parametrize("patch_size", [1, 4, 60])
def test_seen_pixels_of_glimpses_across_the_border(location, patch_size):
  """At the border, a block is the mean of its pixels inside the image."""
  config = ModelConfig(patch_size=patch_size, num_scales=2, scale_factor=3)
  image = np.full((40, 50, 1), 7, np.uint8)
  seen = plots.seen_pixels(image, rollout_at(location), 0, config)
  assert set(np.unique(seen)) <= {7, 90}
  assert (seen == 7).any()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_images_with_any_number_of_channels_can_be_drawn(channels, tmp_path):
  image = np.full((1, 5, 6, channels), 40, np.uint8)
  path = tmp_path / "glimpses.png"
  plots.glimpses(image, np.array([1]), rollout_at([0.0, 0.0]), CONFIG, path)
  assert path.read_bytes().startswith(b"\x89PNG")


def test_the_figure_of_a_run_shows_what_its_model_saw(npz_file, tmp_path, monkeypatch):
  """On a canvas: the first state follows from the drawn image and the first location."""
  dataset = data.load_dataset(f"npz:{npz_file}", canvas_size=60)
  model = ModelConfig(image_shape=(60, 60, 1), hidden_size=16, branch_size=8)
  config = Config(model=model, train=TrainConfig(num_epochs=0, num_glimpses=2))
  workdir = workdir_lib.Workdir(tmp_path / "run")
  workdir_lib.open_run(workdir, config)
  optimizer = ramjax.make_optimizer(config.train, steps_per_epoch=1)
  run = ramjax.init_train_state(jax.random.key(1), config=config, optimizer=optimizer)
  with Checkpoints(workdir.checkpoints) as checkpoints:
    checkpoints.save(run)
  drawn = []
  monkeypatch.setattr(plots, "glimpses", lambda *arguments: drawn.append(arguments))
  trainer.train([config], dataset, [workdir], steps_per_call=10)
  ((shown, labels, unrolled, *_),) = drawn
  assert shown.shape == (8, 60, 60, 1)
  assert shown.dtype == np.uint8
  np.testing.assert_array_equal(labels, dataset.test.labels[:8])

  seen = data.normalize(jnp.asarray(shown), mean=dataset.mean, std=dataset.std)
  location = jnp.asarray(unrolled.location_t[0])
  state = RecurrentAttentionModel(model).apply(
    {"params": run.params.ram},
    initial_state(model, batch=(8,)),
    jax.vmap(functools.partial(extract_glimpse, patch_size=8))(seen, location),
    location,
    method="step",
  )
  np.testing.assert_allclose(unrolled.hidden_t[0], state.hidden, rtol=1e-4, atol=1e-5)
