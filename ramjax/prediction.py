"""What a model answers: its beliefs about many pictures, glimpse by glimpse."""

from __future__ import annotations

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from ramjax import networks
from ramjax.config import ConfigError, ModelConfig
from ramjax.evaluation import evaluation_pictures, look
from ramjax.training import Preprocess


class Prediction(NamedTuple):
  """What a model believes of M pictures after each of T glimpses.

  Attributes:
    probs_t: softmax outputs p.
    predicted_error_t: self-uncertainties u.
    hidden_norm_t: l2 norms of the internal state.
  """

  probs_t: jax.Array  # [T, M, K]
  predicted_error_t: jax.Array  # [T, M, K]
  hidden_norm_t: jax.Array  # [T, M]


@functools.partial(
  jax.jit,
  static_argnames=(
    "config",
    "num_glimpses",
    "preprocess",
    "num_samples",
    "location_policy",
    "batch_size",
  ),
)
def predict(
  key: jax.Array,
  params: networks.Params,
  images: jax.Array,
  *,
  config: ModelConfig,
  num_glimpses: int,
  preprocess: Preprocess,
  num_samples: int = 1,
  location_policy: str = "sample",
  batch_size: int = 1000,
) -> Prediction:
  """The predictions that `ramjax.evaluate` judges, picture by picture.

  For calibration, for stopping rules of one's own, for pictures without labels. With
  the same key they are the same, but for rounding.

  Args:
    key: typed PRNG key of first locations and policy; each rollout of each picture
      gets its own from it, so that results do not depend on `batch_size`.
    params: parameters of the model.
    images: pictures [M, H, W, C], as `preprocess` takes them.
    config: the shape of the model.
    num_glimpses: number of glimpses T.
    preprocess: from a stored picture to what the model sees, see
      `ramjax.training.Preprocess`; a random one is fixed, see
      `ramjax.evaluation.evaluation_pictures`.
    num_samples: number of rollouts averaged, M of Ba et al. (2014); see
      `ramjax.evaluate`.
    location_policy: `sample` or `mean`, see `ramjax.rollout`.
    batch_size: pictures at a time.

  Returns:
    The predictions, float32: 2 T M K numbers.

  Raises:
    ConfigError: if `num_glimpses`, `num_samples`, `location_policy` or `batch_size` is
      out of range.
    AssertionError: if an array has another rank.
  """
  if batch_size < 1:
    raise ConfigError(f"batch_size must be at least 1, not {batch_size}")
  chex.assert_rank(images, 4)
  num_pictures = images.shape[0]
  batch_size = min(batch_size, num_pictures)
  num_batches = -(-num_pictures // batch_size)
  index = jnp.minimum(jnp.arange(num_batches * batch_size), num_pictures - 1)

  def predict_batch(index: jax.Array) -> Prediction:
    pictures = evaluation_pictures(images, index, preprocess=preprocess)
    looked = look(
      key,
      params,
      pictures,
      index,
      config=config,
      num_glimpses=num_glimpses,
      num_samples=num_samples,
      location_policy=location_policy,
    )
    return Prediction(*looked)

  batches = jax.lax.map(predict_batch, index.reshape(num_batches, batch_size))

  def in_one(values: jax.Array) -> jax.Array:
    """From [batches, T, B, ...] to [T, M, ...]."""
    values = jnp.moveaxis(values, 0, 1)
    return values.reshape(num_glimpses, -1, *values.shape[3:])[:, :num_pictures]

  return jax.tree.map(in_one, batches)
