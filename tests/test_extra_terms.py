"""Terms of one's own in the objective, and soft labels: values, gradients, metrics."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ramjax
from ramjax import ExtraTerm, parallel
from ramjax.config import Config, ModelConfig, ObjectiveConfig, TrainConfig
from ramjax.objectives import as_terms

CONFIG = Config(
  model=ModelConfig(hidden_size=32, branch_size=16),
  train=TrainConfig(batch_size=8, num_glimpses=3),
)
OPTIMIZER = optax.sgd(0.1)
BATCH, CLASSES = 8, 10
IMAGES = jax.random.normal(jax.random.key(1), (BATCH, *CONFIG.model.image_shape))
LABELS = jax.random.randint(jax.random.key(2), (BATCH,), 0, CLASSES)
SOFT = jax.nn.softmax(jax.random.normal(jax.random.key(3), (BATCH, CLASSES)))


@pytest.fixture(scope="module")
def state():
  init = functools.partial(ramjax.init_train_state, config=CONFIG, optimizer=OPTIMIZER)
  return jax.jit(init)(jax.random.key(0))


@functools.partial(jax.jit, static_argnames="autodiff")
def look(params, autodiff=False):
  return ramjax.rollout(
    jax.random.key(4),
    params,
    IMAGES,
    model=CONFIG.model,
    num_glimpses=3,
    autodiff=autodiff,
  )


def confidence(rollout, labels):
  """The largest probability, averaged over the glimpses."""
  return rollout.probs_t.max(axis=-1).mean(axis=0)


def early_answer(rollout, labels):
  """Cross entropy of every glimpse but the last."""
  repeated = jnp.broadcast_to(labels, rollout.logits_t.shape[:-1])
  return ramjax.classification_loss(rollout.logits_t, repeated)[:-1].sum(axis=0)


def everything(rollout, labels):
  """Reads all fields of a rollout that the parameters change."""
  return sum(
    jnp.square(field.reshape(3, BATCH, -1)).mean(axis=(0, 2)) for field in rollout
  )


def objective(params, extra_terms=None, labels=LABELS, **options):
  return ramjax.objective(
    params,
    look(params),
    labels,
    model=CONFIG.model,
    objective_config=CONFIG.objective,
    extra_terms=extra_terms,
    **options,
  )


def test_term_is_added_with_its_weight_and_logged_without(state):
  params = state.params
  plain, metrics = objective(params)
  terms = {"early": (early_answer, 0.5), "confidence": ExtraTerm(confidence, -2)}
  loss, found = objective(params, terms)
  early, confident = (
    float(function(look(params), LABELS).mean())
    for function in (early_answer, confidence)
  )
  np.testing.assert_allclose(loss, plain + 0.5 * early - 2 * confident, rtol=1e-5)
  np.testing.assert_allclose(found.pop("loss/early"), early, rtol=1e-5)
  np.testing.assert_allclose(found.pop("loss/confidence"), confident, rtol=1e-5)
  assert found.pop("loss") == loss
  assert found == {name: value for name, value in metrics.items() if name != "loss"}


def test_gradient_of_a_term_is_added_with_its_weight(state):
  """The rollout's gradient by hand is that of autodiff for a term that reads all of it."""
  slope = jax.jit(
    jax.grad(lambda p: everything(look(p, autodiff=True), LABELS).mean())
  )(state.params)
  plain, found = (
    jax.jit(jax.grad(lambda p, terms=terms: objective(p, terms)[0]))(state.params)
    for terms in (None, {"everything": (everything, 0.3)})
  )
  expected = jax.tree.map(lambda a, b: a + 0.3 * b, plain, slope)
  chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
  ("field", "expected"),
  [
    ("hidden_t", {"glimpse", "core"}),
    ("logits_t", {"glimpse", "core", "action"}),
    ("predicted_error_t", {"glimpse", "core", "action", "error"}),
    ("log_prob_t", {"location"}),
    ("baseline_t", {"baseline"}),
    ("location_t", set()),
  ],
)
def test_gradient_reaches_what_the_term_reads(field, expected, state):
  def term(params):
    return jnp.square(getattr(look(params), field)).sum()

  grads = jax.jit(jax.grad(term))(state.params)
  networks = {**grads.ram, "error": grads.error}
  assert expected == {
    name
    for name, tree in networks.items()
    if any(leaf.any() for leaf in jax.tree.leaves(tree))
  }


def test_term_of_weight_zero_is_logged_but_not_differentiated(state):
  def root_of_zero(rollout, labels):  # has an infinite gradient
    return jnp.sqrt(0.0 * rollout.baseline_t[-1])

  terms = {"root": (root_of_zero, 0.0)}
  grads, metrics = jax.jit(jax.grad(lambda p: objective(p, terms), has_aux=True))(
    state.params
  )
  chex.assert_tree_all_finite(grads)
  assert metrics["loss/root"] == 0.0


