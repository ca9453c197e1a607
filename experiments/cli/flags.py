"""The command line: the flags of the scripts, and the configurations they describe.

The flags of a training are generated from the fields of the configuration, see
`ramjax.fields`. To add a setting, add a field.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import flags

import ramjax
from experiments.cli import devices, help_text
from experiments.cli.errors import UsageError
from experiments.cli.recipes import RECIPES
from ramjax.config import (
  LOCATION_POLICIES,
  Config,
  ConfigError,
  EvaluationConfig,
  TrainConfig,
)

FLAGS = flags.FLAGS

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
  """Defines the flags of a training; see `define_setting_flags` for their defaults."""
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
  define_setting_flags(**defaults)
  flags.DEFINE_enum(
    "prior",
    "uniform",
    ["uniform", "train"],
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
  flags.DEFINE_float(
    "save_every_seconds",
    300.0,
    "Seconds after which a run is saved within an epoch, too. It is saved after an epoch"
    " unless that takes more than a twentieth of the time.",
  )
  help_text.RARE.update(("max_skipped_steps", "save_every_seconds"))
  devices.define_device_flags()


def define_setting_flags(*names: str, **defaults: Any) -> None:
  """Defines the flags of settings.

  Args:
    *names: the flags; all that settings have if none is named.
    **defaults: defaults of some of them that differ from the configuration's.
  """
  # Training first, network last.
  for flag in sorted(_FLAGS, key=lambda flag: _FLAGS[flag].split(".")[0], reverse=True):
    setting = _SETTINGS[_FLAGS[flag]]
    if names and flag not in names:
      continue
    default = defaults.pop(flag, setting.default)
    if setting.choices:
      flags.DEFINE_enum(flag, default, setting.choices, setting.help)
    else:
      if setting.kind is str and default is not None:
        default = str(default)  # of a number, where a word may stand, too
      _DEFINE[setting.kind](flag, default, setting.help)
    if setting.reach == "rare":
      help_text.RARE.add(flag)
  assert not defaults, f"these are no flags of settings: {', '.join(defaults)}"


def _set_help() -> str:
  """The help of `--set`, with a line for each of its fields."""
  lines = ["FIELD=VALUE, a setting for ablations; may be given several times. Fields:"]
  for name, setting in _ABLATIONS.items():
    choices = f" <{'|'.join(setting.choices)}>:" if setting.choices else ""
    default = str(setting.default).lower()
    lines.append(f"{name}:{choices} {setting.help} (default: {default})")
  return "\n".join(lines)


def follow_recipe() -> None:
  """Makes the values of `--recipe` the defaults of their flags; given flags win.

  Raises:
    UsageError: if the recipe is for other data than those that are asked for.
  """
  recipe = RECIPES[FLAGS.recipe]
  dataset = recipe.get("dataset", FLAGS.dataset)
  if FLAGS["dataset"].present and FLAGS.dataset != dataset:
    raise UsageError(
      f"recipe {FLAGS.recipe} is for --dataset={dataset}, not {FLAGS.dataset}; leave out"
      " --dataset, or take tuned or canvas"
    )
  for name, value in recipe.items():
    if name not in _ABLATIONS:
      FLAGS.set_default(name, str(value))  # as if given: some flags are words


def define_data_flag() -> None:
  """Defines the flag that says where the data are."""
  flags.DEFINE_string(
    "data_dir",
    None,
    "Folder with the four IDX files, with what TFDS has prepared, or with your own FILE"
    " or DIR; by default the usual places are searched.",
  )


def define_evaluation_flags() -> None:
  """Defines the flags that name trained runs, what they are judged on, and a seed."""
  flags.DEFINE_list("workdir", None, "Folders of trained runs (comma-separated).")
  help_text.REQUIRED.add("workdir")
  flags.DEFINE_string(
    "dataset",
    None,
    "Data that runs are judged on in place of their own, as named in a training. They are"
    " normalised as in the training of each run.",
  )
  define_data_flag()
  flags.DEFINE_enum(
    "split",
    "test",
    ["test", "validation", "all"],
    "Images that runs are judged on; to choose among runs, take validation. all is for"
    " data that they were not trained on.",
  )
  flags.DEFINE_integer("seed", 0, "Seed of first locations and policy.")
  flags.DEFINE_string(
    "output",
    None,
    "Folder of the results, or their .json file; by default the first --workdir.",
  )


def define_model_flags() -> None:
  """Defines the flags that name one trained model."""
  flags.DEFINE_string(
    "model", None, f"Model of the package: {', '.join(ramjax.pretrained_names())}."
  )
  flags.DEFINE_string(
    "workdir", None, "Folder of your own run, or a file with its model, in its place."
  )


def load_model() -> tuple[ramjax.Predictor, str]:
  """The model that the flags of `define_model_flags` name, and its name or folder.

  Raises:
    UsageError: if they name none or two.
    ConfigError: if there is no such model.
    RunError: if the folder holds no run.
    CheckpointError: if the run has no checkpoint, or it cannot be read.
  """
  if bool(FLAGS.model) == bool(FLAGS.workdir):
    raise UsageError(
      f"give --model ({', '.join(ramjax.pretrained_names())}) or --workdir=RUN"
      + ", not both" * bool(FLAGS.model)
    )
  if FLAGS.model:
    return ramjax.pretrained(FLAGS.model), FLAGS.model
  if "," in FLAGS.workdir and not pathlib.Path(FLAGS.workdir).exists():
    raise UsageError(f"workdir must name one run, not {FLAGS.workdir}")
  return ramjax.load(FLAGS.workdir), FLAGS.workdir


def define_figure_flag() -> None:
  """Defines the flag that says what files figures are."""
  flags.DEFINE_enum(
    "figure_format", "png", ["png", "svg", "both"], "Files that figures are."
  )
  help_text.RARE.add("figure_format")


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
  define_noise_flag()


def define_rule_flags(default: str) -> None:
  """Defines the flags that say when a model stops by itself.

  Args:
    default: what happens without them, as a sentence.
  """
  flags.DEFINE_float(
    "beta",
    None,
    "Exploration rate: the model stops by itself; a larger one takes more glimpses."
    f" {default}",
  )
  flags.DEFINE_float(
    "confidence",
    None,
    "Confidence, such as 0.95, at which the model stops by itself, in place of --beta.",
  )


def stopping_rule() -> dict[str, Any]:
  """When the model stops by itself, as `ramjax.Predictor` takes it; not checked."""
  return {"beta": FLAGS.beta, "confidence": FLAGS.confidence}


def define_noise_flag() -> None:
  """Defines the flag that says how much noise the policy has."""
  flags.DEFINE_list(
    "location_noise",
    "1",
    "Factor on the noise of the policy: 0.5 halves the deviation of the training. Or a"
    " factor for each glimpse (comma-separated); the last one serves all later glimpses.",
  )


def location_noise() -> float | Sequence[float]:
  """The factor on the noise, or those of each glimpse.

  Raises:
    ConfigError: if there is none, or one is out of range.
    UsageError: if a word is not a number.
  """
  found = numbers("location_noise", float)
  factors = found[0] if len(found) == 1 else found
  return EvaluationConfig(location_noise=factors).location_noise


def evaluation_config() -> EvaluationConfig:
  """How `--max_glimpses` and the flags of `define_rollout_flags` have runs evaluated.

  Raises:
    UsageError: if there are no glimpses, or a factor of the noise is no number.
    ConfigError: if there are no rollouts, or the noise is out of range.
  """
  check_at_least(1, "max_glimpses")
  return EvaluationConfig(
    num_glimpses=FLAGS.max_glimpses,
    num_samples=FLAGS.num_samples,
    location_policy=FLAGS.location_policy,
    location_noise=location_noise(),
  )


def config_from_flags() -> Config:
  """The configuration that the flags describe, but for what the data say.

  Shape of the images, number of classes, prior and sum of the data stay at their
  defaults until `experiments.runs.from_flags.load_run` has read the data.

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
  try:
    return _assigned(assignment, {name: name for name in _ABLATIONS}, "field of --set")
  except ConfigError as error:
    raise UsageError(
      f"--set={assignment}: {error}; the fields of --set are {', '.join(_ABLATIONS)}"
    ) from error


