"""Studies: what the variants are, that each is trained once, and whole small ones."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import forked
import numpy as np
import pytest
import synthetic

from experiments import departures, same_glimpses, stability
from experiments.cli import devices
from experiments.cli.errors import UsageError
from experiments.runs import trainer
from experiments.runs import workdir as workdir_lib
from experiments.runs.program import common_part
from experiments.studies import study
from ramjax import parallel
from ramjax.config import (
  Config,
  ModelConfig,
  ObjectiveConfig,
  TrainConfig,
  differing_fields,
)

ROOT = pathlib.Path(__file__).parent.parent
CONFIG = Config(
  model=ModelConfig(hidden_size=16, branch_size=8, patch_size=4),
  train=TrainConfig(batch_size=16, num_glimpses=2, num_epochs=1, learning_rate=0.03),
)


def test_variants_that_are_trained_alike_are_trained_once(tmp_path, monkeypatch):
  dataset = synthetic.make(32, 20, 20)
  trained, train = [], trainer.train

  def counted(configs, *arguments, **options):
    trained.append(list(configs))
    return train(configs, *arguments, **options)

  monkeypatch.setattr(trainer, "train", counted)
  monkeypatch.setattr(
    devices, "mesh_for_runs", lambda _: parallel.make_mesh(num_devices=1)
  )
  first = study.Variant(
    name="a", folder="a", config=CONFIG, glimpses=(1, 2), betas=(0.1,)
  )
  strong = dataclasses.replace(CONFIG.objective, lambda_intrinsic=0.5)
  variants = [
    first,
    dataclasses.replace(first, name="mean", location_policy="mean", betas=()),
    dataclasses.replace(
      first,
      name="strong",
      folder="strong",
      config=dataclasses.replace(CONFIG, objective=strong),
    ),
  ]
  members = study.train(
    variants, [3, 4], dataset, tmp_path, steps_per_call=2, max_skipped_steps=100
  )
  found = study.score(variants, members, dataset)
  [configs] = trained  # one program
  assert [(c.train.seed, c.objective.lambda_intrinsic) for c in configs] == [
    (3, 0.1),
    (4, 0.1),
    (3, 0.5),
    (4, 0.5),
  ]
  assert {path.name for path in tmp_path.iterdir()} == {
    *("a_seed3", "a_seed4", "strong_seed3", "strong_seed4")
  }
  assert [variant["name"] for variant in found] == ["a", "mean", "strong"]
  assert [variant["settings"] for variant in found] == [
    {},
    {},
    {"objective.lambda_intrinsic": 0.5},
  ]
  for variant in found:
    assert [one["seed"] for one in variant["runs"]] == [3, 4]
    assert [p["num_glimpses"] for p in variant["runs"][0]["fixed"]] == [1, 2]
  assert found[0]["runs"][0]["train_accuracy"] == found[1]["runs"][0]["train_accuracy"]
  assert [len(variant["runs"][0]["dynamic"]) for variant in found] == [1, 0, 1]
  last = found[2]["runs"][1]["workdir"]
  assert workdir_lib.read_config(workdir_lib.Workdir(pathlib.Path(last))) == configs[3]


def test_a_train_curve_leaves_skipped_steps_out(tmp_path):
  lines = [
    {"step": 2, "epoch": 1, "accuracy": 0.5, "skipped_steps": 0},
    {"step": 4, "epoch": 1, "accuracy": 0.75, "skipped_steps": 1},
    {"step": 6, "epoch": 2, "accuracy": None, "skipped_steps": 2},
    {"step": 8, "epoch": 2, "accuracy": 1.0, "skipped_steps": 0},
  ]
  workdir = workdir_lib.Workdir(tmp_path)
  workdir.metrics.write_text(
    "".join(json.dumps({**line, "split": "train"}) + "\n" for line in lines)
  )
  found = study.read_train_curve(workdir)
  assert found.step.tolist() == [2, 4, 6, 8]
  np.testing.assert_allclose(found.accuracy, [0.5, 0.75, np.nan, 1.0])
  np.testing.assert_allclose(found.running_mean, [0.5, 1.75 / 3, 1.75 / 3, 3.75 / 5])
  assert found.last_epoch == 1.0


def test_departures_differ_from_what_was_released_in_what_they_say():
  released, *others = departures.variants(Config())
  settings = {
    other.name: {
      name: ours
      for name, (ours, _) in differing_fields(other.config, released.config).items()
    }
    for other in others
  }
  assert settings == {
    "λ1 × 10": {"objective.lambda_uncertainty": pytest.approx(1e-4)},
    "λ1 × 100": {"objective.lambda_uncertainty": pytest.approx(1e-3)},
    "error gradient `state`": {"objective.error_gradient": "state"},
    "error gradient `state`, λ1 × 10": {
      "objective.error_gradient": "state",
      "objective.lambda_uncertainty": pytest.approx(1e-4),
    },
    "error gradient `state`, λ1 × 100": {
      "objective.error_gradient": "state",
      "objective.lambda_uncertainty": pytest.approx(1e-3),
    },
    "density of the raw sample": {"model.location_density": "raw"},
    "last location not credited": {"objective.credit_last_location": False},
    "intrinsic term at all glimpses": {"objective.intrinsic_steps": "all"},
    "intrinsic term at all glimpses, λ2 × 6": {
      "objective.intrinsic_steps": "all",
      "objective.lambda_intrinsic": pytest.approx(0.6),
    },
    "mean policy in the test": {},
    "M = 10 in the test": {},
  }
  assert len({common_part(v.config) for v in (released, *others)}) == 5


class Flags(dict):
  """Flags as absl has them, of which none is given."""

  def __init__(self, **values):
    super().__init__(values)
    self.__dict__.update(values)

  def __getitem__(self, name):
    return type("Flag", (), {"present": False})


def test_a_program_serves_every_lambda(monkeypatch):
  monkeypatch.setattr(stability.flags, "FLAGS", Flags(lambdas=["0", "0.1"]))
  first, second = stability.variants(Config())
  assert (first.name, second.name) == ("0", "0.1")
  assert common_part(first.config) == common_part(second.config)
  assert first.config.objective.intrinsic_weight == 0
  assert second.config.objective.intrinsic_weight == pytest.approx(3.2)


@pytest.mark.parametrize(
  ("lambdas", "name", "message"),
  [
    (["0", "x"], "both", "lambdas must be numbers"),
    (["0", "0.0"], "both", "lambdas must be different"),
    (["nan"], "both", "lambdas must be different finite numbers"),
    (["0"], "original", "objective must be intrinsic or both"),
  ],
)
def test_bad_lambdas(monkeypatch, lambdas, name, message):
  monkeypatch.setattr(stability.flags, "FLAGS", Flags(lambdas=lambdas))
  with pytest.raises(UsageError, match=message):
    stability.variants(Config(objective=ObjectiveConfig(name=name)))


def test_as_many_glimpses_in_the_test(monkeypatch):
  monkeypatch.setattr(same_glimpses.flags, "FLAGS", Flags(glimpses=["2", "8"]))
  variants = same_glimpses.variants(Config())
  assert [
    (v.config.train.num_glimpses, *v.glimpses, v.num_samples) for v in variants
  ] == [(2, 2, 1), (2, 2, 10), (8, 8, 1), (8, 8, 10)]
  monkeypatch.setattr(same_glimpses.flags, "FLAGS", Flags(glimpses=["two"]))
  with pytest.raises(UsageError, match="glimpses must be integers"):
    same_glimpses.variants(Config())


@pytest.mark.slow
@pytest.mark.parametrize(
  ("script", "argument", "message"),
  [
    ("stability", "--lambdas=0.1,-1", "lambda_intrinsic must be at least 0, not -1.0"),
    ("stability", "--lambda_intrinsic=0.1", "lambda_intrinsic must not be given"),
    ("stability", "--num_seeds=0", "num_seeds must be at least 1, not 0"),
    ("same_glimpses", "--num_glimpses=6", "num_glimpses must not be given"),
    ("same_glimpses", "--glimpses=0", "num_glimpses must be at least 1, not 0"),
    ("calibration", "--max_glimpses=6", "--workdir must name a trained run"),
    ("baselines", "--models=transformer", "models must be some of fully_connected"),
    ("error_rates", "--glimpses=6", "--workdir must name a trained run"),
    ("report", "--chek", "Unknown command line flag 'chek'"),
  ],
)
def test_a_bad_command_line_is_one_line(script, argument, message):
  ended = forked.run(script, argument)
  assert ended.returncode == 2, ended.stderr
  assert message in ended.stderr
  assert len(ended.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_whole_study(tmp_path):
  ended = subprocess.run(
    [
      sys.executable,
      "-m",
      "experiments.stability",
      "--num_seeds=2",
      "--lambdas=0,0.1",
      "--num_train_examples=320",
      "--hidden_size=16",
      "--num_glimpses=2",
      f"--workdir={tmp_path / 'study'}",
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert ended.returncode == 0, ended.stderr
  results = json.loads((tmp_path / "study" / "stability.json").read_text())
  assert results["seeds"] == [0, 1]
  assert [v["name"] for v in results["variants"]] == ["0", "0.1"]
  assert [p["num_glimpses"] for p in results["variants"][0]["runs"][0]["fixed"]] == [
    1,
    2,
    10,
    20,
    50,
  ]
  assert "| λ2 | train accuracy |" in ended.stdout
  member = tmp_path / "study" / "lambda_0.1_seed1"
  assert {"config.json", "metrics.jsonl", "checkpoints"} <= {
    path.name for path in member.iterdir()
  }
