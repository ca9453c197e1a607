"""Statistics over runs: confidence intervals and comparisons paired over the seeds."""

from __future__ import annotations

import math

import numpy as np
import scipy.stats

_CONFIDENCE = 0.95


def half_width(values: np.ndarray) -> np.ndarray:
  """Half-width of the 95 % confidence interval of a mean over runs (Student's t).

  From values [S, ...], one for each run, to half-widths [...]; NaN for a single run.
  """
  count = len(values)
  if count < 2:
    return np.full(values.shape[1:], np.nan)
  quantile = scipy.stats.t.ppf(0.5 + _CONFIDENCE / 2, count - 1)
  return quantile * values.std(axis=0, ddof=1) / np.sqrt(count)


def prediction_half_width(values: np.ndarray) -> float:
  """Half-width of the interval that holds one more run with 95 % (Student's t).

  It is for a single published value beside the values [S] of our runs; NaN for one run.
  """
  return float(half_width(values) * np.sqrt(len(values) + 1))


def paired(differences: np.ndarray) -> dict[str, float]:
  """Paired t-test of two variants of training, one difference for each seed [S].

  Returns:
    `difference` (the mean), `half_width` of its 95 % confidence interval and the
    two-sided `p_value`; the last two are NaN for a single seed.
  """
  test = scipy.stats.ttest_1samp(differences, 0.0) if len(differences) > 1 else None
  return {
    "difference": float(differences.mean()),
    "half_width": float(half_width(differences)),
    "p_value": float(test.pvalue) if test else math.nan,
  }
