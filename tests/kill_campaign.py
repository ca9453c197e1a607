"""Kills runs by SIGKILL, hundreds of times, and checks that nothing is lost.

`python -m tests.kill_campaign --mid_save=1000 --mid_training=100`

Mid-save: a process saves states one after the other and is killed at a random moment. The
next process must find the last state whose save had returned, and the best state, bit for
bit. Mid-training: a run is killed at random moments and resumed until it is finished. Its
parameters and metrics must equal those of an uninterrupted run. Some processes get SIGTERM
instead, so that they resume within an epoch.

Each process ("life") is forked from one that has imported everything but has not used JAX.
The last line on standard output is the report, as JSON. The exit status is 1 if something
was lost. pytest does not collect this file, but a test runs a short campaign.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import json
import math
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp  # noqa: F401, imported once for all lives

import ramjax
from experiments.cli.signals import Interrupted
from experiments.runs import trainer
from experiments.runs import workdir as workdir_lib
from ramjax import data
from ramjax.checkpoint import Checkpoints
from ramjax.config import Config, ModelConfig, TrainConfig
from ramjax.digest import state_digest
from tests import synthetic

CONFIG = Config(
  model=ModelConfig(hidden_size=32, branch_size=16),
  train=TrainConfig(num_glimpses=2, num_epochs=6, learning_rate=1e-3),
)
STEPS_PER_CALL = 4
NUM_EXAMPLES = 320  # ten steps an epoch: two whole chunks and a short one


class Lost(Exception):
  """A saved state or a result differs from what it must be."""


@dataclasses.dataclass
class Life:
  """A forked process and its output.

  Attributes:
    pid: id of the process.
    pipe: file descriptor from which its lines are read.
    output: all that has been read.
  """

  pid: int
  pipe: int
  output: str = ""

  def wait_for(self, word: str) -> None:
    """Waits for a line that begins with a word, or for the end of the process."""
    while not any(line.startswith(word) for line in self.lines()):
      part = os.read(self.pipe, 4096)
      if not part:
        return
      self.output += part.decode()

  def lines(self) -> list[str]:
    """All complete lines of the output."""
    return self.output.split("\n")[:-1]

  def end(self) -> int:
    """Waits for the end; returns the exit status, or the negative signal number."""
    while part := os.read(self.pipe, 4096):
      self.output += part.decode()
    os.close(self.pipe)
    return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def fork(body: Callable[[Callable[[str], None]], None]) -> Life:
  """Forks a process that calls `body` with a function that sends a line to the parent."""
  reader, writer = os.pipe()
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # JAX warns of forks; nothing has been computed yet
    pid = os.fork()
  if not pid:
    os.close(reader)
    _run(body, lambda line: os.write(writer, f"{line}\n".encode()))
  os.close(writer)
  return Life(pid, reader)


def _run(body: Callable[..., None], send: Callable[[str], Any]) -> NoReturn:
  try:
    body(send)
    status = 0
  except Interrupted as interrupted:
    status = interrupted.status
  except BaseException:
    send("failed " + traceback.format_exc().replace("\n", " | "))
    status = 1
  os._exit(status)


def abstract_state() -> ramjax.TrainState:
  """The shapes of a state of the default model, 2.5 MB."""
  config = Config()
  optimizer = ramjax.make_optimizer(config.train, steps_per_epoch=1)
  init = functools.partial(ramjax.init_train_state, config=config, optimizer=optimizer)
  state = jax.eval_shape(lambda: init(jax.random.key(0)))
  return state._replace(key=jax.ShapeDtypeStruct((2,), np.uint32))


def state_of(step: int, like: ramjax.TrainState) -> ramjax.TrainState:
  """A state of random numbers that depends only on the step."""
  rng = np.random.default_rng(step)

  def fill(x: jax.ShapeDtypeStruct) -> np.ndarray:
    return np.frombuffer(rng.bytes(x.size * x.dtype.itemsize), x.dtype).reshape(x.shape)

  return jax.tree.map(fill, like)._replace(step=np.asarray(step, np.int32))


def accuracy_of(step: int) -> float:
  """A random validation accuracy of a step; NaN at every seventh step."""
  return float("nan") if step % 7 == 0 else random.Random(step).random()


def save_for_ever(folder: pathlib.Path, send: Callable[[str], None]) -> None:
  """Checks the states of an earlier process, then saves states until it is killed."""
  like = abstract_state()
  with Checkpoints(folder) as checkpoints:
    step = 0
    if checkpoints.latest_step is not None:
      found = checkpoints.restore(like)
      step = int(found.step)
      if state_digest(found) != state_digest(state_of(step, like)):
        raise Lost(f"the state of step {step} is not the one that was saved")
      rated = [s for s in range(1, step + 1) if s % 7]
      if checkpoints.best_step != max(rated, key=accuracy_of, default=None):
        raise Lost(f"after step {step} the best is step {checkpoints.best_step}")
      if any(p.name.startswith("damaged") for p in folder.iterdir()):
        raise Lost(f"damaged after step {step}")
    send(f"found {step}")
    while True:
      step += 1
      checkpoints.save(state_of(step, like), accuracy=accuracy_of(step))
      send(f"saved {step}")


def mid_save(kills: int, seconds: float, rng: random.Random) -> dict[str, Any]:
  """Kills a process that saves, `kills` times or until the time is over."""
  began, done, saved, cut = time.monotonic(), 0, 0, {"save": 0, "deletion": 0}
  with tempfile.TemporaryDirectory(prefix="kill_campaign_") as parent:
    folder = pathlib.Path(parent) / "checkpoints"
    while done <= kills and time.monotonic() - began < seconds:
      life = fork(functools.partial(save_for_ever, folder))
      life.wait_for("found")
      time.sleep(rng.uniform(0, 0.25) if done < kills else 0)
      os.kill(life.pid, signal.SIGKILL)
      status = life.end()
      lines = life.lines()
      if status != -signal.SIGKILL or not lines[0].startswith("found"):
        raise Lost(f"after {done} kills: {lines[-1:]}")
      found = int(lines[0].split()[1])
      if found < saved:
        raise Lost(f"step {saved} was saved, step {found} was found")
      saved = int(lines[-1].split()[1])
      names = [path.name for path in folder.iterdir()]
      cut["save"] += any("tmp" in name for name in names)
      cut["deletion"] += any("deleted" in name for name in names)
      done += 1
  # The last process only checks the states of the one before.
  return {
    "kills": done - 1,
    "saves_cut_short": cut["save"],
    "deletions_cut_short": cut["deletion"],
    "states_saved": saved,
    "seconds": round(time.monotonic() - began, 1),
  }


def train(
  dataset: data.Dataset, folder: pathlib.Path, send: Callable[[str], None]
) -> None:
  """Trains to the end, and sends the digest of the last state."""
  place = workdir_lib.Workdir(folder)
  with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
    workdir_lib.open_run(place, CONFIG)
    # Saved after each epoch, however short.
    schedule = trainer.Schedule(steps_per_call=STEPS_PER_CALL, saving_share=math.inf)
    trainer.train([CONFIG], dataset, [place], schedule, figure_format=None)
  steps_per_epoch = NUM_EXAMPLES // CONFIG.train.batch_size
  optimizer = ramjax.make_optimizer(CONFIG.train, steps_per_epoch=steps_per_epoch)
  init = functools.partial(ramjax.init_train_state, config=CONFIG, optimizer=optimizer)
  with Checkpoints(place.checkpoints, read_only=True) as checkpoints:
    like = jax.eval_shape(lambda: init(jax.random.key(0)))
    send(f"digest {state_digest(checkpoints.restore(like))} {checkpoints.best_step}")


def metrics_of(folder: pathlib.Path) -> list[dict[str, Any]]:
  """The metrics of a run without the measured speed."""
  lines = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
  return [{k: v for k, v in x.items() if k != "examples_per_second"} for x in lines]


def mid_training(kills: int, seconds: float, rng: random.Random) -> dict[str, Any]:
  """Kills and resumes runs until enough were killed and the last run is finished."""
  began, done, terminated, runs, within = time.monotonic(), 0, 0, 0, 0
  dataset = synthetic.make(NUM_EXAMPLES, 100, 100)
  with tempfile.TemporaryDirectory(prefix="kill_campaign_") as parent:
    # The second run finds compiled programs, so it takes as long as a killed process.
    for name in ("whole", "again"):
      folder = pathlib.Path(parent) / name
      started = time.monotonic()
      reference = fork(functools.partial(train, dataset, folder))
      if reference.end():
        raise Lost(f"the uninterrupted run: {reference.lines()[-1:]}")
      duration = time.monotonic() - started
    expected = reference.lines(), metrics_of(folder)

    while done < kills and time.monotonic() - began < seconds:
      folder = pathlib.Path(parent) / "killed"
      runs += 1
      while True:
        life = fork(functools.partial(train, dataset, folder))
        spare = done < kills and time.monotonic() - began < seconds
        if spare:
          time.sleep(rng.uniform(0, duration))
          how = signal.SIGTERM if rng.random() < 0.2 else signal.SIGKILL
          with contextlib.suppress(ProcessLookupError):
            os.kill(life.pid, how)
        status = life.end()
        if status == 0:
          break
        if status not in (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM):
          raise Lost(f"after {done} kills: {life.lines()[-1:]}")
        done += status == -signal.SIGKILL
        terminated += status != -signal.SIGKILL
        within += status == 128 + signal.SIGTERM
      if (life.lines(), metrics_of(folder)) != expected:
        raise Lost(f"after {done} kills a run differs from the uninterrupted one")
      shutil.rmtree(folder)
  return {
    "kills": done,
    "other_lives_ended_by_sigterm": terminated,
    "of_these_saved_first": within,
    "runs_compared": runs,
    "digest": expected[0][0].split()[1],
    "seconds": round(time.monotonic() - began, 1),
  }


def main() -> int:
  """Runs the campaigns of the command line and prints a report; returns the status."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
  parser.add_argument("--mid_save", type=int, default=100, metavar="KILLS")
  parser.add_argument("--mid_training", type=int, default=10, metavar="KILLS")
  parser.add_argument(
    "--max_seconds", type=float, default=3600, help="for each campaign"
  )
  parser.add_argument("--seed", type=int, default=0, help="of the times of the kills")
  options = parser.parse_args()
  rng = random.Random(options.seed)
  report: dict[str, Any] = {"seed": options.seed}
  try:
    if options.mid_save:
      report["mid_save"] = mid_save(options.mid_save, options.max_seconds, rng)
    if options.mid_training:
      report["mid_training"] = mid_training(
        options.mid_training, options.max_seconds, rng
      )
    report["lost"] = "nothing"
  except Lost as lost:
    report["lost"] = str(lost)
  print(json.dumps(report))
  return int(report["lost"] != "nothing")


if __name__ == "__main__":
  with tempfile.TemporaryDirectory(prefix="kill_campaign_") as cache:
    # A process finds the programs that an earlier one has compiled.
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    status = main()
  sys.exit(status)
