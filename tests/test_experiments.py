"""The scripts of a run, whole, on a small dataset: what they print, write and read."""

import json
import math
import re
import shutil

import forked
import jax
import numpy as np
import pytest
import synthetic

import ramjax
from experiments.reporting.cells import rollouts_of
from experiments.runs import workdir as workdir_lib
from experiments.runs.program import run_keys
from ramjax import data, run_folder
from ramjax.checkpoint import Checkpoints

pytestmark = pytest.mark.slow

SMALL = (
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


def run(script, *arguments, **options):
  ended = forked.run(script, *arguments, **options)
  assert ended.returncode == 0, ended.stderr
  assert "Traceback" not in ended.stderr
  return ended.stdout


@pytest.fixture(scope="module")
def images(tmp_path_factory):
  """About 1,600 images to train on, 300 to test: 50 steps an epoch."""
  path = tmp_path_factory.mktemp("data") / "synthetic.npz"
  synthetic.write_npz(path, synthetic.make(1600, 177, 300))
  return f"npz:{path}"


def train(images, workdir, *arguments):
  return run("train", f"--dataset={images}", f"--workdir={workdir}", *SMALL, *arguments)


def lines_of(workdir):
  return [json.loads(line) for line in (workdir / "metrics.jsonl").open()]


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory):
  """A run of two epochs, and what it printed."""
  workdir = tmp_path_factory.mktemp("runs") / "both"
  return workdir, train(images, workdir, "--num_epochs=2")


def test_what_a_training_prints(trained):
  """The number of parameters, a line for each epoch, and the test accuracy at last."""
  workdir, printed = trained
  config = run_folder.read_config(workdir)
  params = ramjax.init_params(jax.random.key(0), config.model)
  described, first, number, *epochs, last = printed.splitlines()
  assert "2077 images (1604 + 173 + 300 for training, validation, test)" in described
  assert first.endswith(f"writing to {workdir}")
  assert number == f"{ramjax.num_parameters(params):,} parameters"
  assert [line.split("  ")[:2] for line in epochs] == [
    ["epoch 1/2", "step 50"],
    ["epoch 2/2", "step 100"],
  ]
  assert re.fullmatch(r"test accuracy 0\.\d{4} \(N = 3, M = 1, 300 images\)", last)
  assert "\x1b" not in printed  # no bar where there is no terminal


def test_what_a_training_leaves(trained):
  workdir, _ = trained
  config = json.loads((workdir / "config.json").read_text())
  assert config["config"]["objective"]["name"] == "both"
  assert config["config"]["train"]["num_glimpses"] == 3
  assert {"command", "date", "versions", "git_commit", "device"} <= set(config)
  assert config["command"].startswith("python -m experiments.train --dataset=npz:")
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

  workdir, _ = trained
  (file,) = (workdir / "tensorboard").iterdir()
  content, offset, found = file.read_bytes(), 0, {}
  while offset < len(content):  # length, checksum, event, checksum
    size = int.from_bytes(content[offset : offset + 8], "little")
    event = Event.FromString(content[offset + 12 : offset + 12 + size])
    offset += 16 + size
    for value in event.summary.value:
      found[value.tag, event.step] = value.simple_value
  for line in lines_of(workdir):
    value = found[f"{line['split']}/accuracy", line["step"]]
    assert value == pytest.approx(line["accuracy"], rel=1e-6)


def test_the_test_accuracy_is_that_of_the_test_set(trained, images):
  workdir, printed = trained
  place = workdir_lib.Workdir(workdir)
  config = run_folder.read_config(place.path)
  dataset = data.load_dataset(images)
  found = ramjax.validate(
    run_keys(0).test,
    run_folder.restore(place.path, config)[0],
    *dataset.test,
    config=config,
    preprocess=dataset.preprocess,
  )
  assert f"test accuracy {float(found['accuracy']):.4f} " in printed


