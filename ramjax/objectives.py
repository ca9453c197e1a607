"""The four objectives of the paper, composed in one place from the losses.

What is minimised is

  classification + reinforce + baseline + error_fit
    + scale · (lambda_1 · uncertainty + lambda_2 · intrinsic),

each term the mean over the examples. The last two are the paper's J_uncertainty and
J_intrinsic; an objective that lacks one gives it the weight 0. The error network is
fitted with every objective: its inputs are stopped, so that the rest of the model
does not notice, and any trained model can stop dynamically.
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from ramjax import losses, networks
from ramjax.config import ObjectiveConfig
from ramjax.rollouts import Rollout


class TermWeights(NamedTuple):
  """What the two extra terms count in the objective, as numbers of the program.

  In place of those of the configuration they make one program of runs that differ in
  objective or lambda alone: see `ramjax.many`. A term that is lacking has the weight 0.

  Attributes:
    uncertainty: scale · lambda_1.
    intrinsic: scale · lambda_2.
  """

  uncertainty: float | jax.Array  # []
  intrinsic: float | jax.Array  # []

  @classmethod
  def of(cls, config: ObjectiveConfig) -> TermWeights:
    """What an objective gives them."""
    return cls(config.uncertainty_weight, config.intrinsic_weight)


class LossParts(NamedTuple):
  """The terms of the objective, before weights and reductions, one an example."""

  classification: jax.Array  # [B]
  reinforce: jax.Array  # [B]
  baseline: jax.Array  # [B]
  error_fit: jax.Array  # [B]
  uncertainty: jax.Array  # [B]
  intrinsic: jax.Array  # [B]


def loss_parts(
  error_params: chex.ArrayTree,
  rollout: Rollout,
  label: jax.Array,
  *,
  objective_config: ObjectiveConfig,
) -> LossParts:
  """The terms of the objective for each example of a rollout.

  Args:
    error_params: parameters of the error network, `Params.error`, of the model that
      made the rollout.
    rollout: T glimpses at B images.
    label: true classes [B], integer in [0, K).
    objective_config: the objective.

  Returns:
    The terms, [B] each. Their gradients are routed as in the released code: baseline
    and policy learn without changing the state they read, the error fit teaches the
    error network alone, and the uncertainty term reaches what the error network
    looks at, and with `error_gradient="all"` its weights too. Which locations and
    which predictions count is said by `credit_last_location` and `intrinsic_steps`.
  """
  logits = rollout.logits_t[-1]
  credited = slice(None if objective_config.credit_last_location else -1)
  probs_t = rollout.probs_t
  reward = losses.reward(logits, label)
  fitted_error_t = networks.predict_error(
    error_params,
    jax.lax.stop_gradient(rollout.hidden_t),
    jax.lax.stop_gradient(probs_t),
  )
  predicted_error_t = rollout.predicted_error_t
  if objective_config.error_gradient == "state":
    predicted_error_t = networks.predict_error(
      jax.lax.stop_gradient(error_params), rollout.hidden_t, probs_t
    )
  prior = (
    None
    if objective_config.prior is None
    else jnp.array(objective_config.prior, logits.dtype)
  )
  intrinsic_t = losses.intrinsic_loss(
    rollout.logits_t if objective_config.intrinsic_steps == "all" else logits[None],
    prior,
  )
  return LossParts(
    classification=losses.classification_loss(logits, label),
    reinforce=losses.reinforce_loss(
      rollout.log_prob_t[credited], rollout.baseline_t[credited], reward
    ),
    baseline=losses.baseline_loss(rollout.baseline_t, reward),
    error_fit=losses.error_fit_loss(fitted_error_t, probs_t, label),
    uncertainty=losses.uncertainty_loss(predicted_error_t),
    intrinsic=jnp.mean(intrinsic_t, axis=0),
  )


def objective(
  error_params: chex.ArrayTree,
  rollout: Rollout,
  label: jax.Array,
  *,
  objective_config: ObjectiveConfig,
  term_weights: TermWeights | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """The loss of a rollout under one of the four objectives, and its parts.

  Args:
    error_params: parameters of the error network, `Params.error`, of the model that
      made the rollout.
    rollout: T glimpses at B images.
    label: true classes [B], integer in [0, K).
    objective_config: the objective.
    term_weights: weights of the extra terms; None for those of `objective_config`.

  Returns:
    The loss [], and metrics: `loss`, `accuracy` after the last glimpse, and
    `loss/<part>`, each part by itself, without its lambda.
  """
  return mean_objective(
    loss_parts(error_params, rollout, label, objective_config=objective_config),
    losses.reward(rollout.logits_t[-1], label),
    objective_config=objective_config,
    term_weights=term_weights,
  )


def mean_objective(
  parts: LossParts,
  reward: jax.Array,
  *,
  objective_config: ObjectiveConfig,
  term_weights: TermWeights | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """The loss of examples, and its metrics, from the terms of each example.

  Args:
    parts: the terms [B] each, see `loss_parts`.
    reward: 1 where the prediction after the last glimpse is correct, else 0 [B].
    objective_config: the objective.
    term_weights: weights of the extra terms; None for those of `objective_config`.

  Returns:
    The loss [] and the metrics of `objective`.
  """
  means = jax.tree.map(jnp.mean, parts)
  loss = means.classification + objective_config.reinforce_weight * means.reinforce
  loss += means.baseline + means.error_fit
  extra = means.uncertainty, means.intrinsic
  for factor, mean in zip(
    term_weights or TermWeights.of(objective_config), extra, strict=True
  ):
    if isinstance(factor, jax.Array) or factor != 0.0:  # what is lacking costs nothing
      loss += factor * mean
  metrics = {"loss": loss, "accuracy": jnp.mean(reward)}
  metrics |= {f"loss/{name}": value for name, value in means._asdict().items()}
  return loss, metrics
