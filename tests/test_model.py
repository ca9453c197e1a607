"""Models of one's own: rollouts, training, stopping, evaluation, files, parts replaced."""

import dataclasses
import functools

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import own_models
import pytest
from flax import nnx

import ramjax
from ramjax import Model, ModelConfig
from ramjax.checkpoint import Checkpoints
from ramjax.ram import as_model

CONFIG = ramjax.Config(
  model=ModelConfig(
    image_shape=(20, 24, 1), hidden_size=16, branch_size=8, patch_size=5, num_classes=4
  ),
  train=ramjax.TrainConfig(num_glimpses=3, batch_size=8),
)
IMAGES = jax.random.normal(jax.random.key(1), (8, 20, 24, 1))
LABELS = jnp.arange(8) % 4
KEY = jax.random.key(2)
RINGS = functools.partial(
  ramjax.log_polar_glimpse, num_rings=3, num_angles=5, min_radius=1.0, max_radius=6.0
)
GRID = ramjax.categorical_policy([(x, y) for x in (-0.5, 0.5) for y in (-0.5, 0, 0.5)])


class Affine(eqx.Module):
  """A step with one matrix; the parameters of every library are the same numbers."""

  weight: jax.Array

  def __init__(self, key):
    self.weight = jax.random.normal(key, (27, 16)) / 5

  def start(self):
    return jnp.zeros(16)

  def step(self, state, glimpse, location):
    inputs = jnp.concatenate([glimpse.ravel(), location])
    hidden = jnp.tanh(inputs @ self.weight + state)
    return hidden, hidden

  def locate(self, hidden):
    return hidden[:2]

  def read(self, hidden):
    return hidden[2:6], hidden[6]


class NNXAffine(nnx.Module):
  def __init__(self, rngs):
    self.weight = nnx.Param(Affine(rngs.params.key.get_value()).weight)

  start = Affine.start
  locate = Affine.locate
  read = Affine.read

  def step(self, state, glimpse, location):
    inputs = jnp.concatenate([glimpse.ravel(), location])
    hidden = jnp.tanh(inputs @ self.weight.get_value() + state)
    return hidden, hidden


def equinox_model(sensor):
  _, static = eqx.partition(Affine(KEY), eqx.is_inexact_array)
  return Model.from_methods(
    init=lambda key: eqx.filter(Affine(key), eqx.is_inexact_array),
    call=lambda params, name, *args: getattr(eqx.combine(params, static), name)(*args),
    sensor=sensor,
  )


def nnx_model(sensor):
  graph, _ = nnx.split(NNXAffine(nnx.Rngs(KEY)))
  return Model.from_methods(
    init=lambda key: nnx.split(NNXAffine(nnx.Rngs(key)))[1],
    call=lambda params, name, *args: getattr(nnx.merge(graph, params), name)(*args),
    sensor=sensor,
  )


def plain_model(sensor):
  """No library at all: the parameters are a matrix."""
  paper = equinox_model(sensor)

  def step(weight, state, glimpse, location):
    hidden = jnp.tanh(jnp.concatenate([glimpse.ravel(), location]) @ weight + state)
    return hidden, hidden

  return Model(
    init=lambda key: Affine(key).weight,
    start=lambda weight: jnp.zeros(16),
    step=step,
    locate=lambda weight, hidden: hidden[:2],
    read=lambda weight, hidden: (hidden[2:6], hidden[6]),
    sensor=paper.sensor,
  )


SENSOR = as_model(CONFIG.model).sensor
LIBRARIES = {
  "plain": plain_model(SENSOR),
  "equinox": equinox_model(SENSOR),
  "nnx": nnx_model(SENSOR),
}
GRU = own_models.make(CONFIG.model)


@functools.partial(jax.jit, static_argnames=("model", "autodiff"))
def look(params, model, autodiff=False):
  return ramjax.rollout(
    KEY, params, IMAGES, model=model, num_glimpses=3, autodiff=autodiff
  )


def close(left, right, **tolerance):
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, **{"atol": 1e-6, **tolerance}),
    left,
    right,
  )


