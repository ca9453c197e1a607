"""Baselines that see the whole image: `python -m experiments.baselines`.

There are two networks, as in Mnih et al. (2014): a fully connected one with two hidden
layers, and a small convolutional one. Both are trained on any dataset with cross entropy
and Adam, --num_seeds runs of each; the learning rate falls along a cosine to 0. Writes
baselines.json into --workdir.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags as absl_flags

import ramjax
from experiments.cli import app, devices, errors, files, flags
from experiments.reporting import study_tables
from experiments.runs import output
from experiments.runs import workdir as workdir_lib
from experiments.runs.provenance import provenance
from experiments.studies import scores
from ramjax import data
from ramjax.config import TrainConfig
from ramjax.data.batches import evaluation_images, preprocess_batch, take_images
from ramjax.data.datasets import reading
from ramjax.networks import num_parameters

Variables = Mapping[str, Any]


class FullyConnected(nn.Module):
  """Two hidden layers of 256 relu units: images [B, H, W, C] to logits [B, K]."""

  num_classes: int

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    x = images.reshape(images.shape[0], -1)
    for _ in range(2):
      x = nn.relu(nn.Dense(256)(x))
    return nn.Dense(self.num_classes)(x)


class Convolutional(nn.Module):
  """Two 3×3 convolutions with pooling and a layer of 128 units, to logits [B, K]."""

  num_classes: int

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    x = images
    for num_features in (16, 32):
      x = nn.relu(nn.Conv(num_features, (3, 3))(x))
      x = nn.max_pool(x, (2, 2), strides=(2, 2))
    x = nn.relu(nn.Dense(128)(x.reshape(x.shape[0], -1)))
    return nn.Dense(self.num_classes)(x)


MODELS: Mapping[str, type[FullyConnected] | type[Convolutional]] = {
  "fully_connected": FullyConnected,
  "convolutional": Convolutional,
}
"""The networks by name."""


def define_flags() -> None:
  """Defines the flags of the script."""
  absl_flags.DEFINE_list(
    "models", list(MODELS), f"Networks (comma-separated), of {', '.join(MODELS)}."
  )
  absl_flags.DEFINE_string(
    "workdir", None, "Folder of the results; by default runs/baselines_<dataset>."
  )
  absl_flags.DEFINE_integer("num_seeds", 3, "Runs of each network, from --seed on.")
  flags.define_data_flag()
  flags.define_setting_flags(
    "dataset",
    "canvas_size",
    "num_clutter",
    "resize",
    "transparent_as",
    "background",
    "num_train_examples",
    "num_epochs",
    "batch_size",
    "learning_rate",
    "seed",
    num_epochs=20,
    batch_size=128,
    learning_rate=1e-3,
  )
  devices.define_jax_flags()


def main() -> None:
  """Trains and tests what the flags ask for."""
  options = flags.FLAGS
  flags.check_at_least(1, "num_epochs")
  unknown = set(options.models) - set(MODELS)
  if unknown or not options.models:
    raise errors.UsageError(
      f"models must be some of {', '.join(MODELS)}, not {','.join(options.models)}"
    )
  config = dataclasses.replace(
    flags.config_from_flags().train, learning_rate_schedule="cosine"
  )
  seeds = flags.seeds()
  devices.set_up_jax()
  dataset = data.load_dataset(
    config.dataset,
    data_dir=options.data_dir,
    num_train_examples=config.num_train_examples,
    **reading(config),
  )
  label = workdir_lib.data_label(config)
  print(dataset.describe(), flush=True)
  folder = pathlib.Path(options.workdir or f"runs/baselines_{label}")
  files.make_folder(folder, flag="workdir")
  models = []
  for name in options.models:
    model = MODELS[name](dataset.num_classes)
    runs = []
    for seed in seeds:
      began = time.perf_counter()
      params = train(model, dataset, config, seed=seed)
      accuracy = scores.rounded(_accuracy(model, params, dataset))
      runs.append({"seed": seed, "accuracy": accuracy})
      print(
        f"{name}  seed {seed}  test accuracy {accuracy:.4f}"
        f"  {time.perf_counter() - began:.0f} s",
        flush=True,
      )
    size = num_parameters(params)
    models.append({"name": name, "num_parameters": size, "runs": runs})
  results = {
    "dataset": label,
    "config": config.to_dict(),
    **provenance(),
    "models": models,
  }
  print(study_tables.baselines(results))
  output.write(output.Target(folder / "baselines.json"), results)


def train(
  model: nn.Module, dataset: data.Dataset, config: TrainConfig, *, seed: int
) -> Variables:
  """The variables of a network after training, of which `config` gives the settings."""
  init_key, order_key, run_key = jax.random.split(jax.random.key(seed), 3)
  images, labels = map(jnp.asarray, dataset.train)
  steps_per_epoch = len(labels) // config.batch_size
  optimizer = ramjax.make_optimizer(config, steps_per_epoch=steps_per_epoch)

  def loss_of(variables: Variables, shown: jax.Array, label: jax.Array) -> jax.Array:
    return ramjax.classification_loss(_logits(model, variables, shown), label).mean()

  # One call for each step: inside a loop, XLA's convolutions on the CPU are slow.
  @functools.partial(jax.jit, donate_argnames="state")
  def step(
    state: tuple[Variables, optax.OptState],
    images: jax.Array,
    labels: jax.Array,
    index: jax.Array,
    key: jax.Array,
  ) -> tuple[Variables, optax.OptState]:
    variables, opt_state = state
    shown = preprocess_batch(
      key, take_images(images, index), index, images, preprocess=dataset.preprocess
    )
    gradient = jax.grad(loss_of)(variables, shown, labels[index])
    updates, opt_state = optimizer.update(gradient, opt_state, variables)
    return optax.apply_updates(variables, updates), opt_state

  variables = jax.jit(model.init)(init_key, jnp.zeros((1, *dataset.image_shape)))
  state = (variables, optimizer.init(variables))
  for epoch in range(config.num_epochs):
    order = ramjax.epoch_order(
      order_key, epoch, num_examples=len(labels), batch_size=config.batch_size
    )
    for row, index in enumerate(order):
      key = jax.random.fold_in(run_key, epoch * steps_per_epoch + row)
      state = step(state, images, labels, index, key)
    jax.block_until_ready(state)
  return state[0]


def _logits(model: nn.Module, variables: Variables, shown: jax.Array) -> jax.Array:
  """Logits [B, K] of images [B, H, W, C]."""
  logits: Any = model.apply(variables, shown)
  return logits


def _accuracy(model: nn.Module, params: Variables, dataset: data.Dataset) -> float:
  """Test accuracy of a network, on the same test images as the attention models."""
  images, labels = map(jnp.asarray, dataset.test)

  @jax.jit
  def correct(params: Variables, index: jax.Array) -> jax.Array:
    shown = evaluation_images(images, index, preprocess=dataset.preprocess)
    return ramjax.reward(_logits(model, params, shown), labels[index])

  index = np.arange(len(labels))
  batches = np.split(index, range(1000, len(index), 1000))
  return float(np.concatenate([correct(params, batch) for batch in batches]).mean())


if __name__ == "__main__":
  define_flags()
  app.run(main)
