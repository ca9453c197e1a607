"""The losses of the recurrent attention model, as pure functions of arrays.

Each loss returns one value for each example and accepts any leading axes. Time, if
there is a time axis, is axis 0; classes are the last axis. Each loss stops the gradient
of its constants (rewards, advantages, targets) itself. It does not average over the
batch and has no weight: `ramjax.objective` adds both as the paper does.

Labels are classes [...], integer in [0, K), or soft labels [..., K], float: a
distribution over the classes, as label smoothing, mixup or several annotators give it.
Nothing checks that it is nonnegative and sums to one.

The reward and the first three losses train the model of Mnih et al. (2014),
https://arxiv.org/abs/1406.6247. The error fit, the uncertainty loss and the intrinsic
loss come from section 3 of the paper. The paper maximises objectives J; these losses
are -J.
"""

import jax
import jax.numpy as jnp
import optax

from ramjax.checks import TIME_FIRST, check_distribution, check_shape, check_type


def reward(
  logits: jax.Array, label: jax.Array, *, temperature: float = 0.0
) -> jax.Array:
  """The reward of a prediction: 1 if the most probable class is correct, else 0.

  Paper, section 3: J_original is the expectation of this reward. A temperature above 0
  makes a smooth one of it, sigmoid(margin / temperature), like the count of errors of
  Juang and Katagiri (1992), https://doi.org/10.1109/78.175747: the margin is the logit of
  the correct class less the largest other one. So rollouts with the same answer still
  differ, and the policy learns from them, too. A prediction that is not finite has
  reward 0.

  Args:
    logits: unnormalised log-probabilities [..., K] of the prediction; without a
      temperature also probabilities.
    label: true classes [...], integer in [0, K), or soft labels [..., K], of which the
      most probable class is the correct one (the first of several).
    temperature: number from 0.

  Returns:
    Rewards [...] from 0 to 1, in the dtype of `logits`; their gradient is zero.

  >>> import jax.numpy as jnp
  >>> logits = jnp.array([[2.0, 1.0], [2.0, 1.0]])
  >>> reward(logits, jnp.array([0, 1])).tolist()
  [1.0, 0.0]
  >>> smooth = reward(logits, jnp.array([0, 1]), temperature=0.3)
  >>> [round(float(each), 2) for each in smooth]
  [0.97, 0.03]
  """
  _check_classes(logits, label)
  if _is_soft(label):
    label = jnp.argmax(label, axis=-1)
  # Where a number is NaN, so is the largest, and `argmax` is its place.
  finite = jnp.isfinite(jnp.max(logits, axis=-1))
  if temperature == 0:
    return (finite & (jnp.argmax(logits, axis=-1) == label)).astype(logits.dtype)
  correct = jax.nn.one_hot(label, logits.shape[-1], dtype=bool)
  margin = jnp.max(logits, axis=-1, where=correct, initial=-jnp.inf)
  margin -= jnp.max(logits, axis=-1, where=~correct, initial=-jnp.inf)
  smooth = jnp.where(finite, jax.nn.sigmoid(margin / temperature), 0)
  return jax.lax.stop_gradient(smooth.astype(logits.dtype))


def classification_loss(logits: jax.Array, label: jax.Array) -> jax.Array:
  """Cross entropy of a prediction, -log p[label], or -sum_i y_i log p_i.

  Here p = softmax(logits), and y is a soft label.

  Args:
    logits: unnormalised log-probabilities [..., K] after the last glimpse.
    label: true classes [...], integer in [0, K), or soft labels [..., K], whose gradient
      is stopped.

  Returns:
    Losses [...].

  >>> import jax.numpy as jnp
  >>> logits = jnp.log(jnp.array([0.25, 0.75]))
  >>> round(float(classification_loss(logits, jnp.array(1))), 4)  # -log 0.75
  0.2877
  >>> round(float(classification_loss(logits, jnp.array([0.5, 0.5]))), 4)
  0.837
  """
  _check_classes(logits, label)
  if _is_soft(label):
    return optax.losses.softmax_cross_entropy(logits, _distribution(label, logits))
  return optax.losses.softmax_cross_entropy_with_integer_labels(logits, label)


