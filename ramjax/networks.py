"""The networks of one glimpse step, in Flax.

The architecture follows Mnih et al. (2014), section 4,
https://arxiv.org/abs/1406.6247. Sizes and initialisation follow the released code of the
paper. Every network accepts any leading axes, so a batch is one matrix product. The core
carries a `CoreState` from glimpse to glimpse; all other networks read its hidden state h.
`ramjax.ram` makes a `ramjax.Model` of them.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from ramjax.config import ModelConfig
from ramjax.model import PyTree

_FORGET_BIAS = 1.0
"""Added to the initial bias of the LSTM's forget gate, so that it starts mostly open."""


def _uniform(fan_in: int) -> Callable[..., jax.Array]:
  """An initialiser that draws uniformly from ±1/sqrt(fan_in)."""
  bound = fan_in**-0.5

  def init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return init


def _dense(
  features: int,
  fan_in: int,
  name: str | None = None,
  *,
  dtype: str = "float32",
  **options: Any,
) -> nn.Dense:
  """A fully connected layer; weights and biases start uniform in ±1/sqrt(fan_in).

  Args:
    features: width of the layer.
    fan_in: width of its input.
    name: name of its parameters.
    dtype: see `contract`.
    **options: further attributes of the layer.
  """
  init = _uniform(fan_in)
  if dtype != "float32":
    options["dot_general"] = functools.partial(contract, dtype=dtype)
  options = {"kernel_init": init, "bias_init": init, **options}
  return nn.Dense(features, name=name, **options)


def contract(
  left: jax.Array,
  right: jax.Array,
  dimension_numbers: Any,
  precision: Any = None,
  *,
  dtype: str = "float32",
) -> jax.Array:
  """`jax.lax.dot_general` of factors that are rounded to a type.

  Args:
    left: left factor, float32.
    right: right factor, float32.
    dimension_numbers: as in `jax.lax.dot_general`.
    precision: as in `jax.lax.dot_general`.
    dtype: type of the factors, and of the product after its sum. The sum itself has the
      precision of the hardware, which is float32 for bfloat16.

  Returns:
    The product, float32.
  """
  left, right = left.astype(dtype), right.astype(dtype)
  product = jax.lax.dot_general(left, right, dimension_numbers, precision)
  return product.astype(jnp.float32)


class GlimpseActivations(NamedTuple):
  """Inputs and activations of the glimpse network, kept for the gradient.

  Attributes:
    patches: the glimpse, flattened.
    what: activation of the first layer for the patches.
    where: activation of the first layer for the location.
    features: the glimpse feature g.
  """

  patches: jax.Array  # [..., num_scales * g * g * C]
  what: jax.Array  # [..., branch_size]
  where: jax.Array  # [..., branch_size]
  features: jax.Array  # [..., features]


class GlimpseNetwork(nn.Module):
  """The glimpse network: g = relu(fc(relu(fc(patches))) + fc(relu(fc(location)))).

  Its activations are sown in the collection `activations`.

  Attributes:
    branch_size: width of the first layer of each branch.
    features: width of g.
    dtype: see `contract`.
  """

  branch_size: int
  features: int
  dtype: str = "float32"

  @nn.compact
  def __call__(self, glimpse: jax.Array, location: jax.Array) -> jax.Array:
    """From glimpses [..., any shape] and locations [..., 2] to features."""
    patches = glimpse.reshape(*location.shape[:-1], -1)
    dense = functools.partial(_dense, dtype=self.dtype)
    what = nn.relu(dense(self.branch_size, patches.shape[-1], "patch")(patches))
    where = nn.relu(_dense(self.branch_size, 2, "location")(location))
    features = nn.relu(
      dense(self.features, self.branch_size, "what")(what)
      + dense(self.features, self.branch_size, "where")(where)
    )
    activations = GlimpseActivations(patches, what, where, features)
    self.sow("activations", "layers", activations, reduce_fn=lambda _, new: new)
    return features


class CoreState(NamedTuple):
  """The recurrent state, carried from glimpse to glimpse.

  Attributes:
    hidden: the internal state h, which all other networks read.
    cell: the memory cell c of the LSTM; None for the RNN.
  """

  hidden: jax.Array  # [..., hidden_size]
  cell: jax.Array | None = None  # [..., hidden_size]


