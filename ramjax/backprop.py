"""The unroll of the paper's model with a hand-written gradient: same values, less time.

Autodiff of the scan computes every weight gradient step by step, as T small matrix
products. But no gradient flows through the sampled locations, so only one quantity must
be propagated backwards through time: a_t, the gradient of the loss L in the input of the
core's relu,

  a_t = 1[h_t > 0] (dL/dh_t + W_hidden a_{t+1}).

For the LSTM, a_t is the gradient in the inputs of its gates; beside it goes the gradient
in the memory c. Given all a_t, each weight gradient is one matrix product over all
glimpses and examples. tests/test_backprop.py compares this gradient with autodiff of the
plain scan.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from ramjax import networks
from ramjax.config import ModelConfig
from ramjax.model import Model, PyTree
from ramjax.unroll import Unrolled, loop, unroll


def unroll_by_hand(
  params: networks.Params,
  images: jax.Array,
  first_location: jax.Array,
  noise_t: PyTree,
  *,
  model: Model,
  module: networks.RecurrentAttentionModel,
  location_gradient: float | jax.Array = 0.0,
) -> Unrolled:
  """`ramjax.unroll.unroll` of the paper's model, with a faster gradient in parameters.

  If images or first locations are differentiated too, it falls back to autodiff.
  Forward-mode differentiation is not supported.

  Args:
    params: parameters of the model.
    images: batch [B, H, W, C], float, normalised.
    first_location: location of the first glimpse (x, y) [B, 2].
    noise_t: noise of the policy [T, B, ...].
    model: the model; its sensor and its policy may be any.
    module: the networks of its `start`, `step` and `locate`.
    location_gradient: see `ramjax.rollout`.

  Returns:
    The unroll.
  """

  static = isinstance(location_gradient, float | int)
  shares = () if static else (location_gradient,)

  def plain(ram: Any, *inputs: Any) -> Unrolled:
    images, first_location, noise_t, *shares = inputs
    return unroll(
      networks.Params(ram, error=None),
      images,
      first_location,
      noise_t,
      model=model,
      location_gradient=location_gradient if static else shares[0],
    )

  def step_keeping_activations(
    params: networks.Params, state: networks.CoreState, *inputs: jax.Array
  ) -> tuple[networks.CoreState, Any]:
    state, sown = module.apply(
      {"params": params.ram}, state, *inputs, method="step", mutable=["activations"]
    )
    return state, (state.hidden, sown["activations"])

  keeping = model._replace(
    step=step_keeping_activations,
    locate=lambda params, kept: model.locate(params, kept[0]),
  )
  run = jax.custom_vjp(plain)

  def forward(*inputs: Any) -> tuple[Unrolled, Any]:
    values = jax.tree.map(lambda leaf: leaf.value, inputs)
    if any(leaf.perturbed for leaf in jax.tree.leaves(inputs[1:4])):
      return jax.vjp(plain, *values)
    ram, *rest = values
    unrolled = unroll(networks.Params(ram, error=None), *rest[:3], model=keeping)
    hidden_t, activations = unrolled.hidden_t
    unrolled = unrolled._replace(hidden_t=hidden_t)
    return unrolled, (ram, unrolled, activations, rest[3:])

  def backward(residuals: Any, gradient: Unrolled) -> tuple[Any, ...]:
    gradient = jax.tree.map(_instantiate, gradient, is_leaf=_is_zero)
    if callable(residuals):
      return tuple(residuals(gradient))
    params, unrolled, activations, shares = residuals
    params_gradient = _params_gradient(
      params,
      unrolled,
      activations,
      gradient,
      config=module.config,
      location_gradient=location_gradient if static else shares[0],
    )
    return params_gradient, *(None,) * (3 + len(shares))

  run.defvjp(forward, backward, symbolic_zeros=True)
  recurrent = {name: params.ram[name] for name in ("glimpse", "core", "location")}
  return run(recurrent, images, first_location, noise_t, *shares)


def _params_gradient(
  params: Any,
  unrolled: Unrolled,
  activations: Any,
  gradient: Unrolled,
  *,
  config: ModelConfig,
  location_gradient: float | jax.Array,
) -> dict[str, Any]:
  """Gradient of the loss in the parameters of the glimpse, core and location network.

  Args:
    params: parameters of these networks.
    unrolled: output of the unroll.
    activations: activations of the networks at each glimpse [T, B, ...].
    gradient: gradient of the loss in `unrolled`.
    config: the model.
    location_gradient: see `ramjax.rollout`.
  """
  product = functools.partial(_product, dtype=config.compute_dtype)
  layer_gradient = functools.partial(_layer_gradient, dtype=config.compute_dtype)
  glimpse, core = params["glimpse"], params["core"]
  kept = activations["glimpse"]["layers"]
  hidden_t = unrolled.hidden_t
  location_network = networks.LocationNetwork(unrolled.output_t.shape[-1])
  _, location_vjp = jax.vjp(
    lambda *inputs: location_network.apply({"params": inputs[0]}, inputs[1]),
    params["location"],
    hidden_t,
  )
  of_location, of_hidden_t = location_vjp(gradient.output_t)
  hidden_gradient_t = gradient.hidden_t
  if not isinstance(location_gradient, float | int) or location_gradient != 0:
    hidden_gradient_t += location_gradient * of_hidden_t
  to_hidden = functools.partial(product, kernel=core["hidden"]["kernel"].T)
  # `sums`, `features`, `what` and `where`: gradients in the inputs of activations.
  if config.core == "rnn":
    sums = _rnn_gradient(hidden_t, hidden_gradient_t, to_hidden)
  else:
    gates = activations["core"]["layers"]
    sums = _lstm_gradient(gates, hidden_gradient_t, to_hidden)
  features = _before_relu(kept.features, product(sums, core["glimpse"]["kernel"].T))
  what = _before_relu(kept.what, product(features, glimpse["what"]["kernel"].T))
  where = _before_relu(kept.where, product(features, glimpse["where"]["kernel"].T))
  core_gradient = {
    "glimpse": layer_gradient(kept.features, sums),
    "hidden": {
      # The state before the first glimpse is zero: the kernel gets no gradient there.
      "kernel": layer_gradient(hidden_t[:-1], sums[1:])["kernel"],
      "bias": sums.sum(axis=(0, 1)),
    },
  }
  return {
    "glimpse": {
      "patch": layer_gradient(kept.patches, what),
      "location": _layer_gradient(unrolled.location_t, where),
      "what": layer_gradient(kept.what, features),
      "where": layer_gradient(kept.where, features),
    },
    "core": {
      layer: {name: core_gradient[layer][name] for name in core[layer]}
      for layer in core
    },
    "location": of_location,
  }


def _rnn_gradient(
  hidden_t: jax.Array,
  gradient_t: jax.Array,
  to_hidden: Callable[[jax.Array], jax.Array],
) -> jax.Array:
  """Gradient in the inputs of the core's relu [T, B, hidden_size].

  Args:
    hidden_t: internal state h after each glimpse [T, B, hidden_size].
    gradient_t: gradient of the loss in `hidden_t`.
    to_hidden: from the gradient at the next glimpse to its part in the state before.
  """

  def step(
    next_sums: jax.Array, inputs: tuple[jax.Array, jax.Array]
  ) -> tuple[jax.Array, jax.Array]:
    hidden, gradient = inputs
    sums = _before_relu(hidden, gradient + to_hidden(next_sums))
    return sums, sums

  start = jnp.zeros_like(hidden_t[0])
  return loop(step, start, (hidden_t, gradient_t), reverse=True)[1]


def _lstm_gradient(
  activations: networks.GateActivations,
  gradient_t: jax.Array,
  to_hidden: Callable[[jax.Array], jax.Array],
) -> jax.Array:
  """Gradient in the inputs of the LSTM's gates [T, B, 4 * hidden_size].

  Args:
    activations: activations of the gates, and the memory, after each glimpse.
    gradient_t: gradient of the loss in h after each glimpse [T, B, hidden_size].
    to_hidden: from the gradient at the next glimpse to its part in h before.
  """
  gates_t, cell_t = activations
  start = jnp.zeros_like(cell_t[0])
  before_t = jnp.concatenate([start[None], cell_t[:-1]])

  def step(
    carry: tuple[jax.Array, jax.Array], inputs: tuple[jax.Array, ...]
  ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    next_sums, next_cell = carry
    gates, cell, before, gradient = inputs
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    hidden = gradient + to_hidden(next_sums)
    seen = jnp.tanh(cell)
    of_cell = next_cell + hidden * o * (1.0 - seen**2)
    of_gates = (
      of_cell * g * i * (1.0 - i),
      of_cell * before * f * (1.0 - f),
      of_cell * i * (1.0 - g**2),
      hidden * seen * o * (1.0 - o),
    )
    sums = jnp.concatenate(of_gates, axis=-1)
    return (sums, of_cell * f), sums

  inputs_t = gates_t, cell_t, before_t, gradient_t
  carry = jnp.zeros_like(gates_t[0]), start
  return loop(step, carry, inputs_t, reverse=True)[1]


def _product(inputs: jax.Array, kernel: jax.Array, *, dtype: str) -> jax.Array:
  """The product [..., m] of inputs [..., n] and a matrix [n, m]."""
  return _contract(inputs, kernel, (inputs.ndim - 1,), (0,), dtype)


def _layer_gradient(
  inputs: jax.Array, gradient: jax.Array, *, dtype: str = "float32"
) -> dict[str, jax.Array]:
  """Gradient of the loss in the parameters of a fully connected layer.

  The axes [T, B] are not flattened: flattening would gather a batch that is divided
  over devices.

  Args:
    inputs: inputs of the layer [T, B, n].
    gradient: gradient of the loss in its outputs [T, B, m].
    dtype: type of the factors.
  """
  kernel = _contract(inputs, gradient, (0, 1), (0, 1), dtype)
  return {"kernel": kernel, "bias": gradient.sum(axis=(0, 1))}


def _contract(
  left: jax.Array,
  right: jax.Array,
  left_axes: tuple[int, ...],
  right_axes: tuple[int, ...],
  dtype: str,
) -> jax.Array:
  """The sum of products over some axes, in float32, of factors rounded to a type."""
  return jax.lax.dot_general(
    left.astype(dtype),
    right.astype(dtype),
    ((left_axes, right_axes), ((), ())),
    preferred_element_type=jnp.float32,
  )


def _before_relu(output: jax.Array, gradient: jax.Array) -> jax.Array:
  """Gradient in the input of a relu, from its output and the gradient in the output."""
  return jnp.where(output > 0, gradient, 0.0)


def _is_zero(leaf: Any) -> bool:
  return isinstance(leaf, SymbolicZero)


def _instantiate(leaf: Any) -> Any:
  if not _is_zero(leaf):
    return leaf
  zeros = np.zeros if leaf.dtype == jax.dtypes.float0 else jnp.zeros
  return zeros(leaf.shape, leaf.dtype)
