"""Scanpaths: densities and bits against NumPy, and files against text written by hand."""

import csv
import functools
import io
import json
import math

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats

import ramjax
from experiments.reporting import scanpaths
from experiments.reporting.scanpaths import Scanpath
from ramjax.data.scans import Grid

SIZE = (9, 14)  # height and width


def places(*shape, seed=0, most=1.0):
  """Locations, the first two in opposite corners."""
  found = np.random.RandomState(seed).uniform(-most, most, (*shape, 2))
  found.reshape(-1, 2)[:2] = [[-most, -most], [most, most]]
  return found.astype(np.float32)


def probabilities(*shape, seed=0):
  """Probabilities, some of them 0."""
  found = np.random.RandomState(seed).dirichlet(np.full(shape[-1], 0.3), shape[:-1])
  found = np.where(found < 0.01, 0, found)
  return (found / found.sum(-1, keepdims=True)).astype(np.float32)


def density_of_pixels(locations, weights, std):
  """Pixel by pixel: each Gaussian has the mass of its weight inside the image."""
  height, width = SIZE
  density = np.zeros(SIZE)
  for (x, y), weight in zip(np.clip(locations, -1, 1), weights, strict=True):
    bump = np.empty(SIZE)
    for row, column in np.ndindex(SIZE):
      right = column + 0.5 - (float(x) + 1) / 2 * width
      down = row + 0.5 - (float(y) + 1) / 2 * height
      bump[row, column] = math.exp(-(right**2 + down**2) / (2 * std**2))
    density += weight * bump / bump.sum()
  return density / sum(weights)


@pytest.mark.parametrize("std", [0.7, 3.0, 40.0])
def test_density_equals_numpy(std):
  """Jitted, with leading axes, a traced deviation, and fixations outside the image."""
  locations = places(4, 3, most=1.2)
  weights = np.random.RandomState(1).uniform(size=(4, 3)).astype(np.float32)
  density = jax.jit(functools.partial(ramjax.fixation_density, image_size=SIZE))
  found = density(locations, std=jnp.float32(std), weight=weights)
  expected = density_of_pixels(locations.reshape(-1, 2), weights.ravel(), std)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-8)
  assert float(found.sum()) == pytest.approx(1, abs=1e-6)


def test_density_far_from_the_border_is_a_blurred_count_of_fixations():
  """As packages for saliency make it: fixations in pixels, convolved with a Gaussian."""
  height, width = 61, 81
  rows, columns = np.array([30, 28, 28, 33]), np.array([40, 45, 45, 36])
  counts = np.zeros((height, width))
  np.add.at(counts, (rows, columns), 1)
  centres = np.stack([(columns + 0.5) / width, (rows + 0.5) / height], -1) * 2 - 1
  found = ramjax.fixation_density(
    jnp.asarray(centres, jnp.float32), image_size=(height, width), std=2.5
  )
  expected = scipy.ndimage.gaussian_filter(counts / 4, 2.5, truncate=10)
  np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-9)


def test_a_fixation_is_densest_at_the_pixel_of_the_sensor():
  """Also where the Gaussian is so narrow that it vanishes at every centre of a pixel."""
  locations = places(200, most=0.999)
  density = functools.partial(ramjax.fixation_density, image_size=SIZE, std=0.005)
  found = jax.vmap(density)(locations).reshape(200, -1)
  row, column = ramjax.patch_origin(locations, image_size=SIZE, side=1)
  np.testing.assert_array_equal(found.argmax(-1), row * SIZE[1] + column)
  np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)


def test_fixations_at_the_border_count_like_others():
  locations = jnp.array([[-1.0, -1.0], [0.9, 0.0]])
  found = ramjax.fixation_density(locations, image_size=(40, 80), std=2.0)
  assert float(found[:, :40].sum()) == pytest.approx(0.5, rel=1e-5)


def test_weights_choose_and_repeat_fixations():
  locations = places(5)
  density = functools.partial(ramjax.fixation_density, image_size=SIZE, std=1.5)
  some = density(locations, weight=jnp.array([True, False, True, True, False]))
  np.testing.assert_allclose(some, density(locations[[0, 2, 3]]), rtol=1e-5)
  twice = density(locations[:2], weight=jnp.array([1, 2]))
  np.testing.assert_allclose(twice, density(locations[[0, 1, 1]]), rtol=1e-5)
  assert jnp.isnan(density(locations, weight=jnp.zeros(5))).all()
  assert jnp.isnan(density(locations[:0])).all()


