"""Optimisers: the learning rate of each step, and what turns a gradient into an update.

Beside them stands the other schedule of a training, the noise of its policy.

All of it is Optax, and `ramjax.train_step` takes any optimiser of Optax;
`make_optimizer` makes the one that a configuration describes.
"""

from __future__ import annotations

import collections
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from ramjax.config import TrainConfig
from ramjax.model import PyTree

_MUON_WIDTH = 32
"""Smallest width of both layers that a matrix of Muon connects."""

_ADAM_RMS = 0.2
"""Root mean square of Adam's updates, in units of the learning rate; also of Muon's."""


def make_optimizer(
  config: TrainConfig, *, steps_per_epoch: int
) -> optax.GradientTransformation:
  """The optimiser of a configuration; by default Adam as released.

  The norm of the gradient is clipped if the configuration says so; then Adam or Muon
  turns the gradient into an update.

  Muon (https://kellerjordan.github.io/posts/muon) orthogonalises the momentum of each
  matrix between two layers of at least 32 units. Its updates are scaled to the size of
  Adam's (https://arxiv.org/abs/2502.16982), so that a learning rate means the same for
  both. Adam updates biases, the location network and the readouts.

  Args:
    config: optimiser, learning rate, limit of the gradient.
    steps_per_epoch: number of steps in an epoch.

  Returns:
    The optimiser.
  """
  rate = make_schedule(config, steps_per_epoch=steps_per_epoch)
  optimizer = optax.adam(rate)
  if config.optimizer == "muon":
    optimizer = optax.partition({"muon": _muon(rate), "adam": optimizer}, _muon_or_adam)
  if config.max_gradient_norm is None:
    return optimizer
  return optax.chain(optax.clip_by_global_norm(config.max_gradient_norm), optimizer)


def make_schedule(config: TrainConfig, *, steps_per_epoch: int) -> optax.Schedule:
  """The learning rate of each step, as a function of the number of steps before it.

  `exponential` is the schedule of the released code: a staircase that falls by the
  factor `learning_rate_decay` at the end of each epoch. `cosine` is

    learning_rate · (1 + cos(π · step / (num_epochs · steps_per_epoch))) / 2,

  and 0 after the last epoch. In the first `warmup_epochs` either schedule is multiplied
  by a factor that rises linearly and reaches 1 in the last of these steps.

  Args:
    config: the schedule.
    steps_per_epoch: number of steps in an epoch.

  Returns:
    A function from a number of steps [] to a learning rate [].

  >>> from ramjax import TrainConfig
  >>> config = TrainConfig(learning_rate=0.5, learning_rate_decay=0.5)
  >>> rate = make_schedule(config, steps_per_epoch=10)
  >>> [float(rate(step)) for step in (0, 9, 10, 20)]
  [0.5, 0.5, 0.25, 0.125]
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


def make_noise_schedule(config: TrainConfig, *, steps_per_epoch: int) -> optax.Schedule:
  """The factor on the deviation of the policy in each step of a training.

  It falls along a line from `initial_location_noise` to 1 at the end of the last epoch.

  Args:
    config: the training.
    steps_per_epoch: number of steps in an epoch.

  Returns:
    A function from a number of steps [] to a factor [].

  >>> from ramjax import TrainConfig
  >>> config = TrainConfig(initial_location_noise=3.0, num_epochs=2)
  >>> factor = make_noise_schedule(config, steps_per_epoch=10)
  >>> [float(factor(step)) for step in (0, 10, 20)]
  [3.0, 2.0, 1.0]
  """
  num_steps = max(config.num_epochs * steps_per_epoch, 1)
  return optax.linear_schedule(config.initial_location_noise, 1.0, num_steps)


def _muon_or_adam(params: optax.Params) -> optax.Params:
  """The optimiser of each parameter, see `make_optimizer`."""
  return jax.tree.map(
    lambda leaf: (
      "muon" if leaf.ndim == 2 and min(leaf.shape) >= _MUON_WIDTH else "adam"
    ),
    params,
  )


def _muon(rate: optax.Schedule) -> optax.GradientTransformation:
  """Muon, computed for all matrices of one shape [n, m] and type at once.

  One product of stacks [k, n, m] takes less time than k products. The state is that of
  Optax, with single matrices.
  """
  muon = functools.partial(contrib.muon, rate, consistent_rms=_ADAM_RMS)
  axes = contrib.MuonDimensionNumbers(reduction_axis=1, output_axis=2)
  of_stacks = muon(
    muon_weight_dimension_numbers=lambda stacks: dict.fromkeys(stacks, axes)
  )

  def update(
    updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
  ) -> tuple[optax.Updates, optax.OptState]:
    kinds = collections.Counter(_kind(leaf) for leaf in jax.tree.leaves(updates))
    stacks = {
      str(kind): jax.ShapeDtypeStruct((count, *kind[0]), kind[1])
      for kind, count in kinds.items()
    }
    new_updates, new_state = of_stacks.update(
      _regrouped(updates, stacks),
      _regrouped(state, jax.eval_shape(of_stacks.init, stacks)),
      None if params is None else _regrouped(params, stacks),
    )
    return _regrouped(new_updates, updates), _regrouped(new_state, state)

  return optax.GradientTransformation(muon().init, update)


def _regrouped(tree: PyTree, like: PyTree) -> PyTree:
  """The leaves of a tree in the structure of another one.

  Stacks [k, n, m] are taken apart to matrices [n, m], and matrices are stacked, as `like`
  has them. Matrices of one kind, and all other leaves, keep their order.
  """
  leaves: dict[Any, list[jax.Array]] = collections.defaultdict(list)
  for leaf in jax.tree.leaves(tree):
    leaves[_kind(leaf)].extend(leaf if leaf.ndim == 3 else [leaf])

  def take(leaf: Any) -> jax.Array:
    of_kind = leaves[_kind(leaf)]
    if leaf.ndim < 3:
      return of_kind.pop(0)
    return jnp.stack([of_kind.pop(0) for _ in range(leaf.shape[0])])

  return jax.tree.map(take, like)


def _kind(leaf: Any) -> tuple[tuple[int, ...], jnp.dtype]:
  """Shape and type of a leaf, or of each matrix of a stack."""
  return leaf.shape[1:] if leaf.ndim == 3 else leaf.shape, leaf.dtype