def reinforce_loss(
  log_prob_t: jax.Array, baseline_t: jax.Array, reward: jax.Array
) -> jax.Array:
  """REINFORCE with a baseline, -sum_t log pi(l_t) (R_t - b_t).

  Its gradient is the policy gradient of Williams (1992),
  https://doi.org/10.1007/BF00992696. Location l_t is drawn after glimpse t. The gradient
  of the advantage R_t - b_t is stopped.

  *One reward* of a rollout, R_t = R: it is credited to every location, also to the last
  one, after which no glimpse follows (as released). Give `log_prob_t[:-1]` and
  `baseline_t[:-1]` to leave the last location out, as `objective` does without
  `ObjectiveConfig.credit_last_location`.

  *A reward r_t of each glimpse*: R_t is the sum of the later rewards, `reward_to_go`. No
  glimpse follows the last location, so R_t is 0 there and the sum over t leaves this
  location out. Hence a single reward at the last glimpse gives the loss of one reward
  without the last location. `reward[0]` is credited to no location: the policy did not
  choose the first glimpse.

  The policy gradient stays unbiased although earlier rewards are left out: given all that
  was seen up to glimpse t, r_0 … r_t and b_t are constants, and a constant times the
  score, the gradient of log pi(l_t), has the mean zero. Only noise is left out (Baxter and
  Bartlett, 2001, Journal of Artificial Intelligence Research 15). The score has a mean of
  zero for the density of the raw sample, not near the border of the image for that of the
  clipped one (`ModelConfig.location_density`).

  Args:
    log_prob_t: log-densities of the sampled locations [T, ...].
    baseline_t: predicted rewards b [T, ...].
    reward: rewards R [...] of the rollouts, or r [T, ...] of their glimpses.

  Returns:
    Losses [...], summed over time.

  >>> import jax.numpy as jnp
  >>> log_prob_t, baseline_t = jnp.array([-1.0, -2.0, -4.0]), jnp.zeros(3)
  >>> float(reinforce_loss(log_prob_t, baseline_t, jnp.array(1.0)))  # 1 + 2 + 4
  7.0
  >>> reward_t = jnp.array([0.0, 1.0, 1.0])  # right after the second and third glimpse
  >>> float(reinforce_loss(log_prob_t, baseline_t, reward_t))  # 2 · 1 + 1 · 2
  4.0
  """
  _check_reward(baseline_t, reward)
  check_shape(baseline_t.shape, log_prob_t=log_prob_t)
  return_t = reward[None]
  if reward.ndim == baseline_t.ndim:
    return_t = reward_to_go(reward)[:-1]
    log_prob_t, baseline_t = log_prob_t[:-1], baseline_t[:-1]
  advantage_t = jax.lax.stop_gradient(return_t - baseline_t)
  return -jnp.sum(log_prob_t * advantage_t, axis=0)


def baseline_loss(baseline_t: jax.Array, reward: jax.Array) -> jax.Array:
  """Squared error of the baseline, mean_t (b_t - R_t)².

  R_t is what `reinforce_loss` credits to location t, from the same rewards. With a reward
  of each glimpse, the mean is over the locations that a glimpse follows, t < T - 1; a
  single glimpse has the loss 0.

  Args:
    baseline_t: predicted rewards b [T, ...].
    reward: rewards R [...] of the rollouts, or r [T, ...] of their glimpses; their
      gradient is stopped.

  Returns:
    Losses [...], averaged over time.
  """
  _check_reward(baseline_t, reward)
  if reward.ndim == baseline_t.ndim:
    target_t = jax.lax.stop_gradient(reward_to_go(reward)[:-1])
    error_t = jnp.square(baseline_t[:-1] - target_t)
    return jnp.sum(error_t, axis=0) / max(error_t.shape[0], 1)
  target = jax.lax.stop_gradient(reward[None])
  return jnp.mean(jnp.square(baseline_t - target), axis=0)


def leave_one_out(reward: jax.Array) -> jax.Array:
  """The mean reward of the other rollouts of the same image, a baseline of REINFORCE.

  The other rollouts know the image but not the locations of this one. So the baseline
  does not bias the gradient, and takes away the noise that comes from the difficulty of
  the image (Mnih and Rezende, 2016, https://arxiv.org/abs/1602.06725; Kool et al., 2019,
  https://openreview.net/forum?id=r1lgTGL5DE).

  Args:
    reward: rewards [..., S] of S rollouts of each image, S at least 2.

  Returns:
    Baselines [..., S].

  Raises:
    AssertionError: if there is a single rollout.

  >>> import jax.numpy as jnp
  >>> leave_one_out(jnp.array([1.0, 0.0, 0.0])).tolist()
  [0.0, 0.5, 0.5]
  """
  check_type(float, reward=reward)
  if reward.shape[-1] < 2:
    raise AssertionError("reward must be of at least two rollouts of each image")
  total = jnp.sum(reward, axis=-1, keepdims=True)
  return (total - reward) / (reward.shape[-1] - 1)


