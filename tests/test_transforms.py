"""Transforms of images: canvases, clutter, and the images in training and evaluation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import ramjax
from ramjax import data
from ramjax.config import Config, EvaluationConfig, ModelConfig, TrainConfig
from ramjax.data.batches import evaluation_images

CANVAS = (60, 60)
PLACES = [[30, 7], [9, 22], [13, 13], [0, 22], [32, 1]]
"""Row and column of the first five digits of the translated test set."""

SMALL = Config(
  model=ModelConfig(image_shape=(*CANVAS, 1), hidden_size=16, branch_size=8),
  train=TrainConfig(batch_size=16, num_glimpses=2, num_epochs=1),
)


@pytest.fixture(scope="module")
def translated(npz_file):
  return data.load_dataset(f"npz:{npz_file}", canvas_size=60, background="0")


def places(shown, size=(28, 28)):
  """Row and column of white images on black canvases [B, H, W, 1]."""
  found = []
  for one in np.asarray(shown)[..., 0]:
    rows, columns = (np.flatnonzero(one.any(axis)) for axis in (1, 0))
    assert (len(rows), len(columns)) == size
    assert (np.diff(rows) == 1).all()
    found.append((rows[0], columns[0]))
  return np.array(found)


def boxes(count):
  """White images with one black pixel, so that their canvas is black."""
  images = np.full((count, 28, 28, 1), 255, np.uint8)
  images[:, 5, 5] = 0
  return jnp.asarray(images)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_image_is_complete_on_a_canvas_of_its_minimum(dtype):
  """All pixels differ, so the brightest one shows the place; NumPy draws the rest."""
  image = np.random.RandomState(0).permutation(5 * 7 * 3).reshape(5, 7, 3) + 11
  put = jax.jit(functools.partial(data.translate, canvas_size=(9, 16)))
  found_at = set()
  for seed in range(100):
    found = np.asarray(put(jax.random.key(seed), jnp.asarray(image.astype(dtype))))
    assert found.dtype == dtype
    here, there = (np.argwhere(array == image.max())[0] for array in (found, image))
    row, column, _ = here - there
    expected = np.full((9, 16, 3), 11, dtype)
    expected[row : row + 5, column : column + 7] = image
    np.testing.assert_array_equal(found, expected)
    found_at.add((int(row), int(column)))
  assert len(found_at) > 30  # of 5 x 10 places


def test_canvas_has_the_colour_that_is_asked_for():
  image = jnp.full((2, 3, 3), 9, jnp.uint8)
  put = functools.partial(data.translate, canvas_size=(6, 7))
  found = np.asarray(put(jax.random.key(0), image, background=(250, 251, 252)))
  inside = (found == 9).all(-1)
  assert inside.sum() == 6
  assert (found[~inside] == (250, 251, 252)).all()
  assert found.dtype == np.uint8


def test_scans_lie_on_a_canvas_of_their_paper(tmp_path):
  """Black ink on white paper became a white square on black before."""
  rng = np.random.RandomState(0)
  images = np.full((40, 12, 12), 247, np.uint8)
  images[:, 3:9, 3:9] = rng.randint(0, 60, (40, 6, 6))
  images[:, 0] = rng.randint(230, 256, (40, 12))  # noise of the scanner
  path = tmp_path / "scan.npz"
  np.savez(path, images=images, labels=np.arange(40) % 2)
  dataset = data.load_dataset(f"npz:{path}", canvas_size=30)
  assert dataset.background == "247"
  show = functools.partial(evaluation_images, preprocess=dataset.transform)
  shown = np.asarray(show(jnp.asarray(dataset.test.images), jnp.arange(4)))
  assert (shown >= 230).sum((1, 2, 3)).tolist() == [30 * 30 - 36] * 4
  assert (shown == 247).sum() > 4 * (30 * 30 - 12 * 12)
  darkest = data.load_dataset(f"npz:{path}", canvas_size=30, background=None)
  assert darkest.background is None


def test_clutter_on_white_paper_is_ink():
  """The negative of a cluttered canvas is the cluttered canvas of the negatives."""
  pool = jnp.asarray(np.random.RandomState(0).randint(0, 256, (3, 9, 9, 1)), jnp.uint8)
  put = functools.partial(data.clutter, canvas_size=(16, 20), num_crops=5)
  for seed in range(5):
    key = jax.random.key(seed)
    dark = np.asarray(put(key, pool[0], pool, background=(0,)))
    light = np.asarray(put(key, 255 - pool[0], 255 - pool, background=(255,)))
    np.testing.assert_array_equal(light, 255 - dark)


def test_clutter_on_grey_adds_what_differs_from_grey():
  """On (100, 50): crops of that colour are not seen, others add up and saturate."""
  image = jnp.full((9, 9, 2), jnp.array([100, 50], jnp.uint8))
  put = functools.partial(data.clutter, canvas_size=(12, 12), background=(100, 50))
  same = put(jax.random.key(0), image, image[None], num_crops=9)
  assert (np.asarray(same) == (100, 50)).all()
  other = jnp.full((9, 9, 2), jnp.array([110, 0], jnp.uint8))
  found = np.asarray(put(jax.random.key(0), image, other[None], num_crops=20))
  assert set(np.unique(found[..., 0])) <= set(range(100, 256, 10)) | {255}
  assert set(np.unique(found[..., 1])) == {0, 50}


def test_places_are_uniform_and_independent():
  """All 33 x 33 places of a digit occur, including the borders."""
  count = 20_000
  keys = jax.random.split(jax.random.key(7), count)
  found = jax.jit(jax.vmap(lambda key, image: data.translate(key, image)[..., 0] > 0))(
    keys, boxes(count)
  )
  row = np.asarray(found.any(2).argmax(1))
  column = np.asarray(found.any(1).argmax(1))
  for place in (row, column):
    counts = np.bincount(place, minlength=33)
    assert len(counts) == 33
    assert scipy.stats.chisquare(counts).pvalue > 0.001
  table = np.histogram2d(row, column, bins=11)[0]
  assert scipy.stats.chi2_contingency(table).pvalue > 0.001


def test_image_as_large_as_the_canvas_is_unchanged():
  image = jax.random.uniform(jax.random.key(0), (6, 9, 2))
  found = data.translate(jax.random.key(1), image, canvas_size=(6, 9))
  np.testing.assert_array_equal(found, image)


@pytest.mark.parametrize("canvas_size", [(27, 60), (60, 27)])
def test_canvas_smaller_than_the_image_is_refused(canvas_size):
  with pytest.raises(ValueError, match=r"canvas_size must be at least \(28, 28\)"):
    data.translate(jax.random.key(0), boxes(1)[0], canvas_size=canvas_size)


def cluttered(count, pool, *, num_crops, canvas_size=(24, 20), image=None):
  """Canvases [count, H, W] with crops of `pool` and with `image`, black by default."""
  image = jnp.zeros((12, 11, 1), jnp.uint8) if image is None else image
  put = functools.partial(data.clutter, canvas_size=canvas_size, num_crops=num_crops)
  keys = jax.random.split(jax.random.key(3), count)
  show = jax.jit(jax.vmap(put, in_axes=(0, None, None)))
  return np.asarray(show(keys, image, pool))[..., 0].astype(int)


def test_crops_are_windows_of_images_at_uniform_places():
  """All pixels differ, so a canvas shows the place and the origin of its crop."""
  pool = np.arange(1, 1 + 3 * 9 * 9, dtype=np.uint8).reshape(3, 9, 9, 1)
  places, origins = [], []
  for canvas in cluttered(3000, jnp.asarray(pool), num_crops=1):
    row, column = np.argwhere(canvas)[0]
    crop = canvas[row : row + 8, column : column + 8]
    index, top, left, _ = np.argwhere(pool == crop[0, 0])[0]
    np.testing.assert_array_equal(crop, pool[index, top : top + 8, left : left + 8, 0])
    assert canvas.sum() == crop.sum()
    places.append((row, column))
    origins.append(4 * index + 2 * top + left)
  rows, columns = np.array(places).T
  for values, choices in ((rows, 17), (columns, 13), (origins, 12)):
    counts = np.bincount(values, minlength=choices)
    assert len(counts) == choices
    assert scipy.stats.chisquare(counts).pvalue > 0.001
  table = np.histogram2d(origins, rows, bins=(12, 4))[0]
  assert scipy.stats.chi2_contingency(table).pvalue > 0.001


def test_brightness_adds_and_saturates():
  """Overlapping faint crops add up; overlapping bright crops stop at 255."""
  faint = jnp.full((2, 9, 9, 1), 3, jnp.uint8)
  canvases = cluttered(20, faint, num_crops=10, canvas_size=(12, 12))
  assert (canvases.sum(axis=(1, 2)) == 10 * 64 * 3).all()
  assert len(np.unique(canvases)) > 3
  image = jnp.full((9, 9, 1), 100, jnp.uint8).at[0, 0].set(0)
  bright = jnp.full((2, 9, 9, 1), 120, jnp.uint8)
  seen = np.unique(
    cluttered(20, bright, num_crops=3, canvas_size=(12, 12), image=image)
  )
  assert seen.tolist() == [0, 100, 120, 220, 240, 255]


def test_clutter_keeps_the_channels():
  image = jnp.zeros((9, 9, 3), jnp.uint8)
  pool = jnp.full((2, 9, 9, 3), jnp.array([10, 20, 30], jnp.uint8))
  found = data.clutter(jax.random.key(0), image, pool, canvas_size=(16, 20))
  assert found.shape == (16, 20, 3)
  assert (found[..., 1] == 2 * found[..., 0]).all()
  assert found.max() >= 30


def test_crop_larger_than_the_images_is_refused():
  image = jnp.zeros((7, 12, 1), jnp.uint8)
  with pytest.raises(ValueError, match="crop_size must be at most 7"):
    data.clutter(jax.random.key(0), image, image[None])


def test_clutter_does_not_depend_on_the_batch(dataset):
  """Image 7 has the same canvas in two batches."""
  images = jnp.asarray(dataset.test.images[:40])
  show = jax.jit(functools.partial(evaluation_images, preprocess=data.clutter))
  first, second = (np.asarray(show(images, jnp.array(i))) for i in ([7, 3], [30, 7]))
  np.testing.assert_array_equal(first[0], second[1])


def test_training_passes_all_training_images_as_the_pool():
  optimizer = ramjax.make_optimizer(SMALL.train, steps_per_epoch=10)
  init = functools.partial(ramjax.init_train_state, config=SMALL, optimizer=optimizer)
  state = jax.eval_shape(init, jax.random.key(0))
  shapes = []

  def preprocess(key, image, pool):
    shapes.append((image.shape, pool.shape))
    shown = data.clutter(key, image, pool)
    return data.normalize(shown, mean=(0.1,), std=(0.3,))

  train = functools.partial(
    ramjax.train_chunk,
    config=SMALL,
    optimizer=optimizer,
    preprocess=preprocess,
    max_steps=2,
  )
  order = jnp.zeros((2, 16), jnp.int32)
  jax.eval_shape(train, state, boxes(64), jnp.arange(64) % 10, order, 0, 2)
  assert set(shapes) == {((28, 28, 1), (64, 28, 28, 1))}


def test_a_dataset_on_a_canvas_shows_translated_images(translated, dataset):
  """It stores the same images and normalises them in the same way."""
  assert translated.image_shape == (*CANVAS, 1)
  np.testing.assert_array_equal(translated.test.images, dataset.test.images)
  image = jnp.asarray(translated.train.images[0])
  key = jax.random.key(5)
  seen = translated.preprocess(key, image)
  assert seen.dtype == jnp.float32
  expected = np.asarray(data.translate(key, image, background=(0,))) / 255.0
  expected = (expected - translated.mean[0]) / translated.std[0]
  np.testing.assert_allclose(seen, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("generator", ["threefry2x32", "rbg"])
def test_places_in_the_test_set_never_change(generator, translated):
  """They depend neither on the order of the images nor on the random generator."""
  show = functools.partial(evaluation_images, preprocess=translated.transform)
  with jax.default_prng_impl(generator):
    assert places(show(boxes(5), jnp.arange(5))).tolist() == PLACES
    some = places(show(boxes(5), jnp.array([4, 2])))
  assert some.tolist() == [PLACES[4], PLACES[2]]


def recording(dataset, seen):
  """The dataset; its transform appends number and place of each image to `seen`."""

  def transform(key, image, pool):
    shown = dataset.transform(key, image, pool)
    filled = shown[..., 0] > 0
    place = filled.any(1).argmax(), filled.any(0).argmax()
    jax.debug.callback(
      lambda *values: seen.append([*map(int, values)]), image[6, 6, 0], *place
    )
    return shown

  return dataset._replace(transform=transform)


def numbered(count):
  """Images whose place can be seen, each with its number in one pixel."""
  return boxes(count).at[:, 6, 6, 0].set(jnp.arange(1, count + 1, dtype=jnp.uint8))


@pytest.mark.parametrize("kind", ["evaluate", "validate"])
@pytest.mark.parametrize(("seed", "batch_size"), [(0, 20), (1, 7)])
def test_evaluations_see_the_same_images(kind, seed, batch_size, translated):
  """Neither the key nor the batch size of an evaluation changes its images."""
  params = ramjax.init_params(jax.random.key(0), SMALL.model)
  seen = []
  options = {
    "preprocess": recording(translated, seen).preprocess,
    "batch_size": batch_size,
  }
  inputs = jax.random.key(seed), params, numbered(20), jnp.arange(20) % 10
  if kind == "evaluate":
    options |= {
      "model": SMALL.model,
      "evaluation_config": EvaluationConfig(num_glimpses=1),
    }
    found = ramjax.evaluate(*inputs, jnp.zeros(0), **options)
  else:
    found = ramjax.validate(*inputs, config=SMALL, **options)
  jax.block_until_ready(found)
  jax.effects_barrier()
  place_of = {number: place for number, *place in seen}
  assert sorted(place_of) == list(range(1, 21))
  assert [place_of[number] for number in range(1, 6)] == PLACES


def test_training_draws_a_new_place_at_each_step(translated):
  optimizer = ramjax.make_optimizer(SMALL.train, steps_per_epoch=10)
  state = ramjax.init_train_state(jax.random.key(0), config=SMALL, optimizer=optimizer)
  seen = []
  run = jax.jit(
    functools.partial(
      ramjax.train_chunk,
      config=SMALL,
      optimizer=optimizer,
      preprocess=recording(translated, seen).preprocess,
      max_steps=3,
    )
  )
  order = jnp.tile(jnp.arange(16), (3, 1))
  jax.block_until_ready(run(state, numbered(16), jnp.arange(16) % 10, order, 0, 3))
  jax.effects_barrier()
  places_of = {number: [] for number in range(1, 17)}
  for number, *place in seen:
    places_of[number].append(tuple(place))
  assert all(len(places) == 3 for places in places_of.values())
  # There are 1,089 places, so few of the 16 images get the same place twice.
  assert sum(len(set(places)) == 3 for places in places_of.values()) > 13
  assert len({place for places in places_of.values() for place in places}) > 42


def test_a_shift_moves_an_image_and_repeats_its_border():
  """Every move of at most two pixels occurs, and nothing else; NumPy pads."""
  image = np.random.RandomState(0).permutation(6 * 5).reshape(6, 5, 1)
  framed = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode="edge")
  allowed = {
    framed[row : row + 6, column : column + 5].tobytes()
    for row in range(5)
    for column in range(5)
  }
  moved = jax.jit(functools.partial(data.shift, max_shift=2))
  found = {
    np.asarray(moved(jax.random.key(seed), jnp.asarray(image)), image.dtype).tobytes()
    for seed in range(400)
  }
  assert found == allowed


def test_half_of_the_images_are_mirrored_in_training_alone(npz_file):
  """Left and right, on top of the transform of the dataset; shifts do not change."""
  dataset = data.load_dataset(f"npz:{npz_file}")
  image = jnp.asarray(dataset.train.images[0])
  keys = jax.random.split(jax.random.key(0), 200)

  def shown(**how):
    preprocess = dataset.train_preprocess(**how)
    return np.asarray(jax.vmap(lambda key: preprocess(key, image, image[None]))(keys))

  plain = shown()
  mirrored = np.array(
    [
      not np.array_equal(one, each)
      for one, each in zip(shown(mirror=True), plain, strict=True)
    ]
  )
  assert 70 < mirrored.sum() < 130
  np.testing.assert_array_equal(shown(mirror=True)[mirrored], plain[mirrored, :, ::-1])
  both, moved = shown(max_shift=2, mirror=True), shown(max_shift=2)
  np.testing.assert_array_equal(both[~mirrored], moved[~mirrored])
  np.testing.assert_array_equal(both[mirrored], moved[mirrored, :, ::-1])


def test_images_are_moved_in_training_alone(npz_file):
  """On top of the transform of the dataset, before which nothing is lost."""
  dataset = data.load_dataset(f"npz:{npz_file}", canvas_size=32, background="0")
  image = jnp.asarray(dataset.train.images[0])
  key = jax.random.key(0)
  assert dataset.train_preprocess() == dataset.preprocess
  moved = dataset.train_preprocess(max_shift=3)
  found = jax.vmap(lambda key: moved(key, image, image[None]))(
    jax.random.split(key, 50)
  )
  assert found.shape == (50, 32, 32, 1)
  assert len({each.tobytes() for each in np.asarray(found)}) > 40
  with pytest.raises(ramjax.ConfigError, match="max_shift must be less than 32"):
    dataset.train_preprocess(max_shift=32)
