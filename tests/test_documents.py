"""What the documents say is there: links, commands, names, and the first page's numbers."""

import json
import pathlib
import pkgutil
import re
import subprocess

import forked
import numpy as np
import pytest

from experiments import report
from experiments.reporting.cells import rollouts_of, spread

ROOT = report.ROOT
FIRST_PAGE, RESULTS_PAGE = ROOT / "README.md", ROOT / "experiments/README.md"


def anchors(document: pathlib.Path) -> list[str]:
  """The anchors that GitHub gives to the headings of a document."""
  headings = re.findall(r"^#+ (.*)$", without_code(document), re.MULTILINE)
  return [re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings]


def without_code(document: pathlib.Path) -> str:
  return re.sub(
    r"^```.*?^```", "", document.read_text(), flags=re.DOTALL | re.MULTILINE
  )


def commands(document: pathlib.Path) -> list[list[str]]:
  """The command lines of the scripts in the bash blocks of a document, expanded."""
  blocks = re.findall(r"```bash\n(.*?)```", document.read_text(), re.DOTALL)
  found = subprocess.run(
    ["bash", "-euc", 'python() { echo "$@"; }\npip() { :; }\n' + "\n".join(blocks)],
    capture_output=True,
    text=True,
    check=True,
  )
  return [line.split() for line in found.stdout.splitlines()]


@pytest.mark.parametrize("name", report.DOCUMENTS)
def test_links_lead_to_files_and_headings(name):
  document = ROOT / name
  assert len(set(anchors(document))) == len(anchors(document))
  links = re.findall(r"\]\(([^)\s]+)\)", without_code(document))
  assert links
  for link in links:
    if "://" not in link:
      file, _, anchor = link.partition("#")
      target = (document.parent / file) if file else document
      assert target.exists(), link
      assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize(
  "document", [FIRST_PAGE, RESULTS_PAGE], ids=["README", "experiments"]
)
def test_documented_commands_are_accepted(document):
  """One argument too many ends a script after its flags have been read.

  Of `look`, which takes any number of files, the file does not exist.
  """
  found = commands(document)
  assert found
  for python_option, module, *arguments in found:
    assert python_option == "-m"
    done = forked.run(module.removeprefix("experiments."), *arguments, "END")
    ended = "my_digit.png does not exist" if "look" in module else "argument 'END'"
    assert ended in done.stderr, (arguments, done.stderr)


def test_names_of_the_library_exist():
  rows = re.findall(
    r"^\|[^|]*\|([^|]*)\|$",
    RESULTS_PAGE.read_text().partition("names in `ramjax`")[2],
    re.MULTILINE,
  )
  names = re.findall(r"`([\w.]+)`", " ".join(rows))
  assert len(names) > 50
  for name in names:
    pkgutil.resolve_name(f"ramjax.{name}")


@pytest.mark.parametrize(
  ("images", "file"),
  [
    ("MNIST, 28×28", "records_mnist.json"),
    ("translated, 60×60", "records_translated_60.json"),
    ("cluttered, 60×60", "records_cluttered_60.json"),
    ("cluttered, 100×100", "records_cluttered_100.json"),
    ("Fashion-MNIST", "records_fashion_mnist.json"),
  ],
)
def test_error_rates_of_the_first_page_are_those_of_the_results(images, file):
  [row] = re.findall(rf"^\| {images} \|(.*)\|$", FIRST_PAGE.read_text(), re.MULTILINE)
  num_glimpses, *errors = (cell.strip() for cell in row.split("|")[:3])
  runs = json.loads((report.RESULTS / file).read_text())["runs"]
  for num_samples, error in zip((1, 10), errors, strict=True):
    accuracies = [
      point["accuracy"]
      for run in runs
      for scores in run["scores"]
      if rollouts_of(scores) == (num_samples, "sample")
      for point in scores["fixed"]
      if point["num_glimpses"] == int(num_glimpses)
    ]
    assert error == spread(100 * (1 - np.array(accuracies)), 2, whole=True)
