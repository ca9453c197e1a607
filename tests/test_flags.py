"""The command line of a training: every setting is reached, and what is given wins."""

import numpy as np
import pytest
from absl.testing import flagsaver

from experiments.cli import flags, recipes
from experiments.cli.errors import UsageError
from experiments.runs import from_flags
from ramjax import data
from ramjax.config import Config, ConfigError, ModelConfig

SETTINGS = Config.settings()
OTHER_VALUES = {
  "model.patch_size": 2,
  "model.num_scales": 4,
  "model.scale_factor": 3,
  "model.branch_size": 6,
  "model.hidden_size": 9,
  "model.core": "lstm",
  "model.first_location": "centre",
  "model.location_std": 0.2,
  "model.location_density": "raw",
  "model.fill_value": -0.5,
  "model.factory": "own_models:make",
  "model.compute_dtype": "bfloat16",
  "objective.name": "uncertainty",
  "objective.lambda_uncertainty": 0.5,
  "objective.lambda_intrinsic": 0.25,
  "objective.regularizer_scale": 2.0,
  "objective.error_gradient": "state",
  "objective.credit_last_location": False,
  "objective.intrinsic_steps": "all",
  "objective.location_gradient": 0.25,
  "objective.baseline": "leave_one_out",
  "objective.credit_decay": 0.5,
  "objective.reward_temperature": 0.5,
  "train.rollouts_per_image": 2,
  "train.dataset": "kmnist",
  "train.canvas_size": 60,
  "train.num_clutter": 2,
  "train.resize": "12x34",
  "train.transparent_as": "black",
  "train.background": "255,250,5",
  "train.num_train_examples": 34,
  "train.num_epochs": 0,
  "train.batch_size": 16,
  "train.accumulation_steps": 2,
  "train.num_glimpses": 7,
  "train.optimizer": "muon",
  "train.learning_rate": 0.002,
  "train.learning_rate_schedule": "cosine",
  "train.learning_rate_decay": 0.9,
  "train.warmup_epochs": 0.75,
  "train.initial_location_noise": 2.5,
  "train.max_shift": 3,
  "train.mirror": True,
  "train.max_gradient_norm": 3.0,
  "train.seed": 11,
}


@pytest.fixture(autouse=True, scope="module")
def defined():
  """The flags of a training, which the other modules know nothing of."""
  before = set(flags.FLAGS)
  flags.define_train_flags(num_seeds=2)
  yield
  for name in set(flags.FLAGS) - before:
    delattr(flags.FLAGS, name)


@pytest.fixture(autouse=True)
def restored():
  with flagsaver.flagsaver():
    yield


def config_of(*arguments):
  flags.FLAGS(["train", *arguments])
  flags.follow_recipe()
  return flags.config_from_flags()


def values_of(config):
  return {
    f"{part}.{name}": value
    for part, values in config.to_dict().items()
    for name, value in values.items()
  }


def test_without_flags_it_is_the_default():
  assert config_of() == Config()


def test_every_setting_is_reached():
  from_data = {name for name, setting in SETTINGS.items() if setting.reach == "data"}
  assert set(OTHER_VALUES) == set(SETTINGS) - from_data
  arguments = []
  for name, value in OTHER_VALUES.items():
    setting = SETTINGS[name]
    assert value != setting.default
    flag = (
      "set=" + name if setting.reach == "set" else setting.flag or name.split(".")[1]
    )
    arguments.append(f"--{flag}={value}")
  found = values_of(config_of(*arguments))
  assert {name: found[name] for name in OTHER_VALUES} == OTHER_VALUES
  assert all(found[name] == values_of(Config())[name] for name in from_data)


def test_words_for_the_background():
  for word, value in (("border", "border"), ("minimum", None), ("7", "7")):
    assert config_of(f"--background={word}").train.background == value


def test_what_the_data_say_is_recorded(tmp_path):
  """A run goes on with the colour that its images had at the start."""
  images = np.full((40, 10, 10), 200, np.uint8)
  images[:, 4:6, 4:6] = np.arange(40)[:, None, None]
  np.savez(tmp_path / "mine.npz", images=images, labels=np.arange(40) % 2)
  given = [f"--dataset=npz:{tmp_path / 'mine.npz'}", "--batch_size=8"]
  config_of(*given)
  assert from_flags.load_run()[0].train.background is None
  config_of(*given, "--background=3")
  with pytest.raises(ConfigError, match="background must not be given without canvas"):
    from_flags.load_run()
  config_of(*given, "--background=border", "--canvas_size=20")
  config, dataset = from_flags.load_run()
  assert config.train.background == dataset.background == "200"
  assert config.train.division == "by class"
  assert data.dataset_of(config).background == "200"


