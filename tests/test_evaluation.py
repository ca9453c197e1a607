"""Evaluation: exact counts, whatever the batch size, and all numbers from one rollout."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import synthetic

import ramjax
from ramjax.config import (
  Config,
  EvaluationConfig,
  ModelConfig,
  ObjectiveConfig,
  TrainConfig,
)

CONFIG = Config(
  model=ModelConfig(hidden_size=64, branch_size=32),
  objective=ObjectiveConfig(name="original"),
  train=TrainConfig(batch_size=32, num_glimpses=4, learning_rate=1e-3),
)
DATASET = synthetic.make(num_train=3200, num_validation=70, num_test=70)
KEY = jax.random.key(11)
BETAS = jnp.array([0.0, 0.3, 1.0])
assert_close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def params():
  """Parameters after 100 steps, so that some predictions are right and some wrong."""
  optimizer = ramjax.make_optimizer(CONFIG.train, steps_per_epoch=1000)
  init = functools.partial(ramjax.init_train_state, config=CONFIG, optimizer=optimizer)
  state = jax.jit(init)(jax.random.key(0))
  order = ramjax.epoch_order(jax.random.key(1), 1, num_examples=3200, batch_size=32)
  train = jax.jit(
    functools.partial(
      ramjax.train_chunk,
      config=CONFIG,
      optimizer=optimizer,
      preprocess=DATASET.preprocess,
      max_steps=100,
    )
  )
  return train(state, *DATASET.train, order, 0, 100)[0].params


@functools.partial(jax.jit, static_argnames=("num_glimpses",))
def rollout(keys, params, images, *, num_glimpses):
  return ramjax.rollout(
    keys, params, images, model=CONFIG.model, num_glimpses=num_glimpses
  )


def shown_images():
  return DATASET.preprocess(KEY, jnp.asarray(DATASET.test.images))


def image_keys(sample):
  """The documented key of each image in each rollout."""
  _, key = jax.random.split(KEY)
  key = jax.random.fold_in(key, sample)
  return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(70))


def evaluate(params, betas=BETAS, *, num_glimpses=9, num_samples=1, **options):
  evaluation_config = EvaluationConfig(
    num_glimpses=num_glimpses,
    num_samples=num_samples,
    location_policy=options.pop("location_policy", "sample"),
  )
  return ramjax.evaluate(
    KEY,
    params,
    *DATASET.test,
    betas,
    model=CONFIG.model,
    evaluation_config=evaluation_config,
    **{"preprocess": DATASET.preprocess, **options},
  )


def test_the_summaries_are_those_of_a_rollout(params):
  """Counted in NumPy, from a rollout with the documented keys."""
  found = evaluate(params)
  unrolled = rollout(image_keys(sample=0), params, shown_images(), num_glimpses=9)
  labels = DATASET.test.labels
  probs_t, errors_t = map(np.asarray, (unrolled.probs_t, unrolled.predicted_error_t))
  correct_t = probs_t.argmax(-1) == labels
  assert 0.2 < correct_t.mean() < 0.8
  assert_close(found.accuracy_t, correct_t.mean(1))
  assert_close(
    found.hidden_norm_t, np.linalg.norm(np.asarray(unrolled.hidden_t), axis=-1).mean(1)
  )
  true_error_t = np.abs(np.eye(10)[labels] - probs_t)
  for t in range(9):
    expected = ramjax.expected_calibration_error(unrolled.probs_t[t], labels)
    assert_close(found.calibration_error_t[t], expected)
    correlation = np.corrcoef(errors_t[t].ravel(), true_error_t[t].ravel())[0, 1]
    assert_close(found.uncertainty_correlation_t[t], correlation, rtol=1e-3)
  assert_close(
    found.uncertainty_deviation_t, np.abs(errors_t - true_error_t).mean((1, 2))
  )
  for i, beta in enumerate(BETAS):
    taken = np.asarray(
      ramjax.stopping_time(unrolled.probs_t, unrolled.predicted_error_t, beta=beta)
    )
    assert_close(found.mean_glimpses[i], taken.mean())
    assert_close(found.dynamic_accuracy[i], correct_t[taken - 1, np.arange(70)].mean())
  assert 1.0 < float(found.mean_glimpses[1]) < 9.0


@pytest.mark.parametrize("batch_size", [1, 32, 70, 1000])
def test_the_batch_size_changes_nothing(batch_size, params):
  """Also where the last batch is padded."""
  jax.tree.map(
    assert_close,
    evaluate(params, batch_size=batch_size),
    evaluate(params, batch_size=35),
  )


def test_few_glimpses_are_the_first_of_many(params):
  few, many = evaluate(params), evaluate(params, num_glimpses=12)
  assert_close(few.accuracy_t, many.accuracy_t[:9])


def test_beta_zero_takes_one_glimpse(params):
  found = evaluate(params)
  assert found.mean_glimpses[0] == 1.0
  assert_close(found.dynamic_accuracy[0], found.accuracy_t[0])


def test_rollouts_are_averaged_before_the_decision(params):
  """The stopping rule, too, gets the averages of p and of u."""
  found = evaluate(params, num_samples=3)
  samples = [
    rollout(image_keys(sample), params, shown_images(), num_glimpses=9)
    for sample in range(3)
  ]
  probs_t = jnp.stack([sample.probs_t for sample in samples]).mean(0)
  errors_t = jnp.stack([sample.predicted_error_t for sample in samples]).mean(0)
  correct_t = np.asarray(probs_t).argmax(-1) == DATASET.test.labels
  assert_close(found.accuracy_t, correct_t.mean(1))
  for i, beta in enumerate(BETAS):
    taken = ramjax.stopping_time(probs_t, errors_t, beta=beta)
    assert_close(found.mean_glimpses[i], np.asarray(taken).mean(), rtol=1e-3)


def test_the_mean_policy_differs_from_sampling_after_the_first_glimpse(params):
  sampled = evaluate(params)
  mean = evaluate(params, location_policy="mean")
  assert sampled.hidden_norm_t[0] == mean.hidden_norm_t[0]
  assert sampled.hidden_norm_t[5] != mean.hidden_norm_t[5]


def test_betas_may_be_empty(params):
  assert evaluate(params, betas=jnp.zeros(0)).mean_glimpses.shape == (0,)


@pytest.mark.parametrize("weights", [None, ramjax.TermWeights(0.5, 0.25)])
def test_validation_is_the_objective_over_all_images(weights, params):
  images, labels = map(jnp.asarray, DATASET.validation)
  found = ramjax.validate(
    KEY,
    params,
    images,
    labels,
    config=CONFIG,
    preprocess=DATASET.preprocess,
    term_weights=weights,
    batch_size=32,
  )
  _, key = jax.random.split(KEY)
  unrolled = rollout(key, params, DATASET.preprocess(KEY, images), num_glimpses=4)
  _, expected = ramjax.objective(
    params,
    unrolled,
    labels,
    model=CONFIG.model,
    objective_config=CONFIG.objective,
    term_weights=weights,
  )
  assert set(found) == set(expected)
  jax.tree.map(assert_close, found, expected)


def test_validation_compares_no_images_and_no_rollouts(params):
  """So one image has its own loss, and a batch of any size gives the same."""
  config = CONFIG.replace(
    objective={"baseline": "leave_one_out", "credit_decay": 0.7},
    train={"rollouts_per_image": 2},
  )
  images, labels = (jnp.asarray(each[:3]) for each in DATASET.validation)
  validate = functools.partial(
    ramjax.validate, KEY, params, images, labels, preprocess=DATASET.preprocess
  )
  expected = validate(config=CONFIG)
  for batch_size in (1, 3):
    found = validate(config=config, batch_size=batch_size)
    jax.tree.map(assert_close, found, expected)


def test_bad_arguments_are_refused(params):
  images, labels = DATASET.test
  evaluate_some = functools.partial(
    ramjax.evaluate,
    model=CONFIG.model,
    evaluation_config=EvaluationConfig(num_glimpses=2),
    preprocess=DATASET.preprocess,
  )
  with pytest.raises(AssertionError):
    evaluate_some(KEY, params, images, labels[:4], BETAS)
  with pytest.raises(AssertionError):
    evaluate_some(KEY, params, images, labels, 0.5)
  with pytest.raises(ramjax.ConfigError, match="batch_size must be at least 1, not 0"):
    evaluate(params, batch_size=0)
  for name in ("num_glimpses", "num_samples"):
    with pytest.raises(ramjax.ConfigError, match=f"{name} must be at least 1, not 0"):
      evaluate(params, **{name: 0})


def test_an_image_is_preprocessed_with_the_same_key_in_any_batch(params):
  def shift(key, image, pool):
    rows = jax.random.randint(key, (), -9, 9)
    return jnp.roll(DATASET.preprocess(key, image), rows, axis=0)

  one = evaluate(params, preprocess=shift, batch_size=70)
  other = evaluate(params, preprocess=shift, batch_size=11)
  jax.tree.map(assert_close, one, other)
  assert (one.hidden_norm_t != evaluate(params).hidden_norm_t).any()


def test_looking_until_decided_gives_the_figures_of_an_evaluation(params):
  """With M = 1 and the same keys, for each exploration rate."""
  expected = evaluate(params)
  decide = functools.partial(
    jax.jit(ramjax.look_until_decided, static_argnames=("model", "max_glimpses")),
    image_keys(sample=0),
    params,
    shown_images(),
    model=CONFIG.model,
    max_glimpses=9,
  )
  for i, beta in enumerate(BETAS):
    decision = decide(beta=beta)
    correct = np.asarray(decision.probs).argmax(-1) == DATASET.test.labels
    assert_close(correct.mean(), expected.dynamic_accuracy[i])
    mean = np.asarray(decision.num_glimpses).mean()
    assert_close(mean, expected.mean_glimpses[i])
  assert len(set(np.asarray(expected.mean_glimpses).tolist())) == len(BETAS)


def test_a_probability_that_is_not_finite_is_never_right():
  """Not even where the class is 0, the place of the first NaN."""
  probs_t = jnp.array(
    [[[0.8, 0.2]] * 3, [[jnp.nan, jnp.nan], [0.8, 0.2], [0.2, jnp.inf]]]
  )
  prediction = ramjax.Prediction(probs_t, jnp.zeros((2, 3, 2)), jnp.ones((2, 3)))
  labels = jnp.array([0, 0, 1])
  found = ramjax.summarize(prediction, labels, jnp.array([0.0]))
  np.testing.assert_allclose(found.accuracy_t, [2 / 3, 1 / 3], rtol=1e-6)
  assert found.not_finite_t.tolist() == [0, 2]
  assert np.isnan(found.calibration_error_t).tolist() == [False, True]
  np.testing.assert_allclose(found.dynamic_accuracy, [2 / 3], rtol=1e-6)
  assert not ramjax.is_decided(probs_t[1, :1], jnp.zeros((1, 2)), beta=0.0).any()


def test_the_norm_of_a_large_state_does_not_overflow():
  """Its square and the sum over images would, long before the state is infinite."""
  images = DATASET.test.images[:4]
  big = ModelConfig(hidden_size=4, branch_size=4)
  params = ramjax.init_params(jax.random.key(0), big)
  hidden = params.ram["core"]["hidden"]
  huge = {"kernel": jnp.zeros((4, 4)), "bias": jnp.array([3e38, 0.0, 0.0, 0.0])}
  ram = {**params.ram, "core": {**params.ram["core"], "hidden": huge}}
  assert hidden["bias"].shape == (4,)
  found = ramjax.evaluate(
    KEY,
    params._replace(ram=ram),
    images,
    DATASET.test.labels[:4],
    jnp.array([0.0]),
    model=big,
    evaluation_config=EvaluationConfig(num_glimpses=1),
    preprocess=DATASET.preprocess,
  )
  np.testing.assert_allclose(found.hidden_norm_t, [3e38], rtol=1e-5)


def test_the_released_protocol_averages_copies_that_stop_for_themselves(params):
  """Log-probabilities of each copy after its own last glimpse, by NumPy."""
  config = EvaluationConfig(num_glimpses=6, num_samples=3)
  shared = {"model": CONFIG.model, "preprocess": DATASET.preprocess}
  found = ramjax.evaluate_as_released(
    KEY,
    params,
    *DATASET.test,
    BETAS,
    evaluation_config=config,
    batch_size=16,
    **shared,
  )
  once = EvaluationConfig(num_glimpses=6)
  copies = [
    ramjax.predict(
      jax.random.fold_in(KEY, copy),
      params,
      DATASET.test.images,
      evaluation_config=once,
      **shared,
    )
    for copy in range(3)
  ]
  probs_t = np.stack([copy.probs_t for copy in copies], axis=1)
  errors_t = np.stack([copy.predicted_error_t for copy in copies], axis=1)
  log_probs_t, labels = np.log(probs_t), DATASET.test.labels
  right_t = log_probs_t.mean(axis=1).argmax(-1) == labels
  np.testing.assert_allclose(found.accuracy_t, right_t.mean(axis=-1), rtol=1e-6)
  for number, beta in enumerate(BETAS):
    taken = np.asarray(
      ramjax.stopping_time_as_released(probs_t, errors_t, beta=beta, batch_size=16)
    )
    stopped = np.take_along_axis(log_probs_t, taken[None, ..., None] - 1, axis=0)[0]
    right = stopped.mean(axis=0).argmax(-1) == labels
    np.testing.assert_allclose(found.dynamic_accuracy[number], right.mean(), rtol=1e-6)
    np.testing.assert_allclose(found.mean_glimpses[number], taken.mean(), rtol=1e-6)
  assert len(np.unique(found.mean_glimpses)) > 1


def test_a_copy_without_probability_for_a_class_does_not_outvote_the_others():
  """exp of a logit of -200 is 0 in float32, and its logarithm minus infinity."""
  sure, other = [1.0, 0.0], [0.1, 0.9]
  probs_t = np.array([[[sure], [other], [other]]], np.float32)
  found = ramjax.summarize_as_released(
    probs_t, np.zeros_like(probs_t), np.array([0]), np.zeros(1, np.float32)
  )
  assert found.accuracy_t.tolist() == [1.0]  # -87.3 / 3 against -4.6 / 3
