"""Scripts: each trains or evaluates from the command line, by `python -m`.

Without the packages of the extra `experiments` every script ends here, with one line and
exit status 1.
"""

import importlib.util
import sys

_PACKAGES = ("jinja2", "matplotlib", "rich", "scipy", "tensorboardX")

_missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
if _missing:
  sys.exit(
    f"experiments: {', '.join(_missing)} cannot be imported;"
    " pip install '.[experiments]' in a checkout of ramjax"
  )
