"""Runs that train together: in step, each like a run alone, and resumed bit for bit."""

import dataclasses
import itertools
import json
import shutil
import time

import pytest
import synthetic
import trainings
from trainings import LINES, NUM_EXAMPLES, config_of

import ramjax
from experiments.cli import errors, signals
from experiments.runs import trainer
from experiments.runs import workdir as workdir_lib
from experiments.runs.program import run_keys
from ramjax import parallel, run_folder
from ramjax.checkpoint import CheckpointError, Checkpoints
from ramjax.config import Config, ConfigError, ModelConfig, ObjectiveConfig, TrainConfig

pytestmark = pytest.mark.usefixtures("signal_handlers")

RUNS = [config_of(0), config_of(1, "original"), config_of(5)]


@pytest.fixture(scope="module")
def dataset():
  return synthetic.make(NUM_EXAMPLES, 64, 64)


def train(dataset, folder, configs=RUNS, **options):
  workdirs = [folder / f"run_{number}" for number in range(len(configs))]
  return trainings.train(dataset, workdirs, configs, **options)


def end_of(folder, configs=RUNS):
  return [trainings.end_of(folder / f"run_{n}", c) for n, c in enumerate(configs)]


@pytest.fixture(scope="module")
def untouched(dataset, tmp_path_factory):
  """Three runs that nobody has touched."""
  folder = tmp_path_factory.mktemp("runs") / "untouched"
  accuracy = train(dataset, folder)
  assert accuracy == [lines[-1]["accuracy"] for _, lines in end_of(folder)]
  return folder


@pytest.fixture
def almost_done(untouched, tmp_path):
  """A copy of them that is saved at its last step and not tested."""
  folder = tmp_path / "almost_done"
  shutil.copytree(untouched, folder)
  for number in range(3):
    metrics = folder / f"run_{number}" / "metrics.jsonl"
    lines = [json.loads(line) for line in metrics.open()]
    kept = [json.dumps(line) + "\n" for line in lines if line["split"] != "test"]
    metrics.write_text("".join(kept))
  return folder


def test_runs_differ_and_each_has_a_folder_of_its_own(untouched):
  ends = end_of(untouched)
  assert len({digest for digest, _ in ends}) == 3
  for number, config in enumerate(RUNS):
    workdir = workdir_lib.Workdir(untouched / f"run_{number}")
    assert run_folder.read_config(workdir.path) == config
    assert any(workdir.tensorboard.iterdir())
  assert [(line["step"], line["split"]) for line in ends[0][1]] == LINES


def test_a_run_beside_others_is_the_run_alone_to_rounding(dataset, untouched):
  """The first two chunks; later on, rounding decides where a glimpse is taken."""
  _, lines = trainings.end_of(untouched / "run_0", RUNS[0])
  mesh = parallel.make_mesh(num_devices=1)
  alone = trainings.program(RUNS[:1], dataset, mesh, steps_per_call=2)
  state, order = alone.place(alone.init()), alone.epoch_order(1)
  for chunk, line in enumerate(lines[:2]):
    state, history = alone.train_chunk(state, order, 2 * chunk, 2 * chunk + 2)
    for name, values in history.items():
      if name != "skipped":
        assert line[name] == pytest.approx(float(values.mean()), rel=1e-4, abs=1e-5)


def test_validation_and_test_of_a_run_beside_others_are_its_own(dataset, untouched):
  """The weights of its own objective, its own keys, its own parameters."""
  config, (_, lines) = RUNS[1], trainings.end_of(untouched / "run_1", RUNS[1])
  params, _ = run_folder.restore(untouched / "run_1", config)
  keys, last = run_keys(config.train.seed), {line["split"]: line for line in lines}
  for key, split in ((keys.validation, "validation"), (keys.test, "test")):
    expected = ramjax.validate(
      key,
      params,
      *getattr(dataset, split),
      config=config,
      preprocess=dataset.preprocess,
    )
    for name, value in expected.items():
      assert last[split][name] == pytest.approx(float(value), rel=1e-5), name


def test_interrupted_runs_end_as_untouched_ones(dataset, untouched, tmp_path, capsys):
  """Within an epoch, and between two; three lines are written for each chunk."""
  for lines, step in ((3, 2), (6, 5), (3, 7)):
    with (
      trainings.interruption(lines),
      pytest.raises(signals.Interrupted, match=f"saved at step {step}"),
    ):
      train(dataset, tmp_path)
  train(dataset, tmp_path)
  assert end_of(tmp_path) == end_of(untouched)
  printed = capsys.readouterr().out
  assert "resuming within epoch 2, step 7" in printed
  assert "3 runs  train accuracy" in printed


