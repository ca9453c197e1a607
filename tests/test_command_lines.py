"""Bad command lines of experiments.*: one clear line, a status, and nothing is written."""

import forked
import pytest
from absl import flags as absl_flags
from absl.testing import flagsaver

from experiments.cli import app

SCRIPTS = {
  "train": [
    # In words that no flag has.
    (["--lambda=1"], "Unknown command line flag 'lambda'", 2),
    (["both"], "unexpected argument 'both'", 2),
    (["--num_epochs=ten"], "num_epochs", 2),
    (["--objective=neither"], "objective", 2),
    (["--recipe=best"], "recipe", 2),
    (
      ["--recipe=translated_60", "--dataset=mnist"],
      "recipe translated_60 is for --dataset=mnist_translated_60, not mnist; leave out",
      2,
    ),
    (["--location_gradient=2/N"], "location_gradient must be a number from 0 to 1", 2),
    (["--baseline=leave_one_out"], "needs rollouts_per_image of at least 2, not 1", 2),
    (["--rollouts_per_image=0"], "rollouts_per_image must be at least 1, not 0", 2),
    (["--model=nowhere:make"], "nowhere:make cannot be imported: No module named", 2),
    (["--set=model.core=lstm"], "'model.core' is no field of --set", 2),
    (["--set=model.branch_size=x"], "model.branch_size must be an integer, not 'x'", 2),
    # Out of range.
    (["--batch_size=0"], "batch_size must be at least 1", 2),
    (["--location_std=nan"], "location_std must be a finite number", 2),
    (["--seed=4294967296"], "seed must be at most 4294967295", 2),
    (["--steps_per_call=0"], "steps_per_call must be at least 1", 2),
    (["--max_skipped_steps=0"], "max_skipped_steps must be at least 1", 2),
    (["--save_every_seconds=nan"], "save_every_seconds must be at least 0, not nan", 2),
    # In conflict with each other.
    (["--accumulation_steps=3"], "accumulation_steps must divide batch_size, 32", 2),
    (["--num_devices=5"], "batch_size must be a multiple of the number of devices", 2),
    (["--process_id=0"], "num_processes and process_id must be given together", 2),
    (["--num_seeds=2", "--process_id=0"], "must be given together", 2),
    (
      ["--num_seeds=2", "--num_processes=2", "--process_id=2"],
      "process_id must be at least 0 and less than num_processes, 2, not 2",
      2,
    ),
    (
      ["--num_seeds=2", "--num_processes=3", "--process_id=2"],
      "process_id must be less than num_seeds, 2",
      2,
    ),
    (
      ["--num_seeds=2", "--coordinator_address=localhost:1"],
      "each process trains its share of them",
      2,
    ),
    # In conflict with the data.
    (["--canvas_size=20"], "canvas_size must be at least 28", 2),
    (["--num_seeds=3", "--num_devices=2"], "num_devices must divide the number of", 2),
    (["--num_seeds=2", "--num_devices=0"], "num_devices must be at least 1, not 0", 2),
    (
      ["--num_seeds=2", "--num_devices=-2"],
      "num_devices must be at least 1, not -2",
      2,
    ),
    (["--patch_size=29"], "patch_size must be at most 28, the smaller side of", 2),
    (["--batch_size=400"], "batch_size must be at most", 2),
    (["--num_train_examples=600"], "num_train_examples must be at most 293", 2),
    # Of data that are not there.
    (["--dataset=imagenet"], "dataset must be one of mnist", 2),
    (["--dataset=npz:/nowhere.npz"], "/nowhere.npz cannot be read as an .npz file", 1),
    (
      ["--dataset=mnist", "--data_dir=/nowhere"],
      "/nowhere does not hold the four IDX files of mnist",
      1,
    ),
  ],
  "glimpse_generalization": [
    (["--workdir=/nowhere"], "/nowhere holds no run", 1),
    (["--max_glimpses=0"], "max_glimpses must be at least 1", 2),
    (["--num_samples=0"], "num_samples must be at least 1", 2),
    (["--betas=0,x"], "betas must be numbers", 2),
    (["--betas=nan"], "betas must be finite and at least 0", 2),
    (["--betas=-1"], "betas must be finite and at least 0", 2),
    (["--location_policy=best"], "location_policy", 2),
    (["--location_noise=-1"], "location_noise must be at least 0, not -1", 2),
    (["--location_noise=1,inf"], "location_noise must be a finite number, not inf", 2),
    (["--location_noise=1,x"], "location_noise must be numbers separated by", 2),
    (["--location_noise="], "location_noise must be a number or several", 2),
    (
      ["--location_noise=2", "--location_policy=mean"],
      "location_noise has no effect",
      2,
    ),
    (["--seed=-1"], "seed must be at least 0", 2),
    (["--workdir="], "--workdir must name a trained run", 2),
  ],
  "calibration": [([], "--workdir must name a trained run", 2)],
  "stopping_rules": [
    ([], "--workdir must name a trained run", 2),
    (["--workdir=x", "--max_glimpses=1"], "max_glimpses must be at least 2, not 1", 2),
  ],
  "error_rates": [
    ([], "--workdir must name a trained run", 2),
    (["--workdir=x", "--output=x.png"], "output must name a folder, not x.png", 2),
  ],
  "export": [
    (["--model=mnist"], "output must name the file of the program", 2),
    (
      ["--output=/nowhere/x", "--model=mnist", "--image_size=99999999999x28"],
      "image_size must be at most 32768x32768",
      2,
    ),
    (
      ["--output=/nowhere/x", "--model=mnist", "--location_noise=-1"],
      "location_noise must be at least 0",
      2,
    ),
    (["--output=/nowhere/x"], "give --model (", 2),
    (
      ["--output=/nowhere/x", "--model=mnist", "--beta=1", "--confidence=0.9"],
      "give either beta or confidence, not both",
      2,
    ),
    (
      ["--output=/nowhere/x", "--model=mnist", "--noend_early"],
      "noend_early needs beta or confidence: without a rule no image is decided",
      2,
    ),
    (
      ["--output=/nowhere/x", "--model=mnist", "--workdir=run"],
      "or --workdir=RUN, not both",
      2,
    ),
    (
      ["--output=/nowhere/x", "--model=nobody"],
      "model must be one of ",
      2,
    ),
    (["--output=/nowhere/x", "--workdir=/nowhere"], "/nowhere holds no run", 1),
    (
      ["--output=/nowhere/x", "--model=mnist", "--num_glimpses=0"],
      "num_glimpses must be at least 1, not 0",
      2,
    ),
    (
      ["--output=/nowhere/x", "--model=mnist", "--beta=nan"],
      "beta must be finite and at least 0",
      2,
    ),
    (["--image_size=28"], "image_size must be HxW, such as 28x28, or any, not '28'", 2),
    (
      ["--output=/nowhere/x", "--model=mnist", "--image_size=28x7"],
      "image_size must be at least 8x8, a patch of the model, not 28x7",
      2,
    ),
  ],
  "convergence": [
    (["--objective=both"], "objective must not be given", 2),
    (["--num_devices=3"], "num_devices must divide the number of runs, 32", 2),
  ],
  "stability": [
    (["--lambdas=0,x"], "lambdas must be numbers", 2),
    (["--lambdas=0,0.0"], "lambdas must be different", 2),
    (["--lambdas=nan"], "lambdas must be different finite numbers", 2),
    (["--lambdas=0.1,-1"], "lambda_intrinsic must be at least 0, not -1.0", 2),
    (["--lambda_intrinsic=0.1"], "lambda_intrinsic must not be given", 2),
    (["--objective=original"], "objective must be intrinsic or both", 2),
    (["--num_seeds=0"], "num_seeds must be at least 1, not 0", 2),
  ],
  "ablation": [
    (["--core=lstm"], "core must not be given", 2),
    (["--cores=gru"], "core must be one of rnn, lstm", 2),
    (["--cores=rnn,rnn"], "cores must be different, not 'rnn,rnn'", 2),
    (["--rollouts=0"], "rollouts must be different integers of at least 1, not '0'", 2),
    (["--rollouts=1,1"], "rollouts must be different integers", 2),
    (["--rollouts="], "rollouts must be different integers", 2),
    (["--num_epochs=12"], "num_epochs must be a multiple of 8, to be divided by 8", 2),
    (["--change=core"], "--change=core: core must be one of rnn, lstm, not ''", 2),
    (["--change=speed=1"], "--change=speed=1: 'speed' is no setting of a training", 2),
    (["--change=batch_size=64"], "change must not be of batch_size: all variants", 2),
    (["--change=dataset=mnist"], "change must not be of dataset: all variants", 2),
    (["--change=core=rnn"], "change must name settings that are different, and not", 2),
    (["--change=core=lstm", "--cores=rnn"], "cores must not be given with --change", 2),
    (["--change=rollouts_per_image=3"], "batch_size must be a multiple of 3", 2),
  ],
  "same_glimpses": [
    (["--num_glimpses=6"], "num_glimpses must not be given", 2),
    (["--glimpses=0"], "glimpses must be different integers of at least 1", 2),
    (["--glimpses=two"], "glimpses must be integers", 2),
  ],
  "records": [
    ([], "recipe must be given", 2),
    (["--recipe=mnist", "--dataset=fashion_mnist"], "recipe mnist is for", 2),
    (["--recipe=tuned", "--num_epochs=0"], "num_epochs must be at least 1, not 0", 2),
    (
      ["--recipe=tuned", "--num_seeds=1", "--coordinator_address=localhost:1"],
      "coordinator_address must not be given",
      2,
    ),
  ],
  "look": [
    ([], "no image is given; name files, or folders of images", 2),
    (["x.png", "--location_noise=-1"], "location_noise must be at least 0, not -1", 2),
    (["x.png"], "give --model (", 2),
    (["x.png", "--model=mnist", "--workdir=x"], "or --workdir=RUN, not both", 2),
    (["x.png", "--model=mist"], "model must be one of ", 2),
    (["x.png", "--workdir=/nowhere"], "/nowhere holds no run", 1),
    (["x.png", "--workdir=/nowhere.safetensors"], "does not exist", 1),
    (
      ["x.png", "--model=mnist", "--num_glimpses=0"],
      "num_glimpses must be at least",
      2,
    ),
    (["x.png", "--model=mnist", "--num_samples=0"], "num_samples must be at least", 2),
    (["x.png", "--model=mnist", "--output="], "output must name a folder", 2),
    (["x.png", "--workdir=x,y"], "workdir must name one run, not x,y", 2),
    (
      ["x.png", "--model=mnist", "--num_glimpses=100000000000"],
      "num_glimpses must be at most 1,000,000",
      2,
    ),
    (["x.png", "--model=mnist", "--beta=-1"], "beta must be finite and at least 0", 2),
    (
      ["x.png", "--model=mnist", "--confidence=1"],
      "confidence must be greater than 0 and less than 1, not 1.0",
      2,
    ),
    (
      ["x.png", "--model=mnist", "--confidence=0.9", "--beta=0.2"],
      "give either beta or confidence, not both",
      2,
    ),
    (["/nowhere.png", "--model=mnist"], "/nowhere.png does not exist", 1),
    ([__file__, "--model=mnist"], "cannot be read as an image; convert it to PNG", 1),
  ],
  "demo": [
    (["x.png"], "unexpected argument 'x.png'", 2),
    (["--model=mnist", "--workdir=x"], "or --workdir=RUN, not both", 2),
    (["--model=mist"], "model must be one of ", 2),
    (["--workdir=/nowhere"], "/nowhere holds no run", 1),
    (["--beta=-1"], "beta must be finite and at least 0", 2),
    (["--beta=nan"], "beta must be finite and at least 0", 2),
    (["--confidence=2"], "confidence must be greater than 0 and less than 1", 2),
    (["--port=65536"], "--port=65536: 65536 is not an integer in the range", 2),
    (["--host=203.0.113.1"], "host 203.0.113.1 is no address of this machine", 2),
  ],
  "publish": [
    ([], "name must be small letters, digits and _, such as mnist, not None", 2),
    (["--name=My model"], "not 'My model'", 2),
    (["--name=x"], "--workdir must name a trained run", 2),
    (["--name=x", "--workdir=x,"], "--workdir has an empty name; remove a comma", 2),
  ],
  "baselines": [
    (["--models=transformer"], "models must be some of fully_connected", 2)
  ],
  "benchmark": [
    (["--rounds=0"], "rounds must be at least 1, not 0", 2),
    (["--batch_sizes=32,x"], "batch_sizes must be integers", 2),
    (["--compare=/nowhere.json"], "/nowhere.json cannot be read", 1),
  ],
  "report": [(["--chek"], "Unknown command line flag 'chek'", 2)],
}
TRAINED = ("glimpse_generalization", "calibration", "error_rates", "stopping_rules")
WITHOUT_DATA = (*TRAINED, "benchmark", "demo", "export", "look", "publish", "report")


