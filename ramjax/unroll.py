"""The recurrent loop of a model: each glimpse chooses the next location.

`unroll` is a loop over any `ramjax.Model`, which JAX differentiates. For the
model of the paper, `ramjax.backprop` has a faster gradient, written by hand.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ramjax.model import Model, PyTree

_LONGEST_WRITTEN_OUT = 16
"""Glimpses of the longest loop that is written out on an accelerator: those of trainings.

Compiling takes longer for each glimpse that is written out."""


class Unrolled(NamedTuple):
  """Locations and states of T glimpses at each of B images; time is axis 0.

  Attributes:
    location_t: location of each glimpse, (x, y) in [-1, 1].
    sample_t: what the policy has drawn after each glimpse, for the next location.
    output_t: output of `Model.locate` from which it was drawn.
    hidden_t: `hidden` of `Model.step` after each glimpse.
  """

  location_t: jax.Array  # [T, B, 2]
  sample_t: PyTree  # [T, B, ...]
  output_t: PyTree  # [T, B, ...]
  hidden_t: jax.Array  # [T, B, n]


@jax.custom_jvp
def scale_gradient(value: jax.Array, share: jax.Array) -> jax.Array:
  """The value itself; of its gradient, only a share goes back.

  Args:
    value: any array; also one that is not finite stays what it is.
    share: the share [], which has no gradient.

  Returns:
    The value.
  """
  del share
  return value


@scale_gradient.defjvp
def _scale_gradient_jvp(
  primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
  value, share = primals
  return value, share * tangents[0]


def locate(
  model: Model, params: PyTree, hidden: jax.Array, share: float | jax.Array
) -> PyTree:
  """What the policy takes, after a glimpse at each of B images.

  Args:
    model: the model.
    params: its parameters.
    hidden: `hidden` of `Model.step` [B, n].
    share: share of the gradient that goes on into `hidden`.

  Returns:
    Outputs of `Model.locate` [B, ...].
  """
  if isinstance(share, float | int) and share == 0:
    hidden = jax.lax.stop_gradient(hidden)
  else:
    hidden = scale_gradient(hidden, jnp.asarray(share, hidden.dtype))
  return jax.vmap(functools.partial(model.locate, params))(hidden)


def initial_states(model: Model, params: PyTree, batch: int) -> PyTree:
  """The states of a batch [B, ...] before the first glimpse."""
  return jax.vmap(lambda _: model.start(params), axis_size=batch)(None)


def take_glimpse(
  params: PyTree,
  images: jax.Array,
  state: PyTree,
  location: jax.Array,
  noise: PyTree,
  *,
  model: Model,
  location_gradient: float | jax.Array = 0.0,
) -> tuple[PyTree, jax.Array, PyTree, PyTree]:
  """One glimpse at each of B images.

  Args:
    params: parameters of the model.
    images: batch [B, H, W, C], float, normalised.
    state: states before the glimpse [B, ...].
    location: locations of the glimpse (x, y) [B, 2].
    noise: noise of the policy [B, ...].
    model: the model.
    location_gradient: see `ramjax.rollout`.

  Returns:
    The states after the glimpse [B, ...], `hidden` [B, n], the outputs of
    `Model.locate` [B, ...], and the samples of the policy [B, ...].
  """
  glimpse = jax.vmap(model.sensor)(images, location)
  step = jax.vmap(model.step, in_axes=(None, 0, 0, 0))
  state, hidden = step(params, state, glimpse, location)
  output = locate(model, params, hidden, location_gradient)
  sample = jax.vmap(model.policy.sample)(output, noise)
  return state, hidden, output, jax.lax.stop_gradient(sample)


def unroll(
  params: PyTree,
  images: jax.Array,
  first_location: jax.Array,
  noise_t: PyTree,
  *,
  model: Model,
  location_gradient: float | jax.Array = 0.0,
) -> Unrolled:
  """T glimpses at each of B images.

  Args:
    params: parameters of the model.
    images: batch [B, H, W, C], float, normalised.
    first_location: location of the first glimpse (x, y) [B, 2].
    noise_t: noise of the policy [T, B, ...].
    model: the model.
    location_gradient: see `ramjax.rollout`.

  Returns:
    The unroll.
  """
  locations = jax.vmap(model.policy.location)

  def step(
    carry: tuple[PyTree, jax.Array], noise: PyTree
  ) -> tuple[tuple[PyTree, jax.Array], Unrolled]:
    state, location = carry
    state, hidden, output, sample = take_glimpse(
      params,
      images,
      state,
      location,
      noise,
      model=model,
      location_gradient=location_gradient,
    )
    return (state, locations(sample)), Unrolled(location, sample, output, hidden)

  start = initial_states(model, params, images.shape[0]), first_location
  _, unrolled = loop(step, start, noise_t)
  return unrolled


def loop(
  step: Callable[[Any, Any], tuple[Any, Any]],
  start: PyTree,
  inputs: PyTree,
  *,
  reverse: bool = False,
) -> tuple[PyTree, PyTree]:
  """`jax.lax.scan`, written out on an accelerator if it is short.

  There each operation of a glimpse is a kernel that takes a few microseconds, and a loop
  adds one for each of its outputs.
  """
  length = jax.tree.leaves(inputs)[0].shape[0]
  is_written_out = jax.default_backend() != "cpu" and length <= _LONGEST_WRITTEN_OUT
  return jax.lax.scan(step, start, inputs, reverse=reverse, unroll=is_written_out)
