"""Errors that end a script with one line and an exit status."""

from ramjax.run_folder import RunError as RunError  # exit status 1


class UsageError(Exception):
  """A command line that cannot be obeyed; the message is one line. Exit status 2."""
