"""The objectives: weights of the terms, and which networks each term trains."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ramjax import (
  LossParts,
  ModelConfig,
  ObjectiveConfig,
  TermWeights,
  init_params,
  loss_parts,
  objective,
  rollout,
)
from ramjax.config import OBJECTIVES

MODEL = ModelConfig(hidden_size=32, branch_size=16)
BATCH = 8
SEEING = {"glimpse", "core", "action"}


@pytest.fixture(scope="module")
def params():
  return init_params(jax.random.key(0), MODEL)


@pytest.fixture(scope="module")
def batch():
  images = jax.random.normal(jax.random.key(1), (BATCH, *MODEL.image_shape))
  return images, jax.random.randint(jax.random.key(2), (BATCH,), 0, 10)


@jax.jit
def look(params, images):
  return rollout(jax.random.key(3), params, images, model=MODEL, num_glimpses=3)


def reached(grads):
  """Names of the networks with a nonzero gradient."""
  networks = {**grads.ram, "error": grads.error}
  return {
    name
    for name, tree in networks.items()
    if any(bool(leaf.any()) for leaf in jax.tree.leaves(tree))
  }


@pytest.mark.parametrize(
  ("core", "settings"),
  [
    ("rnn", {}),
    ("lstm", {}),
    ("rnn", {"error_gradient": "state"}),
    ("rnn", {"credit_last_location": False, "intrinsic_steps": "all"}),
  ],
)
def test_each_term_reaches_only_its_networks(core, settings, batch):
  """The memory cell of an LSTM is a second path through time, and no way around."""
  images, labels = batch
  model = dataclasses.replace(MODEL, core=core)
  config = ObjectiveConfig(**settings)

  def sums(params):
    unrolled = rollout(jax.random.key(3), params, images, model=model, num_glimpses=3)
    parts = loss_parts(params, unrolled, labels, model=model, objective_config=config)
    return {
      part: value.sum() for part, value in parts._asdict().items() if part != "extra"
    }

  slopes = jax.jit(jax.jacrev(sums))(init_params(jax.random.key(0), model))
  found = {part: reached(grads) for part, grads in slopes.items()}
  assert found == {
    "classification": SEEING,
    "reinforce": {"location"},
    "baseline": {"baseline"},
    "error_fit": {"error"},
    "uncertainty": SEEING | ({"error"} if config.error_gradient == "all" else set()),
    "intrinsic": SEEING,
  }
  # h_0 = 0, so the weights of h get a gradient from later glimpses only.
  for part in (slopes["classification"], slopes["uncertainty"]):
    assert part.ram["core"]["hidden"]["kernel"].any()


def after_the_action(params, images, **fields):
  """A rollout of two glimpses at one image, with some fields replaced."""
  looked = jax.tree.map(lambda field: field[:2, :1], look(params, images))
  return looked._replace(**fields)


@pytest.mark.parametrize(("credited", "expected"), [(True, 0.125), (False, -0.375)])
def test_credit_of_the_last_location_by_hand(credited, expected, params, batch):
  """-(0.5 (1 - 0.25) + (-2) (1 - 0.75)) = 0.125, and -0.5 (1 - 0.25) = -0.375."""
  looked = after_the_action(
    params,
    batch[0],
    log_prob_t=jnp.array([[0.5], [-2.0]]),
    baseline_t=jnp.array([[0.25], [0.75]]),
    logits_t=jnp.zeros((2, 1, 10)).at[-1, 0, 3].set(1.0),
  )
  config = ObjectiveConfig(credit_last_location=credited)

  def parts(log_prob_t):
    replaced = looked._replace(log_prob_t=log_prob_t)
    return loss_parts(
      params, replaced, jnp.array([3]), model=MODEL, objective_config=config
    )

  found = parts(looked.log_prob_t)
  np.testing.assert_allclose(found.reinforce, [expected], rtol=1e-6)
  # The baseline is fitted at both steps: ((0.25 - 1)² + (0.75 - 1)²) / 2.
  np.testing.assert_allclose(found.baseline, [0.3125], rtol=1e-6)
  slope = jax.grad(lambda log_prob_t: parts(log_prob_t).reinforce.sum())
  np.testing.assert_allclose(
    slope(looked.log_prob_t), [[-0.75], [-0.25 if credited else 0.0]], rtol=1e-6
  )


def test_without_last_credit_a_single_glimpse_has_no_reinforce_loss(params, batch):
  looked = jax.tree.map(lambda field: field[:1], look(params, batch[0]))
  config = ObjectiveConfig(credit_last_location=False)
  parts = loss_parts(params, looked, batch[1], model=MODEL, objective_config=config)
  assert parts.reinforce.tolist() == [0.0] * BATCH


@pytest.mark.parametrize("steps", ["last", "all"])
def test_intrinsic_steps_last_and_all_by_hand(steps, params, batch):
  """p = i / 55 for i = 1…10: cross entropy log 55 - mean log i; then uniform: log 10."""
  logits_t = jnp.stack([jnp.log(jnp.arange(1.0, 11.0)), jnp.zeros(10)])[:, None]
  looked = after_the_action(params, batch[0], logits_t=logits_t)
  config = ObjectiveConfig(intrinsic_steps=steps)

  def intrinsic(logits_t):
    replaced = looked._replace(logits_t=logits_t)
    return loss_parts(
      params, replaced, jnp.array([3]), model=MODEL, objective_config=config
    ).intrinsic

  first = np.log(55) - np.log(np.arange(1, 11)).mean()
  expected = np.log(10) if steps == "last" else (first + np.log(10)) / 2
  np.testing.assert_allclose(intrinsic(logits_t), [expected], rtol=1e-6)
  # d/dlogits of -mean log p is p - 1/K, which is zero for a uniform p.
  slope_t = jax.grad(lambda logits_t: intrinsic(logits_t).sum())(logits_t)
  pull = np.arange(1, 11) / 55 - 0.1
  share = 0.0 if steps == "last" else 0.5
  np.testing.assert_allclose(slope_t[0, 0], share * pull, atol=1e-7)
  np.testing.assert_allclose(slope_t[1, 0], np.zeros(10), atol=1e-7)


@pytest.mark.parametrize("error_gradient", ["all", "state"])
def test_uncertainty_gradient_flows_through_state_and_prediction(
  error_gradient, params, batch
):
  """It equals the gradient of sum |u(h, p)| through h and p."""
  images, labels = batch
  config = ObjectiveConfig(error_gradient=error_gradient)

  def loss(params):
    parts = loss_parts(
      params, look(params, images), labels, model=MODEL, objective_config=config
    )
    return parts.uncertainty.sum()

  def definition(params):
    looked = look(params, images)
    error = params.error["error"]
    if error_gradient == "state":
      error = jax.lax.stop_gradient(error)
    probs_t = jax.nn.softmax(looked.logits_t)
    inputs = jnp.concatenate([looked.hidden_t, probs_t], -1)
    pre = jnp.einsum("tbi,ik->tbk", inputs, error["kernel"])
    return jax.nn.relu(pre + error["bias"].reshape(1, 1, -1)).sum()

  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5),
    jax.jit(jax.grad(loss))(params),
    jax.jit(jax.grad(definition))(params),
  )


def test_error_network_does_not_change_the_gradient_of_the_rest(params, batch):
  images, labels = batch
  config = ObjectiveConfig(name="original")

  def loss(ram, error):
    replaced = params._replace(ram=ram, error=error)
    return objective(
      replaced, look(replaced, images), labels, model=MODEL, objective_config=config
    )[0]

  slope = jax.jit(jax.grad(loss))
  other = init_params(jax.random.key(7), MODEL).error
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7),
    slope(params.ram, params.error),
    slope(params.ram, other),
  )


@pytest.mark.parametrize("scale", [1.0, 32.0])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_loss_is_the_weighted_sum_of_its_terms(name, scale, params, batch):
  images, labels = batch
  config = ObjectiveConfig(
    name=name,
    lambda_uncertainty=0.01,
    lambda_intrinsic=0.02,
    regularizer_scale=scale,
  )
  looked = look(params, images)
  loss, metrics = objective(
    params, looked, labels, model=MODEL, objective_config=config
  )
  parts = loss_parts(params, looked, labels, model=MODEL, objective_config=config)
  mean = LossParts(*map(np.mean, parts[:-1]), extra={})
  expected = mean.classification + mean.reinforce + mean.baseline + mean.error_fit
  if name in ("uncertainty", "both"):
    expected += scale * 0.01 * mean.uncertainty
  if name in ("intrinsic", "both"):
    expected += scale * 0.02 * mean.intrinsic
  np.testing.assert_allclose(loss, expected, rtol=1e-5)
  terms = {part: value for part, value in mean._asdict().items() if part != "extra"}
  for part, value in terms.items():
    np.testing.assert_allclose(metrics[f"loss/{part}"], value, rtol=1e-5)
  hits = looked.logits_t[-1].argmax(-1) == labels
  np.testing.assert_allclose(metrics["accuracy"], hits.mean(), rtol=1e-6)
  assert set(metrics) == {"loss", "accuracy", *(f"loss/{p}" for p in terms)}
  as_numbers = jax.tree.map(jnp.float32, TermWeights.of(config))
  other = ObjectiveConfig(name="original" if name == "both" else "both")
  again, _ = objective(
    params, looked, labels, model=MODEL, objective_config=other, term_weights=as_numbers
  )
  np.testing.assert_allclose(again, expected, rtol=1e-5)


def test_default_scale_equals_the_released_sum_over_a_batch_of_32(params):
  images = jax.random.normal(jax.random.key(1), (32, *MODEL.image_shape))
  labels = jnp.zeros(32, jnp.int32)
  looked = look(params, images)
  both, _ = objective(
    params, looked, labels, model=MODEL, objective_config=ObjectiveConfig()
  )
  plain = ObjectiveConfig(name="original")
  original, _ = objective(params, looked, labels, model=MODEL, objective_config=plain)
  released = 1e-5 * looked.predicted_error_t.sum() - 0.1 * jnp.sum(
    jax.nn.log_softmax(looked.logits_t[-1]).mean(-1)
  )
  np.testing.assert_allclose(both - original, released, rtol=1e-4)


def test_loss_does_not_depend_on_the_batch_size(params, batch):
  images, labels = batch
  config = ObjectiveConfig()
  looked = look(params, images)
  twice = jax.tree.map(lambda field: jnp.concatenate([field, field], 1), looked)
  once, _ = objective(params, looked, labels, model=MODEL, objective_config=config)
  again, _ = objective(
    params, twice, jnp.tile(labels, 2), model=MODEL, objective_config=config
  )
  np.testing.assert_allclose(once, again, rtol=1e-5)


def test_prior_changes_the_intrinsic_term(params, batch):
  images, labels = batch
  prior = (0.91, *[0.01] * 9)
  looked = look(params, images)
  config = ObjectiveConfig(prior=prior)
  found = loss_parts(
    params, looked, labels, model=MODEL, objective_config=config
  ).intrinsic
  expected = -jax.nn.log_softmax(looked.logits_t[-1]) @ jnp.array(prior)
  np.testing.assert_allclose(found, expected, rtol=1e-5)