@pytest.mark.parametrize(
  ("size", "model", "advice"),
  [
    ((28, 28), {}, None),
    ((32, 32), {}, None),
    ((60, 60), {"patch_size": 12, "num_scales": 3}, None),
    ((60, 60), {}, "--patch_size=12 --num_scales=3"),
    ((100, 100), {}, "--patch_size=12 --num_scales=4"),
    ((224, 224), {}, "--patch_size=16 --num_scales=4"),
    (
      (480, 640),
      {"scale_factor": 1},
      "--patch_size=16 --num_scales=6 --scale_factor=2",
    ),
    ((4, 640), {"patch_size": 4}, "--patch_size=4 --num_scales=8"),
  ],
)
def test_larger_glimpses_are_proposed_for_large_images(size, model, advice):
  """The proposal sees half of the longer side, and is content with itself."""
  found = from_flags.glimpse_advice(ModelConfig(**model), size)
  if advice is None:
    assert found is None
    return
  assert found.endswith(f"give {advice}")
  proposed = dict(word[2:].split("=") for word in advice.split())
  numbers = {name: int(value) for name, value in proposed.items()}
  larger = ModelConfig(**{**model, **numbers})
  widest = larger.patch_size * larger.scale_factor ** (larger.num_scales - 1)
  assert widest >= max(size) / 2
  assert from_flags.glimpse_advice(larger, size) is None


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_a_recipe_is_its_settings_and_no_others(name):
  recipe = recipes.RECIPES[name]
  found = values_of(config_of(f"--recipe={name}"))
  named = {
    (setting.flag or path.split(".")[1]): path for path, setting in SETTINGS.items()
  }
  named |= {path: path for path in SETTINGS}
  expected = {named[key]: value for key, value in recipe.items()}
  if recipe.get("location_gradient") == "1/N":  # resolved where N is known
    expected["objective.location_gradient"] = 1 / found["train.num_glimpses"]
  assert found == values_of(Config()) | expected


def test_what_is_given_wins_over_a_recipe(monkeypatch):
  """Also where it is the default, or reached by --set alone."""
  recipe = {"batch_size": 64, "max_gradient_norm": 5.0, "model.branch_size": 8}
  recipe["credit_decay"] = 0.7
  recipe |= {"objective.credit_last_location": False, "learning_rate": 1e-3}
  monkeypatch.setattr(flags, "RECIPES", {"tuned": recipe})
  found = values_of(
    config_of(
      "--recipe=tuned",
      "--max_gradient_norm=0",
      "--credit_decay=none",
      "--learning_rate=3e-4",
      "--set=model.branch_size=9",
      "--set=model.branch_size=128",
    )
  )
  changed = {"train.batch_size": 64, "objective.credit_last_location": False}
  assert found == values_of(Config()) | changed


@pytest.mark.parametrize(
  ("assignment", "message"),
  [
    ("model.core=lstm", "'model.core' is no field of --set"),
    ("branch_size=3", "'branch_size' is no field of --set"),
    ("model.branch_size", "model.branch_size must be an integer, not ''"),
    ("model.branch_size=0", "model.branch_size must be at least 1, not 0"),
    ("model.fill_value=nan", "model.fill_value must be a finite number, not nan"),
    ("objective.error_gradient=some", "must be one of all, state, not 'some'"),
    ("objective.credit_last_location=1", "must be True or False, not '1'"),
  ],
)
def test_a_bad_assignment_names_the_fields_of_set(assignment, message):
  with pytest.raises(UsageError) as caught:
    config_of(f"--set={assignment}")
  assert str(caught.value).startswith(f"--set={assignment}: ")
  assert message in str(caught.value)
  assert "; the fields of --set are model.branch_size, " in str(caught.value)


def test_a_changed_setting_may_be_none():
  config = Config().replace(objective={"credit_decay": 0.7})
  found = flags.changed(config, "change", "credit_decay=none")
  assert found.objective.credit_decay is None
  with pytest.raises(
    UsageError, match=r"^--change=credit_decay=2: credit_decay must be"
  ):
    flags.changed(config, "change", "credit_decay=2")


def test_seeds_are_those_from_the_first_on():
  flags.FLAGS(["train", "--seed=5"])
  assert flags.seeds() == [5, 6]
  flags.FLAGS(["train", "--num_seeds=0"])
  with pytest.raises(UsageError, match=r"^num_seeds must be at least 1, not 0$"):
    flags.seeds()
  for first, what in ((-1, "least 0"), (2**32 - 1, "most 4294967295")):
    flags.FLAGS(["train", f"--seed={first}", "--num_seeds=2"])
    with pytest.raises(ConfigError, match=f"^seed must be at {what}"):
      flags.seeds()
