"""Evaluation: accuracy by number of glimpses, fixed and dynamic, and calibration."""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ramjax import calibration, losses, stopping
from ramjax.checks import TIME_FIRST, check_shape
from ramjax.config import Config, EvaluationConfig, ModelConfig
from ramjax.data.batches import Preprocess, evaluation_images, map_batches
from ramjax.keys import image_keys
from ramjax.model import Model, PyTree
from ramjax.objectives import (
  ExtraTerms,
  LossParts,
  TermWeights,
  accept_pairs,
  loss_parts,
  mean_objective,
)
from ramjax.prediction import Prediction, predict
from ramjax.ram import model_of
from ramjax.rollouts import Rollout, rollout


class Evaluation(NamedTuple):
  """How a model does with 1…T glimpses, and with a dynamic number of them.

  Attributes:
    accuracy_t: accuracy when all images get t glimpses; an image whose probabilities
      are not finite is wrong.
    not_finite_t: number of images whose probabilities are not finite after t glimpses.
    hidden_norm_t: mean l2 norm of the internal state after t glimpses.
    calibration_error_t: see `ramjax.expected_calibration_error`.
    uncertainty_correlation_t: see `ramjax.uncertainty_fit`.
    uncertainty_deviation_t: see `ramjax.uncertainty_fit`.
    dynamic_accuracy: accuracy under the stopping rule, for each beta.
    mean_glimpses: mean number of glimpses taken then, for each beta.
  """

  accuracy_t: jax.Array  # [T]
  not_finite_t: jax.Array  # [T] int32
  hidden_norm_t: jax.Array  # [T]
  calibration_error_t: jax.Array  # [T]
  uncertainty_correlation_t: jax.Array  # [T]
  uncertainty_deviation_t: jax.Array  # [T]
  dynamic_accuracy: jax.Array  # [num_betas]
  mean_glimpses: jax.Array  # [num_betas]


def summarize(
  prediction: Prediction, labels: jax.Array, betas: jax.Array
) -> Evaluation:
  """The summaries of the predictions for M images.

  Args:
    prediction: predictions after each of T glimpses.
    labels: true classes [M], integer in [0, K).
    betas: exploration rates of the stopping rule [num_betas]; may be empty.

  Returns:
    The summaries, float32 but for counts.

  Raises:
    AssertionError: if an array has another rank, shape or type.
  """
  check_shape((None,), labels=labels, betas=betas)
  check_shape((None, *labels.shape, None), hint=TIME_FIRST, probs_t=prediction.probs_t)
  probs_t, predicted_error_t, hidden_norm_t = prediction
  correct_t = losses.reward(probs_t, jnp.broadcast_to(labels, probs_t.shape[:-1]))

  def calibrate(
    after_a_glimpse: tuple[jax.Array, jax.Array],
  ) -> tuple[jax.Array, calibration.UncertaintyFit]:
    probs, predicted_error = after_a_glimpse
    error = calibration.expected_calibration_error(probs, labels)
    fit = calibration.uncertainty_fit(predicted_error[None], probs[None], labels)
    return error, jax.tree.map(jnp.squeeze, fit)

  def stop(beta: jax.Array) -> tuple[jax.Array, jax.Array]:
    num_glimpses = stopping.stopping_time(probs_t, predicted_error_t, beta=beta)
    correct = stopping.at_stop(correct_t, num_glimpses)
    return correct.mean(), num_glimpses.mean(dtype=jnp.float32)

  calibration_error_t, fit = jax.lax.map(calibrate, (probs_t, predicted_error_t))
  dynamic_accuracy, mean_glimpses = jax.lax.map(stop, betas)
  return Evaluation(
    accuracy_t=correct_t.mean(axis=-1),
    not_finite_t=jnp.sum(~jnp.isfinite(probs_t).all(axis=-1), axis=-1, dtype=jnp.int32),
    hidden_norm_t=_mean(hidden_norm_t),
    calibration_error_t=calibration_error_t,
    uncertainty_correlation_t=fit.correlation_t,
    uncertainty_deviation_t=fit.deviation_t,
    dynamic_accuracy=dynamic_accuracy,
    mean_glimpses=mean_glimpses,
  )


class ReleasedEvaluation(NamedTuple):
  """How a model does under the protocol of the released code.

  Attributes:
    accuracy_t: accuracy when all copies of all images get t glimpses.
    dynamic_accuracy: accuracy under the stopping rule, for each beta.
    mean_glimpses: mean number of glimpses over copies and images then, for each beta.
  """

  accuracy_t: jax.Array  # [T]
  dynamic_accuracy: jax.Array  # [num_betas]
  mean_glimpses: jax.Array  # [num_betas]


