"""Evaluation: exact counts, whatever the batch size, and all numbers from one unroll."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ramjax
from ramjax.config import Config, ModelConfig, ObjectiveConfig, TrainConfig

CONFIG = Config(
  model=ModelConfig(hidden_size=64, branch_size=32),
  objective=ObjectiveConfig(name="original"),
  train=TrainConfig(batch_size=32, num_glimpses=4, learning_rate=1e-3),
)
KEY = jax.random.key(11)
BETAS = jnp.array([0.0, 0.3, 1.0])


@pytest.fixture(scope="module")
def params(mnist):
  """A little trained, so that right and wrong both occur."""
  optimizer = ramjax.make_optimizer(CONFIG.train, steps_per_epoch=1000)
  init = functools.partial(ramjax.init_train_state, config=CONFIG, optimizer=optimizer)
  state = jax.jit(init)(jax.random.key(0))
  order = ramjax.epoch_order(jax.random.key(1), 1, num_examples=6400, batch_size=32)
  run = jax.jit(
    functools.partial(
      ramjax.train_chunk,
      config=CONFIG,
      optimizer=optimizer,
      preprocess=mnist.preprocess,
      max_steps=200,
    )
  )
  return run(state, *mnist.train, order, 0, 200)[0].params


@functools.partial(jax.jit, static_argnames=("num_glimpses",))
def rollout(keys, params, images, *, num_glimpses):
  return ramjax.rollout(
    keys, params, images, model_config=CONFIG.model, num_glimpses=num_glimpses
  )


def image_keys(sample):
  """What `evaluate` promises: a key for each rollout of each image."""
  _, key = jax.random.split(KEY)
  key = jax.random.fold_in(key, sample)
  return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(70))


def evaluate(params, mnist, num_images=70, betas=BETAS, **options):
  images, labels = (jnp.asarray(array[:num_images]) for array in mnist.test)
  return ramjax.evaluate(
    KEY,
    params,
    images,
    labels,
    betas,
    **{
      "config": CONFIG.model,
      "num_glimpses": 9,
      "preprocess": mnist.preprocess,
      **options,
    },
  )


def test_equals_counting_by_hand(params, mnist):
  found = evaluate(params, mnist)
  keys = image_keys(sample=0)
  images = mnist.preprocess(KEY, jnp.asarray(mnist.test.images[:70]))
  looked = rollout(keys, params, images, num_glimpses=9)
  probs_t = np.asarray(looked.probs_t)
  correct_t = probs_t.argmax(-1) == mnist.test.labels[:70]
  np.testing.assert_allclose(found.accuracy_t, correct_t.mean(1), rtol=1e-6)
  norms = np.linalg.norm(np.asarray(looked.hidden_t), axis=-1).mean(1)
  np.testing.assert_allclose(found.hidden_norm_t, norms, rtol=1e-4)
  for i, beta in enumerate(BETAS):
    taken = np.asarray(
      ramjax.stopping_time(looked.probs_t, looked.predicted_error_t, beta=beta)
    )
    np.testing.assert_allclose(found.mean_glimpses[i], taken.mean(), rtol=1e-6)
    hits = correct_t[taken - 1, np.arange(70)]
    np.testing.assert_allclose(found.dynamic_accuracy[i], hits.mean(), rtol=1e-6)
  assert 1.0 < float(found.mean_glimpses[1]) < 9.0


@pytest.mark.parametrize("batch_size", [1, 32, 70, 1000])
def test_does_not_depend_on_the_batch_size(batch_size, params, mnist):
  """The last batch is not full, and counts right."""
  expected = evaluate(params, mnist, batch_size=35)
  found = evaluate(params, mnist, batch_size=batch_size)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-4), found, expected
  )


def test_few_glimpses_are_a_part_of_many(params, mnist):
  few, many = evaluate(params, mnist), evaluate(params, mnist, num_glimpses=12)
  np.testing.assert_allclose(few.accuracy_t, many.accuracy_t[:9], rtol=1e-6)


def test_beta_zero_is_one_glimpse(params, mnist):
  found = evaluate(params, mnist)
  assert found.mean_glimpses[0] == 1.0
  np.testing.assert_allclose(found.dynamic_accuracy[0], found.accuracy_t[0], rtol=1e-6)


def test_samples_are_averaged_before_the_decision(params, mnist):
  """The rule too sees averages, of the probabilities and of the uncertainties."""
  found = evaluate(params, mnist, num_samples=3)
  images = mnist.preprocess(KEY, jnp.asarray(mnist.test.images[:70]))
  probs_t, errors_t = [], []
  for sample in range(3):
    keys = image_keys(sample)
    looked = rollout(keys, params, images, num_glimpses=9)
    probs_t.append(looked.probs_t)
    errors_t.append(looked.predicted_error_t)
  correct_t = np.mean(probs_t, axis=0).argmax(-1) == mnist.test.labels[:70]
  np.testing.assert_allclose(found.accuracy_t, correct_t.mean(1), rtol=1e-6)
  for i, beta in enumerate(BETAS):
    taken = ramjax.stopping_time(
      jnp.mean(jnp.stack(probs_t), 0), jnp.mean(jnp.stack(errors_t), 0), beta=beta
    )
    mean = np.mean(np.asarray(taken))
    np.testing.assert_allclose(found.mean_glimpses[i], mean, rtol=1e-3)


def test_mean_policy_differs_from_sampling_after_the_first_glimpse(params, mnist):
  sampled = evaluate(params, mnist)
  mean = evaluate(params, mnist, location_policy="mean")
  assert sampled.hidden_norm_t[0] == mean.hidden_norm_t[0]
  assert sampled.hidden_norm_t[5] != mean.hidden_norm_t[5]


def test_no_betas_will_do(params, mnist):
  assert evaluate(params, mnist, betas=jnp.zeros(0)).mean_glimpses.shape == (0,)


def test_validation_is_the_objective_over_all_images(params, mnist):
  images, labels = (jnp.asarray(array[:70]) for array in mnist.validation)
  found = ramjax.validate(
    KEY,
    params,
    images,
    labels,
    config=CONFIG,
    preprocess=mnist.preprocess,
    batch_size=32,
  )
  _, key = jax.random.split(KEY)
  looked = rollout(key, params, mnist.preprocess(KEY, images), num_glimpses=4)
  _, expected = ramjax.objective(
    params.error, looked, labels, objective_config=CONFIG.objective
  )
  assert set(found) == set(expected)
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-6)


def test_unequal_numbers_of_images_and_labels_are_refused(params, mnist):
  images, labels = (jnp.asarray(array[:5]) for array in mnist.test)
  with pytest.raises(AssertionError):
    ramjax.evaluate(
      KEY,
      params,
      images,
      labels[:4],
      BETAS,
      model_config=CONFIG.model,
      num_glimpses=2,
      preprocess=mnist.preprocess,
    )
  with pytest.raises(ramjax.ConfigError, match="batch_size must be at least 1"):
    evaluate(params, mnist, batch_size=0)


def test_no_samples_are_refused(params, mnist):
  with pytest.raises(ramjax.ConfigError, match="num_samples must be at least 1"):
    evaluate(params, mnist, num_samples=0)


def test_each_image_is_preprocessed_with_its_own_key(params, mnist):
  """A keyed transform draws the same for an image in batches of any size."""

  def shift(key, image, pool):
    rows = jax.random.randint(key, (), -9, 9)
    return jnp.roll(mnist.preprocess(key, image), rows, axis=0)

  one = evaluate(params, mnist, preprocess=shift, batch_size=70)
  other = evaluate(params, mnist, preprocess=shift, batch_size=11)
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4), one, other)
  assert (one.hidden_norm_t != evaluate(params, mnist).hidden_norm_t).any()


@pytest.mark.parametrize("batch_size", [10_000, 40])
def test_dynamic_evaluation_has_the_figures_of_evaluate(params, mnist, batch_size):
  """With M = 1 and the same key; in one batch and in two, of which one is not full."""
  images, labels = (jnp.asarray(array[:70]) for array in mnist.test)
  expected = evaluate(params, mnist)
  for number, beta in enumerate(BETAS):
    found = ramjax.evaluate_dynamic(
      KEY,
      params,
      images,
      labels,
      beta,
      model_config=CONFIG.model,
      max_glimpses=9,
      preprocess=mnist.preprocess,
      batch_size=batch_size,
    )
    np.testing.assert_allclose(found.accuracy, expected.dynamic_accuracy[number])
    np.testing.assert_allclose(found.mean_glimpses, expected.mean_glimpses[number])
  assert len(set(np.asarray(expected.mean_glimpses).tolist())) == len(BETAS)
