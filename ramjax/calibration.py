"""Whether a model knows what it knows: calibration of p, and of the self-uncertainty u.

Both are summaries of predictions that are there already, as pure functions of arrays.
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp


class Reliability(NamedTuple):
  """Sums over the predictions in each bin of confidence; those of parts add up.

  Divided by `number`, `confidence` and `correct` are the mean confidence and the
  accuracy of a bin: the two sides of a reliability diagram.

  Attributes:
    number: number of predictions.
    confidence: sum of their confidences, max_i p_i.
    correct: number of right ones.
  """

  number: jax.Array  # [num_bins]
  confidence: jax.Array  # [num_bins]
  correct: jax.Array  # [num_bins]


def reliability(
  probs: jax.Array, label: jax.Array, *, num_bins: int = 15
) -> Reliability:
  """Predictions in bins of equal width by their confidence, the highest probability.

  Guo et al. (2017), section 2, https://arxiv.org/abs/1706.04599: bin m of M holds the
  confidences in ((m - 1) / M, m / M].

  Args:
    probs: softmax outputs p [M, K] after some glimpse; `jax.vmap` the time axis.
    label: true classes [M], integer in [0, K).
    num_bins: number of bins, at least 1; Guo et al. have 15.

  Returns:
    The sums, float.

  Raises:
    ValueError: if there is no bin.
    AssertionError: if an array has another rank, shape or type.
  """
  if num_bins < 1:
    raise ValueError(f"num_bins must be at least 1, not {num_bins}")
  chex.assert_rank(probs, 2)
  _check(probs, label)
  confidence = jnp.max(probs, axis=-1)
  correct = (jnp.argmax(probs, axis=-1) == label).astype(probs.dtype)
  index = jnp.ceil(confidence * num_bins).astype(jnp.int32) - 1
  # A product and not a scatter: the same sums on every device and in every run.
  in_bin = jax.nn.one_hot(jnp.clip(index, 0, num_bins - 1), num_bins, axis=0)
  sums = [jnp.ones_like(confidence), confidence, correct]
  return Reliability(
    *(jnp.matmul(in_bin.astype(probs.dtype), x, precision="highest") for x in sums)
  )


def expected_calibration_error(
  probs: jax.Array, label: jax.Array, *, num_bins: int = 15
) -> jax.Array:
  """How far confidence and accuracy are apart, over bins of equal width.

  ECE = sum_m |B_m| / M |accuracy(B_m) - confidence(B_m)|, Guo et al. (2017), equation 3,
  https://arxiv.org/abs/1706.04599, with the bins of `reliability`. It is about the
  predicted class alone, and grows a little with the number of bins.

  Args:
    probs: softmax outputs p [M, K] after some glimpse; `jax.vmap` the time axis.
    label: true classes [M], integer in [0, K).
    num_bins: number of bins, at least 1.

  Returns:
    The error [], from 0 (calibrated) to 1.

  Raises:
    ValueError: if there is no bin.
    AssertionError: if an array has another rank, shape or type.

  >>> import jax.numpy as jnp
  >>> probs = jnp.array([[0.75, 0.25], [0.25, 0.75]])  # 75 % sure, and right once
  >>> float(expected_calibration_error(probs, jnp.array([0, 0])))
  0.25
  """
  bins = reliability(probs, label, num_bins=num_bins)
  return jnp.sum(jnp.abs(bins.correct - bins.confidence)) / label.shape[0]


class UncertaintyFit(NamedTuple):
  """How well the self-uncertainty predicts the error, after each of T glimpses.

  Attributes:
    correlation_t: Pearson correlation of the two, in [-1, 1]; NaN where one of them
      does not vary, as where u has collapsed to 0.
    deviation_t: mean absolute deviation of one from the other, at least 0.
  """

  correlation_t: jax.Array  # [T]
  deviation_t: jax.Array  # [T]


def uncertainty_fit(
  predicted_error_t: jax.Array, probs_t: jax.Array, label: jax.Array
) -> UncertaintyFit:
  """How well u predicts the true error |onehot(y) - p|, what it was trained to do.

  The paper, section 3, takes u for the residual that is unknown at test time. Each of
  the M K pairs of an example and a class counts as one: with K classes one pair in K
  is that of the true class.

  Args:
    predicted_error_t: self-uncertainties u [T, M, K].
    probs_t: softmax outputs p [T, M, K].
    label: true classes [M], integer in [0, K).

  Returns:
    Correlation and mean absolute deviation after each glimpse.

  Raises:
    AssertionError: if an array has another rank, shape or type.
  """
  chex.assert_rank(probs_t, 3)
  chex.assert_equal_shape([predicted_error_t, probs_t])
  chex.assert_type(predicted_error_t, float)
  _check(probs_t[0], label)
  truth = jax.nn.one_hot(label, probs_t.shape[-1], dtype=probs_t.dtype)
  error_t = jnp.abs(truth[None] - probs_t)
  pairs = (1, 2)
  return UncertaintyFit(
    correlation_t=_correlation(predicted_error_t, error_t, pairs),
    deviation_t=jnp.mean(jnp.abs(predicted_error_t - error_t), axis=pairs),
  )


def _correlation(x: jax.Array, y: jax.Array, axis: tuple[int, ...]) -> jax.Array:
  """Pearson correlation of `x` and `y` over some axes; NaN where one does not vary."""
  varies = (jnp.ptp(x, axis=axis) > 0) & (jnp.ptp(y, axis=axis) > 0)
  x -= jnp.mean(x, axis=axis, keepdims=True)
  y -= jnp.mean(y, axis=axis, keepdims=True)
  covariance = jnp.mean(x * y, axis=axis)
  variances = jnp.mean(x * x, axis=axis) * jnp.mean(y * y, axis=axis)
  return jnp.where(varies, covariance / jnp.sqrt(variances), jnp.nan)


def _check(probs: jax.Array, label: jax.Array) -> None:
  chex.assert_type([probs, label], [float, int])
  chex.assert_shape(label, probs.shape[:-1])
