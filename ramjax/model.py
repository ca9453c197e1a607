"""What a model is: a few pure functions, as an optimiser is in Optax.

`ramjax.recurrent_attention_model` makes the model of the paper. A model of your own is
another `Model`: the library asks for nothing else, and differentiates it by autodiff.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp

from ramjax.fields import ConfigError
from ramjax.glimpse import extract_glimpse
from ramjax.policy import Policy, gaussian_policy, uniform_location

PyTree = Any
"""Arrays in any nesting that `jax.tree` knows, such as the parameters of Flax."""

Sensor = Callable[[jax.Array, jax.Array], jax.Array]
"""From an image [H, W, C] and a location (x, y) [2] to a glimpse of fixed shape."""


def retina(image: jax.Array, location: jax.Array) -> jax.Array:
  """The paper's sensor: one patch of 8×8 pixels, see `ramjax.extract_glimpse`."""
  return extract_glimpse(image, location, patch_size=8)


def expected_error(params: PyTree, hidden: jax.Array, probs: jax.Array) -> jax.Array:
  """The self-uncertainty u of a model that has no network for it, 2 p (1 - p).

  If the class is drawn from p, this is the expectation of the error |y - p| that the
  error network of the paper learns.

  Args:
    params: not used.
    hidden: not used.
    probs: softmax outputs p [..., K].

  Returns:
    Self-uncertainties [..., K], in [0, 1/2].
  """
  return 2.0 * probs * (1.0 - probs)


class Model(NamedTuple):
  """A model that looks at images through glimpses, as pure functions of one image.

  No function has a batch axis: the library maps them over images and glimpses with
  `jax.vmap`. Parameters are any pytree of floats, the state is any pytree. Functions are
  pure: the only randomness is that of the policy, and nothing is written down in a step,
  as dropout and batch normalisation would. A model is a static argument of jitted
  functions, so make it once: new functions are compiled anew. `check_model` says what does
  not fit. Replace a part by one for the same shapes with `model._replace(sensor=...)`; for
  others, give it to `ramjax.recurrent_attention_model`, whose networks follow it.

  Locations are constants. Of the policy gradient, `locate` gets all, and what it reads,
  `hidden`, the share `location_gradient` of `ramjax.rollout`, by default nothing. Which
  gradient the other functions send back is up to them: in the paper's model, the baseline
  reads `stop_gradient(hidden)`.

  Attributes:
    init: from a key to parameters.
    start: from parameters to the state before the first glimpse.
    step: from parameters, state, glimpse and its location (x, y) [2] to the next state
      and `hidden`, an array [n] that the functions below read.
    locate: from parameters and `hidden` to what `policy` takes: for the Gaussian of the
      paper, the mean of the next location [2].
    read: from parameters and `hidden` to the logits of the prediction [K] and the
      predicted reward [], the baseline.
    predict_error: from parameters, `hidden` and softmax outputs [K] to the
      self-uncertainty u [K]. The default has no parameters: the error fit then trains
      nothing, and the uncertainty term makes predictions sharper.
    sensor: from an image [H, W, C] and a location [2] to a glimpse.
    policy: how the next location is drawn.
    first_location: from a key to the location of the first glimpse [2].
    unroll: a replacement of `ramjax.unroll.unroll` with the same arguments, for a model
      with a gradient of its own; None uses autodiff.
  """

  init: Callable[[jax.Array], PyTree]
  start: Callable[[PyTree], PyTree]
  step: Callable[[PyTree, PyTree, jax.Array, jax.Array], tuple[PyTree, jax.Array]]
  locate: Callable[[PyTree, jax.Array], PyTree]
  read: Callable[[PyTree, jax.Array], tuple[jax.Array, jax.Array]]
  predict_error: Callable[[PyTree, jax.Array, jax.Array], jax.Array] = expected_error
  sensor: Sensor = retina
  policy: Policy = gaussian_policy(0.1)
  first_location: Callable[[jax.Array], jax.Array] = uniform_location
  unroll: Callable[..., Any] | None = None

  @classmethod
  def from_methods(
    cls,
    init: Callable[[jax.Array], PyTree],
    call: Callable[..., Any],
    *,
    methods: Sequence[str] = ("start", "step", "locate", "read"),
    **others: Any,
  ) -> Self:
    """A model from a module with methods of the names above, of any library.

    Args:
      init: from a key to parameters.
      call: from parameters, the name of a method and its arguments to its value. For
        Flax Linen it is `lambda params, name, *args: module.apply(params, *args,
        method=name)`.
      methods: the methods that the module has.
      **others: further attributes, such as `sensor=` and `policy=`.

    Returns:
      The model.
    """

    def bind(name: str) -> Callable[..., Any]:
      return lambda params, *args: call(params, name, *args)

    parts: dict[str, Any] = {name: bind(name) for name in methods}
    return cls(init, **parts, **others)


