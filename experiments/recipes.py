"""Recipes: named settings of a training, `--recipe=tuned`.

A recipe is the values of some flags; those that it does not name keep their defaults, and
those that are given on the command line win. A run records the values, and its command.
"""

from __future__ import annotations

from collections.abc import Mapping

RECIPES: Mapping[str, Mapping[str, str | int | float]] = {
  # The paper's setting is what the flags say by themselves.
  "paper": {},
  # A first recipe, by one seed's experience; its values are not the result of a search yet.
  "tuned": {
    "num_epochs": 40,
    "batch_size": 128,
    "learning_rate": 1e-3,
    "learning_rate_schedule": "cosine",
    "max_gradient_norm": 5.0,
    "lambda_intrinsic": 0.01,
    "error_gradient": "state",
  },
}
"""From the name of a recipe to the flags that it sets."""
