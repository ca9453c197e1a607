"""What is measured of a trained model: fixed and dynamic accuracy, norms, calibration."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

import ramjax
from experiments.runs.program import run_keys
from ramjax import data
from ramjax.config import Config
from ramjax.networks import Params


def score(
  config: Config,
  params: Params,
  dataset: data.Dataset,
  *,
  glimpses: Sequence[int],
  betas: Sequence[float] = (),
  num_samples: int = 1,
  location_policy: str = "sample",
  split: str = "test",
  seed: int = 0,
) -> dict[str, Any]:
  """How a trained model does on its images, in the form that results have on disk.

  Args:
    config: the run.
    params: its parameters.
    dataset: its data.
    glimpses: numbers of glimpses to tell of, each at least 1.
    betas: exploration rates of the stopping rule, which looks on to the largest of
      `glimpses`.
    num_samples: rollouts averaged, M.
    location_policy: `sample` or `mean`.
    split: `test`, or `validation` to choose among runs.
    seed: seed of first locations and policy.

  Returns:
    `fixed`, an entry for each number of glimpses, and `dynamic`, one for each beta.
  """
  images, labels = getattr(dataset, split)
  prediction = ramjax.predict(
    run_keys(seed).generalization,
    params,
    jnp.asarray(images),
    model_config=config.model,
    num_glimpses=max(glimpses),
    preprocess=dataset.preprocess,
    num_samples=num_samples,
    location_policy=location_policy,
  )
  told = jnp.array(glimpses) - 1
  fixed, dynamic = jax.device_get(
    _summaries(prediction, jnp.asarray(labels), told, jnp.array(betas, jnp.float32))
  )
  return {
    "fixed": [
      {
        "num_glimpses": n,
        **{name: rounded(values[i]) for name, values in fixed.items()},
      }
      for i, n in enumerate(glimpses)
    ],
    "dynamic": [
      {
        "beta": beta,
        **{name: rounded(values[i]) for name, values in dynamic.items()},
      }
      for i, beta in enumerate(betas)
    ],
  }


def rounded(value: Any) -> float:
  """A float32 as a number of six digits, which is what it holds."""
  return float(f"{float(value):.6g}")


@jax.jit
def _summaries(
  prediction: ramjax.Prediction, labels: jax.Array, told: jax.Array, betas: jax.Array
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
  """What there is to say of predictions, after the glimpses `told` and for each beta."""
  probs_t, predicted_error_t, norm_t = prediction
  correct_t = (probs_t.argmax(-1) == labels[None]).astype(jnp.float32)
  fit = ramjax.uncertainty_fit(predicted_error_t[told], probs_t[told], labels)
  calibration_error = functools.partial(ramjax.expected_calibration_error, label=labels)
  fixed = {
    "accuracy": correct_t[told].mean(-1),
    "hidden_norm": norm_t[told].mean(-1),
    "calibration_error": jax.lax.map(calibration_error, probs_t[told]),
    "uncertainty_correlation": fit.correlation_t,
    "uncertainty_deviation": fit.deviation_t,
  }

  def stop(beta: jax.Array) -> dict[str, jax.Array]:
    taken = ramjax.stopping_time(probs_t, predicted_error_t, beta=beta)
    return {
      "mean_glimpses": taken.mean(dtype=jnp.float32),
      "accuracy": ramjax.at_stop(correct_t, taken).mean(),
    }

  return fixed, jax.lax.map(stop, betas)
