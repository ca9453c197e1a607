"""The folder of the compilation cache."""

import pathlib

import jax
import jaxlib
import pytest

from experiments.cli import compilation_cache

NAMES = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")


@pytest.fixture
def updates(monkeypatch):
  """Settings passed to JAX, recorded instead of applied: a process has only one cache."""
  found = {}
  monkeypatch.setattr(jax.config, "update", found.__setitem__)
  monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
  return found


def test_each_jaxlib_and_processor_has_its_own_folder(updates, tmp_path, monkeypatch):
  monkeypatch.setenv("RAMJAX_CACHE_DIR", str(tmp_path))
  compilation_cache.enable()
  assert tuple(updates) == NAMES
  folder = pathlib.Path(updates[NAMES[0]])
  assert folder.is_dir()
  assert folder.parent == tmp_path / "xla"
  assert folder.name.startswith(f"jaxlib-{jaxlib.__version__}-")

  read_text = pathlib.Path.read_text

  def another_processor(path, *arguments):
    if path == pathlib.Path("/proc/cpuinfo"):
      return "model name : another\nflags : fpu\n"
    return read_text(path, *arguments)

  monkeypatch.setattr(pathlib.Path, "read_text", another_processor)
  compilation_cache.enable()
  assert updates[NAMES[0]] != str(folder)


def test_cache_folder_of_the_user_takes_precedence(updates, tmp_path, monkeypatch):
  monkeypatch.setenv("RAMJAX_CACHE_DIR", str(tmp_path))
  monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "own"))
  compilation_cache.enable()
  assert not updates
  assert not list(tmp_path.iterdir())


def test_unwritable_folder_disables_the_cache(updates, tmp_path, monkeypatch):
  (tmp_path / "xla").write_text("a file, not a folder")
  monkeypatch.setenv("RAMJAX_CACHE_DIR", str(tmp_path))
  compilation_cache.enable()
  assert not updates
