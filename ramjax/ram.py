"""The model of the paper as a `ramjax.Model`, and the model that a configuration names."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import jax
import jax.numpy as jnp

from ramjax import networks, policy
from ramjax.backprop import unroll_by_hand
from ramjax.checks import check_shape
from ramjax.config import Config, ConfigError, ModelConfig
from ramjax.glimpse import extract_glimpse
from ramjax.model import Model, PyTree, Sensor, check_model
from ramjax.unroll import Unrolled, unroll


@functools.cache
def recurrent_attention_model(
  config: ModelConfig,
  *,
  sensor: Sensor | None = None,
  policy: policy.Policy | None = None,
) -> Model:
  """The model of the paper; its parameters are `ramjax.Params`.

  Its networks read a glimpse of any shape, and its location network has as many outputs
  as the policy takes. Its hand-written gradient serves every sensor and every policy.

  Args:
    config: the model.
    sensor: from an image [H, W, C] and a location [2] to a glimpse; None for the retina
      of the configuration.
    policy: how the next location is drawn; None for the Gaussian of the configuration.

  Returns:
    The model; equal arguments give the same one.

  >>> import jax
  >>> import ramjax
  >>> model = recurrent_attention_model(ramjax.ModelConfig())
  >>> params = jax.eval_shape(model.init, jax.random.key(0))
  >>> ramjax.num_parameters(params)
  212347
  """
  return _make(config, sensor or _retina(config), policy or _gaussian(config))


def as_model(model: Model | ModelConfig) -> Model:
  """The model itself, or the model of a configuration.

  Args:
    model: a model; or a configuration, for the model of the paper or the one that its
      field `factory` names.

  Returns:
    The model.

  Raises:
    ConfigError: if the factory cannot be imported or makes no model.
  """
  if isinstance(model, Model):
    return model
  if not isinstance(model, ModelConfig):
    raise ConfigError(f"model must be a Model or a ModelConfig, not {model!r}")
  if model.factory is None:
    return recurrent_attention_model(model)
  return _imported(model)


def check_model_of(config: Config, model: Model | None = None) -> None:
  """Checks that the model of a run fits to its images and classes, see `check_model`."""
  settings = config.model
  check_model(model_of(config, model), settings.image_shape, settings.num_classes)


def model_of(config: Config, model: Model | None) -> Model:
  """The model of a run: the one that is given, or that of its configuration."""
  return as_model(config.model if model is None else model)


@functools.cache
def _imported(config: ModelConfig) -> Model:
  """The model that `config.factory` makes."""
  assert config.factory is not None
  module, _, function = config.factory.partition(":")
  try:
    imported = importlib.import_module(module)
  except ModuleNotFoundError as error:
    if error.name is None or not f"{module}.".startswith(f"{error.name}."):
      raise  # of what the module itself imports
    raise ConfigError(
      f"factory {config.factory} cannot be imported: {error}; run where Python finds it"
    ) from error
  factory = getattr(imported, function, None)
  if not callable(factory):
    raise ConfigError(f"factory {config.factory}: {module} has no such function")
  made = factory(config)
  if not isinstance(made, Model):
    raise ConfigError(f"factory {config.factory} must return a ramjax.Model")
  return made


def _retina(config: ModelConfig) -> Sensor:
  def retina(image: jax.Array, location: jax.Array) -> jax.Array:
    channels = config.image_shape[-1]
    swapped = image.shape[0] == channels != image.shape[-1]
    hint = "it looks like [C, H, W]: move the channels last, see jnp.moveaxis"
    check_shape((None, None, channels), hint=hint if swapped else "", image=image)
    return extract_glimpse(
      image,
      location,
      patch_size=config.patch_size,
      num_scales=config.num_scales,
      scale_factor=config.scale_factor,
      fill_value=config.fill_value,
    )

  return retina


def _gaussian(config: ModelConfig) -> policy.Policy:
  return policy.gaussian_policy(config.location_std, density=config.location_density)


def _make(config: ModelConfig, sensor: Sensor, policy_: policy.Policy) -> Model:
  module = networks.RecurrentAttentionModel(config, policy_.num_outputs)

  def init(key: jax.Array) -> networks.Params:
    glimpse = jax.eval_shape(sensor, jnp.zeros(config.image_shape), jnp.zeros(2))
    return networks.init_params(
      key, config, glimpse_shape=glimpse.shape, num_outputs=policy_.num_outputs
    )

  def start(params: networks.Params) -> networks.CoreState:
    return networks.initial_state(config)

  def step(
    params: networks.Params,
    state: networks.CoreState,
    glimpse: jax.Array,
    location: jax.Array,
  ) -> tuple[networks.CoreState, jax.Array]:
    state = apply(params, "step", state, glimpse, location)
    return state, state.hidden

  def locate(params: networks.Params, hidden: jax.Array) -> jax.Array:
    return apply(params, "locate", hidden)

  def read(params: networks.Params, hidden: jax.Array) -> tuple[jax.Array, jax.Array]:
    return apply(params, "read", hidden)

  def predict_error(
    params: networks.Params, hidden: jax.Array, probs: jax.Array
  ) -> jax.Array:
    return networks.predict_error(params.error, hidden, probs)

  def apply(params: networks.Params, method: str, *inputs: Any) -> Any:
    return module.apply({"params": params.ram}, *inputs, method=method)

  def first_location(key: jax.Array) -> jax.Array:
    if config.first_location == "centre":
      return jnp.zeros(2)
    return policy.uniform_location(key)

  def fast_unroll(*inputs: PyTree, model: Model, **options: Any) -> Unrolled:
    """The gradient by hand, if the model still has the networks it is written for."""
    if (model.start, model.step, model.locate) != (start, step, locate):
      return unroll(*inputs, model=model, **options)
    return unroll_by_hand(*inputs, model=model, module=module, **options)

  return Model(
    init=init,
    start=start,
    step=step,
    locate=locate,
    read=read,
    predict_error=predict_error,
    sensor=sensor,
    policy=policy_,
    first_location=first_location,
    unroll=fast_unroll,
  )