def refuse(script, *arguments):
  """The one line of a script that ends before it computes anything, and its status."""
  ended = forked.run(script, *arguments)
  assert ended.stderr.startswith(f"{script}: ")
  assert ended.stderr.count("\n") == 1, ended.stderr
  return ended.stderr, ended.returncode


@pytest.mark.parametrize(
  ("script", "arguments", "message", "status"),
  [(script, *case) for script, cases in SCRIPTS.items() for case in cases],
)
def test_a_bad_command_line_is_one_line(
  script, arguments, message, status, npz_file, tmp_path
):
  given = []
  if script not in WITHOUT_DATA:
    given = [f"--dataset=npz:{npz_file}", f"--workdir={tmp_path / 'new'}"]
  elif script == "glimpse_generalization":
    given = [f"--workdir={tmp_path}"]
  elif script in ("look", "publish"):
    given = [f"--output={tmp_path / 'new'}"]
  line, found = refuse(script, *given, *arguments)
  assert message in line
  assert found == status, line
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  "kind", ["a file", "a foreign folder", "under a file", "damaged"]
)
def test_a_workdir_that_cannot_be_used(kind, npz_file, tmp_path):
  """It is named, left as it is, and nobody is told to remove it."""
  workdir = tmp_path / "run"
  if kind == "a foreign folder":
    workdir.mkdir()
    (workdir / "thesis.txt").write_text("mine")
  elif kind == "damaged":
    workdir.mkdir()
    (workdir / "config.json").write_text('{"config": {')
  else:
    workdir.write_text("mine")
  before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
  if kind == "under a file":
    workdir = workdir / "run"
  line, status = refuse("train", f"--dataset=npz:{npz_file}", f"--workdir={workdir}")
  assert status in (1, 2)
  assert str(workdir) in line
  assert "--workdir" in line
  assert "remove" not in line
  assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
  ("trains", "message"),
  [
    (True, "x: the memory is too small for a step; give more --accum"),
    (False, "x: the memory is too small; give fewer or smaller images"),
  ],
)
def test_what_does_not_fit_into_memory_is_one_line(
  trains, message, monkeypatch, capsys
):
  """Of XLA's message, which is long."""
  if trains:
    absl_flags.DEFINE_integer("accumulation_steps", 1, "As a training has it.")

  def main():
    raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 999 bytes.\nMore.")

  monkeypatch.setattr("sys.argv", ["x"])
  try:
    with flagsaver.flagsaver(), pytest.raises(SystemExit) as ended:
      app.run(main)
  finally:
    if trains:
      delattr(absl_flags.FLAGS, "accumulation_steps")
  assert ended.value.code == 1
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith(message)
