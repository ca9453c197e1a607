"""Runs whose data have moved, have changed, are gone, or are others."""

import json
import shutil

import forked
import jax
import numpy as np
import pytest
from test_dataset_info import write_folder

import ramjax
from experiments.cli.errors import UsageError
from experiments.runs import workdir as workdir_lib
from experiments.runs.program import run_keys
from experiments.runs.trained import Datasets
from ramjax import data, run_folder
from ramjax.config import Config, TrainConfig
from ramjax.data.datasets import reading

COUNTS = {"cat": 40, "dog": 30, "fox": 30}
SMALL = (
  *("--batch_size=16", "--num_glimpses=2", "--patch_size=4", "--hidden_size=16"),
  *("--set=model.branch_size=8", "--learning_rate=0.01"),
)


def write_npz(path, counts=COUNTS):
  rng = np.random.RandomState(0)
  labels = np.repeat(np.arange(len(counts)), list(counts.values()))
  images = rng.randint(0, 256, (len(labels), 9, 12)).astype(np.uint8)
  np.savez(path, images=images, labels=labels)


def config_of(dataset, **train):
  """The configuration of a run on a dataset."""
  named = {"dataset": dataset.name, "data_sha256": dataset.sha256, **train}
  named |= {"division": dataset.division, "background": dataset.background}
  return Config(
    model=ramjax.ModelConfig(
      image_shape=dataset.image_shape, num_classes=dataset.num_classes
    ),
    train=TrainConfig(**named),
  )


@pytest.fixture(params=["npz:", "folder:"])
def moved(request, tmp_path):
  """The old name of a dataset, how it was named then, and a function that moves it."""
  kind = request.param
  old, new = tmp_path / "old" / "pets", tmp_path / "new" / "pets"
  old.parent.mkdir()
  new.parent.mkdir()
  if kind == "npz:":
    old, new = old.with_suffix(".npz"), new.with_suffix(".npz")
    write_npz(old)
  else:
    write_folder(old, COUNTS)
  return kind, old, new


@pytest.mark.parametrize("how", ["path", "data_dir", "link", "link in its place"])
def test_a_run_knows_its_data_wherever_they_lie(how, moved, tmp_path):
  """In evaluation and in resuming; the new path is recorded, and what else there was."""
  kind, old, new = moved
  dataset = data.load_dataset(f"{kind}{old}", canvas_size=20)
  config = config_of(dataset, canvas_size=20)
  place = workdir_lib.Workdir(tmp_path / "run")
  workdir_lib.open_run(place, config, dataset.info)

  shutil.move(old, new)
  name, options = f"{kind}{new}", {}
  if how == "data_dir":
    name, options = f"{kind}{old}", {"data_dir": str(new.parent)}
  elif how == "link":
    (tmp_path / "link").symlink_to(new)
    name = f"{kind}{tmp_path / 'link'}"
  elif how == "link in its place":
    old.symlink_to(new)
    name = f"{kind}{old}"
  again = data.load_dataset(name, **options, **reading(config.train))
  resumed = config_of(again, canvas_size=20)
  workdir_lib.open_run(place, resumed, again.info)
  assert run_folder.read_config(place.path) == config  # until it holds the run's lock
  workdir_lib.record_config(place, resumed, again.info)
  assert run_folder.read_config(place.path).train.dataset == again.name
  assert run_folder.read_info(place.path) == dataset.info == again.info
  found = data.dataset_of(run_folder.read_config(place.path))
  np.testing.assert_array_equal(found.train.images, dataset.train.images)


def test_a_run_of_an_earlier_version_gets_what_it_lacks(moved, tmp_path):
  kind, old, _ = moved
  dataset = data.load_dataset(f"{kind}{old}")
  config = config_of(dataset)
  place = workdir_lib.Workdir(tmp_path / "run")
  workdir_lib.open_run(place, config)
  assert run_folder.read_info(place.path) is None
  workdir_lib.open_run(place, config, dataset.info)
  workdir_lib.record_config(place, config, dataset.info)
  assert run_folder.read_info(place.path) == dataset.info
  workdir_lib.record_config(place, config)  # of whoever does not know it
  assert run_folder.read_info(place.path) == dataset.info