@pytest.mark.parametrize(
  ("terms", "message"),
  [
    ({"baseline": (confidence, 1.0)}, "the name of another term, 'baseline'"),
    ({"mine": confidence}, r"extra_terms\['mine'\] must be \(function, weight\)"),
    (
      {"mine": (1.0, confidence)},
      r"extra_terms\['mine'\] must be \(function, weight\)",
    ),
  ],
)
def test_names_in_use_and_terms_that_are_no_pairs_are_refused(terms, message, state):
  with pytest.raises(ramjax.ConfigError, match=message) as caught:
    objective(state.params, terms)
  assert "\n" not in str(caught.value)
  with pytest.raises(ramjax.ConfigError, match=message):
    train_step(state, extra_terms=terms)


@pytest.mark.parametrize(
  "function",
  [
    lambda rollout, labels: confidence(rollout, labels).mean(),
    lambda rollout, labels: rollout.baseline_t,
    lambda rollout, labels: labels,
  ],
)
def test_a_term_that_is_not_one_number_an_example_is_named(function, state):
  with pytest.raises(AssertionError, match=r"extra_terms\['mine'\]"):
    objective(state.params, {"mine": (function, 1.0)})


def train_step(state, labels=LABELS, config=CONFIG, **options):
  return ramjax.train_step(
    state, IMAGES, labels, config=config, optimizer=OPTIMIZER, **options
  )


def test_a_step_is_gradient_descent_with_the_term(state):
  """A plain pair and a traced weight are the same; half batches give the same step."""
  plain, _ = train_step(state)
  after, metrics = train_step(state, extra_terms={"early": (early_answer, 0.5)})

  def term(params):
    _, key = jax.random.split(jax.random.fold_in(state.key, 0))
    looked = ramjax.rollout(key, params, IMAGES, model=CONFIG.model, num_glimpses=3)
    return early_answer(looked, LABELS).mean()

  value, slope = jax.jit(jax.value_and_grad(term))(state.params)
  expected = jax.tree.map(lambda p, g: p - 0.1 * 0.5 * g, plain.params, slope)
  chex.assert_trees_all_close(after.params, expected, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(metrics["loss/early"], value, rtol=1e-5)
  half = dataclasses.replace(
    CONFIG, train=dataclasses.replace(CONFIG.train, accumulation_steps=2)
  )
  for options in (
    {"extra_terms": {"early": ExtraTerm(early_answer, jnp.float32(0.5))}},
    {"extra_terms": {"early": (early_answer, 0.5)}, "config": half},
  ):
    again, found = train_step(state, **options)
    chex.assert_trees_all_close(again.params, after.params, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["loss/early"], value, rtol=1e-5)


def test_a_traced_weight_needs_no_new_compilation(state):
  traces = []

  def counted(rollout, labels):
    traces.append(1)
    return confidence(rollout, labels)

  losses = [
    float(train_step(state, extra_terms={"mine": (counted, weight)})[1]["loss"])
    for weight in (jnp.float32(0.0), jnp.float32(1.0), jnp.float32(3.0))
  ]
  assert len(traces) == 1
  np.testing.assert_allclose(losses[2] - losses[0], 3 * (losses[1] - losses[0]), 1e-3)


def test_runs_in_one_program_have_a_weight_each():
  """An array [R] differs between runs; a number is the same for all."""
  optimizer = optax.sgd(0.1)
  key = jax.random.key(0)
  keys = jnp.stack([key, key])
  states = ramjax.init_train_states(keys, config=CONFIG, optimizer=optimizer)
  options = {
    "config": CONFIG,
    "optimizer": optimizer,
    "preprocess": lambda key, image, pool: image.astype(jnp.float32) / 255.0,
    "max_steps": 2,
  }
  images = jax.random.randint(key, (16, *CONFIG.model.image_shape), 0, 256, jnp.uint8)
  labels = jnp.arange(16) % CLASSES
  orders = jnp.arange(16).reshape(1, 2, BATCH).repeat(2, axis=0)
  weights = jax.tree.map(
    lambda weight: jnp.full(2, weight), ramjax.TermWeights.of(CONFIG.objective)
  )
  mesh = parallel.make_mesh(num_devices=1)
  many = functools.partial(ramjax.train_chunks, **options, mesh=mesh)
  terms = {"early": (early_answer, jnp.array([0.0, 0.5])), "sure": (confidence, 0.1)}
  together, metrics = jax.jit(
    lambda states: many(
      states, images, labels, orders, 0, 2, weights, extra_terms=terms
    )
  )(states)
  one = jax.jit(functools.partial(ramjax.train_chunk, **options))
  for run in range(2):
    first, terms_of_run = jax.tree.map(
      lambda leaf, run=run: leaf[run], (states, as_terms(terms))
    )
    alone, found = one(
      first, images, labels, orders[run], 0, 2, extra_terms=terms_of_run
    )
    chex.assert_trees_all_close(
      jax.tree.map(lambda leaf, run=run: leaf[run], together.params),
      alone.params,
      atol=1e-5,
    )
    assert set(metrics) == set(found) >= {"loss/early", "loss/sure"}
    for name, values in found.items():
      np.testing.assert_allclose(metrics[name][run], values, rtol=1e-4, atol=1e-6)
  assert metrics["loss"][0, 0] != metrics["loss"][1, 0]


def test_metrics_of_a_chunk_keep_their_types(state):
  """Those of a step: a term in bfloat16 beside others in float32; zeros after the last."""

  def coarse(rollout, labels):
    return confidence(rollout, labels).astype(jnp.bfloat16)

  options = {"config": CONFIG, "optimizer": OPTIMIZER}
  options["extra_terms"] = {"coarse": (coarse, 0.0)}
  stored = jax.random.randint(jax.random.key(5), IMAGES.shape, 0, 256, jnp.uint8)
  shown = stored.astype(jnp.float32) / 255.0
  _, expected = ramjax.train_step(state, shown, LABELS, **options)
  chunk = functools.partial(
    ramjax.train_chunk,
    **options,
    preprocess=lambda key, image, pool: image.astype(jnp.float32) / 255.0,
    max_steps=2,
  )
  _, found = jax.jit(chunk)(state, stored, LABELS, jnp.arange(BATCH)[None], 0, 1)
  assert found["loss/coarse"].dtype == expected["loss/coarse"].dtype == jnp.bfloat16
  assert set(found) == set(expected)
  for name, values in found.items():
    assert values.shape == (2,)
    np.testing.assert_allclose(values[0], expected[name], rtol=1e-5)
    assert values[1] == 0


def test_validation_logs_the_terms_over_all_images(state):
  """In three batches, of which the last is not full; with soft labels."""
  terms = {"early": (lambda r, labels: (labels * r.probs_t[0]).sum(-1), 0.5)}
  found = ramjax.validate(
    jax.random.key(5),
    state.params,
    IMAGES,
    SOFT,
    config=CONFIG,
    preprocess=lambda key, image, pool: image,
    extra_terms=terms,
    batch_size=3,
  )
  _, key = jax.random.split(jax.random.key(5))
  looked = ramjax.rollout(key, state.params, IMAGES, model=CONFIG.model, num_glimpses=3)
  _, expected = ramjax.objective(
    state.params,
    looked,
    SOFT,
    model=CONFIG.model,
    objective_config=CONFIG.objective,
    extra_terms=terms,
  )
  assert set(found) == set(expected)
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-6)