@pytest.mark.parametrize("name", ["equinox", "nnx"])
def test_the_library_of_a_model_does_not_matter(name):
  """Equal numbers give equal rollouts and equal gradients."""
  expected, found = LIBRARIES["plain"], LIBRARIES[name]
  params = [model.init(jax.random.key(0)) for model in (expected, found)]
  assert jax.tree.leaves(params[1])[0].shape == params[0].shape == (27, 16)
  close(look(params[0], expected), look(params[1], found))

  def loss(params, model):
    return jnp.square(look(params, model).logits_t).sum()

  slopes = [
    jax.grad(loss)(p, m) for p, m in zip(params, (expected, found), strict=True)
  ]
  close(*(jax.tree.leaves(slope) for slope in slopes), rtol=1e-5)
  assert slopes[0].any()


def test_a_rollout_equals_a_loop_over_one_image():
  """Of a GRU whose state counts its glimpses; without an error network, u = 2 p (1 - p)."""
  params = GRU.init(jax.random.key(0))
  found = look(params, GRU)
  step = jax.jit(GRU.step)
  for image in range(2):
    state = GRU.start(params)
    for t in range(3):
      location = found.location_t[t, image]
      glimpse = GRU.sensor(IMAGES[image], location)
      state, hidden = step(params, state, glimpse, location)
      logits, baseline = GRU.read(params, hidden)
      probs = jax.nn.softmax(logits)
      close(found.hidden_t[t, image], hidden, atol=1e-5)
      close(found.logits_t[t, image], logits, atol=1e-5)
      close(found.baseline_t[t, image], baseline, atol=1e-5)
      close(found.predicted_error_t[t, image], 2 * probs * (1 - probs), atol=1e-5)
      mean = jnp.clip(GRU.locate(params, hidden), -1, 1)
      drawn = found.next_location_t[t, image]
      close(
        found.log_prob_t[t, image],
        ramjax.location_log_prob(drawn, mean, std=0.1),
        rtol=1e-4,
      )
    assert int(state["seen"]) == 3


def test_a_gru_learns():
  """Bright images from dark ones, by `train_step`."""
  plain = CONFIG.replace(objective={"name": "original"})
  run = {"config": plain, "optimizer": optax.adam(1e-2), "model": GRU}
  state = ramjax.init_train_state(jax.random.key(0), **run)
  labels = jnp.arange(8) % 2
  images = 0.1 * IMAGES + labels.astype(float)[:, None, None, None]
  losses = []
  for _ in range(25):
    state, metrics = ramjax.train_step(state, images, labels, **run)
    losses.append(float(metrics["loss/classification"]))
  assert losses[-1] < 0.2 * losses[0]
  assert metrics["accuracy"] == 1.0


def test_all_of_the_library_takes_a_model_of_ones_own():
  """Chunks of many runs, validation, evaluation and looking until decided agree."""
  run = {"config": CONFIG, "optimizer": optax.sgd(0.1), "model": GRU}
  keys = jax.random.split(jax.random.key(0), 2)
  states = jax.jit(functools.partial(ramjax.init_train_states, **run))(keys)
  single = jax.tree.map(lambda leaf: leaf[0], states)
  stored = (100 * jnp.abs(IMAGES)).astype(jnp.uint8)

  def preprocess(key, image, pool):
    return image.astype(jnp.float32) / 100

  orders = jnp.tile(jnp.arange(8), (2, 1, 1))
  chunk = {"preprocess": preprocess, "max_steps": 1, **run}
  weights = jax.tree.map(
    lambda w: jnp.full(2, w), ramjax.TermWeights.of(CONFIG.objective)
  )
  states, metrics = jax.jit(functools.partial(ramjax.train_chunks, **chunk))(
    states, stored, LABELS, orders, 0, 1, weights
  )
  after, expected = ramjax.train_step(
    single, preprocess(None, stored, None), LABELS, **run
  )
  close(jax.tree.map(lambda m: m[0, 0], metrics), expected, rtol=1e-4)
  close(jax.tree.map(lambda p: p[0], states.params), after.params, rtol=1e-4)

  params = after.params
  valid = ramjax.validate(
    KEY, params, stored, LABELS, config=CONFIG, model=GRU, preprocess=preprocess
  )
  evaluation = ramjax.evaluate(
    KEY,
    params,
    stored,
    LABELS,
    jnp.array([0.3]),
    model=GRU,
    evaluation_config=ramjax.EvaluationConfig(num_glimpses=3),
    preprocess=preprocess,
  )
  assert np.isfinite(list(valid.values())).all()
  decision = ramjax.look_until_decided(
    jax.random.fold_in(jax.random.split(KEY)[1], 0),
    params,
    preprocess(None, stored, None),
    beta=0.3,
    model=GRU,
    max_glimpses=3,
  )
  close(evaluation.mean_glimpses[0], decision.num_glimpses.mean(dtype=jnp.float32))
  hits = decision.probs.argmax(-1) == LABELS
  close(evaluation.dynamic_accuracy[0], hits.mean())