@pytest.mark.parametrize("recorded", [True, False])
def test_other_data_of_the_same_shape_are_no_continuation(recorded, moved, tmp_path):
  """Also if they lie where those of the run did."""
  kind, old, _ = moved
  dataset = data.load_dataset(f"{kind}{old}")
  place = workdir_lib.Workdir(tmp_path / "run")
  info = dataset.info if recorded else None
  workdir_lib.open_run(place, config_of(dataset), info)
  before = place.config.read_bytes()
  more = {**COUNTS, "dog": 31}
  if kind == "npz:":
    write_npz(old, more)
  else:
    shutil.rmtree(old)
    write_folder(old, more)
  found = data.load_dataset(f"{kind}{old}")
  if recorded:
    name = "1" if kind == "npz:" else "dog"
    told = f"101 images instead of 100 ({name}: 31 instead of 30)"
    here = f"the data have {told}"
  else:
    told = f"images and classes whose SHA-256 is {found.sha256}, not {dataset.sha256}"
    here = f"the SHA-256 of the data is {dataset.sha256} there and {found.sha256} here"
  with pytest.raises(UsageError) as caught:
    workdir_lib.open_run(place, config_of(found), found.info)
  assert str(caught.value) == (
    f"{place.path} holds a run of another configuration: {here}; give another"
    " --workdir, or flags and data of that run"
  )
  assert place.config.read_bytes() == before
  with pytest.raises(data.DataError) as caught:
    data.dataset_of(config_of(dataset), info=info)
  assert str(caught.value) == (
    f"{found.name} is not the dataset that the run was trained on: it has {told}"
  )


@pytest.fixture
def on_a_canvas(tmp_path):
  """Folders of two runs with clutter on a canvas of 20×20 pixels; their data are gone."""
  write_folder(tmp_path / "pets", COUNTS)
  dataset = data.load_dataset(
    f"folder:{tmp_path / 'pets'}", canvas_size=20, num_clutter=1
  )
  shutil.rmtree(tmp_path / "pets")
  places = [workdir_lib.Workdir(tmp_path / f"run{seed}") for seed in range(2)]
  for seed, place in enumerate(places):
    config = config_of(dataset, canvas_size=20, num_clutter=1, seed=seed)
    workdir_lib.open_run(place, config, dataset.info)
  return places


@pytest.mark.parametrize(
  ("size", "transformed", "shape"),
  [
    ((9, 12), True, (20, 20, 1)),  # on the canvas of the run
    ((20, 20), False, (20, 20, 1)),  # on a canvas already
    ((30, 20), False, (30, 20, 1)),  # too large for it
  ],
)
def test_other_images_get_the_canvas_of_the_run(
  size, transformed, shape, on_a_canvas, tmp_path
):
  images = np.random.RandomState(0).randint(0, 256, (30, *size)).astype(np.uint8)
  np.savez(tmp_path / "other.npz", images=images, labels=np.arange(30) % 3)
  datasets = Datasets(f"npz:{tmp_path / 'other.npz'}", None)
  (found, own), (again, _) = [
    datasets.find(place, run_folder.read_config(place.path)) for place in on_a_canvas
  ]
  assert not own
  assert again is found  # so that its program is compiled once
  assert found.image_shape == shape
  info = run_folder.read_info(on_a_canvas[0].path)
  assert (found.mean, found.std) == (info.mean, info.std)
  pool = jax.numpy.asarray(found.test.images)
  key = jax.random.key(1)
  canvas = {"canvas_size": 20, "num_clutter": 1} if transformed else {}
  other = data.load_dataset(f"npz:{tmp_path / 'other.npz'}", **canvas)
  plain = data.normalize(
    other.transform(key, pool[0], pool), mean=info.mean, std=info.std
  )
  shown = found.preprocess(key, pool[0], pool)
  np.testing.assert_allclose(shown, plain, atol=1e-6)


def test_only_folders_are_resized_as_those_of_the_run(tmp_path):
  write_folder(tmp_path / "pets", COUNTS)
  dataset = data.load_dataset(f"folder:{tmp_path / 'pets'}", resize="16x16")
  place = workdir_lib.Workdir(tmp_path / "run")
  config = config_of(dataset, resize="16x16")
  workdir_lib.open_run(place, config, dataset.info)
  write_folder(tmp_path / "zoo", COUNTS, seed=1)
  write_npz(tmp_path / "zoo.npz")
  for name, shape in (("folder:zoo", (16, 16, 1)), ("npz:zoo.npz", (9, 12, 1))):
    found, own = Datasets(name, str(tmp_path)).find(place, config)
    assert (found.image_shape, own) == (shape, False)


def test_data_with_a_canvas_of_their_own_keep_it(mnist, tmp_path):
  place = workdir_lib.Workdir(tmp_path / "run")
  dataset = data.load_dataset("mnist_cluttered_100")
  workdir_lib.open_run(place, config_of(dataset), dataset.info)
  for name, shape, is_own in (
    ("mnist_translated_60", (60, 60, 1), False),
    ("mnist", (100, 100, 1), False),
    ("mnist_cluttered_100", (100, 100, 1), True),
  ):
    found, own = Datasets(name, None).find(place, run_folder.read_config(place.path))
    assert (found.image_shape, own) == (shape, is_own)


