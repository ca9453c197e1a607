"""The losses of the recurrent attention model, as pure functions of arrays.

Each loss returns one value for each example and accepts any leading axes. Time, if
there is a time axis, is axis 0; classes are the last axis. Each loss stops the gradient
of its constants (rewards, advantages, targets) itself. It does not average over the
batch and has no weight: `ramjax.objective` adds both as the paper does.

The first four functions train the model of Mnih et al. (2014),
https://arxiv.org/abs/1406.6247. The error fit, the uncertainty loss and the intrinsic
loss come from section 3 of the paper. The paper maximises objectives J; these losses
are -J.
"""

import chex
import jax
import jax.numpy as jnp
import optax


def reward(logits: jax.Array, label: jax.Array) -> jax.Array:
  """The reward of a prediction: 1 if the most probable class is correct, else 0.

  Paper, section 3: J_original is the expectation of this reward.

  Args:
    logits: unnormalised log-probabilities [..., K] of the prediction.
    label: true classes [...], integer in [0, K).

  Returns:
    Rewards [...], 0 or 1, in the dtype of `logits`; their gradient is zero.

  >>> import jax.numpy as jnp
  >>> reward(jnp.array([[2.0, 1.0], [2.0, 1.0]]), jnp.array([0, 1])).tolist()
  [1.0, 0.0]
  """
  _check_classes(logits, label)
  return (jnp.argmax(logits, axis=-1) == label).astype(logits.dtype)


def classification_loss(logits: jax.Array, label: jax.Array) -> jax.Array:
  """Cross entropy of a prediction, -log softmax(logits)[label].

  Args:
    logits: unnormalised log-probabilities [..., K] after the last glimpse.
    label: true classes [...], integer in [0, K).

  Returns:
    Losses [...].
  """
  _check_classes(logits, label)
  return optax.losses.softmax_cross_entropy_with_integer_labels(logits, label)


def reinforce_loss(
  log_prob_t: jax.Array, baseline_t: jax.Array, reward: jax.Array
) -> jax.Array:
  """REINFORCE with a baseline, -sum_t log pi(l_t) (R - b_t).

  Its gradient is the policy gradient of Williams (1992),
  https://doi.org/10.1007/BF00992696. The final reward R is credited to every location.
  The gradient of the advantage R - b_t is stopped.

  Args:
    log_prob_t: log-densities of the sampled locations [T, ...].
    baseline_t: predicted rewards b [T, ...].
    reward: rewards R [...].

  Returns:
    Losses [...], summed over time.
  """
  _check_reward(baseline_t, reward)
  chex.assert_equal_shape([log_prob_t, baseline_t])
  advantage_t = jax.lax.stop_gradient(reward[None] - baseline_t)
  return -jnp.sum(log_prob_t * advantage_t, axis=0)


def baseline_loss(baseline_t: jax.Array, reward: jax.Array) -> jax.Array:
  """Squared error of the baseline, mean_t (b_t - R)².

  Args:
    baseline_t: predicted rewards b [T, ...].
    reward: rewards R [...]; their gradient is stopped.

  Returns:
    Losses [...], averaged over time.
  """
  _check_reward(baseline_t, reward)
  target = jax.lax.stop_gradient(reward[None])
  return jnp.mean(jnp.square(baseline_t - target), axis=0)


def error_fit_loss(
  predicted_error_t: jax.Array, probs_t: jax.Array, label: jax.Array
) -> jax.Array:
  """Squared error of the self-uncertainty, mean_{t,i} (u_{t,i} - |y_i - p_{t,i}|)².

  y is the one-hot label. With this loss the error network learns to predict the error
  of the prediction p, which is unknown at test time (J_auxiliary of the paper,
  section 3).

  Args:
    predicted_error_t: self-uncertainties u [T, ..., K].
    probs_t: softmax outputs p [T, ..., K]; their gradient is stopped.
    label: true classes [...], integer in [0, K).

  Returns:
    Losses [...], averaged over time and classes.

  >>> import jax.numpy as jnp
  >>> probs_t = jnp.array([[0.75, 0.25]])  # one glimpse, true errors 0.25 and 0.25
  >>> predicted_error_t = jnp.array([[0.25, 0.75]])
  >>> float(error_fit_loss(predicted_error_t, probs_t, jnp.array(0)))
  0.125
  """
  chex.assert_equal_shape([predicted_error_t, probs_t])
  _check_classes(probs_t[0], label)
  truth = jax.nn.one_hot(label, probs_t.shape[-1], dtype=probs_t.dtype)
  error_t = jax.lax.stop_gradient(jnp.abs(truth[None] - probs_t))
  return jnp.mean(jnp.square(predicted_error_t - error_t), axis=(0, -1))


def uncertainty_loss(predicted_error_t: jax.Array) -> jax.Array:
  """The self-uncertainty of a rollout, sum_{t,i} |u_{t,i}|.

  This is -J_uncertainty / lambda_1 of the paper, section 3. Like the released code, it
  sums over the glimpses.

  Args:
    predicted_error_t: self-uncertainties u [T, ..., K].

  Returns:
    Losses [...], summed over time and classes.

  >>> import jax.numpy as jnp
  >>> predicted_error_t = jnp.array([[0.5, 0.25], [0.25, 0.0]])  # two glimpses
  >>> float(uncertainty_loss(predicted_error_t))
  1.0
  """
  chex.assert_shape(predicted_error_t, (None, ..., None))
  return jnp.sum(jnp.abs(predicted_error_t), axis=(0, -1))


def intrinsic_loss(logits: jax.Array, prior: jax.Array | None = None) -> jax.Array:
  """Cross entropy of a prior and the prediction, -sum_i q_i log p_i.

  This is -J_intrinsic / lambda_2 of the paper, section 3. The paper's prior q is
  uniform. Another q suits classes that are unbalanced or of unequal importance.

  Args:
    logits: unnormalised log-probabilities [..., K]; the released code uses those after
      the last glimpse.
    prior: distribution q over the classes, [K] or [..., K]; None is uniform.

  Returns:
    Losses [...]; the minimum is the entropy of q, at p = q.

  >>> import jax.numpy as jnp
  >>> round(float(intrinsic_loss(jnp.zeros(10))), 4)  # log 10
  2.3026
  """
  chex.assert_type(logits, float)
  log_probs = jax.nn.log_softmax(logits)
  if prior is None:
    return -jnp.mean(log_probs, axis=-1)
  chex.assert_axis_dimension(prior, -1, logits.shape[-1])
  prior = jnp.broadcast_to(jnp.asarray(prior, logits.dtype), logits.shape)
  return -jnp.sum(prior * log_probs, axis=-1)


def _check_classes(logits: jax.Array, label: jax.Array) -> None:
  chex.assert_type([logits, label], [float, int])
  chex.assert_shape(label, logits.shape[:-1])


def _check_reward(baseline_t: jax.Array, reward: jax.Array) -> None:
  chex.assert_type([baseline_t, reward], float)
  chex.assert_shape(baseline_t, (None, *reward.shape))
