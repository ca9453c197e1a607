"""The scripts, end to end, on a slice of real MNIST; and every bad command line."""

import json
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys

import forked
import jax
import numpy as np
import pytest

import ramjax
from experiments.cli import errors
from experiments.runs import progress, trainer
from experiments.runs import skipped as skipped_lib
from experiments.runs import workdir as workdir_lib
from experiments.runs.program import run_keys
from experiments.runs.trained import restore_params
from ramjax import data
from ramjax.config import Config, ModelConfig, ObjectiveConfig, TrainConfig

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parent.parent
SMALL = (
  "--num_train_examples=1600",
  "--batch_size=32",
  "--num_glimpses=3",
  "--hidden_size=64",
  "--learning_rate=0.003",
  "--steps_per_call=30",
)
METRICS = {
  "step",
  "epoch",
  "split",
  "loss",
  "accuracy",
  "loss/classification",
  "loss/reinforce",
  "loss/baseline",
  "loss/error_fit",
  "loss/uncertainty",
  "loss/intrinsic",
}


def run(script, *arguments, cwd=ROOT, **environment):
  environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
  return subprocess.run(
    [sys.executable, "-m", f"experiments.{script}", *arguments],
    cwd=cwd,
    env=environment,
    capture_output=True,
    text=True,
    timeout=300,
  )


def train(workdir, *arguments, **options):
  return run("train", f"--workdir={workdir}", *SMALL, *arguments, **options)


def refuse(workdir, *arguments):
  """A training that ends before it computes anything."""
  return forked.run("train", f"--workdir={workdir}", *SMALL, *arguments)


def lines_of(workdir):
  return [json.loads(line) for line in (workdir / "metrics.jsonl").open()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """A run of two epochs."""
  workdir = tmp_path_factory.mktemp("runs") / "both"
  done = train(workdir, "--num_epochs=2")
  assert done.returncode == 0, done.stderr
  return workdir, done


def test_the_last_line_is_the_test_accuracy(trained):
  _, done = trained
  last = done.stdout.splitlines()[-1]
  assert re.fullmatch(r"test accuracy 0\.\d{4} \(N = 3, M = 1, 10000 images\)", last), (
    last
  )
  assert "Traceback" not in done.stderr
  assert "\x1b" not in done.stdout  # no bar where there is no terminal


def test_the_number_of_parameters_is_among_the_first_lines(trained):
  """64·128 + 128 + 2·128 + 128 + 2 (128·64 + 64) of the glimpse network, and so on."""
  _, done = trained
  glimpse, core = 8320 + 384 + 2 * (128 * 64 + 64), 2 * (64 * 64 + 64)
  heads = (64 + 1) * (2 + 1 + 10) + (74 + 1) * 10
  assert done.stdout.splitlines()[1] == f"{glimpse + core + heads:,} parameters"


def test_what_a_run_leaves(trained):
  workdir, _ = trained
  config = json.loads((workdir / "config.json").read_text())
  assert config["config"]["objective"]["name"] == "both"
  assert config["config"]["train"]["num_glimpses"] == 3
  assert {"command", "date", "versions", "git_commit", "device"} <= set(config)
  assert config["command"].startswith("python -m experiments.train --workdir=")
  assert {"python", "ramjax", "jax", "flax", "optax"} <= set(config["versions"])
  assert next(path.name for path in (workdir / "tensorboard").iterdir()).startswith(
    "events.out.tfevents"
  )
  for name in ("glimpses.png", "learning.png"):
    assert (workdir / "figures" / name).read_bytes().startswith(b"\x89PNG")
  steps = sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())
  assert steps == [50, 100]


def test_metrics_are_complete(trained):
  workdir, _ = trained
  lines = lines_of(workdir)
  assert [(line["split"], line["step"], line["epoch"]) for line in lines] == [
    ("train", 30, 1),
    ("train", 50, 1),
    ("validation", 50, 1),
    ("train", 80, 2),
    ("train", 100, 2),
    ("validation", 100, 2),
    ("test", 100, 2),
  ]
  for line in lines:
    assert set(line) >= METRICS
    assert all(math.isfinite(v) for v in line.values() if isinstance(v, float))
    if line["split"] == "train":
      assert line["examples_per_second"] > 0