def test_more_epochs_go_on_as_if_never_interrupted(trained, images, tmp_path):
  """One epoch, then a second start for the second one, with other chunks."""
  workdir, whole = trained
  train(images, tmp_path / "run", "--num_epochs=1")
  resumed = train(images, tmp_path / "run", "--num_epochs=2", "--steps_per_call=17")
  assert "resuming after epoch 1, step 50" in resumed
  assert resumed.splitlines()[-1] == whole.splitlines()[-1]

  def numbers(path):
    return [
      {k: v for k, v in line.items() if k != "examples_per_second"}
      for line in lines_of(path)
      if line["split"] == "validation" or (line["split"], line["step"]) == ("test", 100)
    ]

  assert numbers(tmp_path / "run") == numbers(workdir)


@pytest.mark.parametrize(
  ("arguments", "messages"),
  [
    (
      ["--num_epochs=2", "--lambda_intrinsic=0.2", "--seed=1"],
      [
        "objective.lambda_intrinsic is 0.1 there and 0.2 here",
        "train.seed is 0 there and 1 here",
      ],
    ),
    (
      ["--num_epochs=2", "--credit_decay=0.7"],
      ["objective.credit_decay is none there and 0.7 here"],
    ),
    (["--num_epochs=1"], ["holds a run of 2 epochs; give at least --num_epochs=2"]),
  ],
)
def test_another_run_in_a_folder_is_refused_and_nothing_written(
  arguments, messages, trained, images
):
  workdir, _ = trained
  before = {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()}
  refused = forked.run(
    "train", f"--dataset={images}", f"--workdir={workdir}", *SMALL, *arguments
  )
  assert refused.returncode == 2
  assert refused.stderr.count("\n") == 1
  for message in messages:
    assert message in refused.stderr
  assert {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()} == before


def test_seeds_of_one_program_are_runs_in_folders_of_their_own(images, tmp_path):
  printed = train(images, tmp_path / "run", "--num_seeds=2", "--num_epochs=1")
  assert "2 runs" in printed
  folders = [tmp_path / "run_seed0", tmp_path / "run_seed1"]
  assert sorted(tmp_path.iterdir()) == folders
  lasts = printed.splitlines()[-2:]
  for seed, (folder, last) in enumerate(zip(folders, lasts, strict=True)):
    assert last.startswith(f"{folder}: test accuracy 0.")
    config = run_folder.read_config(folder)
    assert config.train.seed == seed
    assert (folder / "figures" / "glimpses.png").exists()
  printed = run(
    "error_rates",
    f"--workdir={','.join(map(str, folders))}",
    "--glimpses=3",
    "--num_samples=1",
  )
  assert "±" in printed
  content = json.loads((folders[0] / "error_rates.json").read_text())
  assert [found["seed"] for found in content["runs"]] == [0, 1]
  last = ("--num_seeds=3", "--num_processes=3", "--process_id=2")
  printed = train(images, tmp_path / "run", *last, "--num_epochs=1")
  assert sorted(tmp_path.iterdir()) == [*folders, tmp_path / "run_seed2"]
  assert "2 runs" not in printed


@pytest.fixture(scope="module")
def evaluated(trained, tmp_path_factory):
  """Two runs in one evaluation, the second of a fresh model."""
  workdir, _ = trained
  config = run_folder.read_config(workdir)
  config = config.from_dict({**config.to_dict(), "objective": {"name": "original"}})
  other = workdir_lib.Workdir(tmp_path_factory.mktemp("runs") / "original")
  workdir_lib.open_run(other, config)
  optimizer = ramjax.make_optimizer(config.train, steps_per_epoch=1)
  with Checkpoints(other.checkpoints) as checkpoints:
    checkpoints.save(
      ramjax.init_train_state(jax.random.key(0), config=config, optimizer=optimizer)
    )
  printed = run(
    "glimpse_generalization",
    f"--workdir={workdir},{other.path}",
    "--max_glimpses=8",
    "--betas=0,0.3,5",
  )
  assert "M = 1" in printed
  return workdir


