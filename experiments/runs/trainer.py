"""Training of one run, or of many in one program, to their end.

Every run has a folder of its own, whether it trains alone or beside others. Runs that
train together stay in step: they are saved at the same steps, and go on from the newest
one that all of them have saved.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

import ramjax
from experiments.cli import signals
from experiments.cli.errors import RunError
from experiments.reporting import plots
from experiments.runs import workdir as workdir_lib
from experiments.runs.metrics import read_metrics
from experiments.runs.program import Program, chunks, run_keys, step_of
from experiments.runs.progress import Progress
from experiments.runs.run import Run, finished_accuracy, opened
from experiments.runs.skipped import chunk_means
from ramjax import data, evaluation, parallel
from ramjax.checkpoint import CheckpointError
from ramjax.config import Config
from ramjax.data.batches import evaluation_images
from ramjax.networks import Params, num_parameters

_NUM_DRAWN = 8


def train(
  configs: Sequence[Config],
  dataset: data.Dataset,
  workdirs: Sequence[workdir_lib.Workdir],
  *,
  steps_per_call: int,
  max_skipped_steps: int = 100,
  make_mesh: Callable[[int], Mesh] = lambda _: parallel.make_mesh(num_devices=1),
  figures: bool = True,
) -> list[float]:
  """Trains runs to their end, each from where it was left.

  Of several runs, those that are at their end already are left as they are.

  Args:
    configs: the runs; several must have one `experiments.runs.program.common_part`.
    dataset: their data.
    workdirs: their folders, opened by `experiments.runs.workdir.open_run`.
    steps_per_call: steps of a chunk; changes speed and the number of metrics lines,
      not the result.
    max_skipped_steps: after so many skipped steps in a row a run is given up.
    make_mesh: from a number of runs to the devices that train them.
    figures: whether to draw where each run looks, and how it learned.

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
  accuracy: dict[workdir_lib.Workdir, float] = {}
  if len(folders) > 1:
    for config, workdir in folders:
      found = finished_accuracy(workdir, config)
      if found is not None:
        accuracy[workdir] = found
  open_folders = [pair for pair in folders if pair[1] not in accuracy]
  if open_folders:
    program = Program(
      [config for config, _ in open_folders],
      dataset,
      make_mesh(len(open_folders)),
      steps_per_call=steps_per_call,
    )
    with _resumed(program, open_folders, max_skipped_steps) as training:
      _train_epochs(training)
      scores = program.test(training.state.params)
      for run, values in zip(training.runs, scores, strict=True):
        run.write(step=training.step, epoch=training.epoch, split="test", values=values)
        accuracy[run.workdir] = values["accuracy"]
    if parallel.is_first_process() and figures:
      for run, state in zip(training.runs, program.split(training.state), strict=True):
        _draw(run.config, dataset, run.workdir, state.params)
  if parallel.is_first_process():
    for config, workdir in folders:
      whose = "" if len(folders) == 1 else f"{workdir.path}: "
      print(
        f"{whose}test accuracy {accuracy[workdir]:.4f}"
        f" (N = {config.train.num_glimpses}, M = 1, {len(dataset.test.labels)} images)"
      )
  if open_folders:
    for run in training.runs:
      if run.failure is not None:
        raise run.failure
  return [accuracy[workdir] for _, workdir in folders]


@dataclasses.dataclass
class _Training:
  """Runs that train together.

  Attributes:
    program: what they compute.
    runs: their folders.
    state: the state that they have reached, on all devices.
    step: number of steps taken.
    progress: where they are shown.
    saved_step: the newest step that all of them have saved.
  """

  program: Program
  runs: Sequence[Run]
  state: ramjax.TrainState
  step: int
  progress: Progress
  saved_step: int

  @property
  def epoch(self) -> int:
    """Number of epochs that are complete."""
    return self.step // self.program.steps_per_epoch

  def save(
    self, *, accuracy: Sequence[float] | None = None, required: bool = False
  ) -> None:
    """Saves all runs.

    The newest step that all have saved is kept until all have saved a newer one.
    """
    with parallel.together():
      if not parallel.is_first_process():
        return
      saved = [
        run.save(
          state,
          accuracy=None if accuracy is None else accuracy[number],
          required=required,
          keep={self.saved_step},
        )
        for number, (run, state) in enumerate(
          zip(self.runs, self.program.split(self.state), strict=True)
        )
      ]
      if all(saved):
        self.saved_step = self.step


