"""The four objectives of the paper, built from the losses.

Training minimises

  classification + reinforce + baseline + error_fit
    + scale · (lambda_1 · uncertainty + lambda_2 · intrinsic)
    + sum of weight · term over the terms of one's own (`ExtraTerm`),

where each term is a mean over the examples. The terms of the second line are the paper's
-J_uncertainty and -J_intrinsic; an objective without one of them gives it the weight 0.
Every objective trains the error network, so every trained model can stop dynamically.
The inputs of the error network are stopped in `error_fit`, so this term does not change
the rest of the model.

**Which gradient goes where**, as in the released code:

| term of the paper, section 3 | function | its gradient reaches |
|---|---|---|
| J_original: cross entropy of the last prediction | `ramjax.classification_loss` | glimpse, core and action network |
| J_original: policy gradient | `ramjax.reinforce_loss` | location network, and a share `location_gradient` (0) core and glimpse network |
| J_auxiliary: baseline of the policy gradient | `ramjax.baseline_loss` | baseline network |
| J_auxiliary: u learns the error of the prediction | `ramjax.error_fit_loss` | error network |
| J_uncertainty = −λ1 Σ u(x)_i | `ramjax.uncertainty_loss` | glimpse, core, action and (unless `error_gradient="state"`) error network |
| J_intrinsic = λ2 Σ log f(x)_i / K | `ramjax.intrinsic_loss` | glimpse, core and action network |

Locations, rewards, advantages and targets are constants. The location and the baseline
network read the state h without sending a gradient back.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self, TypeVar, cast

import jax
import jax.numpy as jnp

from ramjax import losses
from ramjax.checks import check_shape, check_type
from ramjax.config import ConfigError, ModelConfig, ObjectiveConfig
from ramjax.model import Model, PyTree
from ramjax.ram import as_model
from ramjax.rollouts import Rollout, predict_errors

F = TypeVar("F", bound=Callable[..., Any])


class TermWeights(NamedTuple):
  """Weights of the uncertainty and the intrinsic term; they may be traced.

  With traced weights, runs that differ only in them share one program
  (`ramjax.train_chunks`). An absent term has the weight 0.

  Attributes:
    uncertainty: scale · lambda_1.
    intrinsic: scale · lambda_2.
    location_gradient: see `ramjax.rollout`; None for that of the configuration.
  """

  uncertainty: float | jax.Array  # []
  intrinsic: float | jax.Array  # []
  location_gradient: float | jax.Array | None = None  # []

  @classmethod
  def of(cls, config: ObjectiveConfig) -> Self:
    """The weights of the two terms that a configuration defines."""
    return cls(config.uncertainty_weight, config.intrinsic_weight)


def location_gradient_of(
  config: ObjectiveConfig, weights: TermWeights | None
) -> float | jax.Array:
  """The share of REINFORCE's gradient that goes into the state, see `ramjax.rollout`.

  Raises:
    ConfigError: if the configuration says 1/N, which a whole `Config` makes a number.
  """
  if weights is not None and weights.location_gradient is not None:
    return weights.location_gradient
  if isinstance(config.location_gradient, str):
    raise ConfigError(
      f"location_gradient {config.location_gradient} needs a Config, which knows N"
    )
  return config.location_gradient


class ExtraTerm(NamedTuple):
  """A term of one's own in the objective: a function and its weight.

  `extra_terms={"name": ExtraTerm(function, weight)}`, or `{"name": (function, weight)}`,
  adds weight times the mean of `function(rollout, labels)` to the loss, and the mean as
  `loss/name` to the metrics. The gradient flows through the rollout into what the term
  reads. States and logits reach the glimpse network and the core, self-uncertainties also
  the error network, log-densities the location network alone, and predicted rewards the
  baseline alone. Locations are constants.

  In a jitted function the term is a pytree. The function is a part of its structure, so
  define it once: another function object, such as a new lambda in each call, is
  compiled anew. A weight that is a Python number is a constant of the program, too, and 0
  only logs the term. A weight that is an array is traced: it can change without a new
  compilation, and differ between the runs of `ramjax.train_chunks`.

  Attributes:
    function: from a rollout of B images and their labels to one value for each image,
      [B], float.
    weight: number or array [].

  >>> import jax
  >>> import jax.numpy as jnp
  >>> def confidence(rollout, labels):  # the mean over the glimpses of max p
  ...   return rollout.probs_t.max(axis=-1).mean(axis=0)
  >>> jax.tree.leaves({"confidence": ExtraTerm(confidence, 0.1)})
  []
  >>> jax.tree.leaves({"confidence": ExtraTerm(confidence, jnp.float32(0.5))})
  [Array(0.5, dtype=float32)]
  """

  function: Callable[[Rollout, jax.Array], jax.Array]
  weight: float | jax.Array  # []


ExtraTerms = Mapping[
  str, tuple[Callable[[Rollout, jax.Array], jax.Array], float | jax.Array]
]
"""From names to terms: `ExtraTerm` or plain (function, weight)."""


def _flatten(term: ExtraTerm) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
  if isinstance(term.weight, int | float):
    return (), term
  return (term.weight,), (term.function,)


jax.tree_util.register_pytree_node(
  ExtraTerm, _flatten, lambda constant, traced: ExtraTerm(*constant, *traced)
)


class LossParts(NamedTuple):
  """The terms of the objective for each example, unweighted.

  Attributes:
    classification: cross entropy of the prediction after the last glimpse.
    reinforce: policy gradient loss.
    baseline: squared error of the predicted reward.
    error_fit: squared error of the self-uncertainty u.
    uncertainty: sum of |u| over glimpses and classes.
    intrinsic: cross entropy of the prior and the prediction.
    extra: the terms of one's own, by name.
  """

  classification: jax.Array  # [B]
  reinforce: jax.Array  # [B]
  baseline: jax.Array  # [B]
  error_fit: jax.Array  # [B]
  uncertainty: jax.Array  # [B]
  intrinsic: jax.Array  # [B]
  extra: dict[str, jax.Array]  # [B] each


def loss_parts(
  params: PyTree,
  rollout: Rollout,
  label: jax.Array,
  *,
  model: Model | ModelConfig,
  objective_config: ObjectiveConfig,
  rollouts_per_image: int = 1,
  extra_terms: ExtraTerms | None = None,
) -> LossParts:
  """The terms of the objective for each example of a rollout.

  `ramjax.objectives` has a table of the networks that each gradient reaches. The settings
  `credit_last_location` and `intrinsic_steps` select the locations that REINFORCE
  credits and the predictions in the intrinsic term; `reward_temperature` is that of
  `ramjax.reward`, and `credit_decay` that of `ramjax.generalized_advantage`. There the
  expected reward is the baseline and what `ramjax.control_variate` adds to it.

  Args:
    params: parameters of the model, with which the rollout was made.
    rollout: T glimpses at each of B images.
    label: true classes [B], integer in [0, K), or soft labels [B, K], see
      `ramjax.losses`.
    model: the model of the rollout, or the configuration of the paper's model.
    objective_config: the objective.
    rollouts_per_image: number S of rollouts of each image, side by side in the batch.
    extra_terms: terms of your own, see `ExtraTerm`.

  Returns:
    The terms, [B] each.

  Raises:
    ConfigError: if an extra term has the name of another term, or is no pair; if
      `rollouts_per_image` does not divide the batch, or is 1 where the baseline is the
      mean of the others.
    AssertionError: if an array has another shape or type, for an extra term with its name;
      if `credit_decay` is given and there is one image.
  """
  terms = as_terms(extra_terms)
  model = as_model(model)
  logits = rollout.logits_t[-1]
  credited = slice(None if objective_config.credit_last_location else -1)
  probs_t = rollout.probs_t
  reward = losses.reward(logits, label, temperature=objective_config.reward_temperature)
  fitted_error_t = predict_errors(
    model,
    params,
    jax.lax.stop_gradient(rollout.hidden_t),
    jax.lax.stop_gradient(probs_t),
  )
  predicted_error_t = rollout.predicted_error_t
  if objective_config.error_gradient == "state":
    predicted_error_t = predict_errors(
      model, jax.lax.stop_gradient(params), rollout.hidden_t, probs_t
    )
  prior = (
    None
    if objective_config.prior is None
    else jnp.array(objective_config.prior, logits.dtype)
  )
  baseline_t = _baseline(rollout, label, objective_config, rollouts_per_image)
  intrinsic_t = losses.intrinsic_loss(
    rollout.logits_t if objective_config.intrinsic_steps == "all" else logits[None],
    prior,
  )
  return LossParts(
    classification=losses.classification_loss(logits, label),
    reinforce=losses.reinforce_loss(
      rollout.log_prob_t[credited], baseline_t[credited], reward
    ),
    baseline=losses.baseline_loss(rollout.baseline_t, reward),
    error_fit=losses.error_fit_loss(fitted_error_t, probs_t, label),
    uncertainty=losses.uncertainty_loss(predicted_error_t),
    intrinsic=jnp.mean(intrinsic_t, axis=0),
    extra={
      name: _checked(name, term.function(rollout, label), reward.shape)
      for name, term in terms.items()
    },
  )


def _baseline(
  rollout: Rollout, label: jax.Array, config: ObjectiveConfig, rollouts_per_image: int
) -> jax.Array:
  """What REINFORCE subtracts from the rewards, [T, B]; see `loss_parts`."""
  if rollouts_per_image < 1 or label.shape[0] % rollouts_per_image:
    raise ConfigError(
      f"rollouts_per_image must divide the {label.shape[0]} rollouts of the batch, but is"
      f" {rollouts_per_image}"
    )
  if config.baseline == "leave_one_out" and rollouts_per_image == 1:
    raise ConfigError(
      "baseline leave_one_out needs rollouts_per_image of at least 2, not 1"
    )
  logits_t, expected_t = rollout.logits_t, rollout.baseline_t
  labels = jnp.broadcast_to(label, (len(logits_t), *label.shape))
  reward_t = losses.reward(logits_t, labels, temperature=config.reward_temperature)
  reward_t, expected_t = (
    each_t.reshape(len(logits_t), -1, rollouts_per_image)
    for each_t in (reward_t, expected_t)
  )
  final = reward_t[-1:]
  if config.baseline == "leave_one_out":
    expected_t = jnp.broadcast_to(losses.leave_one_out(final), reward_t.shape)
  if config.credit_decay is not None:
    expected_t += losses.control_variate(reward_t, final - expected_t)
    expected_t = final - losses.generalized_advantage(
      expected_t, final[0], decay=config.credit_decay
    )
  return expected_t.reshape(rollout.baseline_t.shape)


def objective(
  params: PyTree,
  rollout: Rollout,
  label: jax.Array,
  *,
  model: Model | ModelConfig,
  objective_config: ObjectiveConfig,
  rollouts_per_image: int = 1,
  term_weights: TermWeights | None = None,
  extra_terms: ExtraTerms | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """The loss of a rollout under one of the four objectives, and metrics.

  Args:
    params: parameters of the model, with which the rollout was made.
    rollout: T glimpses at each of B images.
    label: true classes [B], integer in [0, K), or soft labels [B, K], see
      `ramjax.losses`.
    model: the model of the rollout, or the configuration of the paper's model.
    objective_config: the objective.
    rollouts_per_image: number S of rollouts of each image, side by side in the batch.
    term_weights: weights of the uncertainty and the intrinsic term; None uses those of
      `objective_config`.
    extra_terms: terms of your own, see `ExtraTerm`.

  Returns:
    The loss [], and metrics: `loss`, `accuracy` after the last glimpse, and
    `loss/<term>` for each term of `LossParts` and each extra term, unweighted.

  Raises:
    ConfigError, AssertionError: see `loss_parts`.
  """
  parts = loss_parts(
    params,
    rollout,
    label,
    model=model,
    objective_config=objective_config,
    rollouts_per_image=rollouts_per_image,
    extra_terms=extra_terms,
  )
  return mean_objective(
    parts,
    losses.reward(rollout.logits_t[-1], label),
    objective_config=objective_config,
    term_weights=term_weights,
    extra_terms=extra_terms,
  )


def mean_objective(
  parts: LossParts,
  reward: jax.Array,
  *,
  objective_config: ObjectiveConfig,
  term_weights: TermWeights | None = None,
  extra_terms: ExtraTerms | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """The loss of examples, and its metrics, from the terms of each example.

  Args:
    parts: the terms [B] each, see `loss_parts`.
    reward: 1 where the prediction after the last glimpse is correct, else 0 [B].
    objective_config: the objective.
    term_weights: weights of the uncertainty and the intrinsic term; None uses those of
      `objective_config`.
    extra_terms: the terms of which `parts.extra` holds the values.

  Returns:
    The loss [] and the metrics of `objective`.
  """
  means = jax.tree.map(jnp.mean, parts)._asdict()
  means |= means.pop("extra")
  chosen = term_weights or TermWeights.of(objective_config)
  weights = {"uncertainty": chosen.uncertainty, "intrinsic": chosen.intrinsic}
  weights |= {name: term.weight for name, term in as_terms(extra_terms).items()}
  loss = means["classification"] + means["reinforce"]
  loss += means["baseline"] + means["error_fit"]
  for name, weight in weights.items():
    if isinstance(weight, jax.Array) or weight != 0.0:  # an absent term costs nothing
      loss += weight * means[name]
  metrics = {"loss": loss, "accuracy": jnp.mean(reward)}
  return loss, metrics | {f"loss/{name}": mean for name, mean in means.items()}


def as_terms(extra_terms: ExtraTerms | None) -> dict[str, ExtraTerm]:
  """The terms as a pytree, sorted by name like any dictionary in JAX.

  Args:
    extra_terms: from names to `ExtraTerm` or plain (function, weight); None is empty.

  Returns:
    From names to `ExtraTerm`.

  Raises:
    ConfigError: if a term has the name of another term, or is no pair.
  """
  terms = {}
  for name, term in sorted((extra_terms or {}).items()):
    if name in LossParts._fields:
      raise ConfigError(f"extra_terms must not have the name of another term, {name!r}")
    if not isinstance(term, tuple) or len(term) != 2 or not callable(term[0]):
      raise ConfigError(
        f"extra_terms[{name!r}] must be (function, weight), not {term!r}"
      )
    terms[name] = ExtraTerm(*term)
  return terms


def accept_pairs(function: F) -> F:
  """A jitted function with `extra_terms=`, for plain (function, weight), too.

  Args:
    function: the jitted function; a plain pair is no pytree of arrays for it.

  Returns:
    The same function, which calls `as_terms` first.
  """

  @functools.wraps(function)
  def call(*args: Any, extra_terms: ExtraTerms | None = None, **kwargs: Any) -> Any:
    return function(*args, extra_terms=as_terms(extra_terms), **kwargs)

  return cast(F, call)


def _checked(name: str, value: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  hint = "one value for each example"
  named = {f"extra_terms[{name!r}]": value}
  check_type(float, hint=hint, **named)
  check_shape(shape, hint=hint, **named)
  return value
