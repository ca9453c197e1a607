"""Scores of a trained model: accuracy, norm of the state and calibration, as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

import ramjax
from experiments.runs.program import run_keys
from experiments.runs.trained import TrainedRun
from ramjax import parallel
from ramjax.config import Config, EvaluationConfig
from ramjax.networks import Params


def predict(
  run: TrainedRun,
  evaluation_config: EvaluationConfig,
  *,
  split: str = "test",
  seed: int = 0,
  mesh: Mesh | None = None,
) -> tuple[ramjax.Prediction, Any]:
  """Predictions of a run for the images of a split, and their labels [M].

  Args:
    run: the run, with its data.
    evaluation_config: how it is evaluated.
    split: `test`, or `validation` to choose among runs.
    seed: seed of first locations and policy.
    mesh: devices that divide the images; None for one device.
  """
  params, images, labels, sharding = _placed(run, split, mesh)
  prediction = ramjax.predict(
    run_keys(seed).generalization,
    params,
    images,
    model=run.config.model,
    evaluation_config=evaluation_config,
    preprocess=run.dataset.preprocess,
    sharding=sharding,
  )
  return prediction, labels


def late_noise(config: Config) -> tuple[float, ...]:
  """All of the policy's noise for as many glimpses as in training, then twice as much."""
  return (1.0,) * config.train.num_glimpses + (2.0,)


def score(
  run: TrainedRun,
  evaluation_config: EvaluationConfig,
  *,
  glimpses: Sequence[int] | None = None,
  betas: Sequence[float] = (),
  classes: bool = False,
  **where: Any,
) -> dict[str, Any]:
  """Evaluates a run.

  Args:
    run: the run, with its data.
    evaluation_config: how it is evaluated.
    glimpses: numbers of glimpses to report, each from 1 to that of `evaluation_config`;
      None for all of them.
    betas: exploration rates of the stopping rule.
    classes: whether to report each class, too.
    **where: `split`, `seed` and `mesh`, see `predict`.

  Returns:
    `fixed`, an entry for each number of glimpses, and `dynamic`, one for each beta.
    Numbers have six digits. With `classes` an entry of `fixed` also has
    `class_images`, the number of images of each class, and `balanced_accuracy`,
    `class_accuracy` and `confusion`, see `ramjax.confusion`.
  """
  prediction, labels = predict(run, evaluation_config, **where)
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
    "dynamic": _dynamic(betas, evaluation),
  }


def score_as_released(
  run: TrainedRun,
  evaluation_config: EvaluationConfig,
  *,
  betas: Sequence[float] = (),
  split: str = "test",
  seed: int = 0,
  mesh: Mesh | None = None,
) -> dict[str, Any]:
  """Evaluates a run under the protocol of the released code.

  Arguments are those of `score`.

  Returns:
    `fixed`, the accuracy with each number of glimpses, and `dynamic`, an entry for each
    beta, see `ramjax.summarize_as_released`. Numbers have six digits.
  """
  params, images, labels, sharding = _placed(run, split, mesh)
  evaluation = jax.device_get(
    ramjax.evaluate_as_released(
      run_keys(seed).generalization,
      params,
      images,
      labels,
      np.array(betas, np.float32),
      model=run.config.model,
      evaluation_config=evaluation_config,
      preprocess=run.dataset.preprocess,
      sharding=sharding,
    )
  )
  return {
    "fixed": [
      {"num_glimpses": n, "accuracy": rounded(accuracy)}
      for n, accuracy in enumerate(evaluation.accuracy_t, start=1)
    ],
    "dynamic": _dynamic(betas, evaluation),
  }


def _placed(
  run: TrainedRun, split: str, mesh: Mesh | None
) -> tuple[Params, Any, Any, jax.sharding.NamedSharding | None]:
  """Parameters, images and labels on the devices, and how these divide the images."""
  images, labels = getattr(run.dataset, split)
  if mesh is None:
    return run.params, images, jnp.asarray(labels), None
  placed = parallel.place((run.params, images, labels), parallel.copied(mesh))
  return *placed, parallel.divided(mesh)


def _dynamic(
  betas: Sequence[float], evaluation: ramjax.Evaluation | ramjax.ReleasedEvaluation
) -> list[dict[str, float]]:
  """The results of the stopping rule, as JSON."""
  return [
    {"beta": beta, "mean_glimpses": rounded(mean), "accuracy": rounded(accuracy)}
    for beta, mean, accuracy in zip(
      betas, evaluation.mean_glimpses, evaluation.dynamic_accuracy, strict=True
    )
  ]


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
  """What probabilities [M, K] say of each class, as JSON."""
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