def test_glimpses_that_were_not_taken_do_not_count():
  """An exported program says NaN for them."""
  location = jnp.array([[0.0, 0.0], [0.5, 0.5], [jnp.nan, jnp.nan]])
  options = {"image_size": SIZE, "std": 1.0}
  taken = ~jnp.isnan(location[:, 0])
  found = ramjax.fixation_density(location, weight=taken, **options)
  expected = ramjax.fixation_density(location[:2], **options)
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_density_has_the_gradient_of_its_numbers():
  """In the place, the deviation and the weight, of a sum that weighs pixels at random."""
  template = jnp.asarray(np.random.RandomState(2).normal(size=SIZE), jnp.float32)

  def total(location, std, weight):
    return jnp.vdot(
      template,
      ramjax.fixation_density(location, image_size=SIZE, std=std, weight=weight),
    )

  arguments = jnp.asarray(places(3, most=0.8)), jnp.float32(2.0), jnp.ones(3)
  jax.test_util.check_grads(total, arguments, order=1, atol=5e-3, rtol=5e-3)
  assert jnp.abs(jax.grad(total)(*arguments)).min() > 1e-4


def test_half_precision_is_computed_in_float32():
  location = jnp.array([[0.25, -0.5]], jnp.bfloat16)
  found = ramjax.fixation_density(location, image_size=SIZE, std=1.0)
  exact = ramjax.fixation_density(
    location.astype(jnp.float32), image_size=SIZE, std=1.0
  )
  np.testing.assert_array_equal(found, exact)


def test_entropy_equals_scipy():
  probs = probabilities(6, 5, 4)
  assert (probs == 0).any()
  expected = scipy.stats.entropy(probs.astype(np.float64), base=2, axis=-1)
  np.testing.assert_allclose(ramjax.entropy(probs), expected, rtol=1e-5, atol=1e-6)


def test_certainty_has_no_entropy_and_a_finite_gradient():
  certain = jnp.array([0.0, 1.0, 0.0])
  assert ramjax.entropy(certain).tolist() == 0
  assert jnp.isfinite(jax.grad(ramjax.entropy)(certain)).all()
  logits = jnp.array([-1e4, 0.0, 1e4])
  slope = jax.grad(lambda z: ramjax.entropy(jax.nn.softmax(z)))(logits)
  np.testing.assert_array_equal(slope, jnp.zeros(3))
  inside = jnp.array([0.2, 0.5, 0.3])
  jax.test_util.check_grads(ramjax.entropy, (inside,), order=1, atol=1e-2, rtol=1e-2)


def test_gain_is_the_fall_of_the_entropy_and_adds_up():
  probs_t = probabilities(7, 3, 5, seed=3)
  found = np.asarray(ramjax.information_gain(probs_t))
  for image in range(3):
    before = math.log2(5)
    for t in range(7):
      after = -sum(p * math.log2(p) for p in probs_t[t, image].tolist() if p > 0)
      assert found[t, image] == pytest.approx(before - after, abs=1e-5)
      before = after
    assert found[:, image].sum() == pytest.approx(math.log2(5) - after, abs=1e-5)
  assert (found < 0).any()  # some glimpses confuse


def test_a_probability_that_is_not_a_number_stays_none():
  probs_t = jnp.full((4, 2), 0.5).at[1, 0].set(jnp.nan)
  is_nan = [False, True, False, False]
  assert jnp.isnan(ramjax.entropy(probs_t)).tolist() == is_nan
  assert jnp.isnan(ramjax.information_gain(probs_t)).tolist() == [
    False,
    *[True] * 2,
    False,
  ]


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (
      lambda: ramjax.fixation_density(jnp.zeros((3, 3)), image_size=SIZE, std=1.0),
      r"location must have the shape \[\.\.\., 2\]",
    ),
    (
      lambda: ramjax.fixation_density(jnp.zeros((3, 2)), image_size=SIZE, std=0.0),
      "std must be greater than 0",
    ),
    (
      lambda: ramjax.fixation_density(
        jnp.zeros((3, 2)), image_size=SIZE, std=1.0, weight=jnp.ones(2)
      ),
      r"weight must have the shape \[3\]",
    ),
    (lambda: ramjax.entropy(jnp.ones(2, jnp.int32)), "probs must be float"),
    (lambda: ramjax.information_gain(jnp.ones(3)), "probs_t must have the shape"),
    (
      lambda: ramjax.information_gain(jnp.log(jnp.full((2, 4), 0.25))),
      "probs must be probabilities.*of logits take jax.nn.softmax",
    ),
    (lambda: ramjax.entropy(jnp.array([3.0, 1.0])), "sum to 1, not to 4"),
    (
      lambda: ramjax.fixation_density(
        jnp.zeros((2, 2)), image_size=SIZE, std=1.0, weight=jnp.array([1.0, -0.5])
      ),
      "weight must be at least 0",
    ),
  ],
)
def test_what_does_not_fit_is_named(call, message):
  with pytest.raises(AssertionError, match=message):
    call()


