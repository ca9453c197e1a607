"""Trains one model: `python -m experiments.train --objective=both`.

Writes configuration, metrics, checkpoints, TensorBoard events and figures into
--workdir, and prints the test accuracy as its last line. Started again, it resumes.
"""

from __future__ import annotations

import pathlib
import signal
import time
from typing import NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from experiments.cli import app, flags, signals
from experiments.reporting import plots
from experiments.runs import workdir as workdir_lib
from experiments.runs.metrics import read_metrics
from experiments.runs.programs import Programs, chunks, run_keys
from experiments.runs.run import Run, resumed
from experiments.runs.skipped import SkippedSteps, chunk_means
from ramjax import data, evaluation, parallel, prediction
from ramjax.config import Config
from ramjax.networks import Params, num_parameters

_NUM_DRAWN = 8


def main() -> None:
  """Trains, evaluates and draws what the flags ask for."""
  flags.check_at_least_one("steps_per_call", "max_skipped_steps")
  checked = flags.config_from_flags()  # before the data are looked for
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
  config, dataset = flags.load_run()
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
  programs = Programs(config, dataset, mesh, steps_per_call=steps_per_call)
  with resumed(config, workdir, programs, SkippedSteps(max_skipped_steps)) as run:
    if parallel.is_first_process():
      print(f"{num_parameters(run.state.params):,} parameters", flush=True)
    _train_epochs(run, config.train.num_epochs)
    scores = programs.test(run.state.params)
    epoch = run.step // programs.steps_per_epoch
    run.metrics.write(step=run.step, epoch=epoch, split="test", values=scores)
  if parallel.is_first_process():
    params = parallel.on_this_process(run.state.params)
    _draw(config, dataset, workdir, run_keys(config.train.seed).test, params)
    print(
      f"test accuracy {scores['accuracy']:.4f} (N = {config.train.num_glimpses}, M = 1,"
      f" {len(dataset.test.labels)} images)"
    )
  return scores["accuracy"]


def _train_epochs(run: Run, num_epochs: int) -> None:
  """Trains to the end of the last epoch; after each, and when told to stop, it saves.

  Raises:
    Interrupted: if a signal has come.
    RunError: if the run was given up.
  """
  epochs_done = run.step // run.programs.steps_per_epoch
  with run.progress, signals.Stop() as stop_signal:
    for epoch in range(epochs_done + 1, num_epochs + 1):
      _train_epoch(run, epoch, stop_signal)
      scores = run.programs.validate(run.state.params)
      run.epoch_done(epoch, scores)
      run.save(accuracy=scores["accuracy"], required=epoch == num_epochs)


def _train_epoch(run: Run, epoch: int, stop_signal: signals.Stop) -> None:
  """Trains to the end of an epoch, from wherever in it the run is."""
  programs = run.programs
  order = programs.epoch_order(epoch)
  row = run.step % programs.steps_per_epoch
  for start, stop in chunks(row, programs.steps_per_epoch, programs.steps_per_call):
    if parallel.any_process(stop_signal.requested):
      _save_and_stop(run, stop_signal)
    began = time.perf_counter()
    run.state, history = programs.train_chunk(run.state, order, start, stop)
    # Signals are seen while this waits, and not while an array is fetched.
    jax.block_until_ready(history)
    means, skipped = chunk_means(history, stop - start)
    seconds = time.perf_counter() - began
    means["examples_per_second"] = (stop - start) * programs.batch_size / seconds
    run.step += stop - start
    run.chunk_done(epoch, means, skipped)


def _save_and_stop(run: Run, stop_signal: signals.Stop) -> NoReturn:
  """Ends a run between two chunks, where it can go on."""
  # The signal may have been another process's.
  stop_signal.request(stop_signal.signum or signal.SIGTERM)
  run.save(required=True)
  raise stop_signal.interrupted(f"saved at step {run.step}")


def _draw(
  config: Config,
  dataset: data.Dataset,
  workdir: workdir_lib.Workdir,
  key: jax.Array,
  params: Params,
) -> None:
  """Draws where the trained model looks, and how it learned."""
  images, labels = jnp.asarray(dataset.test.images), dataset.test.labels[:_NUM_DRAWN]
  index = jnp.arange(len(labels))
  looked = evaluation.validation_rollout(
    key, params, images, index, config=config, preprocess=dataset.preprocess
  )
  shown = prediction.evaluation_images(images, index, preprocess=dataset.transform)
  plots.glimpses(
    np.asarray(shown),
    labels,
    looked,
    config.model,
    workdir.figures / "glimpses.png",
  )
  plots.learning_curves(read_metrics(workdir), workdir.figures / "learning.png")


if __name__ == "__main__":
  flags.define_train_flags()
  app.run(main)
