"""Trains and evaluates on several devices or processes; a script of test_parallel.py.

python tests/on_devices.py OUT NUM_DEVICES [ADDRESS NUM_PROCESSES PROCESS_ID]
"""

import dataclasses
import functools
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import synthetic

import ramjax
from ramjax import data, parallel
from ramjax.config import Config, EvaluationConfig, ModelConfig, TrainConfig

CONFIG = Config(
  model=ModelConfig(hidden_size=32, branch_size=16),
  train=TrainConfig(batch_size=16, num_glimpses=3, learning_rate=1e-3),
)
STEPS = 10
COLLECTIVES = "all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute"


def train(mesh, dataset, *, accumulation_steps):
  """Ten steps: the final state, metrics and parameters, and collective operations."""
  settings = dataclasses.replace(CONFIG.train, accumulation_steps=accumulation_steps)
  config = dataclasses.replace(CONFIG, train=settings)
  optimizer = ramjax.make_optimizer(config.train, steps_per_epoch=100)
  init = functools.partial(ramjax.init_train_state, config=config, optimizer=optimizer)
  order = ramjax.epoch_order(
    jax.random.key(1), 1, num_examples=STEPS * 16, batch_size=16
  )
  everywhere = parallel.copied(mesh)
  arguments = (
    parallel.place(jax.jit(init)(jax.random.key(0)), everywhere),
    *parallel.place(dataset.train, everywhere),
    parallel.place(order, parallel.divided(mesh, axis=1)),
    0,
    STEPS,
  )
  chunk = functools.partial(
    ramjax.train_chunk,
    config=config,
    optimizer=optimizer,
    preprocess=dataset.preprocess,
    max_steps=STEPS,
  )
  program = jax.jit(chunk, out_shardings=everywhere).lower(*arguments).compile()
  state, history = program(*arguments)
  found = {"skipped": history["skipped"], "loss": history["loss"]}
  for number, leaf in enumerate(jax.tree.leaves(state.params)):
    found[f"params/{number}"] = leaf
  return state, found, exchanges(program)


def evaluate(mesh, dataset, params):
  """Both evaluations of 70 images, a number that the number of devices does not divide."""
  few = (array[:70] for array in dataset.test)
  images, labels = parallel.place(tuple(few), parallel.copied(mesh))
  options = {
    "preprocess": dataset.preprocess,
    "batch_size": 30,
    "sharding": parallel.divided(mesh),
  }
  key = jax.random.key(5)
  validation = ramjax.validate(key, params, images, labels, config=CONFIG, **options)
  program = ramjax.evaluate.lower(
    key,
    params,
    images,
    labels,
    jnp.array([0.1, 1.0]),
    model=CONFIG.model,
    evaluation_config=EvaluationConfig(num_glimpses=5),
    **options,
  ).compile()
  evaluation = program(key, params, images, labels, jnp.array([0.1, 1.0]))
  found = {f"validation/{name}": value for name, value in validation.items()}
  found |= {f"evaluation/{name}": v for name, v in evaluation._asdict().items()}
  return found, exchanges(program)


def train_runs(mesh, dataset):
  """Losses of one run for each device, on one device and on all; collective operations."""
  optimizer = ramjax.make_optimizer(CONFIG.train, steps_per_epoch=100)
  keys = jax.random.split(jax.random.key(0), mesh.size)
  init = functools.partial(ramjax.init_train_states, config=CONFIG, optimizer=optimizer)
  states = jax.jit(init)(keys)
  orders = ramjax.epoch_orders(keys, 1, num_examples=STEPS * 16, batch_size=16)
  weights = ramjax.TermWeights(jnp.zeros(mesh.size), jnp.linspace(0.0, 1.0, mesh.size))
  chunks = functools.partial(
    ramjax.train_chunks,
    config=CONFIG,
    optimizer=optimizer,
    preprocess=dataset.preprocess,
    max_steps=STEPS,
  )
  alone = jax.jit(chunks)(states, *dataset.train, orders, 0, STEPS, weights)
  states, orders, weights = parallel.place(
    (states, orders, weights), parallel.divided(mesh)
  )
  examples = parallel.place(dataset.train, parallel.copied(mesh))
  arguments = (states, *examples, orders, 0, STEPS, weights)
  program = jax.jit(functools.partial(chunks, mesh=mesh)).lower(*arguments).compile()
  _, shared = program(*arguments)
  return alone[1]["loss"], shared["loss"], exchanges(program)


def exchanges(program):
  """The collective operations of a program."""
  return set(re.findall(rf" ({COLLECTIVES})", program.as_text()))


def agree():
  """Checks the communication of processes."""
  here = jax.process_index()
  own = {"key": jax.random.key(here), "number": jnp.int32(here)}
  shared = parallel.from_first_process(own)
  assert jax.random.key_data(shared["key"]).tolist() == [0, 0]
  assert int(shared["number"]) == 0
  assert parallel.is_first_process() == (here == 0)
  assert parallel.any_process(here == jax.process_count() - 1)
  assert not parallel.any_process(False)
  with parallel.together():
    pass
  fails = here == jax.process_count() - 1
  expected = "fails by itself" if fails else "another process has failed"
  with pytest.raises(parallel.ParallelError, match=expected):
    _work(fails)


def _work(fails):
  with parallel.together():
    if fails:
      raise parallel.ParallelError("fails by itself")


def main(out, num_devices, address=None, num_processes=None, process_id=None):
  parallel.start(
    num_devices=int(num_devices),
    coordinator_address=address,
    num_processes=num_processes and int(num_processes),
    process_id=process_id and int(process_id),
  )
  agree()
  dataset = synthetic.make(num_train=STEPS * 16, num_test=STEPS * 16)
  mesh = parallel.make_mesh(num_devices=int(num_devices), train=CONFIG.train)
  assert mesh.size == int(num_devices)
  state, found, in_training = train(mesh, dataset, accumulation_steps=1)
  scores, in_evaluation = evaluate(mesh, dataset, state.params)
  found |= scores
  in_cluttered = set()
  if mesh.size == 4:
    _, parts, in_parts = train(mesh, dataset, accumulation_steps=2)
    assert in_parts == {"all-reduce"}
    found |= {f"parts/{name}": value for name, value in parts.items()}
    cluttered = dataset._replace(transform=data.clutter)
    _, _, in_cluttered = train(mesh, cluttered, accumulation_steps=1)
    found["runs/alone"], found["runs/shared"], in_runs = train_runs(mesh, dataset)
    assert not in_runs
  if parallel.is_first_process():
    host = {name: np.asarray(value) for name, value in found.items()}
    np.savez(
      out,
      **host,
      in_training=sorted(in_training),
      in_evaluation=sorted(in_evaluation),
      in_cluttered=sorted(in_cluttered),
    )


if __name__ == "__main__":
  main(*sys.argv[1:])
