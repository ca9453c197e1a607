"""Draw a digit and watch the model look: `python -m experiments.demo`.

Opens a page for the browser of this machine. It has paper for the mouse or a finger, takes
images, too, and shows after each stroke where the model looks and what it thinks. Takes a
model of the package (--model) or your own run (--workdir). Ctrl-C ends it. Needs Gradio:
`pip install '.[demo]'` in a checkout of ramjax.
"""

from __future__ import annotations

import errno
import itertools
import os
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
from absl import flags as absl_flags
from absl import logging
from PIL import Image, ImageDraw

import ramjax
from experiments.cli import app, devices, flags, signals
from experiments.cli.errors import RunError, UsageError
from experiments.reporting import demo_page
from experiments.reporting.looks import Look
from experiments.runs import drawings
from ramjax.data import DataError

_MODEL = "mnist"
"""The model that is taken if none is named."""

_BETA = 0.2
"""The exploration rate if no stopping rule is named."""

_LOCAL = ("127.0.0.1", "localhost", "::1")
"""Hosts that only this machine reaches."""

_MOST_WAITING = 16
"""So many drawings wait for their answer at most."""


def define_flags() -> None:
  """Defines the flags of the script."""
  flags.define_model_flags()
  flags.define_rule_flags(f"Without a rule, it is {_BETA}.")
  flags.define_noise_flag()
  absl_flags.DEFINE_integer("port", 7860, "Port of the page.", 1, 65535)
  absl_flags.DEFINE_string(
    "host",
    _LOCAL[0],
    "Address at which the page is served; 0.0.0.0 lets other machines draw, too.",
  )
  devices.define_jax_flags()


def main() -> None:
  """Serves the page until a signal ends it."""
  options = flags.FLAGS
  rule = flags.stopping_rule()
  if rule == {"beta": None, "confidence": None}:
    rule["beta"] = _BETA
  noise = flags.location_noise()
  if not options.model and not options.workdir:
    options["model"].value = _MODEL
  devices.set_up_jax()
  model, source = flags.load_model()
  model.number_of_glimpses(None, **rule)  # checks the rule
  check_address(options.host, options.port)
  with tempfile.TemporaryDirectory(prefix="ramjax-demo-") as folder:
    gradio = _import_gradio(folder)
    print("getting ready, some seconds", flush=True)
    answer = answerer(model, source, location_noise=noise, **rule)
    answer(drawings.address(_first_drawing()))  # compiles
    page = _page(gradio, model, answer)
    _serve(gradio, page, options.host, options.port)
    address = _address(options.host, options.port)
    print(f"{source} waits for drawings at {address} (Ctrl-C ends it)", flush=True)
    if options.host not in _LOCAL:
      logging.warning("other machines of the network can open the page, too")
    try:
      with signals.Stop() as stop:
        while not stop.requested:
          time.sleep(0.1)
        raise stop.interrupted("the page is closed")
    finally:
      page.close(verbose=False)


def answerer(
  model: ramjax.Predictor,
  source: str,
  *,
  beta: float | None = None,
  confidence: float | None = None,
  location_noise: float | Sequence[float] = 1.0,
) -> Callable[[object], str]:
  """What the page shows for a drawing, as HTML.

  Args:
    model: the model.
    source: its name or folder.
    beta: exploration rate of the paper's stopping rule.
    confidence: confidence at which the model stops, in the place of `beta`.
    location_noise: factor on the noise of the policy, see `ramjax.Predictor`.

  Returns:
    A function of the data URL of a PNG. Nothing, and what cannot be used, give a friendly
    hint. Each answer has another first location.
  """
  number = itertools.count()

  def answer(drawing: object) -> str:
    if not drawing:
      return demo_page.hint(model)
    try:
      image = drawings.read(drawing, model)
    except DataError as error:
      return demo_page.message(error)
    key = jax.random.key(next(number))
    rule: dict[str, Any] = {"beta": beta, "confidence": confidence}
    found = model(image, key=key, location_noise=location_noise, **rule)
    look = Look("Your drawing", image, jax.device_get(found), **rule)
    return demo_page.answer(look, model, source)

  return answer


