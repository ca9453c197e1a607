"""The glimpse sensor: from an image and a location to a small multi-scale view.

The sensor cuts `num_scales` square patches with a common centre. Each patch is
`scale_factor` times as wide as the one before, and block averages reduce all of them
to the size of the first. The view is sharp in the middle and coarse around it, like a
retina (Mnih et al., 2014, section 3.1, https://arxiv.org/abs/1406.6247).
"""

import chex
import jax
import jax.numpy as jnp


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
  chex.assert_rank(image, 3)
  chex.assert_shape(location, (2,))
  chex.assert_type([image, location], float)

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
  height, width = image_size
  centre_x = 0.5 * ((location[..., 0] + 1.0) * width)
  centre_y = 0.5 * ((location[..., 1] + 1.0) * height)
  row = jnp.floor(centre_y).astype(jnp.int32) - side // 2
  column = jnp.floor(centre_x).astype(jnp.int32) - side // 2
  return row, column


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
  rows, columns = min(side, height), min(side, width)
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
