"""The glimpse sensor equals its definition, at every border and size."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from ramjax import extract_glimpse, patch_origin


def oracle(image, location, *, patch_size, num_scales, scale_factor, fill_value):
  """The definition of the glimpse, pixel by pixel in NumPy."""
  height, width, channels = image.shape
  centre_x = math.floor(np.float32(0.5) * ((location[0] + np.float32(1)) * width))
  centre_y = math.floor(np.float32(0.5) * ((location[1] + np.float32(1)) * height))
  glimpse = np.zeros((num_scales, patch_size, patch_size, channels))
  for scale in range(num_scales):
    factor = scale_factor**scale
    side = patch_size * factor
    for i in range(side):
      for j in range(side):
        row, column = centre_y - side // 2 + i, centre_x - side // 2 + j
        inside = 0 <= row < height and 0 <= column < width
        pixel = image[row, column] if inside else fill_value
        glimpse[scale, i // factor, j // factor] += pixel / factor**2
  return glimpse


coordinates = st.one_of(
  st.sampled_from([-1.0, -0.999, 0.0, 0.999, 1.0]),
  st.floats(-1.0, 1.0, width=32),
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
  height=st.integers(1, 40),
  width=st.integers(1, 40),
  channels=st.integers(1, 3),
  patch_size=st.integers(1, 9),
  num_scales=st.integers(1, 3),
  scale_factor=st.integers(1, 3),
  fill_value=st.sampled_from([0.0, -0.5]),
  locations=st.lists(st.tuples(coordinates, coordinates), min_size=5, max_size=5),
  seed=st.integers(0, 2**16),
)
def test_glimpse_equals_its_definition_pixel_by_pixel(
  height, width, channels, locations, seed, **sizes
):
  image = np.random.RandomState(seed).randn(height, width, channels).astype(np.float32)
  locations = np.array(locations, np.float32)
  sensor = functools.partial(extract_glimpse, **sizes)
  seen = jax.jit(jax.vmap(sensor, in_axes=(None, 0)))(image, locations)
  expected = np.stack([oracle(image, location, **sizes) for location in locations])
  np.testing.assert_allclose(seen, expected, atol=1e-6)


def test_corners_of_a_rectangular_image():
  image = jnp.arange(12.0).reshape(3, 4, 1)
  sensor = functools.partial(extract_glimpse, image, patch_size=2)
  top_left = sensor(jnp.array([-1.0, -1.0]))[0, ..., 0]
  top_right = sensor(jnp.array([1.0, -1.0]))[0, ..., 0]
  bottom_left = sensor(jnp.array([-1.0, 1.0]))[0, ..., 0]
  bottom_right = sensor(jnp.array([1.0, 1.0]))[0, ..., 0]
  assert top_left.tolist() == [[0, 0], [0, 0]]
  assert top_right.tolist() == [[0, 0], [3, 0]]
  assert bottom_left.tolist() == [[0, 8], [0, 0]]
  assert bottom_right.tolist() == [[11, 0], [0, 0]]


@pytest.mark.parametrize("patch_size", [3, 8])
def test_location_out_of_range_is_clipped_to_the_border(patch_size):
  image = jnp.arange(20.0).reshape(5, 4, 1)
  sensor = functools.partial(
    extract_glimpse, image, patch_size=patch_size, num_scales=2
  )
  for beyond, border in (([1.7, -9.0], [1.0, -1.0]), ([-1.1, 0.2], [-1.0, 0.2])):
    np.testing.assert_array_equal(sensor(jnp.array(beyond)), sensor(jnp.array(border)))


def test_patch_larger_than_the_image_contains_the_image():
  image = jnp.arange(6.0).reshape(2, 3, 1)
  seen = extract_glimpse(image, jnp.zeros(2), patch_size=8, fill_value=-1.0)[0, ..., 0]
  # Centre pixel (row 1, column 1) is at row and column 4 of the patch.
  np.testing.assert_array_equal(seen[3:5, 3:6], image[..., 0])
  assert (seen == -1.0).sum() == 64 - 6


def test_scales_have_a_common_centre():
  image = jnp.ones((32, 32, 1)).at[16, 16].set(17.0)
  seen = extract_glimpse(image, jnp.zeros(2), patch_size=4, num_scales=3)
  assert seen.shape == (3, 4, 4, 1)
  assert seen[:, 2, 2, 0].tolist() == [17.0, 1 + 16 / 4, 1 + 16 / 16]


@pytest.mark.parametrize("location", [(-1.0, 1.0), (0.97, -0.4), (0.1, 0.2)])
def test_last_of_four_scales_may_be_wider_than_the_image(location):
  """The glimpse of the cluttered tasks with a fourth scale: 96 pixels of 60."""
  image = np.random.RandomState(0).randn(60, 52, 1).astype(np.float32)
  sizes = {"patch_size": 12, "num_scales": 4, "scale_factor": 2, "fill_value": -0.4}
  location = np.array(location, np.float32)
  seen = extract_glimpse(jnp.asarray(image), jnp.asarray(location), **sizes)
  assert seen.shape == (4, 12, 12, 1)
  np.testing.assert_allclose(seen, oracle(image, location, **sizes), atol=1e-6)


def test_patch_origin_is_the_corner_of_the_glimpse():
  image = jnp.arange(20.0 * 30).reshape(20, 30, 1)
  location = jnp.array([0.13, -0.41])
  row, column = patch_origin(location, image_size=(20, 30), side=6)
  seen = extract_glimpse(image, location, patch_size=6)
  np.testing.assert_array_equal(seen[0], image[row : row + 6, column : column + 6])


@pytest.mark.parametrize("location", [(-1.0, 0.3), (0.2, 0.1), (1.0, 1.0)])
def test_gradient_in_the_image(location):
  image = jax.random.normal(jax.random.key(0), (7, 9, 2))
  sensor = functools.partial(extract_glimpse, patch_size=3, num_scales=2)
  check_grads(
    lambda image: sensor(image, jnp.array(location)), (image,), order=1, modes=["rev"]
  )


def test_cost_does_not_grow_with_the_image():
  """For a large image, no intermediate array is larger than a few glimpses."""
  sensor = functools.partial(extract_glimpse, patch_size=8, num_scales=2)
  jaxpr = jax.make_jaxpr(sensor)(jnp.zeros((1024, 1024, 1)), jnp.zeros(2))
  sizes = [
    variable.aval.size for equation in jaxpr.eqns for variable in equation.outvars
  ]
  assert max(sizes) <= 4 * 16 * 16


@pytest.mark.parametrize("name", ["patch_size", "num_scales", "scale_factor"])
def test_zero_sizes_are_refused(name):
  sizes = {"patch_size": 4, "num_scales": 1, "scale_factor": 2, name: 0}
  with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
    extract_glimpse(jnp.zeros((8, 8, 1)), jnp.zeros(2), **sizes)


@pytest.mark.parametrize(
  ("image", "location"),
  [
    (jnp.zeros((8, 8)), jnp.zeros(2)),
    (jnp.zeros((8, 8, 1)), jnp.zeros((1, 2))),
    (jnp.zeros((8, 8, 1), jnp.uint8), jnp.zeros(2)),
  ],
)
def test_wrong_ranks_and_dtypes_are_refused(image, location):
  with pytest.raises(AssertionError):
    extract_glimpse(image, location, patch_size=4)
