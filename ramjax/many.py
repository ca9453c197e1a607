"""Many runs in one program: training vmapped over seeds and over the two lambdas.

Each run draws the same random numbers as a single run, so both are the same up to
rounding in sums. Hard attention amplifies rounding: after some tens of steps they
diverge, as the same run does on two machines. The runs share everything that fixes a
shape or a branch of the program: sizes, number of glimpses, batch size. The images are in
memory once.

Devices share the runs, not the batches, and exchange nothing. This is faster on the cores
of a CPU, too: the matrix products of a batch of 32 keep only one core busy.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, PartitionSpec

from ramjax.config import Config, ConfigError
from ramjax.data.batches import Preprocess
from ramjax.model import Model
from ramjax.objectives import ExtraTerm, ExtraTerms, TermWeights, as_terms
from ramjax.training import Metrics, TrainState, init_train_state, train_chunk


def init_train_states(
  keys: jax.Array,
  *,
  config: Config,
  optimizer: optax.GradientTransformation,
  model: Model | None = None,
) -> TrainState:
  """The states of R runs before the first step.

  Args:
    keys: typed PRNG keys of the runs [R].
    config: the settings that the runs share.
    model: their model; None for that of `config.model`.
    optimizer: any Optax optimiser.

  Returns:
    A state whose arrays have a first axis [R].
  """
  init = functools.partial(
    init_train_state, config=config, optimizer=optimizer, model=model
  )
  return jax.vmap(init)(keys)


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
  model: Model | None = None,
  preprocess: Preprocess,
  max_steps: int,
  extra_terms: ExtraTerms | None = None,
  mesh: Mesh | None = None,
) -> tuple[TrainState, Metrics]:
  """Steps `start` to `stop` of an epoch of R runs, in one call.

  Jit it like `ramjax.train_chunk`, with the keyword arguments bound and `states` donated.

  Args:
    states: the states before, whose arrays have a first axis [R].
    images: all training images [M, H, W, C], uint8.
    labels: their classes [M], int32, or soft labels [M, K].
    orders: the batches of the epoch of each run [R, steps, B].
    start: first row of `orders` to train on.
    stop: row after the last one; at most `start + max_steps`.
    term_weights: weights of the uncertainty and the intrinsic term in each run, [R]
      each. They replace those of `config.objective`, whose name has no effect.
    config: the settings that the runs share.
    model: their model; None for that of `config.model`.
    optimizer: the optimiser that the states were made for.
    preprocess: from a stored image to a model's input, see
      `ramjax.data.batches.Preprocess`.
    max_steps: the length of the longest chunk.
    extra_terms: terms of your own, see `ramjax.ExtraTerm`. A weight is a Python number
      for all runs, or an array [R].
    mesh: devices that share the runs, see `ramjax.parallel.make_mesh`; their number
      divides R. None is for a single device.

  Returns:
    The states after, and the metrics of each step of each run, [R, max_steps] each.

  Raises:
    ConfigError: if the number of devices does not divide R, `accumulation_steps` does
      not divide the batch, or an extra term has the name of another term.
  """
  chunk = functools.partial(
    train_chunk,
    config=config,
    optimizer=optimizer,
    model=model,
    preprocess=preprocess,
    max_steps=max_steps,
  )

  def chunks(
    states: TrainState,
    orders: jax.Array,
    term_weights: TermWeights,
    extra_terms: dict[str, ExtraTerm],
    *shared: jax.Array,
  ) -> tuple[TrainState, Metrics]:
    images, labels, start, stop = shared
    runs = jax.vmap(
      chunk, in_axes=(0, None, None, 0, None, None)
    )  # and keywords over 0
    return runs(
      states,
      images,
      labels,
      orders,
      start,
      stop,
      term_weights=term_weights,
      extra_terms=extra_terms,
    )

  if mesh is not None:
    num_runs = orders.shape[0]
    if num_runs % mesh.size:
      raise ConfigError(
        f"num_devices must divide the number of runs, {num_runs}, not be {mesh.size}"
      )
    divided, whole = PartitionSpec(mesh.axis_names), PartitionSpec()
    chunks = jax.shard_map(
      chunks,
      mesh=mesh,
      in_specs=(*(divided,) * 4, *(whole,) * 4),
      out_specs=divided,
      check_vma=False,  # it requires annotations in every loop that starts from zeros
    )
  start, stop = jnp.asarray(start), jnp.asarray(stop)
  terms = as_terms(extra_terms)
  return chunks(states, orders, term_weights, terms, images, labels, start, stop)
