"""The networks of one glimpse step, in Flax.

The model is that of Mnih et al. (2014), section 4, https://arxiv.org/abs/1406.6247;
its sizes and its initialisation are those of the paper's released code. Every network
takes any leading axes, so that a batch is one matrix product.
"""

from typing import NamedTuple, cast

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from ramjax.config import ModelConfig


def _dense(features: int, fan_in: int, name: str | None = None) -> nn.Dense:
  """A fully connected layer, weights and biases uniform in ±1/sqrt(fan_in)."""
  bound = fan_in**-0.5

  def init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return nn.Dense(features, kernel_init=init, bias_init=init, name=name)


class GlimpseActivations(NamedTuple):
  """What went into the glimpse network and what its layers made of it."""

  patches: jax.Array  # [..., scales * g * g * C]
  what: jax.Array  # [..., branch_size]
  where: jax.Array  # [..., branch_size]
  features: jax.Array  # [..., features]


class GlimpseNetwork(nn.Module):
  """Joins what is seen and where: g = relu(what(patches) + where(location)).

  Its activations are sown, for whoever asks for the collection `activations`.

  Attributes:
    branch_size: width of the first layer of each branch.
    features: width of g.
  """

  branch_size: int
  features: int

  @nn.compact
  def __call__(self, glimpse: jax.Array, location: jax.Array) -> jax.Array:
    """From patches [..., scales, g, g, C] and locations [..., 2] to g [..., features]."""
    patches = glimpse.reshape(*glimpse.shape[:-4], -1)
    what = nn.relu(_dense(self.branch_size, patches.shape[-1], "patch")(patches))
    where = nn.relu(_dense(self.branch_size, 2, "location")(location))
    features = nn.relu(
      _dense(self.features, self.branch_size, "what")(what)
      + _dense(self.features, self.branch_size, "where")(where)
    )
    activations = GlimpseActivations(patches, what, where, features)
    self.sow("activations", "layers", activations, reduce_fn=lambda _, new: new)
    return features


class CoreNetwork(nn.Module):
  """The recurrent core: h_t = relu(fc(g_t) + fc(h_{t-1})).

  Attributes:
    hidden_size: width of the internal state h.
  """

  hidden_size: int

  @nn.compact
  def __call__(self, hidden: jax.Array, features: jax.Array) -> jax.Array:
    return nn.relu(
      _dense(self.hidden_size, features.shape[-1], "glimpse")(features)
      + _dense(self.hidden_size, self.hidden_size, "hidden")(hidden)
    )


class LocationNetwork(nn.Module):
  """Mean of the location policy, clip(fc(h), -1, 1); the state is stopped."""

  @nn.compact
  def __call__(self, hidden: jax.Array) -> jax.Array:
    mean = _dense(2, hidden.shape[-1], "mean")(jax.lax.stop_gradient(hidden))
    return jnp.clip(mean, -1.0, 1.0)


class BaselineNetwork(nn.Module):
  """Prediction of the reward from the state, relu(fc(h)); the state is stopped."""

  @nn.compact
  def __call__(self, hidden: jax.Array) -> jax.Array:
    value = _dense(1, hidden.shape[-1], "value")(jax.lax.stop_gradient(hidden))
    return nn.relu(jnp.squeeze(value, axis=-1))


class ErrorNetwork(nn.Module):
  """The self-uncertainty u = relu(fc([h, p])), one value a class.

  It predicts the size of the error of the prediction p from the state and p (paper,
  section 3). What its gradient may reach is decided where it is used.
  """

  @nn.compact
  def __call__(self, hidden: jax.Array, probs: jax.Array) -> jax.Array:
    inputs = jnp.concatenate([hidden, probs], axis=-1)
    return nn.relu(_dense(probs.shape[-1], inputs.shape[-1], "error")(inputs))


class RecurrentAttentionModel(nn.Module):
  """One glimpse step of the RAM and its two readouts; the error network is apart.

  Attributes:
    config: the sizes of the networks.
  """

  config: ModelConfig

  def setup(self) -> None:
    self.glimpse = GlimpseNetwork(self.config.branch_size, self.config.hidden_size)
    self.core = CoreNetwork(self.config.hidden_size)
    self.location = LocationNetwork()
    self.action = _dense(self.config.num_classes, self.config.hidden_size)
    self.baseline = BaselineNetwork()

  def step(
    self, hidden: jax.Array, glimpse: jax.Array, location: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """Takes in one glimpse.

    Args:
      hidden: internal state [..., hidden_size] before it.
      glimpse: patches [..., num_scales, g, g, C].
      location: where they were cut [..., 2].

    Returns:
      The state after it [..., hidden_size], and the mean of the policy for the next
      location [..., 2].
    """
    hidden = self.core(hidden, self.glimpse(glimpse, location))
    return hidden, self.location(hidden)

  def read(self, hidden: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Logits of the prediction [..., K] and the predicted reward [...] of states."""
    return self.action(hidden), self.baseline(hidden)

  def __call__(
    self, hidden: jax.Array, glimpse: jax.Array, location: jax.Array
  ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """A step and its readouts; touches every parameter, for initialisation."""
    hidden, mean = self.step(hidden, glimpse, location)
    return hidden, mean, *self.read(hidden)


class Params(NamedTuple):
  """Parameters in two parts, so that `_replace` can stop the gradient of one.

  Attributes:
    ram: glimpse, core, location, action and baseline network.
    error: error network.
  """

  ram: chex.ArrayTree
  error: chex.ArrayTree


def init_params(key: jax.Array, config: ModelConfig) -> Params:
  """Fresh parameters; 212,347 of them for the default configuration.

  Args:
    key: typed PRNG key.
    config: the shape of the model.

  Returns:
    Parameters, float32.
  """
  ram_key, error_key = jax.random.split(key)
  hidden = jnp.zeros(config.hidden_size)
  side, channels = config.patch_size, config.image_shape[-1]
  glimpse = jnp.zeros((config.num_scales, side, side, channels))
  ram = RecurrentAttentionModel(config).init(ram_key, hidden, glimpse, jnp.zeros(2))
  error = ErrorNetwork().init(error_key, hidden, jnp.zeros(config.num_classes))
  return Params(ram=ram["params"], error=error["params"])


def predict_error(
  error_params: chex.ArrayTree, hidden: jax.Array, probs: jax.Array
) -> jax.Array:
  """The self-uncertainty u: what the error network predicts.

  Args:
    error_params: parameters of the error network, `Params.error`.
    hidden: internal states [..., hidden_size].
    probs: softmax outputs p [..., K].

  Returns:
    Self-uncertainties [..., K], at least 0.
  """
  return cast(jax.Array, ErrorNetwork().apply({"params": error_params}, hidden, probs))