def test_tensorboard_has_the_same_numbers(trained):
  from tensorboardX.proto.event_pb2 import Event
  from tensorboardX.record_writer import masked_crc32c  # noqa: F401, the same format

  workdir, _ = trained
  (file,) = (workdir / "tensorboard").iterdir()
  content, offset, found = file.read_bytes(), 0, {}
  while offset < len(content):
    size = int.from_bytes(content[offset : offset + 8], "little")
    event = Event.FromString(content[offset + 12 : offset + 12 + size])
    offset += 16 + size
    for value in event.summary.value:
      found[value.tag, event.step] = value.simple_value
  for line in lines_of(workdir):
    value = found[f"{line['split']}/accuracy", line["step"]]
    assert value == pytest.approx(line["accuracy"], rel=1e-6)


def test_a_second_start_resumes_and_changes_nothing(trained):
  workdir, first = trained
  before = (workdir / "metrics.jsonl").read_text()
  again = train(workdir, "--num_epochs=2")
  assert again.returncode == 0, again.stderr
  assert "resuming after epoch 2, step 100" in again.stdout
  assert again.stdout.splitlines()[-1] == first.stdout.splitlines()[-1]
  assert (workdir / "metrics.jsonl").read_text() == before


def test_more_epochs_go_on_as_if_never_interrupted(trained, tmp_path):
  """One epoch, then a second start for the second one, with other chunks."""
  workdir, whole = trained
  assert train(tmp_path / "run", "--num_epochs=1").returncode == 0
  resumed = train(tmp_path / "run", "--num_epochs=2", "--steps_per_call=17")
  assert "resuming after epoch 1, step 50" in resumed.stdout
  assert resumed.stdout.splitlines()[-1] == whole.stdout.splitlines()[-1]

  def numbers(path):
    return [
      {k: v for k, v in line.items() if k != "examples_per_second"}
      for line in lines_of(path)
      if line["split"] == "validation" or (line["split"], line["step"]) == ("test", 100)
    ]

  assert numbers(tmp_path / "run") == numbers(workdir)


def test_another_configuration_is_refused_and_nothing_written(trained):
  workdir, _ = trained
  before = {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()}
  refused = train(workdir, "--num_epochs=2", "--lambda_intrinsic=0.2", "--seed=1")
  assert refused.returncode == 2
  assert refused.stderr.count("\n") == 1
  assert "objective.lambda_intrinsic is 0.1 there and 0.2 here" in refused.stderr
  assert "train.seed is 0 there and 1 here" in refused.stderr
  assert {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()} == before


def test_fewer_epochs_than_the_run_has_are_refused(trained):
  workdir, _ = trained
  refused = refuse(workdir, "--num_epochs=1")
  assert refused.returncode == 2
  assert "holds a run of 2 epochs; give at least --num_epochs=2" in refused.stderr


def test_no_epochs_evaluate_a_fresh_model(tmp_path):
  done = train(tmp_path / "run", "--num_epochs=0")
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines()[-1].startswith("test accuracy 0.")
  assert [line["split"] for line in lines_of(tmp_path / "run")] == ["test"]


@pytest.fixture(scope="module")
def evaluated(trained, tmp_path_factory):
  """Two runs in one evaluation, the second trained here."""
  workdir, _ = trained
  other = tmp_path_factory.mktemp("runs") / "original"
  assert train(other, "--objective=original", "--num_epochs=1").returncode == 0
  done = run(
    "glimpse_generalization",
    f"--workdir={workdir},{other}",
    "--max_glimpses=8",
    "--betas=0,0.3,5",
  )
  assert done.returncode == 0, done.stderr
  return workdir, done


def test_generalization_writes_its_contract(evaluated):
  workdir, _ = evaluated
  content = json.loads((workdir / "glimpse_generalization.json").read_text())
  assert content["num_samples"] == 1
  assert content["location_policy"] == "sample"
  assert [run["objective"] for run in content["runs"]] == ["both", "original"]
  for result in content["runs"]:
    assert result["seed"] == 0
    assert [p["num_glimpses"] for p in result["fixed"]] == list(range(1, 9))
    assert [p["beta"] for p in result["dynamic"]] == [0.0, 0.3, 5.0]
    glimpses = [p["mean_glimpses"] for p in result["dynamic"]]
    assert glimpses == sorted(glimpses)
    assert glimpses[0] == 1.0
    assert result["dynamic"][0]["accuracy"] == pytest.approx(
      result["fixed"][0]["accuracy"]
    )
    assert all(p["hidden_norm"] > 0 for p in result["fixed"])
  image = (workdir / "glimpse_generalization.png").read_bytes()
  assert image.startswith(b"\x89PNG")


