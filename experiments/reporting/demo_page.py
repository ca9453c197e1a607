"""The parts of the page of `experiments.demo`, as HTML, CSS and JavaScript."""

from __future__ import annotations

import html
import pathlib

import ramjax
from experiments.reporting import look_page
from experiments.reporting.looks import Look

_FOLDER = pathlib.Path(__file__).parent

CSS = (_FOLDER / "demo.css").read_text()
PAD_SCRIPT = (_FOLDER / "demo_pad.js").read_text()

_PEN = 36
"""Width of the pen on a paper of 400: a digit that fills it has strokes as in MNIST."""

_CANVAS_PEN = 1100
"""Its width on a paper of 400 that stands for a canvas, times the side of that canvas."""

_MOST_NAMES = 12
"""So many classes are named at most."""

_PICTURE = """<svg viewBox="0 0 120 120" aria-hidden="true" fill="none">
<path d="M34 34Q44 16 62 17Q86 19 82 40Q79 54 58 57Q88 60 88 80Q87 102 60 103Q40 103 32 88"
 stroke="currentColor" stroke-width="10" stroke-linecap="round" opacity=".28"/>
<path d="M36 30L76 40L62 60L80 84" stroke="currentColor" opacity=".5"/>
<g stroke-width="3"><rect x="22" y="16" width="28" height="28" stroke="#8b0aa5"/>
<rect x="62" y="26" width="28" height="28" stroke="#cc4778"/>
<rect x="48" y="46" width="28" height="28" stroke="#f0804e"/>
<rect x="66" y="70" width="28" height="28" stroke="#fdb42f"/></g></svg>"""
"""A three with four glimpses."""


def header(model: ramjax.Predictor) -> str:
  """The title, and what is to be seen."""
  thing = "Draw a digit" if _has_digits(model) else "Draw or upload an image"
  return (
    f'<div class="demo"><h1>{thing} and watch the model look</h1>'
    "<p>It sees one small patch after the other, and chooses itself where to look"
    " next.</p></div>"
  )


def pad(model: ramjax.Predictor) -> str:
  """The paper and its buttons; `PAD_SCRIPT` makes them work.

  No name of a class stands in it: Gradio takes it for a template.
  """
  side = model.info.canvas_size
  pen = round(_CANVAS_PEN / side) if side else _PEN
  example = '<button type="button" class="example">Example</button>'
  return (
    '<div class="demo"><div class="paper">'
    f'<canvas class="blank" width="400" height="400" data-pen="{pen}"'
    ' role="img" aria-label="Paper to draw on"></canvas><span>Draw here</span></div>'
    '<div class="buttons"><button type="button" class="clear">Clear</button>'
    f"{example if _has_digits(model) else ''}"
    '<button type="button" class="upload">Upload</button>'
    '<input type="file" accept="image/*" hidden></div>'
    '<p class="note" role="status"></p></div>'
  )


def hint(model: ramjax.Predictor) -> str:
  """What stands in the place of the answer before there is a drawing."""
  if _has_digits(model):
    what = "Draw a digit, for example a <b>3</b>"
  else:
    names = [*model.class_names[:_MOST_NAMES]]
    if len(model.class_names) > _MOST_NAMES:
      names.append("…")
    what = f"It knows {html.escape(', '.join(names))}. Draw or upload one"
  side = model.info.canvas_size
  if side:
    height = model.info.image_shape[0] / side
    what += f", small: {100 * height:.0f} % of the height of the paper, at any place"
  return _card(
    "The model waits for a drawing",
    f"{what}. When you lift the pen, it begins to look. Here you see where, and what it"
    " thinks.",
  )


def message(error: Exception) -> str:
  """Some friendly words for a drawing that cannot be used, in the place of an answer."""
  text = str(error)
  what = html.escape(text[:1].upper() + text[1:])
  return _card("There is no answer", f"{what}. Clear the paper and try again.")


def answer(look: Look, model: ramjax.Predictor, source: str) -> str:
  """The page of an answer, in a frame that grows with it."""
  page = look_page.page([look], model, source, embedded=True)
  grow = (
    "const body = this.contentDocument.body;"
    "new ResizeObserver(() => {this.style.height = `${body.offsetHeight}px`})"
    ".observe(body)"
  )
  return (
    f'<div class="demo"><iframe title="How the model looks" srcdoc="{html.escape(page)}"'
    f' onload="{html.escape(grow)}"></iframe></div>'
  )


def _card(title: str, text: str) -> str:
  return (
    f'<div class="demo"><div class="card">{_PICTURE}<p><strong>{title}</strong>{text}</p>'
    "</div></div>"
  )


def _has_digits(model: ramjax.Predictor) -> bool:
  return model.class_names == tuple(map(str, range(10)))
