"""Groups of runs that differ in nothing but the seed: only these are pooled.

A number over several runs (a mean, a deviation, a band) is that of one group. Groups are
told apart in words, by the fields in which they differ.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ramjax.config import OBJECTIVES, Config, differing_fields

Results = Mapping[str, Any]

EVALUATION = (
  *("protocol", "num_samples", "location_policy", "location_noise"),
  *("checkpoint", "split", "evaluation_seed"),
)
"""What the head of a results file says of the evaluation of all of its runs."""

_NAMES = {name: s.flag or name.split(".")[1] for name, s in Config.settings().items()}
_TRAINED_ON = ("dataset", "canvas_size", "num_clutter", "data_sha256")


class Group(NamedTuple):
  """Runs that differ in nothing but the seed.

  Attributes:
    label: tells the group from all others: objective, dataset and settings.
    dataset: its dataset; two of one name are told apart.
    objective: its objective.
    settings: the other fields in which groups on this dataset differ, with its values;
      empty if there are none.
    runs: its runs, as they stand in results.
  """

  label: str
  dataset: str
  objective: str
  settings: str
  runs: list[Results]

  @property
  def labelled(self) -> str:
    """The label, and how many runs are pooled."""
    return f"{self.label} (n = {len(self.runs)})"


class _Identity(NamedTuple):
  """What two runs of one group have in common."""

  config: Config
  evaluation: tuple[tuple[str, Any], ...]
  copy: int  # how many runs of the same seed come before

  @property
  def data(self) -> tuple[Any, ...]:
    """What fixes the images of the run."""
    judged_on = dict(self.evaluation).get("judged_on")
    return (*(getattr(self.config.train, name) for name in _TRAINED_ON), judged_on)


def group_runs(runs: Sequence[Results]) -> list[Group]:
  """Runs in groups that differ in nothing but the seed.

  Two runs are of one group if their configurations are equal but for the seed and what
  cannot change a result (the path of data with an equal checksum, the parts of a batch),
  and if they were evaluated alike. A seed counts once: a second run of it begins another
  group.

  Args:
    runs: entries of results files: `config`, `seed`, `dataset` (if it is missing, the
      configuration's) and, where files were put together, the fields of `EVALUATION`.

  Returns:
    The groups: datasets in the order of `runs`, the objectives of each in the order of
    the paper, then the order of `runs`.

  Raises:
    ConfigError: if this version of ramjax cannot read a configuration.
  """
  members: dict[_Identity, list[Results]] = {}
  for run in runs:
    members.setdefault(_identity(run, members), []).append(run)
  datasets = _dataset_names(members)
  order = list(datasets)
  identities = sorted(
    members,
    key=lambda each: (
      order.index(each.data),
      OBJECTIVES.index(each.config.objective.name),
    ),
  )
  groups = []
  for each in identities:
    name, objective = datasets[each.data], each.config.objective.name
    alike = [other for other in identities if other.data == each.data]
    settings = ", ".join(_settings(each, alike, members[each]))
    words = [objective, *([name] if len(datasets) > 1 else []), settings]
    label = ", ".join(filter(None, words))
    groups.append(Group(label, name, objective, settings, members[each]))
  return groups


def with_groups(runs: Sequence[Results]) -> list[dict[str, Any]]:
  """Entries of a results file, each with the label of its `group`."""
  labels = {id(run): group.label for group in group_runs(runs) for run in group.runs}
  return [{**run, "group": labels[id(run)]} for run in runs]


def _identity(run: Results, found: Mapping[_Identity, Sequence[Results]]) -> _Identity:
  """The group of a run, of which `found` holds the runs before it."""
  config = Config.from_dict(run["config"])
  train: dict[str, Any] = {"seed": 0, "accumulation_steps": 1}
  if config.train.data_sha256 is not None:  # then the path does not matter
    train["dataset"] = "data"
  common = config.replace(train=train)
  how = {
    name: tuple(run[name]) if isinstance(run[name], list) else run[name]
    for name in EVALUATION
    if name in run
  }
  if how.get("location_noise") == 1.0:  # as in results of before it could be scaled
    del how["location_noise"]
  judged_on = run.get("judged_on", {"own_data": True})
  if not judged_on["own_data"]:
    how["judged_on"] = judged_on["data_sha256"] or judged_on["dataset"]
  if run.get("step") is not None:
    how["step"] = run["step"]
  evaluation = tuple(how.items())
  copy = 0
  while run["seed"] in {
    other["seed"] for other in found.get(_Identity(common, evaluation, copy), ())
  }:
    copy += 1
  return _Identity(common, evaluation, copy)


def _dataset_names(members: Mapping[_Identity, list[Results]]) -> dict[Any, str]:
  """A name for the data of each group, in their order; no two are equal."""
  first: dict[Any, Results] = {}
  for identity, runs in members.items():
    first.setdefault(identity.data, runs[0])
  names = {
    data: run.get("dataset", run["config"]["train"]["dataset"])
    for data, run in first.items()
  }
  for name in set(names.values()):
    alike = [data for data in names if names[data] == name]
    if len(alike) > 1:
      paths = _apart([first[data]["config"]["train"]["dataset"] for data in alike])
      for data, path in zip(alike, paths, strict=True):
        names[data] = f"{name} ({path or _data_words(data, alike)})"
  return names


def _data_words(data: tuple[Any, ...], alike: Sequence[tuple[Any, ...]]) -> str:
  """The fields in which data of one path differ from others."""
  words = []
  for number, field in enumerate((*_TRAINED_ON, "judged_on")):
    if len({each[number] for each in alike}) > 1:
      value = str(data[number])
      is_sum = len(value) == 64
      words.append(f"{field.replace('_', ' ')} {value[:8] if is_sum else value}")
  return ", ".join(words)


def _apart(paths: Sequence[str]) -> list[str]:
  """The ends of paths that tell them apart; empty words if some are equal."""
  parts = [pathlib.PurePath(path).parts for path in paths]
  for number in range(1, max(map(len, parts)) + 1):
    ends = ["/".join(each[-number:]) for each in parts]
    if len(set(ends)) == len(ends):
      return ends
  return [""] * len(paths)


def _settings(
  identity: _Identity, alike: Sequence[_Identity], runs: Sequence[Results]
) -> list[str]:
  """The fields in which a group differs from others on its dataset, in words."""
  others = [differing_fields(each.config, identity.config) for each in alike]
  differing = {name for other in others for name in other} - {"objective.name"}
  values = identity.config.to_dict()
  words = [
    f"{short} {_value(values[name.split('.')[0]][name.split('.')[1]])}"
    for name, short in _NAMES.items()
    if name in differing
  ]
  ours = dict(identity.evaluation)
  for name in (name for name in EVALUATION if name in ours):
    if len({dict(each.evaluation).get(name) for each in alike}) > 1:
      words.append(f"{name} {_value(ours[name])}")
  same = [dict(each.evaluation) for each in alike if each.config == identity.config]
  if len({other.get("step") for other in same}) > 1:  # some have not ended
    words.append(f"step {ours.get('step')}")
  if identity.copy:
    seeds = ", ".join(str(run["seed"]) for run in runs)
    words.append(f"copy {identity.copy + 1} of seed {seeds}")
  return words


def _value(value: Any) -> str:
  """A value of a configuration as a word."""
  if isinstance(value, list | tuple):
    return f"({' '.join(f'{number:.3g}' for number in value)})"
  return "none" if value is None else str(value)
