"""Checkpoints: what is read is what was written, or one clear line."""

import asyncio
import contextlib
import errno
import functools
import itertools
import math
import os
import pathlib
import random
import resource
import shutil
import subprocess
import tempfile
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ramjax
from ramjax import checkpoint
from ramjax.checkpoint import CheckpointError, Checkpoints
from ramjax.config import Config, ModelConfig
from ramjax.digest import state_digest

CONFIG = Config(model=ModelConfig(hidden_size=16, branch_size=8))


@functools.cache
def init(seed, config=CONFIG):
  optimizer = ramjax.make_optimizer(config.train, steps_per_epoch=10)
  init_state = functools.partial(
    ramjax.init_train_state, config=config, optimizer=optimizer
  )
  return jax.jit(init_state)(jax.random.key(seed))


@functools.cache
def shapes(config):
  """The shapes of a state, with the data of its key for its key."""
  found = jax.eval_shape(lambda: init.__wrapped__(0, config))
  return found._replace(key=jax.ShapeDtypeStruct((2,), jnp.uint32))


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
    found = checkpoints.restore(jax.eval_shape(lambda x: x, init(1)))
  jax.tree.map(np.testing.assert_array_equal, plain(found), plain(state))
  assert jax.tree.structure(found) == jax.tree.structure(state)


def test_a_key_keeps_its_implementation(state, tmp_path):
  state = state._replace(key=jax.random.key(0, impl="rbg"))
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(state)
    for like in (state, jax.eval_shape(lambda: state)):
      assert checkpoints.restore(like).key == state.key


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


def test_one_writer_at_a_time(state, tmp_path):
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(state)
    with pytest.raises(CheckpointError, match="is being written by another run"):
      Checkpoints(tmp_path)
    with Checkpoints(tmp_path, read_only=True) as reader:
      assert reader.restore(state).step == 7
  with Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.latest_step == 7


def test_a_reader_does_not_write(state, tmp_path):
  with (
    Checkpoints(tmp_path, read_only=True) as reader,
    pytest.raises(CheckpointError, match="not open for writing"),
  ):
    reader.save(state)


def save_all(checkpoints, state, accuracies):
  """Saves steps 1, 2, 3 … with these validation accuracies."""
  for step, accuracy in enumerate(accuracies, start=1):
    checkpoints.save(state._replace(step=jnp.int32(step)), accuracy=accuracy)


@pytest.mark.parametrize(
  ("accuracies", "best", "kept"),
  [
    ([0.5, 0.9, 0.6, 0.7, 0.8], 2, [2, 4, 5]),
    ([0.5, 0.6, 0.7, 0.9], 4, [3, 4]),
    ([0.9, 0.9, 0.1, 0.2], 2, [2, 3, 4]),
    ([0.9, math.nan, math.inf, math.nan], 1, [1, 3, 4]),
    ([math.nan, 0.2, None, None, -math.inf], 2, [2, 4, 5]),
    ([None, math.nan, None], None, [2, 3]),
  ],
)
def test_the_best_is_kept_and_what_is_not_finite_is_never_the_best(
  accuracies, best, kept, state, tmp_path
):
  with Checkpoints(tmp_path) as checkpoints:
    save_all(checkpoints, state, accuracies)
    assert checkpoints.steps == kept
    assert checkpoints.best_step == best
  with Checkpoints(tmp_path, read_only=True) as checkpoints:  # from the files alone
    assert checkpoints.best_step == best
    if best is None:
      with pytest.raises(CheckpointError, match="no checkpoint with a validation"):
        checkpoints.restore(state, best=True)
    else:
      assert checkpoints.restore(state, best=True).step == best
    assert checkpoints.restore(state).step == len(accuracies)


def test_a_step_that_is_asked_for_outlives_the_saves_that_would_remove_it(
  state, tmp_path
):
  def save(step, **options):
    checkpoints.save(state._replace(step=jnp.int32(step)), **options)

  with Checkpoints(tmp_path) as checkpoints:
    save(1)
    for step in (2, 3, 4):
      save(step, keep=[1])
    assert checkpoints.steps == [1, 3, 4]
    assert checkpoints.restore(state, step=1).step == 1
    save(5)
    assert checkpoints.steps == [4, 5]


def test_another_state_of_the_same_step_is_refused(state, tmp_path):
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(state, accuracy=0.5)
    checkpoints.save(state)  # the same state: nothing to do
    with pytest.raises(CheckpointError, match="7 is there already, with another state"):
      checkpoints.save(init(1)._replace(step=jnp.int32(7)))
    assert state_digest(checkpoints.restore(state)) == state_digest(state)


