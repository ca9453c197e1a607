"""REINFORCE into the state, several rollouts of an image, and the leave-one-out baseline."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ramjax
from ramjax import Config, ModelConfig, ObjectiveConfig, TrainConfig
from ramjax.config import ConfigError
from ramjax.ram import as_model

MODEL = ModelConfig(hidden_size=16, branch_size=8, location_density="raw")
MODELS = {
  "rnn": as_model(MODEL),
  "lstm": as_model(dataclasses.replace(MODEL, core="lstm")),
}
BATCH = 8
IMAGES = jax.random.normal(jax.random.key(1), (BATCH, 28, 28, 1))
LABELS = jnp.arange(BATCH) % 10
KEY = jax.random.key(2)


def reinforce(params, share, model, autodiff=False):
  """The policy gradient loss with advantages of one."""
  rollout = ramjax.rollout(
    KEY,
    params,
    IMAGES,
    model=model,
    num_glimpses=4,
    location_gradient=share,
    autodiff=autodiff,
  )
  advantage = jnp.ones(BATCH)
  return ramjax.reinforce_loss(
    rollout.log_prob_t, 0 * rollout.baseline_t, advantage
  ).sum()


@functools.partial(jax.jit, static_argnames=("share", "model", "autodiff"))
def slope(params, share, model, autodiff=False):
  return jax.grad(reinforce)(params, share, model, autodiff)


def by_network(grads):
  return {name: jax.tree.leaves(tree) for name, tree in grads.ram.items()}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_the_share_of_the_gradient_reaches_core_and_glimpse_network(model):
  """Without a share nothing does; with the share c, c times what c = 1 gives."""
  params = model.init(jax.random.key(0))
  nothing, half, whole = (slope(params, share, model) for share in (0.0, 0.5, 1.0))
  for grads, reached in (
    (nothing, {"location"}),
    (half, {"location", "core", "glimpse"}),
  ):
    found = {
      name
      for name, leaves in by_network(grads).items()
      if any(leaf.any() for leaf in leaves)
    }
    assert found == reached
  chex.assert_trees_all_close(half.ram["location"], nothing.ram["location"], rtol=1e-5)
  for name in ("core", "glimpse"):
    expected = jax.tree.map(lambda leaf: 0.5 * leaf, whole.ram[name])
    chex.assert_trees_all_close(half.ram[name], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_the_gradient_by_hand_equals_autodiff(model):
  params = model.init(jax.random.key(0))
  found, expected = (slope(params, 0.5, model, plain) for plain in (False, True))
  chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("autodiff", [False, True])
def test_the_share_may_be_a_number_of_the_program(autodiff):
  """So that runs with several shares are one program."""
  model = MODELS["lstm"]
  params = model.init(jax.random.key(0))
  grads = jax.jit(
    jax.vmap(jax.grad(lambda p, c: reinforce(p, c, model, autodiff)), (None, 0))
  )(params, jnp.array([0.0, 0.5]))
  for run, share in enumerate((0.0, 0.5)):
    found = jax.tree.map(lambda leaf, run=run: leaf[run], grads)
    expected = slope(params, share, model, autodiff)
    chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-4)


def test_values_do_not_depend_on_the_share():
  """Not even where a state is infinite."""
  model = MODELS["rnn"]
  params = model.init(jax.random.key(0))
  look = functools.partial(
    ramjax.rollout, KEY, params, IMAGES.at[0].set(jnp.inf), model=model, num_glimpses=3
  )
  chex.assert_trees_all_equal(look(), look(location_gradient=0.3))


def test_one_over_n_is_a_number_of_the_configuration():
  config = Config(
    objective=ObjectiveConfig(location_gradient="1/N"),
    train=TrainConfig(num_glimpses=8),
  )
  assert config.objective.location_gradient == 0.125
  assert Config.from_dict(config.to_dict()) == config
  assert ObjectiveConfig(location_gradient="0.25").location_gradient == 0.25


@pytest.mark.parametrize("share", [-0.1, 1.5, "2/N", True, None, 10**400])
def test_impossible_shares_are_refused(share):
  with pytest.raises(ConfigError, match="location_gradient must be a number from 0 to"):
    ObjectiveConfig(location_gradient=share)


def config_of(num_rollouts, **objective):
  return Config(
    model=MODEL,
    objective=ObjectiveConfig(**objective),
    train=TrainConfig(
      num_glimpses=3, batch_size=BATCH, rollouts_per_image=num_rollouts
    ),
  )


def step(config, **train):
  config = config.replace(train=train)
  optimizer = optax.sgd(0.1)
  state = ramjax.init_train_state(jax.random.key(0), config=config, optimizer=optimizer)
  return ramjax.train_step(state, IMAGES, LABELS, config=config, optimizer=optimizer)


def test_a_step_is_that_of_a_batch_in_which_each_image_stands_several_times():
  several, metrics = step(config_of(3))
  optimizer = optax.sgd(0.1)
  config = config_of(1).replace(train={"batch_size": 3 * BATCH})
  state = ramjax.init_train_state(jax.random.key(0), config=config, optimizer=optimizer)
  images, labels = (jnp.repeat(each, 3, axis=0) for each in (IMAGES, LABELS))
  repeated, expected = ramjax.train_step(
    state, images, labels, config=config, optimizer=optimizer
  )
  chex.assert_trees_all_close(several.params, repeated.params, rtol=1e-5, atol=1e-6)
  chex.assert_trees_all_close(metrics, expected, rtol=1e-5)
  single, _ = step(config_of(1))
  assert not np.allclose(
    single.params.ram["action"]["kernel"], several.params.ram["action"]["kernel"]
  )


@pytest.mark.parametrize("baseline", ["network", "leave_one_out"])
def test_parts_of_a_batch_keep_the_rollouts_of_an_image_together(baseline):
  config = config_of(2, baseline=baseline)
  whole, expected = step(config)
  parts, found = step(config, accumulation_steps=4)
  chex.assert_trees_all_close(parts.params, whole.params, rtol=1e-4, atol=1e-6)
  chex.assert_trees_all_close(found, expected, rtol=1e-4)


def test_the_other_rollouts_of_an_image_are_its_baseline():
  """And the baseline network is fitted as before."""
  config = ObjectiveConfig(baseline="leave_one_out")
  model = MODELS["rnn"]
  params = model.init(jax.random.key(0))
  images, labels = (jnp.repeat(each, 2, axis=0) for each in (IMAGES[:2], LABELS[:2]))
  rollout = ramjax.rollout(KEY, params, images, model=model, num_glimpses=3)
  one_hot = jax.nn.one_hot(jnp.array([0, 5, 1, 1]), 10)  # right, wrong, right, right
  rollout = rollout._replace(logits_t=rollout.logits_t.at[-1].set(one_hot))
  look = functools.partial(ramjax.loss_parts, params, rollout, labels, model=model)
  found = look(objective_config=config, rollouts_per_image=2)
  advantage = jnp.array([1.0, -1.0, 0.0, 0.0])
  expected = -(rollout.log_prob_t * advantage[None]).sum(axis=0)
  np.testing.assert_allclose(found.reinforce, expected, rtol=1e-5)
  plain = look(objective_config=ObjectiveConfig())
  np.testing.assert_array_equal(found.baseline, plain.baseline)


def test_a_smooth_reward_tells_rollouts_of_the_same_answer_apart():
  """Policy and baseline learn from it; the accuracy counts right answers."""
  model = MODELS["rnn"]
  params = model.init(jax.random.key(0))
  images, labels = (jnp.repeat(each, 2, axis=0) for each in (IMAGES[:2], LABELS[:2]))
  rollout = ramjax.rollout(KEY, params, images, model=model, num_glimpses=3)
  margin = jnp.array([2.0, 1.0, -1.0, -2.0])  # right, right, wrong, wrong
  logits = margin[:, None] * jax.nn.one_hot(labels, 10)
  rollout = rollout._replace(logits_t=rollout.logits_t.at[-1].set(logits))
  look = functools.partial(
    ramjax.objective, params, rollout, labels, model=model, rollouts_per_image=2
  )
  config = ObjectiveConfig(baseline="leave_one_out", reward_temperature=0.5)
  _, found = look(objective_config=config)
  _, plain = look(objective_config=ObjectiveConfig(baseline="leave_one_out"))
  assert found["accuracy"] == plain["accuracy"] == 0.5
  assert plain["loss/reinforce"] == 0.0
  reward = jax.nn.sigmoid(margin / 0.5)
  advantage = reward - reward[jnp.array([1, 0, 3, 2])]
  expected = -(rollout.log_prob_t * advantage[None]).sum(axis=0).mean()
  np.testing.assert_allclose(found["loss/reinforce"], expected, rtol=1e-5)
  expected = ((rollout.baseline_t - reward[None]) ** 2).mean()
  np.testing.assert_allclose(found["loss/baseline"], expected, rtol=1e-5)


@pytest.mark.parametrize("decay", [1.0, 0.5])
@pytest.mark.parametrize(
  ("baseline", "num_rollouts"), [("network", 1), ("network", 4), ("leave_one_out", 4)]
)
def test_a_location_is_credited_with_what_later_glimpses_gain(
  baseline, num_rollouts, decay
):
  """Over what baseline and reward so far let expect; nothing else of the loss changes."""
  model = MODELS["rnn"]
  params = model.init(jax.random.key(0))
  images, labels = (jnp.repeat(each, num_rollouts, axis=0) for each in (IMAGES, LABELS))
  rollout = ramjax.rollout(KEY, params, images, model=model, num_glimpses=3)
  look = functools.partial(
    ramjax.loss_parts,
    params,
    rollout,
    labels,
    model=model,
    rollouts_per_image=num_rollouts,
  )
  config = ObjectiveConfig(baseline=baseline, reward_temperature=0.3)
  plain = look(objective_config=config)
  found = look(objective_config=dataclasses.replace(config, credit_decay=decay))
  reward_t = ramjax.reward(
    rollout.logits_t, jnp.broadcast_to(labels, (3, labels.size)), temperature=0.3
  ).reshape(3, BATCH, num_rollouts)
  expected_t = rollout.baseline_t.reshape(reward_t.shape)
  if baseline == "leave_one_out":
    expected_t = jnp.broadcast_to(ramjax.leave_one_out(reward_t[-1:]), reward_t.shape)
  expected_t += ramjax.control_variate(reward_t, reward_t[-1:] - expected_t)
  last = reward_t[2] - expected_t[1]
  first = decay * last + expected_t[1] - expected_t[0]
  advantage_t = jnp.stack([first, last, jnp.zeros_like(last)]).reshape(3, -1)
  expected = -(rollout.log_prob_t * advantage_t).sum(axis=0)
  np.testing.assert_allclose(found.reinforce, expected, rtol=1e-4, atol=1e-5)
  assert not np.allclose(found.reinforce, plain.reinforce, rtol=1e-2)
  chex.assert_trees_all_equal(
    found._replace(reinforce=0.0), plain._replace(reinforce=0.0)
  )


@pytest.mark.parametrize(
  ("objective", "num_rollouts", "message"),
  [
    (
      {"baseline": "leave_one_out"},
      1,
      "baseline leave_one_out needs rollouts_per_imag",
    ),
    ({}, 3, "rollouts_per_image must divide the 4 rollouts of the batch, but is 3"),
    ({}, 0, "rollouts_per_image must divide the 4 rollouts of the batch, but is 0"),
  ],
)
def test_rollouts_that_a_baseline_cannot_use_are_refused(
  objective, num_rollouts, message
):
  params = ramjax.init_params(jax.random.key(0), MODEL)
  images, labels = jnp.zeros((4, *MODEL.image_shape)), jnp.zeros(4, jnp.int32)
  rollout = ramjax.rollout(
    jax.random.key(1), params, images, model=MODEL, num_glimpses=2
  )
  with pytest.raises(ConfigError, match=message):
    ramjax.objective(
      params,
      rollout,
      labels,
      model=MODEL,
      objective_config=ObjectiveConfig(**objective),
      rollouts_per_image=num_rollouts,
    )


def test_the_credit_decay_needs_other_images():
  config_of(1, credit_decay=0.5).replace(train={"accumulation_steps": BATCH // 2})
  with pytest.raises(
    ConfigError, match="credit_decay needs at least two images in eac"
  ):
    config_of(1, credit_decay=0.5).replace(train={"accumulation_steps": BATCH})
  with pytest.raises(
    ConfigError, match="credit_decay must be a number from 0 to 1, not"
  ):
    ObjectiveConfig(credit_decay=1.5)


@pytest.mark.parametrize("mean", [0.0, 0.95])
def test_leave_one_out_is_unbiased_and_less_noisy(mean):
  """With the raw density, for a policy in the middle and one at the border.

  The reward is 1 with a probability that depends on the image, and rises with x. The
  exact gradient is that of the expected reward, by numerical integration.
  """
  std, num_images, num_rollouts = 0.2, 20_000, 4
  policy = ramjax.gaussian_policy(std, density="raw")
  keys = jax.random.split(jax.random.key(3), 3)
  noise = jax.random.normal(keys[0], (num_images, num_rollouts, 2))
  easy = jax.random.choice(keys[1], jnp.array([0.0, 0.8]), (num_images, 1))

  def probability(sample, easy):
    x = jnp.clip(sample, -1, 1)[..., 0]
    return easy + 0.2 * jax.nn.sigmoid(4 * (x - mean))

  output = jnp.full((1, 1, 2), mean)
  sample = policy.sample(output, noise)
  chance = jax.random.uniform(keys[2], (num_images, num_rollouts))
  reward = (chance < probability(sample, easy)).astype(jnp.float32)
  score = (sample - output) / std**2  # of the raw density

  def estimates(baseline):
    of_rollouts = (reward - baseline)[..., None] * score
    return np.asarray(of_rollouts.mean(axis=1)[:, 0])  # in x, of each image

  grid = jnp.linspace(-6, 6, 20_001)
  density = jax.scipy.stats.norm.pdf(grid)

  def expected_reward(mean_x):
    samples = jnp.stack([mean_x + std * grid, 0 * grid], axis=-1)
    return jnp.trapezoid(density * probability(samples, 0.0), grid)

  exact = float(jax.grad(expected_reward)(jnp.float32(mean)))
  found = estimates(ramjax.leave_one_out(reward))
  error = found.std() / np.sqrt(num_images)
  assert exact > 5 * error
  assert abs(found.mean() - exact) < 4 * error
  assert found.var() < 0.7 * estimates(0.0).var()
  assert found.var() < 0.95 * estimates(reward.mean()).var()


def test_a_single_rollout_has_no_others():
  with pytest.raises(ConfigError, match="baseline leave_one_out needs rollouts_per_im"):
    config_of(1, baseline="leave_one_out")
