"""The stopping rule of the paper, at the first glimpse where it holds."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ramjax
from ramjax import (
  at_stop,
  is_decided,
  is_decided_as_released,
  stopping_time,
  stopping_time_as_released,
)


def oracle(probs_t, predicted_error_t, beta):
  """The rule of the paper for one example, in plain Python."""
  for t, (probs, error) in enumerate(zip(probs_t, predicted_error_t, strict=True)):
    best = int(np.argmax(probs))
    upper = [
      p + beta * u
      for i, (p, u) in enumerate(zip(probs, error, strict=True))
      if i != best
    ]
    if probs[best] - beta * error[best] > max(upper):
      return t + 1
  return len(probs_t)


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 1.0, 3.0])
def test_stopping_time_equals_the_rule_of_the_paper(beta):
  rng = np.random.RandomState(0)
  probs_t = rng.dirichlet(np.full(10, 0.2), (12, 200)).astype(np.float32)
  errors_t = rng.uniform(0, 0.3, probs_t.shape).astype(np.float32)
  found = stopping_time(probs_t, errors_t, beta=np.float32(beta))
  expected = [
    oracle(probs_t[:, i], errors_t[:, i], np.float32(beta)) for i in range(200)
  ]
  assert found.tolist() == expected
  assert found.dtype == jnp.int32
  if 0.1 <= beta <= 1.0:
    assert len(set(expected)) > 2


def test_other_classes_get_an_upper_bound():
  """The released code also subtracts β u from other classes, and would stop here."""
  probs, error = jnp.array([0.6, 0.4]), jnp.array([0.0, 0.3])
  assert not is_decided(probs, error, beta=1.0)
  assert is_decided(probs, error, beta=0.5)


def test_first_decision_counts():
  """Decided, undecided, decided again: the stopping time is 1, not 3."""
  probs_t = jnp.array([[0.9, 0.1], [0.5, 0.5], [0.9, 0.1]])
  assert stopping_time(probs_t, jnp.zeros((3, 2)), beta=1.0) == 1


def test_tie_is_not_a_decision():
  probs_t = jnp.full((4, 2), 0.5)
  assert not is_decided(probs_t[0], jnp.zeros(2), beta=0.0)
  assert stopping_time(probs_t, jnp.zeros((4, 2)), beta=0.0) == 4


def test_beta_zero_takes_one_glimpse():
  probs_t = jax.nn.softmax(jax.random.normal(jax.random.key(0), (6, 50, 10)))
  assert (stopping_time(probs_t, jnp.ones((6, 50, 10)), beta=0.0) == 1).all()


def test_larger_beta_never_stops_earlier():
  keys = jax.random.split(jax.random.key(1))
  probs_t = jax.nn.softmax(3 * jax.random.normal(keys[0], (9, 100, 10)))
  errors_t = jax.random.uniform(keys[1], (9, 100, 10), maxval=0.2)
  times = [stopping_time(probs_t, errors_t, beta=b) for b in (0.0, 0.3, 1.0, 4.0)]
  for shorter, longer in itertools.pairwise(times):
    assert (shorter <= longer).all()


def test_at_stop_takes_the_value_of_the_last_glimpse():
  values_t = jnp.arange(6.0).reshape(3, 2)
  assert at_stop(values_t, jnp.array([1, 3])).tolist() == [0.0, 5.0]


def released_oracle(probs_t, errors_t, beta, batch_size):
  """The released rule, from its description, in plain Python; arrays [T, M, I, K]."""
  num_glimpses, num_samples, num_images, _ = probs_t.shape
  taken = np.full((num_samples, num_images), num_glimpses)
  for start in range(0, num_images, batch_size):
    copies = list(
      itertools.product(
        range(num_samples), range(start, min(start + batch_size, num_images))
      )
    )
    stopped = set()
    for t in range(num_glimpses):
      for copy in copies:
        p, u = probs_t[t][copy], errors_t[t][copy]
        best = int(np.argmax(p))
        rivals = [i for i in range(len(p)) if i != best]
        rival = max(rivals, key=lambda i, p=p, u=u: p[i] + beta * u[i])
        if p[best] - beta * u[best] >= p[rival] - beta * u[rival]:
          taken[copy] = t + 1
          stopped.add(copy)
      if len(stopped) == len(copies):
        break
  return taken


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.6, 2.0])
@pytest.mark.parametrize("batch_size", [1, 4, 32])
def test_released_stopping_time_equals_its_description(beta, batch_size):
  rng = np.random.RandomState(0)
  probs_t = rng.dirichlet(np.full(10, 0.5), (8, 3, 42)).astype(np.float32)
  errors_t = rng.uniform(0, 0.5, probs_t.shape).astype(np.float32)
  errors_t += probs_t  # else the rule hardly ever waits
  beta = np.float32(beta)
  found = stopping_time_as_released(probs_t, errors_t, beta=beta, batch_size=batch_size)
  expected = released_oracle(probs_t, errors_t, beta, batch_size)
  np.testing.assert_array_equal(found, expected)
  assert found.dtype == jnp.int32
  if beta:
    assert len(np.unique(expected)) > 2


def test_released_rule_goes_on_for_the_others_of_a_batch():
  """The first image is decided at once, and again at the third glimpse, with the other."""
  sure, unsure = [0.9, 0.1], [0.5, 0.5]
  probs_t = np.array([[sure, unsure], [unsure, unsure], [sure, sure], [sure, sure]])
  errors_t = np.zeros((4, 2, 2), np.float32)
  errors_t[:, :, 0] = 0.3  # the first class: at equal p it is the best, and not decided
  probs_t = probs_t.astype(np.float32)[:, None]
  together = stopping_time_as_released(probs_t, errors_t[:, None], beta=1.0)
  apart = stopping_time_as_released(probs_t, errors_t[:, None], beta=1.0, batch_size=1)
  assert together.tolist() == [[3, 3]]
  assert apart.tolist() == [[1, 3]]


def test_released_condition_subtracts_from_the_rival():
  """The paper's rule is undecided here; a tie is decided, too."""
  probs, error = jnp.array([0.6, 0.4]), jnp.array([0.0, 0.3])
  assert is_decided_as_released(probs, error, beta=1.0)
  assert not is_decided(probs, error, beta=1.0)
  assert is_decided_as_released(jnp.full(2, 0.5), jnp.zeros(2), beta=0.0)


def test_what_makes_no_sense_is_named():
  probs_t, error_t = jnp.full((3, 2, 4, 5), 0.2), jnp.zeros((3, 2, 4, 5))
  for rule in (ramjax.stopping_time, ramjax.stopping_time_as_released):
    with pytest.raises(AssertionError, match="beta must be at least 0, not -1"):
      rule(probs_t, error_t, beta=-1.0)
  with pytest.raises(ramjax.ConfigError, match="batch_size must be at least 1, not 0"):
    ramjax.stopping_time_as_released(probs_t, error_t, beta=0.1, batch_size=0)
