"""Scores of a trained model: accuracy, norm of the state and calibration, as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

import ramjax
from experiments.runs.program import run_keys
from ramjax import data, parallel
from ramjax.config import Config, EvaluationConfig
from ramjax.networks import Params


def score(
  config: Config,
  params: Params,
  dataset: data.Dataset,
  *,
  evaluation_config: EvaluationConfig,
  glimpses: Sequence[int] | None = None,
  betas: Sequence[float] = (),
  split: str = "test",
  seed: int = 0,
  mesh: Mesh | None = None,
) -> dict[str, Any]:
  """Evaluates the trained model of a run on its dataset.

  Args:
    config: the run.
    params: its parameters.
    dataset: its data.
    evaluation_config: how it is evaluated.
    glimpses: numbers of glimpses to report, each from 1 to that of `evaluation_config`;
      None for all of them.
    betas: exploration rates of the stopping rule.
    split: `test`, or `validation` to choose among runs.
    seed: seed of first locations and policy.
    mesh: devices that divide the images; None for one device.

  Returns:
    `fixed`, an entry for each number of glimpses, and `dynamic`, one for each beta.
    Numbers have six digits.
  """
  images, labels = getattr(dataset, split)
  sharding = None
  if mesh is not None:
    everywhere = parallel.copied(mesh)
    params, images, labels = parallel.place((params, images, labels), everywhere)
    sharding = parallel.divided(mesh)
  evaluation = jax.device_get(
    ramjax.evaluate(
      run_keys(seed).generalization,
      params,
      images,
      labels,
      np.array(betas, np.float32),
      model=config.model,
      evaluation_config=evaluation_config,
      preprocess=dataset.preprocess,
      sharding=sharding,
    )
  )
  fixed = {
    name.removesuffix("_t"): values
    for name, values in evaluation._asdict().items()
    if name.endswith("_t")
  }
  return {
    "fixed": [
      {
        "num_glimpses": n,
        **{name: rounded(values[n - 1]) for name, values in fixed.items()},
      }
      for n in glimpses or range(1, len(evaluation.accuracy_t) + 1)
    ],
    "dynamic": [
      {"beta": beta, "mean_glimpses": rounded(mean), "accuracy": rounded(accuracy)}
      for beta, mean, accuracy in zip(
        betas, evaluation.mean_glimpses, evaluation.dynamic_accuracy, strict=True
      )
    ],
  }


def rounded(value: Any) -> float:
  """A float32 with six digits, which is its precision."""
  return float(f"{float(value):.6g}")