def run(script, *arguments):
  ended = forked.run(script, *arguments)
  assert ended.returncode == 0, ended.stderr
  return ended.stdout


def refuse(script, *arguments):
  """The one line of a script that ends with an error, and its status."""
  ended = forked.run(script, *arguments)
  assert ended.stderr.count("\n") == 1, ended.stderr
  return ended.stderr, ended.returncode


def train(folder, workdir, *arguments):
  return forked.run(
    "train", f"--dataset=folder:{folder}", f"--workdir={workdir}", *SMALL, *arguments
  )


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
  """A run of one epoch, its data, and the same run of two epochs."""
  root = tmp_path_factory.mktemp("moved")
  write_folder(root / "pets", COUNTS)
  for name, num_epochs in (("run", 1), ("whole", 2)):
    ended = train(root / "pets", root / name, f"--num_epochs={num_epochs}")
    assert ended.returncode == 0, ended.stderr
  return root


@pytest.fixture
def copied(interrupted, tmp_path):
  """A run and its data, of which there is a copy in another place only."""
  shutil.copytree(interrupted / "run", tmp_path / "run")
  shutil.copytree(interrupted / "pets", tmp_path / "elsewhere" / "animals")
  shutil.move(interrupted / "pets", interrupted / "hidden")
  yield tmp_path
  shutil.move(interrupted / "hidden", interrupted / "pets")


def metrics_of(workdir):
  lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
  return [
    {name: value for name, value in line.items() if name != "examples_per_second"}
    for line in lines
    if line["split"] != "test"
  ]


@pytest.mark.slow
def test_a_run_is_resumed_and_judged_where_its_data_have_moved(interrupted, copied):
  """It ends as one whose data stayed, bit for bit."""
  workdir, animals = copied / "run", copied / "elsewhere" / "animals"
  judge = ("error_rates", f"--workdir={workdir}", "--glimpses=2", "--num_samples=1")
  line, status = refuse(*judge)
  assert status == 1
  assert f"{interrupted / 'pets'} cannot be read" in line
  assert f"if the data of {workdir} have moved, give --dataset" in line
  printed = run(*judge, f"--dataset=folder:{animals}")
  assert "judged on" not in printed  # they are its own

  ended = train(animals, workdir, "--num_epochs=2")
  assert "resuming after epoch 1" in ended.stdout, ended.stderr
  assert metrics_of(workdir) == metrics_of(interrupted / "whole")
  params = [
    run_folder.restore(place.path, run_folder.read_config(place.path))[0]
    for place in map(workdir_lib.Workdir, (workdir, interrupted / "whole"))
  ]
  jax.tree.map(np.testing.assert_array_equal, *params)
  run(*judge)  # the new place is recorded


@pytest.mark.slow
def test_a_run_is_refused_whose_data_gained_a_file(interrupted, copied):
  """Both in training and in evaluation, with what has changed."""
  workdir, animals = copied / "run", copied / "elsewhere" / "animals"
  shutil.copy(animals / "dog" / "000.png", animals / "dog" / "more.png")
  before = {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()}
  changes = "101 images instead of 100 (dog: 31 instead of 30)"
  ended = train(animals, workdir, "--num_epochs=2")
  assert ended.returncode == 2
  assert f"the data have {changes}" in ended.stderr
  assert ended.stderr.count("\n") == 1

  shutil.copytree(animals, interrupted / "pets")  # where the data of the run were
  line, status = refuse("error_rates", f"--workdir={workdir}")
  shutil.rmtree(interrupted / "pets")
  assert status == 1
  assert "is not the dataset that the run was trained on" in line
  assert f"it has {changes}" in line
  assert {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()} == before


@pytest.mark.slow
def test_changed_data_are_judged_where_it_is_asked_for_and_said(interrupted, copied):
  """Their division is another one, so that the run knows some of the images."""
  workdir, pets = copied / "run", interrupted / "pets"
  shutil.copytree(copied / "elsewhere" / "animals", pets)
  shutil.copy(pets / "dog" / "000.png", pets / "dog" / "more.png")
  judge = ("error_rates", f"--workdir={workdir}", "--glimpses=2", "--num_samples=1")
  printed = run(*judge, f"--dataset=folder:{pets}")
  shutil.rmtree(pets)
  assert "the run may have been trained on these images" in printed


