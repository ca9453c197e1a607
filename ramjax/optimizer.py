"""Optimisers: the rate of each step, what is done to a gradient, and averages.

All of it is Optax. `ramjax.train_step` takes any optimiser of Optax, with or without
`keep_average`; `make_optimizer` makes the one that a configuration describes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from optax import contrib

from ramjax.config import TrainConfig

_MUON_WIDTH = 32
"""Units that a layer has to have on both sides of a matrix that Muon takes."""

_ADAM_RMS = 0.2
"""Root mean square of an update of Adam's, in units of the rate, which Muon's get, too."""


def make_optimizer(
  config: TrainConfig, *, steps_per_epoch: int
) -> optax.GradientTransformation:
  """The optimiser of a configuration; by default Adam as released.

  In this order: the gradient is clipped to a norm, Adam or Muon makes an update of it, the
  weights decay (AdamW, https://arxiv.org/abs/1711.05101: in proportion to the rate, and
  apart from Adam's moments), and the average takes in the new parameters. What a
  configuration does not use is not there, in the state neither.

  Muon (https://kellerjordan.github.io/posts/muon) takes the momentum of each matrix that
  leads from one layer of at least 32 units to another, and makes it orthogonal; scaled to
  the size that Adam's updates have (https://arxiv.org/abs/2502.16982), so that rates mean
  the same with both. Biases, locations and readouts are left to Adam.

  Args:
    config: rate, limit of the gradient, decay of the weights, decay of the average.
    steps_per_epoch: number of steps in an epoch.

  Returns:
    The optimiser.
  """
  rate = make_schedule(config, steps_per_epoch=steps_per_epoch)
  parts = [optax.adam(rate)]
  if config.weight_decay:
    parts = [optax.adamw(rate, weight_decay=config.weight_decay, mask=_is_weight)]
  if config.optimizer == "muon":
    muon = contrib.muon(
      rate, weight_decay=config.weight_decay, consistent_rms=_ADAM_RMS
    )
    parts = [optax.partition({"muon": muon, "adam": parts[0]}, _muon_or_adam)]
  if config.max_gradient_norm is not None:
    parts.insert(0, optax.clip_by_global_norm(config.max_gradient_norm))
  if config.average_decay:
    parts.append(keep_average(config.average_decay))
  return parts[0] if len(parts) == 1 else optax.chain(*parts)


def make_schedule(config: TrainConfig, *, steps_per_epoch: int) -> optax.Schedule:
  """The rate of each step, from the number of steps that were taken before it.

  `exponential` is that of the released code, a staircase that falls by
  `learning_rate_decay` at the end of each epoch. `cosine` is

    learning_rate · (1 + cos(π · step / (num_epochs · steps_per_epoch))) / 2,

  and 0 from its end on. In the first `warmup_epochs` the rate of either is multiplied by
  what rises evenly to 1 in their last step.

  Args:
    config: the schedule.
    steps_per_epoch: number of steps in an epoch.

  Returns:
    From a number of steps [] to a rate [].
  """
  if config.learning_rate_schedule == "cosine":
    num_steps = max(config.num_epochs * steps_per_epoch, 1)
    schedule = optax.cosine_decay_schedule(config.learning_rate, num_steps)
  else:
    schedule = optax.exponential_decay(
      config.learning_rate, steps_per_epoch, config.learning_rate_decay, staircase=True
    )
  warmup_steps = config.warmup_epochs * steps_per_epoch
  if not warmup_steps:
    return schedule

  def rising(step: jax.Array) -> jax.Array:
    return schedule(step) * jnp.minimum((step + 1) / warmup_steps, 1.0)

  return rising


class AverageState(NamedTuple):
  """What `keep_average` remembers.

  Attributes:
    num_updates: number of updates in the average.
    average: the average; before the first update, the parameters themselves.
  """

  num_updates: jax.Array  # [] int32
  average: optax.Params


def keep_average(decay: float) -> optax.GradientTransformation:
  r"""Keeps an exponential moving average of the parameters, to evaluate with.

  The last part of an `optax.chain`. Updates pass through it as they are; what it keeps is
  the mean of the parameters p after each update, each weighted less by `decay` than the
  one after it:

    average_n = sum_i decay^(n - i) p_i / sum_i decay^(n - i),  i = 1…n,

  without what the parameters were before training. Polyak and Juditsky (1992) take the
  plain mean, https://doi.org/10.1137/0330046. `ramjax.trained_params` finds it.

  Args:
    decay: weight of an update in proportion to the next one's, greater than 0, less than 1.

  Returns:
    The transformation; its update needs the parameters.
  """

  def init(params: optax.Params) -> AverageState:
    return AverageState(jnp.int32(0), jax.tree.map(jnp.copy, params))

  def update(
    updates: optax.Updates, state: AverageState, params: optax.Params | None = None
  ) -> tuple[optax.Updates, AverageState]:
    chex.assert_trees_all_equal_shapes(updates, params)
    count = state.num_updates + 1
    # Of the sum of the weights so far, what the newest has: 1 at first, at last 1 - decay.
    share = (1 - decay) / -jnp.expm1(count.astype(jnp.float32) * math.log(decay))
    after = optax.apply_updates(params, updates)
    average = optax.incremental_update(after, state.average, share)
    return updates, AverageState(count, average)

  return optax.GradientTransformation(init, update)


def find_average(opt_state: optax.OptState) -> optax.Params | None:
  """The average that `keep_average` has kept, wherever in a state it is.

  Args:
    opt_state: the state of an optimiser, of one run or of many.

  Returns:
    The average; None if none is kept.
  """

  def is_average(node: object) -> bool:
    return isinstance(node, AverageState)

  found = filter(is_average, jax.tree.leaves(opt_state, is_leaf=is_average))
  return next((state.average for state in found), None)


def _muon_or_adam(params: optax.Params) -> optax.Params:
  """Which optimiser takes which parameters, see `make_optimizer`."""
  return jax.tree.map(
    lambda leaf: (
      "muon" if leaf.ndim == 2 and min(leaf.shape) >= _MUON_WIDTH else "adam"
    ),
    params,
  )


def _is_weight(params: optax.Params) -> optax.Params:
  """Which parameters decay: matrices do, biases do not."""
  return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
