"""The command line: the only place where flags become configurations."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
from absl import flags
from jax.sharding import Mesh

from experiments.cli import compilation_cache, signals
from experiments.cli.errors import UsageError
from experiments.cli.recipes import RECIPES
from ramjax import data, parallel
from ramjax.config import (
  CORES,
  ERROR_GRADIENTS,
  FIRST_LOCATIONS,
  INTRINSIC_STEPS,
  LEARNING_RATE_SCHEDULES,
  LOCATION_DENSITIES,
  OBJECTIVES,
  OPTIMIZERS,
  Config,
  ConfigError,
  ModelConfig,
  ObjectiveConfig,
  TrainConfig,
)

FLAGS = flags.FLAGS

PRIORS = ("uniform", "train")

MATMUL_PRECISIONS = ("float32", "tensorfloat32", "bfloat16")


def define_train_flags(*, num_seeds: int = 1, **defaults: Any) -> None:
  """Defines the flags of a training run; the defaults are those of the configuration."""
  model, objective, train = ModelConfig(), ObjectiveConfig(), TrainConfig()
  flags.DEFINE_enum(
    "objective", objective.name, OBJECTIVES, "Which extra terms the objective has."
  )
  flags.DEFINE_enum(
    "recipe",
    "paper",
    list(RECIPES),
    "Named values of other flags (experiments/recipes.py); those that are given win.",
  )
  flags.DEFINE_string("dataset", train.dataset, f"{', '.join(data.DATASETS)}.")
  flags.DEFINE_integer(
    "canvas_size",
    None,
    "Side of a canvas on which each image is put somewhere; by default that of the"
    " dataset's name, or none.",
  )
  flags.DEFINE_integer(
    "num_clutter",
    None,
    "Crops of 8x8 pixels of other images on the canvas; by default as many as the data"
    " set's name says, or none.",
  )
  define_data_flag()
  flags.DEFINE_string(
    "workdir",
    None,
    "Where the run is written; by default runs/<dataset>_<objective>_seed<seed>."
    " A run that is there already is resumed.",
  )
  flags.DEFINE_integer("num_epochs", train.num_epochs, "Passes over the training set.")
  flags.DEFINE_integer("batch_size", train.batch_size, "Examples a step.")
  flags.DEFINE_integer(
    "accumulation_steps",
    train.accumulation_steps,
    "In how many parts a batch is worked on, one after the other, so that it may be"
    " larger than the memory.",
  )
  flags.DEFINE_float(
    "learning_rate", train.learning_rate, "Rate of the optimiser at the start."
  )
  _define_optimizer_flags(train)
  flags.DEFINE_integer("num_glimpses", train.num_glimpses, "Glimpses in training, N.")
  flags.DEFINE_integer("patch_size", model.patch_size, "Side of a patch, in pixels.")
  flags.DEFINE_integer("num_scales", model.num_scales, "Patches in a glimpse.")
  flags.DEFINE_integer("scale_factor", model.scale_factor, "Ratio of their sides.")
  flags.DEFINE_float(
    "location_std", model.location_std, "Width of the location policy, in [-1, 1]."
  )
  flags.DEFINE_enum(
    "location_density",
    model.location_density,
    LOCATION_DENSITIES,
    "Whether REINFORCE takes the density of the clipped location (as released) or of"
    " the raw sample.",
  )
  flags.DEFINE_integer(
    "branch_size", model.branch_size, "Width of the glimpse network's first layers."
  )
  flags.DEFINE_integer(
    "hidden_size", model.hidden_size, "Width of glimpse feature and internal state."
  )
  flags.DEFINE_enum(
    "core",
    model.core,
    CORES,
    "What carries the state: one layer (as released) or LSTM.",
  )
  flags.DEFINE_enum(
    "first_location",
    model.first_location,
    FIRST_LOCATIONS,
    "Where the first glimpse is taken: anywhere (as released) or in the middle.",
  )
  flags.DEFINE_float(
    "lambda_uncertainty", objective.lambda_uncertainty, "The paper's lambda_1."
  )
  flags.DEFINE_float(
    "lambda_intrinsic",
    objective.lambda_intrinsic,
    "The paper's lambda_2: 0.1 for stability (Figure 2), 3e-3 in Figure 1.",
  )
  flags.DEFINE_float(
    "regularizer_scale",
    objective.regularizer_scale,
    "Factor on both lambdas: 32 for the units of the paper's numbers, 1 for its"
    " equations as printed.",
  )
  flags.DEFINE_enum(
    "error_gradient",
    objective.error_gradient,
    ERROR_GRADIENTS,
    "Whether the uncertainty term changes the error network too (all, as released).",
  )
  flags.DEFINE_boolean(
    "credit_last_location",
    objective.credit_last_location,
    "Whether REINFORCE credits the location drawn after the last glimpse (as released).",
  )
  flags.DEFINE_enum(
    "intrinsic_steps",
    objective.intrinsic_steps,
    INTRINSIC_STEPS,
    "Whether the intrinsic term looks at the last prediction (as released) or at all.",
  )
  flags.DEFINE_float(
    "reinforce_weight", objective.reinforce_weight, "Factor on the REINFORCE term."
  )
  flags.DEFINE_enum(
    "prior",
    "uniform",
    PRIORS,
    "Which classes the intrinsic term prefers: none (as in the paper), or each as often"
    " as it is in the training split.",
  )
  flags.DEFINE_integer("seed", train.seed, "Seed of all randomness.")
  flags.DEFINE_integer(
    "num_train_examples", None, "Use only so many training images; by default all."
  )
  flags.DEFINE_integer("steps_per_call", 100, "Steps between two looks at the metrics.")
  flags.DEFINE_integer(
    "max_skipped_steps",
    100,
    "Stop after so many steps in a row whose loss or gradient was not finite.",
  )
  define_device_flags()
  flags.DEFINE_integer("num_seeds", num_seeds, "Seeds in one program.")
  for name, value in defaults.items():
    FLAGS.set_default(name, value)


def _define_optimizer_flags(train: TrainConfig) -> None:
  """Defines the flags of what is not in the paper's setting: all are off by default."""
  flags.DEFINE_enum(
    "optimizer",
    train.optimizer,
    OPTIMIZERS,
    "Adam (as released), or Muon for the matrices between wide layers.",
  )
  flags.DEFINE_enum(
    "learning_rate_schedule",
    train.learning_rate_schedule,
    LEARNING_RATE_SCHEDULES,
    "How the rate falls: by a factor after each epoch (as released), or along a cosine"
    " to 0 at the end of the last epoch.",
  )
  flags.DEFINE_float(
    "learning_rate_decay",
    train.learning_rate_decay,
    "The factor of the exponential schedule.",
  )
  flags.DEFINE_float(
    "warmup_epochs", train.warmup_epochs, "Epochs in which the rate rises from 0."
  )
  flags.DEFINE_float(
    "max_gradient_norm",
    train.max_gradient_norm,
    "Norm to which a gradient is clipped; 0 is no limit, as by default.",
  )
  flags.DEFINE_float(
    "weight_decay", train.weight_decay, "Decay of the weights (AdamW); not of biases."
  )
  flags.DEFINE_float(
    "average_decay",
    train.average_decay,
    "Decay of the average of the parameters that is evaluated; 0 is none.",
  )
  flags.DEFINE_integer(
    "max_shift",
    train.max_shift,
    "Pixels by which a training image is moved at most, at random.",
  )


