"""The glimpse sensors: from an image and a location to a small view, fine in the middle.

The retina of the paper, `extract_glimpse`, cuts `num_scales` square patches with a
common centre. Each patch is `scale_factor` times as wide as the one before, and block
averages reduce all of them to the size of the first (Mnih et al., 2014, section 3.1,
https://arxiv.org/abs/1406.6247). `log_polar_glimpse` samples rings with exponentially
growing radii instead (Traver and Bernardino, 2010,
https://doi.org/10.1016/j.robot.2009.10.002).
"""

import jax
import jax.numpy as jnp
import numpy as np

from ramjax.checks import check_shape, check_type


def extract_glimpse(
  image: jax.Array,
  location: jax.Array,
  *,
  patch_size: int,
  num_scales: int = 1,
  scale_factor: int = 2,
  fill_value: float = 0.0,
) -> jax.Array:
  """The glimpse of one image at one location; use `jax.vmap` for a batch.

  The centre is the pixel `floor((location + 1) / 2 * size)`. A patch of side n begins
  n // 2 pixels before the centre. Pixels outside the image have the value
  `fill_value`. A location outside [-1, 1] is clipped to the border. The cost depends
  on the size of the glimpse, not on the size of the image.

  Args:
    image: one image [H, W, C] of any size and number of channels, float.
    location: (x, y) [2] in [-1, 1], float; (-1, -1) is the top left corner and (1, 1)
      the bottom right corner.
    patch_size: side g of the smallest patch, in pixels.
    num_scales: number of patches.
    scale_factor: ratio of the sides of consecutive patches.
    fill_value: value of the pixels outside the image.

  Returns:
    Patches [num_scales, g, g, C], the smallest first, in the dtype of `image`.

  Raises:
    ValueError: if a size is less than one.
    AssertionError: if an array has the wrong rank, shape or dtype.
  """
  for name, size in (
    ("patch_size", patch_size),
    ("num_scales", num_scales),
    ("scale_factor", scale_factor),
  ):
    if size < 1:
      raise ValueError(f"{name} must be at least 1, not {size}")
  _check(image, location)

  height, width, _ = image.shape
  widest = patch_size * scale_factor ** (num_scales - 1)
  row, column = patch_origin(location, image_size=(height, width), side=widest)
  patch = _cut_patch(image, row, column, widest, fill_value)
  scales = []
  for scale in range(num_scales):
    factor = scale_factor**scale
    side = patch_size * factor
    begin = widest // 2 - side // 2  # all scales have the same centre
    inner = patch[begin : begin + side, begin : begin + side]
    scales.append(_block_means(inner, factor))
  return jnp.stack(scales)


def log_polar_glimpse(
  image: jax.Array,
  location: jax.Array,
  *,
  num_rings: int,
  num_angles: int,
  min_radius: float,
  max_radius: float,
  fill_value: float = 0.0,
) -> jax.Array:
  """The log-polar glimpse of one image at one location; use `jax.vmap` for a batch.

  Ring i of R has the radius `min_radius * (max_radius / min_radius) ** (i / (R - 1))`; a
  single ring has `min_radius`. Its samples are at the angles `2 pi j / num_angles`, from
  the direction of x towards the direction of y: clockwise, as images are drawn. So
  scaling an image about the location shifts the glimpse along the rings, and a rotation
  shifts it along the angles.

  Locations are as in `extract_glimpse`, but the centre is not rounded to a pixel: it is
  the point `(location + 1) / 2 * size`, in pixels from the top left corner of the image.
  A sample is interpolated between the centres of the four nearest pixels. Pixels outside
  the image have the value `fill_value`. Samples are points, not averages, so the outer
  rings alias where the image has finer detail than their spacing.

  The cost depends on the size of the glimpse, not on the size of the image. The gradient
  flows into the image, and into a location inside the image.

  Args:
    image: one image [H, W, C] of any size and number of channels, float.
    location: (x, y) [2] in [-1, 1], float; a location outside is clipped to the border.
    num_rings: number of rings.
    num_angles: samples on each ring.
    min_radius: radius of the smallest ring, in pixels.
    max_radius: radius of the largest ring, in pixels.
    fill_value: value of the pixels outside the image.

  Returns:
    Samples [num_rings, num_angles, C], the smallest ring first, in the dtype of `image`.
    Places and interpolation have at least the precision of float32.

  Raises:
    ValueError: if a number is less than one, or the radii are not
      `0 < min_radius <= max_radius`.
    AssertionError: if an array has the wrong rank, shape or dtype.

  >>> import jax.numpy as jnp
  >>> image = jnp.broadcast_to(jnp.arange(8.0), (8, 8))[..., None]  # the column
  >>> sizes = dict(num_rings=3, num_angles=4, min_radius=0.5, max_radius=2.0)
  >>> glimpse = log_polar_glimpse(image, jnp.zeros(2), **sizes)
  >>> glimpse[..., 0].round(4).tolist()  # right, down, left, up; the centre is 3.5
  [[4.0, 3.5, 3.0, 3.5], [4.5, 3.5, 2.5, 3.5], [5.5, 3.5, 1.5, 3.5]]
  """
  for name, number in (("num_rings", num_rings), ("num_angles", num_angles)):
    if number < 1:
      raise ValueError(f"{name} must be at least 1, not {number}")
  if not 0 < min_radius <= max_radius:
    raise ValueError(
      "radii must be 0 < min_radius <= max_radius,"
      f" not min_radius={min_radius}, max_radius={max_radius}"
    )
  _check(image, location)

  height, width, _ = image.shape
  location = jnp.clip(location, -1.0, 1.0)
  x, y = in_pixels(location, image_size=(height, width))
  radii = np.geomspace(min_radius, max_radius, num_rings)[:, None]
  angles = 2 * np.pi * np.arange(num_angles) / num_angles
  # The centre of a pixel is half a pixel from its corner.
  columns = x + (radii * np.cos(angles) - 0.5).astype(x.dtype)
  rows = y + (radii * np.sin(angles) - 0.5).astype(y.dtype)
  return _interpolate(image, rows, columns, fill_value)