def test_runs_are_chosen_by_their_validation_images(evaluated, tmp_path):
  """6,000 of them, on which the run was validated: its accuracy is near that one."""
  workdir = tmp_path / "run"
  shutil.copytree(evaluated[0], workdir)
  arguments = ("--split=validation", "--max_glimpses=3", "--betas=0")
  done = run("glimpse_generalization", f"--workdir={workdir}", *arguments)
  assert done.returncode == 0, done.stderr
  found = json.loads((workdir / "glimpse_generalization.json").read_text())
  assert found["split"] == "validation"
  hits = 6000 * found["runs"][0]["fixed"][-1]["accuracy"]
  assert hits == pytest.approx(round(hits), abs=0.01)
  [*_, last] = (x for x in lines_of(workdir) if x["split"] == "validation")
  assert hits / 6000 == pytest.approx(last["accuracy"], abs=0.04)


def test_calibration_is_that_of_the_evaluated_model(evaluated):
  """The same rollouts as in the evaluation, so the same accuracies and norms."""
  workdir, _ = evaluated
  done = run("calibration", f"--workdir={workdir}", "--max_glimpses=4")
  assert done.returncode == 0, done.stderr
  [run_of_both] = json.loads((workdir / "calibration.json").read_text())["runs"]
  expected = json.loads((workdir / "glimpse_generalization.json").read_text())
  for found, point in zip(
    run_of_both["fixed"], expected["runs"][0]["fixed"][:4], strict=True
  ):
    for name in ("num_glimpses", "accuracy", "hidden_norm"):
      assert found[name] == pytest.approx(point[name], rel=1e-4)
    assert 0 < found["calibration_error"] < 1
    assert found["uncertainty_deviation"] > 0
  assert (workdir / "calibration.png").stat().st_size > 10_000
  assert "| both | calibration error |" in done.stdout


def test_error_rates_of_one_rollout_come_first(evaluated):
  """And are those of the evaluation; more rollouts and the mean policy are others."""
  workdir, _ = evaluated
  arguments = ("--glimpses=4,2", "--num_samples=3,1")
  done = run("error_rates", f"--workdir={workdir}", *arguments)
  assert done.returncode == 0, done.stderr
  [found] = json.loads((workdir / "error_rates.json").read_text())["runs"]
  assert found["dataset"] == "mnist"
  assert found["train_seconds"] > 0
  scored = {(x["num_samples"], x["location_policy"]): x for x in found["scores"]}
  assert list(scored) == [(1, "sample"), (1, "mean"), (3, "sample"), (3, "mean")]
  expected = json.loads((workdir / "glimpse_generalization.json").read_text())
  fixed = expected["runs"][0]["fixed"]
  for point in scored[1, "sample"]["fixed"]:
    accuracy = fixed[point["num_glimpses"] - 1]["accuracy"]
    assert point["accuracy"] == pytest.approx(accuracy, rel=1e-4)
  accuracies = {kind: x["fixed"][1]["accuracy"] for kind, x in scored.items()}
  assert len(set(accuracies.values())) == 4
  assert accuracies[3, "sample"] > accuracies[1, "sample"]
  error = 100 * (1 - accuracies[1, "sample"])
  assert "| mnist | `both`, M = 1 |" in done.stdout
  assert f"{error:.2f} |" in done.stdout


def test_the_evaluation_is_that_of_the_trained_model(evaluated):
  """With the glimpses of the training, it is as good as the run said."""
  workdir, _ = evaluated
  content = json.loads((workdir / "glimpse_generalization.json").read_text())
  (reported,) = (line for line in lines_of(workdir) if line["split"] == "test")
  assert reported["accuracy"] > 0.3  # far from chance, where a fresh model is
  found = content["runs"][0]["fixed"][2]["accuracy"]
  assert found == pytest.approx(reported["accuracy"], abs=0.02)


def test_the_test_accuracy_is_that_of_the_test_set(trained, mnist):
  workdir, done = trained
  place = workdir_lib.Workdir(workdir)
  config = workdir_lib.read_config(place)
  params = restore_params(place, config)
  found = ramjax.validate(
    run_keys(0).test, params, *mnist.test, config=config, preprocess=mnist.preprocess
  )
  assert f"test accuracy {float(found['accuracy']):.4f} " in done.stdout


