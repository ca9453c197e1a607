"""Figures: the seen pixels, and images with any number of channels."""

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments.reporting import plots
from ramjax import ModelConfig, Rollout, extract_glimpse

CONFIG = ModelConfig(patch_size=4, num_scales=2, scale_factor=3)
IMAGE = np.random.RandomState(0).randint(0, 256, (40, 50, 3)).astype(np.uint8)


def rollout_at(*locations):
  """A rollout of one image with given locations and no other fields."""
  location_t = jnp.array(locations)[:, None]
  return Rollout(*[None] * len(Rollout._fields))._replace(location_t=location_t)


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
def test_images_with_any_number_of_channels_can_be_drawn(channels):
  axes = Figure().subplots()
  image = np.full((5, 6, channels), 40, np.uint8)
  plots._show_image(axes, image)
  assert axes.images[0].get_array().shape == (5, 6, 3)
  assert (axes.images[0].get_array() == 40).all()