def changed(config: Config, flag: str, assignment: str) -> Config:
  """A configuration with one other setting, as `--<flag>=SETTING=VALUE` says.

  Raises:
    UsageError: if the setting is unknown, or the value is out of range.
  """
  settings = [*_FLAGS.values(), *_ABLATIONS]
  known = {**{name: name for name in settings}, **_FLAGS}
  try:
    name, value = _assigned(assignment, known, "setting of a training")
    part, field = name.split(".")
    value = None if value == _SETTINGS[name].none else value
    return config.replace(**{part: {field: value}})
  except ConfigError as error:
    raise UsageError(f"--{flag}={assignment}: {error}") from error


def _assigned(assignment: str, known: Mapping[str, str], what: str) -> tuple[str, Any]:
  """Name and value of the setting in an assignment.

  Args:
    assignment: WORD=VALUE.
    known: from the words to the names of settings.
    what: what a word is.

  Raises:
    ConfigError: if the word is unknown, or the value is out of range.
  """
  word, _, text = assignment.partition("=")
  if word not in known:
    raise ConfigError(f"{word!r} is no {what}")
  setting = _SETTINGS[known[word]]
  value = _value(setting.kind, text)
  return known[word], value if value == setting.none else setting.check(word, value)


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
  check_at_least(1, "num_seeds")
  found = range(FLAGS.seed, FLAGS.seed + FLAGS.num_seeds)
  for seed in (found[0], found[-1]):
    TrainConfig(seed=seed)
  return list(found)


def check_seed() -> None:
  """Raises a `ConfigError` if `--seed` is out of range."""
  TrainConfig(seed=FLAGS.seed)


def numbers(name: str, kind: type[int] | type[float]) -> list[Any]:
  """The numbers in a flag that is a list.

  Raises:
    UsageError: if one of the words is no number.
  """
  try:
    return [kind(word) for word in getattr(FLAGS, name)]
  except ValueError as error:
    what = "integers" if kind is int else "numbers"
    raise UsageError(f"{name} must be {what} separated by commas: {error}") from error


def distinct(
  name: str, kind: type[int] | type[float], *, least: float | None = None
) -> list[Any]:
  """The numbers in a flag that is a list: different, finite, one or more.

  Raises:
    UsageError: if they are not, or one is less than `least`.
  """
  found = numbers(name, kind)
  low = -math.inf if least is None else least
  sound = all(math.isfinite(number) and number >= low for number in found)
  if not found or len(set(found)) < len(found) or not sound:
    what = "integers" if kind is int else "finite numbers"
    bound = "" if least is None else f" of at least {least}"
    given = ",".join(getattr(FLAGS, name))
    raise UsageError(f"{name} must be different {what}{bound}, not {given!r}")
  return found


def check_at_least(least: int, *names: str) -> None:
  """Raises a `UsageError` if one of these flags is less than `least`."""
  for name in names:
    value = getattr(FLAGS, name)
    if not value >= least:  # nor not a number
      raise UsageError(f"{name} must be at least {least}, not {value}")