@pytest.mark.parametrize("lacking", [[0], [1, 2]])
def test_runs_of_which_some_lack_the_newest_step_go_on_from_a_common_one(
  lacking, dataset, untouched, almost_done
):
  """As after a kill between the saves of one step."""
  for number in lacking:
    shutil.rmtree(almost_done / f"run_{number}" / "checkpoints" / "10")
  train(dataset, almost_done)
  assert end_of(almost_done) == end_of(untouched)


def test_runs_killed_in_their_first_save_begin_anew(dataset, untouched, almost_done):
  for number in range(3):
    shutil.rmtree(almost_done / f"run_{number}" / "checkpoints" / "10")
  shutil.rmtree(almost_done / "run_1" / "checkpoints")
  train(dataset, almost_done)
  assert end_of(almost_done) == end_of(untouched)


def test_a_damaged_checkpoint_of_one_run_takes_all_back(
  dataset, untouched, almost_done
):
  checkpoints = almost_done / "run_2" / "checkpoints"
  (checkpoints / "10" / "_CHECKPOINT_METADATA").write_text("{")
  train(dataset, almost_done)
  assert end_of(almost_done) == end_of(untouched)
  assert (checkpoints / "damaged-10").is_dir()


@pytest.fixture
def saved_steps(monkeypatch):
  """The steps that are saved, each of which takes a while."""
  steps, save = [], Checkpoints.save

  def slowly(self, state, **options):
    steps.append(int(state.step))
    save(self, state, **options)
    time.sleep(0.05)

  monkeypatch.setattr(Checkpoints, "save", slowly)
  return steps


def test_a_long_epoch_is_saved_within(dataset, tmp_path, saved_steps):
  """After each chunk, if no time may go by without."""
  train(dataset, tmp_path, RUNS[:1], save_every_seconds=0.0)
  assert saved_steps == [2, 4, 5, 7, 9, 10]


def test_short_epochs_are_saved_now_and_then(dataset, tmp_path, saved_steps):
  """The first one, whose save takes long; for the others there is no time; the last."""
  [config] = (config_of(RUNS[0].train.seed, num_epochs=9),)
  train(dataset, tmp_path, [config], saving_share=1e-6)
  assert saved_steps == [5, 45]


def test_a_step_that_all_have_is_kept_until_all_have_a_newer_one(
  dataset, tmp_path, monkeypatch, caplog
):
  """One run cannot be saved for a while; all the same no common step is lost."""
  configs = [
    dataclasses.replace(run, train=dataclasses.replace(run.train, num_epochs=5))
    for run in RUNS
  ]
  first = tmp_path / "run_0" / "checkpoints"
  save, saves, steps_of_first = Checkpoints.save, itertools.count(), {}

  def fails(self, state, **options):
    is_second = next(saves) % 3 == 1  # the runs are saved in their order
    if is_second and int(state.step) in (10, 15, 20):
      steps_of_first[int(state.step)] = {int(path.name) for path in first.iterdir()}
      raise CheckpointError("checkpoint cannot be written: no space left")
    save(self, state, **options)

  monkeypatch.setattr(Checkpoints, "save", fails)
  train(dataset, tmp_path, configs)
  assert caplog.text.count("no space left; the training goes on") == 3
  assert all(5 in steps for steps in steps_of_first.values())
  with Checkpoints(first, read_only=True) as left:
    assert {20, 25} <= set(left.steps)


def test_runs_without_a_common_step_are_told_apart(dataset, almost_done):
  shutil.rmtree(almost_done / "run_1" / "checkpoints")
  with pytest.raises(errors.RunError, match=r"no step is saved by all .*run_1 0, "):
    train(dataset, almost_done)


def test_runs_at_their_end_are_left_alone_and_new_ones_trained(
  dataset, untouched, tmp_path, capsys
):
  shutil.copytree(untouched, tmp_path, dirs_exist_ok=True)
  before = end_of(tmp_path)
  more = [*RUNS, config_of(6), config_of(7), config_of(8)]
  accuracy = train(dataset, tmp_path, more)
  assert end_of(tmp_path) == before
  assert accuracy[:3] == [lines[-1]["accuracy"] for _, lines in before]
  printed = capsys.readouterr().out
  assert "3 runs  train accuracy" in printed
  assert [line.split(": test")[0] for line in printed.splitlines()[-6:]] == [
    str(tmp_path / f"run_{number}") for number in range(6)
  ]


