"""What happens to images on the device, between memory and the model."""

from __future__ import annotations

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

Transform = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""From a key [], a stored image [H, W, C] and all images of its split [M, H, W, C]
to an image of its type; vmapped over the first two."""


def keep(key: jax.Array, image: jax.Array, pool: jax.Array) -> jax.Array:
  """The transform that leaves images as they are stored.

  Args:
    key: typed PRNG key [], not used.
    image: image [H, W, C].
    pool: images [M, H, W, C], not used.

  Returns:
    The image.
  """
  del key, pool
  return image


def translate(
  key: jax.Array, image: jax.Array, *, canvas_size: tuple[int, int] = (60, 60)
) -> jax.Array:
  """An image somewhere on an empty canvas: Translated MNIST.

  Mnih et al. (2014), section 4.1, https://arxiv.org/abs/1406.6247. Rows and columns
  are uniform over all places where the whole image is on the canvas.

  Args:
    key: typed PRNG key [].
    image: image [H, W, C], of any type.
    canvas_size: height and width of the canvas in pixels, at least H and W.

  Returns:
    Image [*canvas_size, C] in the type of `image`, whose minimum fills the canvas.

  Raises:
    ValueError: if the image does not fit on the canvas.
    AssertionError: if the image has another rank.
  """
  chex.assert_rank(image, 3)
  height, width, channels = image.shape
  rows, columns = canvas_size[0] - height, canvas_size[1] - width
  if rows < 0 or columns < 0:
    raise ValueError(
      f"canvas_size must be at least ({height}, {width}), the size of the image,"
      f" not {canvas_size}"
    )
  row_key, column_key = jax.random.split(key)
  row = jax.random.randint(row_key, (), 0, rows + 1)
  column = jax.random.randint(column_key, (), 0, columns + 1)
  canvas = jnp.full((*canvas_size, channels), image.min())
  return jax.lax.dynamic_update_slice(canvas, image, (row, column, 0))


def clutter(
  key: jax.Array,
  image: jax.Array,
  pool: jax.Array,
  *,
  canvas_size: tuple[int, int] = (60, 60),
  num_crops: int = 4,
  crop_size: int = 8,
) -> jax.Array:
  """An image somewhere on a canvas with pieces of others: Cluttered Translated MNIST.

  Mnih et al. (2014), section 4.1, https://arxiv.org/abs/1406.6247; details are those of
  their generator, https://github.com/google-deepmind/mnist-cluttered: of each crop, the
  image that it is cut from (with replacement, and be it this one), the place there
  and the place on the canvas are uniform, and brightness adds up to 255 at most.

  Crops come from the split of the image itself: training images show nothing of the
  test set, and the test set depends on no training setting.

  Args:
    key: typed PRNG key [].
    image: image [H, W, C], uint8, bright on black.
    pool: images [M, H', W', C] that crops are cut from, uint8; the same for all.
    canvas_size: height and width of the canvas in pixels, at least H and W.
    num_crops: number of crops; Mnih et al. have 4 on 60x60 and 8 on 100x100 pixels.
    crop_size: side of a crop in pixels.

  Returns:
    Image [*canvas_size, C], uint8.

  Raises:
    ValueError: if the image does not fit on the canvas, or a crop in an image.
    AssertionError: if an array has another rank, shape or type.
  """
  chex.assert_type([image, pool], jnp.uint8)
  chex.assert_shape(pool, (None, None, None, image.shape[-1]))
  num_images, height, width, channels = pool.shape
  if crop_size > min(height, width):
    raise ValueError(
      f"crop_size must be at most {min(height, width)}, the smaller side of the"
      f" images, not {crop_size}"
    )
  place_key, crop_key = jax.random.split(key)
  canvas = translate(place_key, image, canvas_size=canvas_size)
  last = (height - crop_size, width - crop_size, *(n - crop_size for n in canvas_size))
  number_of_choices = jnp.array([num_images, *(n + 1 for n in last)])
  crops = jax.random.randint(crop_key, (num_crops, 5), 0, number_of_choices[None])

  def add(canvas: jax.Array, crop: jax.Array) -> tuple[jax.Array, None]:
    which, row, column, to_row, to_column = crop
    size = (crop_size, crop_size, channels)
    cut = jax.lax.dynamic_slice(pool, (which, row, column, 0), (1, *size))[0]
    there = jax.lax.dynamic_slice(canvas, (to_row, to_column, 0), size)
    lit = there + jnp.minimum(cut, 255 - there)  # bytes that cannot overflow
    return jax.lax.dynamic_update_slice(canvas, lit, (to_row, to_column, 0)), None

  return jax.lax.scan(add, canvas, crops)[0]


def normalize(
  images: jax.Array, *, mean: tuple[float, ...], std: tuple[float, ...]
) -> jax.Array:
  """Bytes to numbers of mean 0 and standard deviation 1: (x / 255 - mean) / std.

  Args:
    images: images [..., H, W, C], uint8.
    mean: mean of each channel, in 0…1.
    std: standard deviation of each channel, in 0…1.

  Returns:
    Images [..., H, W, C], float32.
  """
  chex.assert_type(images, jnp.uint8)
  chex.assert_axis_dimension(images, -1, len(mean))
  lowest = (1,) * (images.ndim - 1) + (-1,)
  shift = jnp.array(mean, jnp.float32).reshape(lowest)
  scale = jnp.array(std, jnp.float32).reshape(lowest)
  return (images.astype(jnp.float32) / 255.0 - shift) / scale
