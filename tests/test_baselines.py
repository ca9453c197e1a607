"""Networks that see the whole image: they learn, and their results tell of it."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import baselines
from ramjax.networks import num_parameters


def test_numbers_of_parameters_by_hand():
  """28 x 28: 784 x 256, 256 x 256, 256 x 10; 9 x 16, 9 x 16 x 32, 49 x 32 x 128, 128 x 10."""
  expected = {
    "fully_connected": 785 * 256 + 257 * 256 + 257 * 10,
    "convolutional": 10 * 16 + (9 * 16 + 1) * 32 + (49 * 32 + 1) * 128 + 129 * 10,
  }
  for name, model in baselines.MODELS.items():
    params = jax.eval_shape(
      model(10).init, jax.random.key(0), jnp.zeros((1, 28, 28, 1))
    )
    assert num_parameters(params) == expected[name]


@pytest.mark.slow
def test_a_whole_comparison(tmp_path):
  ended = subprocess.run(
    [
      sys.executable,
      "-m",
      "experiments.baselines",
      "--num_seeds=2",
      "--num_epochs=3",
      "--batch_size=32",
      "--num_train_examples=1000",
      f"--workdir={tmp_path}",
    ],
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )
  assert ended.returncode == 0, ended.stderr
  results = json.loads((tmp_path / "baselines.json").read_text())
  assert results["dataset"] == "mnist"
  for model in results["models"]:
    accuracies = [run["accuracy"] for run in model["runs"]]
    assert [run["seed"] for run in model["runs"]] == [0, 1]
    assert min(accuracies) > 0.6  # a tenth is chance
    assert accuracies[0] != accuracies[1]
    error = 100 * (1 - np.mean(accuracies))
    assert f"| {model['num_parameters']:,} | {error:.2f} ±" in ended.stdout
