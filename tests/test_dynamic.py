"""Looking until decided: the decisions of a full rollout, from the glimpses needed."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ramjax
from ramjax import dynamic
from ramjax.config import ConfigError, ModelConfig

pytestmark = pytest.mark.usefixtures("exact_products")

CONFIG = ModelConfig(image_shape=(20, 30, 1), hidden_size=32, branch_size=16)
LSTM = dataclasses.replace(CONFIG, core="lstm")
KEY = jax.random.key(3)
MAX_GLIMPSES = 12
BETA = 0.06


@pytest.fixture(scope="module")
def params():
  return ramjax.init_params(jax.random.key(0), CONFIG)


def make_images(num):
  return jax.random.normal(jax.random.key(1), (num, *CONFIG.image_shape))


@functools.partial(
  jax.jit, static_argnames=("config", "location_policy", "max_glimpses")
)
def decide(
  key, params, images, beta=BETA, config=CONFIG, max_glimpses=MAX_GLIMPSES, **options
):
  return ramjax.look_until_decided(
    key,
    params,
    images,
    beta=beta,
    model=config,
    max_glimpses=max_glimpses,
    **options,
  )


@functools.partial(jax.jit, static_argnames=("config", "location_policy"))
def decide_by_full_rollout(key, params, images, beta=BETA, config=CONFIG, **options):
  """The stopping rule applied to a rollout of all glimpses."""
  rollout = ramjax.rollout(
    key, params, images, model=config, num_glimpses=MAX_GLIMPSES, **options
  )
  probs_t, errors_t = rollout.probs_t, rollout.predicted_error_t
  num_glimpses = ramjax.stopping_time(probs_t, errors_t, beta=beta)
  at_stop = jax.vmap(ramjax.at_stop, (-1, None), -1)
  taken_t = jnp.arange(MAX_GLIMPSES)[:, None] < num_glimpses[None]
  return ramjax.Decision(
    at_stop(probs_t, num_glimpses),
    at_stop(errors_t, num_glimpses),
    num_glimpses,
    jnp.where(taken_t[..., None], rollout.location_t, jnp.nan),
  )


@pytest.mark.parametrize(
  ("num_images", "options"),
  [
    (5, {"location_noise": 0.5}),
    (6, {"location_noise": [1.0, 3.0]}),
    (161, {"location_policy": "mean"}),
    (700, {}),
  ],
)
def test_decisions_are_those_of_the_full_rollout(params, num_images, options):
  """For fewer images than a block has, for whole blocks, and with a remainder."""
  images = make_images(num_images)
  found = decide(KEY, params, images, **options)
  expected = decide_by_full_rollout(KEY, params, images, **options)
  np.testing.assert_array_equal(found.num_glimpses, expected.num_glimpses)
  np.testing.assert_allclose(found.probs, expected.probs, rtol=1e-4)
  np.testing.assert_allclose(
    found.predicted_error, expected.predicted_error, rtol=1e-4, atol=1e-6
  )
  np.testing.assert_allclose(found.location_t, expected.location_t, atol=1e-5)


def test_a_rule_of_ones_own_stops_where_it_first_holds(params):
  """Any function of p and u; here the sum of u falls below a threshold."""
  images = make_images(50)
  rollout = ramjax.rollout(KEY, params, images, model=CONFIG, num_glimpses=MAX_GLIMPSES)
  sums_t = rollout.predicted_error_t.sum(-1)
  least = float(np.quantile(sums_t, 0.1))

  def rule(probs, predicted_error):
    assert probs.shape == predicted_error.shape == (*probs.shape[:-1], 10)
    return predicted_error.sum(-1) < least

  found = ramjax.look_until_decided(
    KEY, params, images, rule=rule, model=CONFIG, max_glimpses=MAX_GLIMPSES
  )
  expected = ramjax.first_decision(sums_t < least)
  np.testing.assert_array_equal(found.num_glimpses, expected)
  assert len(np.unique(expected)) > 2


def test_a_rule_sees_p_at_the_temperature_of_the_glimpse(params):
  """The last temperature serves all later glimpses, and the returned p are not tempered."""
  images = make_images(50)
  rollout = ramjax.rollout(KEY, params, images, model=CONFIG, num_glimpses=MAX_GLIMPSES)
  temperature_t = jnp.array([5.0, 0.2, 3.0, 0.4] + [0.4] * (MAX_GLIMPSES - 4))
  highest_t = ramjax.temper(
    rollout.probs_t, jnp.broadcast_to(temperature_t[:, None], (MAX_GLIMPSES, 50))
  ).max(-1)
  least = float(np.quantile(highest_t, 0.8))
  found = ramjax.look_until_decided(
    KEY,
    params,
    images,
    rule=lambda p, u: p.max(-1) > least,
    temperature_t=tuple(temperature_t[:4].tolist()),
    model=CONFIG,
    max_glimpses=MAX_GLIMPSES,
  )
  expected = ramjax.first_decision(highest_t > least)
  np.testing.assert_array_equal(found.num_glimpses, expected)
  assert len(np.unique(expected)) > 2
  at_stop = jax.vmap(ramjax.at_stop, (-1, None), -1)
  np.testing.assert_allclose(found.probs, at_stop(rollout.probs_t, expected), rtol=1e-4)


@pytest.mark.parametrize(
  "options",
  [
    {"beta": 0.1, "temperature_t": [1.0]},
    {"rule": lambda p, u: p, "temperature_t": []},
  ],
)
def test_temperatures_need_a_rule(params, options):
  with pytest.raises(
    ConfigError, match="temperature_t must be one number or more, and"
  ):
    ramjax.look_until_decided(
      KEY, params, make_images(3), model=CONFIG, max_glimpses=2, **options
    )


@pytest.mark.parametrize("options", [{}, {"beta": 0.1, "rule": lambda p, u: p[..., 0]}])
def test_one_rule_is_given(params, options):
  with pytest.raises(ConfigError, match="give either beta"):
    ramjax.look_until_decided(
      KEY, params, make_images(3), model=CONFIG, max_glimpses=2, **options
    )


def test_each_image_keeps_its_own_lstm_memory():
  """Also when other images are decided earlier."""
  params = ramjax.init_params(jax.random.key(0), LSTM)
  images = make_images(161)
  found = decide(KEY, params, images, beta=0.15, config=LSTM)
  expected = decide_by_full_rollout(KEY, params, images, beta=0.15, config=LSTM)
  assert len(set(np.asarray(expected.num_glimpses))) > 6
  np.testing.assert_array_equal(found.num_glimpses, expected.num_glimpses)
  np.testing.assert_allclose(found.probs, expected.probs, rtol=1e-4)


def test_these_images_need_all_numbers_of_glimpses(params):
  """So the comparison above covers every stopping time."""
  taken = decide_by_full_rollout(KEY, params, make_images(700)).num_glimpses
  assert set(np.asarray(taken)) == set(range(1, MAX_GLIMPSES + 1))


@pytest.mark.parametrize(("beta", "expected"), [(0.0, 1), (1e6, 5)])
def test_it_takes_from_one_to_max_glimpses(params, beta, expected):
  found = decide(KEY, params, make_images(40), beta=beta, max_glimpses=5)
  np.testing.assert_array_equal(found.num_glimpses, expected)


def test_each_image_has_its_own_key(params):
  keys = jax.random.split(KEY, 6)
  both = decide(keys, params, make_images(6))
  last = decide(keys[4:], params, make_images(6)[4:])
  both = both._replace(location_t=both.location_t.swapaxes(0, 1))
  last = last._replace(location_t=last.location_t.swapaxes(0, 1))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a[4:], b, rtol=1e-5), both, last)


def test_only_glimpses_that_are_needed_are_taken(params, monkeypatch):
  """At each glimpse, fewer images than the smallest block are computed in vain."""
  sizes = []
  take_glimpse = dynamic.take_glimpse

  def counted(ram_params, images, *rest, **options):
    jax.debug.callback(lambda: sizes.append(images.shape[0]))
    return take_glimpse(ram_params, images, *rest, **options)

  monkeypatch.setattr(dynamic, "take_glimpse", counted)
  found = ramjax.look_until_decided(
    KEY,
    params,
    make_images(700),
    beta=BETA,
    model=CONFIG,
    max_glimpses=MAX_GLIMPSES,
  )
  jax.effects_barrier()
  needed = int(found.num_glimpses.sum())
  assert needed < 0.8 * 700 * MAX_GLIMPSES
  assert needed <= sum(sizes) < needed + 32 * MAX_GLIMPSES
  assert max(sizes) == 512


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"max_glimpses": 0}, "max_glimpses must be at least 1, not 0"),
    ({"location_policy": "best"}, "location_policy must be one of sample, mean"),
  ],
)
def test_bad_options_are_named(params, options, message):
  with pytest.raises(ConfigError, match=message):
    decide(KEY, params, make_images(2), **options)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"beta": -1.0}, "beta must be at least 0, not -1.0"),
    ({"beta": float("nan")}, "beta must be at least 0, not nan"),
    (
      {"beta": None, "rule": lambda p, u: (p.max(-1) > 0.2).astype(int)},
      "rule must return Booleans, such as p.max",
    ),
    ({"beta": None, "rule": lambda p, u: True}, r"decided must have the shape \[2\]"),
    ({"beta": None, "rule": lambda p, u: p.max(-1)}, "Booleans.*not float32"),
  ],
)
def test_bad_rules_are_named(params, options, message):
  with pytest.raises(AssertionError, match=message):
    ramjax.look_until_decided(
      KEY, params, make_images(2), model=CONFIG, max_glimpses=3, **options
    )


def test_no_images_are_named(params):
  with pytest.raises(ConfigError, match="images must be at least one"):
    decide(KEY, params, make_images(2)[:0])