@pytest.mark.slow
def test_a_run_without_its_data_is_judged_on_others(copied):
  """With its own normalisation and its own class numbers, and a line that says so."""
  workdir, root = copied / "run", copied / "others"
  write_folder(root / "zoo", {"fox": 30, "dog": 60}, seed=1)
  printed = run(
    "calibration",
    f"--workdir={workdir}",
    "--dataset=folder:/nowhere/zoo",
    f"--data_dir={root}",
    "--split=all",
    "--max_glimpses=2",
  )
  assert (
    f"judged on folder:{root / 'zoo'} (all of its images, 90), normalised as in training"
    in printed
  )
  content = json.loads((workdir / "calibration.json").read_text())
  [found] = content["runs"]
  zoo = data.load_dataset(f"folder:{root / 'zoo'}")
  assert content["split"] == "all"
  assert found["dataset"] == "folder_pets on folder_zoo"
  assert found["judged_on"] == {
    "dataset": zoo.name,
    "data_sha256": zoo.sha256,
    "own_data": False,
  }

  place = workdir_lib.Workdir(workdir)
  config, info = run_folder.read_config(place.path), run_folder.read_info(place.path)
  images, labels = zoo.all
  expected = ramjax.evaluate(
    run_keys(0).generalization,
    run_folder.restore(place.path, config)[0],
    images,
    labels + 1,  # dog and fox are the classes 1 and 2 of the run
    np.zeros(0, np.float32),
    model=config.model,
    evaluation_config=ramjax.EvaluationConfig(num_glimpses=2),
    preprocess=lambda key, image, pool: data.normalize(
      image, mean=info.mean, std=info.std
    ),
  )
  for point, accuracy, norm in zip(
    found["fixed"], expected.accuracy_t, expected.hidden_norm_t, strict=True
  ):
    assert point["accuracy"] == pytest.approx(float(accuracy), abs=1e-5)
    assert point["hidden_norm"] == pytest.approx(float(norm), rel=1e-4)


@pytest.mark.slow
def test_data_that_do_not_suit_a_run_are_one_line(copied):
  workdir, animals = copied / "run", copied / "elsewhere" / "animals"
  write_folder(copied / "zoo", {"cow": 10, "dog": 10})
  judge = ("glimpse_generalization", f"--workdir={workdir}", "--max_glimpses=1")
  line, status = refuse(*judge, f"--dataset=folder:{copied / 'zoo'}")
  assert status == 1
  assert "has classes that the run does not know: cow; those of the run are cat" in line
  line, status = refuse(*judge, f"--dataset=folder:{animals}", "--split=all")
  assert status == 2
  assert f"split must be test or validation, as {workdir} was trained on other" in line


@pytest.mark.slow
def test_a_run_of_an_earlier_version_is_judged_with_its_data(interrupted, copied):
  """Their normalisation is not recorded, so that they must be there."""
  workdir = copied / "run"
  place = workdir_lib.Workdir(workdir)
  content = json.loads(place.config.read_text())
  del content["data"]
  place.config.write_text(json.dumps(content))
  write_folder(copied / "zoo", {"dog": 20, "fox": 20}, seed=1)
  judge = ("error_rates", f"--workdir={workdir}", "--glimpses=2", "--num_samples=1")
  judge = (*judge, f"--dataset=folder:{copied / 'zoo'}", "--split=all")
  line, status = refuse(*judge)
  assert status == 1
  assert "did not record the normalisation, and its data cannot be read" in line
  shutil.copytree(copied / "elsewhere" / "animals", interrupted / "pets")
  old = run(*judge)
  shutil.rmtree(interrupted / "pets")

  content["data"] = run_folder.read_info(interrupted / "run").to_dict()
  place.config.write_text(json.dumps(content))
  assert run(*judge) == old


def test_renamed_classes_are_not_the_classes_of_a_run(tmp_path):
  """Their images are the same, so that the checksum does not tell."""
  counts = {"train_counts": (5, 5), "validation_counts": (1, 1), "test_counts": (1, 1)}
  known, renamed = (
    data.DatasetInfo(
      image_shape=(8, 8, 1), mean=(0.5,), std=(0.2,), class_names=names, **counts
    )
    for names in (("cat", "dog"), ("bird", "dog"))
  )
  config = Config(train=TrainConfig(dataset="folder:pets", data_sha256="a" * 64))
  workdir = workdir_lib.Workdir(tmp_path / "run")
  workdir_lib.open_run(workdir, config, known)
  workdir_lib.open_run(workdir, config, known)
  message = "the classes are called cat, dog there and bird, dog here"
  with pytest.raises(UsageError, match=message):
    workdir_lib.open_run(workdir, config, renamed)