def check_address(host: str, port: int) -> None:
  """Raises an error if no page can be served there.

  Raises:
    UsageError: if the host is no address of this machine.
    RunError: if the port is in use, or may not be used.
  """
  try:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    family, kind, _, _, address = found[0]
    with socket.socket(family, kind) as tried:
      tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
      tried.bind(address)
  except OSError as error:
    if error.errno == errno.EADDRINUSE:
      raise _port_error(port, "in use") from error
    if isinstance(error, PermissionError):
      raise _port_error(port, "not yours to use") from error
    raise UsageError(f"host {host} is no address of this machine") from error


def _port_error(port: int, problem: str) -> RunError:
  return RunError(f"port {port} is {problem}; give another --port")


def _address(host: str, port: int) -> str:
  """The address of the page, for a browser of this machine."""
  name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
  return f"http://{f'[{name}]' if ':' in name else name}:{port}"


def _import_gradio(folder: str) -> Any:
  """Gradio, that tells nobody and keeps its files in a folder.

  Raises:
    RunError: if it is not installed.
  """
  os.environ |= {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_RUN_HISTORY": "False",
    "GRADIO_TEMP_DIR": folder,
    "HF_HUB_DISABLE_TELEMETRY": "1",
  }
  try:
    import gradio
  except ImportError as error:
    raise RunError(
      f"Gradio cannot be imported ({error}); pip install '.[demo]' in a checkout of ramjax"
    ) from error
  return gradio


def _first_drawing() -> Image.Image:
  drawing = Image.new("RGBA", (400, 400))
  ImageDraw.Draw(drawing).line([(200, 80), (200, 320)], "black", 36)
  return drawing


def _page(gradio: Any, model: ramjax.Predictor, answer: Callable[[object], str]) -> Any:
  """The page: paper on the left, the answer on the right."""
  bare = {"apply_default_css": False}
  with gradio.Blocks(
    title="Watch the model look", analytics_enabled=False, delete_cache=(60, 60)
  ) as page:
    gradio.HTML(demo_page.header(model), **bare)
    with gradio.Row():
      with gradio.Column(scale=2, min_width=300):
        pad = gradio.HTML(
          "",
          html_template=demo_page.pad(model),
          js_on_load=demo_page.PAD_SCRIPT,
          **bare,
        )
      with gradio.Column(scale=3, min_width=300):
        shown = gradio.HTML(demo_page.hint(model), **bare)
    pad.change(
      answer,
      pad,
      shown,
      trigger_mode="always_last",
      concurrency_limit=1,
      show_progress="hidden",
      api_visibility="private",
    )
  return page.queue(max_size=_MOST_WAITING, api_open=False)


def _serve(gradio: Any, page: Any, host: str, port: int) -> None:
  """Starts the server; without a link from outside, and for files of 1 KB at most.

  Raises:
    RunError: if the port has been taken meanwhile.
  """
  # A proxy of the network cannot reach the page of this machine.
  local = [os.environ.get("NO_PROXY", ""), *_LOCAL, host]
  os.environ["NO_PROXY"] = ",".join(filter(None, local))
  fonts = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
  try:
    page.launch(
      server_name=f"[{host}]" if ":" in host else host,
      server_port=port,
      theme=gradio.themes.Default(font=fonts, font_mono=("ui-monospace", "monospace")),
      css=demo_page.CSS,
      share=False,
      ssr_mode=False,
      pwa=False,
      mcp_server=False,
      enable_monitoring=False,
      max_file_size="1kb",  # drawings do not come as files
      state_session_capacity=100,
      footer_links=[],
      prevent_thread_lock=True,
      quiet=True,
    )
  except OSError as error:
    raise _port_error(port, "in use") from error


if __name__ == "__main__":
  define_flags()
  app.run(main)
