"""The folder of a trained run, read: configuration, data, parameters, temperatures.

`python -m experiments.train` writes it. Nothing here writes.
"""

from __future__ import annotations

import functools
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from ramjax import fields
from ramjax.checkpoint import Checkpoints
from ramjax.config import Config, ConfigError
from ramjax.data import DatasetInfo
from ramjax.model import PyTree
from ramjax.optimizer import make_optimizer
from ramjax.training import init_train_state

CONFIG, CHECKPOINTS, CONFIDENCE = "config.json", "checkpoints", "confidence.json"
"""Names of what a run writes."""


class RunError(Exception):
  """A run that cannot be read or done; the message is one line."""


def read_config(folder: pathlib.Path) -> Config:
  """The configuration of the run in a folder.

  Raises:
    RunError: if there is no run, its configuration is damaged, or this version of
      ramjax cannot read it.
  """
  return _read(folder)[0]


def read_info(folder: pathlib.Path) -> DatasetInfo | None:
  """What a run recorded of its data; None if an earlier version wrote it.

  Raises:
    RunError: as `read_config`.
  """
  return _read(folder)[1]


def read_temperatures(folder: pathlib.Path) -> tuple[float, ...] | None:
  """The temperature of p after each glimpse; None if the run has not fitted any.

  Raises:
    RunError: if the file is damaged.
  """
  file = folder / CONFIDENCE
  try:
    return check_temperatures(json.loads(file.read_text())["temperature_t"])
  except FileNotFoundError:
    return None
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise RunError(f"{file} is damaged ({fields.one_line(error)})") from error


def check_temperatures(found: Any) -> tuple[float, ...]:
  """Temperatures, one a glimpse, as they were read from JSON.

  Raises:
    ValueError: if one is not finite and above 0, or there is none.
    TypeError: if they are no list of numbers.
  """
  if not found or not all(0 < float(each) < float("inf") for each in found):
    raise ValueError("temperatures must be above 0")
  return tuple(map(float, found))


def restore(
  folder: pathlib.Path, config: Config, *, best: bool = False
) -> tuple[PyTree, int]:
  """The parameters of the newest checkpoint of a run, or of the best, and its step.

  Raises:
    CheckpointError: if it has none yet, or it cannot be read.
  """
  optimizer = make_optimizer(config.train, steps_per_epoch=1)
  init = functools.partial(init_train_state, config=config, optimizer=optimizer)
  with Checkpoints(folder / CHECKPOINTS, read_only=True) as checkpoints:
    state = checkpoints.restore(jax.eval_shape(init, jax.random.key(0)), best=best)
  return state.params, int(state.step)


def _advice(folder: pathlib.Path) -> str:
  """What to do about a folder without a run: there may be some beside it."""
  seeds = [*folder.parent.glob(f"{folder.name}_seed*/{CONFIG}")]
  seeds += [*folder.glob(f"seed*/{CONFIG}")]
  if seeds:
    return f"give {','.join(str(file.parent) for file in sorted(seeds))}"
  if (folder.parent / CONFIG).is_file():
    return f"give {folder.parent}"
  if folder.is_file():
    return "give the folder of a run, not a file"
  return f"train one by `python -m experiments.train --workdir={folder}`"


def _read(folder: pathlib.Path) -> tuple[Config, DatasetInfo | None]:
  """Configuration and data of the run in a folder; errors as `read_config`."""
  file = folder / CONFIG
  try:
    content: Mapping[str, Any] = json.loads(file.read_text())
    config = Config.from_dict(content["config"])
    described = content.get("data")
    info = DatasetInfo.from_dict(described, prefix="data.") if described else None
    return config, info
  except OSError as error:
    raise RunError(
      f"{folder} holds no run ({file.name}: {error.strerror}); {_advice(folder)}"
    ) from error
  except (ValueError, KeyError, TypeError, RecursionError) as error:
    reason = fields.one_line(error)
    if isinstance(error, ConfigError):
      raise RunError(f"{file}: {reason}") from error
    raise RunError(f"{file} is damaged ({reason}); give another --workdir") from error
