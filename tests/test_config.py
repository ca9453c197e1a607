"""A configuration that exists is valid, survives JSON, and outlives a release."""

import dataclasses
import inspect
import json
import pathlib
from typing import ClassVar

import numpy as np
import pytest

from ramjax import config as config_lib
from ramjax import fields
from ramjax.config import (
  Config,
  ConfigError,
  EvaluationConfig,
  ModelConfig,
  ObjectiveConfig,
  TrainConfig,
)

FILES = pathlib.Path(__file__).parent / "files"


@pytest.mark.parametrize(
  ("part", "field", "value"),
  [
    (ModelConfig, "patch_size", 0),
    (ModelConfig, "patch_size", 8.0),
    (ModelConfig, "num_scales", -1),
    (ModelConfig, "num_classes", 1),
    (ModelConfig, "location_std", 0.0),
    (ModelConfig, "location_std", float("nan")),
    (ModelConfig, "location_std", float("inf")),
    (ModelConfig, "image_shape", (28, 28)),
    (ModelConfig, "image_shape", (28, 0, 1)),
    (ModelConfig, "image_shape", (True, 28, 1)),
    (ObjectiveConfig, "lambda_intrinsic", 1e308),
    (ObjectiveConfig, "lambda_intrinsic", 10**400),
    (TrainConfig, "seed", 2**32),
    (Config, "model", 3),
    (Config, "train", ModelConfig()),
    (ModelConfig, "fill_value", float("nan")),
    (ObjectiveConfig, "name", "neither"),
    (ObjectiveConfig, "error_gradient", "some"),
    (ObjectiveConfig, "credit_last_location", 1),
    (ObjectiveConfig, "credit_last_location", "false"),
    (ObjectiveConfig, "intrinsic_steps", "first"),
    (ModelConfig, "location_density", "clip"),
    (ModelConfig, "core", "gru"),
    (ModelConfig, "first_location", "center"),
    (ObjectiveConfig, "lambda_intrinsic", float("nan")),
    (ObjectiveConfig, "lambda_uncertainty", -1.0),
    (ObjectiveConfig, "regularizer_scale", float("inf")),
    (ObjectiveConfig, "prior", (0.5, 0.6)),
    (ObjectiveConfig, "prior", (1.5, -0.5)),
    (ObjectiveConfig, "prior", (10**400, 0.5)),
    (TrainConfig, "accumulation_steps", 0),
    (TrainConfig, "num_epochs", -1),
    (TrainConfig, "num_epochs", True),
    (TrainConfig, "batch_size", 0),
    (TrainConfig, "num_glimpses", 0),
    (TrainConfig, "learning_rate", 0.0),
    (TrainConfig, "learning_rate", float("nan")),
    (TrainConfig, "optimizer", "sgd"),
    (TrainConfig, "learning_rate_schedule", "linear"),
    (TrainConfig, "warmup_epochs", -0.5),
    (TrainConfig, "max_gradient_norm", 0.0),
    (TrainConfig, "max_gradient_norm", float("inf")),
    (TrainConfig, "seed", -1),
    (TrainConfig, "dataset", ""),
    (TrainConfig, "canvas_size", 0),
    (TrainConfig, "num_clutter", -1),
    (TrainConfig, "data_sha256", ""),
    (TrainConfig, "resize", "64"),
    (TrainConfig, "resize", "64x0"),
    (TrainConfig, "resize", "64x64\n"),
    (TrainConfig, "transparent_as", "red"),
    (TrainConfig, "background", "256"),
    (TrainConfig, "background", "1,2,"),
    (TrainConfig, "background", "paper"),
    (TrainConfig, "division", "by hand"),
    (TrainConfig, "num_train_examples", 0),
  ],
)
def test_bad_values_are_refused_in_one_line_that_names_the_field(part, field, value):
  with pytest.raises(ConfigError, match=f"^{field} must be ") as caught:
    part(**{field: value})
  assert "\n" not in str(caught.value)


def test_a_prior_has_one_entry_a_class():
  with pytest.raises(ConfigError, match=r"^prior must have 10 entries"):
    Config(objective=ObjectiveConfig(prior=(0.5, 0.5)))


def test_parts_divide_the_batch():
  assert TrainConfig(batch_size=48, accumulation_steps=3).accumulation_steps == 3
  with pytest.raises(
    ConfigError, match=r"^accumulation_steps must divide batch_size, 32"
  ):
    TrainConfig(accumulation_steps=3)


