"""The unroll of the RNN core with a hand-written gradient: same values, less time.

Autodiff of the scan computes every weight gradient step by step, as T small matrix
products. But no gradient flows through the sampled locations, so only one quantity must
be propagated backwards through time: a_t, the gradient of the loss L in the input of the
core's relu,

  a_t = 1[h_t > 0] (dL/dh_t + W_hidden a_{t+1}).

Given all a_t, each weight gradient is one matrix product over all glimpses and examples.
tests/test_backprop.py compares this gradient with autodiff of the plain scan.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from ramjax import networks
from ramjax.model import Model, PyTree
from ramjax.unroll import Unrolled, unroll


def unroll_by_hand(
  params: networks.Params,
  images: jax.Array,
  first_location: jax.Array,
  noise_t: PyTree,
  *,
  model: Model,
  module: networks.RecurrentAttentionModel,
) -> Unrolled:
  """`ramjax.unroll.unroll` of the RNN core, with a faster gradient in the parameters.

  If images or first locations are differentiated too, it falls back to autodiff.
  Forward-mode differentiation is not supported.

  Args:
    params: parameters of the model.
    images: batch [B, H, W, C], float, normalised.
    first_location: location of the first glimpse (x, y) [B, 2].
    noise_t: noise of the policy [T, B, ...].
    model: the model; its sensor and its policy may be any.
    module: the networks of its `start`, `step` and `locate`; their core must be `rnn`.

  Returns:
    The unroll.
  """

  def plain(ram: Any, *inputs: Any) -> Unrolled:
    return unroll(networks.Params(ram, error=None), *inputs, model=model)

  def step_keeping_activations(
    params: networks.Params, state: networks.CoreState, *inputs: jax.Array
  ) -> tuple[networks.CoreState, Any]:
    state, sown = module.apply(
      {"params": params.ram}, state, *inputs, method="step", mutable=["activations"]
    )
    return state, (state.hidden, sown["activations"]["glimpse"]["layers"])

  keeping = model._replace(
    step=step_keeping_activations,
    locate=lambda params, kept: model.locate(params, kept[0]),
  )
  run = jax.custom_vjp(plain)

  def forward(*inputs: Any) -> tuple[Unrolled, Any]:
    values = jax.tree.map(lambda leaf: leaf.value, inputs)
    if any(leaf.perturbed for leaf in jax.tree.leaves(inputs[1:])):
      return jax.vjp(plain, *values)
    ram, *rest = values
    unrolled = unroll(networks.Params(ram, error=None), *rest, model=keeping)
    hidden_t, activations = unrolled.hidden_t
    unrolled = unrolled._replace(hidden_t=hidden_t)
    return unrolled, (ram, unrolled, activations)

  def backward(residuals: Any, gradient: Unrolled) -> tuple[Any, ...]:
    gradient = jax.tree.map(_instantiate, gradient, is_leaf=_is_zero)
    if callable(residuals):
      return tuple(residuals(gradient))
    params, unrolled, activations = residuals
    params_gradient = _params_gradient(params, unrolled, activations, gradient)
    return params_gradient, None, None, None

  run.defvjp(forward, backward, symbolic_zeros=True)
  recurrent = {name: params.ram[name] for name in ("glimpse", "core", "location")}
  return run(recurrent, images, first_location, noise_t)


def _params_gradient(
  params: Any,
  unrolled: Unrolled,
  activations: networks.GlimpseActivations,
  gradient: Unrolled,
) -> dict[str, Any]:
  """Gradient of the loss in the parameters of the glimpse, core and location network.

  Args:
    params: parameters of these networks.
    unrolled: output of the unroll.
    activations: activations of the glimpse network [T, B, ...].
    gradient: gradient of the loss in `unrolled`.
  """
  hidden_t = unrolled.hidden_t
  to_hidden = params["core"]["hidden"]["kernel"].T

  def backward_step(
    next_core: jax.Array, step: tuple[jax.Array, jax.Array]
  ) -> tuple[jax.Array, jax.Array]:
    hidden, hidden_gradient = step
    core = _before_relu(hidden, hidden_gradient + next_core @ to_hidden)
    return core, core

  # `core`, `features`, `what` and `where`: gradients in the inputs of the relus.
  _, core = jax.lax.scan(
    backward_step,
    jnp.zeros_like(hidden_t[0]),
    (hidden_t, gradient.hidden_t),
    reverse=True,
  )
  glimpse = params["glimpse"]
  features = _before_relu(
    activations.features, core @ params["core"]["glimpse"]["kernel"].T
  )
  what = _before_relu(activations.what, features @ glimpse["what"]["kernel"].T)
  where = _before_relu(activations.where, features @ glimpse["where"]["kernel"].T)
  hidden_layer = {
    # The state before the first glimpse is zero, so the kernel gets no gradient there.
    "kernel": _layer_gradient(hidden_t[:-1], core[1:])["kernel"],
    "bias": core.sum(axis=(0, 1)),
  }
  _, location_vjp = jax.vjp(
    lambda params: networks.LocationNetwork(unrolled.output_t.shape[-1]).apply(
      {"params": params}, hidden_t
    ),
    params["location"],
  )
  return {
    "glimpse": {
      "patch": _layer_gradient(activations.patches, what),
      "location": _layer_gradient(unrolled.location_t, where),
      "what": _layer_gradient(activations.what, features),
      "where": _layer_gradient(activations.where, features),
    },
    "core": {
      "glimpse": _layer_gradient(activations.features, core),
      "hidden": hidden_layer,
    },
    "location": location_vjp(gradient.output_t)[0],
  }


def _layer_gradient(inputs: jax.Array, gradient: jax.Array) -> dict[str, jax.Array]:
  """Gradient of the loss in the parameters of a fully connected layer.

  The axes [T, B] are not flattened: flattening would gather a batch that is divided
  over devices.

  Args:
    inputs: inputs of the layer [T, B, n].
    gradient: gradient of the loss in its outputs [T, B, m].
  """
  kernel = jnp.tensordot(inputs, gradient, axes=((0, 1), (0, 1)))
  return {"kernel": kernel, "bias": gradient.sum(axis=(0, 1))}


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
