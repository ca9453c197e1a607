"""The recurrent part of the model: glimpse after glimpse, each where the last one said.

`unroll` is the definition, a plain `lax.scan` that JAX differentiates by itself.
`ramjax.backprop` has the same unroll with the gradient of the released core written by
hand, and training uses that one where it can.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple, cast

import chex
import jax

from ramjax import glimpse, networks, policy
from ramjax.config import ModelConfig


class Unrolled(NamedTuple):
  """What is sequential in T glimpses at B images; time is axis 0.

  Attributes:
    location_t: where each glimpse was taken.
    next_location_t: where the next one was to be taken.
    mean_t: mean of the policy that `next_location_t` was drawn from.
    hidden_t: internal state after each glimpse.
  """

  location_t: jax.Array  # [T, B, 2]
  next_location_t: jax.Array  # [T, B, 2]
  mean_t: jax.Array  # [T, B, 2]
  hidden_t: jax.Array  # [T, B, hidden_size]


def take_glimpse(
  ram_params: chex.ArrayTree,
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
    images: images [B, H, W, C].
    state: what the core carries before the glimpse [B, hidden_size].
    location: where it is taken [B, 2].
    noise: standard normal noise of the policy [B, 2].
    model_config: the shape of the model.

  Returns:
    The states after it [B, hidden_size], the next locations [B, 2], the means of the
    policy for them [B, 2], and the activations of the glimpse network.
  """
  look = functools.partial(
    glimpse.extract_glimpse,
    patch_size=model_config.patch_size,
    num_scales=model_config.num_scales,
    scale_factor=model_config.scale_factor,
    fill_value=model_config.fill_value,
  )
  (state, mean), sown = networks.RecurrentAttentionModel(model_config).apply(
    {"params": ram_params},
    state,
    jax.vmap(look)(images, location),
    location,
    method="step",
    mutable=["activations"],
  )
  next_location = policy.perturb_location(mean, noise, std=model_config.location_std)
  activations = cast(Any, sown)["activations"]["glimpse"]["layers"]
  return state, next_location, mean, activations


def unroll(
  ram_params: chex.ArrayTree,
  images: jax.Array,
  first_location: jax.Array,
  noise_t: jax.Array,
  *,
  model_config: ModelConfig,
) -> tuple[Unrolled, networks.GlimpseActivations]:
  """T glimpses at each of B images, from the state 0.

  Args:
    ram_params: parameters of the RAM, `Params.ram`.
    images: images [B, H, W, C].
    first_location: where the first glimpse is taken [B, 2].
    noise_t: standard normal noise of the policy [T, B, 2].
    model_config: the shape of the model.

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
