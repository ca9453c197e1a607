"""Training: a step, a chunk of steps, and the randomness that they use."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import synthetic

import ramjax
from ramjax.config import Config, ModelConfig, ObjectiveConfig, TrainConfig

SMALL = Config(
  model=ModelConfig(hidden_size=32, branch_size=16),
  train=TrainConfig(batch_size=16, num_glimpses=3),
)
DATASET = synthetic.make(num_train=160, num_validation=1, num_test=512)


def init(config, optimizer):
  return jax.jit(
    functools.partial(ramjax.init_train_state, config=config, optimizer=optimizer)
  )


def make(config, steps_per_epoch=10):
  optimizer = ramjax.make_optimizer(config.train, steps_per_epoch=steps_per_epoch)
  return optimizer, init(config, optimizer)(jax.random.key(0))


def chunk(config, optimizer, dataset, max_steps):
  return jax.jit(
    functools.partial(
      ramjax.train_chunk,
      config=config,
      optimizer=optimizer,
      preprocess=dataset.preprocess,
      max_steps=max_steps,
    )
  )


def assert_close(left, right, **tolerance):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, **tolerance),
    left.params,
    right.params,
  )


def test_a_step_is_gradient_descent_on_the_objective():
  """With plain SGD the update is the gradient, which is computed here separately."""
  optimizer = optax.sgd(0.1)
  state = init(SMALL, optimizer)(jax.random.key(0))
  images = DATASET.preprocess(jax.random.key(0), jnp.asarray(DATASET.train.images[:16]))
  labels = jnp.asarray(DATASET.train.labels[:16])
  after, metrics = ramjax.train_step(
    state, images, labels, config=SMALL, optimizer=optimizer
  )

  def loss(params):
    _, key = jax.random.split(jax.random.fold_in(state.key, 0))
    unrolled = ramjax.rollout(key, params, images, model=SMALL.model, num_glimpses=3)
    return ramjax.objective(
      params, unrolled, labels, model=SMALL.model, objective_config=SMALL.objective
    )[0]

  value, grads = jax.jit(jax.value_and_grad(loss))(state.params)
  expected = jax.tree.map(lambda p, g: p - 0.1 * g, state.params, grads)
  assert_close(after, state._replace(params=expected), rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(metrics["loss"], value, rtol=1e-5)


def test_each_step_draws_other_random_numbers():
  optimizer, state = make(SMALL)
  images = DATASET.preprocess(jax.random.key(0), jnp.asarray(DATASET.train.images[:16]))
  labels = jnp.asarray(DATASET.train.labels[:16])
  step = functools.partial(
    ramjax.train_step, images=images, labels=labels, config=SMALL, optimizer=optimizer
  )
  _, first = step(state)
  _, same = step(state)
  _, other = step(state._replace(step=jnp.int32(1)))
  assert first["loss"] == same["loss"]
  assert first["loss/reinforce"] != other["loss/reinforce"]


def test_a_chunk_is_a_sequence_of_steps():
  optimizer, state = make(SMALL)
  order = ramjax.epoch_order(jax.random.key(1), 1, num_examples=64, batch_size=16)
  run = chunk(SMALL, optimizer, DATASET, 4)
  at_once, history = run(state, *DATASET.train, order, 0, 4)
  for row in range(4):
    images = jnp.asarray(DATASET.train.images)[order[row]]
    labels = jnp.asarray(DATASET.train.labels)[order[row]]
    state, metrics = ramjax.train_step(
      state,
      DATASET.preprocess(jax.random.key(0), images),
      labels,
      config=SMALL,
      optimizer=optimizer,
    )
    np.testing.assert_allclose(history["loss"][row], metrics["loss"], rtol=1e-4)
  assert_close(at_once, state, rtol=1e-3, atol=1e-5)


def test_chunks_of_any_length_share_a_program_and_give_the_same_state():
  traced = []

  def preprocess(key, image, pool):
    traced.append(image)
    return DATASET.preprocess(key, image)

  optimizer, state = make(SMALL)
  order = ramjax.epoch_order(jax.random.key(1), 1, num_examples=112, batch_size=16)
  run = chunk(SMALL, optimizer, types.SimpleNamespace(preprocess=preprocess), 7)
  whole, _ = run(state, *DATASET.train, order, 0, 7)
  traced.clear()
  part, history = run(state, *DATASET.train, order, 0, 3)
  parts, _ = run(part, *DATASET.train, order, 3, 7)
  assert_close(whole, parts, rtol=0, atol=0)
  assert int(parts.step) == 7
  assert (history["loss"][:3] != 0).all()
  assert (history["loss"][3:] == 0).all()
  assert not traced  # again


def test_an_epoch_has_every_example_at_most_once():
  key = jax.random.key(0)
  order = ramjax.epoch_order(key, 3, num_examples=103, batch_size=10)
  assert order.shape == (10, 10)
  assert len(np.unique(order)) == 100
  again = ramjax.epoch_order(key, 3, num_examples=103, batch_size=10)
  other = ramjax.epoch_order(key, 4, num_examples=103, batch_size=10)
  assert (order == again).all()
  assert (order != other).any()


def test_the_order_of_an_epoch_is_random():
  order = np.asarray(
    ramjax.epoch_order(jax.random.key(0), 1, num_examples=10_000, batch_size=10)
  ).ravel()
  assert abs(np.corrcoef(order, np.arange(10_000))[0, 1]) < 0.05
  # In a random order, neighbours are a third of the range apart on average.
  assert abs(np.abs(np.diff(order)).mean() - 10_000 / 3) < 200


def test_an_epoch_has_at_least_one_batch():
  with pytest.raises(ramjax.ConfigError, match="batch_size must be from 1 to"):
    ramjax.epoch_order(jax.random.key(0), 1, num_examples=5, batch_size=10)


def test_a_random_transform_does_not_share_its_key_with_the_rollout():
  """Nor with another step or another image of the batch."""
  seen = []

  def preprocess(key, image, pool):
    data = jax.random.key_data(key)
    jax.debug.callback(lambda data: seen.append(tuple(data.tolist())), data)
    return DATASET.preprocess(key, image)

  optimizer, state = make(SMALL)
  order = ramjax.epoch_order(jax.random.key(1), 1, num_examples=32, batch_size=16)
  run = jax.jit(
    functools.partial(
      ramjax.train_chunk,
      config=SMALL,
      optimizer=optimizer,
      preprocess=preprocess,
      max_steps=2,
    )
  )
  jax.block_until_ready(run(state, *DATASET.train, order, 0, 2))
  jax.effects_barrier()
  assert len(seen) == len(set(seen)) == 32
  _, rollout_key = jax.random.split(jax.random.fold_in(state.key, 0))
  of_images = jax.vmap(jax.random.fold_in, (None, 0))(rollout_key, jnp.arange(16))
  of_rollout = {tuple(data) for data in jax.random.key_data(of_images).tolist()}
  assert not of_rollout & set(seen)


@pytest.mark.parametrize("name", ["original", "both"])
def test_every_parameter_is_trained(name):
  config = Config(
    model=SMALL.model, objective=ObjectiveConfig(name=name), train=SMALL.train
  )
  optimizer, state = make(config)
  order = ramjax.epoch_order(jax.random.key(1), 1, num_examples=160, batch_size=16)
  run = chunk(config, optimizer, DATASET, 10)
  after, _ = run(state, *DATASET.train, order, 0, 10)
  still = jax.tree.map(lambda a, b: bool((a == b).all()), state.params, after.params)
  assert not any(jax.tree.leaves(still))


def test_a_batch_in_parts_is_the_same_step():
  """Also with a random transform: the key of an image does not depend on its part."""

  def preprocess(key, image, pool):
    shown = DATASET.preprocess(key, image)
    return jnp.roll(shown, jax.random.randint(key, (), -4, 5), axis=0)

  optimizer = optax.sgd(0.1)
  state = init(SMALL, optimizer)(jax.random.key(0))
  order = ramjax.epoch_order(jax.random.key(1), 1, num_examples=32, batch_size=16)
  found = []
  for parts in (1, 4):
    train = dataclasses.replace(SMALL.train, accumulation_steps=parts)
    config = dataclasses.replace(SMALL, train=train)
    dataset = types.SimpleNamespace(preprocess=preprocess)
    run = chunk(config, optimizer, dataset, 2)
    found.append(run(state, *DATASET.train, order, 0, 2))
  (whole, history), (parts, of_parts) = found
  assert_close(whole, parts, rtol=1e-4, atol=1e-6)
  assert set(history) == set(of_parts)
  for name, values in history.items():
    np.testing.assert_allclose(of_parts[name], values, rtol=1e-4, atol=1e-6)


def test_the_memory_of_a_batch_in_parts_is_that_of_a_part():
  sizes = []
  for parts in (1, 16):
    train = TrainConfig(batch_size=512, num_glimpses=3, accumulation_steps=parts)
    config = Config(model=SMALL.model, train=train)
    optimizer, state = make(config)
    order = jnp.zeros((1, 512), jnp.int32)
    run = chunk(config, optimizer, DATASET, 1)
    compiled = run.lower(state, *DATASET.test, order, 0, 1).compile()
    sizes.append(compiled.memory_analysis().temp_size_in_bytes)
  assert sizes[1] < sizes[0] / 8


def test_parts_that_do_not_divide_the_batch_are_refused():
  train = TrainConfig(batch_size=16, accumulation_steps=4)
  config = Config(model=SMALL.model, train=train)
  optimizer, state = make(config)
  images = DATASET.preprocess(jax.random.key(0), jnp.asarray(DATASET.train.images[:6]))
  labels = jnp.asarray(DATASET.train.labels[:6])
  with pytest.raises(ramjax.ConfigError, match="must divide the batch of 6, not 4"):
    ramjax.train_step(state, images, labels, config=config, optimizer=optimizer)


@pytest.mark.parametrize("accumulation_steps", [1, 4])
def test_a_step_that_is_not_finite_is_skipped_and_the_next_one_taken(
  accumulation_steps,
):
  """One image of the third of five batches becomes NaN."""

  def preprocess(key, image, pool):
    poisoned = image.min() == 255
    return jnp.where(poisoned, jnp.nan, DATASET.preprocess(key, image))

  train = dataclasses.replace(SMALL.train, accumulation_steps=accumulation_steps)
  config = dataclasses.replace(SMALL, train=train)
  optimizer, state = make(config)
  images = DATASET.train.images[:80].copy()
  images[37] = 255
  order = jnp.arange(80).reshape(5, 16)
  run = chunk(config, optimizer, types.SimpleNamespace(preprocess=preprocess), 5)
  split = images, DATASET.train.labels[:80]
  before, _ = run(state, *split, order, 0, 2)
  after, _ = run(before, *split, order, 2, 3)
  assert int(after.step) == 3
  jax.tree.map(
    np.testing.assert_array_equal,
    (before.params, before.opt_state),
    (after.params, after.opt_state),
  )
  end, history = run(state, *split, order, 0, 5)
  assert history["skipped"].tolist() == [0, 0, 1, 0, 0]
  assert np.isfinite(history["loss"]).tolist() == [True, True, False, True, True]
  assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(end.params))
  moved = jax.tree.map(lambda a, b: bool((a != b).any()), after.params, end.params)
  assert all(jax.tree.leaves(moved))


def test_a_gradient_whose_square_would_overflow_is_skipped():
  """Adam would keep the infinite square and hardly ever change that parameter again."""
  objective = ObjectiveConfig(name="intrinsic", lambda_intrinsic=1e25)
  config = dataclasses.replace(SMALL, objective=objective)
  optimizer, state = make(config)
  images = DATASET.preprocess(jax.random.key(0), jnp.asarray(DATASET.train.images[:16]))
  labels = jnp.asarray(DATASET.train.labels[:16])
  after, metrics = ramjax.train_step(
    state, images, labels, config=config, optimizer=optimizer
  )
  assert metrics["skipped"] == 1
  assert jnp.isfinite(metrics["loss"])
  assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(after.opt_state))


def test_a_loss_that_is_not_finite_is_enough_to_skip():
  """A label out of range makes the loss NaN, and leaves the gradient finite."""
  optimizer, state = make(SMALL)
  images = DATASET.preprocess(jax.random.key(0), jnp.asarray(DATASET.train.images[:16]))
  labels = jnp.asarray(DATASET.train.labels[:16]).at[3].set(10)
  after, metrics = ramjax.train_step(
    state, images, labels, config=SMALL, optimizer=optimizer
  )
  assert metrics["skipped"] == 1
  jax.tree.map(np.testing.assert_array_equal, state.params, after.params)


@pytest.mark.parametrize("change", [lambda n: n + 0.5, lambda n: jnp.stack([n, n])])
def test_an_optimiser_that_changes_the_layout_of_its_state_is_refused(change):
  """A type or a shape; the state could not be restored, nor a chunk be trained."""
  with jax.numpy_dtype_promotion("standard"):
    optimizer = optax.chain(
      optax.sgd(0.1),
      optax.GradientTransformation(
        lambda params: jnp.int32(0), lambda updates, n, params: (updates, change(n))
      ),
    )
    state = init(SMALL, optimizer)(jax.random.key(0))
    images = jnp.zeros((16, 28, 28, 1))
    with pytest.raises(TypeError):
      ramjax.train_step(
        state, images, jnp.arange(16) % 10, config=SMALL, optimizer=optimizer
      )


@pytest.mark.parametrize("density", ["clipped", "raw"])
def test_noise_in_training_is_another_deviation(density):
  """A step with thrice the noise is that of a policy with thrice the deviation."""

  def after(config, **options):
    optimizer = optax.sgd(0.1)
    state = init(config, optimizer)(jax.random.key(0))
    images = jax.random.normal(jax.random.key(1), (16, 28, 28, 1))
    labels = jnp.arange(16) % 10
    run = {"config": config, "optimizer": optimizer, **options}
    return ramjax.train_step(state, images, labels, **run)[0]

  narrow = SMALL.replace(
    model={"location_std": 0.1, "location_density": density},
    objective={"location_gradient": 0.5},
  )
  wide = narrow.replace(model={"location_std": 0.3})
  assert_close(after(narrow, location_noise=3.0), after(wide), rtol=1e-4, atol=1e-6)
  left, right = (
    jax.flatten_util.ravel_pytree(state.params)[0]
    for state in (after(narrow), after(wide))
  )
  assert jnp.abs(left - right).max() > 1e-4


def test_the_noise_of_a_training_falls_along_a_line():
  """In each step of every epoch, and so that a run may be cut anywhere."""
  config = SMALL.replace(train={"initial_location_noise": 3.0, "num_epochs": 2})
  optimizer, state = make(config, steps_per_epoch=2)
  run = chunk(config, optimizer, DATASET, 2)
  by_hand = state
  for epoch in (1, 2):
    key = jax.random.key(epoch)
    order = ramjax.epoch_order(key, epoch, num_examples=32, batch_size=16)
    state, _ = run(state, *DATASET.train, order, 0, 2)
    for row in range(2):
      images = jnp.asarray(DATASET.train.images)[order[row]]
      by_hand, _ = ramjax.train_step(
        by_hand,
        DATASET.preprocess(jax.random.key(0), images),
        jnp.asarray(DATASET.train.labels)[order[row]],
        config=config,
        optimizer=optimizer,
        location_noise=(3.0, 2.5, 2.0, 1.5)[2 * epoch - 2 + row],
      )
  assert_close(state, by_hand, rtol=1e-3, atol=1e-5)


def test_falling_noise_needs_the_gaussian_of_the_configuration():
  optimizer, state = make(SMALL)
  model = ramjax.recurrent_attention_model(
    SMALL.model, policy=ramjax.learned_gaussian_policy(0.1)
  )
  with pytest.raises(ramjax.ConfigError, match="initial_location_noise must be 1"):
    ramjax.train_step(
      state,
      jnp.zeros((16, 28, 28, 1)),
      jnp.zeros(16, jnp.int32),
      config=SMALL,
      optimizer=optimizer,
      model=model,
      location_noise=2.0,
    )
