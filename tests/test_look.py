"""`experiments.look`: image files to answers, a page, scanpaths and figures."""

import base64
import csv
import io
import json
import math
import pathlib
import re
import shutil
import subprocess

import forked
import jax
import numpy as np
import pytest
from PIL import Image, ImageDraw

import ramjax
from experiments import look as look_script
from experiments.reporting import look_figure, look_page, looks
from experiments.runs import shown
from ramjax.config import Config, ModelConfig, TrainConfig
from ramjax.data import DataError, DatasetInfo, image_files


@pytest.fixture(scope="module")
def model():
  return ramjax.pretrained("mnist")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Two photos of digits on paper, each in the folder of its class, and a note."""
  path = tmp_path_factory.mktemp("photos")
  for name, points in (
    ("1", [(100, 40), (95, 160)]),
    ("7", [(60, 50), (140, 50), (90, 150)]),
  ):
    (path / name).mkdir()
    image = Image.new("RGB", (200, 200), (235, 230, 220))
    ImageDraw.Draw(image).line(points, (30, 30, 60), 14, joint="curve")
    image.save(path / name / "photo.png")
  (path / "notes.txt").write_text("mine")
  return path


@pytest.fixture(scope="module")
def looked(folder, tmp_path_factory):
  """What a run on the folder printed and wrote."""
  output = tmp_path_factory.mktemp("look") / "out"
  arguments = (
    "--model=mnist",
    "--beta=0.2",
    "--label_from_folder",
    f"--output={output}",
  )
  ended = forked.run("look", str(folder), *arguments)
  assert ended.returncode == 0, ended.stderr
  return output, ended.stdout


def data_of(page):
  """What the page knows."""
  (found,) = re.findall(
    r'<script type="application/json" id="data">(.*)</script>', page
  )
  return json.loads(found)


def test_each_image_has_a_line_and_an_entry(looked, folder, model):
  """And the entries are what the model says of the prepared images."""
  output, printed = looked
  entries = json.loads((output / "look.json").read_text())
  assert [entry["label"] for entry in entries] == ["1", "7"]
  images, _ = shown.read(shown.find_files([str(folder)], output=folder / "look"), model)
  answers = jax.device_get(
    model(np.stack([image for _, image, *_ in images]), beta=0.2)
  )
  for i, entry in enumerate(entries):
    assert entry["file"] == str(folder / entry["label"] / "photo.png")
    assert entry["class"] == str(answers.label[i])
    assert entry["confidence"] == pytest.approx(answers.confidence[i], rel=1e-4)
    assert entry["num_glimpses"] == answers.num_glimpses[i] < 50
    assert entry["stopped"] is True
    assert len(entry["locations"]) == entry["num_glimpses"]
    np.testing.assert_allclose(
      list(entry["probs"].values()), answers.probs[i], rtol=1e-4
    )
    assert re.search(
      rf"{entry['file']}: {entry['class']}, confidence [\d.]+ %, {entry['num_glimpses']}"
      " glimpses",
      printed,
    )
  assert (
    "2 images, made like those of mnist (--as_is leaves them as they are)" in printed
  )
  assert re.search(r"accuracy (0|1|0\.5)\.?\d* \(2 images\)", printed)


def test_files_are_complete(looked):
  output, _ = looked
  assert sorted(path.name for path in output.iterdir()) == [
    *("1_photo.gif", "1_photo.png", "7_photo.gif", "7_photo.png"),
    *("look.html", "look.json", "scanpaths.csv"),
  ]
  entries = json.loads((output / "look.json").read_text())
  with (output / "scanpaths.csv").open() as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == sum(entry["num_glimpses"] for entry in entries)
  assert [row["stopped"] for row in rows].count("1") == 2
  for entry in entries:
    with Image.open(output / f"{entry['label']}_photo.gif") as moving:
      # The last frames are alike, and Pillow may store them as one that lasts longer.
      assert entry["num_glimpses"] <= moving.n_frames <= entry["num_glimpses"] + 3


def test_the_page_needs_no_network_and_holds_the_answers(looked):
  output, _ = looked
  page = (output / "look.html").read_text()
  addresses = set(re.findall(r"https?://[\w./]+", page))
  assert addresses == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xhtml"}
  entries = json.loads((output / "look.json").read_text())
  for look, entry in zip(data_of(page)["looks"], entries, strict=True):
    assert look["taken"] == entry["num_glimpses"]
    last = look["p"][entry["num_glimpses"] - 1]
    np.testing.assert_allclose(last, list(entry["probs"].values()), atol=1e-5)


def look_at(image, model, **options):
  answer = model(image, **options)
  beta = options.get("beta")
  return looks.Look("an image", image, ramjax.Answer(*map(np.asarray, answer)), beta)


def own_model(shape, names, **sizes):
  """A model that has learned nothing, of images of any shape."""
  counts = (1,) * len(names)
  config = Config(
    model=ModelConfig(
      image_shape=shape, num_classes=len(names), hidden_size=16, branch_size=8, **sizes
    ),
    train=TrainConfig(num_glimpses=3, dataset="npz:mine.npz"),
  )
  info = DatasetInfo(
    image_shape=shape,
    mean=(0.4,) * shape[-1],
    std=(0.2,) * shape[-1],
    class_names=names,
    train_counts=counts,
    validation_counts=counts,
    test_counts=counts,
  )
  params = ramjax.recurrent_attention_model(config.model).init(jax.random.key(0))
  return ramjax.Predictor(config, params, info)


def test_the_page_shows_the_file_beside_what_was_made_of_it(looked, folder):
  """Boxes lie on the file at the same place: the widest box around all ink holds it."""
  output, _ = looked
  for look in data_of((output / "look.html").read_text())["looks"]:
    photo = look["photo"]
    with Image.open(
      io.BytesIO(base64.b64decode(photo["image"].split(",")[1]))
    ) as shown:
      assert list(shown.size) == photo["shown"]
      assert max(shown.size) <= 320
    (top, left), (down, across) = photo["origin"], photo["step"]
    assert down == pytest.approx(across, rel=0.05)
    (row, column), (height, width) = photo["corner"], photo["size"]
    assert row == max(0, round(top - 0.2 * 28 * down))
    assert row + height == min(200, round(top + 1.2 * 28 * down))
    assert 0 <= column < left + 14 * across < column + width <= 200


def test_a_page_of_averages_says_so(model):
  image = np.zeros((28, 28, 1), np.uint8)
  one = look_page.page([look_at(image, model)], model, "x")
  assert "rollouts" not in one
  several = look_at(image, model, num_samples=3)._replace(num_samples=3)
  assert "are means of 3\n  rollouts" in look_page.page([several], model, "x")


@pytest.mark.parametrize(
  ("share", "words"),
  [
    (0.2961, "30 %"),
    (0.8994, "90 %"),
    (0.94996, "94.9 %"),
    (0.985514, "98.5 %"),
    (0.99999, "99.9 %"),
    (1.0, "100.0 %"),
    (math.nan, "not finite"),
  ],
)
def test_a_confidence_below_a_limit_never_reads_like_it(share, words):
  assert looks.percent(share) == words


def test_names_cannot_break_out_of_the_page(model):
  names = ("</script><script>alert(1)</script>", "<b>&amp;", *"abcdefgh")
  image = np.zeros((28, 28, 1), np.uint8)
  info = DatasetInfo.from_dict({**model.info.to_dict(), "class_names": names})
  other = ramjax.Predictor(model.config, model.params, info, model.temperature_t)
  look = look_at(image, other)._replace(file=names[0])
  page = look_page.page([look], other, names[0])
  assert "alert(1)</script>" not in page
  assert data_of(page)["classNames"] == list(names)
  assert data_of(page)["looks"][0]["file"] == names[0]


def test_it_looks_until_it_is_sure(folder, tmp_path, model):
  """Answers, scanpaths and page end where the confidence is reached."""
  arguments = ("--model=mnist", "--confidence=0.9", f"--output={tmp_path / 'out'}")
  ended = forked.run("look", str(folder), *arguments, "--nofigures")
  assert ended.returncode == 0, ended.stderr
  entries = json.loads((tmp_path / "out" / "look.json").read_text())
  with (tmp_path / "out" / "scanpaths.csv").open() as file:
    rows = list(csv.DictReader(file))
  on_page = data_of((tmp_path / "out" / "look.html").read_text())
  assert on_page["beta"] is None
  assert on_page["leastConfidence"] == 0.9
  for entry, shown_look in zip(entries, on_page["looks"], strict=True):
    taken = entry["num_glimpses"]
    assert entry["stopped"]
    assert 1 < taken < 50
    assert entry["confidence"] >= 0.9
    assert sum(row["image"] == entry["file"] for row in rows) == taken
    assert max(shown_look["confidence"][: taken - 1]) < 0.9
    assert shown_look["confidence"][taken - 1] >= 0.9


def test_a_folder_that_is_no_class_is_refused(folder, tmp_path):
  """Else all of its images would count as errors."""
  shutil.copytree(folder / "7", tmp_path / "photos of 7")
  arguments = ("--model=mnist", "--label_from_folder", f"--output={tmp_path / 'out'}")
  ended = forked.run("look", str(tmp_path / "photos of 7"), *arguments)
  assert ended.returncode == 2
  assert "is in the folder photos of 7, but the classes are 0, 1, 2" in ended.stderr
  assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def chromium():
  found = shutil.which("chromium") or shutil.which("chromium-browser")
  if not found:
    pytest.skip("Chromium is not installed")
  return found


def dom(chromium, address):
  """The page as it is after its scripts have run."""
  command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
  return subprocess.run(
    [*command, "--virtual-time-budget=4000", address],
    capture_output=True,
    text=True,
    timeout=60,
    check=True,
  ).stdout


@pytest.mark.slow
@pytest.mark.parametrize("beta", ["off", 0, 0.1, 0.3, 5])
def test_the_page_stops_where_the_library_does(beta, looked, folder, model, chromium):
  output, _ = looked
  page = dom(chromium, f"file://{output}/look.html#beta={beta}")
  assert 'data-ready="true"' in page
  states = re.findall(r'<p class="state[^>]*>([^<]*)', page)
  images, _ = shown.read(shown.find_files([str(folder)], output=folder / "look"), model)
  answers = model(np.stack([image for _, image, *_ in images]), num_glimpses=50)
  expected = []
  for i in range(len(images)):
    if beta == "off":
      expected.append("Glimpse 50 of 50")
      continue
    decided = ramjax.is_decided(
      answers.probs_t[:, i], answers.predicted_error_t[:, i], beta=beta
    )
    taken = int(np.argmax(decided)) + 1
    plural = "s" * (taken > 1)
    expected.append(
      f"Stopped after {taken} glimpse{plural}"
      if decided.any()
      else "Glimpse 50 of 50, undecided"
    )
  assert states == expected


def test_confidence_after_the_last_glimpse_is_that_of_the_answer(model):
  for beta in (None, 0.2):
    look = look_at(np.zeros((28, 28, 1), np.uint8), model, beta=beta, num_glimpses=12)
    found = looks.confidences(look, model)[look.num_glimpses - 1]
    np.testing.assert_allclose(found, look.answer.confidence, rtol=1e-5)


@pytest.mark.parametrize("shape", [(40, 50, 3), (60, 24, 1)])
def test_other_models_and_images_are_drawn(shape, tmp_path):
  """Colours, several scales, long names, more classes than a figure shows, no temperature."""
  names = tuple(f"class number {i} $x$" for i in range(14))
  model = own_model(shape, names, patch_size=6, num_scales=3)
  image = np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)
  look = look_at(image, model, beta=0.1, num_glimpses=4)
  found = data_of(look_page.page([look], model, "runs/x"))
  assert len(found["looks"][0]["shown"]) == 10
  assert found["confidenceName"] == "p"
  assert found["looks"][0]["patchSides"] == [6, 12, 24]
  look_figure.look_figure(look, model).savefig(tmp_path / "x.png")
  look_figure.write_animation(look, model, tmp_path / "x.gif")
  assert ", p " in looks.line(look, model)


def test_probabilities_that_are_not_finite_are_drawn(tmp_path):
  model = own_model((28, 28, 1), ("a", "b", "c"))
  image = np.zeros((28, 28, 1), np.uint8)
  look = look_at(image, model, num_glimpses=2)
  broken = {
    name: np.full_like(getattr(look.answer, name), np.nan)
    for name in ("probs", "probs_t", "predicted_error", "predicted_error_t")
  }
  look = look._replace(answer=look.answer._replace(**broken))
  look_figure.look_figure(look, model).savefig(tmp_path / "x.png")


def test_figures_of_different_images_have_different_names():
  files = ("scan.001.png", "scan.002.png", "x/a.png", "y/a.png", "z/x/a.png", "a_1.png")
  names = ["scan.001", "scan.002", "x_a", "y_a", "a_2", "a_1"]
  assert look_script._unique_names(list(map(pathlib.Path, files))) == names


@pytest.mark.parametrize("output", ["photos", "photos/../photos"])
def test_an_image_is_never_overwritten(tmp_path, output):
  folder = tmp_path / "photos"
  folder.mkdir()
  image = folder / "one.png"
  Image.new("L", (28, 28), 200).save(image)
  before = image.read_bytes()
  ended = forked.run(
    "look", str(folder), "--model=mnist", f"--output={tmp_path / output}"
  )
  assert ended.returncode == 2
  assert "one.png; give another --output" in ended.stderr
  assert image.read_bytes() == before
  assert [path.name for path in folder.iterdir()] == ["one.png"]


def test_grey_and_colour_are_converted(tmp_path):
  pixels = np.random.RandomState(0).randint(0, 256, (30, 20, 3)).astype(np.uint8)
  Image.fromarray(pixels).save(tmp_path / "colour.png")
  Image.fromarray(pixels).convert("L").save(tmp_path / "grey.png")
  files = [tmp_path / "colour.png", tmp_path / "grey.png"]
  (colour, grey), done = shown.read(files, own_model((32, 32, 1), ("a", "b")))
  assert done == "as they are, 1 converted to grey"
  assert colour.image.shape == grey.image.shape == (30, 20, 1)
  assert np.abs(colour.image.astype(int) - grey.image).max() <= 1
  (colour, grey), done = shown.read(files, own_model((32, 32, 3), ("a", "b")))
  assert done == "as they are, 1 converted to colour"
  np.testing.assert_array_equal(colour.image, pixels)
  assert grey.image.shape == (30, 20, 3)


def test_images_are_resized_as_those_of_the_training(tmp_path):
  Image.new("L", (40, 20), 200).save(tmp_path / "wide.png")
  model = own_model((16, 16, 1), ("a", "b"))
  train = {"resize": "16x16", "dataset": "folder:cats", "background": "7"}
  resized = ramjax.Predictor(
    model.config.replace(train=train), model.params, model.info
  )
  ((_, image, grid, _),), done = shown.read([tmp_path / "wide.png"], resized)
  assert "resized to 16x16, as in training" in done
  assert image[:, 0, 0].tolist() == [7] * 4 + [200] * 8 + [7] * 4
  assert grid == ((-10, 0), (2.5, 2.5))
  ((_, image, grid, _),), _ = shown.read([tmp_path / "wide.png"], resized, as_is=True)
  assert image.shape == (20, 40, 1)
  assert grid == ((0, 0), (1, 1))
  exif = Image.Exif()
  exif[0x0112] = 6  # the camera was turned
  Image.new("L", (400, 200), 200).save(tmp_path / "tall.jpg", exif=exif)
  ((_, _, grid, _),), _ = shown.read([tmp_path / "tall.jpg"], resized)
  assert grid == ((0, -100), (25, 25))


def test_figures_of_an_earlier_call_are_no_images(tmp_path):
  output = tmp_path / "look"
  output.mkdir()
  for path in (tmp_path / "a.png", output / "a.png", output / "a.gif"):
    Image.new("L", (40, 20), 200).save(path)
  assert shown.find_files([str(tmp_path)], output=output) == [tmp_path / "a.png"]
  figures = [output / "a.gif", output / "a.png"]
  assert sorted(shown.find_files([str(output)], output=output)) == figures  # if asked


def test_of_several_pages_the_first_is_read_and_a_line_says_so(tmp_path, model, caplog):
  pages = [Image.new("L", (40, 40), 0) for _ in range(3)]
  pages[0].paste(255, (10, 5, 20, 30))
  pages[0].save(tmp_path / "scan.tiff", save_all=True, append_images=pages[1:])
  (found,), _ = shown.read([tmp_path / "scan.tiff"], model)
  assert found.image.max() == 255
  assert "scan.tiff has 3 pages; the first is read" in caplog.text
  assert image_files.read([tmp_path / "scan.tiff"]).num_pages == [3]


def test_what_cannot_be_shown_is_named(tmp_path, model, monkeypatch):
  (tmp_path / "empty").mkdir()
  with pytest.raises(DataError, match="empty holds no image"):
    shown.find_files([str(tmp_path / "empty")], output=tmp_path)
  Image.new("L", (40, 20), 200).save(tmp_path / "blank.png")
  with pytest.raises(DataError, match=r"blank.png: nothing can be seen on it"):
    shown.read([tmp_path / "blank.png"], model)
  Image.new("L", (7, 30), 200).save(tmp_path / "tiny.png")
  with pytest.raises(DataError, match=r"tiny.png has 30 x 7 pixels, less than a patch"):
    shown.read([tmp_path / "tiny.png"], model, as_is=True)
  for most in (500, 350):  # Pillow warns, and refuses twice as many
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
    with pytest.raises(
      DataError, match=f"has more than {most} pixels; make it smaller"
    ):
      shown.read([tmp_path / "blank.png"], model)


def test_what_cannot_be_shown_does_not_stop_the_others(tmp_path, model, caplog):
  Image.new("L", (40, 20), 200).save(tmp_path / "blank.png")
  ImageDraw.Draw(digit := Image.new("L", (40, 40), 255)).line([(20, 5), (20, 35)], 0, 4)
  digit.save(tmp_path / "one.png")
  (tmp_path / "words.png").write_text("no image")
  ((file, *_),), _ = shown.read(sorted(tmp_path.iterdir()), model)
  assert file.name == "one.png"
  blank, words = (record.getMessage() for record in caplog.records)
  assert "blank.png: nothing can be seen on it" in blank
  assert "words.png cannot be read" in words
  assert blank.endswith("; left out")


def test_files_that_were_left_out_are_said_at_the_end(tmp_path, folder):
  (tmp_path / "words.png").write_text("no image")
  words, digit = str(tmp_path / "words.png"), str(next(folder.rglob("*.png")))
  arguments = ("--model=mnist", f"--output={tmp_path / 'out'}", "--nofigures")
  ended = forked.run("look", words, digit, *arguments)
  assert ended.returncode == 1
  assert ended.stderr.splitlines()[-1] == ("look: 1 of 2 files left out, see above")
  (entry,) = json.loads((tmp_path / "out" / "look.json").read_text())
  assert entry["file"] == digit


def test_ink_of_any_colour_is_seen_on_a_transparent_ground(tmp_path, model):
  found = []
  for ink in (0, 255):
    drawing = Image.new("LA", (40, 40), (ink, 0))
    ImageDraw.Draw(drawing).line([(20, 5), (20, 35)], (ink, 255), 4)
    drawing.save(tmp_path / "ink.png")
    ((_, image, *_),), _ = shown.read([tmp_path / "ink.png"], model)
    found.append(image)
  np.testing.assert_array_equal(*found)


def test_a_light_ground_is_warned_of_where_the_training_had_a_dark_one(caplog):
  canvas = ramjax.pretrained("translated_60")
  digit = np.zeros((60, 60, 1), np.uint8)
  digit[20:40, 28:32] = 255
  images = [shown.Shown("dark.png", digit), shown.Shown("light.png", 255 - digit)]
  with caplog.at_level("WARNING", logger="absl"):
    shown.warn_of_ground(images, ramjax.pretrained("fashion_mnist"))
    assert not caplog.records
    shown.warn_of_ground(images, canvas)
  [record] = caplog.records
  assert record.getMessage().startswith(
    "light.png has a light ground, but the model was trained on a dark one"
  )
