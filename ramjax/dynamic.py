"""Dynamic looking at the cost of the glimpses taken: decided images get no more.

`ramjax.evaluate` serves all exploration rates with one rollout of all glimpses. For a
single rate this is wasteful: with 4 of 50 glimpses on average, most of the work is for
images that are decided already. Here all images advance together, one glimpse at a time,
and only undecided images are computed, in blocks of fixed sizes: large blocks first, small
ones for the remainder. The program is therefore compiled once, for any number of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ramjax import calibration, stopping
from ramjax.checks import as_count, check_shape
from ramjax.config import ConfigError, ModelConfig
from ramjax.data.batches import take_images
from ramjax.model import Model, PyTree
from ramjax.ram import as_model
from ramjax.rollouts import begin, policy_noise
from ramjax.unroll import initial_states, take_glimpse

_BLOCK_SIZES = (512, 128, 32)
"""Large blocks make large matrix products, small ones waste little on the remainder."""

_ANY_BLOCK_SIZES = (128, 32, 8, 1)
"""For a batch whose size is not known yet (`jax.export`): it may be a single image."""


class Decision(NamedTuple):
  """The predictions for B images by a model that stops by itself.

  Attributes:
    probs: softmax outputs p after the last glimpse taken.
    predicted_error: self-uncertainties u after the last glimpse taken.
    num_glimpses: number of glimpses taken, int32.
    location_t: location (x, y) of each glimpse, NaN after the last one taken.
  """

  probs: jax.Array  # [B, K]
  predicted_error: jax.Array  # [B, K]
  num_glimpses: jax.Array  # [B]
  location_t: jax.Array  # [T, B, 2]


class _Progress(NamedTuple):
  """B images between two glimpses."""

  state: PyTree  # [B, ...]
  location: jax.Array  # [B, 2], of the next glimpse
  decided: jax.Array  # [B]
  probs: jax.Array  # [B, K], as the next two at the last glimpse
  predicted_error: jax.Array  # [B, K]
  num_glimpses: jax.Array  # [B]


_Carry = tuple[jax.Array, _Progress, jax.Array]
"""A number of glimpses or of images, their progress, and the locations [T, B, 2]."""


def look_until_decided(
  key: jax.Array,
  params: PyTree,
  images: jax.Array,
  *,
  beta: float | jax.Array | None = None,
  rule: stopping.StoppingRule | None = None,
  temperature_t: Sequence[float] | jax.Array | None = None,
  model: Model | ModelConfig,
  max_glimpses: int,
  location_policy: str = "sample",
  location_noise: float | Sequence[float] | jax.Array = 1.0,
) -> Decision:
  """Takes glimpses at each image until the stopping rule holds (paper, section 3).

  With the same key, glimpses and decisions are those of `ramjax.rollout`,
  `ramjax.stopping_time` and `ramjax.at_stop`. Not differentiable.

  Args:
    key: typed PRNG key: one [], from which each image gets its own, or one for each
      image [B]; see `ramjax.rollout`.
    params: parameters of the model.
    images: images [B, H, W, C], float, normalised; any height and width. B may be symbolic,
      see `jax.export`.
    beta: exploration rate of the paper's stopping rule [], at least 0; a larger rate takes
      more glimpses.
    rule: a stopping rule of your own, in place of the paper's and of `beta`:
      `lambda p, u: p.max(-1) > 0.9`.
    temperature_t: temperatures [N] at which `rule` sees p after each glimpse, above 0, such
      as `Predictor.temperature_t`; the last one serves all later glimpses. The returned p
      stay as they are.
    model: the model, or the configuration of the paper's model.
    max_glimpses: number of glimpses after which it stops in any case.
    location_policy: `sample` draws the next location from the policy, `mean` takes its
      mean.
    location_noise: factor on the noise of `sample`, see `ramjax.rollout`.

  Returns:
    The decisions.

  Raises:
    ConfigError: if `max_glimpses`, `location_policy` or `location_noise` is out of range,
      there are no images, not one of `beta` and `rule` is given, or `temperature_t`
      without `rule`.
    AssertionError: if an array, or what `rule` returns, has another rank, shape or type.
  """
  max_glimpses = as_count("max_glimpses", max_glimpses)
  if (beta is None) == (rule is None):
    raise ConfigError("give either beta, of the paper's stopping rule, or rule")
  if temperature_t is not None:
    temperature_t = jnp.asarray(temperature_t, jnp.float32)
    check_shape((None,), hint="[N]", temperature_t=temperature_t)
    if rule is None or not temperature_t.size:
      raise ConfigError("temperature_t must be one number or more, and needs rule")
  model = as_model(model)
  batch = images.shape[0]
  if isinstance(batch, int) and batch == 0:
    raise ConfigError("images must be at least one")
  first_location, policy_key = begin(
    key, images, model=model, location_policy=location_policy
  )
  block_sizes = _block_sizes(batch)

  def predict(hidden: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Probabilities and self-uncertainties [K] of one image."""
    logits, _ = model.read(params, hidden)
    probs = jax.nn.softmax(logits)
    return probs, model.predict_error(params, hidden, probs)

  def is_decided(
    t: jax.Array, probs: jax.Array, predicted_error: jax.Array
  ) -> jax.Array:
    """Whether to stop at images [B] after glimpse t, from 0."""
    if rule is None:
      assert beta is not None
      return stopping.is_decided(probs, predicted_error, beta=beta)
    if temperature_t is not None:
      temperature = temperature_t[jnp.minimum(t, temperature_t.shape[0] - 1)]
      probs = calibration.temper(probs, temperature)
    decided = jnp.asarray(rule(probs, predicted_error))
    check_shape(probs.shape[:-1], hint="rule is for all images", decided=decided)
    if decided.dtype != jnp.bool_:
      raise AssertionError(
        f"rule must return Booleans, such as p.max(-1) > 0.9, not {decided.dtype}"
      )
    return decided

  def look(
    t: jax.Array, images: jax.Array, keys: jax.Array, state: PyTree, location: jax.Array
  ) -> _Progress:
    """Takes glimpse t at some images."""
    noise_t = policy_noise(
      model.policy,
      keys,
      t[None],
      location_policy=location_policy,
      location_noise=location_noise,
    )
    noise = jax.tree.map(lambda leaf: leaf[0], noise_t)
    state, hidden, _, sample = take_glimpse(
      params, images, state, location, noise, model=model
    )
    probs, predicted_error = jax.vmap(predict)(hidden)
    return _Progress(
      state,
      jax.vmap(model.policy.location)(sample),
      is_decided(t, probs, predicted_error),
      probs,
      predicted_error,
      jnp.full(images.shape[:1], t + 1),
    )

  def advance_block(
    t: jax.Array, index: jax.Array, progress: _Progress, location_t: jax.Array
  ) -> tuple[_Progress, jax.Array]:
    """Takes glimpse t at the images `index`; an index of B stands for no image."""
    valid = jnp.minimum(index, batch - 1)
    state, location = jax.tree.map(
      lambda leaf: leaf[valid], (progress.state, progress.location)
    )
    shown = take_images(images, valid)
    block = look(t, shown, policy_key[valid], state, location)
    # JAX drops updates that are out of bounds, here those of index B.
    progress = jax.tree.map(lambda leaf, new: leaf.at[index].set(new), progress, block)
    return progress, location_t.at[t, index].set(location)

  def advance(carry: _Carry) -> _Carry:
    """Takes one more glimpse at all undecided images, block by block."""
    t, progress, location_t = carry
    undecided = ~progress.decided
    num_undecided = jnp.sum(undecided)
    (indices,) = jnp.nonzero(undecided, size=batch + block_sizes[0], fill_value=batch)

    def take_blocks(size: int, carry: _Carry) -> _Carry:
      # Only blocks of the smallest size may be padded.
      least = 1 if size == block_sizes[-1] else size

      def has_block(carry: _Carry) -> jax.Array:
        num_done, _, _ = carry
        return num_done + least <= num_undecided

      def take_block(carry: _Carry) -> _Carry:
        num_done, progress, location_t = carry
        index = jax.lax.dynamic_slice(indices, (num_done,), (size,))
        return num_done + size, *advance_block(t, index, progress, location_t)

      return jax.lax.while_loop(has_block, take_block, carry)

    done: _Carry = jnp.int32(0), progress, location_t
    for size in block_sizes:
      done = take_blocks(size, done)
    return t + 1, *done[1:]

  def is_unfinished(carry: _Carry) -> jax.Array:
    t, progress, _ = carry
    return (t < max_glimpses) & ~jnp.all(progress.decided)

  inputs = images, policy_key, initial_states(model, params, batch), first_location
  undecided = jax.tree.map(
    lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
    jax.eval_shape(look, jnp.int32(0), *inputs),
  )
  start = undecided._replace(state=inputs[2], location=first_location)
  nowhere = jnp.full((max_glimpses, batch, 2), jnp.nan, first_location.dtype)
  _, end, location_t = jax.lax.while_loop(
    is_unfinished, advance, (jnp.int32(0), start, nowhere)
  )
  return Decision(end.probs, end.predicted_error, end.num_glimpses, location_t)


def _block_sizes(batch: Any) -> tuple[int, ...]:
  """The sizes of the blocks, the largest first; `batch` may be symbolic."""
  if not isinstance(batch, int):
    return _ANY_BLOCK_SIZES
  return tuple(size for size in _BLOCK_SIZES if size <= batch) or (batch,)