def initial_state(config: ModelConfig, *, batch: tuple[int, ...] = ()) -> CoreState:
  """The zero state before the first glimpse.

  Args:
    config: the model.
    batch: the leading axes [...] of the state.

  Returns:
    A state [..., hidden_size] for the core `config.core`.
  """
  zeros = jnp.zeros((*batch, config.hidden_size))
  return CoreState(zeros, zeros if config.core == "lstm" else None)


class RNNCore(nn.Module):
  """The released core: h_t = relu(fc(g_t) + fc(h_{t-1})).

  Attributes:
    hidden_size: width of the internal state h.
    dtype: see `contract`.
  """

  hidden_size: int
  dtype: str = "float32"

  @nn.compact
  def __call__(self, state: CoreState, features: jax.Array) -> CoreState:
    dense = functools.partial(_dense, self.hidden_size, dtype=self.dtype)
    return CoreState(
      nn.relu(
        dense(features.shape[-1], "glimpse")(features)
        + dense(self.hidden_size, "hidden")(state.hidden)
      )
    )


class GateActivations(NamedTuple):
  """Activations of the LSTM, kept for the gradient.

  Attributes:
    gates: activations of input, forget, candidate and output, side by side.
    cell: the new memory c.
  """

  gates: jax.Array  # [..., 4 * hidden_size]
  cell: jax.Array  # [..., hidden_size]


class LSTMCore(nn.Module):
  """The LSTM (Hochreiter and Schmidhuber, 1997) as the core, with one product of all gates.

  With s the logistic function and (i, f, g, o) = W g_t + V h_{t-1} + b,

    c_t = s(f) c_{t-1} + s(i) tanh(g),  h_t = s(o) tanh(c_t).

  Its activations are sown in the collection `activations`.

  Attributes:
    hidden_size: width of the internal state h and of the memory c.
    dtype: see `contract`.
  """

  hidden_size: int
  dtype: str = "float32"

  @nn.compact
  def __call__(self, state: CoreState, features: jax.Array) -> CoreState:
    dense = functools.partial(_dense, 4 * self.hidden_size, dtype=self.dtype)
    sums = dense(features.shape[-1], "glimpse", use_bias=False)(features)
    sums += dense(self.hidden_size, "hidden", bias_init=self._init_bias)(state.hidden)
    i, f, g, o = jnp.split(sums, 4, axis=-1)
    i, f, g, o = nn.sigmoid(i), nn.sigmoid(f), nn.tanh(g), nn.sigmoid(o)
    assert state.cell is not None
    cell = f * state.cell + i * g
    activations = GateActivations(jnp.concatenate([i, f, g, o], axis=-1), cell)
    self.sow("activations", "layers", activations, reduce_fn=lambda _, new: new)
    return CoreState(o * nn.tanh(cell), cell)

  def _init_bias(
    self, key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype
  ) -> jax.Array:
    """Uniform as all parameters, with an open forget gate."""
    bias = _uniform(self.hidden_size)(key, shape, dtype)
    return bias.at[self.hidden_size : 2 * self.hidden_size].add(_FORGET_BIAS)


_CORES = {"rnn": RNNCore, "lstm": LSTMCore}


class LocationNetwork(nn.Module):
  """What the location policy takes, fc(h): for a Gaussian, its mean before clipping.

  `ramjax.unroll` decides how much of its gradient goes on into h: as released, nothing.

  Attributes:
    num_outputs: `ramjax.Policy.num_outputs`.
  """

  num_outputs: int = 2

  @nn.compact
  def __call__(self, hidden: jax.Array) -> jax.Array:
    return _dense(self.num_outputs, hidden.shape[-1], "mean")(hidden)


class BaselineNetwork(nn.Module):
  """Baseline: the predicted reward, relu(fc(h)).

  The gradient of h is stopped, so the baseline loss trains this layer only.
  """

  @nn.compact
  def __call__(self, hidden: jax.Array) -> jax.Array:
    value = _dense(1, hidden.shape[-1], "value")(jax.lax.stop_gradient(hidden))
    return nn.relu(jnp.squeeze(value, axis=-1))


class ErrorNetwork(nn.Module):
  """The self-uncertainty u = relu(fc([h, p])), one value for each class.

  u predicts the absolute error of the prediction p (the paper, section 3). Nothing is
  stopped here: `ramjax.loss_parts` decides which networks each loss reaches.
  """

  @nn.compact
  def __call__(self, hidden: jax.Array, probs: jax.Array) -> jax.Array:
    inputs = jnp.concatenate([hidden, probs], axis=-1)
    return nn.relu(_dense(probs.shape[-1], inputs.shape[-1], "error")(inputs))


