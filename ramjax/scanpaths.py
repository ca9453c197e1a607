"""Scanpaths: where a model looks, and what each glimpse tells it.

They have the units of eye-movement research: densities over pixels, and bits.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from ramjax.checks import (
  TIME_FIRST,
  check_distribution,
  check_positive,
  check_shape,
  check_type,
)
from ramjax.glimpse import in_pixels


def fixation_density(
  location: jax.Array,
  *,
  image_size: tuple[int, int],
  std: float | jax.Array,
  weight: jax.Array | None = None,
) -> jax.Array:
  """The fixation-density map of an image: a Gaussian about each fixation, averaged.

  Researchers call it a fixation map or a human saliency map; its standard deviation is
  usually one degree of visual angle (Le Meur and Baccino, 2013,
  https://doi.org/10.3758/s13428-012-0226-9). They convolve a map of fixations with the
  Gaussian. Here, each Gaussian is cut off at the border and has the mass of its weight,
  so a fixation at the border counts like any other.

  Locations are as in `extract_glimpse`, but they are not rounded to pixels, so the map
  has a gradient. A single fixation is densest at its pixel,
  `floor((location + 1) / 2 * size)`. The cost of F fixations is one product of matrices
  [H, F] and [F, W].

  Args:
    location: fixations (x, y) [..., 2] in [-1, 1], float: all of one image. Use
      `jax.vmap` for a map of each image, of each rollout or after each glimpse. Fixations
      outside are clipped to the border.
    image_size: height and width of the image, in pixels.
    std: standard deviation of the Gaussian, in pixels.
    weight: weights [...] of the fixations, at least 0, or Booleans: which ones count. By
      default all count alike.

  Returns:
    The map [H, W], which sums to 1; float, at least float32. It is NaN if no fixation
    counts.

  Raises:
    AssertionError: if an array has the wrong shape or dtype, `std` is not positive, or a
      weight is negative.

  >>> import jax.numpy as jnp
  >>> places = jnp.array([[-0.75, -0.5], [0.75, -0.5]])  # left and right in the upper row
  >>> density = fixation_density(places, image_size=(2, 4), std=0.3)
  >>> [[round(share, 3) for share in row] for row in density.tolist()]
  [[0.496, 0.002, 0.002, 0.496], [0.002, 0.0, 0.0, 0.002]]
  """
  check_type(float, location=location)
  check_shape((..., 2), location=location)
  check_positive("std", std)
  if weight is None:
    weight = jnp.ones(location.shape[:-1], jnp.bool_)
  check_shape(location.shape[:-1], weight=weight)
  check_positive("weight", weight, or_zero=True)

  # What does not count may be NaN, as glimpses that were not taken.
  location = jnp.where(weight.astype(jnp.bool_)[..., None], location, 0.0)
  x, y = in_pixels(jnp.clip(location, -1.0, 1.0), image_size=image_size)
  height, width = image_size
  rows, columns = _masses(y, height, std), _masses(x, width, std)
  weight = weight.ravel().astype(rows.dtype)
  density = jnp.matmul((rows * weight[:, None]).T, columns, precision="highest")
  return density / jnp.sum(weight)


def entropy(probs: jax.Array) -> jax.Array:
  """The entropy of probabilities in bits, -sum_i p_i log2 p_i, where 0 log2 0 is 0.

  Args:
    probs: softmax outputs p [..., K].

  Returns:
    Entropies [...], from 0 (certain) to log2 K (all classes alike); NaN if a probability
    is NaN. The gradient is finite, also at 0.

  Raises:
    AssertionError: if they are no probabilities.

  >>> import jax.numpy as jnp
  >>> entropy(jnp.array([[0.5, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])).tolist()
  [1.0, 0.0]
  """
  check_type(float, probs=probs)
  check_shape((..., None), probs=probs)
  check_distribution("probs", probs, hint="of logits take jax.nn.softmax")
  absent = probs <= jnp.finfo(probs.dtype).tiny  # not so a NaN
  log_probs = jnp.log2(jnp.where(absent, 1.0, probs))
  return jnp.sum(probs * -log_probs, axis=-1)


def information_gain(probs_t: jax.Array) -> jax.Array:
  """What each glimpse tells about the class, in bits: by how much the entropy falls.

  Gain t is H(p_{t-1}) - H(p_t), the information of an experiment (Lindley, 1956,
  https://doi.org/10.1214/aoms/1177728069, where it is averaged over outcomes). Before the
  first glimpse all K classes are equally probable, so H(p_0) is log2 K. A glimpse that
  makes the model less certain has a negative gain. Gains add up to log2 K - H(p_T).

  Args:
    probs_t: softmax outputs p [T, ..., K] after each glimpse.

  Returns:
    Gains [T, ...]; NaN where a probability before or after is NaN.

  >>> import jax.numpy as jnp
  >>> probs_t = jnp.array([[0.5, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
  >>> information_gain(probs_t).tolist()  # 2 bits, then 1, then 0
  [1.0, 1.0]
  """
  check_shape((None, ..., None), hint=TIME_FIRST, probs_t=probs_t)
  entropy_t = entropy(probs_t)
  prior = jnp.full_like(entropy_t[:1], math.log2(probs_t.shape[-1]))
  return jnp.concatenate([prior, entropy_t[:-1]]) - entropy_t


def _masses(places: jax.Array, size: int, std: float | jax.Array) -> jax.Array:
  """The share [F, size] of each pixel of one axis in Gaussians about F places.

  A softmax divides by the sum without underflow, however narrow the Gaussian.
  """
  centres = jnp.arange(size, dtype=places.dtype) + 0.5
  deviations = (centres[None] - places.ravel()[:, None]) / jnp.asarray(
    std, places.dtype
  )
  return jax.nn.softmax(-0.5 * deviations**2, axis=-1)