@pytest.mark.parametrize("name", ["equinox", "nnx", "gru"])
def test_states_of_ones_own_come_back_from_disk(name, tmp_path):
  model = {**LIBRARIES, "gru": GRU}[name]
  run = {"config": CONFIG, "optimizer": optax.adam(1e-2), "model": model}
  state, other = (
    ramjax.init_train_state(jax.random.key(seed), **run) for seed in (0, 1)
  )
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(state)
    found = checkpoints.restore(other)
  chex.assert_trees_all_equal(found.params, state.params)
  assert jax.tree.structure(found) == jax.tree.structure(state)


PARTS = {
  "sensor": ("lstm", {"sensor": RINGS}),
  "learned": ("rnn", {"policy": ramjax.learned_gaussian_policy(0.2)}),
  "both": ("rnn", {"policy": GRID, "sensor": RINGS}),
}


@pytest.mark.parametrize(("core", "parts"), PARTS.values(), ids=PARTS)
def test_gradient_by_hand_serves_every_sensor_and_policy(core, parts):
  config = dataclasses.replace(CONFIG.model, core=core)
  model = ramjax.recurrent_attention_model(config, **parts)
  params = model.init(jax.random.key(0))
  if "policy" in parts:
    outputs = params.ram["location"]["mean"]["bias"].shape
    assert outputs == (parts["policy"].num_outputs,)

  def loss(params, autodiff):
    rollout = look(params, model, autodiff)
    loss, _ = ramjax.objective(
      params, rollout, LABELS, model=model, objective_config=CONFIG.objective
    )
    return loss

  found, expected = (jax.grad(loss)(params, plain) for plain in (False, True))
  chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-6)
  assert found.ram["location"]["mean"]["kernel"].any()
  assert found.ram["glimpse"]["patch"]["kernel"].any()


def test_a_replaced_step_has_its_own_gradient():
  """The gradient by hand is that of the paper's networks only."""
  paper = as_model(CONFIG.model)

  def doubled(params, state, glimpse, location):
    return paper.step(params, state, 2 * glimpse, location)

  model = paper._replace(step=doubled)
  params = model.init(jax.random.key(0))

  def loss(params, autodiff):
    return jnp.square(look(params, model, autodiff).logits_t).sum()

  found, expected = (jax.grad(loss)(params, plain) for plain in (False, True))
  chex.assert_trees_all_equal(found, expected)


def test_equal_configurations_are_one_model():
  """Otherwise every call would be compiled anew."""
  one, other = (as_model(dataclasses.replace(CONFIG.model)) for _ in range(2))
  assert one is other
  assert hash(one) == hash(other)
  assert as_model(GRU) is GRU


def test_a_configuration_names_a_model_of_ones_own():
  config = dataclasses.replace(CONFIG.model, factory="own_models:make")
  model = as_model(config)
  assert model is as_model(dataclasses.replace(config))
  run = {"config": CONFIG.replace(model={"factory": "own_models:make"})}
  named = ramjax.init_train_state(KEY, optimizer=optax.sgd(0.1), **run)
  given = ramjax.init_train_state(
    KEY, optimizer=optax.sgd(0.1), config=CONFIG, model=GRU
  )
  chex.assert_trees_all_equal(named.params, given.params)