def test_one_hot_soft_labels_are_the_classes(state):
  one_hot = jax.nn.one_hot(LABELS, CLASSES)
  after, metrics = train_step(state)
  soft, found = train_step(state, labels=one_hot)
  chex.assert_trees_all_close(soft.params, after.params, rtol=1e-4, atol=1e-6)
  for name, value in metrics.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6)


def test_soft_labels_enter_the_three_terms_that_know_the_truth(state):
  looked = look(state.params)
  config = ObjectiveConfig(name="both")
  parts, hard = (
    ramjax.loss_parts(
      state.params, looked, labels, model=CONFIG.model, objective_config=config
    )
    for labels in (SOFT, SOFT.argmax(-1))
  )
  probs_t = np.asarray(looked.probs_t)
  expected = -(np.asarray(SOFT) * np.log(probs_t[-1])).sum(-1)
  np.testing.assert_allclose(parts.classification, expected, rtol=1e-5)
  gap_t = np.asarray(looked.predicted_error_t) - np.abs(np.asarray(SOFT) - probs_t)
  np.testing.assert_allclose(parts.error_fit, (gap_t**2).mean((0, 2)), rtol=1e-4)
  for name in ("reinforce", "baseline", "uncertainty", "intrinsic"):
    np.testing.assert_array_equal(getattr(parts, name), getattr(hard, name))


def test_terms_are_sorted_like_any_dictionary_of_jax():
  terms = as_terms({"b": (confidence, 1.0), "a": (early_answer, jnp.ones(2))})
  assert list(terms) == ["a", "b"]
  [weights] = jax.tree.leaves(terms)
  assert weights.tolist() == [1.0, 1.0]
  doubled = jax.tree.map(lambda weight: 2 * weight, terms)
  assert doubled["b"] == (confidence, 1.0)
  assert doubled["a"].function is early_answer
  assert doubled["a"].weight.tolist() == [2.0, 2.0]
