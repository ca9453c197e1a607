r"""The unroll with its gradient written by hand: the same numbers, in less time.

Autodiff of the scan makes every weight gradient step by step, T small products for
each. But locations are samples, through which nothing is differentiated, so that the
one thing that must go backwards through time is the gradient of the state,

  a_t = 1[h_t > 0] (dL/dh_t + W_hidden a_{t+1}),

(a_t, that of the core before its relu). Given all a_t, everything else is one product
for all glimpses and examples together. BUILD_NOTES.md, section 5, has the figures; the
tests hold this gradient to that of the plain scan.
"""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from ramjax import networks
from ramjax.config import ModelConfig
from ramjax.unroll import Unrolled, unroll


def unroll_by_hand(
  ram_params: chex.ArrayTree,
  images: jax.Array,
  first_location: jax.Array,
  noise_t: jax.Array,
  *,
  model_config: ModelConfig,
) -> Unrolled:
  """`ramjax.unroll.unroll` of the released core, with a faster gradient in the parameters.

  Where images or first locations are differentiated, too, autodiff does it all.
  Forward-mode differentiation is not defined.

  Args:
    ram_params: parameters of the RAM, `Params.ram`.
    images: images [B, H, W, C].
    first_location: where the first glimpse is taken [B, 2].
    noise_t: standard normal noise of the policy [T, B, 2].
    model_config: the shape of the model, whose core is an RNN.

  Returns:
    The unroll.
  """

  def plain(*inputs: Any) -> Unrolled:
    return unroll(*inputs, model_config=model_config)[0]

  run = jax.custom_vjp(plain)

  def forward(*inputs: Any) -> tuple[Unrolled, Any]:
    values = jax.tree.map(lambda leaf: leaf.value, inputs)
    if any(leaf.perturbed for leaf in inputs[1:]):
      return jax.vjp(plain, *values)
    unrolled, activations = unroll(*values, model_config=model_config)
    return unrolled, (values[0], unrolled, activations)

  def backward(residuals: Any, gradient: Unrolled) -> tuple[Any, ...]:
    gradient = jax.tree.map(_instantiate, gradient, is_leaf=_is_zero)
    if callable(residuals):
      return tuple(residuals(gradient))
    params, unrolled, activations = residuals
    return _gradient(params, unrolled, activations, gradient), None, None, None

  run.defvjp(forward, backward, symbolic_zeros=True)
  recurrent = {name: ram_params[name] for name in ("glimpse", "core", "location")}
  return run(recurrent, images, first_location, noise_t)


def _gradient(
  params: Any,
  unrolled: Unrolled,
  activations: networks.GlimpseActivations,
  gradient: Unrolled,
) -> dict[str, Any]:
  """Gradient in the parameters of glimpse, core and location network.

  Args:
    params: these parameters.
    unrolled: what came out of the unroll.
    activations: the activations of the glimpse network on the way.
    gradient: that of the loss in what came out.
  """
  hidden_t = unrolled.hidden_t
  to_hidden = params["core"]["hidden"]["kernel"].T

  def back(
    after: jax.Array, step: tuple[jax.Array, jax.Array]
  ) -> tuple[jax.Array, jax.Array]:
    hidden, hidden_gradient = step
    core = _before_relu(hidden, hidden_gradient + after @ to_hidden)
    return core, core

  _, core = jax.lax.scan(
    back, jnp.zeros_like(hidden_t[0]), (hidden_t, gradient.hidden_t), reverse=True
  )

  glimpse, seen = params["glimpse"], activations
  features = _before_relu(seen.features, core @ params["core"]["glimpse"]["kernel"].T)
  what = _before_relu(seen.what, features @ glimpse["what"]["kernel"].T)
  where = _before_relu(seen.where, features @ glimpse["where"]["kernel"].T)
  hidden_layer = {
    # The first state before a glimpse is 0.
    "kernel": _dense(hidden_t[:-1], core[1:])["kernel"],
    "bias": core.sum(axis=(0, 1)),
  }
  _, location_vjp = jax.vjp(
    lambda params: networks.LocationNetwork().apply({"params": params}, hidden_t),
    params["location"],
  )
  return {
    "glimpse": {
      "patch": _dense(seen.patches, what),
      "location": _dense(unrolled.location_t, where),
      "what": _dense(seen.what, features),
      "where": _dense(seen.where, features),
    },
    "core": {"glimpse": _dense(seen.features, core), "hidden": hidden_layer},
    "location": location_vjp(gradient.mean_t)[0],
  }


def _dense(inputs: jax.Array, gradient: jax.Array) -> dict[str, jax.Array]:
  """Gradient in the parameters of a layer, from its inputs and that of its outputs.

  Both are [T, B, ...], and stay so: flattened, a batch that devices divide would have
  to be gathered first.
  """
  kernel = jnp.tensordot(inputs, gradient, axes=((0, 1), (0, 1)))
  return {"kernel": kernel, "bias": gradient.sum(axis=(0, 1))}


def _before_relu(output: jax.Array, gradient: jax.Array) -> jax.Array:
  return jnp.where(output > 0, gradient, 0.0)


def _is_zero(leaf: Any) -> bool:
  return isinstance(leaf, SymbolicZero)


def _instantiate(leaf: Any) -> jax.Array:
  return jnp.zeros(leaf.shape, leaf.dtype) if _is_zero(leaf) else leaf