def control_variate(reward_t: jax.Array, advantage_t: jax.Array) -> jax.Array:
  """What the reward so far tells of the advantage.

  A rollout that answers right after glimpse t will mostly do so after the last glimpse,
  wherever it looks next. So a part of the advantage of the next location is known before
  it is drawn: c_t · (r_t - mean r_t), with r_t the reward that the rollout would have if it
  ended at glimpse t. The mean is that of the other rollouts of the image, or, where there
  is one rollout, of the other images. c_t is fitted to the other images by least squares
  (a line about their own mean). So neither depends on what the rollout draws next: to
  subtract this from the advantage takes noise from the gradient and does not bias it
  (control variates: Greensmith, Bartlett and Baxter, 2004, Journal of Machine Learning
  Research 5).

  Args:
    reward_t: rewards so far [T, B, S] of S rollouts of each of B images, B at least 2.
    advantage_t: rewards less their baseline [T, B, S].

  Returns:
    The known part of the advantages [T, B, S], with zero gradient.

  Raises:
    AssertionError: if there is a single image, or the shapes differ.

  >>> import jax.numpy as jnp
  >>> reward_t = jnp.array([[[0.0, 1.0], [1.0, 0.0]]])  # one glimpse, two images
  >>> control_variate(reward_t, 0.5 * reward_t - 0.25).tolist()
  [[[-0.25, 0.25], [0.25, -0.25]]]
  """
  check_type(float, reward_t=reward_t, advantage_t=advantage_t)
  check_shape((None, None, None), hint="[T, B, S]", reward_t=reward_t)
  check_shape(reward_t.shape, advantage_t=advantage_t)
  _, num_images, num_rollouts = reward_t.shape
  if num_images < 2:
    raise AssertionError("reward_t must be of at least two images")
  of_others = leave_one_out if num_rollouts > 1 else _leave_one_image_out
  known_t = reward_t - of_others(reward_t)

  def covariance_of_others(values_t: jax.Array) -> jax.Array:
    products, known, values = (
      _leave_one_image_out(jnp.mean(each_t, axis=-1, keepdims=True))
      for each_t in (known_t * values_t, known_t, values_t)
    )
    return products - known * values

  variance_t = covariance_of_others(known_t)
  rounding_t = 1e-5 * jnp.mean(jnp.square(known_t), axis=(1, 2), keepdims=True)
  differ_t = variance_t > rounding_t
  slope_t = covariance_of_others(advantage_t) / jnp.where(differ_t, variance_t, 1)
  return jax.lax.stop_gradient(jnp.where(differ_t, slope_t, 0) * known_t)


def generalized_advantage(
  value_t: jax.Array, reward: jax.Array, *, decay: float
) -> jax.Array:
  """What the later glimpses of a rollout gain, the later the less.

  A_t = sum_{s >= t} decay^(s - t) (v_{s+1} - v_s), where v_t is the reward to expect after
  glimpse t, and the last one the reward R itself: generalised advantage estimation
  (Schulman et al., 2016, https://arxiv.org/abs/1506.02438), with one reward at the end. A
  decay of 1 gives R - v_t, which has no bias if v_t knows nothing of what comes after
  glimpse t. One below 1 credits a location less for what later locations gain or lose:
  less noise, and a bias as far as v errs. A decay of 0 credits what the next glimpse
  gains. The last location, which no glimpse follows, has 0.

  Args:
    value_t: expected rewards v [T, ...]; the last one is not read.
    reward: rewards R [...].
    decay: number from 0 to 1.

  Returns:
    Advantages [T, ...] of the locations, with zero gradient.

  >>> import jax.numpy as jnp
  >>> value_t, reward = jnp.array([0.25, 0.5, 0.5]), jnp.array(1.0)
  >>> generalized_advantage(value_t, reward, decay=0.5).tolist()  # 0.25 + 0.5 · 0.5
  [0.5, 0.5, 0.0]
  >>> generalized_advantage(value_t, reward, decay=1.0).tolist()
  [0.75, 0.5, 0.0]
  """
  check_type(float, value_t=value_t, reward=reward)
  check_shape((None, *reward.shape), hint=TIME_FIRST, value_t=value_t)
  gain_t = jnp.diff(value_t.at[-1].set(reward), axis=0, append=reward[None])
  number = jnp.arange(len(gain_t), dtype=gain_t.dtype)
  distance = number[None, :] - number[:, None]
  weight = jnp.where(distance < 0, 0, jnp.power(decay, jnp.abs(distance)))
  total_t = jnp.tensordot(weight, gain_t, axes=1, precision="highest")
  return jax.lax.stop_gradient(total_t)


