"""Evaluation: accuracy by number of glimpses, fixed and dynamic, from ONE unroll."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from ramjax import losses, networks, stopping
from ramjax.config import Config, ConfigError, ModelConfig
from ramjax.dynamic import look_until_decided
from ramjax.objectives import TermWeights, objective
from ramjax.prediction import evaluation_images, look
from ramjax.rollouts import Rollout, image_keys, rollout
from ramjax.training import Preprocess


class Evaluation(NamedTuple):
  """How a model does with 1…T glimpses, and with a dynamic number of them.

  Attributes:
    accuracy_t: accuracy when all images get t glimpses.
    hidden_norm_t: mean l2 norm of the internal state after t glimpses.
    dynamic_accuracy: accuracy under the stopping rule, for each beta.
    mean_glimpses: mean number of glimpses taken then, for each beta.
  """

  accuracy_t: jax.Array  # [T]
  hidden_norm_t: jax.Array  # [T]
  dynamic_accuracy: jax.Array  # [num_betas]
  mean_glimpses: jax.Array  # [num_betas]


@functools.partial(
  jax.jit,
  static_argnames=(
    "model_config",
    "num_glimpses",
    "preprocess",
    "num_samples",
    "location_policy",
    "batch_size",
    "sharding",
  ),
)
def evaluate(
  key: jax.Array,
  params: networks.Params,
  images: jax.Array,
  labels: jax.Array,
  betas: jax.Array,
  *,
  model_config: ModelConfig,
  num_glimpses: int,
  preprocess: Preprocess,
  num_samples: int = 1,
  location_policy: str = "sample",
  batch_size: int = 1000,
  sharding: jax.sharding.NamedSharding | None = None,
) -> Evaluation:
  """Accuracy of a model for every number of glimpses up to `num_glimpses`.

  With `num_samples` M > 1, each image is looked at M times and the probabilities
  and self-uncertainties of the M rollouts are averaged glimpse by glimpse before
  anything is decided (Ba et al., 2014, https://arxiv.org/abs/1412.7755). A report of
  such a figure has to state M.

  Args:
    key: typed PRNG key of first locations and policy; each rollout of each image
      gets its own from it, so that results do not depend on `batch_size`. What a
      random `preprocess` draws does not depend on it, see `evaluation_images`.
    params: parameters of the model.
    images: images [M, H, W, C], as `preprocess` takes them.
    labels: true classes [M], integer in [0, K).
    betas: exploration rates of the stopping rule [num_betas]; may be empty.
    model_config: the shape of the model.
    num_glimpses: number of glimpses T.
    preprocess: from a stored image to what the model sees, see
      `ramjax.training.Preprocess`.
    num_samples: number of rollouts averaged, M.
    location_policy: `sample` or `mean`, see `ramjax.rollout`.
    batch_size: images at a time; bounds the memory.
    sharding: how devices divide the images of a batch, see `ramjax.parallel.divided`;
      None leaves them on one.

  Returns:
    The evaluation, float32.

  Raises:
    ConfigError: if `num_glimpses`, `num_samples`, `location_policy` or `batch_size` is
      out of range.
    AssertionError: if an array has another rank, shape or type.
  """
  if batch_size < 1:
    raise ConfigError(f"batch_size must be at least 1, not {batch_size}")
  chex.assert_rank([images, betas], [4, 1])
  chex.assert_shape(labels, images.shape[:1])

  def evaluate_batch(index: jax.Array, weight: jax.Array) -> Evaluation:
    label = labels[index]
    shown = evaluation_images(images, index, preprocess=preprocess)

    probs_t, predicted_error_t, norm_t = look(
      key,
      params,
      shown,
      index,
      model_config=model_config,
      num_glimpses=num_glimpses,
      num_samples=num_samples,
      location_policy=location_policy,
    )
    correct_t = losses.reward(probs_t, jnp.broadcast_to(label, probs_t.shape[:-1]))

    def stop(beta: jax.Array) -> tuple[jax.Array, jax.Array]:
      taken = stopping.stopping_time(probs_t, predicted_error_t, beta=beta)
      return stopping.at_stop(correct_t, taken), taken.astype(jnp.float32)

    dynamic_correct, glimpses = jax.lax.map(stop, betas)
    return Evaluation(
      *(
        jnp.matmul(values, weight, precision="highest")
        for values in (correct_t, norm_t, dynamic_correct, glimpses)
      )
    )

  return _mean_over_batches(evaluate_batch, images.shape[0], batch_size, sharding)


class DynamicEvaluation(NamedTuple):
  """How a model does when it stops by itself.

  Attributes:
    accuracy: accuracy of its decisions.
    mean_glimpses: mean number of glimpses that it took.
  """

  accuracy: jax.Array  # []
  mean_glimpses: jax.Array  # []


@functools.partial(
  jax.jit,
  static_argnames=(
    "model_config",
    "max_glimpses",
    "preprocess",
    "location_policy",
    "batch_size",
  ),
)
def evaluate_dynamic(
  key: jax.Array,
  params: networks.Params,
  images: jax.Array,
  labels: jax.Array,
  beta: float | jax.Array,
  *,
  model_config: ModelConfig,
  max_glimpses: int,
  preprocess: Preprocess,
  location_policy: str = "sample",
  batch_size: int = 10_000,
) -> DynamicEvaluation:
  """Accuracy under the stopping rule for one exploration rate, at the cost of its glimpses.

  The figures are those that `evaluate` has for that rate with M = 1 and the same key,
  but for rounding: `ramjax.look_until_decided` does the looking.

  Args:
    key: typed PRNG key of first locations and policy; each image gets its own.
    params: parameters of the model.
    images: images [M, H, W, C], as `preprocess` takes them.
    labels: true classes [M], integer in [0, K).
    beta: exploration rate of the stopping rule [], at least 0.
    model_config: the shape of the model.
    max_glimpses: number of glimpses after which it stops in any case.
    preprocess: from a stored image to what the model sees, see
      `ramjax.training.Preprocess`.
    location_policy: `sample` or `mean`, see `ramjax.rollout`.
    batch_size: images at a time; bounds the memory. The more, the fewer small
      products for the last ones that are undecided.

  Returns:
    The evaluation, float32.

  Raises:
    ConfigError: if `max_glimpses`, `location_policy` or `batch_size` is out of range.
    AssertionError: if an array has another rank, shape or type.
  """
  if batch_size < 1:
    raise ConfigError(f"batch_size must be at least 1, not {batch_size}")
  chex.assert_rank([images, beta], [4, 0])
  chex.assert_shape(labels, images.shape[:1])
  _, rollout_key = jax.random.split(key)

  def evaluate_batch(index: jax.Array, weight: jax.Array) -> DynamicEvaluation:
    decision = look_until_decided(
      image_keys(jax.random.fold_in(rollout_key, 0), index),
      params,
      evaluation_images(images, index, preprocess=preprocess),
      beta=beta,
      model_config=model_config,
      max_glimpses=max_glimpses,
      location_policy=location_policy,
    )
    correct = losses.reward(decision.probs, labels[index])
    glimpses = decision.num_glimpses.astype(jnp.float32)
    return DynamicEvaluation(
      *(jnp.matmul(x, weight, precision="highest") for x in (correct, glimpses))
    )

  return _mean_over_batches(evaluate_batch, images.shape[0], batch_size, None)


def validation_rollout(
  key: jax.Array,
  params: networks.Params,
  images: jax.Array,
  index: jax.Array,
  *,
  config: Config,
  preprocess: Preprocess,
) -> Rollout:
  """The rollout that `validate` judges, of some of the images.

  Args:
    key: the key given to `validate`.
    params: parameters of the model.
    images: all images [M, H, W, C], as `preprocess` takes them.
    index: numbers of the images to look at [B].
    config: the run.
    preprocess: from a stored image to what the model sees, see
      `ramjax.training.Preprocess`.

  Returns:
    The rollout, with the number of glimpses of the training.
  """
  _, rollout_key = jax.random.split(key)
  return rollout(
    image_keys(rollout_key, index),
    params,
    evaluation_images(images, index, preprocess=preprocess),
    model_config=config.model,
    num_glimpses=config.train.num_glimpses,
  )


@functools.partial(
  jax.jit, static_argnames=("config", "preprocess", "batch_size", "sharding")
)
def validate(
  key: jax.Array,
  params: networks.Params,
  images: jax.Array,
  labels: jax.Array,
  *,
  config: Config,
  preprocess: Preprocess,
  term_weights: TermWeights | None = None,
  batch_size: int = 1000,
  sharding: jax.sharding.NamedSharding | None = None,
) -> dict[str, jax.Array]:
  """Loss, its parts and accuracy with the number of glimpses of the training.

  Args:
    key: typed PRNG key of first locations and policy; each image gets its own.
    params: parameters of the model.
    images: images [M, H, W, C], as `preprocess` takes them.
    labels: true classes [M], integer in [0, K).
    config: the run.
    preprocess: from a stored image to what the model sees, see
      `ramjax.training.Preprocess`.
    term_weights: what the extra terms count; None is what the objective gives them.
    batch_size: images at a time; bounds the memory.
    sharding: how devices divide the images of a batch, see `ramjax.parallel.divided`;
      None leaves them on one.

  Returns:
    The metrics of `ramjax.objective`, averaged over all images.
  """
  chex.assert_rank(images, 4)
  chex.assert_shape(labels, images.shape[:1])

  def validate_batch(index: jax.Array, weight: jax.Array) -> dict[str, jax.Array]:
    looked = validation_rollout(
      key, params, images, index, config=config, preprocess=preprocess
    )
    _, metrics = objective(
      params.error,
      looked,
      labels[index],
      objective_config=config.objective,
      weight=weight,
      term_weights=term_weights,
    )
    return jax.tree.map(lambda mean: mean * weight.sum(), metrics)

  return _mean_over_batches(validate_batch, images.shape[0], batch_size, sharding)


def _mean_over_batches(
  weighted_sums: Callable[[jax.Array, jax.Array], Any],
  num_examples: int,
  batch_size: int,
  sharding: jax.sharding.NamedSharding | None,
) -> Any:
  """Mean over all examples of what `weighted_sums(index [B], weight [B])` sums up.

  The last batch is filled up with examples of weight 0, as is each batch that the
  devices of `sharding` do not divide.
  """
  num_devices = 1 if sharding is None else sharding.num_devices
  batch_size = -(-min(batch_size, num_examples) // num_devices) * num_devices
  num_batches = -(-num_examples // batch_size)
  index = jnp.arange(num_batches * batch_size).reshape(num_batches, batch_size)
  weight = (index < num_examples).astype(jnp.float32)
  index = jnp.minimum(index, num_examples - 1)

  def sums_of(batch: tuple[jax.Array, jax.Array]) -> Any:
    if sharding is not None:
      batch = jax.lax.with_sharding_constraint(batch, sharding)
    return weighted_sums(*batch)

  sums = jax.lax.map(sums_of, (index, weight))
  means = jax.tree.map(lambda parts: parts.sum(axis=0) / num_examples, sums)
  if sharding is not None:  # every process can read what each of its devices has whole
    whole = jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec())
    means = jax.lax.with_sharding_constraint(means, whole)
  return means
