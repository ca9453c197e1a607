"""The glimpse sensor: an image and a location in, a small multi-scale view out.

The sensor cuts `num_scales` square patches round one centre, each `scale_factor`
times as wide as the one before, and averages the wider ones down to the size of
the first: sharp in the middle, coarse around it, like a retina (Mnih et al., 2014,
section 3.1, https://arxiv.org/abs/1406.6247).
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
  """The glimpse of one image at one location.

  The centre is the pixel `floor((location + 1) / 2 * size)`, and a patch of side n
  begins n // 2 pixels before it. Pixels outside of the image are `fill_value`.
  The work depends on the size of the glimpse alone, not on that of the image.
  A location beyond the range is taken for the one at the border.
  For a batch, `jax.vmap` it.

  Args:
    image: image [H, W, C] of any size and number of channels, of a float type.
    location: (x, y) [2] in [-1, 1], float: (-1, -1) is the top left corner, (1, 1)
      the bottom right one.
    patch_size: side g of the smallest patch, in pixels.
    num_scales: number of patches.
    scale_factor: ratio between the sides of neighbouring scales.
    fill_value: what is seen outside of the image.

  Returns:
    Patches [num_scales, g, g, C], the smallest first, in the type of the image.

  Raises:
    ValueError: if a size is less than one.
    AssertionError: if an array has another rank, shape or type.
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
    begin = widest // 2 - side // 2  # the centre is the same
    inner = patch[begin : begin + side, begin : begin + side]
    scales.append(_block_means(inner, factor))
  return jnp.stack(scales)


def patch_origin(
  location: jax.Array, *, image_size: tuple[int, int], side: int
) -> tuple[jax.Array, jax.Array]:
  """Row and column of the top left pixel of a patch; they may lie outside the image.

  Args:
    location: (x, y) [..., 2] in [-1, 1].
    image_size: height and width of the image, in pixels.
    side: side of the patch, in pixels.

  Returns:
    Row [...] and column [...], int32.
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
  """Pixels [side, side, C] from (row, column) on, which may lie outside the image.

  `dynamic_slice` moves a slice that would leave the image back into it. So a
  slice that fits is cut first, framed with `fill_value`, and the patch is cut from
  that at the distance by which the slice was moved: half a side at most, since the
  centre of the patch is in the image.
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

  Rows are summed first, whole, as that is faster on the CPU than all of a block at once.
  """
  side, _, channels = patch.shape
  blocks = side // factor
  rows = patch.reshape(blocks, factor, side * channels).sum(axis=1)
  sums = rows.reshape(blocks, blocks, factor, channels).sum(axis=2)
  return sums / factor**2