def test_one_run_of_several_can_go_on_alone(dataset, tmp_path):
  with trainings.interruption(3), pytest.raises(signals.Interrupted):
    train(dataset, tmp_path)
  [accuracy] = train(dataset, tmp_path, RUNS[:1])
  [(_, lines)] = end_of(tmp_path, RUNS[:1])
  assert [(line["step"], line["split"]) for line in lines] == LINES
  assert lines[-1]["accuracy"] == accuracy


def test_a_run_that_stands_still_is_given_up_and_the_others_go_on(
  dataset, tmp_path, caplog
):
  """The intrinsic term of one is so large that no step of it is finite."""
  unsound = ObjectiveConfig(name="both", lambda_intrinsic=1e37)
  configs = [RUNS[0], dataclasses.replace(RUNS[1], objective=unsound), RUNS[2]]
  with pytest.raises(errors.RunError, match="run_1: given up at step 4"):
    train(dataset, tmp_path, configs, max_skipped_steps=4)
  assert "the other runs go on" in caplog.text
  (_, sound), (_, lines), _ = end_of(tmp_path, configs)
  assert [line["split"] for line in (sound[-1], lines[-1])] == ["test", "test"]
  assert sum(line.get("skipped_steps", 0) for line in lines) == 10
  assert not any(line.get("skipped_steps") for line in sound)
  with pytest.raises(errors.RunError, match="run_1: given up: its last 10 steps"):
    train(dataset, tmp_path, configs, max_skipped_steps=4)  # all are at their end


def test_runs_killed_while_they_are_drawn_get_their_confidence_later(
  dataset, tmp_path, monkeypatch
):
  fit, fitted = trainer._fit_confidence, []

  def killed_at_the_second(run, *arguments):
    fitted.append(run)
    if len(fitted) == 2:
      raise KeyboardInterrupt
    fit(run, *arguments)

  monkeypatch.setattr(trainer, "_fit_confidence", killed_at_the_second)
  with pytest.raises(KeyboardInterrupt):
    train(dataset, tmp_path)
  accuracy = train(dataset, tmp_path)
  ends = end_of(tmp_path)
  assert accuracy == [lines[-1]["accuracy"] for _, lines in ends]
  for number in range(len(RUNS)):
    place = workdir_lib.Workdir(tmp_path / f"run_{number}")
    assert place.confidence.exists()


def test_a_longer_training_drops_the_confidence_of_the_shorter_one(
  dataset, untouched, tmp_path
):
  shutil.copytree(untouched, tmp_path, dirs_exist_ok=True)
  place = workdir_lib.Workdir(tmp_path / "run_0")
  longer = RUNS[0].replace(train={"num_epochs": RUNS[0].train.num_epochs + 1})
  assert place.confidence.exists()
  with trainings.interruption(1), pytest.raises(signals.Interrupted):
    train(dataset, tmp_path, [longer])
  assert not place.confidence.exists()


def test_what_one_program_cannot_train_is_refused(dataset, tmp_path):
  with pytest.raises(ConfigError, match="must not differ but in seed"):
    train(dataset, tmp_path, [RUNS[0], config_of(0, num_glimpses=3)])


def test_it_learns(tmp_path):
  """A small model gets nine of ten images of ten classes right, after six epochs."""
  config = Config(
    model=ModelConfig(hidden_size=64, branch_size=32),
    train=TrainConfig(num_epochs=6, learning_rate=3e-3, batch_size=32),
  )
  dataset = synthetic.make(1600, 160, 500)
  [accuracy] = train(dataset, tmp_path, [config], steps_per_call=50)
  assert accuracy > 0.9


def test_images_are_moved_in_training_and_nowhere_else(dataset):
  """The first step has another loss; validation of the same parameters has the same."""
  mesh = parallel.make_mesh(num_devices=1)
  moved = RUNS[0].replace(train={"max_shift": 4})
  found = []
  for config in (RUNS[0], moved):
    program = trainings.program([config], dataset, mesh, steps_per_call=1)
    state = program.place(program.init())
    (validated,) = program.validate(state.params)
    _, history = program.train_chunk(state, program.epoch_order(1), 0, 1)
    found.append((validated["loss"], float(history["loss"][0])))
  (left, loss), (right, moved_loss) = found
  assert left == right
  assert abs(loss - moved_loss) > 1e-3
