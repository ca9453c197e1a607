"""The four objectives of the paper, built from the losses.

Training minimises

  classification + reinforce + baseline + error_fit
    + scale · (lambda_1 · uncertainty + lambda_2 · intrinsic),

where each term is a mean over the examples. The last two terms are the paper's
-J_uncertainty and -J_intrinsic; an objective without one of them gives it the weight 0.
Every objective trains the error network, so every trained model can stop dynamically.
The inputs of the error network are stopped in `error_fit`, so this term does not change
the rest of the model.

**Which gradient goes where**, as in the released code:

| term of the paper, section 3 | function | its gradient reaches |
|---|---|---|
| J_original: cross entropy of the last prediction | `ramjax.classification_loss` | glimpse, core and action network |
| J_original: policy gradient | `ramjax.reinforce_loss` | location network |
| J_auxiliary: baseline of the policy gradient | `ramjax.baseline_loss` | baseline network |
| J_auxiliary: u learns the error of the prediction | `ramjax.error_fit_loss` | error network |
| J_uncertainty = −λ1 Σ u(x)_i | `ramjax.uncertainty_loss` | glimpse, core, action and (unless `error_gradient="state"`) error network |
| J_intrinsic = λ2 Σ log f(x)_i / K | `ramjax.intrinsic_loss` | glimpse, core and action network |

Locations, rewards, advantages and targets are constants. The location and the baseline
network read the state h without sending a gradient back.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ramjax import losses, networks
from ramjax.config import ObjectiveConfig
from ramjax.rollouts import Rollout


class TermWeights(NamedTuple):
  """Weights of the two extra terms of the objective; they may be traced.

  With traced weights, runs that differ only in objective or lambda share one program
  (`ramjax.train_chunks`). An absent term has the weight 0.

  Attributes:
    uncertainty: scale · lambda_1.
    intrinsic: scale · lambda_2.
  """

  uncertainty: float | jax.Array  # []
  intrinsic: float | jax.Array  # []

  @classmethod
  def of(cls, config: ObjectiveConfig) -> TermWeights:
    """The weights that a configuration defines."""
    return cls(config.uncertainty_weight, config.intrinsic_weight)


class LossParts(NamedTuple):
  """The terms of the objective for each example, unweighted.

  Attributes:
    classification: cross entropy of the prediction after the last glimpse.
    reinforce: policy gradient loss.
    baseline: squared error of the predicted reward.
    error_fit: squared error of the self-uncertainty u.
    uncertainty: sum of |u| over glimpses and classes.
    intrinsic: cross entropy of the prior and the prediction.
  """

  classification: jax.Array  # [B]
  reinforce: jax.Array  # [B]
  baseline: jax.Array  # [B]
  error_fit: jax.Array  # [B]
  uncertainty: jax.Array  # [B]
  intrinsic: jax.Array  # [B]


def loss_parts(
  error_params: networks.PyTree,
  rollout: Rollout,
  label: jax.Array,
  *,
  objective_config: ObjectiveConfig,
) -> LossParts:
  """The terms of the objective for each example of a rollout.

  `ramjax.objectives` has a table of the networks that each gradient reaches. The settings
  `credit_last_location` and `intrinsic_steps` select the locations that REINFORCE
  credits and the predictions in the intrinsic term.

  Args:
    error_params: parameters of the error network, `Params.error`, of the same model as
      the rollout.
    rollout: T glimpses at each of B images.
    label: true classes [B], integer in [0, K).
    objective_config: the objective.

  Returns:
    The terms, [B] each.
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
  error_params: networks.PyTree,
  rollout: Rollout,
  label: jax.Array,
  *,
  objective_config: ObjectiveConfig,
  term_weights: TermWeights | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """The loss of a rollout under one of the four objectives, and metrics.

  Args:
    error_params: parameters of the error network, `Params.error`, of the same model as
      the rollout.
    rollout: T glimpses at each of B images.
    label: true classes [B], integer in [0, K).
    objective_config: the objective.
    term_weights: weights of the two extra terms; None uses those of `objective_config`.

  Returns:
    The loss [], and metrics: `loss`, `accuracy` after the last glimpse, and
    `loss/<term>` for each term of `LossParts`, unweighted.
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
    term_weights: weights of the two extra terms; None uses those of `objective_config`.

  Returns:
    The loss [] and the metrics of `objective`.
  """
  means = jax.tree.map(jnp.mean, parts)
  loss = means.classification + means.reinforce
  loss += means.baseline + means.error_fit
  extra = means.uncertainty, means.intrinsic
  for factor, mean in zip(
    term_weights or TermWeights.of(objective_config), extra, strict=True
  ):
    if isinstance(factor, jax.Array) or factor != 0.0:  # an absent term costs nothing
      loss += factor * mean
  metrics = {"loss": loss, "accuracy": jnp.mean(reward)}
  metrics |= {f"loss/{name}": value for name, value in means._asdict().items()}
  return loss, metrics