def patch_origin(
  location: jax.Array, *, image_size: tuple[int, int], side: int
) -> tuple[jax.Array, jax.Array]:
  """Row and column of the top left pixel of a patch, possibly outside the image.

  Args:
    location: (x, y) [..., 2] in [-1, 1].
    image_size: height and width of the image, in pixels.
    side: side of the patch, in pixels.

  Returns:
    Row [...] and column [...], int32.

  >>> import jax.numpy as jnp
  >>> location = jnp.array([0.0, -1.0])  # in the middle of the upper border
  >>> row, column = patch_origin(location, image_size=(28, 28), side=8)
  >>> int(row), int(column)
  (-4, 10)
  """
  x, y = in_pixels(location, image_size=image_size)
  row = jnp.floor(y).astype(jnp.int32) - side // 2
  column = jnp.floor(x).astype(jnp.int32) - side // 2
  return row, column


def _check(image: jax.Array, location: jax.Array) -> None:
  check_type(float, hint="see ramjax.data.normalize", image=image)
  check_type(float, location=location)
  check_shape((2,), hint="for several, use jax.vmap", location=location)
  check_shape((None, None, None), hint="for a batch, use jax.vmap", image=image)
  height, width, channels = image.shape
  if height in (1, 3) and min(width, channels) >= 8:
    remedy = "it looks like [C, H, W]: give jnp.moveaxis(image, 0, -1)"
    check_shape((None, None, height), hint=remedy, image=image)


def in_pixels(
  location: jax.Array, *, image_size: tuple[int, int]
) -> tuple[jax.Array, jax.Array]:
  """Locations [..., 2] as x and y in pixels from the top left corner.

  They are float32 at least: beyond 512, a bfloat16 counts pixels in steps of 4.
  """
  location = location.astype(at_least_float32(location.dtype))
  height, width = image_size
  x = 0.5 * ((location[..., 0] + 1.0) * width)
  y = 0.5 * ((location[..., 1] + 1.0) * height)
  return x, y


def at_least_float32(dtype: jnp.dtype) -> jnp.dtype:
  """A type in which places and densities are computed: not bfloat16, not float16."""
  return jnp.dtype(jnp.float32) if dtype.itemsize < 4 else dtype


def _interpolate(
  image: jax.Array, rows: jax.Array, columns: jax.Array, fill_value: float
) -> jax.Array:
  """Bilinear interpolation [..., C] of an image at rows and columns [...]."""
  dtype = at_least_float32(image.dtype)
  top, left = jnp.floor(rows), jnp.floor(columns)
  below, right = (
    fraction.astype(dtype)[..., None] for fraction in (rows - top, columns - left)
  )
  first_row, first_column = top.astype(jnp.int32), left.astype(jnp.int32)

  def pixels(down: int, across: int) -> jax.Array:
    values = (
      jnp.asarray(image)
      .at[first_row + down, first_column + across]
      .get(mode="fill", fill_value=fill_value, wrap_negative_indices=False)
    )
    return values.astype(dtype)

  upper = (1.0 - right) * pixels(0, 0) + right * pixels(0, 1)
  lower = (1.0 - right) * pixels(1, 0) + right * pixels(1, 1)
  return ((1.0 - below) * upper + below * lower).astype(image.dtype)


def _cut_patch(
  image: jax.Array, row: jax.Array, column: jax.Array, side: int, fill_value: float
) -> jax.Array:
  """The patch [side, side, C] whose top left pixel is (row, column).

  `dynamic_slice` moves a slice that crosses the border back into the image. So this
  function first cuts a slice inside the image and pads it with `fill_value`. Then it
  cuts the patch from the padded slice, at the offset by which the first slice was
  moved. Half a side of padding is enough, because the centre of the patch is inside
  the image.
  """
  height, width, channels = image.shape
  # `min` of sizes that may be symbolic, see `jax.export`.
  rows, columns = jax.core.min_dim(side, height), jax.core.min_dim(side, width)
  inner_row = jnp.clip(row, 0, height - rows)
  inner_column = jnp.clip(column, 0, width - columns)
  inner = jax.lax.dynamic_slice(
    image, (inner_row, inner_column, 0), (rows, columns, channels)
  )
  frame = side // 2, side - side // 2
  framed = jnp.pad(inner, (frame, frame, (0, 0)), constant_values=fill_value)
  start_row = jnp.clip(frame[0] + row - inner_row, 0, rows)
  start_column = jnp.clip(frame[0] + column - inner_column, 0, columns)
  return jax.lax.dynamic_slice(
    framed, (start_row, start_column, 0), (side, side, channels)
  )


def _block_means(patch: jax.Array, factor: int) -> jax.Array:
  """Means [side / factor, side / factor, C] of square blocks of a patch [side, side, C].

  Summing whole rows first is faster on the CPU than summing each block at once.
  """
  side, _, channels = patch.shape
  blocks = side // factor
  rows = patch.reshape(blocks, factor, side * channels).sum(axis=1)
  sums = rows.reshape(blocks, blocks, factor, channels).sum(axis=2)
  return sums / factor**2
