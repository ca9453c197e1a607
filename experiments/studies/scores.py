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
  classes: bool = False,
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
    classes: whether to report each class, too.

  Returns:
    `fixed`, an entry for each number of glimpses, and `dynamic`, one for each beta.
    Numbers have six digits. With `classes` an entry of `fixed` also has
    `class_images`, the number of images of each class, and `balanced_accuracy`,
    `class_accuracy` and `confusion`, see `ramjax.confusion`.
  """
  images, labels = getattr(dataset, split)
  sharding = None
  if mesh is not None:
    everywhere = parallel.copied(mesh)
    params, images, labels = parallel.place((params, images, labels), everywhere)
    sharding = parallel.divided(mesh)
  prediction = ramjax.predict(
    run_keys(seed).generalization,
    params,
    images,
    model=config.model,
    evaluation_config=evaluation_config,
    preprocess=dataset.preprocess,
    sharding=sharding,
  )
  evaluation = jax.device_get(
    _summarize(prediction, labels, np.array(betas, np.float32))
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
        "not_finite": int(evaluation.not_finite_t[n - 1]),
        **(_of_classes(prediction.probs_t[n - 1], labels) if classes else {}),
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


_summarize = jax.jit(ramjax.summarize)


@jax.jit
def _confusion(
  probs: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  return (
    ramjax.balanced_accuracy(probs, labels),
    ramjax.class_accuracy(probs, labels),
    ramjax.confusion_matrix(probs, labels),
  )


def _of_classes(probs: jax.Array, labels: jax.Array) -> dict[str, Any]:
  """What beliefs [M, K] say of each class, as JSON."""
  balanced, accuracy, confusion = jax.device_get(_confusion(probs, labels))
  return {
    "class_images": np.bincount(labels, minlength=len(accuracy)).tolist(),
    "balanced_accuracy": rounded(balanced),
    "class_accuracy": list(map(rounded, accuracy)),
    "confusion": confusion.tolist(),
  }


def rounded(value: Any) -> float:
  """A float32 with six digits, which is its precision."""
  return float(f"{float(value):.6g}")
