"""What runs compute: their data on devices, their keys, their compiled functions."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

import ramjax
from ramjax import data, parallel
from ramjax.config import Config, ConfigError, ObjectiveConfig
from ramjax.networks import Params
from ramjax.objectives import location_gradient_of


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


def common_part(config: Config) -> Config:
  """What a run shares with those that one program can train beside it.

  The seed may differ, and of the objective its name and what are numbers of the program.
  """
  free = ["name", "lambda_uncertainty", "lambda_intrinsic", "regularizer_scale"]
  free += ["location_gradient"]
  default = ObjectiveConfig()
  objective = {name: getattr(default, name) for name in free}
  return config.replace(objective=objective, train={"seed": 0})


_RUNS_ONCE = {"xla_backend_optimization_level": 1}
"""XLA optimises a program full of random numbers for seconds, and changes none."""


class Program:
  """R runs on their devices: images are placed, each function is compiled once.

  A single run is `ramjax.train_chunk`, and the devices divide its batches. Several runs
  are `ramjax.train_chunks`, whose arrays have a first axis [R], and the devices share
  the runs. A "state" below is the `TrainState` of the one run or of all of them.

  Attributes:
    num_runs: number of runs R.
    batch_size: examples a step of one run.
    steps_per_epoch: steps in an epoch.
    steps_per_call: steps in a chunk, at most; not more than an epoch has.

  Raises:
    ConfigError: if the configurations differ in their `common_part`.
  """

  def __init__(
    self,
    configs: Sequence[Config],
    dataset: data.Dataset,
    mesh: Mesh,
    *,
    steps_per_call: int,
  ) -> None:
    if len({common_part(config) for config in configs}) != 1:
      raise ConfigError(
        "runs of one program must not differ but in seed, objective name, lambdas and"
        " location_gradient"
      )
    self.num_runs = len(configs)
    one = self.num_runs == 1
    config = configs[0] if one else common_part(configs[0])
    shares = {config.objective.location_gradient for config in configs}
    if len(shares) == 1:
      config = config.replace(objective={"location_gradient": shares.pop()})
    self._num_examples = len(dataset.train.labels)
    self.batch_size = config.train.batch_size
    self.steps_per_epoch = self._num_examples // self.batch_size
    self.steps_per_call = min(steps_per_call, self.steps_per_epoch)

    everywhere, divided = parallel.copied(mesh), parallel.divided(mesh)
    self._state_sharding = everywhere if one else divided
    self._order_sharding = parallel.divided(mesh, axis=1) if one else divided
    self._train, self._validation, self._test = parallel.place(
      (dataset.train, dataset.validation, dataset.test), everywhere
    )
    keys = [run_keys(config.train.seed) for config in configs]
    self._keys = keys[0] if one else jax.tree.map(lambda *k: jnp.stack(k), *keys)

    bound: dict[str, Any] = {
      "config": config,
      "optimizer": ramjax.make_optimizer(
        config.train, steps_per_epoch=self.steps_per_epoch
      ),
    }
    self._init = jax.jit(
      functools.partial(
        ramjax.init_train_state if one else ramjax.init_train_states, **bound
      ),
      compiler_options=_RUNS_ONCE if jax.default_backend() == "cpu" else None,
    )
    self._epoch_order = ramjax.epoch_order if one else ramjax.epoch_orders
    bound["preprocess"] = dataset.train_preprocess(
      max_shift=config.train.max_shift, mirror=config.train.mirror
    )
    bound["max_steps"] = self.steps_per_call
    validate: Any = functools.partial(
      ramjax.validate, config=config, preprocess=dataset.preprocess
    )
    if one:
      self._weights: tuple[ramjax.TermWeights, ...] = ()  # constants of the program
      self._train_chunk = jax.jit(
        functools.partial(ramjax.train_chunk, **bound),
        donate_argnames="state",
        out_shardings=everywhere,
      )
      self._validate: Any = functools.partial(validate, sharding=divided)
    else:
      weights = [ramjax.TermWeights.of(config.objective) for config in configs]
      if shares:  # several, so that each run has its own
        weights = [
          each._replace(location_gradient=location_gradient_of(config.objective, None))
          for each, config in zip(weights, configs, strict=True)
        ]
      stacked = jax.tree.map(lambda *values: jnp.array(values), *weights)
      self._weights = (parallel.place(stacked, divided),)
      self._train_chunk = jax.jit(
        functools.partial(ramjax.train_chunks, mesh=mesh, **bound),
        donate_argnames="states",
      )
      self._validate = jax.jit(_for_each_run(validate, mesh))

  def init(self) -> ramjax.TrainState:
    """The state before the first step, on one device of this process."""
    return self._init(self._keys.init)

  def place(self, state: ramjax.TrainState) -> ramjax.TrainState:
    """A state of one device, which is the same in all processes, on all devices."""
    return parallel.place(state, self._state_sharding)

  def split(self, state: ramjax.TrainState) -> list[ramjax.TrainState]:
    """The state of each run, on this process."""
    if self.num_runs == 1:
      return [parallel.on_this_process(state)]
    return [_take(state, run) for run in range(self.num_runs)]

  def join(self, states: Sequence[ramjax.TrainState]) -> ramjax.TrainState:
    """The inverse of `split`, on one device."""
    if self.num_runs == 1:
      return states[0]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)

  def epoch_order(self, epoch: int) -> jax.Array:
    """The batches of an epoch ([R,] steps_per_epoch, B), divided among the devices."""
    order = self._epoch_order(
      self._keys.order,
      epoch,
      num_examples=self._num_examples,
      batch_size=self.batch_size,
    )
    return parallel.place(order, self._order_sharding)

  def train_chunk(
    self, state: ramjax.TrainState, order: jax.Array, start: int, stop: int
  ) -> tuple[ramjax.TrainState, dict[str, jax.Array]]:
    """Takes the steps of rows `start` to `stop` of `epoch_order`.

    The state is donated: the one that was given cannot be used any more.

    Returns:
      The state after, and metrics ([R,] steps_per_call), of which the first
      `stop - start` are filled.
    """
    return self._train_chunk(state, *self._train, order, start, stop, *self._weights)

  def compile(self, state: ramjax.TrainState, order: jax.Array) -> None:
    """Traces and compiles `train_chunk`; for benchmarks."""
    self._train_chunk.lower(state, *self._train, order, 0, 1, *self._weights).compile()

  def validate(self, params: Params) -> list[dict[str, float]]:
    """Metrics of each run on the validation split."""
    return self._floats(self._keys.validation, params, self._validation)

  def test(self, params: Params) -> list[dict[str, float]]:
    """Metrics of each run on the test set."""
    return self._floats(self._keys.test, params, self._test)

  def _floats(
    self, keys: jax.Array, params: Params, split: data.Split
  ) -> list[dict[str, float]]:
    found = jax.device_get(self._validate(keys, params, *split, *self._weights))
    return [
      {name: float(np.atleast_1d(values)[run]) for name, values in found.items()}
      for run in range(self.num_runs)
    ]


@jax.jit
def _take(states: ramjax.TrainState, run: jax.Array) -> ramjax.TrainState:
  """The state of one of many runs."""
  return jax.tree.map(lambda leaf: leaf[run], states)


def _for_each_run(validate: Any, mesh: Mesh) -> Any:
  """`ramjax.validate` of R runs, which devices share; one run after another on each."""

  def validate_runs(keys, params, images, labels, weights):
    def validate_run(run):
      key, params, weights = run
      return validate(key, params, images, labels, term_weights=weights)

    return jax.lax.map(validate_run, (keys, params, weights))

  shared, whole = PartitionSpec(mesh.axis_names), PartitionSpec()
  return jax.shard_map(
    validate_runs,
    mesh=mesh,
    in_specs=(shared, shared, whole, whole, shared),
    out_specs=shared,
    check_vma=False,  # it asks for annotations in every loop that starts from zeros
  )


def split_history(
  history: Mapping[str, np.ndarray], num_steps: int
) -> list[dict[str, np.ndarray]]:
  """The metrics of a chunk for each run [num_steps], see `Program.train_chunk`."""
  filled = {
    name: np.atleast_2d(values)[:, :num_steps] for name, values in history.items()
  }
  num_runs = len(filled["loss"])
  return [
    {name: values[run] for name, values in filled.items()} for run in range(num_runs)
  ]


def step_of(state: ramjax.TrainState) -> int:
  """Number of steps that a state, of one run or of many in step, has taken."""
  return int(np.ravel(state.step)[0])


def chunks(
  row: int, steps_per_epoch: int, steps_per_call: int
) -> Iterator[tuple[int, int]]:
  """The chunks of an epoch from a row on: the first row, and the one after the last.

  They end at multiples of `steps_per_call`, wherever an interruption has been.
  """
  while row < steps_per_epoch:
    stop = min((row // steps_per_call + 1) * steps_per_call, steps_per_epoch)
    yield row, stop
    row = stop
