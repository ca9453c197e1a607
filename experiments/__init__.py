"""Scripts: each trains or evaluates from the command line, by `python -m`."""
