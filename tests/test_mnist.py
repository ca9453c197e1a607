"""Genuine MNIST: its files, its splits, the canvases made of it, and a short training.

All other tests use synthetic images. These are skipped where MNIST cannot be had.
"""

import functools
import hashlib
import re
import subprocess
import sys

import forked
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ramjax import data
from ramjax.data.batches import evaluation_images

TEST_SETS = {
  "mnist_translated_60": "bffa90cf21dc98b97347b59efd373a4d7bf1b51d3a9a9ecb9550f75867e9e7a4",
  "mnist_cluttered_60": "7d83efefb64beb98430572016404ef4f7706b3dd4ea9cff1ecf5234720125134",
  "mnist_cluttered_100": "3e7fa2019ea077eac1707e75c5a5f66e8117baeddc8c12746aafd420b1a9e14b",
}
"""SHA-256 of all 10,000 test images, uint8 [10000, H, W, 1]."""


def test_shapes_counts_and_statistics(mnist):
  assert mnist.train.images.shape == (54_000, 28, 28, 1)
  assert mnist.validation.images.shape == (6_000, 28, 28, 1)
  assert mnist.test.images.shape == (10_000, 28, 28, 1)
  assert mnist.train.images.dtype == np.uint8
  assert mnist.train.labels.dtype == np.int32
  assert mnist.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
  # The numbers of each digit in the 60,000 training images.
  digits = np.bincount(mnist.train.labels) + np.bincount(mnist.validation.labels)
  assert digits.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
  assert (mnist.mean, mnist.std) == ((0.1307,), (0.3081,))
  assert mnist.image_shape == (28, 28, 1)


def test_the_splits_never_change(mnist):
  content = mnist.train.labels.tobytes() + mnist.validation.labels.tobytes()
  digest = hashlib.sha256(content).hexdigest()
  assert digest == "d138853972d9630ef69c7808c69a0f8ebd78f23fa62869637aa2e4d24e90866e"


@pytest.mark.parametrize("name", TEST_SETS)
def test_test_sets_on_canvases_are_the_same_on_every_machine(name, mnist):
  dataset = data.load_dataset(name)
  np.testing.assert_array_equal(dataset.test.images, mnist.test.images)
  images = jnp.asarray(dataset.test.images)
  show = jax.jit(functools.partial(evaluation_images, preprocess=dataset.transform))
  sha256 = hashlib.sha256()
  for first in range(0, 10_000, 2_500):
    sha256.update(np.asarray(show(images, first + jnp.arange(2_500))))
  assert sha256.hexdigest() == TEST_SETS[name]


@pytest.mark.usefixtures("mnist")
def test_a_cached_dataset_is_loaded_without_tfds():
  """Whose import takes seconds."""
  script = (
    "import sys; from ramjax import data; data.load_dataset('mnist');"
    "print('tensorflow_datasets' in sys.modules)"
  )
  found = subprocess.run(
    [sys.executable, "-c", script], capture_output=True, text=True, check=True
  )
  assert found.stdout.strip() == "False"


@pytest.mark.slow
@pytest.mark.usefixtures("mnist")
def test_the_first_command_of_the_readme_learns_mnist(tmp_path):
  """`python -m experiments.train --objective=both`, with fewer images and one epoch.

  Without training, one in ten answers is right.
  """
  done = subprocess.run(
    [
      *(sys.executable, "-m", "experiments.train", "--objective=both"),
      *(
        "--num_epochs=1",
        "--num_train_examples=12800",
        f"--workdir={tmp_path / 'run'}",
      ),
    ],
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  last = done.stdout.splitlines()[-1]
  found = re.fullmatch(r"test accuracy (0\.\d{4}) \(N = 6, M = 1, 10000 images\)", last)
  assert found, last
  assert float(found[1]) > 0.6


@pytest.mark.parametrize("margin", [128, 220])
def test_photos_of_test_digits_are_read_right(margin, mnist, tmp_path):
  """Black on white, enlarged, on a grey ground: as a user would photograph them."""
  for i, image in enumerate(mnist.test.images[:200]):
    paper = Image.fromarray(255 - image[..., 0]).resize((160, 160))
    photo = Image.new("L", (200, 200), margin)
    photo.paste(paper, (20, 20))
    folder = tmp_path / "photos" / str(mnist.test.labels[i])
    folder.mkdir(parents=True, exist_ok=True)
    photo.save(folder / f"{i}.png")
  options = ("--model=mnist", "--label_from_folder", "--nofigures")
  ended = forked.run(
    "look", str(tmp_path / "photos"), *options, f"--output={tmp_path / 'look'}"
  )
  assert ended.returncode == 0, ended.stderr
  assert float(re.search(r"accuracy ([\d.]+)", ended.stdout)[1]) >= 0.97
