"""Stopping rules, each a threshold on a score of p and u, and what they trade off."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

import ramjax
from experiments.runs import trainer
from experiments.studies.scores import rounded

_NUM_THRESHOLDS = 100

Score = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""From p [T, M, K], u [T, M, K] and temperatures [T] to scores [T, M]: the higher, the
surer is the model."""


def _bound(probs_t: jax.Array, error_t: jax.Array, _: jax.Array) -> jax.Array:
  """The largest β with which the paper's rule holds, see `ramjax.is_decided`.

  It holds for a rival i while p_i* - p_i > β (u_i* + u_i).
  """
  best = probs_t.argmax(axis=-1, keepdims=True)
  lead = jnp.take_along_axis(probs_t, best, axis=-1) - probs_t
  errors = jnp.take_along_axis(error_t, best, axis=-1) + error_t
  # Where both u are 0, any β will do, unless there is no lead.
  rates = jnp.where(errors > 0, lead / jnp.where(errors > 0, errors, 1.0), jnp.inf)
  rates = jnp.where((errors > 0) | (lead > 0), rates, 0.0)
  rivals = jnp.arange(probs_t.shape[-1])[None, None] != best
  return jnp.min(jnp.where(rivals, rates, jnp.inf), axis=-1)


SCORES: Mapping[str, Score] = {
  "bounds p ± βu (the paper)": _bound,
  "largest p": lambda p, u, t: p.max(axis=-1),
  "largest p, calibrated": lambda p, u, t: ramjax.temper(p, t[:, None]).max(axis=-1),
  "entropy of p": lambda p, u, t: -ramjax.entropy(p),
  "sum of u": lambda p, u, t: -u.sum(axis=-1),
  "u of the best class": lambda p, u, t: (
    -jnp.take_along_axis(u, p.argmax(axis=-1, keepdims=True), axis=-1)[..., 0]
  ),
}
"""The rules, and what each takes for certainty."""


def temperatures(prediction: ramjax.Prediction, labels: jax.Array) -> jax.Array:
  """The temperature of p after each glimpse [T], fitted to validation images."""
  return trainer.fit_temperatures(prediction.probs_t, labels)


def curves(
  prediction: ramjax.Prediction,
  labels: jax.Array,
  temperature_t: jax.Array,
) -> dict[str, list[dict[str, float]]]:
  """Mean number of glimpses and accuracy of each rule, over all its thresholds.

  Thresholds are quantiles of the scores. The model stops at the first glimpse whose score
  exceeds the threshold. The released rule is the paper's with its condition; its β are
  the thresholds of the paper's.

  Returns:
    For each rule points with `mean_glimpses` and `accuracy`, by increasing numbers.
  """
  probs_t, error_t, _ = prediction
  known_t = np.asarray(probs_t)
  right_t = known_t.argmax(axis=-1) == np.asarray(labels)
  right_t &= np.isfinite(known_t).all(axis=-1)  # what is not finite is wrong
  found = {}
  for name, score in SCORES.items():
    scores_t = np.asarray(jax.jit(score)(probs_t, error_t, temperature_t))
    thresholds = _quantiles(scores_t)
    found[name] = [_stop(scores_t > threshold, right_t) for threshold in thresholds]
    if score is _bound:
      rule = jax.jit(ramjax.is_decided_as_released)
      betas = thresholds[thresholds >= 0]
      found["p − βu (the released code)"] = [
        _stop(np.asarray(rule(probs_t, error_t, beta=beta)), right_t) for beta in betas
      ]
  return {name: _as_json(points) for name, points in found.items()}


def _quantiles(scores_t: np.ndarray) -> np.ndarray:
  finite = scores_t[np.isfinite(scores_t)]
  if not finite.size:  # as all bounds are where u is 0
    return np.zeros(1)
  return np.unique(np.quantile(finite, np.linspace(0, 1, _NUM_THRESHOLDS)))


def _stop(decided_t: np.ndarray, right_t: np.ndarray) -> tuple[float, float]:
  """Mean number of glimpses and accuracy of a rule [T, M] that stops where it holds."""
  taken = ramjax.first_decision(jnp.asarray(decided_t))
  right = ramjax.at_stop(jnp.asarray(right_t), taken)
  return float(taken.mean()), float(right.mean())


def _as_json(points: list[tuple[float, float]]) -> list[dict[str, float]]:
  return [
    {"mean_glimpses": rounded(mean), "accuracy": rounded(accuracy)}
    for mean, accuracy in sorted(set(points))
  ]


def area(
  points: Sequence[Mapping[str, float]], *, low: float, high: float
) -> float | None:
  """Mean accuracy of a rule over mean numbers of glimpses from `low` to `high`.

  None if its curve does not reach them.
  """
  x, y = (
    np.array([point[name] for point in points])
    for name in ("mean_glimpses", "accuracy")
  )
  if not len(x) or x[0] > low or x[-1] < high:
    return None
  return rounded(np.interp(np.linspace(low, high, 101), x, y).mean())
