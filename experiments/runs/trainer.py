"""Training of one run, or of many in one program, to their end.

Every run has a folder of its own, whether it trains alone or beside others. Runs that
train together stay in step: they are saved at the same steps, and go on from the newest
one that all of them have saved.
"""

from __future__ import annotations

import dataclasses
import signal
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

import ramjax
from experiments.cli import files, signals
from experiments.cli.errors import RunError
from experiments.reporting import figures, plots, rollout_figure
from experiments.runs.metrics import read_metrics
from experiments.runs.program import Program, chunks, run_keys, split_history
from experiments.runs.run import Run, finished_accuracy, given_up
from experiments.runs.skipped import chunk_means
from experiments.runs.training import Training, resumed
from experiments.runs.workdir import Workdir
from ramjax import data, evaluation, parallel
from ramjax.config import Config, EvaluationConfig
from ramjax.data.batches import evaluation_images
from ramjax.networks import Params

_NUM_DRAWN = 8


@dataclasses.dataclass(frozen=True)
class Schedule:
  """When a training reports, saves and gives up; changes no result.

  Attributes:
    steps_per_call: steps of a chunk; changes speed and the number of metrics lines.
    max_skipped_steps: after so many skipped steps in a row a run is given up.
    save_every_seconds: time after which runs are saved within an epoch, too.
    saving_share: share of the time that saving may take. Runs are saved after each epoch
      unless epochs are so short that this would take more; the last one always is.
  """

  steps_per_call: int = 100
  max_skipped_steps: int = 100
  save_every_seconds: float = 300.0
  saving_share: float = 0.05


def train(
  configs: Sequence[Config],
  dataset: data.Dataset,
  workdirs: Sequence[Workdir],
  schedule: Schedule,
  *,
  make_mesh: Callable[[int], Mesh] = lambda _: parallel.make_mesh(num_devices=1),
  figure_format: str | None = "png",
) -> list[float]:
  """Trains runs to their end, each from where it was left.

  Of several runs, those that are at their end already are left as they are.

  Args:
    configs: the runs; several must have one `experiments.runs.program.common_part`.
    dataset: their data.
    workdirs: their folders, opened by `experiments.runs.workdir.open_run`.
    schedule: when they are reported, saved and given up.
    make_mesh: from a number of runs to the devices that train them.
    figure_format: kind of the figures of where each run looks, and of how it learned:
      `png`, `svg` or `both`; None draws none.

  Returns:
    The test accuracies, with the number of glimpses of the training and M = 1.

  Raises:
    ConfigError: if one program cannot train the runs.
    CheckpointError: if checkpoints cannot be used, or another process writes them.
    RunError: if metrics cannot be used, runs that train together have no step in
      common, or one was given up.
    Interrupted: if a signal has come; the runs are saved then.
  """
  folders = list(zip(configs, workdirs, strict=True))
  several = len(folders) > 1
  accuracy: dict[Workdir, float] = {}
  failures: list[RunError] = []
  if several:  # a single run is tested and drawn anew
    for config, workdir in folders:
      finished = finished_accuracy(workdir, config)
      if finished is not None:
        accuracy[workdir] = finished
        failures += given_up(workdir, schedule.max_skipped_steps)
  unfinished = [pair for pair in folders if pair[1] not in accuracy]
  if unfinished:
    program = Program(
      [config for config, _ in unfinished],
      dataset,
      make_mesh(len(unfinished)),
      steps_per_call=schedule.steps_per_call,
    )
    with resumed(
      program, unfinished, schedule.max_skipped_steps, dataset.info
    ) as training:
      _train_epochs(training, schedule)
      scores = program.test(training.state.params)
      _fit_and_draw(training, dataset, figure_format)
      training.write("test", scores)  # last, since it says that the run is at its end
    for run, values in zip(training.runs, scores, strict=True):
      accuracy[run.workdir] = values["accuracy"]
      failures += [run.failure] if run.failure else []
  if parallel.is_first_process():
    for config, workdir in folders:
      name = f"{workdir.path}: " if several else ""
      print(
        f"{name}test accuracy {accuracy[workdir]:.4f}"
        f" (N = {config.train.num_glimpses}, M = 1, {len(dataset.test.labels)} images)"
      )
  if failures:
    raise failures[0]
  return [accuracy[workdir] for workdir in workdirs]


