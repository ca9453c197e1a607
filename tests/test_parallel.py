"""One device, eight, two processes: the same numbers, and nobody waits in vain."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import ramjax
from experiments.runs.workdir import Workdir, open_run
from ramjax import data, parallel
from ramjax.checkpoint import Checkpoints
from ramjax.config import Config, ConfigError, ModelConfig, TrainConfig

ROOT = pathlib.Path(__file__).parent.parent


def free_address():
  with socket.socket() as listener:
    listener.bind(("127.0.0.1", 0))
    return f"127.0.0.1:{listener.getsockname()[1]}"


def start(*arguments):
  return subprocess.Popen(
    [sys.executable, *map(str, arguments)],
    cwd=ROOT,
    env={**os.environ, "PYTHONPATH": str(ROOT)},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def finish(process, seconds=300):
  try:
    stdout, stderr = process.communicate(timeout=seconds)
  finally:
    process.kill()
  return process.returncode, stdout, stderr


@pytest.fixture(scope="module")
def found(tmp_path_factory):
  """The same training on one device, on four, and on one in each of two processes."""
  folder = tmp_path_factory.mktemp("devices")
  script = ROOT / "tests" / "on_devices.py"
  address = free_address()
  running = [
    start(script, folder / "1.npz", 1),
    start(script, folder / "4.npz", 4),
    *(start(script, folder / "2.npz", 2, address, 2, process) for process in (0, 1)),
  ]
  for process in running:
    status, _, stderr = finish(process)
    assert status == 0, stderr
  return {number: dict(np.load(folder / f"{number}.npz")) for number in (1, 2, 4)}


@pytest.mark.parametrize("number", [4, 2])
def test_the_first_ten_steps_are_those_of_one_device(number, found):
  """Further on, what is rounding now decides where a glimpse is taken."""
  one, many = found[1], found[number]
  assert len(one["loss"]) == 10
  assert not one["skipped"].any()
  names = [name for name in one if name.startswith(("loss", "skipped", "params/"))]
  for name in names:
    np.testing.assert_allclose(many[name], one[name], rtol=1e-5, atol=1e-5)


def test_batches_in_parts_are_divided_too(found):
  names = [name for name in found[4] if name.startswith("parts/")]
  assert len(names) > 10
  for name in names:
    expected = found[1][name.removeprefix("parts/")]
    np.testing.assert_allclose(found[4][name], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("number", [4, 2])
def test_evaluation_is_that_of_one_device(number, found):
  one, many = found[1], found[number]
  names = [name for name in one if name.startswith(("validation/", "evaluation/"))]
  assert len(names) == 16
  for name in names:
    np.testing.assert_allclose(many[name], one[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
  ("number", "training", "evaluation"),
  [
    (1, [], []),
    (2, ["all-reduce"], ["all-gather"]),
    (4, ["all-reduce"], ["all-gather"]),
  ],
)
def test_devices_exchange_gradients_and_predictions_only(
  number, training, evaluation, found
):
  """If each device did all the work, nothing would be exchanged."""
  assert found[number]["in_training"].tolist() == training
  assert found[number]["in_evaluation"].tolist() == evaluation


def test_each_device_puts_its_own_images_on_canvases(found):
  """Placing many images at once is a scatter, which is not divided by itself."""
  assert found[4]["in_cluttered"].tolist() == ["all-reduce"]


def test_devices_share_runs_and_have_nothing_to_tell_each_other(found):
  """What is exchanged is looked at in `on_devices.py`."""
  alone, shared = found[4]["runs/alone"], found[4]["runs/shared"]
  assert alone.shape == (4, 10)
  np.testing.assert_allclose(shared, alone, rtol=1e-5)
  assert len(set(alone[:, 0].tolist())) == 4


def test_one_device_is_the_default_on_cpus():
  mesh = parallel.make_mesh(train=TrainConfig(batch_size=7))
  assert mesh.devices.tolist() == jax.devices()[:1]


@pytest.mark.parametrize(
  ("batch_size", "parts", "chosen"), [(32, 1, 4), (33, 1, 3), (7, 1, 1), (32, 16, 2)]
)
def test_accelerators_that_divide_the_batch_are_the_default(
  batch_size, parts, chosen, monkeypatch
):
  """A machine of six, played."""
  devices = np.array(jax.devices() * 6)
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  monkeypatch.setattr(jax, "local_device_count", lambda: 6)
  monkeypatch.setattr(jax, "devices", lambda: list(devices))
  monkeypatch.setattr(parallel, "Mesh", lambda devices, names: devices)
  train = TrainConfig(batch_size=batch_size, accumulation_steps=parts)
  assert len(parallel.make_mesh(train=train)) == chosen
  assert len(parallel.make_mesh()) == 6
  with pytest.raises(
    ConfigError, match=r"batch_size must be a multiple of .* 5, not 32"
  ):
    parallel.make_mesh(num_devices=5, train=TrainConfig())
  with pytest.raises(ConfigError, match=r"5, times accumulation_steps, 2, not 32"):
    parallel.make_mesh(num_devices=5, train=TrainConfig(accumulation_steps=2))


@pytest.mark.parametrize(
  ("number", "message"), [(0, "at least 1, not 0"), (9, "at most 1, not 9")]
)
def test_devices_that_are_not_there(number, message):
  with pytest.raises(ConfigError, match=f"^num_devices must be {message}"):
    parallel.make_mesh(num_devices=number)


def test_each_process_gives_the_same_number_of_devices(monkeypatch):
  """Two processes, played."""
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  with pytest.raises(ConfigError, match="a multiple of num_processes, 2, not 3"):
    parallel.make_mesh(num_devices=3)


@pytest.mark.parametrize(
  ("address", "number", "process", "message"),
  [
    ("host:1", None, 0, "must be given together"),
    (None, 2, 0, "must be given together"),
    (None, None, 0, "must be given together"),
    ("host:1", 0, 0, "num_processes must be at least 1, not 0"),
    ("host:1", 2, 2, "process_id must be from 0 to 1, not 2"),
    ("host:1", 2, -1, "process_id must be from 0 to 1, not -1"),
    ("auto", 2, None, "must not be given: coordinator_address is auto"),
  ],
)
def test_processes_that_are_named_badly(address, number, process, message):
  with pytest.raises(ConfigError, match=message):
    parallel.start(
      coordinator_address=address, num_processes=number, process_id=process
    )


def test_arrays_and_keys_are_placed():
  mesh = parallel.make_mesh()
  tree = {"array": np.arange(6).reshape(2, 3), "key": jax.random.key(3)}
  placed = parallel.place(tree, parallel.copied(mesh))
  for leaf in placed.values():
    assert leaf.sharding.is_equivalent_to(parallel.copied(mesh), leaf.ndim)
  here = parallel.on_this_process(placed)
  np.testing.assert_array_equal(here["array"], tree["array"])
  assert (jax.random.key_data(here["key"]) == jax.random.key_data(tree["key"])).all()
  assert parallel.from_first_process(tree) is tree


@pytest.fixture
def long_run(npz_file, tmp_path):
  """The flags of a run of many short epochs."""
  return [
    f"--dataset=npz:{npz_file}",
    f"--workdir={tmp_path / 'run'}",
    "--num_glimpses=2",
    "--hidden_size=16",
    "--num_epochs=100000",
    "--steps_per_call=5",
  ]


def train_together(long_run, workdir):
  """Two processes that train one run, when its first epoch is saved."""
  together = [f"--coordinator_address={free_address()}", "--num_processes=2"]
  together += long_run
  running = [
    start("-m", "experiments.train", *together, f"--process_id={process}")
    for process in (0, 1)
  ]
  checkpoints = workdir / "checkpoints"
  patience = time.monotonic() + 120
  while not any(path.name.isdigit() for path in checkpoints.glob("*")):
    assert time.monotonic() < patience
    assert all(process.poll() is None for process in running), running[0].communicate()
    time.sleep(0.2)
  return running


@pytest.mark.slow
def test_two_processes_stop_together_when_one_is_told_to(long_run, tmp_path):
  """The first one writes, the second one gets the signal; the same run goes on alone."""
  workdir = tmp_path / "run"
  running = train_together(long_run, workdir)
  running[1].send_signal(signal.SIGTERM)
  (status, stdout, stderr), other = (finish(process) for process in running)
  assert (status, other[0]) == (143, 143), stderr + other[2]
  saved = re.search(r"saved at step (\d+)", stderr)
  assert saved, stderr
  assert saved[0] in other[2]
  assert "on 2 x cpu" in stdout
  assert "parameters" in stdout
  assert "parameters" not in other[1]
  steps = [int(json.loads(line)["step"]) for line in (workdir / "metrics.jsonl").open()]
  assert steps[-1] == int(saved[1])

  alone = start("-m", "experiments.train", *long_run)
  line = next(line for line in alone.stdout if "resuming" in line)
  assert f"step {saved[1]}" in line
  alone.kill()


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_other_one(long_run, tmp_path):
  """At once, in one line, with what was saved as it was."""
  running = train_together(long_run, tmp_path / "run")
  running[1].kill()
  status, _, stderr = finish(running[0], seconds=30)
  finish(running[1])
  assert status == 1, stderr
  assert "train: another process was lost (" in stderr
  assert "Traceback" not in stderr
  lines = map(json.loads, (tmp_path / "run" / "metrics.jsonl").open())
  epochs_end = {line["step"] for line in lines if line["split"] == "validation"}
  with Checkpoints(tmp_path / "run" / "checkpoints") as checkpoints:
    assert checkpoints.latest_step in epochs_end


@pytest.mark.slow
def test_two_processes_evaluate_as_one_does(npz_file, tmp_path):
  """The parameters are those of the first one, which alone writes."""
  dataset = data.load_dataset(f"npz:{npz_file}")
  config = Config(
    model=ModelConfig(hidden_size=16, branch_size=8),
    train=TrainConfig(
      num_glimpses=2,
      dataset=dataset.name,
      data_sha256=dataset.sha256,
      division=dataset.division,
    ),
  )
  optimizer = ramjax.make_optimizer(config.train, steps_per_epoch=1)
  for seed, name in enumerate(("alone", "first", "second")):
    place = Workdir(tmp_path / name)
    open_run(place, config)
    # As if the second process read a run that has been trained further since.
    key = jax.random.key(seed if name == "second" else 0)
    state = ramjax.init_train_state(key, config=config, optimizer=optimizer)
    with Checkpoints(place.checkpoints) as checkpoints:
      checkpoints.save(state)

  script = ["-m", "experiments.glimpse_generalization", "--max_glimpses=4"]
  script += ["--betas=0,0.1,0.5"]
  together = [f"--coordinator_address={free_address()}", "--num_processes=2"]
  running = [
    start(*script, f"--workdir={tmp_path / 'alone'}"),
    start(*script, f"--workdir={tmp_path / 'first'}", *together, "--process_id=0"),
    start(*script, f"--workdir={tmp_path / 'second'}", *together, "--process_id=1"),
  ]
  alone, first, second = (finish(process) for process in running)
  for status, _, stderr in (alone, first, second):
    assert status == 0, stderr
  assert "written to" in first[1]
  # Gloo's own lines go past Python.
  assert all(line.startswith("[Gloo]") for line in second[1].splitlines())
  assert sorted(path.name for path in (tmp_path / "second").iterdir()) == [
    "checkpoints",
    "config.json",
    "figures",
  ]
  assert (tmp_path / "first" / "glimpse_generalization.png").exists()

  found = []
  for name in ("alone", "first"):
    content = json.loads((tmp_path / name / "glimpse_generalization.json").read_text())
    (evaluated,) = content["runs"]
    points = evaluated["fixed"] + evaluated["dynamic"]
    found.append([list(point.values()) for point in points])
  assert len(found[0]) == 7
  # One of the 160 images may be on the border between two classes.
  np.testing.assert_allclose(
    np.concatenate(found[1]), np.concatenate(found[0]), rtol=1e-4, atol=1 / 150
  )
