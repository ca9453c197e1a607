"""Transforms of images on the device: placing, clutter and normalisation."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ramjax.checks import check_shape

Transform = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""A function of a key [], a stored image [H, W, C] and all images of its split
[M, H, W, C], to an image of the same dtype; it is vmapped over key and image."""


def keep(key: jax.Array, image: jax.Array, pool: jax.Array) -> jax.Array:
  """The identity transform.

  Args:
    key: typed PRNG key [], not used.
    image: one image [H, W, C].
    pool: images [M, H, W, C], not used.

  Returns:
    The image, unchanged.
  """
  del key, pool
  return image


def translate(
  key: jax.Array,
  image: jax.Array,
  *,
  canvas_size: tuple[int, int] = (60, 60),
  background: tuple[int, ...] | None = None,
) -> jax.Array:
  """An image at a random place on an empty canvas, as in Translated MNIST.

  The place is uniform over all places where the whole image is on the canvas. Mnih et al.
  (2014), section 4.1, https://arxiv.org/abs/1406.6247.

  Args:
    key: typed PRNG key [].
    image: one image [H, W, C], of any dtype.
    canvas_size: height and width of the canvas in pixels, at least H and W.
    background: colour of the canvas, C numbers; None is the minimum of the image.

  Returns:
    Image [*canvas_size, C], in the dtype of `image`.

  Raises:
    ValueError: if the image does not fit on the canvas.
    AssertionError: if the image has the wrong rank.

  >>> import jax
  >>> import jax.numpy as jnp
  >>> image = jnp.full((2, 2, 1), 255, jnp.uint8).at[0, 0].set(0)
  >>> canvas = translate(jax.random.key(0), image, canvas_size=(5, 5))
  >>> canvas.shape, int((canvas == 255).sum())
  ((5, 5, 1), 3)
  """
  check_shape((None, None, None), image=image)
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
  fill = image.min() if background is None else jnp.array(background, image.dtype)
  canvas = jnp.broadcast_to(fill, (*canvas_size, channels))
  return jax.lax.dynamic_update_slice(canvas, image, (row, column, 0))


def shift(key: jax.Array, image: jax.Array, *, max_shift: int) -> jax.Array:
  """An image moved by a few pixels, to train on.

  Rows and columns move by whole numbers of pixels, uniform in [-max_shift, max_shift].
  What leaves the image is lost; at the other side its border is repeated.

  Args:
    key: typed PRNG key [].
    image: one image [H, W, C], of any dtype.
    max_shift: the most that it moves, in pixels, at least 0.

  Returns:
    Image [H, W, C], in the dtype of `image`.

  Raises:
    AssertionError: if the image has the wrong rank.

  >>> import jax
  >>> import jax.numpy as jnp
  >>> image = jnp.zeros((5, 5, 1)).at[2, 2].set(1)
  >>> moved = shift(jax.random.key(0), image, max_shift=2)
  >>> moved.shape, float(moved.sum())
  ((5, 5, 1), 1.0)
  """
  check_shape((None, None, None), image=image)
  framed = jnp.pad(image, ((max_shift,) * 2, (max_shift,) * 2, (0, 0)), mode="edge")
  row, column = jax.random.randint(key, (2,), 0, 2 * max_shift + 1)
  return jax.lax.dynamic_slice(framed, (row, column, 0), image.shape)


