"""Checkpoints: what is read is what was written, or one clear line."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ramjax
from ramjax.checkpoint import CheckpointError, Checkpoints
from ramjax.config import Config, ModelConfig

CONFIG = Config(model=ModelConfig(hidden_size=16, branch_size=8))


def init(seed, config=CONFIG):
  optimizer = ramjax.make_optimizer(config.train, steps_per_epoch=10)
  function = functools.partial(
    ramjax.init_train_state, config=config, optimizer=optimizer
  )
  return jax.jit(function)(jax.random.key(seed))


@pytest.fixture
def state():
  return init(0)._replace(step=jnp.int32(7))


def plain(state):
  return jax.tree.map(np.asarray, state._replace(key=jax.random.key_data(state.key)))


def test_a_state_comes_back_bit_for_bit(state, tmp_path):
  with Checkpoints(tmp_path / "deep" / "folder") as checkpoints:
    assert checkpoints.latest_step is None
    checkpoints.save(state)
  with Checkpoints(tmp_path / "deep" / "folder") as checkpoints:
    assert checkpoints.latest_step == 7
    found = checkpoints.restore(jax.eval_shape(lambda: init(1)))
  jax.tree.map(np.testing.assert_array_equal, plain(found), plain(state))
  assert jax.tree.structure(found) == jax.tree.structure(state)


def test_the_latest_two_are_kept(state, tmp_path):
  with Checkpoints(tmp_path) as checkpoints:
    for step in (7, 8, 9):
      checkpoints.save(state._replace(step=jnp.int32(step)))
    checkpoints.save(state._replace(step=jnp.int32(9)))
  assert sorted(p.name for p in tmp_path.iterdir() if p.name.isdigit()) == ["8", "9"]


def test_reading_leaves_a_run_that_is_being_trained_alone(state, tmp_path):
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(state)
  unfinished = tmp_path / "8.orbax-checkpoint-tmp" / "state"
  unfinished.mkdir(parents=True)
  with Checkpoints(tmp_path, read_only=True) as checkpoints:
    assert checkpoints.restore(state).step == 7
  assert unfinished.is_dir()
  with pytest.raises(CheckpointError, match="none holds no checkpoint"):
    Checkpoints(tmp_path / "none", read_only=True)
  assert not (tmp_path / "none").exists()


def test_nothing_to_restore(state, tmp_path):
  with (
    Checkpoints(tmp_path) as checkpoints,
    pytest.raises(CheckpointError, match="holds no checkpoint"),
  ):
    checkpoints.restore(state)


def test_a_truncated_checkpoint_is_named(state, tmp_path):
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(state)
  for file in (tmp_path / "7" / "state").rglob("*"):
    if file.is_file():
      file.write_bytes(file.read_bytes()[:10])
  with (
    Checkpoints(tmp_path) as checkpoints,
    pytest.raises(CheckpointError, match=r"7 cannot be read: .*; remove it") as caught,
  ):
    checkpoints.restore(state)
  assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_model_is_refused(state, tmp_path):
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(state)
    with pytest.raises(CheckpointError, match="7 cannot be read"):
      checkpoints.restore(init(0, Config(model=ModelConfig(hidden_size=17))))


def test_a_file_in_the_place_of_the_folder(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(CheckpointError, match="file cannot hold checkpoints"):
    Checkpoints(tmp_path / "file")
