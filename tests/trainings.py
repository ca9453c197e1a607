"""Short trainings in this process: comparable to the bit, and interrupted at will."""

import contextlib
import dataclasses
import functools
import itertools
import math
import os
import signal
from unittest import mock

import jax

import ramjax
from experiments.cli import signals
from experiments.runs import trainer
from experiments.runs import workdir as workdir_lib
from experiments.runs.metrics import Metrics, read_metrics
from experiments.runs.program import Program
from ramjax.checkpoint import Checkpoints
from ramjax.config import Config, ModelConfig, ObjectiveConfig, TrainConfig
from ramjax.digest import state_digest

CONFIG = Config(
  model=ModelConfig(hidden_size=16, branch_size=8, patch_size=4),
  # So much of each term that the objectives part within a few steps.
  objective=ObjectiveConfig(lambda_uncertainty=1.0, lambda_intrinsic=0.1),
  train=TrainConfig(batch_size=32, num_glimpses=2, num_epochs=2, learning_rate=0.03),
)
NUM_EXAMPLES = 160
STEPS_PER_EPOCH, STEPS_PER_CALL = 5, 2  # two whole chunks and a short one
LINES = [(2, "train"), (4, "train"), (5, "train"), (5, "validation")]
LINES += [(7, "train"), (9, "train"), (10, "train"), (10, "validation"), (10, "test")]
"""Steps and splits of the metrics of a run from its first to its last step."""

_programs = {}


def config_of(seed=0, name="both", **train):
  return CONFIG.replace(objective={"name": name}, train={"seed": seed, **train})


def program(configs, dataset, mesh, *, steps_per_call):
  """`Program`, compiled once for all trainings of the same runs in this process.

  Only a cosine depends on the number of epochs.
  """
  alike = tuple(
    config
    if config.train.learning_rate_schedule == "cosine"
    else config.replace(train={"num_epochs": 0})
    for config in configs
  )
  key = alike, id(dataset), mesh, steps_per_call
  if key not in _programs:
    made = Program(configs, dataset, mesh, steps_per_call=steps_per_call)
    _programs[key] = dataset, made  # the dataset is kept, so that its id is its own
  return _programs[key][1]


def train(dataset, workdirs, configs, **options):
  """Trains runs to their end in these folders."""
  workdirs = list(map(workdir_lib.Workdir, workdirs))
  for config, workdir in zip(configs, workdirs, strict=True):
    workdir_lib.open_run(workdir, config)
  schedule = {
    "steps_per_call": STEPS_PER_CALL,
    "saving_share": math.inf,  # after each epoch, however short
  }
  for field in dataclasses.fields(trainer.Schedule):
    if field.name in options:
      schedule[field.name] = options.pop(field.name)
  schedule = trainer.Schedule(**schedule)
  options = {"figure_format": None, **options}
  with mock.patch.object(trainer, "Program", program):
    return trainer.train(configs, dataset, workdirs, schedule, **options)


@functools.cache
def _shapes(config):
  optimizer = ramjax.make_optimizer(config.train, steps_per_epoch=STEPS_PER_EPOCH)
  init = functools.partial(ramjax.init_train_state, config=config, optimizer=optimizer)
  return jax.eval_shape(lambda: init(jax.random.key(0)))


def end_of(folder, config=CONFIG):
  """Digest of the newest state of a run, and its metrics but for what a clock says."""
  with Checkpoints(folder / "checkpoints", read_only=True) as checkpoints:
    digest = state_digest(checkpoints.restore(_shapes(config)))
  lines = read_metrics(workdir_lib.Workdir(folder))
  return digest, [
    {name: value for name, value in line.items() if name != "examples_per_second"}
    for line in lines
  ]


@contextlib.contextmanager
def interruption(number, signum=signal.SIGTERM):
  """Sends this process a signal when so many lines of metrics have been written."""
  written, write = itertools.count(1), Metrics.write

  def write_and_signal(self, **line):
    write(self, **line)
    if next(written) == number:
      os.kill(os.getpid(), signum)

  with mock.patch.object(Metrics, "write", write_and_signal):
    yield
  for again in signals.SIGNALS:
    signal.signal(again, signal.default_int_handler)
