"""Optimisers: rates, clipping and Muon, against what NumPy says."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ramjax
from ramjax.config import TrainConfig
from ramjax.digest import layout_digest, state_digest

PARAMS = {"kernel": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "bias": jnp.array([0.25, -1])}
GRADIENTS = [
  {
    "kernel": scale * jnp.array([[3.0, -1.0], [0.5, 2.0]]),
    "bias": scale * jnp.array([-1.0, 4.0]),
  }
  for scale in (1.0, -0.3, 0.02, 5.0, 1.0)
]


def steps(optimizer, gradients=GRADIENTS, params=PARAMS):
  """The parameters after each step, on the host, and the last state."""
  state, found = optimizer.init(params), []
  for gradient in gradients:
    with jax.numpy_dtype_promotion("standard"):
      updates, state = optimizer.update(gradient, state, params)
    params = optax.apply_updates(params, updates)
    found.append(jax.device_get(params))
  return found, state


def optimizer_of(**options):
  return ramjax.make_optimizer(TrainConfig(**options), steps_per_epoch=2)


def rates(count, *, steps_per_epoch, **options):
  schedule = ramjax.make_schedule(
    TrainConfig(**options), steps_per_epoch=steps_per_epoch
  )
  with jax.numpy_dtype_promotion("standard"):
    return [float(schedule(jnp.int32(step))) for step in range(count)]


def adam(gradients, params, *, rate=3e-4, limit=math.inf):
  """Adam with a falling rate, by Kingma and Ba's equations, in double precision."""
  first = second = dict.fromkeys(params, 0.0)
  params = {name: np.float64(value) for name, value in params.items()}
  found = []
  for n, gradient in enumerate(gradients, start=1):
    gradient = {name: np.float64(value) for name, value in gradient.items()}
    norm = math.sqrt(sum((value**2).sum() for value in gradient.values()))
    gradient = {k: g * min(1, limit / norm) for k, g in gradient.items()}
    first = {k: 0.9 * first[k] + 0.1 * g for k, g in gradient.items()}
    second = {k: 0.999 * second[k] + 0.001 * g**2 for k, g in gradient.items()}
    now = rate * 0.95 ** ((n - 1) // 2)
    moves = {
      k: first[k] / (1 - 0.9**n) / (np.sqrt(second[k] / (1 - 0.999**n)) + 1e-8)
      for k in params
    }
    params = {k: params[k] - now * moves[k] for k in params}
    found.append(params)
  return found


def assert_all_close(found, expected, **tolerance):
  assert len(found) == len(expected)
  for ours, theirs in zip(found, expected, strict=True):
    for name, value in theirs.items():
      np.testing.assert_allclose(ours[name], value, **tolerance)


def test_the_default_is_the_adam_of_the_released_code_to_the_bit():
  """And a state without anything more in it: old checkpoints keep their layout."""
  schedule = optax.exponential_decay(3e-4, 2, 0.95, staircase=True)
  expected, released = steps(optax.adam(schedule))
  found, state = steps(optimizer_of())
  assert layout_digest(state) == layout_digest(released)
  assert state_digest(state) == state_digest(released)
  assert_all_close(found, expected, rtol=0)
  assert_all_close(found, adam(GRADIENTS, PARAMS), rtol=1e-6)


def test_a_cosine_by_hand():
  """Over 3 epochs of 2 steps: (1 + cos(n · 30°)) / 2 of the rate, and 0 at its end."""
  found = rates(
    9,
    steps_per_epoch=2,
    learning_rate_schedule="cosine",
    learning_rate=0.1,
    num_epochs=3,
  )
  expected = [0.1, 0.0933013, 0.075, 0.05, 0.025, 0.0066987, 0, 0, 0]
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-9)


def test_a_warm_up_by_hand():
  """Of 3 steps in 1.5 epochs: a third, two thirds, and then the schedule as it is."""
  found = rates(5, steps_per_epoch=2, learning_rate=0.3, warmup_epochs=1.5)
  np.testing.assert_allclose(
    found, [0.1, 0.2, 0.3 * 0.95, 0.3 * 0.95, 0.3 * 0.95**2], rtol=1e-6
  )
  options = {"learning_rate_schedule": "cosine", "num_epochs": 3, "learning_rate": 0.1}
  found = rates(5, steps_per_epoch=2, warmup_epochs=1.5, **options)
  np.testing.assert_allclose(
    found, [0.1 / 3, 2 / 3 * 0.0933013, 0.075, 0.05, 0.025], rtol=1e-5
  )


