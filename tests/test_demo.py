"""`experiments.demo`: from a drawing to a page, bad drawings, the port, and a real browser."""

import html
import importlib.util
import io
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys

import browser
import forked
import jax
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

import ramjax
from experiments import demo
from experiments.cli.errors import RunError, UsageError
from experiments.reporting import demo_page
from experiments.runs import drawings
from ramjax.config import Config, ModelConfig, TrainConfig
from ramjax.data import DataError, DatasetInfo
from ramjax.data.scans import like_mnist

ROOT = pathlib.Path(__file__).parent.parent
SEVEN = [(120, 90), (280, 90), (180, 330)]


@pytest.fixture(scope="module")
def model():
  return ramjax.pretrained("mnist")


def own_model(shape, names=("cat", "dog"), *, canvas_size=None, mean=0.2, **train):
  """A model that has learned nothing."""
  size = (canvas_size, canvas_size, shape[-1]) if canvas_size else shape
  config = Config(
    model=ModelConfig(
      image_shape=size, num_classes=len(names), hidden_size=16, branch_size=8
    ),
    train=TrainConfig(num_glimpses=3, **{"dataset": "npz:mine.npz", **train}),
  )
  info = DatasetInfo(
    image_shape=shape,
    mean=(mean,) * shape[-1],
    std=(0.2,) * shape[-1],
    class_names=names,
    train_counts=(1,) * len(names),
    validation_counts=(1,) * len(names),
    test_counts=(1,) * len(names),
    canvas_size=canvas_size,
  )
  params = ramjax.recurrent_attention_model(config.model).init(jax.random.key(0))
  return ramjax.Predictor(config, params, info)


def drawn(points=SEVEN, size=(400, 400), ground=None, width=36):
  """A drawing on transparent ground, or a photo of one on a colour."""
  drawing = Image.new("RGBA", size, ground)
  ImageDraw.Draw(drawing).line(points, (16, 20, 24, 255), width, joint="curve")
  return drawing


def data_of(answer):
  """What the page in an answer knows."""
  [page] = re.findall(r'srcdoc="([^"]*)"', answer)
  page = html.unescape(page)
  [found] = re.findall(r'<script type="application/json" id="data">(.*)</script>', page)
  return page, json.loads(found)


def test_a_drawing_is_looked_at_like_a_scan_of_it(model):
  image = drawings.read(drawings.address(drawn()), model)
  scan = np.asarray(drawn(ground="white").convert("RGB"))
  np.testing.assert_allclose(image.astype(int), like_mnist(scan), atol=20)
  assert model.class_names[int(model(image).label)] == "7"


def test_ink_at_the_border_of_a_drawing_belongs_to_it(model):
  points = [(150, 0), (60, 230), (399, 230)]
  four = drawn(points)
  ImageDraw.Draw(four).line([(280, 60), (280, 340)], (16, 20, 24, 255), 36)
  found = drawings.read(drawings.address(four), model)
  wide = ImageOps.expand(four, 60)
  expected = drawings.read(drawings.address(wide), model)
  np.testing.assert_allclose(found.astype(int), expected, atol=40)


def test_a_drawing_keeps_its_place_on_a_canvas_and_is_white_on_black():
  model = own_model((28, 28, 1), canvas_size=60, dataset="mnist_translated_60")
  small = drawn([(300, 250), (300, 350)], width=20)
  image = drawings.read(drawings.address(small), model)
  assert image.shape == (60, 60, 1)
  rows, columns = np.nonzero(image[..., 0] > 127)
  np.testing.assert_allclose((rows.mean(), columns.mean()), (45, 45), atol=1)
  assert np.median(image) == 0


@pytest.mark.parametrize(
  ("shape", "mean", "ground"),
  [((20, 30, 1), 0.8, 255), ((20, 30, 1), 0.2, 0), ((20, 30, 3), 0.2, 255)],
)
def test_other_models_get_the_size_and_the_ground_of_their_images(shape, mean, ground):
  image = drawings.read(drawings.address(drawn()), own_model(shape, mean=mean))
  assert image.shape == shape
  assert np.median(image) == ground


