"""The command line: the flags of the scripts, and the configurations they describe.

The flags of a training are generated from the fields of the configuration, see
`ramjax.fields`. To add a setting, add a field.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from absl import flags

from experiments.cli import devices, help_text
from experiments.cli.errors import UsageError
from experiments.cli.recipes import RECIPES
from ramjax import data
from ramjax.config import LOCATION_POLICIES, Config, ConfigError, TrainConfig

FLAGS = flags.FLAGS

PRIORS = ("uniform", "train")

_SETTINGS = Config.settings()

_FLAGS = {
  setting.flag or name.partition(".")[2]: name
  for name, setting in _SETTINGS.items()
  if setting.reach in ("flag", "rare")
}
"""From the flag of a setting to its name: `{"objective": "objective.name"}`."""

_ABLATIONS = {name: s for name, s in _SETTINGS.items() if s.reach == "set"}
"""The settings that only `--set` and recipes reach."""

_DEFINE: Mapping[type, Callable[..., Any]] = {
  int: flags.DEFINE_integer,
  float: flags.DEFINE_float,
  bool: flags.DEFINE_boolean,
  str: flags.DEFINE_string,
}


def define_train_flags(*, num_seeds: int = 1, **defaults: Any) -> None:
  """Defines the flags of a training.

  Args:
    num_seeds: default of `--num_seeds`.
    **defaults: defaults of other flags, where they differ from the configuration's.
  """
  flags.DEFINE_enum(
    "recipe",
    "paper",
    list(RECIPES),
    "Named values of other settings (experiments/cli/recipes.py); given flags win.",
  )
  flags.DEFINE_string(
    "workdir",
    None,
    "Folder of the results; by default a folder in runs/. What is there is resumed.",
  )
  flags.DEFINE_integer(
    "num_seeds", num_seeds, "Seeds to train in one program, from --seed on."
  )
  define_data_flag()
  define_setting_flags()
  flags.DEFINE_enum(
    "prior",
    PRIORS[0],
    PRIORS,
    "Classes that the intrinsic term prefers: all alike (as in the paper), or each as"
    " often as it is in the training images.",
  )
  flags.DEFINE_multi_string("set", None, "")
  FLAGS["set"].help = _set_help()
  flags.DEFINE_integer("steps_per_call", 100, "Steps between two lines of metrics.")
  flags.DEFINE_integer(
    "max_skipped_steps",
    100,
    "Stop after so many steps in a row whose loss or gradient was not finite.",
  )
  help_text.RARE.add("max_skipped_steps")
  devices.define_device_flags()
  _set_defaults(defaults)


def define_setting_flags(*names: str, **defaults: Any) -> None:
  """Defines the flags of settings.

  Args:
    *names: the flags; all that settings have if none is named.
    **defaults: their defaults, where they differ from the configuration's.
  """
  # Training first, network last.
  for flag in sorted(_FLAGS, key=lambda flag: _FLAGS[flag].split(".")[0], reverse=True):
    setting = _SETTINGS[_FLAGS[flag]]
    if names and flag not in names:
      continue
    if setting.choices:
      flags.DEFINE_enum(flag, setting.default, setting.choices, setting.help)
    else:
      _DEFINE[setting.kind](flag, setting.default, setting.help)
    if setting.reach == "rare":
      help_text.RARE.add(flag)
  _set_defaults(defaults)


def _set_defaults(defaults: Mapping[str, Any]) -> None:
  """Gives flags other defaults; a flag that was given keeps its value."""
  for name, value in defaults.items():
    FLAGS.set_default(name, value)


def _set_help() -> str:
  """The help of `--set`, with a line for each of its fields."""
  lines = ["FIELD=VALUE, a setting for ablations; may be given several times. Fields:"]
  for name, setting in _ABLATIONS.items():
    choices = f" <{'|'.join(setting.choices)}>:" if setting.choices else ""
    default = str(setting.default).lower()
    lines.append(f"{name}:{choices} {setting.help} (default: {default})")
  return "\n".join(lines)


def follow_recipe() -> None:
  """Makes the values of `--recipe` the defaults of their flags."""
  recipe = RECIPES[FLAGS.recipe]
  _set_defaults({name: v for name, v in recipe.items() if name not in _ABLATIONS})


def define_data_flag() -> None:
  """Defines the flag that says where the data are."""
  flags.DEFINE_string(
    "data_dir",
    None,
    "Folder with the four IDX files, with what TFDS has prepared, or with your own FILE"
    " or DIR; by default the usual places are searched.",
  )


def define_evaluation_flags() -> None:
  """Defines the flags that name trained runs, their data, and the seed of a test."""
  flags.DEFINE_list("workdir", None, "Folders of trained runs (comma-separated).")
  help_text.REQUIRED.add("workdir")
  define_data_flag()
  flags.DEFINE_integer("seed", 0, "Seed of first locations and policy.")


def define_rollout_flags() -> None:
  """Defines the flags that say how a prediction is made."""
  flags.DEFINE_integer(
    "num_samples", 1, "Rollouts averaged for a prediction, M (Ba et al., 2014)."
  )
  flags.DEFINE_enum(
    "location_policy",
    LOCATION_POLICIES[0],
    LOCATION_POLICIES,
    "How the next location is chosen: drawn from the policy, or its mean.",
  )


def define_split_flag() -> None:
  """Defines the flag that says which images runs are tested on."""
  flags.DEFINE_enum(
    "split",
    "test",
    ["test", "validation"],
    "Images that runs are tested on; to choose among runs, take validation.",
  )


def config_from_flags() -> Config:
  """The configuration that the flags describe, but for what the data say.

  Shape of the images, number of classes, prior and sum of the data stay at their
  defaults until `load_run` has read the data.

  Raises:
    ConfigError: if a flag is out of range.
    UsageError: if `--set` names an unknown field, or gives it a bad value.
  """
  given = {name: getattr(FLAGS, flag) for flag, name in _FLAGS.items() if flag in FLAGS}
  if "recipe" in FLAGS:
    recipe = RECIPES[FLAGS.recipe]
    given |= {name: value for name, value in recipe.items() if name in _ABLATIONS}
    given |= dict(map(_parse_setting, FLAGS.set or ()))
  values = Config().to_dict()
  for name, value in given.items():
    part, field = name.split(".")
    values[part][field] = None if value == _SETTINGS[name].none else value
  return Config.from_dict(values)


def _parse_setting(assignment: str) -> tuple[str, Any]:
  """Name and value in an assignment such as `model.branch_size=64`.

  Raises:
    UsageError: if the name is unknown, or the value is out of range.
  """
  name, _, text = assignment.partition("=")
  try:
    if name not in _ABLATIONS:
      raise ConfigError(f"{name!r} is no field of --set")
    setting = _ABLATIONS[name]
    return name, setting.check(name, _value(setting.kind, text))
  except ConfigError as error:
    raise UsageError(
      f"--set={assignment}: {error}; the fields of --set are {', '.join(_ABLATIONS)}"
    ) from error


def _value(kind: type, text: str) -> Any:
  """The value that a text stands for, or else the text itself."""
  if kind is bool:
    return {"true": True, "false": False}.get(text.lower(), text)
  try:
    return kind(text)
  except ValueError:
    return text


def seeds() -> list[int]:
  """The seeds of the runs: `--num_seeds` of them, from `--seed` on.

  Raises:
    UsageError: if there is none.
    ConfigError: if one is out of range.
  """
  check_at_least_one("num_seeds")
  found = range(FLAGS.seed, FLAGS.seed + FLAGS.num_seeds)
  for seed in (found[0], found[-1]):
    TrainConfig(seed=seed)
  return list(found)


def check_seed() -> None:
  """Checks the range of `--seed`.

  Raises:
    ConfigError: if it is out of range.
  """
  TrainConfig(seed=FLAGS.seed)


def load_run() -> tuple[Config, data.Dataset]:
  """The configuration that the flags describe, and its dataset.

  Returns:
    The configuration, with shape, classes, prior and sum of the data, and the dataset.

  Raises:
    ConfigError: if a flag is out of range, or does not go with the data.
    UsageError: see `config_from_flags`.
    DataError: if the dataset cannot be found or is damaged.
  """
  config = config_from_flags()
  dataset = data.load_dataset(
    config.train.dataset,
    data_dir=FLAGS.data_dir,
    num_train_examples=config.train.num_train_examples,
    canvas_size=config.train.canvas_size,
    num_clutter=config.train.num_clutter,
  )
  side = min(dataset.image_shape[:2])
  if config.model.patch_size > side:
    raise ConfigError(
      f"patch_size must be at most {side}, the smaller side of the images of"
      f" {dataset.name}, not {config.model.patch_size}"
    )
  num_examples = len(dataset.train.labels)
  if config.train.batch_size > num_examples:
    raise ConfigError(
      f"batch_size must be at most the number of training examples, {num_examples},"
      f" not {config.train.batch_size}"
    )
  prior = dataset.class_frequencies if FLAGS.prior == "train" else None
  return Config(
    model=dataclasses.replace(
      config.model, image_shape=dataset.image_shape, num_classes=dataset.num_classes
    ),
    objective=dataclasses.replace(config.objective, prior=prior),
    train=dataclasses.replace(
      config.train, dataset=dataset.name, data_sha256=dataset.sha256
    ),
  ), dataset


def numbers(name: str, kind: type[int] | type[float]) -> list[Any]:
  """The numbers in a flag that is a list.

  Args:
    name: the flag.
    kind: what they are, `int` or `float`.

  Raises:
    UsageError: if one of them is none.
  """
  try:
    return [kind(word) for word in getattr(FLAGS, name)]
  except ValueError as error:
    what = "integers" if kind is int else "numbers"
    raise UsageError(f"{name} must be {what} separated by commas: {error}") from error


def check_at_least_one(*names: str) -> None:
  """Checks flags that are integers.

  Raises:
    UsageError: if one is less than 1.
  """
  for name in names:
    value = getattr(FLAGS, name)
    if value < 1:
      raise UsageError(f"{name} must be at least 1, not {value}")
