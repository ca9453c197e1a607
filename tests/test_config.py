"""A configuration that exists is valid, and survives JSON."""

import dataclasses
import json

import pytest

from ramjax import config as config_lib
from ramjax.config import Config, ConfigError, ModelConfig, ObjectiveConfig, TrainConfig


def test_defaults_are_the_papers_setting():
  config = Config()
  assert config.train.num_glimpses == 6
  assert config.train.batch_size == 32
  assert config.train.learning_rate == 3e-4
  assert config.train.learning_rate_decay == 0.95
  assert config.model.patch_size == 8
  assert config.model.location_std == 0.10
  assert config.objective.lambda_uncertainty == 1e-5
  assert config.objective.lambda_intrinsic == 0.1
  assert config.objective.regularizer_scale == 32
  assert config.objective.error_gradient == "all"
  assert config.objective.credit_last_location is True
  assert config.objective.intrinsic_steps == "last"
  assert config.model.location_density == "clipped"
  assert config.objective.reinforce_weight == 1
  assert config.train.optimizer == "adam"
  assert config.train.learning_rate_schedule == "exponential"
  assert config.train.warmup_epochs == 0
  assert config.train.max_gradient_norm is None
  assert config.train.weight_decay == 0
  assert config.train.average_decay == 0
  assert config.train.max_shift == 0
  assert config.model.core == "rnn"
  assert config.model.first_location == "random"


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
    (TrainConfig, "weight_decay", -1e-4),
    (TrainConfig, "average_decay", 1.0),
    (TrainConfig, "average_decay", -0.1),
    (TrainConfig, "max_shift", -1),
    (TrainConfig, "max_shift", 1.5),
    (ObjectiveConfig, "reinforce_weight", -1.0),
    (TrainConfig, "seed", -1),
    (TrainConfig, "dataset", ""),
    (TrainConfig, "canvas_size", 0),
    (TrainConfig, "num_clutter", -1),
    (TrainConfig, "data_sha256", ""),
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


def test_an_image_is_not_moved_out_of_sight():
  model = ModelConfig(image_shape=(40, 5, 1))
  assert Config(model=model, train=TrainConfig(max_shift=4)).train.max_shift == 4
  with pytest.raises(ConfigError, match=r"^max_shift must be less than 5, the shorter"):
    Config(model=model, train=TrainConfig(max_shift=5))


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


@pytest.mark.parametrize("change", ["missing", "unknown", "wrong", "no object"])
def test_a_damaged_dictionary_is_refused(change):
  values = Config().to_dict()
  if change == "missing":
    del values["train"]["seed"]
  elif change == "unknown":
    values["train"]["sede"] = 1
  elif change == "wrong":
    values["train"]["seed"] = "1"
  else:
    values["train"] = 3
  with pytest.raises(ConfigError, match=r"seed|sede|TrainConfig"):
    Config.from_dict(values)


@pytest.mark.parametrize(
  ("part", "field"),
  [
    ("model", "core"),
    ("model", "first_location"),
    ("model", "location_density"),
    ("objective", "credit_last_location"),
    ("objective", "intrinsic_steps"),
    ("objective", "reinforce_weight"),
    ("train", "optimizer"),
    ("train", "learning_rate_schedule"),
    ("train", "average_decay"),
  ],
)
def test_a_configuration_from_before_a_field_was_there_is_refused(part, field):
  """What the run was trained with is not guessed."""
  values = Config().to_dict()
  del values[part][field]
  with pytest.raises(ConfigError, match=rf"^\w+Config has no field {field}$"):
    Config.from_dict(values)


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
