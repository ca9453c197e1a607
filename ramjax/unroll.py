"""The recurrent loop of the model: each glimpse chooses the next location.

`unroll` is the reference: a plain `lax.scan` that JAX differentiates. `ramjax.backprop`
computes the same values with a hand-written gradient for the RNN core, which is faster.
`ramjax.rollout` uses the fast version where it applies.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple, cast

import jax

from ramjax import glimpse, networks, policy
from ramjax.config import ModelConfig


class Unrolled(NamedTuple):
  """Locations and states of T glimpses at each of B images; time is axis 0.

  Attributes:
    location_t: location of each glimpse, (x, y) in [-1, 1].
    next_location_t: location drawn after each glimpse for the next one.
    mean_t: mean of the policy from which `next_location_t` was drawn.
    hidden_t: internal state h after each glimpse.
  """

  location_t: jax.Array  # [T, B, 2]
  next_location_t: jax.Array  # [T, B, 2]
  mean_t: jax.Array  # [T, B, 2]
  hidden_t: jax.Array  # [T, B, hidden_size]


def take_glimpse(
  ram_params: networks.PyTree,
  images: jax.Array,
  state: networks.CoreState,
  location: jax.Array,
  noise: jax.Array,
  *,
  model_config: ModelConfig,
) -> tuple[networks.CoreState, jax.Array, jax.Array, networks.GlimpseActivations]:
  """One glimpse at each of B images.

  Args:
    ram_params: parameters of the RAM, `Params.ram`.
    images: batch [B, H, W, C], float, normalised.
    state: states before the glimpse [B, hidden_size].
    location: locations of the glimpse (x, y) [B, 2].
    noise: standard normal noise of the policy [B, 2].
    model_config: the model.

  Returns:
    The states after the glimpse [B, hidden_size], the next locations [B, 2], the means
    of the policy [B, 2], and the activations of the glimpse network.
  """
  sensor = functools.partial(
    glimpse.extract_glimpse,
    patch_size=model_config.patch_size,
    num_scales=model_config.num_scales,
    scale_factor=model_config.scale_factor,
    fill_value=model_config.fill_value,
  )
  (state, mean), sown = networks.RecurrentAttentionModel(model_config).apply(
    {"params": ram_params},
    state,
    jax.vmap(sensor)(images, location),
    location,
    method="step",
    mutable=["activations"],
  )
  next_location = policy.perturb_location(mean, noise, std=model_config.location_std)
  activations = cast(Any, sown)["activations"]["glimpse"]["layers"]
  return state, next_location, mean, activations


def unroll(
  ram_params: networks.PyTree,
  images: jax.Array,
  first_location: jax.Array,
  noise_t: jax.Array,
  *,
  model_config: ModelConfig,
) -> tuple[Unrolled, networks.GlimpseActivations]:
  """T glimpses at each of B images, starting from the zero state.

  Args:
    ram_params: parameters of the RAM, `Params.ram`.
    images: batch [B, H, W, C], float, normalised.
    first_location: location of the first glimpse (x, y) [B, 2].
    noise_t: standard normal noise of the policy [T, B, 2].
    model_config: the model.

  Returns:
    The unroll, and the activations of the glimpse network at each glimpse [T, B, ...].
  """

  def step(carry, noise):
    state, location = carry
    state, next_location, mean, activations = take_glimpse(
      ram_params, images, state, location, noise, model_config=model_config
    )
    unrolled = Unrolled(location, next_location, mean, state.hidden)
    return (state, next_location), (unrolled, activations)

  start = networks.initial_state(model_config, batch=images.shape[:1]), first_location
  _, (unrolled, activations) = jax.lax.scan(step, start, noise_t)
  return unrolled, activations