def test_models_of_resized_folders_get_images_resized():
  model = own_model((16, 16, 3), dataset="folder:x", resize="16x16", background="7")
  wide = drawn([(50, 50), (350, 150)], size=(400, 200), ground="white")
  image = drawings.read(drawings.address(wide), model)
  assert image[:, 0, 0].tolist() == [7] * 4 + [255] * 8 + [7] * 4


def bad_drawings():
  text = drawings.address(drawn())
  jpeg = io.BytesIO()
  drawn(ground="white").convert("RGB").save(jpeg, "JPEG")
  head = text[: text.index(",") + 1]
  return {
    "a number": (3, "it is no PNG"),
    "a dictionary": ({"composite": None}, "it is no PNG"),
    "words": ("<script>alert(1)</script>", "it is no PNG"),
    "an address of a file": ("file:///etc/passwd", "it is no PNG"),
    "no base64": (head + "§§", "it cannot be read as an image"),
    "cut off": (text[: len(text) // 2], "it cannot be read as an image"),
    "no image": (head + "AAAA", "it cannot be read as an image"),
    "a JPEG": (head + drawings.base64.b64encode(jpeg.getvalue()).decode(), "it cannot"),
    "too many characters": (head + "A" * 5_000_000, "it is too large"),
    "too many pixels": (drawings.address(Image.new("L", (1001, 1000))), "too large"),
    "a bomb": (drawings.address(Image.new("1", (20000, 20000))), "it cannot be read"),
    "a line": (drawings.address(Image.new("L", (900, 100))), "it is too narrow"),
    "nothing drawn": (drawings.address(Image.new("RGBA", (400, 400))), "nothing can"),
    "a white sheet": (drawings.address(Image.new("L", (40, 40), 255)), "nothing can"),
  }


@pytest.mark.parametrize("name", bad_drawings())
def test_what_is_no_drawing_is_refused_in_friendly_words(name, model):
  given, expected = bad_drawings()[name]
  with pytest.raises(DataError, match=expected):
    drawings.read(given, model)
  shown = demo.answerer(model, "mnist", beta=0.2)(given)
  assert "There is no answer" in shown
  assert expected[1:] in shown
  assert "Clear the paper" in shown
  assert "<script" not in shown
  assert "iframe" not in shown


@pytest.mark.parametrize("nothing", [None, ""])
def test_without_a_drawing_there_is_a_hint(nothing, model):
  assert demo.answerer(model, "mnist", beta=0.2)(nothing) == demo_page.hint(model)
  assert "for example a <b>3</b>" in demo_page.hint(model)


def test_hints_name_the_classes_and_where_to_draw():
  names = ("<b>cat</b>", *map(str, range(20)))
  hint = demo_page.hint(own_model((28, 28, 1), names, canvas_size=56))
  assert "It knows &lt;b&gt;cat&lt;/b&gt;, 0, " in hint
  assert ", 10, …. Draw" in hint
  assert "small: 50 % of the height" in hint


def test_an_answer_is_a_page_that_plays_at_once(model):
  answer = demo.answerer(model, "mnist", beta=0.3)
  pages = [data_of(answer(drawings.address(drawn()))) for _ in range(2)]
  for page, found in pages:
    assert "<header>" not in page
    assert found["playsAtOnce"] is True
    assert found["beta"] == 0.3
    [look] = found["looks"]
    assert look["file"] == "Your drawing"
    assert int(np.argmax(look["p"][look["taken"] - 1])) == 7
  first, second = (found["looks"][0]["corners"] for _, found in pages)
  assert first != second


def test_the_model_stops_at_a_confidence(model):
  answer = demo.answerer(model, "mnist", confidence=0.9)
  _, found = data_of(answer(drawings.address(drawn())))
  assert (found["beta"], found["leastConfidence"]) == (None, 0.9)
  [look] = found["looks"]
  sure = [each >= 0.9 for each in look["confidence"][: look["taken"]]]
  assert sure == [False] * (look["taken"] - 1) + [True]


def test_nothing_is_compiled_after_the_first_drawing(model, caplog):
  answer = demo.answerer(model, "mnist", beta=0.2)
  with jax.log_compiles():
    for points, is_compiled in ((SEVEN, True), ([(90, 60), (300, 300)], False)):
      jax.clear_caches() if is_compiled else caplog.clear()
      answer(drawings.address(drawn(points)))
      assert ("Finished XLA compilation" in caplog.text) == is_compiled


def test_a_port_in_use_and_a_foreign_host_are_refused():
  with socket.create_server(("127.0.0.1", 0)) as server:
    port = server.getsockname()[1]
    with pytest.raises(RunError, match=f"port {port} is in use; give another --port"):
      demo.check_address("127.0.0.1", port)
  demo.check_address("127.0.0.1", port)
  with pytest.raises(UsageError, match=r"host 203.0.113.1 is no address of this"):
    demo.check_address("203.0.113.1", port)


def test_a_port_in_use_is_one_line():
  with socket.create_server(("127.0.0.1", 0)) as server:
    port = server.getsockname()[1]
    ended = forked.run("demo", f"--port={port}")
  assert ended.stderr == f"demo: port {port} is in use; give another --port\n"
  assert (ended.returncode, ended.stdout) == (1, "")


def test_only_this_machine_can_open_the_page_unless_asked():
  shown = " ".join(forked.run("demo", "--help").stdout.split())
  assert re.search(r"--host: [^()]*\(default: 127\.0\.0\.1\)", shown)
  assert re.search(r"--port: [^()]*\(default: 7860\)", shown)


@pytest.fixture
def served(tmp_path):
  """The address of a running demo, its process, and the folder of its temporary files."""
  with socket.create_server(("127.0.0.1", 0)) as server:
    port = server.getsockname()[1]
  process = subprocess.Popen(
    [sys.executable, "-m", "experiments.demo", f"--port={port}"],
    cwd=ROOT,
    env={**os.environ, "TMPDIR": str(tmp_path)},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  with process:
    try:
      lines = [process.stdout.readline() for _ in range(2)]
      address = f"http://127.0.0.1:{port}"
      assert address in lines[1], (lines, process.stderr.read())
      yield address, process, tmp_path
    finally:
      process.kill()


ANSWER = "document.querySelector('.demo iframe')?.contentDocument"
READY = f"{ANSWER}?.body?.dataset?.ready === 'true'"


@pytest.mark.slow
@pytest.mark.skipif(browser.PATH is None, reason="Chromium is not installed")
@pytest.mark.skipif(
  importlib.util.find_spec("gradio") is None, reason="Gradio is not installed"
)
def test_a_drawing_is_answered_in_a_browser(served):
  """Without a request to another machine; Ctrl-C ends all and leaves nothing behind."""
  address, process, folder = served
  with browser.Browser(width=390, height=844, is_dark=True) as page:
    page.open(address)
    page.wait_for("document.querySelector('.demo canvas')?.classList.contains('blank')")
    hint = page.wait_for("document.querySelector('.demo .card')?.textContent")
    assert "for example a 3" in hint
    box = "document.querySelector('.demo canvas').getBoundingClientRect()"
    x, y, side = (page.value(f"{box}.{name}") for name in ("x", "y", "width"))
    page.drag(
      [(x + side * column / 400, y + side * row / 400) for column, row in SEVEN]
    )
    page.wait_for(READY)
    state = f"{ANSWER}.querySelector('.state.stopped')?.textContent"
    assert re.fullmatch(r"Stopped after \d+ glimpses?", page.wait_for(state))
    assert page.value(f"{ANSWER}.querySelector('.answer').textContent").startswith("7 ")
    root = "document.documentElement"
    assert page.value(f"{root}.scrollWidth - {root}.clientWidth") == 0
    page.value("document.querySelector('.demo .clear').click()")
    page.wait_for("document.querySelector('.demo .card')?.textContent")
    page.value("document.querySelector('.demo .example').click()")
    page.wait_for(READY)
    page.wait_for(state)
    assert page.value(f"{ANSWER}.querySelector('.answer').textContent").startswith("3 ")
    asked = {request for request in page.requests if not request.startswith("data:")}
    assert {request.startswith(address) for request in asked} == {True}
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130
  line = "demo: SIGINT: the page is closed; run the same command again to go on\n"
  assert process.stderr.read() == line
  assert list(folder.iterdir()) == []
