"""The tour: it runs from top to bottom, and is stored as it ran.

After a change, `jupyter execute --inplace experiments/tour.ipynb` stores new outputs.
"""

import json
import os
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
TOUR = ROOT / "experiments/tour.ipynb"
NUM_FIGURES = 7


@pytest.fixture(scope="module")
def stored():
  return json.loads(TOUR.read_text())


def code_cells(notebook):
  return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def outputs(notebook):
  return [output for cell in code_cells(notebook) for output in cell["outputs"]]


def printed(notebook):
  """All that a notebook printed; streams of nbformat are a text or a list of lines."""
  texts = [o["text"] for o in outputs(notebook) if o["output_type"] == "stream"]
  return "".join("".join(text) for text in texts)


def figures(notebook):
  return [o for o in outputs(notebook) if "image/png" in o.get("data", {})]


def check_results(notebook):
  """The drawn digits are read, and the small trainings show the claim of the paper."""
  text = printed(notebook)
  assert not [o for o in outputs(notebook) if o["output_type"] == "error"]
  assert len(figures(notebook)) == NUM_FIGURES
  [label] = re.findall(r"^class (\d), confidence", text, re.MULTILINE)
  assert label == "3"
  [right, glimpses] = re.findall(
    r"^([\d.]+)% of 300 digits right, ([\d.]+) glimpses each", text, re.MULTILINE
  )[0]
  assert float(right) > 95
  assert 3 < float(glimpses) < 7
  accuracies = {
    name: (float(six), float(fifty))
    for name, six, fifty in re.findall(
      r"^(.*): test accuracy ([\d.]+) with 6 glimpses, ([\d.]+) with 50$",
      text,
      re.MULTILINE,
    )
  }
  assert list(accuracies) == ["original", "intrinsic", "intrinsic + every answer"]
  assert accuracies["original"][0] > 0.6
  assert accuracies["original"][1] < 0.5
  assert accuracies["intrinsic"][0] > 0.9
  assert accuracies["intrinsic"][1] > 0.9
  assert accuracies["intrinsic + every answer"][0] > 0.8


def test_it_is_stored_with_the_outputs_of_one_run(stored):
  counts = [cell["execution_count"] for cell in code_cells(stored)]
  assert counts == list(range(1, len(counts) + 1))
  assert TOUR.stat().st_size < 300_000
  assert not [o for o in outputs(stored) if o.get("name") == "stderr"]
  check_results(stored)


def test_its_links_lead_to_files(stored):
  texts = ["".join(c["source"]) for c in stored["cells"] if c["cell_type"] != "code"]
  links = re.findall(r"\]\(([^)\s]+)\)", "\n".join(texts))
  assert len(links) > 5
  for link in links:
    assert "://" in link or (TOUR.parent / link.partition("#")[0]).exists(), link


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(monkeypatch):
  import nbclient
  import nbformat

  paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
  monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
  monkeypatch.delenv("XLA_FLAGS")  # the trainings are slow without optimisation
  notebook = nbformat.read(TOUR, as_version=4)
  for cell in code_cells(notebook):
    cell["outputs"] = []
  nbclient.NotebookClient(
    notebook, timeout=600, resources={"metadata": {"path": str(TOUR.parent)}}
  ).execute()
  check_results(notebook)
