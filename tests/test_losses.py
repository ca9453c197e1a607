"""Losses: values derived by hand, gradients, and stopped gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.test_util import check_grads

import ramjax

LOG = np.log
T, B, K = 3, 4, 5


@pytest.fixture
def arrays():
  """Random inputs of every loss, with two leading axes between time and classes."""
  keys = jax.random.split(jax.random.key(0), 8)
  shape = (2, B)
  return {
    "logits": jax.random.normal(keys[0], (*shape, K)),
    "label": jax.random.randint(keys[1], shape, 0, K),
    "soft_label": jax.nn.softmax(jax.random.normal(keys[6], (*shape, K))),
    "log_prob_t": jax.random.normal(keys[2], (T, *shape)),
    "baseline_t": jax.random.uniform(keys[3], (T, *shape)),
    "probs_t": jax.nn.softmax(jax.random.normal(keys[4], (T, *shape, K))),
    "predicted_error_t": jax.random.uniform(keys[5], (T, *shape, K)) + 0.1,
    "reward": jnp.tile(jnp.array([0.0, 1.0]), (2, B // 2)),
    "reward_t": jax.random.normal(keys[7], (T, *shape)),
  }


def function(name):
  """The loss of an entry of `LOSSES`."""
  return getattr(ramjax, name.partition(" ")[0])


LOSSES = {
  "reward": ("logits", "label"),
  "classification_loss": ("logits", "label"),
  "reinforce_loss": ("log_prob_t", "baseline_t", "reward"),
  "baseline_loss": ("baseline_t", "reward"),
  "error_fit_loss": ("predicted_error_t", "probs_t", "label"),
  "uncertainty_loss": ("predicted_error_t",),
  "intrinsic_loss": ("logits",),
  "reward of soft labels": ("logits", "soft_label"),
  "classification_loss of soft labels": ("logits", "soft_label"),
  "error_fit_loss of soft labels": ("predicted_error_t", "probs_t", "soft_label"),
  "reinforce_loss of each glimpse": ("log_prob_t", "baseline_t", "reward_t"),
  "baseline_loss of each glimpse": ("baseline_t", "reward_t"),
}
LEARNED = {
  "classification_loss": "logits",
  "reinforce_loss": "log_prob_t",
  "baseline_loss": "baseline_t",
  "error_fit_loss": "predicted_error_t",
  "uncertainty_loss": "predicted_error_t",
  "intrinsic_loss": "logits",
  "classification_loss of soft labels": "logits",
  "error_fit_loss of soft labels": "predicted_error_t",
  "reinforce_loss of each glimpse": "log_prob_t",
  "baseline_loss of each glimpse": "baseline_t",
}
STOPPED = [
  ("reinforce_loss", "baseline_t"),
  ("reinforce_loss", "reward"),
  ("baseline_loss", "reward"),
  ("error_fit_loss", "probs_t"),
  ("reward", "logits"),
  ("classification_loss of soft labels", "soft_label"),
  ("error_fit_loss of soft labels", "soft_label"),
  ("error_fit_loss of soft labels", "probs_t"),
  ("reinforce_loss of each glimpse", "baseline_t"),
  ("reinforce_loss of each glimpse", "reward_t"),
  ("baseline_loss of each glimpse", "reward_t"),
]


def test_reward_by_hand():
  logits = jnp.array([[0.1, 0.7, 0.2], [0.5, 0.1, 0.4]])
  rewards = ramjax.reward(logits, jnp.array([1, 2]))
  assert rewards.tolist() == [1.0, 0.0]


def test_smooth_reward_by_hand():
  # sigmoid((log 3 - log 1) / 0.5) = 9 / 10; against the strongest other class only
  logits = jnp.array([[LOG(3.0), 0.0, -1.0], [0.0, -5.0, LOG(3.0)]])
  rewards = ramjax.reward(logits, jnp.array([0, 0]), temperature=0.5)
  np.testing.assert_allclose(rewards, [0.9, 0.1], rtol=1e-5)


def test_smooth_rewards(arrays):
  """They near the reward of 0 and 1, are constants, and are 0 for what is not finite."""
  logits, label = arrays["logits"], arrays["label"]
  cold = ramjax.reward(logits, label, temperature=1e-6)
  np.testing.assert_array_equal(cold, ramjax.reward(logits, label))
  warm = functools.partial(ramjax.reward, temperature=0.3)
  assert bool(jnp.all((warm(logits, label) > 0.5) == (cold == 1)))
  gradient = jax.grad(lambda logits: warm(logits, label).sum())(logits)
  np.testing.assert_array_equal(gradient, jnp.zeros_like(logits))
  soft = jax.nn.one_hot(label, K)
  np.testing.assert_array_equal(warm(logits, soft), warm(logits, label))
  for value in (jnp.nan, jnp.inf):
    spoilt = logits.at[0, 0, 1].set(value)
    assert warm(spoilt, label)[0, 0] == 0


def test_classification_by_hand():
  # softmax(log 1, log 3) = (1/4, 3/4)
  logits = jnp.array([0.0, LOG(3.0)])
  np.testing.assert_allclose(
    ramjax.classification_loss(logits, jnp.array(0)), LOG(4.0), rtol=1e-6
  )


def test_reinforce_by_hand():
  # -(0.5 · (1 - 0.25) + (-2) · (1 - 0.75)) = -(0.375 - 0.5) = 0.125
  loss = ramjax.reinforce_loss(
    jnp.array([[0.5], [-2.0]]), jnp.array([[0.25], [0.75]]), jnp.array([1.0])
  )
  np.testing.assert_allclose(loss, [0.125], rtol=1e-6)


def test_baseline_by_hand():
  # ((0.25 - 1)² + (0.75 - 1)²) / 2 = (0.5625 + 0.0625) / 2
  loss = ramjax.baseline_loss(jnp.array([[0.25], [0.75]]), jnp.array([1.0]))
  np.testing.assert_allclose(loss, [0.3125], rtol=1e-6)


def test_error_fit_by_hand():
  # Truth (1, 0), p = (0.7, 0.3): errors (0.3, 0.3); u = (0.5, 0.3): ((0.2)² + 0) / 2
  loss = ramjax.error_fit_loss(
    jnp.array([[0.5, 0.3]]), jnp.array([[0.7, 0.3]]), jnp.array(0)
  )
  np.testing.assert_allclose(loss, 0.02, rtol=1e-5)


def test_uncertainty_by_hand():
  predicted_error_t = jnp.array([[[0.5, -0.25]], [[0.0, 1.0]]])
  assert ramjax.uncertainty_loss(predicted_error_t).tolist() == [1.75]


def test_intrinsic_by_hand():
  # p = (1/4, 3/4): -(log 1/4 + log 3/4) / 2
  logits = jnp.array([0.0, LOG(3.0)])
  expected = -(LOG(0.25) + LOG(0.75)) / 2
  np.testing.assert_allclose(ramjax.intrinsic_loss(logits), expected, rtol=1e-6)
  expected = -(0.9 * LOG(0.25) + 0.1 * LOG(0.75))
  prior = jnp.array([0.9, 0.1])
  np.testing.assert_allclose(ramjax.intrinsic_loss(logits, prior), expected, rtol=1e-6)


def test_intrinsic_loss_is_minimal_at_its_prior():
  prior = jnp.array([0.2, 0.3, 0.5])
  slope = jax.grad(ramjax.intrinsic_loss)(jnp.log(prior), prior)
  np.testing.assert_allclose(slope, 0.0, atol=1e-7)


def test_a_uniform_prior_is_the_default(arrays):
  uniform = jnp.full(K, 1 / K)
  np.testing.assert_allclose(
    ramjax.intrinsic_loss(arrays["logits"]),
    ramjax.intrinsic_loss(arrays["logits"], uniform),
    rtol=1e-6,
  )


@pytest.mark.parametrize("name", LOSSES)
def test_losses_accept_any_leading_axes(name, arrays):
  loss = function(name)
  inputs = [arrays[argument] for argument in LOSSES[name]]
  axes = [1 if argument.endswith("_t") else 0 for argument in LOSSES[name]]
  together = loss(*inputs)
  assert together.shape == (2, B)
  one_by_one = jax.vmap(jax.vmap(loss, axes), axes)(*inputs)
  np.testing.assert_allclose(together, one_by_one, rtol=1e-6)


@pytest.mark.parametrize("name", LEARNED)
def test_gradients_equal_finite_differences(name, arrays):
  learned = LEARNED[name]

  def loss(value):
    inputs = {**arrays, learned: value}
    return function(name)(*(inputs[argument] for argument in LOSSES[name]))

  check_grads(loss, (arrays[learned],), order=1, modes=["rev"], atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize(("name", "argument"), STOPPED)
def test_gradients_of_constants_are_stopped(name, argument, arrays):
  def loss(value):
    inputs = {**arrays, argument: value}
    return function(name)(*(inputs[name_] for name_ in LOSSES[name])).sum()

  assert not jax.grad(loss)(arrays[argument]).any()


def test_soft_labels_by_hand():
  # p = (1/4, 3/4), y = (0.9, 0.1): errors (0.65, 0.65); u = (0.5, 0.65)
  logits, label = jnp.array([0.0, LOG(3.0)]), jnp.array([0.9, 0.1])
  expected = -(0.9 * LOG(0.25) + 0.1 * LOG(0.75))
  np.testing.assert_allclose(
    ramjax.classification_loss(logits, label), expected, rtol=1e-6
  )
  fit = ramjax.error_fit_loss(
    jnp.array([[0.5, 0.65]]), jnp.array([[0.25, 0.75]]), label
  )
  np.testing.assert_allclose(fit, 0.15**2 / 2, rtol=1e-5)
  assert ramjax.reward(logits, label) == 0.0
  assert ramjax.reward(logits, jnp.array([0.4, 0.6])) == 1.0


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_one_hot_soft_labels_are_the_classes(dtype, arrays):
  one_hot = jax.nn.one_hot(arrays["label"], K, dtype=dtype)
  for name in LOSSES:
    if name.endswith("of soft labels"):
      soft = [{**arrays, "soft_label": one_hot}[argument] for argument in LOSSES[name]]
      hard = [arrays[argument] for argument in LOSSES[name.partition(" ")[0]]]
      np.testing.assert_allclose(
        function(name)(*soft), function(name)(*hard), rtol=1e-6
      )


def test_rewards_of_the_glimpses_equal_their_definition(arrays):
  """Location t is credited with the rewards of the glimpses after t; loops in NumPy."""
  log_prob_t, baseline_t, reward_t = (
    np.asarray(arrays[name], np.float64)
    for name in ("log_prob_t", "baseline_t", "reward_t")
  )
  reinforce, baseline = np.zeros((2, B)), np.zeros((2, B))
  for t in range(T - 1):
    later = sum(reward_t[s] for s in range(t + 1, T))
    reinforce -= log_prob_t[t] * (later - baseline_t[t])
    baseline += (baseline_t[t] - later) ** 2 / (T - 1)
  found = ramjax.reinforce_loss(
    arrays["log_prob_t"], arrays["baseline_t"], arrays["reward_t"]
  )
  np.testing.assert_allclose(found, reinforce, rtol=1e-5)
  found = ramjax.baseline_loss(arrays["baseline_t"], arrays["reward_t"])
  np.testing.assert_allclose(found, baseline, rtol=1e-5)


def test_a_reward_at_the_last_glimpse_is_one_reward_without_the_last_location(arrays):
  log_prob_t, baseline_t, reward = (
    arrays[name] for name in ("log_prob_t", "baseline_t", "reward")
  )
  reward_t = jnp.zeros_like(baseline_t).at[-1].set(reward)
  np.testing.assert_allclose(
    ramjax.reinforce_loss(log_prob_t, baseline_t, reward_t),
    ramjax.reinforce_loss(log_prob_t[:-1], baseline_t[:-1], reward),
    rtol=1e-6,
  )
  np.testing.assert_allclose(
    ramjax.baseline_loss(baseline_t, reward_t),
    ramjax.baseline_loss(baseline_t[:-1], reward),
    rtol=1e-6,
  )


def test_a_single_glimpse_credits_no_location():
  for loss in (
    ramjax.reinforce_loss(jnp.ones((1, B)), jnp.ones((1, B)), jnp.ones((1, B))),
    ramjax.baseline_loss(jnp.ones((1, B)), jnp.ones((1, B))),
  ):
    assert loss.tolist() == [0.0] * B


def test_reinforce_gradient_is_the_policy_gradient():
  """The mean gradient is the gradient of the expected reward.

  Here it has a closed form: for one location in one dimension, with reward 1 if the
  location is positive, d/dm P(m + s ε > 0) = φ(m / s) / s.
  """
  mean, std, samples = 0.3, 0.5, 400_000
  location = mean + std * jax.random.normal(jax.random.key(0), (1, samples))
  rewards = (location[0] > 0).astype(jnp.float32)

  def loss(mean):
    log_prob_t = jax.scipy.stats.norm.logpdf(location, mean, std)
    return ramjax.reinforce_loss(
      log_prob_t, jnp.full((1, samples), 0.7), rewards
    ).mean()

  expected = float(jax.scipy.stats.norm.pdf(mean / std)) / std
  np.testing.assert_allclose(-jax.grad(loss)(mean), expected, rtol=0.01)


def test_reinforce_gradient_of_each_glimpse_is_the_policy_gradient():
  """Two of three locations earn; the mean gradient is that of the expected sum.

  r_1 = 1[l_0 > 0] and r_2 = 1[l_0 + l_1 > 0] have the means Φ(m / s) and Φ(√2 m / s).
  r_0 and the last location, after which nothing is seen, add no bias.
  """
  mean, std, samples = 0.3, 0.5, 400_000
  location_t = mean + std * jax.random.normal(jax.random.key(0), (3, samples))
  reward_t = jnp.stack(
    [
      jnp.full(samples, 3.0),
      (location_t[0] > 0).astype(jnp.float32),
      (location_t[0] + location_t[1] > 0).astype(jnp.float32),
    ]
  )
  baseline_t = jnp.broadcast_to(jnp.array([[1.4], [0.7], [5.0]]), (3, samples))

  def loss(mean):
    log_prob_t = jax.scipy.stats.norm.logpdf(location_t, mean, std)
    return ramjax.reinforce_loss(log_prob_t, baseline_t, reward_t).mean()

  density = scipy.stats.norm.pdf
  expected = density(mean / std) / std
  expected += density(2**0.5 * mean / std) * 2**0.5 / std
  np.testing.assert_allclose(-jax.grad(loss)(mean), expected, rtol=0.01)


@pytest.mark.parametrize(
  ("name", "inputs"),
  [
    ("reward", (jnp.zeros((4, K)), jnp.zeros(3, jnp.int32))),
    ("reward", (jnp.zeros((4, K)), jnp.zeros((4, K + 1)))),
    ("classification_loss", (jnp.zeros((4, K)), jnp.zeros((4, K), jnp.int32))),
    ("classification_loss", (jnp.zeros((4, K)), jnp.zeros((3, K)))),
    ("reinforce_loss", (jnp.zeros((T, 4)), jnp.zeros((T, 4)), jnp.zeros((2, 4)))),
    ("baseline_loss", (jnp.zeros((T, 4)), jnp.zeros((T + 1, 4)))),
    ("reward_to_go", (jnp.zeros((T, 4), jnp.int32),)),
    ("reward_to_go", (jnp.zeros(()),)),
    ("classification_loss", (jnp.zeros((4, K)), jnp.zeros(4))),
    ("reinforce_loss", (jnp.zeros((T, 4)), jnp.zeros((2, 4)), jnp.zeros(4))),
    ("baseline_loss", (jnp.zeros((T, 4)), jnp.zeros(5))),
    (
      "error_fit_loss",
      (jnp.zeros((T, 4, K)), jnp.zeros((T, 4, K + 1)), jnp.zeros(4, jnp.int32)),
    ),
    ("uncertainty_loss", (jnp.zeros(K),)),
    ("intrinsic_loss", (jnp.zeros((4, K)), jnp.full(K + 1, 1 / (K + 1)))),
  ],
)
def test_wrong_shapes_and_dtypes_are_refused(name, inputs):
  with pytest.raises(AssertionError):
    getattr(ramjax, name)(*inputs)


def test_leave_one_out_is_the_mean_of_the_others():
  rewards = np.random.RandomState(0).rand(3, 4, 5).astype(np.float32)
  found = ramjax.leave_one_out(jnp.asarray(rewards))
  for index in np.ndindex(3, 4, 5):
    *image, own = index
    others = np.delete(rewards[tuple(image)], own)
    np.testing.assert_allclose(found[index], others.mean(), rtol=1e-5)
  with pytest.raises(AssertionError, match="at least two rollouts"):
    ramjax.leave_one_out(jnp.ones((3, 1)))


@pytest.mark.parametrize("num_rollouts", [1, 4])
def test_a_control_variate_is_a_slope_that_the_other_images_give(num_rollouts):
  """The slope times the reward so far less its mean over the others."""
  keys = jax.random.split(jax.random.key(0))
  shape = (3, 5, num_rollouts)
  reward_t, advantage_t = (np.asarray(jax.random.uniform(key, shape)) for key in keys)
  found = ramjax.control_variate(jnp.asarray(reward_t), jnp.asarray(advantage_t))
  axis = 2 if num_rollouts > 1 else 1
  number = shape[axis]
  known_t = (reward_t - reward_t.mean(axis, keepdims=True)) * number / (number - 1)
  for t, image in np.ndindex(3, 5):
    x, y = (
      np.delete(each_t[t], image, axis=0).ravel() for each_t in (known_t, advantage_t)
    )
    slope, _ = np.polyfit(x, y, 1)
    np.testing.assert_allclose(found[t, image], slope * known_t[t, image], rtol=1e-4)


@pytest.mark.parametrize("num_rollouts", [1, 4])
def test_a_control_variate_does_not_depend_on_what_comes_later(num_rollouts):
  """So it does not bias the gradient: neither on the final reward nor on later glimpses."""
  shape = (3, 5, num_rollouts)
  reward_t = jax.random.uniform(jax.random.key(0), shape)
  advantage_t = jax.random.uniform(jax.random.key(1), shape)
  later = jnp.array([0.0, 0.0, 1.0])[:, None, None]
  plain = ramjax.control_variate(reward_t, advantage_t)
  for image in range(5):
    own = jax.nn.one_hot(image, 5)[None, :, None]
    changed = ramjax.control_variate(
      reward_t + own * later,
      advantage_t + own * jnp.linspace(1.0, 2.0, num_rollouts)[None, None],
    )
    np.testing.assert_allclose(changed[:2, image], plain[:2, image], rtol=1e-4)
    assert not np.allclose(changed[:2, image - 1], plain[:2, image - 1])


@pytest.mark.parametrize("batch_size", [2, 8, 512])
def test_one_image_that_differs_has_no_slope(batch_size):
  """The others are all alike, so they tell nothing."""
  reward_t = jnp.ones((1, batch_size, 1)).at[0, 0].set(0)
  found = ramjax.control_variate(reward_t, jnp.full_like(reward_t, 0.05))
  np.testing.assert_allclose(found, 0, atol=1e-6)


@pytest.mark.parametrize("num_rollouts", [1, 4])
@pytest.mark.parametrize("right", [0.03, 0.5, 0.97])
def test_a_control_variate_takes_noise_from_the_advantage(num_rollouts, right):
  """Where most rollouts end as they stand, and the baseline is not the mean."""
  keys = jax.random.split(jax.random.key(0))
  is_right_t = jax.random.bernoulli(keys[0], right, (200, 32, num_rollouts))
  stays_t = jax.random.bernoulli(keys[1], 0.98, is_right_t.shape)
  reward_t, final_t = (
    each_t.astype(jnp.float32) for each_t in (is_right_t, is_right_t == stays_t)
  )
  advantage_t = final_t - (right - 0.1)
  known_t = ramjax.control_variate(reward_t, advantage_t)
  before, after = (
    jnp.mean(jnp.square(each_t)) for each_t in (advantage_t, advantage_t - known_t)
  )
  assert after < 0.9 * before


def test_a_control_variate_needs_two_images_and_a_difference():
  with pytest.raises(AssertionError, match="at least two images"):
    ramjax.control_variate(jnp.ones((3, 1, 4)), jnp.ones((3, 1, 4)))
  with pytest.raises(AssertionError):
    ramjax.control_variate(jnp.ones((3, 2, 4)), jnp.ones((2, 4)))
  same = jnp.ones((3, 2, 4))
  assert not ramjax.control_variate(same, same).any()


@pytest.mark.parametrize("decay", [0.0, 0.7, 1.0])
def test_generalized_advantages_are_decayed_sums_of_gains(decay):
  value_t = jax.random.uniform(jax.random.key(0), (4, 5))
  reward = jax.random.uniform(jax.random.key(1), (5,))
  found = ramjax.generalized_advantage(value_t, reward, decay=decay)
  later, expected = np.zeros(5), [np.zeros(5)]
  values = [*np.asarray(value_t)[:-1], np.asarray(reward)]
  for before, after in zip(values[-2::-1], values[:0:-1], strict=True):
    later = after - before + decay * later
    expected.insert(0, later)
  np.testing.assert_allclose(found, np.stack(expected), rtol=1e-5, atol=1e-6)
  alone = ramjax.generalized_advantage(value_t[:1], reward, decay=decay)
  np.testing.assert_array_equal(alone, np.zeros((1, 5)))