def test_what_the_data_say_is_in_the_configuration(tmp_path):
  """Shape, prior and a setting without a flag, in the file of a run."""
  done = run(
    "train",
    f"--workdir={tmp_path / 'run'}",
    "--prior=train",
    "--canvas_size=60",
    "--num_clutter=2",
    "--num_train_examples=32",
    "--set=model.branch_size=6",
    "--num_epochs=0",
  )
  assert done.returncode == 0, done.stderr
  content = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
  assert content["model"]["image_shape"] == [60, 60, 1]
  assert content["model"]["branch_size"] == 6
  shares = np.array(content["objective"]["prior"]) * 32  # of 32 training images
  np.testing.assert_allclose(shares, shares.round())
  assert 0 < len(set(shares)) < 32


def test_ones_own_images_are_trained_on_and_found_again(tmp_path):
  """Any height, width and number of channels, by the whole path."""
  rng = np.random.RandomState(0)
  labels = np.arange(80) % 3
  images = rng.randint(0, 99, (80, 9, 12, 2)) + 70 * labels[:, None, None, None]
  np.savez(tmp_path / "mine.npz", images=images.astype(np.uint8), labels=labels)
  options = ("--batch_size=8", "--num_epochs=1", "--patch_size=6", "--num_scales=2")
  done = run(
    "train", "--dataset=npz:mine.npz", "--canvas_size=20", *options, cwd=tmp_path
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines()[-1].endswith("(N = 6, M = 1, 8 images)")
  workdir = tmp_path / "runs" / "npz_mine_canvas20_both_seed0"
  config = json.loads((workdir / "config.json").read_text())["config"]
  assert config["train"]["dataset"] == f"npz:{tmp_path / 'mine.npz'}"
  assert config["model"]["image_shape"] == [20, 20, 2]
  evaluation = (f"--workdir={workdir}", "--max_glimpses=7", "--betas=1")
  done = run("glimpse_generalization", *evaluation)
  assert done.returncode == 0, done.stderr


def test_a_recipe_is_what_is_not_given(tmp_path):
  """A flag that is given wins, its default value too; what is recorded is the whole."""
  given = ("--batch_size=64", "--learning_rate=3e-4", "--max_gradient_norm=0")
  small = ("--num_glimpses=1", "--hidden_size=8", "--num_train_examples=64")
  done = run(
    "train",
    f"--workdir={tmp_path / 'run'}",
    "--recipe=tuned",
    "--num_epochs=0",
    *given,
    *small,
  )
  assert done.returncode == 0, done.stderr
  content = json.loads((tmp_path / "run" / "config.json").read_text())
  expected = Config(
    model=ModelConfig(hidden_size=8),
    objective=ObjectiveConfig(name="intrinsic"),
    train=TrainConfig(
      num_epochs=0,
      num_glimpses=1,
      num_train_examples=64,
      batch_size=64,
      optimizer="muon",
      learning_rate_schedule="cosine",
    ),
  )
  assert Config.from_dict(content["config"]) == expected
  assert "--recipe=tuned" in content["command"]


def small_run(mnist, **train_options):
  config = Config(
    model=ModelConfig(hidden_size=16),
    train=TrainConfig(num_glimpses=2, **train_options),
  )
  few = data.Split(mnist.train.images[:64], mnist.train.labels[:64])
  return config, mnist._replace(train=few, validation=few, test=few)


def train_here(config, dataset, place, **options):
  trainer.train([config], dataset, [place], steps_per_call=10, figures=False, **options)


def test_the_rate_decays_once_an_epoch(mnist, tmp_path):
  """If almost nothing is left of it, the second epoch changes nothing."""
  states = []
  for num_epochs in (1, 2):
    config, dataset = small_run(mnist, num_epochs=num_epochs, learning_rate_decay=1e-12)
    place = workdir_lib.Workdir(tmp_path / str(num_epochs))
    workdir_lib.open_run(place, config)
    train_here(config, dataset, place)
    states.append(restore_params(place, config))
  jax.tree.map(np.testing.assert_array_equal, *states)


def test_a_run_that_diverges_ends_with_its_accuracy_and_valid_json(
  mnist, tmp_path, capsys
):
  config, dataset = small_run(mnist, num_epochs=2, learning_rate=1e38)
  place = workdir_lib.Workdir(tmp_path / "run")
  workdir_lib.open_run(place, config)
  train_here(config, dataset, place)
  assert capsys.readouterr().out.splitlines()[-1].startswith("test accuracy 0.")
  assert "NaN" not in place.metrics.read_text()
  assert any(line["loss"] is None for line in lines_of(place.path))


def test_a_run_that_skips_step_after_step_is_given_up(mnist, tmp_path):
  """Images that are not finite, from the second epoch on: what was saved stays."""
  config, dataset = small_run(mnist, num_epochs=1)
  place = workdir_lib.Workdir(tmp_path / "run")
  workdir_lib.open_run(place, config)
  train_here(config, dataset, place)
  before = restore_params(place, config)

  config, _ = small_run(mnist, num_epochs=5)
  broken = dataset._replace(std=(0.0,))
  with pytest.raises(errors.RunError, match="given up at step 5: 3 steps in a row"):
    train_here(config, broken, place, max_skipped_steps=3)
  lines = [line for line in lines_of(place.path) if line["split"] == "train"]
  assert [line["skipped_steps"] for line in lines] == [0, 2, 2]
  assert [line["loss"] is None for line in lines] == [False, True, True]
  after = restore_params(place, config)
  jax.tree.map(np.testing.assert_array_equal, before, after)


def test_a_few_skipped_steps_are_told_of(capsys):
  """Means are those of the other steps."""
  history = {"accuracy": [0.5, np.nan, 1.0, 7.0], "skipped": [0.0, 1.0, 0.0, 0.0]}
  history = {name: np.array(values) for name, values in history.items()}
  means, skipped = skipped_lib.chunk_means({k: v[:3] for k, v in history.items()})
  assert means == {"accuracy": 0.75, "skipped_steps": 1}
  assert skipped.tolist() == [False, True, False]
  none_taken, _ = skipped_lib.chunk_means({k: v[1:2] for k, v in history.items()})
  assert math.isnan(none_taken["accuracy"])
  with progress.Progress(TrainConfig(), 4, 0) as bar:
    for step, chunk in ((3, means), (4, none_taken)):
      bar.update(1, step, [{**chunk, "examples_per_second": 1.0}])
    bar.epoch_done(1, 4, [0.5])
  shown = capsys.readouterr().out
  assert "train accuracy 0.7500" in shown
  assert shown.strip().endswith("2 steps skipped")


def test_skipped_steps_are_counted_in_a_row_over_chunks():
  count = skipped_lib.SkippedSteps(3)
  count.add(np.array([True, False, True, True]), step=4)
  count.add(np.array([False, True]), step=6)
  with pytest.raises(errors.RunError, match="given up at step 8: 3 steps in a row"):
    count.add(np.array([True, True, False]), step=9)


@pytest.mark.parametrize("kind", ["cut off", "in the middle"])
def test_damaged_metrics(kind, mnist, tmp_path):
  """A last line that was cut off is written anew, other damage is not hidden."""
  config, dataset = small_run(mnist, num_epochs=1)
  place = workdir_lib.Workdir(tmp_path / "run")
  workdir_lib.open_run(place, config)
  train_here(config, dataset, place)
  whole = place.metrics.read_text()
  lines = whole.split("\n")
  if kind == "cut off":
    place.metrics.write_text(whole[:-20])
    train_here(config, dataset, place)
    assert place.metrics.read_text() == whole
  else:
    place.metrics.write_text("\n".join([lines[0], "3", *lines[2:]]))
    before = place.metrics.read_text()
    with pytest.raises(errors.RunError, match=r"line 2, is damaged"):
      train_here(config, dataset, place)
    assert place.metrics.read_text() == before


def test_generalization_states_m(trained):
  workdir, _ = trained
  done = run(
    "glimpse_generalization",
    f"--workdir={workdir}",
    "--max_glimpses=2",
    "--betas=1",
    "--num_samples=2",
    "--num_devices=2",
    "--location_policy=mean",
  )
  assert done.returncode == 0, done.stderr
  assert "M = 2" in done.stdout
  content = json.loads((workdir / "glimpse_generalization.json").read_text())
  assert (content["num_samples"], content["location_policy"]) == (2, "mean")


BAD_TRAIN = [
  (["--objective=neither"], "objective", 2),
  (["--dataset=imagenet"], "dataset must be one of mnist", 2),
  (["--dataset=npz:/nowhere.npz"], "/nowhere.npz cannot be read as an .npz file", 1),
  (["--canvas_size=20"], "canvas_size must be at least 28", 2),
  (["--patch_size=29"], "patch_size must be at most 28, the smaller side of", 2),
  (["--batch_size=0"], "batch_size must be at least 1", 2),
  (["--batch_size=2000"], "batch_size must be at most", 2),
  (["--num_glimpses=0"], "num_glimpses must be at least 1", 2),
  (["--patch_size=0"], "patch_size must be at least 1", 2),
  (["--location_std=0"], "location_std must be greater than 0", 2),
  (["--location_std=inf"], "location_std must be a finite number", 2),
  (["--location_std=nan"], "location_std must be a finite number", 2),
  (["--lambda_intrinsic=nan"], "lambda_intrinsic must be a finite number", 2),
  (["--learning_rate=nan"], "learning_rate must be a finite number", 2),
  (["--learning_rate=0"], "learning_rate must be greater than 0", 2),
  (["--num_epochs=-1"], "num_epochs must be at least 0", 2),
  (["--num_epochs=ten"], "num_epochs", 2),
  (["--num_train_examples=60000"], "num_train_examples must be at most 54000", 2),
  (["--steps_per_call=0"], "steps_per_call must be at least 1", 2),
  (["--max_skipped_steps=0"], "max_skipped_steps must be at least 1", 2),
  (["--accumulation_steps=3"], "accumulation_steps must divide batch_size, 32", 2),
  (["--num_devices=5"], "batch_size must be a multiple of the number of devices, 5", 2),
  (["--process_id=0"], "num_processes and process_id must be given together", 2),
  (["--lambda=1"], "Unknown command line flag 'lambda'", 2),
  (["both"], "unexpected argument 'both'", 2),
  (["--data_dir=/nowhere"], "/nowhere does not hold the four IDX files of mnist", 1),
  (["--recipe=best"], "recipe", 2),
  (["--set=model.core=lstm"], "'model.core' is no field of --set", 2),
  (["--set=model.branch_size=x"], "model.branch_size must be an integer, not 'x'", 2),
  (["--seed=4294967296"], "seed must be at most 4294967295", 2),
]


@pytest.mark.parametrize(("arguments", "message", "status"), BAD_TRAIN)
def test_a_bad_command_line_is_one_line(arguments, message, status, tmp_path):
  refused = refuse(tmp_path / "run", *arguments)
  assert refused.returncode == status, refused.stderr
  assert message in refused.stderr
  assert refused.stderr.startswith("train: ")
  assert refused.stderr.count("\n") == 1
  assert refused.stdout == ""
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
  "kind", ["a file", "a foreign folder", "under a file", "damaged"]
)
def test_a_workdir_that_will_not_do(kind, tmp_path):
  workdir = tmp_path / "run"
  if kind == "a file":
    workdir.write_text("mine")
  elif kind == "a foreign folder":
    workdir.mkdir()
    (workdir / "thesis.txt").write_text("mine")
  elif kind == "under a file":
    workdir.write_text("mine")
    workdir = workdir / "run"
  else:
    workdir.mkdir()
    (workdir / "config.json").write_text('{"config": {')
  refused = refuse(workdir)
  assert refused.returncode in (1, 2)
  assert refused.stderr.startswith("train: ")
  assert refused.stderr.count("\n") == 1, refused.stderr
  assert str(workdir) in refused.stderr
  assert "--workdir" in refused.stderr
  assert "remove" not in refused.stderr
  if kind != "damaged":
    mine = tmp_path / "run"
    assert (mine / "thesis.txt" if mine.is_dir() else mine).read_text() == "mine"