def test_a_cosine_of_no_epochs_is_no_error():
  """A fresh model is evaluated with any recipe."""
  options = {"learning_rate_schedule": "cosine", "num_epochs": 0}
  assert rates(1, steps_per_epoch=2, learning_rate=0.5, **options) == [0.5]


def test_the_norm_of_all_gradients_together_is_clipped():
  """The first has the norm sqrt(9 + 1 + 1/4 + 4 + 1 + 16) = 5.59, the third 0.11."""
  clipped = optimizer_of(max_gradient_norm=5.0, learning_rate=0.1)
  plain = optimizer_of(learning_rate=0.1)
  found, expected = steps(clipped)[0], adam(GRADIENTS, PARAMS, rate=0.1, limit=5.0)
  assert_all_close(found, expected, rtol=3e-5)  # 1 - 0.999^n in single precision
  # Adam knows its first gradient by the sign alone; the later ones tell.
  assert np.abs(steps(plain)[0][-1]["kernel"] - found[-1]["kernel"]).max() > 1e-4
  small = GRADIENTS[1:3]
  assert_all_close(steps(clipped, small)[0], steps(plain, small)[0], rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(32, 48), (96, 32)])
def test_muon_makes_the_updates_of_wide_matrices_orthogonal(shape):
  """Of a gradient U S V' it makes about U V', as large as an update of Adam's."""
  gradient = jax.random.normal(jax.random.key(0), shape)
  left, _, right = np.linalg.svd(gradient, full_matrices=False)
  start = {"kernel": jnp.zeros(shape)}
  optimizer = optimizer_of(optimizer="muon", learning_rate=0.5)
  (found,), _ = steps(optimizer, [{"kernel": gradient}], start)
  move = -found["kernel"] / 0.5
  np.testing.assert_allclose(np.sqrt(np.mean(move**2)), 0.2, rtol=0.25)
  along = np.sum(move * (left @ right)) / np.linalg.norm(move) / np.sqrt(min(shape))
  assert 0.95 < along <= 1.0


def test_what_muon_does_not_take_is_left_to_adam_to_the_bit():
  """Biases, and matrices with less than 32 units on a side."""
  gradients = [
    {
      "kernel": jnp.full((31, 64), 0.1 + scale),
      "wide": jnp.full((32, 64), scale),
      "bias": jnp.full(64, scale),
    }
    for scale in (1.0, -0.3)
  ]
  start = jax.tree.map(jnp.ones_like, gradients[0])
  found, expected = (
    steps(optimizer_of(optimizer=name, learning_rate=0.01), gradients, start)[0]
    for name in ("muon", "adam")
  )
  for ours, adams in zip(found, expected, strict=True):
    np.testing.assert_array_equal(ours["kernel"], adams["kernel"])
    np.testing.assert_array_equal(ours["bias"], adams["bias"])
    assert np.abs(ours["wide"] - adams["wide"]).min() > 1e-4


def test_muon_of_matrices_of_several_shapes_is_that_of_optax():
  """What is stacked by shape and type goes back to its place; the layout is the same."""
  shapes = {"a": (32, 48), "b": (48, 32), "c": (32, 48), "d": {"e": (64, 64)}}
  start = jax.tree.map(jnp.zeros, shapes, is_leaf=lambda node: isinstance(node, tuple))
  start["f"] = jnp.zeros((32, 48), jnp.bfloat16)
  leaves, structure = jax.tree.flatten(start)
  gradients = [
    structure.unflatten(
      jax.random.normal(jax.random.fold_in(key, i), leaf.shape, leaf.dtype)
      for i, leaf in enumerate(leaves)
    )
    for key in jax.random.split(jax.random.key(0), 3)
  ]
  rate = ramjax.make_schedule(TrainConfig(), steps_per_epoch=2)
  theirs = optax.contrib.muon(rate, consistent_rms=0.2)
  expected, _ = steps(theirs, gradients, start)
  ours = optimizer_of(optimizer="muon")
  found, state = steps(ours, gradients, start)
  for one, other in zip(found, expected, strict=True):
    chex.assert_trees_all_equal_dtypes(one, other)
    chex.assert_trees_all_close(one.pop("f"), other.pop("f"), rtol=2**-7)
    chex.assert_trees_all_close(one, other, rtol=1e-4, atol=1e-7)
  labels = jax.tree.map(lambda _: "muon", start)
  layout = optax.partition({"muon": theirs, "adam": optax.adam(rate)}, labels)
  assert layout_digest(state) == layout_digest(layout.init(start))
