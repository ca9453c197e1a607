"""A trained model as one file: parameters as safetensors, the rest in its header.

`ramjax.Predictor.save` writes it and `ramjax.load` reads it. Reading runs no code of the
file, unlike pickle (https://github.com/huggingface/safetensors).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import unflatten_dict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ramjax import fields
from ramjax.config import Config, ConfigError
from ramjax.data import DatasetInfo
from ramjax.digest import state_digest
from ramjax.model import PyTree
from ramjax.networks import Params
from ramjax.ram import as_model
from ramjax.run_folder import RunError, check_temperatures

SUFFIX = ".safetensors"

_FORMAT = "1"
"""Version of the file's format."""


class ModelFile(NamedTuple):
  """What a file holds.

  Attributes:
    config: the run.
    params: its parameters, float32.
    info: what it recorded of its data.
    temperature_t: see `ramjax.Predictor`.
    facts: what else the writer recorded, such as measured errors.
  """

  config: Config
  params: PyTree
  info: DatasetInfo
  temperature_t: tuple[float, ...] | None
  facts: Mapping[str, Any]


def write(path: pathlib.Path, model: ModelFile, *, dtype: np.dtype) -> None:
  """Writes a model, whole or not at all.

  Raises:
    ConfigError: if a parameter is too large for `dtype`.
    OSError: if the file cannot be written.
  """
  if not path.parent.is_dir():
    raise FileNotFoundError(errno.ENOENT, "its folder does not exist", str(path))
  with np.errstate(over="ignore"):
    arrays = {
      name: np.asarray(leaf).astype(dtype)
      for name, leaf in _named_leaves(model.params).items()
    }
  for name, value in arrays.items():
    if not np.isfinite(value).all():
      raise ConfigError(f"parameter {name} is not finite in {dtype.name}")
  header = {
    "format": _FORMAT,
    "config": json.dumps(model.config.to_dict()),
    "data": json.dumps(model.info.to_dict()),
    "temperature_t": json.dumps(model.temperature_t),
    "facts": json.dumps(model.facts),
  }
  header["sha256"] = _digest(header, arrays)
  with tempfile.TemporaryDirectory(dir=path.parent, prefix=".new-") as temporary:
    new = pathlib.Path(temporary) / path.name
    with new.open("wb") as file:
      file.write(save(arrays, metadata={f"ramjax.{k}": v for k, v in header.items()}))
      file.flush()
      os.fsync(file.fileno())
    new.replace(path)


def read(path: pathlib.Path) -> ModelFile:
  """The model in a file.

  Raises:
    RunError: if there is none, it is damaged, or this version cannot read it.
  """
  try:
    with safe_open(path, framework="numpy") as file:
      header = {
        name.removeprefix("ramjax."): text
        for name, text in (file.metadata() or {}).items()
        if name.startswith("ramjax.")
      }
      stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if header.get("format") != _FORMAT:
      raise ValueError("this version of ramjax did not write it")
    digest = header.pop("sha256", None)  # earlier versions wrote none
    if digest not in (None, _digest(header, stored)):
      raise ValueError("it is not what was written: its SHA-256 differs")
    parts = {
      name: json.loads(header[name])
      for name in ("config", "data", "temperature_t", "facts")
    }
    config = Config.from_dict(parts["config"])
    info = DatasetInfo.from_dict(parts["data"], prefix="data.")
    arrays = {name: values.astype(np.float32) for name, values in stored.items()}
    if digest and config.model.factory is None:  # it fitted when it was written
      params = Params(**unflatten_dict(arrays, sep="/"))
    else:
      params = _as_params(arrays, config)
    temperature_t = parts["temperature_t"]
    if temperature_t is not None:
      temperature_t = check_temperatures(temperature_t)
    return ModelFile(config, params, info, temperature_t, parts["facts"])
  except FileNotFoundError as error:
    raise RunError(f"{path} does not exist") from error
  except (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    SafetensorError,
  ) as error:
    reason = fields.one_line(error)
    raise RunError(f"{path} cannot be read as a model ({reason})") from error


def _digest(header: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> str:
  """The SHA-256 of all that a file holds."""
  content = json.dumps(header, sort_keys=True) + state_digest(arrays)
  return hashlib.sha256(content.encode()).hexdigest()


def _as_params(arrays: Mapping[str, np.ndarray], config: Config) -> PyTree:
  """Parameters from arrays by name.

  Raises:
    ValueError: if they are not those of the configuration.
  """
  init = as_model(config.model).init
  expected = jax.eval_shape(init, jax.random.key(0))
  named = _named_leaves(expected)
  shapes = [
    {name: leaf.shape for name, leaf in tree.items()} for tree in (arrays, named)
  ]
  if shapes[0] != shapes[1]:
    raise ValueError("its parameters do not fit its configuration")
  return jax.tree.unflatten(
    jax.tree.structure(expected), [arrays[name] for name in named]
  )


def _named_leaves(params: PyTree) -> dict[str, Any]:
  """The leaves in the order of the tree, by their paths, such as `ram/action/bias`."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(params)
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): leaf
    for path, leaf in leaves
  }