def _train_epochs(training: Training, schedule: Schedule) -> None:
  """Trains to the end of the last epoch; saves now and then, and when told to stop.

  Raises:
    Interrupted: if a signal has come.
    RunError: if a run that trains alone was given up.
  """
  num_epochs = training.runs[0].config.train.num_epochs
  with training.progress, signals.Stop() as stop_signal:
    for epoch in range(training.epochs_done + 1, num_epochs + 1):
      _train_epoch(training, epoch, stop_signal, schedule)
      scores = training.program.validate(training.state.params)
      training.write("validation", scores)
      accuracy = [values["accuracy"] for values in scores]
      training.progress.epoch_done(epoch, training.step, accuracy)
      required = epoch == num_epochs or parallel.any_process(stop_signal.requested)
      if required or training.is_due(training.save_seconds / schedule.saving_share):
        training.save(accuracy=accuracy, required=required)


def _train_epoch(
  training: Training,
  epoch: int,
  stop_signal: signals.Stop,
  schedule: Schedule,
) -> None:
  """Trains to the end of an epoch, from wherever in it the runs are."""
  program = training.program
  order = program.epoch_order(epoch)
  row = training.step % program.steps_per_epoch
  for start, stop in chunks(row, program.steps_per_epoch, program.steps_per_call):
    if parallel.any_process(stop_signal.requested):
      _save_and_stop(training, stop_signal)
    if start > 0 and training.is_due(schedule.save_every_seconds):
      training.save()
    began = time.perf_counter()
    training.state, history = program.train_chunk(training.state, order, start, stop)
    # Signals are seen while this waits, and not while an array is fetched.
    history = jax.device_get(jax.block_until_ready(history))
    seconds = time.perf_counter() - began
    training.step += stop - start
    speed = (stop - start) * program.batch_size / seconds
    histories = split_history(history, stop - start)
    means = [
      {**chunk_means(of_run), "examples_per_second": speed} for of_run in histories
    ]
    training.write("train", means)
    training.progress.update(epoch, training.step, means)
    for run, of_run in zip(training.runs, histories, strict=True):
      alone = program.num_runs == 1
      run.judge(of_run["skipped"] > 0, step=training.step, alone=alone)


def _save_and_stop(training: Training, stop_signal: signals.Stop) -> NoReturn:
  """Ends a training between two chunks, where it can go on."""
  # The signal may have been another process's.
  stop_signal.request(stop_signal.signum or signal.SIGTERM)
  training.save(required=True)
  raise stop_signal.interrupted(f"saved at step {training.step}")


def _fit_and_draw(
  training: Training, dataset: data.Dataset, figure_format: str | None
) -> None:
  """Fits the confidence of each run, and draws it, unless no format is given."""
  if parallel.is_first_process():
    states = training.program.split(training.state)
    for run, state in zip(training.runs, states, strict=True):
      _fit_confidence(run, dataset, state.params)
      if figure_format:
        _draw(run, dataset, state.params, figure_format)


def _fit_confidence(run: Run, dataset: data.Dataset, params: Params) -> None:
  """Writes the temperatures that make confidences of p, see `ramjax.fit_temperature`.

  They are fitted to one rollout of each validation image, one for each number of
  glimpses of the training.
  """
  images, labels = dataset.validation
  num_glimpses = run.config.train.num_glimpses
  prediction = ramjax.predict(
    run_keys(run.config.train.seed).validation,
    params,
    jnp.asarray(images),
    model=run.config.model,
    evaluation_config=EvaluationConfig(num_glimpses=num_glimpses),
    preprocess=dataset.preprocess,
  )
  found_t = fit_temperatures(prediction.probs_t, jnp.asarray(labels))
  if np.isfinite(found_t).all():  # a probability is not finite otherwise
    written = {"temperature_t": np.asarray(found_t).tolist()}
    written |= {"split": "validation", "num_images": len(labels)}
    files.write_json(run.workdir.confidence, written)


fit_temperatures = jax.jit(jax.vmap(ramjax.fit_temperature, (0, None)))
"""The temperature of p after each glimpse [T], from p [T, M, K] and classes [M]."""


def _draw(run: Run, dataset: data.Dataset, params: Params, figure_format: str) -> None:
  """Draws where the trained model looks, and how it learned."""
  config, folder = run.config, run.workdir.figures
  curves = plots.learning_curves(read_metrics(run.workdir), config.objective)
  figures.save(curves, folder / "learning.png", figure_format)
  if config.model.factory is not None:
    return  # a sensor of one's own may see anything, not these patches
  images, labels = jnp.asarray(dataset.test.images), dataset.test.labels[:_NUM_DRAWN]
  index = jnp.arange(len(labels))
  rollout = evaluation.validation_rollout(
    run_keys(config.train.seed).test,
    params,
    images,
    index,
    config=config,
    preprocess=dataset.preprocess,
  )
  shown = evaluation_images(images, index, preprocess=dataset.transform)
  drawn = rollout_figure.glimpses(
    np.asarray(shown),
    labels,
    rollout,
    config.model,
    class_names=dataset.class_names or None,
  )
  figures.save(drawn, folder / "glimpses.png", figure_format)
