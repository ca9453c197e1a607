"""Errors that end a script with one line and an exit status."""


class UsageError(Exception):
  """A command line that cannot be obeyed; the message is one line. Exit status 2."""


class RunError(Exception):
  """A run that cannot be done though the command line is right. Exit status 1."""