def follow_recipe() -> None:
  """Gives the flags that `--recipe` names its values, but for those that were given."""
  for name, value in RECIPES[FLAGS.recipe].items():
    FLAGS.set_default(name, value)  # a flag that was given keeps its value


def define_data_flag() -> None:
  """Defines the flag that says where the data are."""
  flags.DEFINE_string(
    "data_dir",
    None,
    "Folder with the four IDX files, with what TFDS has prepared, or with the FILE or"
    " DIR of one's own images; by default they are looked for.",
  )


def define_device_flags() -> None:
  """Defines the flags that say which devices and processes share the work."""
  flags.DEFINE_integer(
    "num_devices",
    None,
    "Devices that divide a batch, of all processes together; by default all"
    " accelerators that divide it, or one CPU.",
  )
  flags.DEFINE_string(
    "coordinator_address",
    None,
    "host:port of the first of several processes, or auto: as Slurm, Open MPI,"
    " Kubernetes or Cloud TPU has it.",
  )
  flags.DEFINE_integer("num_processes", None, "Number of processes that work together.")
  flags.DEFINE_integer("process_id", None, "Number of this process, from 0.")
  flags.DEFINE_boolean(
    "compilation_cache", True, "Whether compiled programs are kept for the next start."
  )
  define_precision_flag()


def define_precision_flag() -> None:
  """Defines the flag that `set_precision` obeys."""
  flags.DEFINE_enum(
    "matmul_precision",
    "float32",
    MATMUL_PRECISIONS,
    "To what GPUs and TPUs round the factors of matrix products; CPUs use float32.",
  )


def set_precision() -> None:
  """Has matrix products computed as `--matmul_precision` says."""
  jax.config.update("jax_default_matmul_precision", FLAGS.matmul_precision)


def set_up_jax() -> None:
  """Obeys the flags that say how JAX computes and compiles; before it is used."""
  set_precision()
  if FLAGS.compilation_cache:
    compilation_cache.enable()


def open_mesh(train: TrainConfig | None = None) -> Mesh:
  """The devices, as the flags of `define_device_flags` say; before JAX is used.

  Args:
    train: the training whose batches they divide; None if there is none.

  Returns:
    The devices.

  Raises:
    ConfigError: if there are fewer, or they do not divide the batch.
    ParallelError: if the other processes are not found.
  """
  set_up_jax()
  parallel.start(
    num_devices=FLAGS.num_devices,
    coordinator_address=FLAGS.coordinator_address,
    num_processes=FLAGS.num_processes,
    process_id=FLAGS.process_id,
  )
  signals.raise_on_signals()  # with several processes, JAX has taken SIGTERM for itself
  return parallel.make_mesh(num_devices=FLAGS.num_devices, train=train)


