"""Accuracy by class: scikit-learn is the oracle."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics

import ramjax


@pytest.mark.parametrize("missing", [(), (2,), (0, 4)])
def test_classes_equal_scikit_learn(missing):
  """Unbalanced data, also without images of some classes, which are predicted."""
  rng = np.random.RandomState(0)
  probs = rng.dirichlet(np.ones(5), 300).astype(np.float32)
  left = [k for k in range(5) if k not in missing]
  labels = rng.choice(
    left, 300, p=np.arange(1, len(left) + 1) / np.arange(1, len(left) + 1).sum()
  )
  predicted = probs.argmax(-1)
  confusion = ramjax.confusion_matrix(jnp.asarray(probs), jnp.asarray(labels))
  np.testing.assert_array_equal(
    confusion, metrics.confusion_matrix(labels, predicted, labels=range(5))
  )
  recall = metrics.recall_score(
    labels, predicted, labels=range(5), average=None, zero_division=np.nan
  )
  found = ramjax.class_accuracy(jnp.asarray(probs), jnp.asarray(labels))
  np.testing.assert_allclose(found, recall, rtol=1e-6)
  with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "y_pred contains classes not in y_true")
    balanced = metrics.balanced_accuracy_score(labels, predicted)
  assert float(
    ramjax.balanced_accuracy(jnp.asarray(probs), jnp.asarray(labels))
  ) == pytest.approx(balanced, rel=1e-6)


def test_a_probability_that_is_not_finite_is_wrong_and_no_class():
  """Its image counts, but in no column; argmax would take NaN for class 0."""
  probs = jnp.array([[jnp.nan, 0.5], [0.9, 0.1], [jnp.inf, 0.0], [0.2, 0.8]])
  labels = jnp.array([0, 0, 1, 1])
  np.testing.assert_array_equal(
    ramjax.confusion_matrix(probs, labels), [[1, 0], [0, 1]]
  )
  np.testing.assert_array_equal(ramjax.class_accuracy(probs, labels), [0.5, 0.5])


def test_vmap_over_glimpses():
  probs_t = jax.nn.softmax(jax.random.normal(jax.random.key(0), (3, 20, 4)))
  labels = jnp.arange(20) % 4
  found = jax.vmap(ramjax.confusion_matrix, in_axes=(0, None))(probs_t, labels)
  for t in range(3):
    np.testing.assert_array_equal(found[t], ramjax.confusion_matrix(probs_t[t], labels))


def test_bad_arguments_are_refused():
  with pytest.raises(AssertionError):
    ramjax.confusion_matrix(jnp.ones((3, 2)), jnp.zeros(4, jnp.int32))
  with pytest.raises(AssertionError):
    ramjax.class_accuracy(jnp.ones((3, 2)), jnp.zeros(3))