BY_HAND = Scanpath(
  image="rex.png",
  label="dog",
  run="both_seed0",
  rollout=1,
  height=4,
  width=8,
  location_t=np.array([[0, 0], [-1, -1], [0.5, 1], [0, 0]], np.float32),
  probs_t=np.array([[0.5, 0.5], [0.75, 0.25], [0, 1], [0.5, 0.5]], np.float32),
  predicted_error_t=np.array(
    [[0.5, 0.25], [0.125, 0.375], [0.25, 0.0625], [0, 0]], np.float32
  ),
  class_names=("cat", "dog"),
  num_fixations=3,
  stopped=True,
  patch_sides=(2, 4),
)
"""Three glimpses, after which the rule stops; the arrays have a fourth."""

HEAD = (
  "image,label,run,rollout,fixation,x_px,y_px,x,y,scale,p_true,"
  "entropy_before,entropy_after,information_gain_bits,self_uncertainty,stopped,"
  "x_file,y_file\n"
)
"""H(3/4) = 2 - 3/4 log2 3 = 0.811278 bits."""


def read(text):
  return list(csv.DictReader(io.StringIO(text, newline="")))


def test_csv_by_hand():
  """The third place is on the lower border, which belongs to the last of four rows."""
  assert scanpaths.csv_text([BY_HAND]) == (
    HEAD + "rex.png,dog,both_seed0,1,1,4,2,0,0,4,0.5,1,1,0,0.5,0,4,2\n"
    "rex.png,dog,both_seed0,1,2,0,0,-1,-1,4,0.25,1,0.811278,0.188722,0.125,0,0,0\n"
    "rex.png,dog,both_seed0,1,3,6,3,0.5,1,4,1,0.811278,0,0.811278,0.0625,1,6,3\n"
  )


def test_places_in_the_file_are_those_of_its_own_pixels():
  """Of a part that begins 10 rows below and 20 columns beside, in steps of 2.5 and 3."""
  made = BY_HAND._replace(grid=Grid((10.0, -20.0), (2.5, 3.0)))
  assert scanpaths.pixels_of_file(made) == [(-8, 15), (-20, 10), (-2, 19)]
  assert scanpaths.pixels(made) == scanpaths.pixels(BY_HAND)
  [trial] = scanpaths.coco_search18([made])
  assert (trial["X"], trial["Y"]) == ([-8, -20, -2], [15, 10, 19])


def test_csv_without_scanpaths_has_a_head():
  assert scanpaths.csv_text([]) == HEAD


def test_what_is_unknown_is_empty():
  """The label, or the probability of a class that the model does not have."""
  unknown, strange = (BY_HAND._replace(label=label) for label in (None, "owl"))
  text = scanpaths.csv_text([unknown, strange])
  assert text.startswith(HEAD + "rex.png,,both_seed0,1,1,4,2,0,0,4,,1,1,0,0.5,0,4,2\n")
  found = [(row["label"], row["p_true"]) for row in read(text)]
  assert found == [("", "")] * 3 + [("owl", "")] * 3


def test_a_rollout_that_its_limit_ended_is_not_stopped():
  by_limit = BY_HAND._replace(num_fixations=4, stopped=False)
  assert [row["stopped"] for row in scanpaths.rows(by_limit)] == [0, 0, 0, 0]
  at_limit = by_limit._replace(stopped=True)
  assert [row["stopped"] for row in scanpaths.rows(at_limit)] == [0, 0, 0, 1]


