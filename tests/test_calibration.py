"""Calibration of p and of the self-uncertainty u, against NumPy and by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats

import ramjax

T, M, K = 3, 500, 10
HALVES = (slice(0, 123), slice(123, None))


@pytest.fixture(scope="module")
def predictions():
  """Self-uncertainties, softmax outputs and classes; some predictions are correct."""
  keys = jax.random.split(jax.random.key(0), 3)
  label = jax.random.randint(keys[0], (M,), 0, K)
  logits_t = jax.random.normal(keys[1], (T, M, K))
  sharpness_t = jnp.array([1.0, 2.0, 4.0]).reshape(T, 1, 1)
  probs_t = jax.nn.softmax(sharpness_t * (logits_t + jax.nn.one_hot(label, K)[None]))
  predicted_error_t = jax.random.uniform(keys[2], (T, M, K)) * (1 - probs_t)
  return predicted_error_t, probs_t, label


def ece_in_numpy(probs, label, num_bins):
  """The definition of Guo et al. (2017), bin by bin."""
  probs, label = np.asarray(probs), np.asarray(label)
  confidence, right = probs.max(-1), probs.argmax(-1) == label
  total = 0.0
  for m in range(1, num_bins + 1):
    inside = ((m - 1) / num_bins < confidence) & (confidence <= m / num_bins)
    if inside.any():
      gap = abs(right[inside].mean() - confidence[inside].mean())
      total += inside.sum() / len(label) * gap
  return total


@pytest.mark.parametrize("num_bins", [1, 7, 15])
def test_calibration_error_equals_numpy(num_bins, predictions):
  _, probs_t, label = predictions
  error = functools.partial(ramjax.expected_calibration_error, num_bins=num_bins)
  found_t = jax.jit(jax.vmap(error, (0, None)))(probs_t, label)
  assert found_t.shape == (T,)
  expected_t = [ece_in_numpy(probs, label, num_bins) for probs in probs_t]
  np.testing.assert_allclose(found_t, expected_t, rtol=1e-4)
  assert min(expected_t) > 0.01


def test_calibration_error_by_hand():
  """Bin (0, 1/2] has .5 (correct); bin (1/2, 1] has .6 (wrong), .8 and 1 (correct)."""
  confidence = np.array([0.5, 0.6, 0.8, 1.0], np.float32)
  probs = jnp.asarray(np.stack([confidence, 1 - confidence], axis=-1))
  label = jnp.array([0, 1, 0, 0])
  bins = ramjax.reliability(probs, label, num_bins=2)
  assert bins.number.tolist() == [1, 3]
  np.testing.assert_allclose(bins.confidence, [0.5, 2.4], rtol=1e-6)
  assert bins.correct.tolist() == [1, 2]
  # 1/4 |1 - 0.5| + 3/4 |2/3 - 0.8| = 0.125 + 0.1
  found = ramjax.expected_calibration_error(probs, label, num_bins=2)
  np.testing.assert_allclose(found, 0.225, rtol=1e-5)


def test_labels_drawn_from_the_predictions_are_calibrated():
  """The calibration error is near zero, and large for overconfident predictions."""
  count = 50_000
  logits = 2 * jax.random.normal(jax.random.key(1), (count, K))
  label = jax.random.categorical(jax.random.key(2), logits)
  error = ramjax.expected_calibration_error
  assert error(jax.nn.softmax(logits), label) < 0.01
  assert error(jax.nn.softmax(3 * logits), label) > 0.1


def test_bins_of_batches_add_up(predictions):
  _, probs_t, label = predictions
  parts = [ramjax.reliability(probs_t[0][part], label[part]) for part in HALVES]
  together = jax.tree.map(jnp.add, *parts)
  whole = ramjax.reliability(probs_t[0], label)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-5), together, whole
  )
  assert whole.number.sum() == M


def test_uncertainty_fit_equals_scipy(predictions):
  predicted_error_t, probs_t, label = predictions
  found = jax.jit(ramjax.uncertainty_fit)(predicted_error_t, probs_t, label)
  for t in range(T):
    true = np.abs(np.eye(K)[np.asarray(label)] - np.asarray(probs_t[t]))
    u = np.asarray(predicted_error_t[t])
    expected = scipy.stats.pearsonr(u.ravel(), true.ravel()).statistic
    assert abs(expected) > 0.05
    np.testing.assert_allclose(found.correlation_t[t], expected, rtol=1e-3)
    np.testing.assert_allclose(found.deviation_t[t], np.abs(u - true).mean(), rtol=1e-5)


def test_uncertainty_fit_by_hand():
  """p = (.7, .3) and (.4, .6), true class 0: errors (.3, .3) and (.6, .6)."""
  probs_t = jnp.array([[[0.7, 0.3], [0.4, 0.6]]])
  label = jnp.array([0, 0])
  twice = jnp.array([[[0.6, 0.6], [1.2, 1.2]]])  # u = twice the error
  found = ramjax.uncertainty_fit(twice, probs_t, label)
  np.testing.assert_allclose(found.correlation_t, [1.0], rtol=1e-5)
  np.testing.assert_allclose(found.deviation_t, [0.45], rtol=1e-5)  # (.3 + .6) / 2
  found = ramjax.uncertainty_fit(1.2 - twice, probs_t, label)
  np.testing.assert_allclose(found.correlation_t, [-1.0], rtol=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_constant_uncertainty_has_no_correlation(value, predictions):
  _, probs_t, label = predictions
  found = ramjax.uncertainty_fit(jnp.full_like(probs_t, value), probs_t, label)
  assert np.isnan(found.correlation_t).all()
  assert np.isfinite(found.deviation_t).all()


def test_vmap_over_models_gives_the_fit_of_each(predictions):
  predicted_error_t, probs_t, label = predictions
  both = jax.tree.map(lambda x: jnp.stack([x, x[::-1]]), (predicted_error_t, probs_t))
  found = jax.vmap(ramjax.uncertainty_fit, (0, 0, None))(*both, label)
  alone = ramjax.uncertainty_fit(predicted_error_t, probs_t, label)
  for one, two in zip(found, alone, strict=True):
    np.testing.assert_allclose(one, jnp.stack([two, two[::-1]]), rtol=1e-5)


def test_bad_arguments_are_refused(predictions):
  predicted_error_t, probs_t, label = predictions
  with pytest.raises(ValueError, match="num_bins must be at least 1, not 0"):
    ramjax.reliability(probs_t[0], label, num_bins=0)
  with pytest.raises(AssertionError):
    ramjax.expected_calibration_error(probs_t, label)
  with pytest.raises(AssertionError):
    ramjax.expected_calibration_error(probs_t[0], label[:-1])
  with pytest.raises(AssertionError):
    ramjax.uncertainty_fit(predicted_error_t[:-1], probs_t, label)
  with pytest.raises(AssertionError):
    ramjax.uncertainty_fit(predicted_error_t, probs_t, jnp.zeros(M))


def test_the_fitted_temperature_has_the_highest_likelihood(predictions):
  """Against SciPy's minimiser; one for each number of glimpses."""
  _, probs_t, label = predictions
  found_t = jax.jit(jax.vmap(ramjax.fit_temperature, (0, None)))(probs_t, label)
  rows = np.arange(M)

  def cross_entropy(log_temperature, probs):
    logits = np.log(np.float64(probs)) / np.exp(log_temperature)
    return -scipy.special.log_softmax(logits, axis=-1)[rows, label].mean()

  expected_t = [
    np.exp(scipy.optimize.minimize_scalar(cross_entropy, args=(probs,)).x)
    for probs in np.asarray(probs_t)
  ]
  np.testing.assert_allclose(found_t, expected_t, rtol=1e-3)
  assert max(expected_t) > 2 * min(expected_t)


def test_tempered_probabilities_are_calibrated_and_of_the_same_class(predictions):
  _, probs_t, label = predictions
  probs = probs_t[-1]
  tempered = ramjax.temper(probs, ramjax.fit_temperature(probs, label))
  np.testing.assert_array_equal(tempered.argmax(-1), probs.argmax(-1))
  np.testing.assert_allclose(tempered.sum(-1), 1, rtol=1e-5)
  before = ramjax.expected_calibration_error(probs, label)
  assert ramjax.expected_calibration_error(tempered, label) < before / 2
  np.testing.assert_allclose(ramjax.temper(probs, jnp.float32(1.0)), probs, rtol=1e-5)


def test_temperatures_stay_finite_and_nan_is_told():
  """Always right and sure, an underflowed probability, and one that is not finite."""
  probs, label = jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([0, 1])
  assert ramjax.fit_temperature(probs, label) < 0.01
  assert jnp.isfinite(ramjax.temper(probs, jnp.float32(150.0))).all()
  assert jnp.isnan(ramjax.fit_temperature(probs.at[0, 0].set(jnp.nan), label))