@pytest.mark.parametrize(
  ("factory", "message"),
  [
    ("own_models", "factory must be package.module:function"),
    ("own models:make", "factory must be package.module:function"),
    ("no_such_module:make", "no_such_module:make cannot be imported: No module named"),
    ("own_models:nothing", "own_models:nothing: own_models has no such function"),
    ("own_models:make_nothing", "must return a ramjax.Model"),
  ],
)
def test_a_name_that_leads_to_no_model_is_refused(factory, message):
  with pytest.raises(ramjax.ConfigError, match=message) as caught:
    as_model(dataclasses.replace(CONFIG.model, factory=factory))
  assert "\n" not in str(caught.value)


def replaced(**parts):
  return LIBRARIES["plain"]._replace(**parts)


@pytest.mark.parametrize(
  ("model", "message"),
  [
    (
      replaced(init=lambda key: jnp.arange(3)),
      "init of a model must return parameters of floats, not int32[3]",
    ),
    (
      replaced(step=lambda params, state, glimpse, location: state),
      "step of a model must return a pair, not float32[16]",
    ),
    (
      replaced(start=lambda params: jnp.zeros(3), step=lambda p, s, *_: (s[:2], s)),
      "step of a model must return a state like that of start, float32[3], not float32[2]",
    ),
    (
      replaced(step=lambda params, state, *_: (state, (state, state))),
      "step of a model must return hidden [n] of floats, not",
    ),
    (
      replaced(read=lambda params, hidden: hidden[:4]),
      "read of a model must return a pair, not float32[4]",
    ),
    (
      replaced(read=lambda params, hidden: (hidden[:7], hidden[0])),
      "read of a model must return logits [4] of floats, not float32[7]",
    ),
    (
      replaced(read=lambda params, hidden: (hidden[:4], hidden[:1])),
      "read of a model must return baseline [] of floats, not float32[1]",
    ),
    (
      replaced(policy=ramjax.learned_gaussian_policy(0.1)),
      "the policy cannot use what locate returns, float32[2]: ",
    ),
    (
      replaced(predict_error=lambda params, hidden, probs: probs[:1]),
      "predict_error of a model must return an array [4] of floats, not float32[1]",
    ),
    (
      replaced(first_location=lambda key: [0.0, 0.0]),
      "first_location of a model must return an array [2] of floats, not",
    ),
  ],
)
def test_a_function_that_does_not_fit_is_named_before_training(model, message):
  with pytest.raises(ramjax.ConfigError) as caught:
    ramjax.init_train_state(KEY, config=CONFIG, optimizer=optax.sgd(0.1), model=model)
  assert str(caught.value).startswith(message)


def test_something_else_than_a_model_is_refused():
  with pytest.raises(ramjax.ConfigError, match="must be a Model or a ModelConfig"):
    as_model(CONFIG)


@pytest.mark.parametrize("core", ["rnn", "lstm"])
def test_bfloat16_rounds_factors_and_nothing_else(core):
  """Parameters and states are float32; gradients by hand and of autodiff agree."""
  config = dataclasses.replace(CONFIG.model, core=core)
  low = dataclasses.replace(config, compute_dtype="bfloat16")
  params = as_model(config).init(jax.random.key(0))
  chex.assert_trees_all_equal(params, as_model(low).init(jax.random.key(0)))
  expected, found = (look(params, as_model(each)) for each in (config, low))
  chex.assert_trees_all_equal_dtypes(found, expected)
  first = np.asarray(found.hidden_t[0]), np.asarray(expected.hidden_t[0])
  assert 1e-5 < np.abs(first[0] - first[1]).max() < 2e-2

  def loss(params, autodiff, config):
    hidden_t = look(params, as_model(config), autodiff).hidden_t
    return jnp.square(hidden_t[:1]).sum()

  by_hand, plain = (jax.grad(loss)(params, each, low) for each in (False, True))
  exact = jax.grad(loss)(params, False, config)
  for slope in (by_hand, plain):
    chex.assert_trees_all_equal_dtypes(slope, exact)
    chex.assert_trees_all_close(slope, exact, rtol=0.05, atol=0.02)
  program = str(jax.make_jaxpr(lambda p: jax.grad(loss)(p, False, low))(params))
  assert "bf16" in program
