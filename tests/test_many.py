"""Many runs in one program: each is the same as the run trained alone."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import synthetic

import ramjax
from ramjax.config import Config, ModelConfig, ObjectiveConfig, TrainConfig

pytestmark = pytest.mark.usefixtures("exact_products")

CONFIG = Config(
  model=ModelConfig(hidden_size=32, branch_size=16),
  train=TrainConfig(batch_size=16, num_glimpses=3, learning_rate=1e-3),
)
OBJECTIVES = ("both", "original")
STEPS = 6
DATASET = synthetic.make(num_train=160, num_validation=1, num_test=1)


def bound(function, config, optimizer):
  return jax.jit(
    functools.partial(
      function,
      config=config,
      optimizer=optimizer,
      preprocess=DATASET.preprocess,
      max_steps=STEPS,
    )
  )


TUNED = {
  "optimizer": "muon",
  "learning_rate_schedule": "cosine",
  "warmup_epochs": 0.002,
  "max_gradient_norm": 5.0,
  "rollouts_per_image": 2,
}


@pytest.mark.parametrize(
  ("core", "options"), [("rnn", {}), ("lstm", TUNED)], ids=["paper", "all else"]
)
def test_each_run_is_the_same_as_alone(core, options):
  """Two seeds with one objective each, over the first steps, up to rounding."""
  common = dataclasses.replace(
    CONFIG,
    model=dataclasses.replace(CONFIG.model, core=core),
    train=dataclasses.replace(CONFIG.train, **options),
  )
  optimizer = ramjax.make_optimizer(common.train, steps_per_epoch=1000)
  train = jax.tree.map(jnp.asarray, DATASET.train)
  shares = [0.0, 0.2] if core == "lstm" else [0.0, 0.0]
  objectives = [
    ObjectiveConfig(name=name, location_gradient=share)
    for name, share in zip(OBJECTIVES, shares, strict=True)
  ]
  keys = jax.random.split(jax.random.key(0), len(objectives))
  weights = [ramjax.TermWeights.of(objective) for objective in objectives]
  if any(shares):
    weights = [
      each._replace(location_gradient=share)
      for each, share in zip(weights, shares, strict=True)
    ]
  orders = ramjax.epoch_orders(
    keys, 2, num_examples=len(train.labels), batch_size=CONFIG.train.batch_size
  )
  init = functools.partial(ramjax.init_train_states, config=common, optimizer=optimizer)
  states, metrics = bound(ramjax.train_chunks, common, optimizer)(
    jax.jit(init)(keys),
    *train,
    orders,
    1,
    1 + STEPS,
    jax.tree.map(lambda *values: jnp.array(values), *weights),
  )
  for run, (key, objective) in enumerate(zip(keys, objectives, strict=True)):
    config = dataclasses.replace(common, objective=objective)
    np.testing.assert_array_equal(
      orders[run],
      ramjax.epoch_order(
        key, 2, num_examples=len(train.labels), batch_size=CONFIG.train.batch_size
      ),
    )
    init = functools.partial(
      ramjax.init_train_state, config=config, optimizer=optimizer
    )
    state, alone = bound(ramjax.train_chunk, config, optimizer)(
      jax.jit(init)(key),
      *train,
      orders[run],
      1,
      1 + STEPS,
    )
    for name, values in alone.items():
      np.testing.assert_allclose(
        metrics[name][run], values, rtol=2e-5, atol=1e-6, err_msg=f"{name} of {run}"
      )
    jax.tree.map(
      lambda many, one, run=run: np.testing.assert_allclose(many[run], one, atol=1e-4),
      states.params,
      state.params,
    )
  assert len(set(np.asarray(metrics["loss"][:, 0]).tolist())) == len(keys)


def test_devices_that_do_not_divide_the_runs_are_named():
  mesh = jax.sharding.AbstractMesh((3,), ("batch",))
  optimizer = ramjax.make_optimizer(CONFIG.train, steps_per_epoch=10)
  with pytest.raises(
    ramjax.ConfigError, match="num_devices must divide the number of runs, 4"
  ):
    ramjax.train_chunks(
      None,
      *DATASET.train,
      jnp.zeros((4, 10, 16), jnp.int32),
      0,
      1,
      None,
      config=CONFIG,
      optimizer=optimizer,
      preprocess=DATASET.preprocess,
      max_steps=1,
      mesh=mesh,
    )