def check_model(
  model: Model, image_shape: tuple[int, int, int], num_classes: int | None = None
) -> None:
  """Checks that the functions of a model fit to each other; computes nothing.

  Args:
    model: the model.
    image_shape: height, width and channels of an image.
    num_classes: number of classes K; None for any.

  Raises:
    ConfigError: if a function returns something else than `Model` says; the message
      names the function.
    Exception: what a function itself raises.
  """

  def look(key: jax.Array, image: jax.Array) -> None:
    params = model.init(key)
    for leaf in jax.tree.leaves(params):
      _expect(
        "init", "parameters of floats", jnp.issubdtype(leaf.dtype, jnp.inexact), leaf
      )
    state = model.start(params)
    location = _array("first_location", model.first_location(key), (2,))
    glimpse = model.sensor(image, location)
    next_state, hidden = _pair("step", model.step(params, state, glimpse, location))
    before, after = (jax.tree.map(_shape, each) for each in (state, next_state))
    _expect(
      "step", f"a state like that of start, {before}", before == after, next_state
    )
    _array("step", hidden, (None,), what="hidden")
    output = model.locate(params, hidden)
    try:
      sample = model.policy.sample(output, model.policy.noise(key))
      log_prob = model.policy.log_prob(output, sample)
    except (TypeError, ValueError) as error:
      shapes = jax.tree.map(_shape, output)
      raise ConfigError(
        f"the policy cannot use what locate returns, {shapes}: {error}"
      ) from error
    _array("policy.log_prob", log_prob, ())
    _array("policy.location", model.policy.location(sample), (2,))
    logits, baseline = _pair("read", model.read(params, hidden))
    _array("read", logits, (num_classes,), what="logits")
    _array("read", baseline, (), what="baseline")
    probs = jax.nn.softmax(logits)
    _array("predict_error", model.predict_error(params, hidden, probs), probs.shape)

  jax.eval_shape(look, jax.random.key(0), jnp.zeros(image_shape))


def _pair(name: str, value: Any) -> tuple[Any, Any]:
  is_pair = isinstance(value, tuple) and len(value) == 2
  _expect(name, "a pair", is_pair, value)
  return value


def _array(
  name: str, value: Any, shape: tuple[int | None, ...], *, what: str = "an array"
) -> jax.Array:
  """The value, if it is an array of floats of that shape; None stands for any size."""
  sizes = ", ".join("n" if size is None else str(size) for size in shape)
  fits = isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jnp.floating)
  fits = fits and len(value.shape) == len(shape)
  fits = fits and all(
    size in (None, other) for size, other in zip(shape, value.shape, strict=True)
  )
  _expect(name, f"{what} [{sizes}] of floats", fits, value)
  return value


def _shape(value: Any) -> str:
  if isinstance(value, jax.Array):
    return f"{value.dtype}{list(value.shape)}"
  return type(value).__name__


def _expect(name: str, what: str, fits: bool, value: Any) -> None:
  if not fits:
    found = jax.tree.map(_shape, value)
    raise ConfigError(f"{name} of a model must return {what}, not {found}")