class RecurrentAttentionModel(nn.Module):
  """One glimpse step of the model, the prediction and the baseline.

  The error network is not part of this module; see `predict_error`.

  Attributes:
    config: the model.
    num_outputs: number of outputs of the location network.
  """

  config: ModelConfig
  num_outputs: int = 2

  def setup(self) -> None:
    size, dtype = self.config.hidden_size, self.config.compute_dtype
    self.glimpse = GlimpseNetwork(self.config.branch_size, size, dtype)
    self.core = _CORES[self.config.core](size, dtype)
    self.location = LocationNetwork(self.num_outputs)
    self.action = _dense(self.config.num_classes, self.config.hidden_size)
    self.baseline = BaselineNetwork()

  def step(
    self, state: CoreState, glimpse: jax.Array, location: jax.Array
  ) -> CoreState:
    """Updates the state with one glimpse.

    Args:
      state: state before the glimpse [..., hidden_size].
      glimpse: patches [..., num_scales, g, g, C], or what another sensor gives.
      location: location of the glimpse (x, y) [..., 2].

    Returns:
      The new state [..., hidden_size].
    """
    return self.core(state, self.glimpse(glimpse, location))

  def locate(self, hidden: jax.Array) -> jax.Array:
    """What the policy of the next location takes [..., num_outputs]."""
    return self.location(hidden)

  def read(self, hidden: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Logits of the prediction [..., K] and predicted reward [...] of a state."""
    return self.action(hidden), self.baseline(hidden)

  def __call__(
    self, state: CoreState, glimpse: jax.Array, location: jax.Array
  ) -> tuple[CoreState, jax.Array, jax.Array, jax.Array]:
    """All of these; uses every parameter, as initialisation requires."""
    state = self.step(state, glimpse, location)
    return state, self.locate(state.hidden), *self.read(state.hidden)


class Params(NamedTuple):
  """The parameters of the model, in two parts.

  Attributes:
    ram: glimpse, core, location, action and baseline network.
    error: error network, kept apart because some losses stop its gradient.
  """

  ram: PyTree
  error: PyTree


def init_params(
  key: jax.Array,
  config: ModelConfig,
  *,
  glimpse_shape: tuple[int, ...] | None = None,
  num_outputs: int = 2,
) -> Params:
  """Initial parameters: 212,347 numbers for the default configuration.

  Args:
    key: typed PRNG key.
    config: the model.
    glimpse_shape: shape of a glimpse; None for that of the configuration.
    num_outputs: number of outputs of the location network.

  Returns:
    Parameters, float32.
  """
  ram_key, error_key = jax.random.split(key)
  state = initial_state(config)
  side, channels = config.patch_size, config.image_shape[-1]
  glimpse = jnp.zeros(glimpse_shape or (config.num_scales, side, side, channels))
  module = RecurrentAttentionModel(config, num_outputs)
  ram = module.init(ram_key, state, glimpse, jnp.zeros(2))
  error = ErrorNetwork().init(error_key, state.hidden, jnp.zeros(config.num_classes))
  return Params(ram=ram["params"], error=error["params"])


def num_parameters(params: PyTree) -> int:
  """Total number of entries in a tree of parameters.

  Args:
    params: parameters, or any part of them; `jax.ShapeDtypeStruct` leaves work too.

  Returns:
    The number of entries of all arrays.

  >>> import jax
  >>> from ramjax import ModelConfig, init_params
  >>> shapes = jax.eval_shape(lambda key: init_params(key, ModelConfig()), jax.random.key(0))
  >>> num_parameters(shapes)
  212347
  """
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def predict_error(
  error_params: PyTree, hidden: jax.Array, probs: jax.Array
) -> jax.Array:
  """The self-uncertainty u, the output of the error network.

  Args:
    error_params: parameters of the error network, `Params.error`.
    hidden: internal states [..., hidden_size].
    probs: softmax outputs p [..., K].

  Returns:
    Self-uncertainties [..., K], at least 0.
  """
  return cast(jax.Array, ErrorNetwork().apply({"params": error_params}, hidden, probs))
