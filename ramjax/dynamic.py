"""Looking that costs what it uses: what is decided is not looked at any more.

`ramjax.evaluate` gets every exploration rate from one unroll of all glimpses. For one
rate that is waste: with four glimpses on average out of fifty, most of the work is for
images that were decided before. Here all images go on together, glimpse by glimpse,
and at each glimpse those that are undecided are worked on in blocks, large ones first
and small ones for the rest, so that nothing is compiled for the number that is left.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp

from ramjax import networks, stopping
from ramjax.config import ConfigError, ModelConfig
from ramjax.rollouts import begin, policy_noise
from ramjax.training import take_images
from ramjax.unroll import take_glimpse

_BLOCK_SIZES = (512, 128, 32)
"""Large blocks make large matrix products, small ones waste little on the rest."""


class Decision(NamedTuple):
  """What a model made of B images when it stopped by itself.

  Attributes:
    probs: softmax outputs p after the last glimpse taken.
    predicted_error: self-uncertainties u after the last glimpse taken.
    num_glimpses: number of glimpses taken, int32.
  """

  probs: jax.Array  # [B, K]
  predicted_error: jax.Array  # [B, K]
  num_glimpses: jax.Array  # [B]


class _Looking(NamedTuple):
  """B images between two glimpses."""

  state: networks.CoreState  # [B, hidden_size]
  location: jax.Array  # [B, 2], of the next glimpse
  decided: jax.Array  # [B]


def look_until_decided(
  key: jax.Array,
  params: networks.Params,
  images: jax.Array,
  *,
  beta: float | jax.Array,
  model_config: ModelConfig,
  max_glimpses: int,
  location_policy: str = "sample",
) -> Decision:
  """Looks at each image until the stopping rule holds (paper, section 3).

  The answers are those of `ramjax.rollout` with `ramjax.stopping_time` and
  `ramjax.at_stop`, from the same glimpses if the key is the same. Not differentiable.

  Args:
    key: typed PRNG key: one [], from which each image gets its own, or one for each
      image [B]; see `ramjax.rollout`.
    params: parameters of the model.
    images: images [B, H, W, C], float, normalised; any height and width.
    beta: exploration rate of the stopping rule [], at least 0; the larger, the longer
      it looks.
    model_config: the shape of the model.
    max_glimpses: number of glimpses after which it stops in any case.
    location_policy: `sample` draws the next location from the policy, `mean` looks
      where its mean is.

  Returns:
    The decisions.

  Raises:
    ConfigError: if `max_glimpses` or `location_policy` is out of range.
    AssertionError: if an array has another rank, shape or type.
  """
  if max_glimpses < 1:
    raise ConfigError(f"max_glimpses must be at least 1, not {max_glimpses}")
  batch = images.shape[0]
  first_location, policy_key = begin(
    key, images, model_config=model_config, location_policy=location_policy
  )
  block_sizes = [size for size in _BLOCK_SIZES if size <= batch] or [batch]

  def read(hidden: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Probabilities and self-uncertainties [..., K] of states."""
    model = networks.RecurrentAttentionModel(model_config)
    logits, _ = cast(
      tuple[jax.Array, jax.Array],
      model.apply({"params": params.ram}, hidden, method="read"),
    )
    probs = jax.nn.softmax(logits)
    return probs, networks.predict_error(params.error, hidden, probs)

  def look_at_block(
    size: int, t: jax.Array, index: jax.Array, looking: _Looking
  ) -> _Looking:
    """Glimpse t at `size` images; those whose index is B are not there."""
    there = jnp.minimum(index, batch - 1)
    noise_t = policy_noise(policy_key[there], t[None], location_policy=location_policy)
    state, location, _, _ = take_glimpse(
      params.ram,
      take_images(images, there),
      jax.tree.map(lambda all_of_them: all_of_them[there], looking.state),
      looking.location[there],
      noise_t[0],
      model_config=model_config,
    )
    decided = stopping.is_decided(*read(state.hidden), beta=beta)
    return jax.tree.map(
      lambda all_of_them, block: all_of_them.at[index].set(block),  # B is dropped
      looking,
      _Looking(state, location, decided),
    )

  def look(
    carry: tuple[jax.Array, jax.Array, _Looking],
  ) -> tuple[jax.Array, jax.Array, _Looking]:
    """One more glimpse at all that are undecided."""
    t, num_glimpses, looking = carry
    num_glimpses += (~looking.decided).astype(jnp.int32)
    num_undecided = jnp.sum(~looking.decided)
    undecided = jnp.nonzero(
      ~looking.decided, size=batch + block_sizes[0], fill_value=batch
    )[0]

    def next_block(size: int, progress: tuple[jax.Array, _Looking]) -> Any:
      done, looking = progress
      index = jax.lax.dynamic_slice(undecided, (done,), (size,))
      return done + size, look_at_block(size, t, index, looking)

    def is_left(least: int, progress: tuple[jax.Array, _Looking]) -> jax.Array:
      return progress[0] + least <= num_undecided

    progress = jnp.int32(0), looking
    for size in block_sizes:
      # Blocks of the smallest size may be filled up, the others are whole.
      least = 1 if size == block_sizes[-1] else size
      progress = jax.lax.while_loop(
        functools.partial(is_left, least),
        functools.partial(next_block, size),
        progress,
      )
    _, looking = progress
    return t + 1, num_glimpses, looking

  def goes_on(carry: tuple[jax.Array, jax.Array, _Looking]) -> jax.Array:
    t, _, looking = carry
    return (t < max_glimpses) & ~jnp.all(looking.decided)

  start = _Looking(
    state=networks.initial_state(model_config, batch=(batch,)),
    location=first_location,
    decided=jnp.zeros(batch, jnp.bool_),
  )
  _, num_glimpses, looking = jax.lax.while_loop(
    goes_on, look, (jnp.int32(0), jnp.zeros(batch, jnp.int32), start)
  )
  # States stay as they were when the image was decided, so that they are read again.
  return Decision(*read(looking.state.hidden), num_glimpses)