def test_generalization_writes_its_contract(evaluated):
  content = json.loads((evaluated / "glimpse_generalization.json").read_text())
  assert content["num_samples"] == 1
  assert content["location_policy"] == "sample"
  assert [run["objective"] for run in content["runs"]] == ["both", "original"]
  for result in content["runs"]:
    assert result["seed"] == 0
    assert result["config"]["train"]["num_glimpses"] == 3
    assert [p["num_glimpses"] for p in result["fixed"]] == list(range(1, 9))
    assert [p["beta"] for p in result["dynamic"]] == [0.0, 0.3, 5.0]
    glimpses = [p["mean_glimpses"] for p in result["dynamic"]]
    assert glimpses == sorted(glimpses)
    assert glimpses[0] == 1.0
    assert result["dynamic"][0]["accuracy"] == pytest.approx(
      result["fixed"][0]["accuracy"]
    )
    assert all(p["hidden_norm"] > 0 for p in result["fixed"])
  image = (evaluated / "glimpse_generalization.png").read_bytes()
  assert image.startswith(b"\x89PNG")


def test_the_evaluation_is_that_of_the_trained_model(evaluated):
  """With the glimpses of the training, it is as good as the run said."""
  content = json.loads((evaluated / "glimpse_generalization.json").read_text())
  (reported,) = (line for line in lines_of(evaluated) if line["split"] == "test")
  assert reported["accuracy"] > 0.3  # far from chance, where a fresh model is
  found, fresh = (run["fixed"][2]["accuracy"] for run in content["runs"])
  assert found == pytest.approx(reported["accuracy"], abs=0.08)
  assert fresh < 0.25


def test_the_options_of_an_evaluation_are_followed(trained, tmp_path):
  """Other images, more rollouts, another policy, and two devices."""
  workdir = tmp_path / "run"
  shutil.copytree(trained[0], workdir)
  printed = run(
    "glimpse_generalization",
    f"--workdir={workdir}",
    "--split=validation",
    "--max_glimpses=3",
    "--betas=0",
    "--num_samples=2",
    "--num_devices=2",
    "--location_policy=mean",
  )
  assert "M = 2" in printed
  found = json.loads((workdir / "glimpse_generalization.json").read_text())
  assert found["split"] == "validation"
  assert (found["num_samples"], found["location_policy"]) == (2, "mean")
  hits = 173 * found["runs"][0]["fixed"][-1]["accuracy"]
  assert hits == pytest.approx(round(hits), abs=0.001)


def test_evaluation_under_the_released_protocol(trained, tmp_path):
  """Ten rollouts, their own stopping rule, and no norms."""
  workdir = trained[0]
  printed = run(
    "glimpse_generalization",
    f"--workdir={workdir}",
    f"--output={tmp_path}",
    "--protocol=released",
    "--max_glimpses=4",
    "--betas=0,0.3",
  )
  assert "M = 10" in printed
  found = json.loads((tmp_path / "glimpse_generalization.json").read_text())
  assert (found["protocol"], found["num_samples"]) == ("released", 10)
  [of_run] = found["runs"]
  assert [point["num_glimpses"] for point in of_run["fixed"]] == [1, 2, 3, 4]
  taken = [point["mean_glimpses"] for point in of_run["dynamic"]]
  assert taken[0] == 1
  assert 1 < taken[1] <= 4
  assert (tmp_path / "glimpse_generalization.png").stat().st_size > 10_000


