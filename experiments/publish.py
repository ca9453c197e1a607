"""Publishes a trained model: `python -m experiments.publish --workdir=RUN[,RUN…] --name=NAME`.

Takes the run with the best accuracy on its validation images, stores its parameters as
float16, and measures on the test images what that costs. Writes NAME.safetensors and its
model card, NAME.md, into --output, by default the models of the package, where
`ramjax.pretrained(NAME)` finds it.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags as absl_flags

import ramjax
from experiments.cli import app, devices, files, flags, help_text
from experiments.cli.errors import UsageError
from experiments.reporting import groups, model_card
from experiments.runs import trained
from experiments.runs.provenance import provenance
from experiments.studies import scores
from ramjax.config import EvaluationConfig

_MODELS = pathlib.Path(ramjax.__file__).parent / "models"

_MOST_GLIMPSES = 50

_BETAS = (0.05, 0.1, 0.2, 0.3)
"""Exploration rates that a model card tells of."""


def define_flags() -> None:
  """Defines the flags of the script."""
  absl_flags.DEFINE_string("name", None, "Name of the model, such as mnist.")
  absl_flags.DEFINE_list(
    "workdir", None, "Folders of runs of one recipe with different seeds."
  )
  absl_flags.DEFINE_string("output", str(_MODELS), "Folder of the model.")
  absl_flags.DEFINE_boolean(
    "overwrite", False, "Whether it may take the place of a model of this name."
  )
  help_text.REQUIRED.update(("name", "workdir"))
  flags.define_data_flag()
  devices.define_jax_flags()


def main() -> None:
  """Publishes the best of the runs that the flags name."""
  options = flags.FLAGS
  if not options.name or not re.fullmatch(r"[a-z0-9_]+", options.name):
    raise UsageError(
      f"name must be small letters, digits and _, such as mnist, not {options.name!r}"
    )
  devices.set_up_jax()
  runs = trained.open_own(trained.workdirs(), options.data_dir)
  if len(alike := groups.group_runs([run.describe() for run in runs])) > 1:
    labels = "; ".join(group.label for group in alike)
    raise UsageError(
      f"workdir must name runs that differ in nothing but the seed, not {labels}"
    )
  path = files.make_folder(pathlib.Path(options.output)) / f"{options.name}.safetensors"
  for written in (path, path.with_suffix(".md")):
    if written.exists() and not options.overwrite:
      raise UsageError(
        f"{written} is there already; give another --name or --output, or --overwrite"
      )
  validated = [_error(run, "validation") for run in runs]
  for run, error in zip(runs, validated, strict=True):
    print(f"{run.workdir.path}: validation error {error:.2f} %", flush=True)
  run = runs[int(np.argmin(validated))]
  model = ramjax.load(run.workdir.path)
  stored = dataclasses.replace(model, params=jax.tree.map(_halved, model.params))
  facts = {**_facts(run, min(validated)), **_measure(run, stored)}
  dataclasses.replace(stored, facts=facts).save(path, dtype=np.float16)
  files.replace(path.with_suffix(".md"), model_card.card(options.name, stored, facts))
  error = facts["test_error"]
  print(
    f"written to {path} ({path.stat().st_size:,} bytes) and {path.stem}.md: test error"
    f" {error['float16']:.2f} % (as trained, in float32: {error['float32']:.2f} %)"
  )


def _halved(parameter: Any) -> np.ndarray:
  """A parameter with the precision of float16, in which it is stored."""
  return np.asarray(parameter, np.float16).astype(np.float32)


def _facts(run: trained.TrainedRun, validation_error: float) -> dict[str, Any]:
  """What is known of a run without its stored model."""
  described = run.describe()
  content = json.loads((run.workdir.path / "config.json").read_text())
  return {
    "dataset": described["dataset"],
    "command": content["command"],
    "device": content["device"],
    "git_commit": content["git_commit"],
    "seed": described["seed"],
    "train_seconds": described["train_seconds"],
    "num_parameters": ramjax.num_parameters(run.params),
    "validation_error": scores.rounded(validation_error),
    "published_by": provenance(),
  }


def _measure(run: trained.TrainedRun, stored: ramjax.Predictor) -> dict[str, Any]:
  """What the stored model does on the test images, and the run itself."""
  most = max(run.config.train.num_glimpses, _MOST_GLIMPSES)
  as_stored = run._replace(params=stored.params)
  scored = scores.score(
    as_stored, EvaluationConfig(num_glimpses=most), glimpses=[most], betas=_BETAS
  )
  more_noise = EvaluationConfig(
    num_glimpses=most, location_noise=scores.late_noise(run.config)
  )
  late = scores.score(as_stored, more_noise, glimpses=[most])
  test_error = {
    "float32": _error(run, "test"),
    "float16": _error(as_stored, "test"),
  }
  return {
    "num_test_images": len(run.dataset.test.labels),
    "test_error": {name: scores.rounded(error) for name, error in test_error.items()},
    "more_glimpses": {
      "num_glimpses": most,
      "error": _percent(scored["fixed"][-1]["accuracy"]),
      "late_noise_error": _percent(late["fixed"][-1]["accuracy"]),
    },
    "calibration_error": _calibration_error(as_stored, stored.temperature_t or (1.0,)),
    "dynamic": [
      {
        "beta": entry["beta"],
        "mean_glimpses": entry["mean_glimpses"],
        "error": _percent(entry["accuracy"]),
      }
      for entry in scored["dynamic"]
    ],
  }


def _calibration_error(
  run: trained.TrainedRun, temperature_t: Sequence[float]
) -> float:
  """Mean gap between confidence and accuracy on the test images."""
  own = run.config.train.num_glimpses
  prediction, labels = scores.predict(run, EvaluationConfig(num_glimpses=own))
  temperature = jnp.float32(temperature_t[min(own, len(temperature_t)) - 1])
  probs = ramjax.temper(prediction.probs_t[-1], temperature)
  return scores.rounded(ramjax.expected_calibration_error(probs, labels))


def _error(run: trained.TrainedRun, split: str) -> float:
  """Error in % of one rollout, with as many glimpses as in training."""
  own = run.config.train.num_glimpses
  scored = scores.score(
    run, EvaluationConfig(num_glimpses=own), glimpses=[own], split=split
  )
  return _percent(scored["fixed"][0]["accuracy"])


def _percent(accuracy: float) -> float:
  """The error in %."""
  return scores.rounded(100 * (1 - accuracy))


if __name__ == "__main__":
  define_flags()
  app.run(main)