def mirror_half(key: jax.Array, image: jax.Array) -> jax.Array:
  """An image mirrored, left and right, with probability one half, to train on.

  Args:
    key: typed PRNG key [].
    image: one image [H, W, C], of any dtype.

  Returns:
    Image [H, W, C], in the dtype of `image`.

  Raises:
    AssertionError: if the image has the wrong rank.

  >>> import jax
  >>> import jax.numpy as jnp
  >>> image = jnp.zeros((1, 3, 1)).at[0, 0].set(1)
  >>> shown = mirror_half(jax.random.key(1), image)
  >>> shown.ravel().tolist()
  [0.0, 0.0, 1.0]
  """
  check_shape((None, None, None), image=image)
  return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def clutter(
  key: jax.Array,
  image: jax.Array,
  pool: jax.Array,
  *,
  canvas_size: tuple[int, int] = (60, 60),
  num_crops: int = 4,
  crop_size: int = 8,
  background: tuple[int, ...] | None = None,
) -> jax.Array:
  """An image and crops of other images on a canvas, as in Cluttered Translated MNIST.

  Mnih et al. (2014), section 4.1, https://arxiv.org/abs/1406.6247. The details follow
  their generator, https://github.com/google-deepmind/mnist-cluttered. For each crop,
  three choices are uniform: the image from which it is cut (with replacement, possibly
  `image` itself), the place in that image, and the place on the canvas. What differs from
  the background is added: brightness on black, ink on white. It saturates at 0 and 255.

  The pool should be the split of the image. Then training images show nothing of the
  test set, and the test set does not depend on training settings.

  Args:
    key: typed PRNG key [].
    image: one image [H, W, C], uint8.
    pool: images [M, H', W', C] from which crops are cut, uint8; do not vmap over it.
    canvas_size: height and width of the canvas in pixels, at least H and W.
    num_crops: number of crops; Mnih et al. use 4 on 60x60 and 8 on 100x100 pixels.
    crop_size: side of a crop in pixels.
    background: colour of the canvas, C numbers; None is the minimum of the image, and
      crops are added as on black.

  Returns:
    Image [*canvas_size, C], uint8.

  Raises:
    ValueError: if the image does not fit on the canvas, or a crop does not fit in an
      image.
    AssertionError: if an array has the wrong rank, shape or dtype.

  >>> import jax
  >>> import jax.numpy as jnp
  >>> pool = jnp.full((9, 28, 28, 1), 100, jnp.uint8)  # crops may overlap and add up
  >>> canvas = clutter(jax.random.key(0), pool[0], pool, canvas_size=(60, 60), num_crops=4)
  >>> canvas.shape, set(canvas.ravel().tolist()) <= {0, 100, 200, 255}
  ((60, 60, 1), True)
  """
  _check_stored(image=image, pool=pool)
  check_shape((None, None, None, image.shape[-1]), pool=pool)
  num_images, height, width, channels = pool.shape
  if crop_size > min(height, width):
    raise ValueError(
      f"crop_size must be at most {min(height, width)}, the smaller side of the"
      f" images, not {crop_size}"
    )
  place_key, crop_key = jax.random.split(key)
  canvas = translate(place_key, image, canvas_size=canvas_size, background=background)
  ground = jnp.array(background or (0,) * channels, jnp.int16)
  last = (height - crop_size, width - crop_size, *(n - crop_size for n in canvas_size))
  number_of_choices = jnp.array([num_images, *(n + 1 for n in last)])
  crops = jax.random.randint(crop_key, (num_crops, 5), 0, number_of_choices[None])

  def add(canvas: jax.Array, crop: jax.Array) -> tuple[jax.Array, None]:
    index, row, column, to_row, to_column = crop
    size = (crop_size, crop_size, channels)
    pixels = jax.lax.dynamic_slice(pool, (index, row, column, 0), (1, *size))[0]
    covered = jax.lax.dynamic_slice(canvas, (to_row, to_column, 0), size)
    ink = pixels.astype(jnp.int16) - ground[None, None]
    total = jnp.clip(covered.astype(jnp.int16) + ink, 0, 255).astype(jnp.uint8)
    return jax.lax.dynamic_update_slice(canvas, total, (to_row, to_column, 0)), None

  return jax.lax.scan(add, canvas, crops)[0]


def normalize(
  images: jax.Array, *, mean: tuple[float, ...], std: tuple[float, ...]
) -> jax.Array:
  """Normalised images, (x / 255 - mean) / std.

  Args:
    images: one or more images [..., H, W, C], uint8.
    mean: mean of each channel, in 0…1.
    std: standard deviation of each channel, in 0…1.

  Returns:
    Images [..., H, W, C], float32.
  """
  _check_stored(images=images)
  return standardize(images.astype(jnp.float32) / 255.0, mean=mean, std=std)


def standardize(
  images: jax.Array, *, mean: tuple[float, ...], std: tuple[float, ...]
) -> jax.Array:
  """Images in units of the deviation, (x - mean) / std.

  Args:
    images: one or more images [..., H, W, C], float, in 0…1.
    mean: mean of each channel, in 0…1.
    std: standard deviation of each channel, in 0…1.

  Returns:
    Images [..., H, W, C], float32.
  """
  check_shape((..., len(mean)), hint="one mean a channel", images=images)
  channel_axis = (1,) * (images.ndim - 1) + (-1,)
  offset = jnp.array(mean, jnp.float32).reshape(channel_axis)
  scale = jnp.array(std, jnp.float32).reshape(channel_axis)
  return (images - offset) / scale


def _check_stored(**arrays: jax.Array) -> None:
  """Checks that images are of the type in which they are stored.

  Raises:
    AssertionError: if not.
  """
  for name, array in arrays.items():
    if array.dtype != jnp.uint8:
      raise AssertionError(f"{name} must be uint8, as stored, not {array.dtype}")