def damage(file, kind, rng):
  content = file.read_bytes()
  if kind == "truncated":
    file.write_bytes(content[: len(content) // 2])
  elif kind == "empty":
    file.write_bytes(b"")
  elif kind == "deleted":
    file.unlink()
  else:
    where = rng.randrange(len(content))
    flipped = bytes([content[where] ^ (1 << rng.randrange(8))])
    file.write_bytes(content[:where] + flipped + content[where + 1 :])


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
  """A folder with steps 1 and 2, and their states."""
  folder = tmp_path_factory.mktemp("checkpoints") / "whole"
  states = {step: init(step)._replace(step=jnp.int32(step)) for step in (1, 2)}
  with Checkpoints(folder) as checkpoints:
    for step, state in states.items():
      checkpoints.save(state, accuracy=step / 10)
  return folder, states


@pytest.mark.parametrize("kind", ["truncated", "empty", "deleted", "flipped"])
def test_damage_to_any_file_is_found(kind, two_steps, tmp_path):
  """What is read is what was written; if not of this step, then of the one before."""
  whole, states = two_steps
  files = [p.relative_to(whole) for p in (whole / "2").rglob("*") if p.is_file()]
  assert len(files) >= 8
  rng, detected = random.Random(0), set()
  for number, file in enumerate(files):
    if (whole / file).stat().st_size == 0 and kind != "deleted":
      continue
    folder = tmp_path / str(number)
    shutil.copytree(whole, folder)
    damage(folder / file, kind, rng)
    with Checkpoints(folder) as checkpoints:
      restored = checkpoints.restore(states[1])
      step = int(restored.step)
      assert state_digest(restored) == state_digest(states[step]), file
      assert checkpoints.steps == [1, 2][:step]
      assert (folder / "damaged-2").is_dir() == (step == 1)
      if step == 1:
        detected.add(file)
      if len(detected) == 1:  # The place of the damaged one is free again.
        checkpoints.save(states[2], accuracy=0.2)
        assert state_digest(checkpoints.restore(states[1])) == state_digest(states[2])
  # Most of the numbers are in this one; some others say the same thing twice.
  assert max(files, key=lambda file: (whole / file).stat().st_size) in detected
  assert len(detected) >= 4


def test_a_reader_passes_over_a_damaged_step_and_leaves_it(two_steps, tmp_path):
  whole, states = two_steps
  folder = tmp_path / "run"
  shutil.copytree(whole, folder)
  shutil.rmtree(folder / "2" / "state")
  before = sorted(folder.rglob("*"))
  with Checkpoints(folder, read_only=True) as checkpoints:
    assert checkpoints.restore(states[1]).step == 1
    assert checkpoints.restore(states[1], best=True).step == 1
  assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("step", [1, 2])
def test_a_step_is_read_by_its_number(step, two_steps):
  folder, states = two_steps
  with Checkpoints(folder, read_only=True) as checkpoints:
    restored = checkpoints.restore(states[1], step=step)
    assert state_digest(restored) == state_digest(states[step])
    with pytest.raises(CheckpointError, match="holds no checkpoint of step 3"):
      checkpoints.restore(states[1], step=3)


@pytest.mark.parametrize("step", [1, 2])
def test_no_other_step_takes_the_place_of_a_damaged_one_that_is_asked_for(
  step, two_steps, tmp_path
):
  whole, states = two_steps
  folder = tmp_path / "run"
  shutil.copytree(whole, folder)
  shutil.rmtree(folder / str(step) / "state")
  with Checkpoints(folder) as checkpoints:
    with pytest.raises(CheckpointError, match=rf"can be read \({step}: ") as caught:
      checkpoints.restore(states[1], step=step)
    assert "\n" not in str(caught.value)
    assert checkpoints.steps == [3 - step]
    assert (folder / f"damaged-{step}").is_dir()
    assert checkpoints.restore(states[1]).step == 3 - step


def test_damage_everywhere_is_one_clear_line(two_steps, tmp_path):
  whole, states = two_steps
  folder = tmp_path / "run"
  shutil.copytree(whole, folder)
  for step in ("1", "2"):
    shutil.rmtree(folder / step)
    (folder / step).mkdir()  # empty: Orbax alone takes it for a checkpoint
  with (
    Checkpoints(folder) as checkpoints,
    pytest.raises(
      CheckpointError, match=r"holds no checkpoint that can be read \(2: "
    ) as caught,
  ):
    checkpoints.restore(states[1])
  assert "\n" not in str(caught.value)
  assert sorted(p.name for p in folder.iterdir()) == ["damaged-1", "damaged-2"]
  with Checkpoints(folder) as checkpoints:
    assert checkpoints.latest_step is None
    checkpoints.save(states[1])
    shutil.rmtree(folder / "1" / "state")
    with pytest.raises(CheckpointError, match="holds no checkpoint that can be read"):
      checkpoints.restore(states[1])
  assert (folder / "damaged-1-2").is_dir()  # the earlier one is not replaced


def test_whole_files_of_another_state_are_found(two_steps, tmp_path):
  """Where only the digest can tell: each file of it is in order."""
  whole, states = two_steps
  folder, other = tmp_path / "run", tmp_path / "other"
  shutil.copytree(whole, folder)
  with Checkpoints(other) as checkpoints:
    checkpoints.save(states[1]._replace(step=jnp.int32(2)))
  shutil.rmtree(folder / "2" / "state")
  shutil.copytree(other / "2" / "state", folder / "2" / "state")
  with Checkpoints(folder) as checkpoints:
    assert checkpoints.restore(states[1]).step == 1


def test_an_accuracy_that_was_changed_is_found(two_steps, tmp_path):
  whole, _ = two_steps
  folder = tmp_path / "run"
  shutil.copytree(whole, folder)
  file = folder / "1" / "_CHECKPOINT_METADATA"
  changed = file.read_text().replace('"accuracy": 0.1', '"accuracy": 0.9')
  assert changed != file.read_text()
  file.write_text(changed)
  with Checkpoints(folder) as checkpoints:
    assert checkpoints.best_step == 2


def test_a_step_under_another_number_is_damaged(two_steps, tmp_path):
  whole, states = two_steps
  folder = tmp_path / "run"
  shutil.copytree(whole, folder)
  (folder / "1").rename(folder / "3")
  with Checkpoints(folder) as checkpoints:
    assert checkpoints.restore(states[1]).step == 2


def test_what_an_interrupted_save_or_deletion_leaves_is_swept(state, tmp_path):
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(state)
  for name in ("8.orbax-checkpoint-tmp", "8.orbax-checkpoint-tmp-123", "6.deleted"):
    (tmp_path / name / "state").mkdir(parents=True)
  (tmp_path / "notes.txt").write_text("mine")
  with Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.steps == [7]
  assert sorted(p.name for p in tmp_path.iterdir()) == ["7", "notes.txt"]


def test_a_deletion_that_is_cut_short_leaves_nothing_named_like_a_step(
  state, tmp_path, monkeypatch
):
  def removes_one_file(path, **_):
    next(file for file in path.rglob("*") if file.is_file()).unlink()

  monkeypatch.setattr(
    checkpoint, "shutil", types.SimpleNamespace(rmtree=removes_one_file)
  )
  with Checkpoints(tmp_path) as checkpoints:
    for step in (7, 8, 9):
      checkpoints.save(state._replace(step=jnp.int32(step)))
    assert checkpoints.steps == [8, 9]
  assert (tmp_path / "7.deleted").is_dir()


def test_the_entry_of_a_step_is_on_disk_when_its_save_returns(
  state, tmp_path, monkeypatch
):
  """Else a power failure could take a step that has been promised."""
  synced, fsync = [], os.fsync

  def note_fsync(descriptor):
    fsync(descriptor)
    if os.path.samestat(os.fstat(descriptor), tmp_path.stat()):
      synced.append([path.name for path in tmp_path.iterdir()])

  monkeypatch.setattr(os, "fsync", note_fsync)
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(state)
  assert synced == [["7"]]


def test_nothing_foreign_is_ever_removed(state, tmp_path):
  """Not even a folder that is named like an old step."""
  (tmp_path / "3").mkdir()
  (tmp_path / "010").mkdir()  # no name of a step of ours
  (tmp_path / "3" / "photo.jpg").write_text("mine")
  with Checkpoints(tmp_path) as checkpoints:
    for step in (7, 8, 9):
      checkpoints.save(state._replace(step=jnp.int32(step)))
    assert checkpoints.steps == [3, 8, 9]
    assert checkpoints.restore(state).step == 9
  assert (tmp_path / "3" / "photo.jpg").read_text() == "mine"


def test_a_folder_of_other_things_is_refused(tmp_path):
  (tmp_path / "thesis.txt").write_text("mine")
  with pytest.raises(CheckpointError, match="holds files but no checkpoint; give"):
    Checkpoints(tmp_path)


@contextlib.contextmanager
def as_nobody():
  """Root may write everywhere, so that it has to be somebody else for a while."""
  if os.geteuid():
    yield
    return
  os.seteuid(65534)
  try:
    yield
  finally:
    os.seteuid(0)


def test_a_read_only_folder_is_one_clear_line_and_can_be_read(two_steps):
  whole, states = two_steps
  with tempfile.TemporaryDirectory() as parent:
    os.chmod(parent, 0o755)
    folder = pathlib.Path(parent) / "run"
    shutil.copytree(whole, folder)
    folder.chmod(0o555)
    try:
      with as_nobody():
        with pytest.raises(CheckpointError, match="run cannot hold checkpoints: it is"):
          Checkpoints(folder)
        with Checkpoints(folder, read_only=True) as checkpoints:
          restored = checkpoints.restore(states[1])
    finally:
      folder.chmod(0o755)
  assert state_digest(restored) == state_digest(states[2])


def test_what_may_not_be_read_is_not_taken_for_damaged(two_steps):
  whole, states = two_steps
  with tempfile.TemporaryDirectory() as parent:
    os.chmod(parent, 0o755)
    folder = pathlib.Path(parent) / "run"
    shutil.copytree(whole, folder)
    folder.chmod(0o777)
    (folder / "2").chmod(0)
    try:
      with (
        as_nobody(),
        Checkpoints(folder) as checkpoints,
        pytest.raises(CheckpointError, match="2 cannot be read: Permission denied"),
      ):
        checkpoints.restore(states[1])
    finally:
      (folder / "2").chmod(0o755)
    assert (folder / "2").is_dir()


@contextlib.contextmanager
def files_of_at_most(size):
  """A writer that fails as on a full disk, wherever one may not mount a small one."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def big(step):
  """A state of 2.5 MB that does not compress."""
  rng = np.random.default_rng(step)
  state = jax.tree.map(
    lambda x: rng.standard_normal(x.shape).astype(x.dtype), shapes(Config())
  )
  return state._replace(step=jnp.int32(step))


def test_a_failed_save_leaves_what_was_there_and_the_next_one_works(tmp_path, capfd):
  """Nothing is still being written, which would come back or complain on its own."""
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(big(1), accuracy=0.5)
    for step in (2, 3):
      with (
        files_of_at_most(200_000),
        pytest.raises(
          CheckpointError, match=f"checkpoint {step} cannot be written"
        ) as caught,
      ):
        checkpoints.save(big(step))
      assert "\n" not in str(caught.value)
      assert [p.name for p in tmp_path.iterdir()] == ["1"]
    assert capfd.readouterr().err == ""
    checkpoints.save(big(4))
    assert checkpoints.steps == [1, 4]
    assert state_digest(checkpoints.restore(big(0))) == state_digest(big(4))


def test_a_save_fails_when_all_that_it_has_begun_has_ended(
  state, tmp_path, monkeypatch
):
  """Else TensorStore's threads fill the folder that is being removed."""
  from orbax.checkpoint._src.serialization.type_handlers import NumpyHandler

  begun, ended = itertools.count(), []

  async def only_the_first_fails(*_):
    number = next(begun)
    if not number:
      raise OSError(errno.ENOSPC, "full")
    await asyncio.sleep(0.05)
    ended.append(number)

  monkeypatch.setattr(NumpyHandler, "_open_and_write", only_the_first_fails)
  with (
    Checkpoints(tmp_path) as checkpoints,
    pytest.raises(CheckpointError, match=r"7 cannot be written to .*: No space left"),
  ):
    checkpoints.save(state)
  assert len(ended) == next(begun) - 1 > 0


def test_a_full_disk(tmp_path):
  disk = tmp_path / "disk"
  disk.mkdir()
  mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "none", str(disk)]
  try:
    mounted = subprocess.run(mount, capture_output=True).returncode == 0
  except OSError:
    mounted = False
  if not mounted:
    pytest.skip("no file system may be mounted here")
  try:
    with Checkpoints(disk / "run") as checkpoints:
      checkpoints.save(big(1))
      (disk / "ballast").write_bytes(bytes(2_500_000))
      with pytest.raises(CheckpointError, match="2 cannot be written"):
        checkpoints.save(big(2))
      assert [p.name for p in (disk / "run").iterdir()] == ["1"]
      (disk / "ballast").unlink()
      checkpoints.save(big(3))
      assert checkpoints.restore(big(0)).step == 3
  finally:
    subprocess.run(["umount", str(disk)], check=True)


def test_a_checkpoint_of_another_model_is_refused_and_left(state, tmp_path):
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(state)
    with pytest.raises(CheckpointError, match="7 cannot be read: it is of another"):
      checkpoints.restore(shapes(Config(model=ModelConfig(hidden_size=17))))
    assert checkpoints.steps == [7]


def test_no_pickle(two_steps):
  """Nothing that is loaded can run code."""
  whole, _ = two_steps
  for file in whole.rglob("*"):
    assert not file.is_file() or not file.read_bytes().startswith(b"\x80\x04")


def test_a_file_in_the_place_of_the_folder(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(CheckpointError, match="file cannot hold checkpoints"):
    Checkpoints(tmp_path / "file")