@pytest.mark.parametrize("name", ["a,b", 'a "b"', "a\nb", "a\rb", "a\r\nb", "é'; 水"])
def test_any_name_is_read_again(name):
  text = scanpaths.csv_text([BY_HAND._replace(image=name, label=name, run=name)])
  found = read(text)
  assert len(found) == 3
  for row in found:
    assert [row["image"], row["label"], row["run"]] == [name] * 3
    assert row["stopped"] in ("0", "1")
    assert None not in row  # no field too many


@pytest.mark.parametrize("size", [(28, 28), (61, 97), (768, 1023)])
def test_pixels_are_those_of_the_sensor(size):
  """Bit for bit; the sensor's centre of a location at 1 is one pixel outside."""
  locations = places(2000, most=1.0)
  edges = np.arange(50, dtype=np.float32)[:, None] / np.float32(25) - 1
  locations = np.concatenate([locations, np.repeat(edges, 2, axis=1)])
  looked = BY_HAND._replace(
    height=size[0],
    width=size[1],
    location_t=locations,
    num_fixations=len(locations),
  )
  row, column = ramjax.patch_origin(jnp.asarray(locations), image_size=size, side=1)
  last = size[0] - 1, size[1] - 1
  expected = np.minimum(column, last[1]), np.minimum(row, last[0])
  np.testing.assert_array_equal(scanpaths.pixels(looked), np.stack(expected, -1))


def test_bits_are_those_of_the_library():
  probs_t = probabilities(6, 5)
  looked = BY_HAND._replace(
    location_t=places(6),
    probs_t=probs_t,
    predicted_error_t=probabilities(6, 5, seed=1),
    class_names=tuple("abcde"),
    label="c",
    num_fixations=6,
  )
  rows = scanpaths.rows(looked)
  for name, expected in (
    ("entropy_after", ramjax.entropy(probs_t)),
    ("information_gain_bits", ramjax.information_gain(probs_t)),
    ("p_true", probs_t[:, 2]),
    ("self_uncertainty", looked.predicted_error_t[range(6), probs_t.argmax(-1)]),
  ):
    np.testing.assert_allclose([row[name] for row in rows], expected, atol=1e-5)


def test_numbers_that_are_none_are_written_so():
  broken = BY_HAND._replace(
    probs_t=np.full((4, 2), np.nan), location_t=np.full((4, 2), np.nan), num_fixations=1
  )
  assert scanpaths.csv_text([broken]) == (
    HEAD + "rex.png,dog,both_seed0,1,1,nan,nan,nan,nan,4,nan,1,nan,nan,nan,1,nan,nan\n"
  )
  assert scanpaths.coco_search18([broken])[0]["correct"] == 0


def test_coco_search18_by_hand():
  wrong = BY_HAND._replace(rollout=2, num_fixations=2, stopped=False)
  unknown = BY_HAND._replace(label=None, num_fixations=1)
  found = scanpaths.coco_search18([BY_HAND, wrong, unknown])
  assert json.loads(json.dumps(found)) == [
    {
      "name": "rex.png",
      "subject": 1,
      "task": "dog",
      "X": [4, 0, 6],
      "Y": [2, 0, 3],
      "length": 3,
      "correct": 1,
    },
    {
      "name": "rex.png",
      "subject": 2,
      "task": "dog",
      "X": [4, 0],
      "Y": [2, 0],
      "length": 2,
      "correct": 0,
    },
    {
      "name": "rex.png",
      "subject": 1,
      "task": "",
      "X": [4],
      "Y": [2],
      "length": 1,
      "correct": None,
    },
  ]


def test_pymovements_reads_the_csv(tmp_path):
  """Its events may have no durations. It is in no extra: `pip install pymovements`."""
  pymovements = pytest.importorskip("pymovements")
  polars = pytest.importorskip("polars")
  path = tmp_path / "scanpaths.csv"
  looked = [BY_HAND._replace(image="a, b.png"), BY_HAND._replace(rollout=2)]
  path.write_text(scanpaths.csv_text(looked))
  table = polars.read_csv(path).with_columns(name=polars.lit("fixation"))
  trial = ["image", "run", "rollout"]
  events = pymovements.Events(table, trial_columns=trial)
  assert events.fixations["x_px"].to_list() == [4, 0, 6] * 2
  assert events.fixations["duration"].to_list() == [None] * 6
  gains = events.fixations.group_by(trial, maintain_order=True).agg(
    polars.col("information_gain_bits").sum()
  )
  assert gains["image"].to_list() == ["a, b.png", "rex.png"]
  np.testing.assert_allclose(gains["information_gain_bits"], 1, atol=1e-6)
