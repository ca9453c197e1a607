"""Prediction: what a model believes of many images, glimpse by glimpse."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ramjax.checks import check_shape
from ramjax.config import EvaluationConfig, ModelConfig
from ramjax.data.batches import Preprocess, evaluation_images, map_batches
from ramjax.keys import image_keys
from ramjax.model import Model, PyTree
from ramjax.rollouts import rollout


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
    "model",
    "evaluation_config",
    "preprocess",
    "batch_size",
    "sharding",
  ),
)
def predict(
  key: jax.Array,
  params: PyTree,
  images: jax.Array,
  *,
  model: Model | ModelConfig,
  evaluation_config: EvaluationConfig,
  preprocess: Preprocess,
  batch_size: int = 1000,
  sharding: jax.sharding.NamedSharding | None = None,
) -> Prediction:
  """The predictions of a model for each image after each glimpse.

  `ramjax.summarize` turns them into accuracies, norms and calibration errors. They also
  serve other stopping rules, and images without labels.

  Args:
    key: typed PRNG key of first locations and policy. Each rollout of each image gets
      its own key from it, so results do not depend on `batch_size`.
    params: parameters of the model.
    images: images [M, H, W, C], stored.
    model: the model, or the configuration of the paper's model.
    evaluation_config: numbers of glimpses and of rollouts, the location policy and its
      noise.
    preprocess: from a stored image to a model's input, see
      `ramjax.data.batches.Preprocess`; a random one gets fixed keys, see
      `ramjax.data.batches.evaluation_images`.
    batch_size: images at a time; bounds the memory of the rollouts.
    sharding: how devices divide the images of a batch, see `ramjax.parallel.divided`;
      every device then gets all predictions. None is for a single device.

  Returns:
    The predictions, float32: 2 T M K + T M numbers.

  Raises:
    ConfigError: if `batch_size` is less than 1.
    AssertionError: if an array has another rank, shape or type.
  """
  check_shape((None, None, None, None), hint="[M, H, W, C]", images=images)
  _, rollout_key = jax.random.split(key)

  def predict_batch(index: jax.Array) -> Prediction:
    shown = evaluation_images(images, index, preprocess=preprocess)

    def predict_once(sample: jax.Array) -> Prediction:
      unrolled = rollout(
        image_keys(jax.random.fold_in(rollout_key, sample), index),
        params,
        shown,
        model=model,
        num_glimpses=evaluation_config.num_glimpses,
        location_policy=evaluation_config.location_policy,
        location_noise=evaluation_config.location_noise,
      )
      return Prediction(
        unrolled.probs_t,
        unrolled.predicted_error_t,
        _norm(unrolled.hidden_t),
      )

    samples = jax.lax.map(predict_once, jnp.arange(evaluation_config.num_samples))
    return jax.tree.map(lambda values: values.mean(axis=0), samples)

  return map_batches(
    predict_batch, images.shape[0], batch_size=batch_size, axis=1, sharding=sharding
  )


def _norm(hidden: jax.Array) -> jax.Array:
  """The l2 norm over the last axis, of squares that do not overflow before the norm."""
  _, exponent = jnp.frexp(jnp.max(jnp.abs(hidden), axis=-1))
  # Beyond, the reciprocal would be subnormal. A power of two changes no digit.
  scale = jnp.ldexp(jnp.float32(1.0), jnp.clip(exponent, -125, 125))
  return jnp.linalg.norm(hidden / scale[..., None], axis=-1) * scale
