"""Digests of states: equal exactly if the states are equal, on any device."""

import collections

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from ramjax.digest import layout_digest, state_digest, to_host

STATE = {
  "step": np.int32(3) * np.ones((), np.int32),
  "kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
  "half": np.ones(2, ml_dtypes.bfloat16),
}


def test_digest_is_the_same_on_device_and_host():
  state = {**STATE, "key": jax.random.key(0)}
  device = jax.tree.map(jnp.asarray, STATE) | {"key": jax.random.key(0)}
  assert state_digest(device) == state_digest(state) == state_digest(to_host(device))
  assert layout_digest(to_host(device)) == layout_digest(to_host(state))
  assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(to_host(device)))


def test_strides_do_not_change_the_digest():
  turned = {**STATE, "kernel": np.asfortranarray(STATE["kernel"])}
  assert state_digest(turned) == state_digest(STATE)


def test_digest_depends_on_names_not_on_the_container():
  """Leaves of a dictionary are sorted by name; leaves of a tuple are not."""
  state = collections.namedtuple("State", STATE)(**STATE)
  assert jax.tree.leaves(state)[0] is not jax.tree.leaves(STATE)[0]
  assert state_digest(state) == state_digest(STATE)
  assert layout_digest(state) == layout_digest(STATE)


@pytest.mark.parametrize(
  ("name", "value"),
  [
    ("step", np.asarray(4, np.int32)),
    ("step", np.asarray(3, np.uint32)),
    ("kernel", -STATE["kernel"] * np.array([-1, -1, -1], np.float32) + 1e-7),
    ("kernel", STATE["kernel"].reshape(3, 2)),
    ("kernel", STATE["kernel"].view(np.int32)),
    ("other", np.zeros((), np.float32)),
  ],
)
def test_any_difference_changes_the_digest(name, value):
  assert state_digest({**STATE, name: value}) != state_digest(STATE)


def test_sign_of_zero_changes_the_digest():
  zero = np.zeros(1, np.float32)
  assert state_digest([zero]) != state_digest([-zero])


def test_layout_digest_accepts_shapes():
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), STATE)
  assert layout_digest(shapes) == layout_digest(STATE)
  assert layout_digest({**STATE, "step": np.float32(3)}) != layout_digest(STATE)


def test_different_keys_have_different_digests():
  assert state_digest(jax.random.key(0)) != state_digest(jax.random.key(1))
