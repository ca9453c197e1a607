"""What a model answers: its beliefs about many images, glimpse by glimpse."""

from __future__ import annotations

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from ramjax import networks
from ramjax.config import ConfigError, ModelConfig
from ramjax.rollouts import image_keys, rollout
from ramjax.training import Preprocess, preprocess_batch, take_images

_IMAGES = 0x7069_6373
"""Makes of key 0 the key of the images, which is the key of no run."""


class Prediction(NamedTuple):
  """What a model believes of M images after each of T glimpses.

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
    "model_config",
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
  model_config: ModelConfig,
  num_glimpses: int,
  preprocess: Preprocess,
  num_samples: int = 1,
  location_policy: str = "sample",
  batch_size: int = 1000,
) -> Prediction:
  """The predictions that `ramjax.evaluate` judges, image by image.

  For calibration, for stopping rules of one's own, for images without labels. With
  the same key they are the same, but for rounding.

  Args:
    key: typed PRNG key of first locations and policy; each rollout of each image
      gets its own from it, so that results do not depend on `batch_size`.
    params: parameters of the model.
    images: images [M, H, W, C], as `preprocess` takes them.
    model_config: the shape of the model.
    num_glimpses: number of glimpses T.
    preprocess: from a stored image to what the model sees, see
      `ramjax.training.Preprocess`; a random one is fixed, see
      `evaluation_images`.
    num_samples: number of rollouts averaged, M of Ba et al. (2014); see
      `ramjax.evaluate`.
    location_policy: `sample` or `mean`, see `ramjax.rollout`.
    batch_size: images at a time.

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
  num_images = images.shape[0]
  batch_size = min(batch_size, num_images)
  num_batches = -(-num_images // batch_size)
  index = jnp.minimum(jnp.arange(num_batches * batch_size), num_images - 1)

  def predict_batch(index: jax.Array) -> Prediction:
    shown = evaluation_images(images, index, preprocess=preprocess)
    looked = look(
      key,
      params,
      shown,
      index,
      model_config=model_config,
      num_glimpses=num_glimpses,
      num_samples=num_samples,
      location_policy=location_policy,
    )
    return Prediction(*looked)

  batches = jax.lax.map(predict_batch, index.reshape(num_batches, batch_size))

  def in_one(values: jax.Array) -> jax.Array:
    """From [batches, T, B, ...] to [T, M, ...]."""
    values = jnp.moveaxis(values, 0, 1)
    return values.reshape(num_glimpses, -1, *values.shape[3:])[:, :num_images]

  return jax.tree.map(in_one, batches)


def look(
  key: jax.Array,
  params: networks.Params,
  shown: jax.Array,
  index: jax.Array,
  *,
  model_config: ModelConfig,
  num_glimpses: int,
  num_samples: int = 1,
  location_policy: str = "sample",
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """What every evaluation sees of some images, averaged over M rollouts.

  Args:
    key: the key given to the evaluation.
    params: parameters of the model.
    shown: normalised images [B, H, W, C].
    index: their numbers among all images [B], from which their keys come.
    model_config: the shape of the model.
    num_glimpses: number of glimpses T.
    num_samples: number of rollouts averaged, M.
    location_policy: `sample` or `mean`, see `ramjax.rollout`.

  Returns:
    Probabilities [T, B, K], self-uncertainties [T, B, K], and l2 norms of the internal
    state [T, B].

  Raises:
    ConfigError: if `num_glimpses`, `num_samples` or `location_policy` is out of range.
  """
  if num_samples < 1:
    raise ConfigError(f"num_samples must be at least 1, not {num_samples}")
  _, rollout_key = jax.random.split(key)

  def one_sample(sample: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    looked = rollout(
      image_keys(jax.random.fold_in(rollout_key, sample), index),
      params,
      shown,
      model_config=model_config,
      num_glimpses=num_glimpses,
      location_policy=location_policy,
    )
    norm_t = jnp.linalg.norm(looked.hidden_t, axis=-1)
    return looked.probs_t, looked.predicted_error_t, norm_t

  samples = jax.lax.map(one_sample, jnp.arange(num_samples))
  return jax.tree.map(lambda values: values.mean(axis=0), samples)


def evaluation_images(
  images: jax.Array, index: jax.Array, *, preprocess: Preprocess
) -> jax.Array:
  """Some of many images, as every evaluation shows them.

  Where `preprocess` is random, as a translation is, it is made a fixed one: image i
  has a key that depends on i alone, and not on the key of an evaluation or on the seed
  of a run, so that all models are judged by the same images. The generator is fixed,
  too, whatever JAX's default is.

  Args:
    images: all images [M, H, W, C], as `preprocess` takes them; where it cuts clutter
      out of them, some of them alone would be shown with other clutter.
    index: numbers of the images [B], each in [0, M).
    preprocess: from a stored image to what the model sees, see
      `ramjax.training.Preprocess`.

  Returns:
    Images [B, H, W, C], of the size and type that `preprocess` gives them.
  """
  key = jax.random.fold_in(jax.random.key(0, impl="threefry2x32"), _IMAGES)
  stored = take_images(images, index)
  return preprocess_batch(key, stored, index, images, preprocess=preprocess)
