"""Random keys of images."""

import jax


def image_keys(key: jax.Array, index: jax.Array) -> jax.Array:
  """One key for each image: the image with number i gets `fold_in(key, i)`.

  Args:
    key: typed PRNG key [].
    index: number of each image [B].

  Returns:
    Typed PRNG keys [B].
  """
  return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)