def test_a_run_is_published_and_read_again(trained, tmp_path):
  """The better one of two runs, with the error that it has in half precision."""
  workdir, _ = trained
  worse = tmp_path / "untrained"
  shutil.copytree(workdir, worse)
  config = run_folder.read_config(worse)
  _, step = run_folder.restore(workdir, config)
  optimizer = ramjax.make_optimizer(config.train, steps_per_epoch=1)
  state = ramjax.init_train_state(jax.random.key(1), config=config, optimizer=optimizer)
  shutil.rmtree(worse / "checkpoints")
  with Checkpoints(worse / "checkpoints") as checkpoints:
    checkpoints.save(state._replace(step=np.int32(step)))
  mixed = forked.run("publish", f"--workdir={worse},{workdir}", "--name=mine")
  assert mixed.returncode == 2
  assert "runs that differ in nothing but the seed" in mixed.stderr  # nor have one seed
  content = json.loads((worse / "config.json").read_text())
  content["config"]["train"]["seed"] = 7
  (worse / "config.json").write_text(json.dumps(content))
  printed = run(
    *("publish", f"--workdir={worse},{workdir}", "--name=mine", f"--output={tmp_path}")
  )
  assert f"{workdir}: validation error" in printed
  again = forked.run(
    "publish", f"--workdir={workdir}", *("--name=mine", f"--output={tmp_path}")
  )
  assert again.returncode == 2
  assert "mine.safetensors is there already; give another --name or" in again.stderr
  model, own = ramjax.load(tmp_path / "mine.safetensors"), ramjax.load(workdir)
  assert model.config == own.config
  assert model.temperature_t == own.temperature_t
  half, single = (model.facts["test_error"][name] for name in ("float16", "float32"))
  assert half == pytest.approx(single, abs=1)
  card = (tmp_path / "mine.md").read_text()
  assert f"| fixed, as in training | 3 | {half:.2f} |" in card
  assert "| fixed, twice the noise after 3 | 50 | " in card
  images = np.zeros((28, 28), np.uint8)
  np.testing.assert_allclose(model(images).probs, own(images).probs, atol=1e-3)


def test_stopping_rules_are_compared(evaluated, tmp_path):
  """The bounds of the paper with all glimpses are the evaluation with all of them."""
  printed = run(
    "stopping_rules",
    f"--workdir={evaluated}",
    "--max_glimpses=4",
    f"--output={tmp_path / 'rules.json'}",
  )
  assert "| both | bounds p ± βu (the paper) | 1 |" in printed
  [found] = json.loads((tmp_path / "rules.json").read_text())["runs"]
  last = found["rules"][0]["points"][-1]
  assert last["mean_glimpses"] == 4
  expected = json.loads((evaluated / "glimpse_generalization.json").read_text())
  accuracy = expected["runs"][0]["fixed"][3]["accuracy"]
  assert last["accuracy"] == pytest.approx(accuracy)
  assert (tmp_path / "rules.png").stat().st_size > 10_000


def test_calibration_is_that_of_the_evaluated_model(evaluated):
  """The same rollouts as in the evaluation, so the same accuracies and norms."""
  printed = run("calibration", f"--workdir={evaluated}", "--max_glimpses=4")
  [run_of_both] = json.loads((evaluated / "calibration.json").read_text())["runs"]
  expected = json.loads((evaluated / "glimpse_generalization.json").read_text())
  for found, point in zip(
    run_of_both["fixed"], expected["runs"][0]["fixed"][:4], strict=True
  ):
    for name in ("num_glimpses", "accuracy", "hidden_norm"):
      assert found[name] == pytest.approx(point[name], rel=1e-4)
    assert 0 < found["calibration_error"] < 1
    assert found["uncertainty_deviation"] > 0
  assert (evaluated / "calibration.png").stat().st_size > 10_000
  assert "| both | calibration error |" in printed


def test_error_rates_of_one_rollout_come_first(evaluated):
  """And are those of the evaluation; more rollouts and the mean policy are others."""
  printed = run(
    "error_rates", f"--workdir={evaluated}", "--glimpses=4,2", "--num_samples=3,1"
  )
  [found] = json.loads((evaluated / "error_rates.json").read_text())["runs"]
  assert found["dataset"] == "npz_synthetic"
  assert found["train_seconds"] > 0
  scored = {(x["num_samples"], x["location_policy"]): x for x in found["scores"]}
  assert list(scored) == [(1, "sample"), (1, "mean"), (3, "sample"), (3, "mean")]
  expected = json.loads((evaluated / "glimpse_generalization.json").read_text())
  fixed = expected["runs"][0]["fixed"]
  for point in scored[1, "sample"]["fixed"]:
    accuracy = fixed[point["num_glimpses"] - 1]["accuracy"]
    assert point["accuracy"] == pytest.approx(accuracy, rel=1e-4)
  norms = {kind: x["fixed"][1]["hidden_norm"] for kind, x in scored.items()}
  assert len(set(norms.values())) == 4
  error = 100 * (1 - scored[1, "sample"]["fixed"][1]["accuracy"])
  assert "| npz_synthetic | `both`, M = 1 |" in printed
  assert f"{error:.2f} |" in printed


