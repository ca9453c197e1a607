"""What happens to pictures on the device, between memory and the model."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp


def normalize(
  images: jax.Array, *, mean: tuple[float, ...], std: tuple[float, ...]
) -> jax.Array:
  """Bytes to numbers of mean 0 and standard deviation 1: (x / 255 - mean) / std.

  Args:
    images: pictures [..., H, W, C], uint8.
    mean: mean of each channel, in 0…1.
    std: standard deviation of each channel, in 0…1.

  Returns:
    Pictures [..., H, W, C], float32.
  """
  chex.assert_type(images, jnp.uint8)
  chex.assert_axis_dimension(images, -1, len(mean))
  lowest = (1,) * (images.ndim - 1) + (-1,)
  shift = jnp.array(mean, jnp.float32).reshape(lowest)
  scale = jnp.array(std, jnp.float32).reshape(lowest)
  return (images.astype(jnp.float32) / 255.0 - shift) / scale
