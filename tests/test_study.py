"""Studies: what the variants are, that each is trained once, and whole small ones."""

import contextlib
import dataclasses
import json
import pathlib

import forked
import numpy as np
import pytest
import synthetic
from absl.testing import flagsaver

from experiments import ablation, departures, same_glimpses, stability
from experiments.cli import devices, flags
from experiments.cli.errors import UsageError
from experiments.runs import trainer
from experiments.runs import workdir as workdir_lib
from experiments.runs.program import common_part
from experiments.studies import study
from ramjax import parallel, run_folder
from ramjax.config import Config, ModelConfig, TrainConfig

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
  monkeypatch.setattr(devices, "share", lambda runs: runs)
  monkeypatch.setattr(devices, "check_divide", lambda _: None)
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
  schedule = trainer.Schedule(steps_per_call=2)
  members = study.train(variants, [3, 4], dataset, tmp_path, schedule)
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
  assert run_folder.read_config(pathlib.Path(last)) == configs[3]


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


def test_each_departure_differs_from_all_others():
  variants = departures.variants(Config())
  trained_or_tested = {
    (variant.config, variant.location_policy, variant.num_samples)
    for variant in variants
  }
  assert len(trained_or_tested) == len(variants)
  assert len({variant.name for variant in variants}) == len(variants)


def test_combinations_of_an_ablation_have_as_many_rollouts():
  """In a step and in all, and as many steps but for what is left over of an epoch."""
  train = TrainConfig(num_epochs=16, batch_size=256, warmup_epochs=2.0)
  config = Config(train=train)
  with flags_of(ablation):
    variants = ablation.variants(config)
    with pytest.raises(UsageError, match="num_epochs must be a multiple of 8"):
      ablation.variants(config.replace(train={"num_epochs": 12}))
  assert len({variant.config for variant in variants}) == len(variants) == 12
  assert len({variant.folder for variant in variants}) == 12
  for each in (variant.config.train for variant in variants):
    assert each.batch_size * each.rollouts_per_image == 256
    assert each.num_epochs * each.rollouts_per_image == 16
    assert each.warmup_epochs * each.rollouts_per_image == 2.0
  assert len({common_part(variant.config) for variant in variants}) == 6
  with flags_of(ablation, "--cores=rnn", "--rollouts=2,4"):
    variants = ablation.variants(config)
  assert [variant.name for variant in variants[::2]] == [
    "RNN, S = 2, c = 0, network",
    "RNN, S = 2, c = 0, leave one out",
    "RNN, S = 4, c = 0, network",
    "RNN, S = 4, c = 0, leave one out",
  ]


def test_a_change_is_compared_with_as_many_rollouts():
  config = Config().replace(
    train={"num_epochs": 6, "rollouts_per_image": 4, "warmup_epochs": 1.0}
  )
  changes = ["rollouts_per_image=2", "optimizer=muon", "objective=original"]
  changes += ["location_gradient=1/N", "model.location_density=raw"]
  with flags_of(ablation, *(f"--change={change}" for change in changes)):
    first, *others = ablation.variants(config)
  assert (first.name, first.config) == ("as it is", config)
  assert [variant.name for variant in others] == changes
  assert len({variant.folder for variant in (first, *others)}) == 6
  fewer, *rest = (variant.config for variant in others)
  assert fewer == config.replace(
    train={
      "rollouts_per_image": 2,
      "batch_size": 64,
      "num_epochs": 12,
      "warmup_epochs": 2.0,
    }
  )
  assert rest == [
    config.replace(train={"optimizer": "muon"}),
    config.replace(objective={"name": "original"}),
    config.replace(objective={"location_gradient": 1 / 6}),
    config.replace(model={"location_density": "raw"}),
  ]


@contextlib.contextmanager
def flags_of(script, *arguments):
  """The flags of a script, given on a command line."""
  with flagsaver.flagsaver():  # which also forgets flags that are defined within it
    script.define_flags()
    flags.FLAGS([script.__name__, *arguments])
    yield


def test_one_program_trains_every_lambda():
  with flags_of(stability, "--lambdas=0,0.1"):
    first, second = stability.variants(Config())
  assert (first.name, second.name) == ("0", "0.1")
  assert common_part(first.config) == common_part(second.config)
  assert first.config.objective.lambda_intrinsic == 0
  assert second.config.objective.lambda_intrinsic == 0.1


def test_the_test_has_as_many_glimpses_as_the_training():
  with flags_of(same_glimpses, "--glimpses=2,8"):
    variants = same_glimpses.variants(Config())
  assert [
    (v.config.train.num_glimpses, *v.glimpses, v.num_samples) for v in variants
  ] == [(2, 2, 1), (2, 2, 10), (8, 8, 1), (8, 8, 10)]


@pytest.mark.slow
def test_a_whole_study_of_two_processes(npz_file, tmp_path):
  """Each trains two of four runs, one on each of its devices; then all are judged."""
  study = (
    "stability",
    f"--dataset=npz:{npz_file}",
    "--num_seeds=2",
    "--lambdas=0,0.1",
    "--hidden_size=16",
    "--num_glimpses=2",
    f"--workdir={tmp_path / 'study'}",
  )
  folders = []
  for number in range(2):
    process = ("--num_processes=2", f"--process_id={number}", "--num_devices=2")
    ended = forked.run(*study, *process)
    assert ended.returncode == 0, ended.stderr
    assert "without\n--num_processes" in ended.stdout
    assert "| λ2 |" not in ended.stdout
    folders.append({path.name for path in (tmp_path / "study").iterdir()})
  of_seed_0 = {"lambda_0_seed0", "lambda_0.1_seed0"}
  assert folders == [of_seed_0, of_seed_0 | {"lambda_0_seed1", "lambda_0.1_seed1"}]
  ended = forked.run(*study)
  assert ended.returncode == 0, ended.stderr
  assert "epoch 1/1" not in ended.stdout  # nothing is trained again
  results = json.loads((tmp_path / "study" / "stability.json").read_text())
  assert results["seeds"] == [0, 1]
  assert results["config"]["model"]["hidden_size"] == 16
  assert [v["name"] for v in results["variants"]] == ["0", "0.1"]
  assert [p["num_glimpses"] for p in results["variants"][0]["runs"][0]["fixed"]] == [
    *(1, 2, 10, 20, 50)
  ]
  assert "| λ2 | n | train accuracy |" in ended.stdout
  member = tmp_path / "study" / "lambda_0.1_seed1"
  assert {"config.json", "metrics.jsonl", "checkpoints"} <= {
    path.name for path in member.iterdir()
  }
