"""What all scripts have in common: known errors are one line each, and an exit status."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence

import jax
from absl import app, logging
from absl import flags as absl_flags

from experiments.cli import flags, help_text, signals
from experiments.cli.errors import RunError, UsageError
from ramjax import parallel
from ramjax.checkpoint import CheckpointError
from ramjax.config import ConfigError
from ramjax.data import DataError
from ramjax.parallel import ParallelError

_TOO_LARGE_A_STEP = (
  "the memory is too small for a step; give more --accumulation_steps, which divide the"
  " batch (rollouts of an image stay together), or a smaller --batch_size"
)

_TOO_LARGE = (
  "the memory is too small; give fewer or smaller images, fewer glimpses or rollouts"
)


def run(main: Callable[..., object], *, takes_files: bool = False) -> None:
  """Runs a script: parses its flags, and turns known errors into one line each.

  The exit status is 2 for a bad command line, 1 for another known error, and 128 + the
  number of the signal after SIGINT or SIGTERM.

  Args:
    main: what the script does.
    takes_files: whether arguments that are no flags are allowed. `main` gets a list of
      them.
  """
  name = os.path.splitext(os.path.basename(sys.argv[0]))[0]

  def parse(argv: Sequence[str]) -> Sequence[str]:
    help_text.define()
    try:
      rest = flags.FLAGS(argv)
    except absl_flags.Error as error:
      _fail(name, error, 2)
    except SystemExit:  # after --helpxml, where absl exits with 1
      sys.exit(0)
    if rest[1:] and not takes_files:
      unexpected = f"unexpected argument {rest[1]!r}; flags begin with --"
      _fail(name, UsageError(unexpected), 2)
    if "recipe" in flags.FLAGS:
      try:
        flags.follow_recipe()
      except UsageError as error:
        _fail(name, error, 2)
    return rest

  def guarded(argv: Sequence[str]) -> None:
    # Orbax tells of every file that it touches.
    if not flags.FLAGS["verbosity"].present:
      logging.set_verbosity(logging.WARNING)
    signals.raise_on_signals()
    try:
      main(*([argv[1:]] if takes_files else []))
    except (UsageError, ConfigError) as error:
      _fail(name, error, 2)
    except (RunError, DataError, CheckpointError, ParallelError) as error:
      _fail(name, error, 1)
    except OSError as error:
      where = f"{error.filename}: " if error.filename else ""
      _fail(name, RunError(f"{where}{error.strerror or error}"), 1)
    except signals.Interrupted as interrupted:
      _tell(name, interrupted)
      if interrupted.midway:
        # Python's own end would crash where XLA is still compiling or computing.
        sys.stdout.flush()
        os._exit(interrupted.status)
      sys.exit(interrupted.status)
    except Exception as error:
      too_large = "RESOURCE_EXHAUSTED" in str(error)
      if not jax.distributed.is_initialized():
        if not too_large:
          raise
        _fail(name, _out_of_memory(), 1)
      if too_large:
        _tell(name, _out_of_memory())
      elif parallel.is_lost_process(error):
        _tell(
          name,
          ParallelError(
            f"another process was lost ({error}); run the same command again in all"
            " of them to go on"
          ),
        )
      else:
        traceback.print_exc()
      # At Python's own end JAX would wait for the others, which may wait for this one.
      sys.stdout.flush()
      os._exit(1)

  app.run(guarded, flags_parser=parse)


def _out_of_memory() -> RunError:
  trains = "accumulation_steps" in flags.FLAGS
  return RunError(_TOO_LARGE_A_STEP if trains else _TOO_LARGE)


def _tell(name: str, error: BaseException) -> None:
  message = " ".join(str(error).split())
  print(f"{name}: {message}", file=sys.stderr, flush=True)


def _fail(name: str, error: Exception, status: int) -> None:
  _tell(name, error)
  sys.exit(status)