def summarize_as_released(
  probs_t: jax.Array,
  predicted_error_t: jax.Array,
  labels: jax.Array,
  betas: jax.Array,
  *,
  batch_size: int = 32,
) -> ReleasedEvaluation:
  """The summaries of M rollouts of each image that the released code gives.

  Each copy of an image stops for itself, see `ramjax.stopping_time_as_released`. The
  log-probabilities of the copies are averaged, each after its own last glimpse. The
  released code also resets its random seed at each batch, so that its batches share
  their random numbers; here they do not.

  Args:
    probs_t: softmax outputs p [T, M, I, K] of I images after each of T glimpses.
    predicted_error_t: self-uncertainties u [T, M, I, K].
    labels: true classes [I], integer in [0, K).
    betas: exploration rates [num_betas]; may be empty.
    batch_size: images that look together.

  Returns:
    The summaries, float32.

  Raises:
    AssertionError: if an array has another rank, shape or type.
  """
  check_shape((None,), labels=labels, betas=betas)
  check_shape((None, None, *labels.shape, None), hint="[T, M, I, K]", probs_t=probs_t)
  check_shape(probs_t.shape, predicted_error_t=predicted_error_t)
  # The smallest float32: a probability of 0 would outvote all other copies.
  log_probs_t = jnp.log(jnp.maximum(probs_t, jnp.finfo(jnp.float32).tiny))
  means_t = log_probs_t.mean(axis=1)

  def stop(beta: jax.Array) -> tuple[jax.Array, jax.Array]:
    taken = stopping.stopping_time_as_released(
      probs_t, predicted_error_t, beta=beta, batch_size=batch_size
    )
    stopped = jnp.take_along_axis(log_probs_t, taken[None, ..., None] - 1, axis=0)[0]
    correct = losses.reward(stopped.mean(axis=0), labels)
    return correct.mean(), taken.mean(dtype=jnp.float32)

  dynamic_accuracy, mean_glimpses = jax.lax.map(stop, betas)
  all_labels = jnp.broadcast_to(labels, means_t.shape[:-1])
  return ReleasedEvaluation(
    accuracy_t=losses.reward(means_t, all_labels).mean(axis=-1),
    dynamic_accuracy=dynamic_accuracy,
    mean_glimpses=mean_glimpses,
  )


def _mean(norm: jax.Array) -> jax.Array:
  """The mean over the last axis, of a sum that does not overflow before its terms do."""
  scale = 2.0 ** -norm.shape[-1].bit_length()  # a power of two changes no digit
  return jnp.mean(norm * scale, axis=-1) / scale


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
def evaluate(
  key: jax.Array,
  params: PyTree,
  images: jax.Array,
  labels: jax.Array,
  betas: jax.Array,
  *,
  model: Model | ModelConfig,
  evaluation_config: EvaluationConfig,
  preprocess: Preprocess,
  batch_size: int = 1000,
  sharding: jax.sharding.NamedSharding | None = None,
) -> Evaluation:
  """The summaries of a model's predictions: `summarize` of `ramjax.predict`.

  Args:
    key: typed PRNG key, see `ramjax.predict`.
    params: parameters of the model.
    images: images [M, H, W, C], stored.
    labels: true classes [M], integer in [0, K).
    betas: exploration rates of the stopping rule [num_betas]; may be empty.
    model: the model, or the configuration of the paper's model.
    evaluation_config: numbers of glimpses and of rollouts, and the location policy.
    preprocess: from a stored image to a model's input, see `ramjax.predict`.
    batch_size: images at a time; bounds the memory of the rollouts.
    sharding: how devices divide the images of a batch, see `ramjax.parallel.divided`;
      every device then gets the result. None is for a single device.

  Returns:
    The summaries, float32 but for counts.

  Raises:
    ConfigError: if `batch_size` is less than 1.
    AssertionError: if an array has another rank, shape or type.
  """
  check_shape(images.shape[:1], labels=labels)
  prediction = predict(
    key,
    params,
    images,
    model=model,
    evaluation_config=evaluation_config,
    preprocess=preprocess,
    batch_size=batch_size,
    sharding=sharding,
  )
  return summarize(prediction, labels, betas)


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
def evaluate_as_released(
  key: jax.Array,
  params: PyTree,
  images: jax.Array,
  labels: jax.Array,
  betas: jax.Array,
  *,
  model: Model | ModelConfig,
  evaluation_config: EvaluationConfig,
  preprocess: Preprocess,
  batch_size: int = 32,
  sharding: jax.sharding.NamedSharding | None = None,
) -> ReleasedEvaluation:
  """The summaries of a model under the protocol of the released code.

  Args:
    key: typed PRNG key, see `ramjax.predict`.
    params: parameters of the model.
    images: images [I, H, W, C], stored.
    labels: true classes [I], integer in [0, K).
    betas: exploration rates of the stopping rule [num_betas]; may be empty.
    model: the model, or the configuration of the paper's model.
    evaluation_config: numbers of glimpses and of rollouts M (the published figures have
      50 and 10), and the location policy.
    preprocess: from a stored image to a model's input, see `ramjax.predict`.
    batch_size: images that look together, see `ramjax.stopping_time_as_released`.
    sharding: how devices divide the images, see `ramjax.predict`.

  Returns:
    The summaries, see `summarize_as_released`.

  Raises:
    AssertionError: if an array has another rank, shape or type.
  """
  check_shape(images.shape[:1], labels=labels)
  once = dataclasses.replace(evaluation_config, num_samples=1)

  def predict_copy(copy: jax.Array) -> Prediction:
    return predict(
      jax.random.fold_in(key, copy),
      params,
      images,
      model=model,
      evaluation_config=once,
      preprocess=preprocess,
      sharding=sharding,
    )

  copies = jax.lax.map(predict_copy, jnp.arange(evaluation_config.num_samples))
  probs_t, predicted_error_t = (
    jnp.swapaxes(values, 0, 1) for values in (copies.probs_t, copies.predicted_error_t)
  )
  return summarize_as_released(
    probs_t, predicted_error_t, labels, betas, batch_size=batch_size
  )


