"""Many runs side by side in one program, which go on after an interruption.

They may differ in seed, objective and lambdas: see `ramjax.many`. Each draws what
`experiments.train` draws with its configuration.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import math
import os
import pathlib
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

import ramjax
from experiments.cli import errors
from experiments.runs import files
from experiments.runs.provenance import provenance
from experiments.cli import flags
from experiments.cli import signals
from experiments.runs import workdir as workdir_lib
from experiments.runs.programs import chunks, run_keys
from ramjax import data, parallel
from ramjax.checkpoint import Checkpoints
from ramjax.config import Config, ConfigError, ObjectiveConfig
from ramjax.networks import Params


class Trained(NamedTuple):
  """R runs after their training.

  Attributes:
    params: parameters; every array with a first axis [R].
    accuracy: train accuracy of each step [R, steps].
  """

  params: Params
  accuracy: np.ndarray


def start_devices() -> None:
  """Makes a device of each core of a CPU, or as the flags say; before JAX is used."""
  flags.set_up_jax()
  cores = len(os.sched_getaffinity(0))
  parallel.start(num_devices=flags.FLAGS.num_devices or cores)


def make_mesh(num_runs: int) -> Mesh:
  """The devices that share R runs: as many as divide them, or as the flags say.

  Raises:
    ConfigError: if the number that the flags name does not divide R.
  """
  wanted = flags.FLAGS.num_devices
  if wanted and num_runs % wanted:
    raise ConfigError(
      f"num_devices must divide the number of runs, {num_runs}, not be {wanted}"
    )
  return parallel.make_mesh(
    num_devices=wanted or math.gcd(num_runs, jax.device_count())
  )


def common_part(config: Config) -> Config:
  """What a run has in common with those that one program can train beside it."""
  default = ObjectiveConfig()
  objective = dataclasses.replace(
    config.objective,
    name=default.name,
    lambda_uncertainty=default.lambda_uncertainty,
    lambda_intrinsic=default.lambda_intrinsic,
    regularizer_scale=default.regularizer_scale,
  )
  train = dataclasses.replace(config.train, seed=0)
  return dataclasses.replace(config, objective=objective, train=train)


def train(
  configs: Sequence[Config],
  dataset: data.Dataset,
  folder: pathlib.Path,
  *,
  mesh: Mesh,
  steps_per_call: int,
) -> Trained:
  """Trains runs to their end, from where they were left if they were interrupted.

  Args:
    configs: R runs, with one `common_part`.
    dataset: what they train on.
    folder: where they are kept; theirs alone.
    mesh: the devices that share them.
    steps_per_call: steps between two looks.

  Returns:
    The runs, in the order of `configs`.

  Raises:
    ConfigError: if one program cannot train them.
    UsageError: if other runs are kept in the folder.
    RunError: if a step was skipped, since then the runs cannot be compared, or if what
      is kept is damaged.
    Interrupted: if a signal has come; they are saved then.
  """
  if len({common_part(config) for config in configs}) != 1:
    raise ConfigError(
      "runs of one program must not differ but in seed, objective name and lambdas"
    )
  _open(folder, configs)
  runs = _Runs(configs, dataset, mesh, steps_per_call=steps_per_call)
  with Checkpoints(folder / "checkpoints") as checkpoints:
    if checkpoints.latest_step is not None:
      runs.resume(checkpoints, folder)
      print(f"resuming at step {runs.step}", flush=True)
    with signals.Stop() as stop_signal:
      for epoch in range(
        runs.step // runs.steps_per_epoch, configs[0].train.num_epochs
      ):
        began = time.perf_counter()
        orders = runs.epoch_orders(epoch + 1)
        for start, stop in chunks(
          runs.step % runs.steps_per_epoch, runs.steps_per_epoch, runs.steps_per_call
        ):
          if stop_signal.requested:
            runs.save(checkpoints, folder)
            raise stop_signal.interrupted(f"saved at step {runs.step}")
          runs.train_chunk(orders, start, stop)
        runs.save(checkpoints, folder)
        seconds = time.perf_counter() - began
        accuracy = runs.accuracy[:, -runs.steps_per_epoch :].mean()
        print(
          f"epoch {epoch + 1}/{configs[0].train.num_epochs}  {len(configs)} runs"
          f"  train accuracy {accuracy:.4f}  {seconds:.1f} s",
          flush=True,
        )
  return Trained(runs.states.params, runs.accuracy)


class _Runs:
  """Runs while they are trained: their program, their states, their accuracies."""

  def __init__(
    self,
    configs: Sequence[Config],
    dataset: data.Dataset,
    mesh: Mesh,
    *,
    steps_per_call: int,
  ) -> None:
    config = common_part(configs[0])
    self._num_examples = len(dataset.train.labels)
    self._batch_size = config.train.batch_size
    self.steps_per_epoch = self._num_examples // self._batch_size
    self.steps_per_call = min(steps_per_call, self.steps_per_epoch)
    self.step = 0
    self.accuracy = np.zeros((len(configs), 0), np.float32)
    self._shared = parallel.divided(mesh)
    optimizer = ramjax.make_optimizer(
      config.train, steps_per_epoch=self.steps_per_epoch
    )
    self._program = jax.jit(
      functools.partial(
        ramjax.train_chunks,
        config=config,
        optimizer=optimizer,
        preprocess=dataset.preprocess,
        max_steps=self.steps_per_call,
        mesh=mesh,
      ),
      donate_argnames="states",
    )
    keys = [run_keys(config.train.seed) for config in configs]
    weights = [ramjax.TermWeights.of(config.objective) for config in configs]
    init = functools.partial(
      ramjax.init_train_states, config=config, optimizer=optimizer
    )
    self._order_keys = jnp.stack([key.order for key in keys])
    self.states, self._weights = parallel.place(
      (
        jax.jit(init)(jnp.stack([key.init for key in keys])),
        jax.tree.map(lambda *values: jnp.array(values), *weights),
      ),
      self._shared,
    )
    self._train = parallel.place(dataset.train, parallel.copied(mesh))

  def epoch_orders(self, epoch: int) -> jax.Array:
    """The batches of an epoch of each run [R, steps_per_epoch, B]."""
    orders = ramjax.epoch_orders(
      self._order_keys,
      epoch,
      num_examples=self._num_examples,
      batch_size=self._batch_size,
    )
    return parallel.place(orders, self._shared)

  def train_chunk(self, orders: jax.Array, start: int, stop: int) -> None:
    """Takes the steps of some rows of `epoch_orders`."""
    self.states, history = self._program(
      self.states, *self._train, orders, start, stop, self._weights
    )
    found = jax.device_get(jax.block_until_ready(history))
    if found["skipped"].any():
      raise errors.RunError(
        f"a step from {self.step} on was not finite and skipped; train with a lower"
        " --learning_rate"
      )
    self.step += stop - start
    self.accuracy = np.concatenate(
      [self.accuracy, found["accuracy"][:, : stop - start]], axis=1
    )

  def save(self, checkpoints: Checkpoints, folder: pathlib.Path) -> None:
    """Writes the accuracies and then the states, whole or not at all."""
    file = io.BytesIO()
    np.save(file, self.accuracy, allow_pickle=False)
    files.replace(folder / "accuracy.npy", file.getvalue())
    checkpoints.save(_with_one_step(self.states))

  def resume(self, checkpoints: Checkpoints, folder: pathlib.Path) -> None:
    """Goes on from the newest checkpoint."""
    state = checkpoints.restore(jax.eval_shape(_with_one_step, self.states))
    self.step = int(state.step)
    steps = jnp.full_like(self.states.step, self.step)
    self.states = parallel.place(state._replace(step=steps), self._shared)
    try:
      accuracy = np.load(folder / "accuracy.npy", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
      raise errors.RunError(
        f"{folder / 'accuracy.npy'} cannot be read ({error}); remove {folder}"
      ) from error
    if accuracy.shape[0] != len(self.accuracy) or accuracy.shape[1] < self.step:
      raise errors.RunError(
        f"{folder / 'accuracy.npy'} does not reach step {self.step}; remove {folder}"
      )
    self.accuracy = accuracy[:, : self.step]


def _with_one_step(states: ramjax.TrainState) -> ramjax.TrainState:
  """The states of all runs as the one state that a checkpoint has a number for."""
  return states._replace(step=states.step[0])


def _open(folder: pathlib.Path, configs: Sequence[Config]) -> None:
  """Makes the folder of some runs, or checks that it is theirs."""
  file = folder / "runs.json"
  ours: list[Any] = [config.to_dict() for config in configs]
  if file.exists():
    try:
      theirs = json.loads(file.read_text())["configs"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
      raise errors.RunError(
        f"{file} is damaged ({error}); remove {folder}, or give another --workdir"
      ) from error
    if theirs != ours:
      raise errors.UsageError(
        f"{folder} holds other runs; give another --workdir, or the flags of those runs"
      )
    return
  if folder.is_dir() and any(folder.iterdir()):
    raise errors.UsageError(f"{folder} holds files but no runs; give another --workdir")
  folder.mkdir(parents=True, exist_ok=True)
  files.write_json(file, {"configs": ours, **provenance()})
