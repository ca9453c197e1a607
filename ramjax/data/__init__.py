"""Datasets: loading, splitting, transforming and normalising images."""

from ramjax.data.datasets import DATASETS, Dataset, dataset_of, load_dataset
from ramjax.data.idx import DataError
from ramjax.data.info import DatasetInfo
from ramjax.data.splits import Split, check_split
from ramjax.data.transfer import as_seen_by
from ramjax.data.transforms import clutter, mirror_half, normalize, shift, translate

__all__ = [
  "DATASETS",
  "DataError",
  "Dataset",
  "DatasetInfo",
  "Split",
  "as_seen_by",
  "check_split",
  "clutter",
  "dataset_of",
  "load_dataset",
  "mirror_half",
  "normalize",
  "shift",
  "translate",
]
