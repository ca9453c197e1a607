"""A headless Chromium, driven by its DevTools protocol over two pipes, without a package."""

import json
import os
import select
import shutil
import subprocess
import tempfile
import time

PATH = shutil.which("chromium") or shutil.which("chromium-browser")
_OPTIONS = ("--headless", "--no-sandbox", "--no-first-run", "--remote-debugging-pipe")


class Browser:
  """One page of a browser; a context manager that ends it.

  Attributes:
    requests: addresses that the page has asked for.
  """

  def __init__(self, *, width, height, is_dark=False):
    self.requests = []
    self._rest, self._number, self._session = b"", 0, None
    self._profile = tempfile.TemporaryDirectory()
    theirs, self._to = os.pipe()
    self._from, their_answers = os.pipe()
    # Chromium reads from descriptor 3 and writes to descriptor 4.
    script = f'exec "$0" "$@" 3<&{theirs} 4>&{their_answers}'
    command = [PATH, *_OPTIONS, f"--user-data-dir={self._profile.name}", "about:blank"]
    self._process = subprocess.Popen(
      ["bash", "-c", script, *command],
      pass_fds=(theirs, their_answers),
      stderr=subprocess.DEVNULL,
    )
    os.close(theirs)
    os.close(their_answers)
    targets = self.send("Target.getTargets")["targetInfos"]
    (page,) = (target for target in targets if target["type"] == "page")
    self._session = self.send(
      "Target.attachToTarget", targetId=page["targetId"], flatten=True
    )["sessionId"]
    self.send("Network.enable")
    self.send(
      "Emulation.setDeviceMetricsOverride",
      width=width,
      height=height,
      deviceScaleFactor=1,
      mobile=False,
    )
    scheme = {
      "name": "prefers-color-scheme",
      "value": "dark" if is_dark else "light",
    }
    self.send("Emulation.setEmulatedMedia", features=[scheme])

  def __enter__(self):
    return self

  def __exit__(self, *exception):
    self._process.kill()
    self._process.wait()
    os.close(self._to)
    os.close(self._from)
    shutil.rmtree(self._profile.name, ignore_errors=True)  # its children still write
    self._profile.cleanup()

  def send(self, method, **params):
    """The result of a command of the protocol."""
    self._number += 1
    message = {"id": self._number, "method": method, "params": params}
    if self._session:
      message["sessionId"] = self._session
    os.write(self._to, json.dumps(message).encode() + b"\0")
    while True:
      answer = self._receive()
      if answer.get("method") == "Network.requestWillBeSent":
        self.requests.append(answer["params"]["request"]["url"])
      if answer.get("id") == self._number:
        assert "error" not in answer, answer["error"]
        return answer["result"]

  def _receive(self, seconds=60):
    while b"\0" not in self._rest:
      ready, _, _ = select.select([self._from], [], [], seconds)
      assert ready, "Chromium does not answer"
      received = os.read(self._from, 1 << 16)
      assert received, "Chromium has ended"
      self._rest += received
    message, _, self._rest = self._rest.partition(b"\0")
    return json.loads(message)

  def open(self, address):
    self.send("Page.navigate", url=address)

  def value(self, expression):
    """The value of an expression of JavaScript."""
    found = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
    assert "exceptionDetails" not in found, found
    return found["result"].get("value")

  def wait_for(self, expression, seconds=60):
    """The value of an expression, once it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
      if found := self.value(expression):
        return found
      time.sleep(0.05)
    raise TimeoutError(expression)

  def drag(self, points):
    """Moves the mouse from point to point, with its button down."""
    for kind, (x, y), buttons in (
      ("mouseMoved", points[0], 0),
      ("mousePressed", points[0], 1),
      *(("mouseMoved", point, 1) for point in points[1:]),
      ("mouseReleased", points[-1], 0),
    ):
      button = "none" if kind == "mouseMoved" else "left"
      self.send(
        "Input.dispatchMouseEvent",
        type=kind,
        x=x,
        y=y,
        button=button,
        buttons=buttons,
        clickCount=1,
      )
