"""Where pictures come from, and what happens to them before the model sees them."""

from ramjax.data.datasets import DATASETS, Dataset, Split, check_split, load_dataset
from ramjax.data.idx import DataError
from ramjax.data.transforms import normalize, shift, translate

__all__ = [
  "DATASETS",
  "DataError",
  "Dataset",
  "Split",
  "check_split",
  "load_dataset",
  "normalize",
  "shift",
  "translate",
]