def validation_rollout(
  key: jax.Array,
  params: PyTree,
  images: jax.Array,
  index: jax.Array,
  *,
  config: Config,
  model: Model | None = None,
  preprocess: Preprocess,
) -> Rollout:
  """The rollout of some images that `validate` evaluates.

  Args:
    key: the key given to `validate`.
    params: parameters of the model.
    images: all images [M, H, W, C], stored.
    index: numbers of the images [B].
    config: the run.
    model: its model; None for that of `config.model`.
    preprocess: from a stored image to a model's input, see `ramjax.predict`.

  Returns:
    The rollout, with as many glimpses as in training.
  """
  _, rollout_key = jax.random.split(key)
  return rollout(
    image_keys(rollout_key, index),
    params,
    evaluation_images(images, index, preprocess=preprocess),
    model=model_of(config, model),
    num_glimpses=config.train.num_glimpses,
  )


@accept_pairs
@functools.partial(
  jax.jit, static_argnames=("config", "model", "preprocess", "batch_size", "sharding")
)
def validate(
  key: jax.Array,
  params: PyTree,
  images: jax.Array,
  labels: jax.Array,
  *,
  config: Config,
  model: Model | None = None,
  preprocess: Preprocess,
  term_weights: TermWeights | None = None,
  extra_terms: ExtraTerms | None = None,
  batch_size: int = 1000,
  sharding: jax.sharding.NamedSharding | None = None,
) -> dict[str, jax.Array]:
  """Loss, its terms and accuracy with the number of glimpses of training.

  Args:
    key: typed PRNG key of first locations and policy; each image gets its own from it.
    params: parameters of the model.
    images: images [M, H, W, C], stored.
    labels: true classes [M], integer in [0, K), or soft labels [M, K].
    config: the run.
    model: its model; None for that of `config.model`.
    preprocess: from a stored image to a model's input, see `ramjax.predict`.
    term_weights: weights of the uncertainty and the intrinsic term; None for those of
      `config.objective`.
    extra_terms: terms of your own, see `ramjax.ExtraTerm`.
    batch_size: images at a time; bounds the memory of the rollouts.
    sharding: how devices divide the images of a batch, see `ramjax.parallel.divided`;
      every device then gets the result. None is for a single device.

  Returns:
    The metrics of `ramjax.objective`, over all images. `loss/reinforce` has the learned
    baseline, and no generalised advantages: those need other rollouts or other images.

  Raises:
    ConfigError: if `batch_size` is less than 1, or an extra term has the name of another
      term.
    AssertionError: if an array has another rank, shape or type.
  """
  check_shape((None, None, None, None), hint="[M, H, W, C]", images=images)
  check_shape((images.shape[0], ...), labels=labels)

  alone = dataclasses.replace(config.objective, baseline="network", credit_decay=None)

  def validate_batch(index: jax.Array) -> tuple[LossParts, jax.Array]:
    unrolled = validation_rollout(
      key, params, images, index, config=config, model=model, preprocess=preprocess
    )
    parts = loss_parts(
      params,
      unrolled,
      labels[index],
      model=model_of(config, model),
      objective_config=alone,
      extra_terms=extra_terms,
    )
    return parts, losses.reward(unrolled.logits_t[-1], labels[index])

  parts, reward = map_batches(
    validate_batch, images.shape[0], batch_size=batch_size, sharding=sharding
  )
  _, metrics = mean_objective(
    parts,
    reward,
    objective_config=config.objective,
    term_weights=term_weights,
    extra_terms=extra_terms,
  )
  return metrics
