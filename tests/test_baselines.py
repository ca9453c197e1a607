"""Networks that see the whole image: size, training and results file."""

import json

import forked
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import baselines
from ramjax.networks import num_parameters


def test_number_of_parameters_by_hand():
  """For 28 x 28 pixels; convolutions have 3 x 3 pixels, pooling leaves 7 x 7."""
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
def test_script_trains_networks_and_writes_results(npz_file, tmp_path):
  ended = forked.run(
    "baselines",
    f"--dataset=npz:{npz_file}",
    "--num_seeds=2",
    "--num_epochs=3",
    "--batch_size=32",
    f"--workdir={tmp_path}",
  )
  assert ended.returncode == 0, ended.stderr
  results = json.loads((tmp_path / "baselines.json").read_text())
  assert results["dataset"].startswith("npz")
  for model in results["models"]:
    accuracies = [run["accuracy"] for run in model["runs"]]
    assert [run["seed"] for run in model["runs"]] == [0, 1]
    assert min(accuracies) > 0.6  # chance is 0.1
    error = 100 * (1 - np.mean(accuracies))
    assert f"| {model['num_parameters']:,} | 2 | {error:.2f} ±" in ended.stdout
