"""Recipes: named settings of a training, `--recipe=tuned`.

A recipe gives other defaults to some settings, by the name of the flag, or of the field if
only `--set` reaches it (`model.branch_size`). What the command line gives wins. A run
records all values and its command. BUILD_NOTES.md tells how the values were chosen.
"""

from __future__ import annotations

from collections.abc import Mapping

_TUNED: Mapping[str, str | int | float] = {
  "objective": "intrinsic",
  "lambda_intrinsic": 0.1,
  "num_epochs": 120,
  "batch_size": 256,
  "optimizer": "muon",
  "learning_rate": 1e-3,
  "learning_rate_schedule": "cosine",
  "max_gradient_norm": 5.0,
}

RECIPES: Mapping[str, Mapping[str, str | int | float]] = {
  # The defaults are the paper's setting.
  "paper": {},
  # For images of 28x28 pixels; chosen on the validation images of MNIST.
  "tuned": _TUNED,
  # For digits on canvases of 60x60 and more: the glimpse of Mnih et al. (2014), and the
  # policy as wide as on small images, for a narrow one explores too little.
  "canvas": {
    **_TUNED,
    "num_epochs": 60,
    "num_glimpses": 8,
    "patch_size": 12,
    "num_scales": 3,
    "location_std": 0.1,
  },
}
"""From the name of a recipe to its settings."""