def train_config(*, image_shape: tuple[int, int, int], num_classes: int) -> Config:
  """The configuration that the flags of `define_train_flags` describe.

  Args:
    image_shape: height, width and channels of the dataset's images.
    num_classes: number of its classes.

  Returns:
    The configuration.

  Raises:
    ConfigError: if a flag is out of range.
  """
  return Config(
    model=ModelConfig(
      image_shape=image_shape,
      num_classes=num_classes,
      patch_size=FLAGS.patch_size,
      num_scales=FLAGS.num_scales,
      scale_factor=FLAGS.scale_factor,
      branch_size=FLAGS.branch_size,
      hidden_size=FLAGS.hidden_size,
      core=FLAGS.core,
      first_location=FLAGS.first_location,
      location_std=FLAGS.location_std,
      location_density=FLAGS.location_density,
    ),
    objective=ObjectiveConfig(
      name=FLAGS.objective,
      lambda_uncertainty=FLAGS.lambda_uncertainty,
      lambda_intrinsic=FLAGS.lambda_intrinsic,
      regularizer_scale=FLAGS.regularizer_scale,
      error_gradient=FLAGS.error_gradient,
      credit_last_location=FLAGS.credit_last_location,
      intrinsic_steps=FLAGS.intrinsic_steps,
      reinforce_weight=FLAGS.reinforce_weight,
    ),
    train=TrainConfig(
      dataset=FLAGS.dataset,
      canvas_size=FLAGS.canvas_size,
      num_clutter=FLAGS.num_clutter,
      num_train_examples=FLAGS.num_train_examples,
      num_epochs=FLAGS.num_epochs,
      batch_size=FLAGS.batch_size,
      accumulation_steps=FLAGS.accumulation_steps,
      num_glimpses=FLAGS.num_glimpses,
      learning_rate=FLAGS.learning_rate,
      optimizer=FLAGS.optimizer,
      learning_rate_schedule=FLAGS.learning_rate_schedule,
      learning_rate_decay=FLAGS.learning_rate_decay,
      warmup_epochs=FLAGS.warmup_epochs,
      max_gradient_norm=FLAGS.max_gradient_norm or None,
      weight_decay=FLAGS.weight_decay,
      average_decay=FLAGS.average_decay,
      max_shift=FLAGS.max_shift,
      seed=FLAGS.seed,
    ),
  )


def load_run() -> tuple[Config, data.Dataset]:
  """The dataset that the flags of `define_train_flags` name, and its configuration.

  Returns:
    The configuration, in which shapes, classes, prior and the sum of the data are those
    of the dataset, and the dataset.

  Raises:
    ConfigError: if a flag is out of range, or does not go with the data.
    DataError: if the dataset cannot be found or is damaged.
  """
  dataset = data.load_dataset(
    FLAGS.dataset,
    data_dir=FLAGS.data_dir,
    num_train_examples=FLAGS.num_train_examples,
    canvas_size=FLAGS.canvas_size,
    num_clutter=FLAGS.num_clutter,
  )
  config = train_config(
    image_shape=dataset.image_shape, num_classes=dataset.num_classes
  )
  height, width, _ = dataset.image_shape
  if config.model.patch_size > min(height, width):
    raise ConfigError(
      f"patch_size must be at most {min(height, width)}, the smaller side of the"
      f" images of {dataset.name}, not {config.model.patch_size}"
    )
  prior = dataset.class_frequencies if FLAGS.prior == "train" else None
  return dataclasses.replace(
    config,
    objective=dataclasses.replace(config.objective, prior=prior),
    train=dataclasses.replace(
      config.train, dataset=dataset.name, data_sha256=dataset.sha256
    ),
  ), dataset


def numbers(name: str, kind: type[int] | type[float]) -> list[Any]:
  """The numbers in a flag that is a list.

  Args:
    name: the flag.
    kind: what they are, `int` or `float`.

  Raises:
    UsageError: if one of them is none.
  """
  try:
    return [kind(word) for word in getattr(FLAGS, name)]
  except ValueError as error:
    what = "integers" if kind is int else "numbers"
    raise UsageError(f"{name} must be {what} separated by commas: {error}") from error


def check_at_least_one(*names: str) -> None:
  """Checks flags that are integers.

  Raises:
    UsageError: if one is less than 1.
  """
  for name in names:
    value = getattr(FLAGS, name)
    if value < 1:
      raise UsageError(f"{name} must be at least 1, not {value}")


def seeds() -> list[int]:
  """Seeds."""
  check_at_least_one("num_seeds")
  TrainConfig(seed=FLAGS.seed + FLAGS.num_seeds - 1)
  return list(range(FLAGS.seed, FLAGS.seed + FLAGS.num_seeds))


def config_from_flags() -> Config:
  """Config."""
  return train_config(image_shape=(28, 28, 1), num_classes=10)