def test_other_settings_are_not_pooled_and_results_go_where_output_says(
  evaluated, trained, tmp_path
):
  """The same run with other epochs, in another folder: two rows, no deviation."""
  other = tmp_path / "other"
  shutil.copytree(trained[0], other, ignore=shutil.ignore_patterns("calibration*"))
  content = json.loads((other / "config.json").read_text())
  content["config"]["train"]["num_epochs"] = 3
  (other / "config.json").write_text(json.dumps(content))
  before = set(evaluated.iterdir())
  printed = run(
    "error_rates",
    f"--workdir={evaluated},{other}",
    "--glimpses=3",
    "--num_samples=1",
    f"--output={tmp_path / 'results' / 'mine.json'}",
  )
  assert "±" not in printed
  assert "| npz_synthetic | `both`, num_epochs 2, M = 1 | 1 |" in printed
  assert printed.splitlines()[-1] == f"written to {tmp_path / 'results' / 'mine.json'}"
  assert set(evaluated.iterdir()) == before
  found = json.loads((tmp_path / "results" / "mine.json").read_text())["runs"]
  assert [entry["group"] for entry in found] == [
    "both, num_epochs 2",
    "both, num_epochs 3",
  ]
  printed = run(
    "calibration",
    f"--workdir={other},{evaluated}",
    "--max_glimpses=2",
    "--figure_format=svg",
  )
  assert printed.splitlines()[-1] == (
    f"written to {other / 'calibration.json'} and calibration.svg"
    " (the first folder; --output names another)"
  )
  assert (other / "calibration.svg").stat().st_size > 10_000
  assert not (other / "calibration.png").exists()
  refused = forked.run(
    "error_rates",
    f"--workdir={evaluated}",
    f"--output={other / 'config.json' / 'x'}",
  )
  assert refused.returncode == 2
  assert "output" in refused.stderr
  assert refused.stderr.count("\n") == 1


def test_classes_of_a_trained_model(evaluated, images):
  """Counts of the test set, and accuracies that agree with them."""
  printed = run(
    "error_rates",
    f"--workdir={evaluated}",
    "--glimpses=2,3",
    "--num_samples=1",
  )
  assert "both (n = 1), M = 1, N = 3: accuracy " in printed
  [found] = json.loads((evaluated / "error_rates.json").read_text())["runs"]
  labels = data.load_dataset(images).test.labels
  for scores in found["scores"]:
    for point in scores["fixed"]:
      confusion = np.array(point["confusion"])
      np.testing.assert_array_equal(confusion.sum(1), np.bincount(labels, minlength=10))
      recall = confusion.diagonal() / confusion.sum(1)
      np.testing.assert_allclose(point["class_accuracy"], recall, rtol=1e-5)
      assert point["balanced_accuracy"] == pytest.approx(recall.mean(), rel=1e-5)
      accuracy = confusion.diagonal().sum() / len(labels)
      assert point["accuracy"] == pytest.approx(accuracy, rel=1e-5)