def test_json_round_trip_is_exact():
  config = Config(
    model=ModelConfig(image_shape=(60, 40, 3), num_classes=2, location_std=0.03),
    objective=ObjectiveConfig(name="intrinsic", prior=(0.25, 0.75)),
    train=TrainConfig(num_train_examples=100, seed=7, max_gradient_norm=5),
  )
  assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_a_file_of_the_first_release_is_the_run_that_it_was():
  """A run on cluttered images, with all that had a setting in 0.1.0."""
  content = json.loads((FILES / "config_0.1.0.json").read_text())
  assert Config.from_dict(content["config"]) == Config(
    model=ModelConfig(
      image_shape=(64, 64, 1),
      patch_size=12,
      num_scales=3,
      branch_size=64,
      core="lstm",
      first_location="centre",
      location_density="raw",
    ),
    objective=ObjectiveConfig(
      name="intrinsic",
      error_gradient="state",
      credit_last_location=False,
      intrinsic_steps="all",
      prior=(
        *(0.1105, 0.1, 0.0965, 0.1065, 0.1005),
        *(0.085, 0.1025, 0.1085, 0.0925, 0.0975),
      ),
    ),
    train=TrainConfig(
      canvas_size=64,
      num_clutter=3,
      num_train_examples=2000,
      num_epochs=0,
      batch_size=256,
      accumulation_steps=2,
      num_glimpses=8,
      optimizer="muon",
      learning_rate=1e-3,
      learning_rate_schedule="cosine",
      warmup_epochs=0.5,
      max_gradient_norm=5.0,
      seed=7,
      background=None,  # each image on a canvas of its darkest value
    ),
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Later(fields.Checked):
  """A configuration after some releases."""

  removed: ClassVar = {"depth": 1}

  width: int = fields.integer(256, "Units of a layer.", low=1)
  heads: int = fields.integer(8, "Heads of attention.", low=1, before=1)
  kind: str = fields.choice("relu", ("relu", "tanh"), "Kind of a unit.")


def test_a_field_that_a_file_lacks_is_what_earlier_releases_did():
  assert Later.from_dict({"width": 4}) == Later(width=4, heads=1)
  assert Later.from_dict({"heads": 2, "depth": 1}) == Later(heads=2)
  assert Config.from_dict({"model": {}, "objective": {}, "train": {"seed": 3}}) == (
    Config(train=TrainConfig(seed=3, background=None))
  )


@pytest.mark.parametrize(
  ("part", "field", "value"),
  [
    ("train", "weight_decay", 0.1),
    ("train", "average_decay", 0.999),
    ("objective", "reinforce_weight", 0.5),
    ("objective", "reinforce_weight", "\n"),
  ],
)
def test_a_removed_setting_is_refused_where_it_was_used(part, field, value):
  values = Config().to_dict()
  values[part][field] = value
  with pytest.raises(ConfigError) as caught:
    Config.from_dict(values)
  assert str(caught.value) == (
    f"{part}.{field}: this version of ramjax no longer has that setting, which is"
    f" {value!r}"
  )


@pytest.mark.parametrize("part", ["train", "model", None])
def test_a_field_of_a_newer_release_is_named(part):
  values = Config().to_dict()
  (values[part] if part else values)["foo"] = 1
  where = f"{part}.foo" if part else "foo"
  with pytest.raises(
    ConfigError, match=f"^written by a newer version of ramjax: field {where}$"
  ):
    Config.from_dict(values)


@pytest.mark.parametrize("change", ["a word", "no object", "no part"])
def test_a_damaged_dictionary_is_refused(change):
  values = Config().to_dict()
  if change == "a word":
    values["train"]["seed"] = "1"
  elif change == "no object":
    values["train"] = 3
  else:
    del values["train"]
  with pytest.raises(ConfigError, match=r"^seed must be|must be a JSON object"):
    Config.from_dict(values)


def test_fields_are_in_the_docstring():
  lines = inspect.getdoc(Later).splitlines()
  assert lines == [
    "A configuration after some releases.",
    "",
    "Attributes:",
    "  width: Units of a layer.",
    "  heads: Heads of attention.",
    "  kind (relu, tanh): Kind of a unit.",
  ]


def test_a_copy_differs_in_what_was_replaced_and_is_checked():
  copy = Config().replace(model={"num_classes": 2}, objective={"prior": (0.5, 0.5)})
  assert config_lib.differing_fields(copy, Config()) == {
    "model.num_classes": (2, 10),
    "objective.prior": ([0.5, 0.5], None),
  }
  with pytest.raises(ConfigError, match=r"^seed must be at least 0, not -1"):
    copy.replace(train={"seed": -1})


def test_differing_fields_are_named():
  ours = Config()
  theirs = dataclasses.replace(ours, train=TrainConfig(seed=1))
  assert config_lib.differing_fields(ours, theirs) == {"train.seed": (0, 1)}


@pytest.mark.parametrize(
  ("name", "uncertainty", "intrinsic"),
  [
    ("original", 0.0, 0.0),
    ("uncertainty", 32 * 1e-5, 0.0),
    ("intrinsic", 0.0, 32 * 0.1),
    ("both", 32 * 1e-5, 32 * 0.1),
  ],
)
def test_each_objective_has_its_terms(name, uncertainty, intrinsic):
  objective = ObjectiveConfig(name=name)
  assert objective.uncertainty_weight == uncertainty
  assert objective.intrinsic_weight == intrinsic


@pytest.mark.parametrize("given", [[1, 0.5], (1.0, 0.5), np.array([1, 0.5])])
def test_a_factor_of_each_glimpse_becomes_a_tuple(given):
  config = EvaluationConfig(location_noise=given)
  assert config.location_noise == (1.0, 0.5)
  assert hash(config) == hash(EvaluationConfig(location_noise=(1.0, 0.5)))


@pytest.mark.parametrize(
  "given", [-1, [1, -1], [], [[1]], [1, float("inf")], "x", None]
)
def test_factors_of_the_noise_are_finite_and_not_negative(given):
  with pytest.raises(ConfigError, match=r"^location_noise must be "):
    EvaluationConfig(location_noise=given)


def test_a_policy_without_noise_has_none_to_scale():
  assert EvaluationConfig(location_policy="mean", location_noise=1).location_noise == 1
  with pytest.raises(ConfigError, match="location_noise has no effect"):
    EvaluationConfig(location_policy="mean", location_noise=[1, 2])
