"""Trains one model: `python -m experiments.train --objective=both`.

Writes configuration, metrics, checkpoints, TensorBoard events and figures into
--workdir, and prints the test accuracy as its last line. Started again, it resumes.
"""

from __future__ import annotations

import contextlib
import functools
import pathlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags as absl_flags
from absl import logging
from jax.sharding import Mesh

import ramjax
from experiments import flags, plots, progress, signals
from experiments import skipped as skipped_lib
from experiments import workdir as workdir_lib
from ramjax import data, evaluation, parallel
from ramjax.checkpoint import CheckpointError, Checkpoints
from ramjax.config import Config, ConfigError
from ramjax.networks import Params

_NUM_PICTURED = 8


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


def main() -> None:
  """Trains, evaluates and draws what the flags ask for."""
  if flags.FLAGS.steps_per_call < 1:
    raise ConfigError(
      f"steps_per_call must be at least 1, not {flags.FLAGS.steps_per_call}"
    )
  if flags.FLAGS.max_skipped_steps < 1:
    raise ConfigError(
      f"max_skipped_steps must be at least 1, not {flags.FLAGS.max_skipped_steps}"
    )
  # Flags are checked before the data are looked for, shapes and classes come after.
  checked = flags.train_config(image_shape=(28, 28, 1), num_classes=10)
  mesh = flags.open_mesh(checked.train)
  with parallel.together():
    config, dataset, workdir = _prepare()
  if parallel.is_first_process():
    devices = f"{mesh.size} x {mesh.devices.flat[0].device_kind}"
    print(
      f"{dataset.name} from {dataset.source}; on {devices}; writing to {workdir.path}",
      flush=True,
    )
  train(
    config,
    dataset,
    workdir,
    steps_per_call=flags.FLAGS.steps_per_call,
    max_skipped_steps=flags.FLAGS.max_skipped_steps,
    mesh=mesh,
  )


def _prepare() -> tuple[Config, data.Dataset, workdir_lib.Workdir]:
  """The run that the flags describe: its configuration, its data, its folder."""
  dataset = data.load_dataset(
    flags.FLAGS.dataset,
    data_dir=flags.FLAGS.data_dir,
    num_train_examples=flags.FLAGS.num_train_examples,
  )
  config = flags.train_config(
    image_shape=dataset.image_shape, num_classes=dataset.num_classes
  )
  num_examples = len(dataset.train.labels)
  if config.train.batch_size > num_examples:
    raise ConfigError(
      f"batch_size must be at most the number of training examples, {num_examples},"
      f" not {config.train.batch_size}"
    )
  path = flags.FLAGS.workdir or workdir_lib.default_workdir(config)
  workdir = workdir_lib.Workdir(pathlib.Path(path))
  if parallel.is_first_process():
    workdir_lib.open_run(workdir, config)
  return config, dataset, workdir


def train(
  config: Config,
  dataset: data.Dataset,
  workdir: workdir_lib.Workdir,
  *,
  steps_per_call: int,
  max_skipped_steps: int = 100,
  mesh: Mesh | None = None,
) -> float:
  """Trains a run to its end, from its newest checkpoint if it has one.

  Args:
    config: the run.
    dataset: its data.
    workdir: its folder.
    steps_per_call: length of a chunk of steps; changes speed and the number of
      metrics lines, not the result.
    max_skipped_steps: after so many skipped steps in a row the run is given up.
    mesh: the devices that divide each batch; None is the first one.

  Returns:
    The test accuracy, with the number of glimpses of the training and M = 1.

  Raises:
    RunError: if the run was given up.
  """
  mesh = mesh or parallel.make_mesh(num_devices=1)
  keys = run_keys(config.train.seed)
  steps_per_epoch = len(dataset.train.labels) // config.train.batch_size
  steps_per_call = min(steps_per_call, steps_per_epoch)
  init, train_chunk, validate = _programs(
    config, dataset, mesh, steps_per_epoch=steps_per_epoch, max_steps=steps_per_call
  )
  train_split, validation_split, test_split = parallel.place(
    (dataset.train, dataset.validation, dataset.test), parallel.copied(mesh)
  )
  skipped = skipped_lib.SkippedSteps(max_skipped_steps)
  first = parallel.is_first_process()

  with contextlib.ExitStack() as stack:
    state = init(keys.init)
    checkpoints = None
    with parallel.together():
      if first:
        checkpoints = stack.enter_context(Checkpoints(workdir.checkpoints))
        workdir_lib.record_config(workdir, config)
        if checkpoints.latest_step is not None:
          state = checkpoints.restore(state)
      metrics = stack.enter_context(
        workdir_lib.Metrics(workdir, step=int(state.step), silent=not first)
      )
    state = parallel.from_first_process(state)
    step = int(state.step)
    state = parallel.place(state, parallel.copied(mesh))
    first_epoch, row = divmod(step, steps_per_epoch)
    if first and step > 0:
      where = f"within epoch {first_epoch + 1}" if row else f"after epoch {first_epoch}"
      print(f"resuming {where}, step {step}", flush=True)
    with progress.Progress(
      config.train, steps_per_epoch, first_epoch, silent=not first
    ) as bar:
      if first:
        bar.resume(_train_lines(workdir, after_step=step - row))
      save = functools.partial(_save, checkpoints, metrics)
      with signals.Stop() as stop_signal:
        for epoch in range(first_epoch + 1, config.train.num_epochs + 1):
          order = ramjax.epoch_order(
            keys.order,
            epoch,
            num_examples=len(dataset.train.labels),
            batch_size=config.train.batch_size,
          )
          order = parallel.place(order, parallel.divided(mesh, axis=1))
          for start, stop in chunks(row, steps_per_epoch, steps_per_call):
            if parallel.any_process(stop_signal.requested):
              stop_signal.request(stop_signal.signum or signal.SIGTERM)
              save(state, required=True)
              raise stop_signal.interrupted(f"saved at step {step}")
            began = time.perf_counter()
            state, history = train_chunk(state, *train_split, order, start, stop)
            # Signals are seen while this waits, and not while an array is fetched.
            jax.block_until_ready(history)
            means, skips = skipped_lib.chunk_means(history, stop - start)
            seconds = time.perf_counter() - began
            speed = (stop - start) * config.train.batch_size / seconds
            step += stop - start
            means["examples_per_second"] = speed
            metrics.write(step=step, epoch=epoch, split="train", values=means)
            bar.update(epoch, step, means)
            skipped.add(skips, step=step)
          row = 0
          scores = _floats(validate(keys.validation, state.params, *validation_split))
          metrics.write(step=step, epoch=epoch, split="validation", values=scores)
          bar.epoch_done(epoch, step, scores["accuracy"])
          last = epoch == config.train.num_epochs
          save(state, accuracy=scores["accuracy"], required=last)

      scores = _floats(validate(keys.test, state.params, *test_split))
      epoch = step // steps_per_epoch
      metrics.write(step=step, epoch=epoch, split="test", values=scores)

  if first:
    params = parallel.on_this_process(state.params)
    _draw(config, dataset, workdir, keys.test, params)
    print(
      f"test accuracy {scores['accuracy']:.4f} (N = {config.train.num_glimpses}, M = 1,"
      f" {len(dataset.test.labels)} images)"
    )
  return scores["accuracy"]


