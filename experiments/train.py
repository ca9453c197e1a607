"""Trains a model: `python -m experiments.train --objective=both`.

Writes configuration, metrics, checkpoints, TensorBoard events and figures into
--workdir, and prints the test accuracy as its last line. With --num_seeds=R it trains R
seeds in one program, each into a folder of its own, <workdir>_seed0 and so on. Started
again, it resumes.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from experiments.cli import app, flags
from experiments.runs import from_flags
from experiments.runs.workdir import default_workdir
from ramjax.config import Config


def folders(configs: Sequence[Config]) -> list[pathlib.Path]:
  """Where the runs go, as the flags say."""
  base = flags.FLAGS.workdir
  if not base:
    return [pathlib.Path(default_workdir(config)) for config in configs]
  if flags.FLAGS.num_seeds == 1:
    return [pathlib.Path(base)]
  return [pathlib.Path(f"{base}_seed{config.train.seed}") for config in configs]


if __name__ == "__main__":
  flags.define_train_flags()
  flags.define_figure_flag()
  app.run(lambda: from_flags.train(folders))