@contextlib.contextmanager
def _resumed(
  program: Program,
  folders: Sequence[tuple[Config, workdir_lib.Workdir]],
  max_skipped_steps: int,
) -> Iterator[_Training]:
  """Runs at their newest common checkpoint, or before their first step.

  Of several processes the first one reads and writes, and all have the state that it
  has read.
  """
  first = parallel.is_first_process()
  state = program.init()
  with contextlib.ExitStack() as stack:
    with parallel.together():
      runs = [
        stack.enter_context(
          opened(config, workdir, max_skipped_steps=max_skipped_steps)
        )
        for config, workdir in folders
      ]
      restored = _restore(runs, program.split(state)) if first else None
      if restored is not None:
        state = program.join(restored)
      step = step_of(state)
      for run in runs:
        run.resume(step, stack)
    state = parallel.from_first_process(state)
    step = step_of(state)
    config = folders[0][0].train
    epoch, row = divmod(step, program.steps_per_epoch)
    if first:
      print(f"{num_parameters(state.params) // program.num_runs:,} parameters")
      if step > 0:
        where = f"within epoch {epoch + 1}" if row else f"after epoch {epoch}"
        print(f"resuming {where}, step {step}", flush=True)
    progress = Progress(
      config, program.steps_per_epoch, epoch, num_runs=len(runs), silent=not first
    )
    if first:
      progress.resume(
        [
          line
          for line in read_metrics(run.workdir)
          if line["split"] == "train" and line["step"] > step - row
        ]
        for run in runs
      )
    yield _Training(program, runs, program.place(state), step, progress, step)


def _restore(
  runs: Sequence[Run], like: Sequence[ramjax.TrainState]
) -> list[ramjax.TrainState] | None:
  """The states of runs at the newest step that all have; None if none has any.

  Raises:
    CheckpointError: if a checkpoint cannot be read and no older one serves.
    RunError: if runs that train together have no step in common.
  """
  checkpoints = [run.checkpoints for run in runs if run.checkpoints is not None]
  if len(runs) == 1:
    if checkpoints[0].latest_step is None:
      return None
    return [checkpoints[0].restore(like[0])]
  while True:
    steps_of_runs = [set(each.steps) for each in checkpoints]
    common = set.intersection(*steps_of_runs)
    if not common:
      break
    try:
      return [
        each.restore(one, step=max(common))
        for each, one in zip(checkpoints, like, strict=True)
      ]
    except CheckpointError:
      if all(max(common) in each.steps for each in checkpoints):
        raise  # not damage, which is set aside
  # A first save that was cut short may be done by some and not by others.
  if max(map(len, steps_of_runs)) > 1:
    reached = ", ".join(
      f"{run.workdir.path} {max(steps, default=0)}"
      for run, steps in zip(runs, steps_of_runs, strict=True)
    )
    raise RunError(
      f"the runs cannot go on together, as no step is saved by all of them ({reached});"
      " train each alone, with its --seed, or give another --workdir"
    )
  return None


def _train_epochs(training: _Training) -> None:
  """Trains to the end of the last epoch; saves after each, and when told to stop.

  Raises:
    Interrupted: if a signal has come.
    RunError: if a run that trains alone was given up.
  """
  num_epochs = training.runs[0].config.train.num_epochs
  with training.progress, signals.Stop() as stop_signal:
    for epoch in range(training.epoch + 1, num_epochs + 1):
      _train_epoch(training, epoch, stop_signal)
      scores = training.program.validate(training.state.params)
      for run, values in zip(training.runs, scores, strict=True):
        run.write(step=training.step, epoch=epoch, split="validation", values=values)
      accuracy = [values["accuracy"] for values in scores]
      training.progress.epoch_done(epoch, training.step, accuracy)
      training.save(accuracy=accuracy, required=epoch == num_epochs)


def _train_epoch(training: _Training, epoch: int, stop_signal: signals.Stop) -> None:
  """Trains to the end of an epoch, from wherever in it the runs are."""
  program = training.program
  order = program.epoch_order(epoch)
  row = training.step % program.steps_per_epoch
  for start, stop in chunks(row, program.steps_per_epoch, program.steps_per_call):
    if parallel.any_process(stop_signal.requested):
      _save_and_stop(training, stop_signal)
    began = time.perf_counter()
    training.state, history = program.train_chunk(training.state, order, start, stop)
    # Signals are seen while this waits, and not while an array is fetched.
    history = jax.device_get(jax.block_until_ready(history))
    seconds = time.perf_counter() - began
    training.step += stop - start
    speed = (stop - start) * program.batch_size / seconds
    of_runs = [
      chunk_means({k: np.atleast_2d(v)[n, : stop - start] for k, v in history.items()})
      for n in range(program.num_runs)
    ]
    for run, (means, _) in zip(training.runs, of_runs, strict=True):
      means["examples_per_second"] = speed
      run.write(step=training.step, epoch=epoch, split="train", values=means)
    training.progress.update(epoch, training.step, [means for means, _ in of_runs])
    for run, (_, skipped) in zip(training.runs, of_runs, strict=True):
      run.judge(skipped, step=training.step, alone=program.num_runs == 1)


def _save_and_stop(training: _Training, stop_signal: signals.Stop) -> NoReturn:
  """Ends a training between two chunks, where it can go on."""
  # The signal may have been another process's.
  stop_signal.request(stop_signal.signum or signal.SIGTERM)
  training.save(required=True)
  raise stop_signal.interrupted(f"saved at step {training.step}")


def _draw(
  config: Config, dataset: data.Dataset, workdir: workdir_lib.Workdir, params: Params
) -> None:
  """Draws where the trained model looks, and how it learned."""
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
  plots.glimpses(
    np.asarray(shown), labels, rollout, config.model, workdir.figures / "glimpses.png"
  )
  plots.learning_curves(read_metrics(workdir), workdir.figures / "learning.png")