def _programs(
  config: Config,
  dataset: data.Dataset,
  mesh: Mesh,
  *,
  steps_per_epoch: int,
  max_steps: int,
) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
  """What a run calls on the device: initialisation, a chunk of steps, validation."""
  optimizer = ramjax.make_optimizer(config.train, steps_per_epoch=steps_per_epoch)
  init = functools.partial(ramjax.init_train_state, config=config, optimizer=optimizer)
  train_chunk = functools.partial(
    ramjax.train_chunk,
    config=config,
    optimizer=optimizer,
    preprocess=dataset.preprocess,
    max_steps=max_steps,
  )
  validate = functools.partial(
    ramjax.validate,
    config=config,
    preprocess=dataset.preprocess,
    sharding=parallel.divided(mesh),
  )
  return (
    jax.jit(init),
    jax.jit(train_chunk, donate_argnames="state", out_shardings=parallel.copied(mesh)),
    validate,
  )


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


def _train_lines(
  workdir: workdir_lib.Workdir, *, after_step: int
) -> list[dict[str, Any]]:
  lines = workdir_lib.read_metrics(workdir)
  return [x for x in lines if x["split"] == "train" and x["step"] > after_step]


def _save(
  checkpoints: Checkpoints | None,
  metrics: workdir_lib.Metrics,
  state: ramjax.TrainState,
  *,
  accuracy: float | None = None,
  required: bool,
) -> None:
  """Saves; what is not required may fail, as on a full disk, with a warning.

  The lines of the steps up to here are on disk before the checkpoint is there, so that
  going on from it leaves no gap. Of several processes only the first one has
  checkpoints; what is required and fails there, fails in all.
  """
  with parallel.together():
    if checkpoints is None:
      return
    try:
      metrics.sync()
      checkpoints.save(parallel.on_this_process(state), accuracy=accuracy)
    except (CheckpointError, flags.RunError) as error:
      if required:
        raise
      logging.warning("%s; the training goes on and tries again later", error)


def _floats(values: dict[str, jax.Array]) -> dict[str, float]:
  """Means of arrays, on the host."""
  return {name: float(value.mean()) for name, value in jax.device_get(values).items()}


def _draw(
  config: Config,
  dataset: data.Dataset,
  workdir: workdir_lib.Workdir,
  key: jax.Array,
  params: Params,
) -> None:
  """Draws where the trained model looks, and how it learned."""
  stored, labels = (array[:_NUM_PICTURED] for array in dataset.test)
  images, index = jnp.asarray(stored), jnp.arange(len(labels))
  looked = evaluation.validation_rollout(
    key, params, images, index, config=config, preprocess=dataset.preprocess
  )
  pictures = evaluation.evaluation_pictures(images, index, preprocess=dataset.transform)
  plots.glimpses(
    np.asarray(pictures),
    labels,
    looked,
    config.model,
    workdir.figures / "glimpses.png",
  )
  plots.learning_curves(
    workdir_lib.read_metrics(workdir), workdir.figures / "learning.png"
  )


if __name__ == "__main__":
  flags.define_train_flags()
  absl_flags.adopt_module_key_flags(flags)  # so that --help shows them
  flags.run(main)
