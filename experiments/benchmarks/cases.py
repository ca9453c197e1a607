"""The cases of `experiments.benchmark`: parts of training and of evaluation."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import ramjax
from experiments.cli.errors import RunError
from experiments.runs.program import Program, chunks
from ramjax import data, parallel
from ramjax.config import Config, EvaluationConfig, ModelConfig
from ramjax.data.batches import evaluation_images

Computation = Callable[[], Any]
"""Starts a program on the device and returns its outputs, which may not be ready."""

_CONFIG = Config()
_BATCH = _CONFIG.train.batch_size
_TRAINED_EPOCHS = 2
_SWEEP_GLIMPSES = 50
_MEAN_GLIMPSES = 4
_BETAS = np.linspace(0.0, 2.0, 15, dtype=np.float32)
_START_SECONDS = 600.0  # longest time until the first step of a started training

# The peak memory of a child process includes memory inherited from its parent. So a small
# Python process starts the training, and prints the peak memory of its child.
_LAUNCHER = (
  sys.executable,
  "-c",
  "import resource, subprocess, sys\n"
  "subprocess.run(sys.argv[1:], check=True)\n"
  "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)",
)

STEP = "train step, batch {}"
RUNS = "train step of {} runs in one program, batch {} each"
FIXED = f"evaluation, {_MEAN_GLIMPSES} glimpses"
DYNAMIC = f"evaluation until decided, {_MEAN_GLIMPSES} glimpses on average"
UNROLL = f"unroll of 6 glimpses, batch {_BATCH}, images {{0}} × {{0}}"
COLD_START = "from the command to the first step"
CACHED_START = "from the command to the first step, programs cached"
MEMORY = "peak memory of a training of one epoch"
LARGE, SMALL = 1024, 28


@dataclasses.dataclass(frozen=True)
class Case:
  """A case; `prepare` compiles, warms up, and returns a function that measures once."""

  name: str
  prepare: Callable[[], Callable[[], float]]
  unit: str = "s"  # or "B"
  gflop: float | None = None  # of its matrix products; None if they do not dominate
  most_rounds: int | None = None  # in which it is measured; None is no limit
  runs: int = 1  # that it trains in one program


def gflop(
  model: ModelConfig, *, examples: int, num_glimpses: int, backward: bool = False
) -> float:
  """Operations of the model's matrix products, in 1e9: two for each multiplication.

  With `backward`, those of the gradient in the parameters are included.
  """
  channels = model.image_shape[-1]
  patches = model.num_scales * model.patch_size**2 * channels
  first = (patches + 2) * model.branch_size
  features = 2 * model.branch_size * model.hidden_size
  layers = 4 if model.core == "lstm" else 1
  core = layers * 2 * model.hidden_size**2
  policy_and_baseline = 3 * model.hidden_size
  classes = (2 * model.hidden_size + model.num_classes) * model.num_classes
  forward = first + features + core + policy_and_baseline + classes
  # The gradient has two products for each layer: one for its weights, one for its inputs.
  # Images, locations, and the inputs of policy and baseline need no gradient.
  gradient = 2 * forward - first - policy_and_baseline if backward else 0
  return 2e-9 * examples * num_glimpses * (forward + gradient)


class Ratio(NamedTuple):
  """The cost of one case relative to `factor` times that of another."""

  name: str
  above: str
  below: str
  factor: float = 1.0

  def of(self, above: float, below: float) -> float:
    """The ratio of two measurements of one round."""
    return above / below / self.factor


def ratios(cases: Sequence[Case]) -> list[Ratio]:
  """The useful ratios of cases, if both cases of a ratio are measured."""
  names = {case.name for case in cases}
  useful = [
    Ratio("until decided against fixed, 4 glimpses on average", DYNAMIC, FIXED),
    Ratio(
      f"images of {LARGE} × {LARGE} against {SMALL} × {SMALL}",
      UNROLL.format(LARGE),
      UNROLL.format(SMALL),
    ),
  ]
  for case in cases:
    if case.runs > 1:
      name = f"{case.runs} runs in one program against {case.runs}"
      useful.append(Ratio(name, case.name, STEP.format(_BATCH), case.runs))
  return [ratio for ratio in useful if {ratio.above, ratio.below} <= names]


class MatrixRate:
  """Rate of a large float32 matrix product, the practical limit of this machine."""

  def __init__(self) -> None:
    size = 2048 if jax.default_backend() == "cpu" else 8192
    keys = jax.random.split(jax.random.key(0))
    self._factors = [jax.random.normal(key, (size, size)) for key in keys]
    self._product = jax.jit(jnp.matmul)
    self._gflop = 2e-9 * size**3
    self()

  def __call__(self) -> float:
    """The rate in GFLOP/s, best of five measurements."""
    return self._gflop / min(
      _seconds(lambda: self._product(*self._factors)) for _ in range(5)
    )


def all_cases(
  dataset: data.Dataset,
  *,
  batch_sizes: Sequence[int],
  num_runs: Sequence[int],
  starts: int,
) -> list[Case]:
  """All cases, on MNIST or a part of it, in the order of the table.

  The cases that start whole trainings are measured in `starts` rounds; 0 omits them.
  """
  setup = _Setup(dataset)
  num_train, num_test = len(dataset.train.labels), len(dataset.test.labels)
  evaluated = functools.partial(gflop, _CONFIG.model, examples=num_test)
  cases = [_steps(setup, size) for size in batch_sizes]
  cases += [_steps(setup, _BATCH, runs=runs) for runs in num_runs]
  cases += [
    _epoch(setup),
    Case(
      f"evaluation, {_SWEEP_GLIMPSES} glimpses, {_BETAS.size} exploration rates",
      lambda: _timed(setup.evaluation(_SWEEP_GLIMPSES, _BETAS)),
      gflop=evaluated(num_glimpses=_SWEEP_GLIMPSES),
    ),
    Case(
      FIXED,
      lambda: _timed(setup.evaluation(_MEAN_GLIMPSES, _BETAS[:0])),
      gflop=evaluated(num_glimpses=_MEAN_GLIMPSES),
    ),
    Case(
      DYNAMIC,
      lambda: _timed(setup.decisions()),
      gflop=evaluated(num_glimpses=_MEAN_GLIMPSES),
    ),
    _sensor(side=SMALL, patch_size=8, num_scales=1),
    _sensor(side=60, patch_size=12, num_scales=3),
    _unroll(SMALL),
    _unroll(LARGE),
    _compilation(setup),
  ]
  if starts:
    command = _Command(num_examples=num_train)
    cases += [
      Case(COLD_START, lambda: command.first_step, most_rounds=starts),
      Case(CACHED_START, command.with_cache, most_rounds=starts),
      Case(MEMORY, lambda: command.peak_memory, unit="B", most_rounds=starts),
    ]
  return cases


class _Setup:
  """A trained model and the test images, shared by the cases."""

  def __init__(self, dataset: data.Dataset) -> None:
    self.dataset = dataset
    self._test = jax.tree.map(jnp.asarray, dataset.test)

  @functools.cached_property
  def trained(self) -> ramjax.Params:
    """Parameters after a short training, so that stopping times differ."""
    training = _Training(self.dataset)
    for epoch in range(_TRAINED_EPOCHS):
      training.take_epoch(epoch)
    return training.state.params

  def evaluation(self, num_glimpses: int, betas: np.ndarray) -> Computation:
    """The evaluation of the test set with a fixed number of glimpses."""
    return lambda: ramjax.evaluate(
      jax.random.key(2),
      self.trained,
      *self._test,
      jnp.asarray(betas),
      model=_CONFIG.model,
      evaluation_config=EvaluationConfig(num_glimpses=num_glimpses),
      preprocess=self.dataset.preprocess,
    )

  def decisions(self) -> Computation:
    """Decisions on the test set, at the exploration rate that gives the mean number."""
    images, _ = self._test

    @jax.jit
    def decide(
      params: ramjax.Params, images: jax.Array, beta: float
    ) -> ramjax.Decision:
      index = jnp.arange(images.shape[0])
      return ramjax.look_until_decided(
        jax.random.key(2),
        params,
        evaluation_images(images, index, preprocess=self.dataset.preprocess),
        beta=beta,
        model=_CONFIG.model,
        max_glimpses=_SWEEP_GLIMPSES,
      )

    low, high = 0.0, 100.0
    for _ in range(20):  # bisection, since the mean increases with beta
      middle = (low + high) / 2
      decision = decide(self.trained, images, middle)
      if float(decision.num_glimpses.mean(dtype=jnp.float32)) < _MEAN_GLIMPSES:
        low = middle
      else:
        high = middle
    return functools.partial(decide, self.trained, images, high)


class _Training:
  """A training of one run or of several, as `experiments.train` does it.

  Seeds are those from 0 on; a call takes at most `steps` steps.
  """

  def __init__(
    self,
    dataset: data.Dataset,
    *,
    runs: int = 1,
    batch_size: int = _BATCH,
    steps: int = 100,
  ) -> None:
    self.program = Program(
      [
        _CONFIG.replace(train={"seed": seed, "batch_size": batch_size})
        for seed in range(runs)
      ],
      dataset,
      parallel.make_mesh(num_devices=math.gcd(runs, jax.device_count())),
      steps_per_call=steps,
    )
    self.state = self.program.place(self.program.init())
    self.order = self.program.epoch_order(0)

  def take(self, start: int, stop: int) -> Any:
    """Takes some steps of the epoch; returns their metrics."""
    self.state, metrics = self.program.train_chunk(self.state, self.order, start, stop)
    return metrics

  def take_epoch(self, epoch: int) -> Any:
    """Takes all steps of an epoch."""
    self.order = self.program.epoch_order(epoch)
    steps = self.program.steps_per_epoch, self.program.steps_per_call
    for start, stop in chunks(0, *steps):
      jax.block_until_ready(self.take(start, stop))
    return self.state


def _steps(setup: _Setup, batch_size: int, *, runs: int = 1) -> Case:
  """A chunk of steps; of several runs in one program."""
  steps = min(
    max(1, 6400 // batch_size if runs == 1 else 400 // runs),
    len(setup.dataset.train.labels) // batch_size,
  )

  def prepare() -> Callable[[], float]:
    training = _Training(setup.dataset, runs=runs, batch_size=batch_size, steps=steps)
    return _timed(lambda: training.take(0, steps), parts=steps)

  name = STEP.format(batch_size) if runs == 1 else RUNS.format(runs, batch_size)
  examples = batch_size * runs
  work = gflop(_CONFIG.model, examples=examples, num_glimpses=6, backward=True)
  return Case(name, prepare, gflop=work, runs=runs)


def _epoch(setup: _Setup) -> Case:
  """One epoch in chunks of 100 steps, as in `experiments.train`."""
  examples = len(setup.dataset.train.labels) // _BATCH * _BATCH

  def prepare() -> Callable[[], float]:
    training = _Training(setup.dataset)
    return _timed(lambda: training.take_epoch(1))

  work = gflop(_CONFIG.model, examples=examples, num_glimpses=6, backward=True)
  return Case(f"epoch of {examples:,} images, batch {_BATCH}", prepare, gflop=work)


def _compilation(setup: _Setup) -> Case:
  """Tracing and compiling the train chunk, without a cache."""

  def compile_chunk() -> float:
    training = _Training(setup.dataset)
    began = time.perf_counter()
    training.program.compile(training.state, training.order)
    return time.perf_counter() - began

  return Case("compilation of the train chunk", lambda: compile_chunk, most_rounds=3)


def _sensor(*, side: int, patch_size: int, num_scales: int) -> Case:
  num, repeats = 1000, 20

  def prepare() -> Callable[[], float]:
    image_key, location_key = jax.random.split(jax.random.key(0))
    images = jax.random.normal(image_key, (num, side, side, 1))
    locations = jax.random.uniform(
      location_key, (repeats, num, 2), minval=-1.0, maxval=1.0
    )
    sensor = functools.partial(
      ramjax.extract_glimpse, patch_size=patch_size, num_scales=num_scales
    )
    program = jax.jit(
      lambda images, locations: jax.lax.map(
        functools.partial(jax.vmap(sensor), images), locations
      )
    )
    return _timed(lambda: program(images, locations), parts=num * repeats)

  scales = "1 scale" if num_scales == 1 else f"{num_scales} scales"
  name = f"glimpse of {patch_size} × {patch_size}, {scales}, of {side} × {side}"
  return Case(name, prepare)


def _unroll(side: int) -> Case:
  repeats = 20

  def prepare() -> Callable[[], float]:
    params_key, image_key, key = jax.random.split(jax.random.key(0), 3)
    params = ramjax.init_params(params_key, _CONFIG.model)
    images = jax.random.normal(image_key, (_BATCH, side, side, 1))

    @jax.jit
    def program(keys: jax.Array, images: jax.Array) -> Any:
      def unroll(key: jax.Array) -> jax.Array:
        rollout = ramjax.rollout(
          key, params, images, model=_CONFIG.model, num_glimpses=6
        )
        return rollout.logits_t

      return jax.lax.map(unroll, keys)

    keys = jax.random.split(key, repeats)
    return _timed(lambda: program(keys, images), parts=repeats)

  work = gflop(_CONFIG.model, examples=_BATCH, num_glimpses=6)
  return Case(UNROLL.format(side), prepare, gflop=work)


class _Command:
  """The training script, started in a process of its own."""

  def __init__(self, num_examples: int) -> None:
    self._flags = [f"--num_train_examples={num_examples}", "--num_epochs=1"]
    self._caches = tempfile.TemporaryDirectory()

  def with_cache(self) -> Callable[[], float]:
    """Fills a cache of compiled programs; returns a function that measures with it."""
    cache = pathlib.Path(self._caches.name) / "kept"
    self.first_step(cache)
    return functools.partial(self.first_step, cache)

  def first_step(self, cache: pathlib.Path | None = None) -> float:
    """Seconds from the start of the process to the metrics of its first step."""
    with tempfile.TemporaryDirectory() as folder:
      workdir = pathlib.Path(folder) / "run"
      metrics = workdir / "metrics.jsonl"
      began = time.perf_counter()
      process = self._start(
        workdir, cache or pathlib.Path(folder), "--steps_per_call=1"
      )
      try:
        while not (metrics.exists() and metrics.stat().st_size):
          time.sleep(0.01)
          if process.poll() is not None:
            raise RunError("the training has ended without a step; run it to see why")
          if time.perf_counter() - began > _START_SECONDS:
            raise RunError(f"the training took no step in {_START_SECONDS:.0f} s")
        return time.perf_counter() - began
      finally:
        process.kill()
        process.wait()

  def peak_memory(self) -> float:
    """Peak memory of a training of one epoch, in bytes."""
    with tempfile.TemporaryDirectory() as folder:
      workdir = pathlib.Path(folder) / "run"
      process = self._start(workdir, pathlib.Path(folder), launcher=_LAUNCHER)
      output, _ = process.communicate()
      if process.returncode:
        raise RunError("the training has failed; run it to see why")
      # ru_maxrss is in bytes on macOS and in KiB on Linux.
      return float(output.split()[-1]) * (1 if sys.platform == "darwin" else 1024)

  def _start(
    self,
    workdir: pathlib.Path,
    cache: pathlib.Path,
    *flags: str,
    launcher: Sequence[str] = (),
  ) -> subprocess.Popen[bytes]:
    environment = {
      **os.environ,
      "JAX_COMPILATION_CACHE_DIR": str(cache),
      "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, "-m", "experiments.train", f"--workdir={workdir}"]
    return subprocess.Popen(
      [*launcher, *command, *self._flags, *flags],
      env=environment,
      stdout=subprocess.PIPE if launcher else subprocess.DEVNULL,
    )


def _timed(program: Computation, *, parts: int = 1) -> Callable[[], float]:
  """Warms up a program; returns a function that measures seconds for each part."""
  jax.block_until_ready(program())
  return lambda: _seconds(program) / parts


def _seconds(program: Computation) -> float:
  began = time.perf_counter()
  jax.block_until_ready(program())
  return time.perf_counter() - began