def test_a_configuration_says_what_the_data_and_all_flags_said(tmp_path):
  """Shape, prior, a setting without a flag; images of any size, named by a short path."""
  rng = np.random.RandomState(0)
  labels = np.arange(80) % 3
  images = rng.randint(0, 99, (80, 9, 12, 2)) + 70 * labels[:, None, None, None]
  np.savez(tmp_path / "mine.npz", images=images.astype(np.uint8), labels=labels)
  printed = run(
    "train",
    "--dataset=npz:mine.npz",
    "--canvas_size=20",
    "--num_train_examples=32",
    "--prior=train",
    "--set=model.branch_size=6",
    "--patch_size=6",
    "--num_scales=2",
    "--num_epochs=0",
    cwd=tmp_path,
  )
  assert printed.splitlines()[-1].endswith("(N = 6, M = 1, 6 images)")
  workdir = tmp_path / "runs" / "npz_mine_canvas20_both_seed0"
  assert [line["split"] for line in lines_of(workdir)] == ["test"]
  config = json.loads((workdir / "config.json").read_text())["config"]
  assert config["train"]["dataset"] == f"npz:{tmp_path / 'mine.npz'}"
  assert config["model"]["image_shape"] == [20, 20, 2]
  assert config["model"]["branch_size"] == 6
  counts = np.array(config["objective"]["prior"]) * 32  # of 32 training images
  np.testing.assert_allclose(counts, counts.round())
  assert 0 < len(set(counts)) < 32


def test_a_model_of_ones_own_is_trained_resumed_and_evaluated(images, tmp_path):
  """`--model` names it; the rest is as for the model of the paper."""
  workdir = tmp_path / "gru"
  flags = ("--objective=original", "--hidden_size=32", "--model=own_models:make")
  train(images, workdir, *flags, "--num_epochs=1")
  printed = train(images, workdir, *flags, "--num_epochs=2")
  assert "resuming after epoch 1, step 50" in printed
  accuracy = float(re.search(r"test accuracy (\S+) ", printed)[1])
  assert accuracy > 0.3
  run("glimpse_generalization", f"--workdir={workdir}", "--max_glimpses=4")
  results = json.loads((workdir / "glimpse_generalization.json").read_text())
  assert results["runs"][0]["config"]["model"]["factory"] == "own_models:make"
  found = {p["num_glimpses"]: p["accuracy"] for p in results["runs"][0]["fixed"]}
  assert abs(found[3] - accuracy) < 0.1


def test_records_train_and_judge_two_seeds_in_one_program(images, tmp_path):
  """With all that the recipes of records use; started again, nothing is trained."""
  flags = (f"--dataset={images}", f"--workdir={tmp_path / 'all'}", *SMALL)
  flags += ("--recipe=tuned", "--core=lstm", "--rollouts_per_image=2")
  flags += ("--baseline=leave_one_out", "--location_gradient=1/N")
  printed = run("records", *flags, "--num_epochs=1", "--num_seeds=2")
  changed = "hidden_size=64, core=lstm, location_gradient=0.333, baseline=leave_one_out"
  changed += ", 1 of 120 epochs, batch_size=32, rollouts_per_image=2, num_glimpses=3"
  assert f"| `tuned`, {changed}, learning_rate=0.003 | 2 | " in printed
  results = json.loads((tmp_path / "all" / "records.json").read_text())
  assert (tmp_path / "all" / "records.png").stat().st_size > 10_000
  assert [entry["seed"] for entry in results["runs"]] == [0, 1]
  for entry in results["runs"]:
    config = entry["config"]
    assert config["objective"]["location_gradient"] == pytest.approx(1 / 3)
    assert config["train"]["num_epochs"] == 1
    assert entry["recipe"] == "tuned"
    assert entry["num_rollouts"] == 50 * 32 * 2
    [point] = entry["validation"]
    assert point["seconds"] == pytest.approx(entry["train_seconds"], abs=0.1)
    one = entry["scores"][0]
    assert [p["num_glimpses"] for p in one["fixed"]] == [3, 4, 6, 8, 12, 50]
    assert one["dynamic"][0]["mean_glimpses"] == 1
    kinds = [rollouts_of(score) for score in entry["scores"]]
    assert kinds == [
      (1, "sample"),
      (1, "0.5 of the noise"),
      (1, "2 times the noise after 3 glimpses"),
      (1, "mean"),
      (10, "sample"),
    ]
  again = run("records", *flags, "--num_epochs=1", "--num_seeds=2")
  assert "epoch 1/1" in printed
  assert "epoch 1/1" not in again
