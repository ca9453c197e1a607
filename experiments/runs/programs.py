"""What a run computes: its data on its devices, its keys, its compiled functions."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
from jax.sharding import Mesh

import ramjax
from ramjax import data, parallel
from ramjax.config import Config
from ramjax.networks import Params


class Keys(NamedTuple):
  """The keys of a run, one for each purpose."""

  init: jax.Array
  order: jax.Array
  validation: jax.Array
  test: jax.Array
  generalization: jax.Array


def run_keys(seed: int) -> Keys:
  """The keys of the run with a seed."""
  return Keys(*jax.random.split(jax.random.key(seed), len(Keys._fields)))


_RUNS_ONCE = {"xla_backend_optimization_level": 1}
"""A program full of random numbers takes XLA long to optimise; the numbers are the same."""


class Programs:
  """A run on its devices: images are there, each function is compiled once.

  Args:
    config: the run.
    dataset: its data.
    mesh: the devices that divide each batch.
    steps_per_call: steps in a chunk, at most.

  Attributes:
    batch_size: examples a step.
    steps_per_epoch: steps in an epoch.
    steps_per_call: steps in a chunk, at most; not more than an epoch has.
  """

  def __init__(
    self, config: Config, dataset: data.Dataset, mesh: Mesh, *, steps_per_call: int
  ) -> None:
    self._mesh = mesh
    self._keys = run_keys(config.train.seed)
    self._num_examples = len(dataset.train.labels)
    self.batch_size = config.train.batch_size
    self.steps_per_epoch = self._num_examples // self.batch_size
    self.steps_per_call = min(steps_per_call, self.steps_per_epoch)

    everywhere = parallel.copied(mesh)
    optimizer = ramjax.make_optimizer(
      config.train, steps_per_epoch=self.steps_per_epoch
    )
    self._init = jax.jit(
      functools.partial(ramjax.init_train_state, config=config, optimizer=optimizer),
      compiler_options=_RUNS_ONCE if jax.default_backend() == "cpu" else None,
    )
    train_chunk = functools.partial(
      ramjax.train_chunk,
      config=config,
      optimizer=optimizer,
      preprocess=dataset.preprocess,
      max_steps=self.steps_per_call,
    )
    self._train_chunk = jax.jit(
      train_chunk, donate_argnames="state", out_shardings=everywhere
    )
    self._validate = functools.partial(
      ramjax.validate,
      config=config,
      preprocess=dataset.preprocess,
      sharding=parallel.divided(mesh),
    )
    self._train, self._validation, self._test = parallel.place(
      (dataset.train, dataset.validation, dataset.test), everywhere
    )

  def init(self) -> ramjax.TrainState:
    """The state before the first step, on one device of this process."""
    return self._init(self._keys.init)

  def place(self, state: ramjax.TrainState) -> ramjax.TrainState:
    """A state of one device, which is the same in all processes, on all devices."""
    return parallel.place(state, parallel.copied(self._mesh))

  def epoch_order(self, epoch: int) -> jax.Array:
    """The batches of an epoch [steps_per_epoch, B], divided among the devices."""
    order = ramjax.epoch_order(
      self._keys.order,
      epoch,
      num_examples=self._num_examples,
      batch_size=self.batch_size,
    )
    return parallel.place(order, parallel.divided(self._mesh, axis=1))

  def train_chunk(
    self, state: ramjax.TrainState, order: jax.Array, start: int, stop: int
  ) -> tuple[ramjax.TrainState, dict[str, jax.Array]]:
    """The steps of some rows of `epoch_order`; see `ramjax.train_chunk`.

    The state is donated: the one that was given cannot be used any more.
    """
    return self._train_chunk(state, *self._train, order, start, stop)

  def validate(self, params: Params) -> dict[str, float]:
    """Metrics of the validation split."""
    return _floats(self._validate(self._keys.validation, params, *self._validation))

  def test(self, params: Params) -> dict[str, float]:
    """Metrics of the test set."""
    return _floats(self._validate(self._keys.test, params, *self._test))


def chunks(
  row: int, steps_per_epoch: int, steps_per_call: int
) -> Iterator[tuple[int, int]]:
  """The chunks of an epoch from a row on: the first, and the one after the last.

  They end at multiples of `steps_per_call`, wherever an interruption has been.
  """
  while row < steps_per_epoch:
    stop = min((row // steps_per_call + 1) * steps_per_call, steps_per_epoch)
    yield row, stop
    row = stop


def _floats(values: dict[str, jax.Array]) -> dict[str, float]:
  """Means of arrays, on the host."""
  return {name: float(value.mean()) for name, value in jax.device_get(values).items()}