BAD_EVALUATION = [
  ([], "--workdir must name a trained run", 2),
  (["--workdir=/nowhere"], "/nowhere holds no run", 1),
  (["--workdir=RUN", "--max_glimpses=0"], "max_glimpses must be at least 1", 2),
  (["--workdir=RUN", "--num_samples=0"], "num_samples must be at least 1", 2),
  (["--workdir=RUN", "--betas=0,x"], "betas must be numbers", 2),
  (["--workdir=RUN", "--betas=nan"], "betas must be finite and at least 0", 2),
  (["--workdir=RUN", "--betas=-1"], "betas must be finite and at least 0", 2),
  (["--workdir=RUN", "--location_policy=best"], "location_policy", 2),
  (["--workdir=RUN", "--seed=-1"], "seed must be at least 0", 2),
]


@pytest.mark.parametrize(("arguments", "message", "status"), BAD_EVALUATION)
def test_a_bad_evaluation_is_one_line(arguments, message, status, trained):
  workdir, _ = trained
  arguments = [argument.replace("RUN", str(workdir)) for argument in arguments]
  refused = forked.run("glimpse_generalization", *arguments)
  assert refused.returncode == status, refused.stderr
  assert message in refused.stderr
  assert refused.stderr.startswith("glimpse_generalization: ")
  assert refused.stderr.count("\n") == 1
