"""The glimpse sensors equal their definitions, at every border and size."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.extend import core as jax_core
from jax.test_util import check_grads

from ramjax import extract_glimpse, log_polar_glimpse, patch_origin


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


RINGS = {"num_rings": 5, "num_angles": 12, "min_radius": 0.7, "max_radius": 9.0}


def log_polar_oracle(image, location, *, num_rings, num_angles, fill_value, **radii):
  """The definition of the log-polar glimpse: tents on a pixel grid, one sample at a time.

  The image continues with `fill_value` on all sides. A pixel's weight is a tent of width
  two about its centre, which is bilinear interpolation.
  """
  height, width, channels = image.shape
  margin = math.ceil(radii["max_radius"]) + 2
  padded = np.pad(
    image.astype(np.float64),
    ((margin, margin), (margin, margin), (0, 0)),
    constant_values=fill_value,
  )
  row_centres = np.arange(-margin, height + margin) + 0.5
  column_centres = np.arange(-margin, width + margin) + 0.5
  x, y = np.clip(np.asarray(location, np.float64), -1, 1)
  ratio = radii["max_radius"] / radii["min_radius"]
  glimpse = np.zeros((num_rings, num_angles, channels))
  for i in range(num_rings):
    radius = radii["min_radius"] * ratio ** (i / max(num_rings - 1, 1))
    for j in range(num_angles):
      turn = complex(
        math.cos(math.tau * j / num_angles), math.sin(math.tau * j / num_angles)
      )
      column = (x + 1) / 2 * width + radius * turn.real
      row = (y + 1) / 2 * height + radius * turn.imag
      rows = np.maximum(0, 1 - np.abs(row_centres - row))
      columns = np.maximum(0, 1 - np.abs(column_centres - column))
      glimpse[i, j] = np.einsum("r,c,rck->k", rows, columns, padded)
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


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_narrow_locations_are_where_they_say(dtype):
  """Pixels are counted in float32: the rounded location gives the same patch as before."""
  locations = jax.random.uniform(jax.random.key(0), (2000, 2), dtype, -1.0, 1.0)
  exact = locations.astype(jnp.float32)
  found = patch_origin(locations, image_size=(480, 640), side=12)
  expected = [
    np.floor((np.asarray(exact[:, axis], np.float64) + 1) / 2 * size) - 6
    for axis, size in ((1, 480), (0, 640))
  ]
  np.testing.assert_array_equal(found, expected)
  image = jax.random.normal(jax.random.key(1), (480, 640, 1))
  sensor = jax.vmap(
    functools.partial(extract_glimpse, image, patch_size=12, num_scales=2)
  )
  np.testing.assert_array_equal(sensor(locations[:50]), sensor(exact[:50]))


@pytest.mark.parametrize("location", [(-1.0, 0.3), (0.2, 0.1), (1.0, 1.0)])
def test_gradient_in_the_image(location):
  image = jax.random.normal(jax.random.key(0), (7, 9, 2))
  sensor = functools.partial(extract_glimpse, patch_size=3, num_scales=2)
  check_grads(
    lambda image: sensor(image, jnp.array(location)), (image,), order=1, modes=["rev"]
  )


@pytest.mark.parametrize(
  ("sensor", "size"),
  [
    (functools.partial(extract_glimpse, patch_size=8, num_scales=2), 16 * 16),
    (functools.partial(log_polar_glimpse, **RINGS), 5 * 12),
  ],
)
def test_cost_does_not_grow_with_the_image(sensor, size):
  """For a large image, no intermediate array is larger than a few glimpses."""
  jaxpr = jax.make_jaxpr(sensor)(jnp.zeros((1024, 1024, 1)), jnp.zeros(2))
  assert max(array_sizes(jaxpr.jaxpr)) <= 4 * size


def array_sizes(jaxpr):
  """Sizes of all arrays that a program computes, also in the functions that it calls."""
  for equation in jaxpr.eqns:
    yield from (variable.aval.size for variable in equation.outvars)
  for inner in jax_core.subjaxprs(jaxpr):
    yield from array_sizes(inner)


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


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
  height=st.integers(1, 40),
  width=st.integers(1, 40),
  channels=st.integers(1, 3),
  num_rings=st.integers(1, 5),
  num_angles=st.integers(1, 9),
  min_radius=st.sampled_from([0.1, 0.5, 2.0]),
  growth=st.sampled_from([1.0, 4.0, 11.5]),
  fill_value=st.sampled_from([0.0, -0.5]),
  locations=st.lists(
    st.tuples(*[coordinates | st.sampled_from([-1.3, 7.0])] * 2), min_size=5, max_size=5
  ),
  dtype=st.sampled_from(["float32", "bfloat16"]),
  seed=st.integers(0, 2**16),
)
def test_log_polar_glimpse_equals_its_definition(
  height, width, channels, min_radius, growth, locations, dtype, seed, **sizes
):
  """At the centre, at borders and outside the image; rounded to bfloat16 at the end only."""
  sizes |= {"min_radius": min_radius, "max_radius": min_radius * growth}
  image = jnp.asarray(np.random.RandomState(seed).randn(height, width, channels), dtype)
  locations = np.array(locations, np.float32)
  sensor = functools.partial(log_polar_glimpse, **sizes)
  seen = jax.jit(jax.vmap(sensor, in_axes=(None, 0)))(image, locations)
  assert seen.dtype == image.dtype
  pixels = np.asarray(image.astype(jnp.float32))
  expected = np.stack(
    [log_polar_oracle(pixels, location, **sizes) for location in locations]
  )
  rounding = 2**-8 if dtype == "bfloat16" else 1e-6
  np.testing.assert_allclose(
    seen.astype(jnp.float32), expected, rtol=rounding, atol=1e-4
  )


def test_rings_grow_by_a_constant_factor():
  """In an image of the distance from the centre, which is linear along each ray."""
  rows, columns = np.mgrid[:64, :64] + 0.5 - 32
  image = jnp.asarray(np.hypot(rows, columns)[..., None], jnp.float32)
  seen = log_polar_glimpse(
    image, jnp.zeros(2), num_rings=4, num_angles=8, min_radius=3.0, max_radius=24.0
  )
  for ring, radius in enumerate((3, 6, 12, 24)):
    np.testing.assert_allclose(seen[ring, :, 0], radius, rtol=0.03)


def test_scaling_and_rotation_shift_the_log_polar_glimpse():
  """What the sensor is used for; a smooth image, so interpolation adds little."""

  def picture(scale, angle):
    rows, columns = np.mgrid[:96, :96] + 0.5 - 48
    x = (columns * np.cos(angle) + rows * np.sin(angle)) / scale
    y = (rows * np.cos(angle) - columns * np.sin(angle)) / scale
    return jnp.asarray((np.sin(x / 9) + np.cos(y / 7 + 1))[..., None], jnp.float32)

  sizes = {"num_rings": 5, "num_angles": 12, "min_radius": 2.0, "max_radius": 32.0}
  sensor = functools.partial(log_polar_glimpse, location=jnp.zeros(2), **sizes)
  plain = sensor(picture(1, 0))
  np.testing.assert_allclose(sensor(picture(2, 0))[1:], plain[:-1], atol=0.01)
  turned = sensor(picture(1, math.tau / 12))
  np.testing.assert_allclose(turned, jnp.roll(plain, 1, axis=1), atol=0.01)
  assert np.abs(plain - jnp.roll(plain, 1, axis=1)).max() > 0.3


@pytest.mark.parametrize("location", [(-1.0, 0.3), (0.21, 0.13), (1.0, 1.0)])
def test_log_polar_gradient_in_image_and_location(location):
  image = jax.random.normal(jax.random.key(0), (7, 9, 2))
  sensor = functools.partial(log_polar_glimpse, **RINGS, fill_value=0.3)
  check_grads(
    lambda image: sensor(image, jnp.array(location)), (image,), order=1, modes=["rev"]
  )
  slope = jnp.arange(9.0).reshape(1, 9, 1) * jnp.ones((7, 1, 1))
  inside = {**RINGS, "max_radius": 2.0}
  found = jax.grad(lambda at: log_polar_glimpse(slope, at, **inside).mean())(
    jnp.zeros(2)
  )
  np.testing.assert_allclose(found, [9 / 2, 0.0], atol=1e-5)  # pixels for one unit of x


@pytest.mark.parametrize(
  ("sizes", "message"),
  [
    ({"num_rings": 0}, "num_rings must be at least 1, not 0"),
    ({"num_angles": 0}, "num_angles must be at least 1, not 0"),
    ({"min_radius": 0.0}, "min_radius=0.0, max_radius=9.0"),
    ({"max_radius": 0.5}, "min_radius=0.7, max_radius=0.5"),
  ],
)
def test_wrong_rings_are_refused(sizes, message):
  with pytest.raises(ValueError, match=message):
    log_polar_glimpse(jnp.zeros((8, 8, 1)), jnp.zeros(2), **{**RINGS, **sizes})
  with pytest.raises(AssertionError):
    log_polar_glimpse(jnp.zeros((8, 8)), jnp.zeros(2), **RINGS)
