"""The networks: number of parameters, initialisation, and one step in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ramjax import ModelConfig, init_params, num_parameters, predict_error
from ramjax.networks import CoreState, RecurrentAttentionModel

CONFIG = ModelConfig()
LSTM = ModelConfig(core="lstm")


@pytest.fixture(scope="module")
def params():
  return init_params(jax.random.key(0), CONFIG)


def test_number_of_parameters_equals_the_released_code(params):
  assert num_parameters(params) == 212_347


def test_parameters_are_counted_from_their_shapes(params):
  assert num_parameters(params.ram["location"]) == 256 * 2 + 2
  assert num_parameters({"scalar": jnp.float32(1), "none": None}) == 1
  # The LSTM has four layers of g and h with one bias each; the RNN has one with two.
  shapes = jax.eval_shape(lambda: init_params(jax.random.key(0), LSTM))
  rnn, lstm = 2 * (256 * 256 + 256), 4 * (2 * 256 * 256 + 256)
  assert num_parameters(shapes) == 212_347 - rnn + lstm == 606_075


def test_weights_and_biases_are_uniform_in_one_over_root_fan_in(params):
  layers = jax.tree.leaves(
    params, is_leaf=lambda node: isinstance(node, dict) and "kernel" in node
  )
  assert len(layers) == 10
  for layer in layers:
    bound = layer["kernel"].shape[0] ** -0.5
    for values in (layer["kernel"], layer["bias"]):
      assert jnp.abs(values).max() <= bound
    kernel = layer["kernel"]
    assert jnp.abs(kernel).max() > 0.9 * bound
    # The standard deviation of a uniform variable in ±b is b / √3.
    if kernel.size > 1_000:
      np.testing.assert_allclose(kernel.std(), bound / np.sqrt(3), rtol=0.05)
    if layer["bias"].size > 100:
      np.testing.assert_allclose(layer["bias"].std(), bound / np.sqrt(3), rtol=0.15)
  all_biases = jnp.concatenate([layer["bias"] for layer in layers])
  assert (all_biases != 0).all()


def test_layers_start_with_different_weights(params):
  core = params.ram["core"]
  assert not np.allclose(core["glimpse"]["kernel"], core["hidden"]["kernel"])


def relu(x):
  return np.maximum(x, 0.0)


def fc(layer, x):
  return x @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])


def test_a_step_equals_its_definition_in_numpy(params):
  rng = np.random.RandomState(0)
  glimpse = rng.randn(5, 1, 8, 8, 1).astype(np.float32)
  location = rng.uniform(-1, 1, (5, 2)).astype(np.float32)
  hidden = rng.rand(5, 256).astype(np.float32)
  value = params.ram["baseline"]["value"]
  ram = {  # with a baseline that is negative before the relu
    **params.ram,
    "baseline": {"value": {"kernel": -jnp.abs(value["kernel"]), "bias": value["bias"]}},
  }

  what = relu(fc(ram["glimpse"]["patch"], glimpse.reshape(5, -1)))
  where = relu(fc(ram["glimpse"]["location"], location))
  g = relu(fc(ram["glimpse"]["what"], what) + fc(ram["glimpse"]["where"], where))
  h = relu(fc(ram["core"]["glimpse"], g) + fc(ram["core"]["hidden"], hidden))
  mean = fc(ram["location"]["mean"], h)
  logits = fc(ram["action"], h)
  baseline = relu(fc(ram["baseline"]["value"], h))[:, 0]
  assert (fc(ram["baseline"]["value"], h) < 0).all()
  probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  u = relu(fc(params.error["error"], np.concatenate([h, probs], -1)))

  found = RecurrentAttentionModel(CONFIG).apply(
    {"params": ram}, CoreState(hidden), glimpse, location
  )
  assert found[0].cell is None
  found = found[0].hidden, *found[1:]
  for ours, expected in zip(found, (h, mean, logits, baseline), strict=True):
    np.testing.assert_allclose(ours, expected, atol=2e-6)
  ours = predict_error(params.error, jnp.asarray(h), jnp.asarray(probs))
  np.testing.assert_allclose(ours, u, atol=2e-6)


@pytest.fixture(scope="module")
def lstm_params():
  return jax.jit(lambda: init_params(jax.random.key(0), LSTM))()


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def test_a_step_of_the_lstm_equals_its_definition_in_numpy(lstm_params):
  """All other networks read the hidden state, not the memory cell."""
  rng = np.random.RandomState(0)
  glimpse = rng.randn(5, 1, 8, 8, 1).astype(np.float32)
  location = rng.uniform(-1, 1, (5, 2)).astype(np.float32)
  hidden = rng.uniform(-1, 1, (5, 256)).astype(np.float32)
  cell = 2 * rng.randn(5, 256).astype(np.float32)
  ram = lstm_params.ram

  what = relu(fc(ram["glimpse"]["patch"], glimpse.reshape(5, -1)))
  where = relu(fc(ram["glimpse"]["location"], location))
  g = relu(fc(ram["glimpse"]["what"], what) + fc(ram["glimpse"]["where"], where))
  layers = ram["core"]
  sums = g @ np.asarray(layers["glimpse"]["kernel"]) + fc(layers["hidden"], hidden)
  gate_i, gate_f, new, gate_o = np.split(sums, 4, axis=-1)
  c = sigmoid(gate_f) * cell + sigmoid(gate_i) * np.tanh(new)
  h = sigmoid(gate_o) * np.tanh(c)

  state, mean, logits, baseline = RecurrentAttentionModel(LSTM).apply(
    {"params": ram}, CoreState(hidden, cell), glimpse, location
  )
  np.testing.assert_allclose(state.cell, c, atol=2e-6)
  np.testing.assert_allclose(state.hidden, h, atol=2e-6)
  expected = fc(ram["location"]["mean"], h)
  np.testing.assert_allclose(mean, expected, atol=2e-6)
  np.testing.assert_allclose(logits, fc(ram["action"], h), atol=2e-6)
  expected = relu(fc(ram["baseline"]["value"], h))[:, 0]
  np.testing.assert_allclose(baseline, expected, atol=2e-6)


def test_lstm_starts_with_an_open_forget_gate(lstm_params):
  """Parameters are uniform in ±1/sqrt(256); the bias of the forget gate is around 1."""
  core = lstm_params.ram["core"]
  bias = core["hidden"]["bias"]
  middle = jnp.repeat(jnp.array([0.0, 1.0, 0.0, 0.0]), 256)
  assert "bias" not in core["glimpse"]
  for values in (core["glimpse"]["kernel"], core["hidden"]["kernel"], bias - middle):
    assert 0.9 / 16 < jnp.abs(values).max() <= 1.0001 / 16


def test_sizes_follow_the_configuration():
  config = ModelConfig(
    image_shape=(60, 40, 3),
    num_classes=4,
    patch_size=12,
    num_scales=3,
    branch_size=32,
    hidden_size=64,
  )
  params = init_params(jax.random.key(0), config)
  assert params.ram["glimpse"]["patch"]["kernel"].shape == (3 * 12 * 12 * 3, 32)
  assert params.ram["core"]["hidden"]["kernel"].shape == (64, 64)
  assert params.error["error"]["kernel"].shape == (64 + 4, 4)
