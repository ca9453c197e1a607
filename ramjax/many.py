"""Many runs in one program: training vmapped over seeds, and over the two lambdas.

Each run draws the numbers that it draws alone, so that it is the same run up to the
order in which sums are rounded (which a model with hard attention amplifies: after some
tens of steps its runs diverge, as those of two machines do). What the runs have in
common is whatever fixes a shape or a choice of the program: sizes, numbers of glimpses
and of examples a step. The images are there once.

Devices share the runs and not the batches, and have nothing to tell each other. That pays
on the cores of a CPU, too: the products of a batch of 32 keep one core busy.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, PartitionSpec

from ramjax.config import Config, ConfigError
from ramjax.objectives import TermWeights
from ramjax.training import (
  Metrics,
  Preprocess,
  TrainState,
  epoch_order,
  init_train_state,
  train_chunk,
)


def init_train_states(
  keys: jax.Array, *, config: Config, optimizer: optax.GradientTransformation
) -> TrainState:
  """The states of R runs before the first step.

  Args:
    keys: typed PRNG keys of the runs [R].
    config: what the runs have in common.
    optimizer: any Optax optimiser.

  Returns:
    A state whose every array has a first axis [R].
  """
  init = functools.partial(init_train_state, config=config, optimizer=optimizer)
  return jax.vmap(init)(keys)


def epoch_orders(
  keys: jax.Array, epoch: int | jax.Array, *, num_examples: int, batch_size: int
) -> jax.Array:
  """The batches of an epoch of R runs, see `ramjax.epoch_order`.

  Args:
    keys: typed PRNG keys [R], the same in each epoch.
    epoch: number of the epoch.
    num_examples: number of training images.
    batch_size: examples a step of one run.

  Returns:
    Indices [R, num_examples // batch_size, batch_size], int32.

  Raises:
    ConfigError: if there is not one whole batch.
  """
  order = functools.partial(
    epoch_order, num_examples=num_examples, batch_size=batch_size
  )
  return jax.vmap(order, in_axes=(0, None))(keys, epoch)


def train_chunks(
  states: TrainState,
  images: jax.Array,
  labels: jax.Array,
  orders: jax.Array,
  start: jax.Array,
  stop: jax.Array,
  term_weights: TermWeights,
  *,
  config: Config,
  optimizer: optax.GradientTransformation,
  preprocess: Preprocess,
  max_steps: int,
  mesh: Mesh | None = None,
) -> tuple[TrainState, Metrics]:
  """Steps `start` to `stop` of an epoch of R runs, in one call.

  To be jitted as `ramjax.train_chunk`, with the keyword arguments bound and `states`
  donated.

  Args:
    states: the states before, every array with a first axis [R].
    images: all training images [M, H, W, C], uint8.
    labels: their classes [M], int32.
    orders: the batches of the epoch of each run [R, steps, B].
    start: first row of `orders` to train on.
    stop: row after the last one; at most `start + max_steps`.
    term_weights: what the extra terms count in each run, [R] each; with
      `config.objective.name` of `both` or another: the weights alone decide.
    config: what the runs have in common.
    optimizer: the optimiser that the states were made for.
    preprocess: from a stored image to what the model sees, see
      `ramjax.training.Preprocess`.
    max_steps: the length of the longest chunk.
    mesh: devices that share the runs, see `ramjax.parallel.make_mesh`; their number
      divides R. None leaves them on one.

  Returns:
    The states after, and the metrics of each step of each run, [R, max_steps] each.

  Raises:
    ConfigError: if the number of devices does not divide R.
  """

  def one_run(
    state: TrainState,
    order: jax.Array,
    weights: TermWeights,
    images: jax.Array,
    labels: jax.Array,
    start: jax.Array,
    stop: jax.Array,
  ) -> tuple[TrainState, Metrics]:
    return train_chunk(
      state,
      images,
      labels,
      order,
      start,
      stop,
      config=config,
      optimizer=optimizer,
      preprocess=preprocess,
      max_steps=max_steps,
      term_weights=weights,
    )

  runs = jax.vmap(one_run, in_axes=(0, 0, 0, None, None, None, None))
  if mesh is not None:
    num_runs = orders.shape[0]
    if num_runs % mesh.size:
      raise ConfigError(
        f"num_devices must divide the number of runs, {num_runs}, not be {mesh.size}"
      )
    divided, whole = PartitionSpec(mesh.axis_names), PartitionSpec()
    runs = jax.shard_map(
      runs,
      mesh=mesh,
      in_specs=(divided, divided, divided, whole, whole, whole, whole),
      out_specs=divided,
      check_vma=False,  # it asks for annotations in every loop that starts from zeros
    )
  return runs(
    states, orders, term_weights, images, labels, jnp.asarray(start), jnp.asarray(stop)
  )
