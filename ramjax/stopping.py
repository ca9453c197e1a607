"""The stopping rule: a dynamic number of glimpses (the paper, section 3).

The probability p and the self-uncertainty u give each class a lower and an upper bound,
p - beta u and p + beta u, like the arms of a bandit. The model stops at the first glimpse
where the lower bound of the best class exceeds the upper bounds of all other classes.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ramjax.checks import (
  TIME_FIRST,
  as_count,
  check_positive,
  check_shape,
  check_type,
)

StoppingRule = Callable[[jax.Array, jax.Array], jax.Array]
"""From softmax outputs p [..., K] and self-uncertainties u [..., K] to Booleans [...]:
whether the model stops."""


def is_decided(
  probs: jax.Array, predicted_error: jax.Array, *, beta: float | jax.Array
) -> jax.Array:
  """Whether p_i* - beta u_i* > p_i + beta u_i for every class i other than i*.

  i* is the class with the highest probability; of equal ones, the first.

  Args:
    probs: softmax outputs p [..., K].
    predicted_error: self-uncertainties u [..., K].
    beta: exploration rate, at least 0; a larger rate takes more glimpses.

  Returns:
    Booleans [...].

  >>> import jax.numpy as jnp
  >>> probs, predicted_error = jnp.array([0.6, 0.4]), jnp.array([0.1, 0.1])
  >>> bool(is_decided(probs, predicted_error, beta=0.5))  # .6 - .05 > .4 + .05
  True
  >>> bool(is_decided(probs, predicted_error, beta=2.0))  # .6 - .2 < .4 + .2
  False
  """
  check_type(float, probs=probs, predicted_error=predicted_error)
  check_shape(probs.shape, predicted_error=predicted_error)
  check_positive("beta", beta, or_zero=True)
  best = jax.nn.one_hot(jnp.argmax(probs, axis=-1), probs.shape[-1], dtype=jnp.bool_)
  # All but the last two lines is independent of beta, and XLA computes it only once for
  # all of several rates.
  best_prob = jnp.max(probs, axis=-1)
  best_error = jnp.sum(jnp.where(best, predicted_error, 0.0), axis=-1)
  other_probs = jnp.where(best, -jnp.inf, probs)
  upper = jnp.max(other_probs + beta * predicted_error, axis=-1)
  return best_prob - beta * best_error > upper


def stopping_time(
  probs_t: jax.Array, predicted_error_t: jax.Array, *, beta: float | jax.Array
) -> jax.Array:
  """Number of glimpses until the first decision; T if there is no decision.

  Args:
    probs_t: softmax outputs p [T, ..., K] after each glimpse.
    predicted_error_t: self-uncertainties u [T, ..., K].
    beta: exploration rate, at least 0. With beta = 0 the model stops after one glimpse,
      unless two classes tie.

  Returns:
    Numbers of glimpses [...], int32 in 1…T.

  >>> import jax.numpy as jnp
  >>> probs_t = jnp.array([[0.6, 0.4], [0.7, 0.3], [0.9, 0.1]])
  >>> int(stopping_time(probs_t, jnp.full((3, 2), 0.3), beta=1.0))  # .9-.3 > .1+.3
  3
  """
  return first_decision(is_decided(probs_t, predicted_error_t, beta=beta))


def first_decision(decided_t: jax.Array) -> jax.Array:
  """Number of glimpses until a rule of your own holds; T if it never does.

  Args:
    decided_t: whether it holds after each glimpse [T, ...], Boolean.

  Returns:
    Numbers of glimpses [...], int32 in 1…T.

  >>> import jax.numpy as jnp
  >>> probs_t = jnp.array([[0.6, 0.4], [0.7, 0.3], [0.9, 0.1]])
  >>> int(first_decision(probs_t.max(-1) > 0.65))
  2
  """
  first = jnp.argmax(decided_t, axis=0) + 1
  never = ~jnp.any(decided_t, axis=0)
  return jnp.where(never, decided_t.shape[0], first).astype(jnp.int32)


def at_stop(values_t: jax.Array, num_glimpses: jax.Array) -> jax.Array:
  """The value of each example at its own last glimpse.

  Args:
    values_t: values [T, ...] after each glimpse.
    num_glimpses: number of glimpses of each example [...], integer in 1…T.

  Returns:
    Values [...], `values_t[num_glimpses - 1]` for each example.
  """
  check_shape((None, *num_glimpses.shape), hint=TIME_FIRST, values_t=values_t)
  return jnp.take_along_axis(values_t, num_glimpses[None] - 1, axis=0)[0]


def is_decided_as_released(
  probs: jax.Array, predicted_error: jax.Array, *, beta: float | jax.Array
) -> jax.Array:
  """The condition of the released code: p_i* - beta u_i* >= p_i' - beta u_i'.

  i* is the class with the highest p, and the rival i' that of the others with the highest
  p + beta u; of equal ones, the first. The paper adds beta u to the rival. Here it is
  subtracted, so that an uncertain rival makes the model stop earlier.

  Args:
    probs: softmax outputs p [..., K].
    predicted_error: self-uncertainties u [..., K].
    beta: exploration rate, at least 0.

  Returns:
    Booleans [...].

  >>> import jax.numpy as jnp
  >>> probs, predicted_error = jnp.array([0.6, 0.4]), jnp.array([0.1, 0.1])
  >>> bool(is_decided_as_released(probs, predicted_error, beta=2.0))  # .6-.2 >= .4-.2
  True
  """
  check_type(float, probs=probs, predicted_error=predicted_error)
  check_shape(probs.shape, predicted_error=predicted_error)
  check_positive("beta", beta, or_zero=True)
  bound = beta * predicted_error
  best = jax.nn.one_hot(jnp.argmax(probs, axis=-1), probs.shape[-1], dtype=jnp.bool_)
  upper = jnp.where(best, -jnp.inf, probs + bound)
  rival = jax.nn.one_hot(jnp.argmax(upper, axis=-1), probs.shape[-1], dtype=jnp.bool_)
  lower_best, lower_rival = (
    jnp.sum(jnp.where(chosen, probs - bound, 0.0), axis=-1) for chosen in (best, rival)
  )
  return lower_best >= lower_rival


def stopping_time_as_released(
  probs_t: jax.Array,
  predicted_error_t: jax.Array,
  *,
  beta: float | jax.Array,
  batch_size: int = 32,
) -> jax.Array:
  """Numbers of glimpses as the released code counts them, which depend on the batch.

  The M copies of `batch_size` images look on until all of them have stopped. Until then a
  copy's number of glimpses is that of the latest glimpse at which
  `is_decided_as_released` holds, not of the first. So an image gets more glimpses if
  another one of its batch is hard. A copy that is never decided counts T.

  Args:
    probs_t: softmax outputs p [T, M, I, K] of I images after each glimpse.
    predicted_error_t: self-uncertainties u [T, M, I, K].
    beta: exploration rate, at least 0.
    batch_size: images that look together, in their order; the last may be fewer.

  Returns:
    Numbers of glimpses [M, I], int32 in 1…T.
  """
  check_shape((None,) * 4, hint="[T, M, I, K]", probs_t=probs_t)
  batch_size = as_count("batch_size", batch_size)
  decided_t = is_decided_as_released(probs_t, predicted_error_t, beta=beta)
  num_glimpses, num_samples, num_images = decided_t.shape
  missing = -num_images % batch_size
  # Images that are not there never keep a batch waiting.
  filled_t = jnp.pad(decided_t, ((0, 0), (0, 0), (0, missing)), constant_values=True)
  by_batch_t = filled_t.reshape(num_glimpses, num_samples, -1, batch_size)
  stopped_t = jax.lax.cummax(by_batch_t.astype(jnp.int32), axis=0) > 0
  together_t = stopped_t.all(axis=(1, 3))  # [T, batches]
  last = jnp.where(
    together_t.any(axis=0), jnp.argmax(together_t, axis=0), num_glimpses - 1
  )
  glimpse = jax.lax.broadcasted_iota(jnp.int32, by_batch_t.shape, 0)
  counted_t = by_batch_t & (glimpse <= last[None, None, :, None])
  latest = jnp.max(jnp.where(counted_t, glimpse + 1, 0), axis=0)
  taken = jnp.where(latest > 0, latest, num_glimpses)
  return taken.reshape(num_samples, -1)[:, :num_images].astype(jnp.int32)