def reward_to_go(reward_t: jax.Array) -> jax.Array:
  """The sum of the later rewards, R_t = sum_{s > t} r_s.

  It is the return of the location that is drawn after glimpse t: this location has chosen
  the glimpses after t, not glimpse t itself.

  Args:
    reward_t: rewards r of the glimpses [T, ...].

  Returns:
    Returns R [T, ...]; the last one is 0.

  >>> import jax.numpy as jnp
  >>> reward_to_go(jnp.array([8.0, 4.0, 2.0, 1.0])).tolist()
  [7.0, 3.0, 1.0, 0.0]
  """
  check_type(float, reward_t=reward_t)
  check_shape((None, ...), reward_t=reward_t)
  later_t = jax.lax.cumsum(reward_t[1:], axis=0, reverse=True)
  return jnp.concatenate([later_t, jnp.zeros_like(reward_t[:1])])


def error_fit_loss(
  predicted_error_t: jax.Array, probs_t: jax.Array, label: jax.Array
) -> jax.Array:
  """Squared error of the self-uncertainty, mean_{t,i} (u_{t,i} - |y_i - p_{t,i}|)².

  y is the one-hot label, or the soft one. With this loss the error network learns to
  predict the error of the prediction p, which is unknown at test time (J_auxiliary of
  the paper, section 3).

  Args:
    predicted_error_t: self-uncertainties u [T, ..., K].
    probs_t: softmax outputs p [T, ..., K]; their gradient is stopped.
    label: true classes [...], integer in [0, K), or soft labels [..., K], whose gradient
      is stopped.

  Returns:
    Losses [...], averaged over time and classes.

  >>> import jax.numpy as jnp
  >>> probs_t = jnp.array([[0.75, 0.25]])  # one glimpse, true errors 0.25 and 0.25
  >>> predicted_error_t = jnp.array([[0.25, 0.75]])
  >>> float(error_fit_loss(predicted_error_t, probs_t, jnp.array(0)))
  0.125
  """
  check_shape(probs_t.shape, predicted_error_t=predicted_error_t)
  batch = label.shape[:-1] if _is_soft(label) else label.shape
  check_shape((None, *batch, None), hint=TIME_FIRST, probs_t=probs_t)
  _check_classes(probs_t[0], label)
  truth = _distribution(label, probs_t[0])
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
  check_shape((None, ..., None), predicted_error_t=predicted_error_t)
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
  check_type(float, logits=logits)
  log_probs = jax.nn.log_softmax(logits)
  if prior is None:
    return -jnp.mean(log_probs, axis=-1)
  check_distribution("prior", prior)
  prior = jnp.asarray(prior, logits.dtype)
  check_shape((..., logits.shape[-1]), prior=prior)
  prior = jnp.broadcast_to(prior, logits.shape)
  return -jnp.sum(prior * log_probs, axis=-1)


def _is_soft(label: jax.Array) -> bool:
  return jnp.issubdtype(label.dtype, jnp.floating)


def _distribution(label: jax.Array, like: jax.Array) -> jax.Array:
  """Labels as constant distributions of the shape and dtype of `like`."""
  if _is_soft(label):
    return jax.lax.stop_gradient(label.astype(like.dtype))
  return jax.nn.one_hot(label, like.shape[-1], dtype=like.dtype)


def _check_classes(logits: jax.Array, label: jax.Array) -> None:
  soft = _is_soft(label)
  check_type(float, logits=logits)
  check_type(float if soft else int, label=label)
  check_shape(logits.shape if soft else logits.shape[:-1], label=label)


def _leave_one_image_out(each_t: jax.Array) -> jax.Array:
  """The means [T, B, …] over the other images of values [T, B, …]."""
  return jnp.moveaxis(leave_one_out(jnp.moveaxis(each_t, 1, -1)), -1, 1)


def _check_reward(baseline_t: jax.Array, reward: jax.Array) -> None:
  check_type(float, baseline_t=baseline_t, reward=reward)
  per_glimpse = reward.ndim == baseline_t.ndim
  shape = reward.shape if per_glimpse else (None, *reward.shape)
  check_shape(shape, hint=TIME_FIRST, baseline_t=baseline_t)
