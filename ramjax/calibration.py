"""Calibration of the probabilities p and of the self-uncertainty u.

All functions are pure summaries of arrays that `ramjax.predict` or `ramjax.rollout`
return.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ramjax import losses
from ramjax.checks import TIME_FIRST, check_shape, check_type


class Reliability(NamedTuple):
  """Sums over the predictions in each bin of confidence.

  `confidence / number` is the mean confidence of a bin and `correct / number` its
  accuracy: the two axes of a reliability diagram. To combine batches, add their fields.

  Attributes:
    number: number of predictions.
    confidence: sum of their confidences, max_i p_i.
    correct: number of correct predictions.
  """

  number: jax.Array  # [num_bins]
  confidence: jax.Array  # [num_bins]
  correct: jax.Array  # [num_bins]


def reliability(
  probs: jax.Array, label: jax.Array, *, num_bins: int = 15
) -> Reliability:
  """The reliability diagram of some predictions, in bins of equal width.

  The confidence of a prediction is its highest probability. Bin m of n holds the
  confidences in ((m - 1) / n, m / n] (Guo et al., 2017, section 2,
  https://arxiv.org/abs/1706.04599).

  Args:
    probs: softmax outputs p [M, K] after one glimpse; use `jax.vmap` for a time axis.
    label: true classes [M], integer in [0, K).
    num_bins: number of bins, at least 1; Guo et al. use 15.

  Returns:
    Sums in each bin, float.

  Raises:
    ValueError: if `num_bins` is less than one.
    AssertionError: if an array has the wrong rank, shape or dtype.

  >>> import jax.numpy as jnp
  >>> probs = jnp.array([[0.5, 0.5], [0.75, 0.25], [1.0, 0.0]])
  >>> bins = reliability(probs, jnp.array([1, 0, 0]), num_bins=2)
  >>> bins.number.tolist(), bins.confidence.tolist(), bins.correct.tolist()
  ([1.0, 2.0], [0.5, 1.75], [0.0, 2.0])
  """
  if num_bins < 1:
    raise ValueError(f"num_bins must be at least 1, not {num_bins}")
  check_shape((None, None), hint="for a time axis, use jax.vmap", probs=probs)
  _check(probs, label)
  confidence = jnp.max(probs, axis=-1)
  correct = losses.reward(probs, label)
  index = jnp.ceil(confidence * num_bins).astype(jnp.int32) - 1
  # A matrix product, not a scatter: its sums are the same on every device and run.
  in_bin = jax.nn.one_hot(jnp.clip(index, 0, num_bins - 1), num_bins, axis=0)
  sums = [jnp.ones_like(confidence), confidence, correct]
  return Reliability(
    *(jnp.matmul(in_bin.astype(probs.dtype), x, precision="highest") for x in sums)
  )


def expected_calibration_error(
  probs: jax.Array, label: jax.Array, *, num_bins: int = 15
) -> jax.Array:
  """Expected calibration error (ECE): mean gap between confidence and accuracy.

  ECE = sum_m |B_m| / M |accuracy(B_m) - confidence(B_m)| over the bins B_m of
  `reliability` (Guo et al., 2017, equation 3, https://arxiv.org/abs/1706.04599). It
  measures the predicted class only and grows slightly with the number of bins.

  Args:
    probs: softmax outputs p [M, K] after one glimpse; use `jax.vmap` for a time axis.
    label: true classes [M], integer in [0, K).
    num_bins: number of bins, at least 1.

  Returns:
    The error [], from 0 (calibrated) to 1; NaN if a probability is not finite.

  Raises:
    ValueError: if `num_bins` is less than one.
    AssertionError: if an array has the wrong rank, shape or dtype.

  >>> import jax.numpy as jnp
  >>> probs = jnp.array([[0.75, 0.25], [0.25, 0.75]])  # confidence 0.75, accuracy 0.5
  >>> float(expected_calibration_error(probs, jnp.array([0, 0])))
  0.25
  """
  bins = reliability(probs, label, num_bins=num_bins)
  return jnp.sum(jnp.abs(bins.correct - bins.confidence)) / label.shape[0]


class UncertaintyFit(NamedTuple):
  """Agreement of the self-uncertainty u with the true error, after each of T glimpses.

  Attributes:
    correlation_t: Pearson correlation, in [-1, 1]; NaN if one of the two is constant,
      for example if u has collapsed to 0.
    deviation_t: mean absolute difference, at least 0. Both are NaN if a probability is
      not finite.
  """

  correlation_t: jax.Array  # [T]
  deviation_t: jax.Array  # [T]


def uncertainty_fit(
  predicted_error_t: jax.Array, probs_t: jax.Array, label: jax.Array
) -> UncertaintyFit:
  """Agreement of the self-uncertainty u with the true error |onehot(y) - p|.

  The error network is trained to predict this error (the paper, section 3). All M K
  pairs of an example and a class count equally, so only one pair in K belongs to a true
  class.

  Args:
    predicted_error_t: self-uncertainties u [T, M, K].
    probs_t: softmax outputs p [T, M, K].
    label: true classes [M], integer in [0, K).

  Returns:
    Correlation and mean absolute difference after each glimpse.

  Raises:
    AssertionError: if an array has the wrong rank, shape or dtype.

  >>> import jax.numpy as jnp
  >>> probs_t = jnp.array([[[0.75, 0.25], [0.5, 0.5]]])  # one glimpse at two images
  >>> error_t = jnp.array([[[0.25, 0.25], [0.5, 0.5]]])  # for the classes 0 and 0
  >>> fit = uncertainty_fit(error_t / 2, probs_t, jnp.array([0, 0]))
  >>> round(float(fit.correlation_t[0]), 4), float(fit.deviation_t[0])
  (1.0, 0.1875)
  """
  check_shape((None, *label.shape, None), hint=TIME_FIRST, probs_t=probs_t)
  check_shape(probs_t.shape, predicted_error_t=predicted_error_t)
  check_type(float, predicted_error_t=predicted_error_t)
  _check(probs_t[0], label)
  truth = jax.nn.one_hot(label, probs_t.shape[-1], dtype=probs_t.dtype)
  error_t = jnp.abs(truth[None] - probs_t)
  pairs = (1, 2)
  return UncertaintyFit(
    correlation_t=_correlation(predicted_error_t, error_t, pairs),
    deviation_t=jnp.mean(jnp.abs(predicted_error_t - error_t), axis=pairs),
  )


def temper(probs: jax.Array, temperature: jax.Array) -> jax.Array:
  """Probabilities at a temperature T: the softmax of log(p) / T.

  The order of the classes stays. With λ2 > 0 a model is asked to be unsure, and its
  probabilities are low where it is right. A temperature below 1 makes a confidence of it.

  Args:
    probs: softmax outputs p [..., K].
    temperature: temperatures [...], or one [], above 0.

  Returns:
    Probabilities [..., K].

  >>> import jax.numpy as jnp
  >>> tempered = temper(jnp.array([0.25, 0.5, 0.25]), jnp.float32(0.5))
  >>> [round(prob, 3) for prob in tempered.tolist()]  # p², normalised
  [0.167, 0.667, 0.167]
  """
  temperature = jnp.broadcast_to(temperature, probs.shape[:-1])
  return jax.nn.softmax(_log(probs) / temperature[..., None])


def fit_temperature(probs: jax.Array, label: jax.Array) -> jax.Array:
  """The temperature at which probabilities have the highest likelihood.

  Fit it to images that were not trained on (Guo et al., 2017, section 4.2,
  https://arxiv.org/abs/1706.04599). The cross entropy is convex in 1 / T; this finds the
  zero of its derivative by bisection.

  Args:
    probs: softmax outputs p [M, K] after one glimpse; use `jax.vmap` for a time axis.
    label: true classes [M], integer in [0, K).

  Returns:
    The temperature [], in [1/150, 150]; NaN if a probability is not finite.

  Raises:
    AssertionError: if an array has the wrong rank, shape or dtype.

  >>> import jax.numpy as jnp
  >>> probs = jnp.array([[0.6, 0.4]] * 5)  # right in four of five: .8, odds 4 to 1
  >>> temperature = fit_temperature(probs, jnp.array([0, 0, 0, 0, 1]))
  >>> [round(prob, 3) for prob in temper(probs[0], temperature).tolist()]
  [0.8, 0.2]
  """
  check_shape((None, None), hint="for a time axis, use jax.vmap", probs=probs)
  _check(probs, label)
  log_probs = _log(probs)
  of_label = jnp.take_along_axis(log_probs, label[:, None], axis=-1)[:, 0]

  def halve(_: int, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    low, high = ends
    middle = (low + high) / 2
    mean = jnp.sum(temper(probs, jnp.exp(middle)) * log_probs, axis=-1)
    too_sharp = jnp.mean(mean - of_label) > 0
    return jnp.where(too_sharp, middle, low), jnp.where(too_sharp, high, middle)

  end = jnp.log(150.0).astype(probs.dtype)
  low, high = jax.lax.fori_loop(0, 40, halve, (-end, end))
  found = jnp.exp((low + high) / 2)
  return jnp.where(jnp.isfinite(jnp.max(probs)), found, jnp.nan)


def _log(probs: jax.Array) -> jax.Array:
  """Logarithms that are finite where a probability has underflowed to 0."""
  return jnp.log(jnp.maximum(probs, jnp.finfo(probs.dtype).tiny))


def _correlation(x: jax.Array, y: jax.Array, axis: tuple[int, ...]) -> jax.Array:
  """Pearson correlation of `x` and `y` over `axis`; NaN where one is constant."""
  varies = (jnp.ptp(x, axis=axis) > 0) & (jnp.ptp(y, axis=axis) > 0)
  x -= jnp.mean(x, axis=axis, keepdims=True)
  y -= jnp.mean(y, axis=axis, keepdims=True)
  covariance = jnp.mean(x * y, axis=axis)
  variances = jnp.mean(x * x, axis=axis) * jnp.mean(y * y, axis=axis)
  return jnp.where(varies, covariance / jnp.sqrt(variances), jnp.nan)


def _check(probs: jax.Array, label: jax.Array) -> None:
  check_type(float, probs=probs)
  check_type(int, label=label)
  check_shape(probs.shape[:-1], label=label)
