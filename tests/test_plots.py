"""Figures: what they show, that none is blank, and that legends cover no data."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

import ramjax
from experiments.reporting import figures, plots, rollout_figure
from experiments.reporting.seen import seen_pixels
from experiments.runs import trainer
from experiments.runs import workdir as workdir_lib
from ramjax import Config, ModelConfig, Rollout, TrainConfig, data, extract_glimpse
from ramjax.checkpoint import Checkpoints
from ramjax.config import ObjectiveConfig
from ramjax.networks import RecurrentAttentionModel, initial_state

CONFIG = ModelConfig(patch_size=4, num_scales=2, scale_factor=3)
IMAGE = np.random.RandomState(0).randint(0, 256, (40, 50, 3)).astype(np.uint8)


def rollout_at(*locations, probs=(0.5, 0.5), errors=(0.1, 0.1)):
  """A rollout of one image with given locations; probabilities [K] or [T, K]."""
  shape = len(locations), 1, np.shape(probs)[-1]
  probabilities = (
    np.broadcast_to(np.atleast_2d(x), shape[::2]) for x in (probs, errors)
  )
  probs_t, errors_t = (
    jnp.asarray(x, jnp.float32).reshape(shape) for x in probabilities
  )
  empty = Rollout(*[None] * len(Rollout._fields))
  return empty._replace(
    location_t=jnp.array(locations)[:, None],
    logits_t=jnp.log(probs_t),
    predicted_error_t=errors_t,
  )


def drawn_texts(axes):
  return [text.get_text() for text in axes.texts]


def blank(axes):
  """Whether axes show no line with an extent and no point, inside of their limits."""
  (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
  for line in axes.lines:
    x, y = np.ma.filled(np.ma.masked_invalid(line.get_xydata().T), np.nan)
    inside = (x >= left) & (x <= right) & (y >= low) & (y <= high)
    if line.get_transform().contains_branch(axes.transData) and (
      inside.sum() > 1 or (inside.any() and line.get_marker() != "None")
    ):
      return False
  return True


def assert_legends_cover_no_axes(figure):
  figure.draw_without_rendering()
  legends = [*figure.legends, *filter(None, (a.get_legend() for a in figure.axes))]
  assert legends
  for legend in legends:
    covered = legend.get_window_extent()
    assert covered.x0 >= 0
    assert covered.x1 <= figure.bbox.x1
    assert covered.y1 <= figure.bbox.y1
    for axes in figure.axes:
      assert not covered.overlaps(axes.get_window_extent())


def test_seen_pixels_equal_the_glimpse():
  """At the centre 4 x 4 sharp pixels, around them blocks of 3 x 3, the rest grey."""
  seen = seen_pixels(IMAGE, np.array([[0.0, 0.0]]), CONFIG)
  sharp, coarse = np.asarray(
    extract_glimpse(
      jnp.asarray(IMAGE, jnp.float32),
      jnp.zeros(2),
      patch_size=4,
      num_scales=2,
      scale_factor=3,
    )
  )
  expected = np.full(IMAGE.shape, 90, np.uint8)
  blocks = np.round(coarse).repeat(3, 0).repeat(3, 1)
  expected[20 - 6 : 20 + 6, 25 - 6 : 25 + 6] = blocks
  expected[20 - 2 : 20 + 2, 25 - 2 : 25 + 2] = sharp
  np.testing.assert_allclose(seen, expected, atol=1)


def test_later_glimpse_does_not_blur_a_sharp_one():
  locations = np.array([[0.0, 0.0], [0.2, 0.0]])
  seen = seen_pixels(IMAGE, locations, CONFIG)
  for column in (25, 30):
    inside = np.s_[18:22, column - 2 : column + 2]
    np.testing.assert_array_equal(seen[inside], IMAGE[inside])


@pytest.mark.parametrize("location", [[-1.0, -1.0], [1.0, 1.0], [1.0, -1.0]])
@pytest.mark.parametrize("patch_size", [1, 4, 60])
def test_seen_pixels_of_glimpses_across_the_border(location, patch_size):
  """At the border, a block is the mean of its pixels inside the image."""
  config = ModelConfig(patch_size=patch_size, num_scales=2, scale_factor=3)
  image = np.full((40, 50, 1), 7, np.uint8)
  seen = seen_pixels(image, np.array([location]), config)
  assert set(np.unique(seen)) <= {7, 90}
  assert (seen == 7).any()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_images_with_any_number_of_channels_can_be_drawn(channels, tmp_path):
  image = np.full((1, 5, 6, channels), 40, np.uint8)
  drawn = rollout_figure.glimpses(image, np.array([1]), rollout_at([0.0, 0.0]), CONFIG)
  [path] = figures.save(drawn, tmp_path / "glimpses.png", "png")
  assert path.read_bytes().startswith(b"\x89PNG")


def test_titles_have_names_and_probabilities_and_say_what_is_wrong():
  images = np.zeros((3, 9, 12, 3), np.uint8)
  rollout = rollout_at([0.0, 0.0], probs=(0.7, 0.3))
  repeated = [None if leaf is None else jnp.repeat(leaf, 3, axis=1) for leaf in rollout]
  rollout = Rollout(*repeated)
  rollout = rollout._replace(logits_t=rollout.logits_t.at[:, 2].set(jnp.nan))
  drawn = rollout_figure.glimpses(
    images,
    np.array([0, 1, 0]),
    rollout,
    CONFIG,
    class_names=("cat", "a very long name"),
  )
  assert [axes.get_title() for axes in drawn.axes[:3]] == [
    *("cat  70%", "cat  70%\nis a very long …", "not finite\nis cat"),
  ]
  drawn = rollout_figure.glimpses(images, np.array([0, 1, 0]), rollout, CONFIG)
  assert drawn.axes[0].get_title() == "0  70%"


@pytest.mark.parametrize("num_glimpses", [1, 3, 12, 40])
def test_boxes_have_numbers_that_do_not_hide_each_other(num_glimpses):
  """Where all boxes lie on each other: four corners for four numbers, none outside."""
  image = np.full((1, 28, 40, 1), 255, np.uint8)
  rollout = rollout_at(*[[0.0, 0.0]] * num_glimpses)
  config = ModelConfig(patch_size=8)
  path = rollout_figure.glimpses(image, np.array([0]), rollout, config).axes[0]
  numbers = [int(text) for text in drawn_texts(path)]
  assert numbers == sorted(set(numbers))
  assert numbers[0] == 1
  assert numbers[-1] == num_glimpses
  assert len(numbers) == num_glimpses if num_glimpses <= 12 else len(numbers) <= 13
  places = np.array([text.get_position() for text in path.texts])
  assert len(np.unique(places[:4], axis=0)) == min(4, num_glimpses)
  assert len(path.patches) == num_glimpses


def test_the_number_of_a_box_across_the_border_is_inside():
  image = np.full((1, 28, 40, 1), 255, np.uint8)
  rollout = rollout_at([-1.0, -1.0], [1.0, 1.0])
  path = rollout_figure.glimpses(image, np.array([0]), rollout, CONFIG).axes[0]
  (x, y), (later_x, later_y) = (text.get_position() for text in path.texts)
  assert min(x, y) > 0
  assert later_x < 39
  assert later_y < 27


def test_the_curves_show_the_bounds_and_where_the_rule_stops():
  """Class 0 leads from the third glimpse on; β makes the bounds part there."""
  probs = np.array([[0.4, 0.4, 0.2], [0.4, 0.45, 0.15], *[[0.8, 0.1, 0.1]] * 3])
  errors = np.full(3, 0.2)
  rollout = rollout_at(*[[0.0, 0.0]] * 5, probs=probs, errors=errors)
  image = np.zeros((1, 28, 28, 1), np.uint8)
  figure = rollout_figure.glimpses(image, np.array([0]), rollout, CONFIG)
  curves = figure.axes[2]
  *_, rival, true, stop = curves.lines
  np.testing.assert_allclose(true.get_ydata(), probs[:, 0], rtol=1e-6)
  np.testing.assert_allclose(rival.get_ydata(), probs[:, 1], rtol=1e-6)
  assert stop.get_xdata()[0] == 3
  texts = [text.get_text() for text in figure.legends[0].texts]
  (beta,) = (float(text.split("= ")[1]) for text in texts if "β" in text)
  lowest, highest = curves.collections[1].get_paths()[0].get_extents().intervaly
  assert lowest == pytest.approx(0.4 - 0.2 * beta)
  assert highest == pytest.approx(0.8 + 0.2 * beta)
  assert_legends_cover_no_axes(figure)

  even = rollout_at(*[[0.0, 0.0]] * 5, probs=(0.5, 0.5))
  curves = rollout_figure.glimpses(image, np.array([0]), even, CONFIG).axes[2]
  assert drawn_texts(curves) == ["undecided"]


def train_line(step, **terms):
  terms = {f"loss/{name}": value for name, value in terms.items()}
  return {"step": step, "epoch": 1, "split": "train", "accuracy": 0.5} | terms


def test_learning_shows_the_total_and_terms_as_they_count():
  terms = {"classification": 2.0, "reinforce": -0.5, "baseline": 0.25, "error_fit": 0.1}
  terms |= {"uncertainty": 1000.0, "intrinsic": 3.0}
  objective = ObjectiveConfig(
    name="uncertainty", lambda_uncertainty=1e-4, regularizer_scale=32.0
  )
  total = 2.0 - 0.5 + 0.25 + 0.1 + 1000.0 * 3.2e-3
  lines = [train_line(step, **terms) | {"loss": total} for step in (10, 20)]
  lines.append({**lines[-1], "split": "validation"})
  figure = plots.learning_curves(lines, objective)
  drawn = {line.get_label(): line.get_ydata()[-1] for line in figure.axes[1].lines}
  assert drawn.pop("total, train") == pytest.approx(total)
  assert drawn.pop("total, validation") == pytest.approx(total)
  assert "intrinsic" not in " ".join(drawn)  # it has no weight in this objective
  assert drawn["uncertainty × 0.0032"] == pytest.approx(3.2)
  assert sum(drawn.values()) == pytest.approx(total)
  assert_legends_cover_no_axes(figure)


@pytest.mark.parametrize("steps", [[], [10], [10, 20]])
def test_learning_is_never_blank(steps):
  lines = [train_line(step, classification=1.0) | {"loss": 1.0} for step in steps]
  for axes in plots.learning_curves(lines, ObjectiveConfig()).axes:
    assert drawn_texts(axes) == ([] if steps else ["no step was trained"])
    assert blank(axes) == (not steps)


def evaluated(seed, *, most=6, accuracy=0.9, correlation=0.5, norm=2.0, **parts):
  """A run as evaluations write it; two exploration rates."""
  config = Config().replace(**parts).replace(train={"seed": seed})
  point = {"hidden_norm": norm, "calibration_error": 0.1, "accuracy": accuracy}
  return {
    "config": config.to_dict(),
    "seed": seed,
    "objective": config.objective.name,
    "dataset": "mnist",
    "train_num_glimpses": config.train.num_glimpses,
    "fixed": [
      {**point, "num_glimpses": n, "uncertainty_correlation": correlation}
      for n in range(1, most + 1)
    ],
    "dynamic": [
      {"beta": beta, "mean_glimpses": 1 + beta * (most - 1), "accuracy": accuracy}
      for beta in (0.0, 1.0)
    ],
  }


@pytest.mark.parametrize("draw", [plots.glimpse_generalization, plots.calibration])
@pytest.mark.parametrize(("most", "accuracy"), [(1, 0.0), (2, 0.2), (100, 1.0)])
def test_evaluations_are_never_blank(draw, most, accuracy):
  """Few glimpses, and accuracies that are not those of the paper."""
  figure = draw({"runs": [evaluated(0, most=most, accuracy=accuracy)]})
  assert not any(map(blank, figure.axes))


def test_axes_without_a_finite_value_say_why():
  runs = [evaluated(0, correlation=None, norm=None)]
  correlation = plots.calibration({"runs": runs}).axes[1]
  assert drawn_texts(correlation) == ["no correlation: u is the same for all images"]
  runs[0]["dynamic"] = []
  _, dynamic, norm = plots.glimpse_generalization({"runs": runs}).axes
  assert drawn_texts(dynamic) == ["no exploration rate was tried"]
  assert drawn_texts(norm) == ["no norm is finite"]


@pytest.mark.parametrize("draw", [plots.glimpse_generalization, plots.calibration])
def test_lines_are_those_of_runs_that_differ_in_nothing_but_the_seed(draw):
  runs = [
    evaluated(0, accuracy=0.8),
    evaluated(1, accuracy=1.0),
    evaluated(0, accuracy=0.1, model={"patch_size": 12}),
    evaluated(0, train={"learning_rate_schedule": "cosine", "num_epochs": 12}),
  ]
  figure = draw({"runs": runs})
  lines = {
    line.get_label(): line
    for line in figure.axes[0].lines
    if not line.get_label().startswith("_")
  }
  rest = "learning_rate_schedule exponential"
  assert list(lines) == [
    f"both, patch_size 8, num_epochs 10, {rest} (n = 2)",
    f"both, patch_size 12, num_epochs 10, {rest} (n = 1)",
    "both, patch_size 8, num_epochs 12, learning_rate_schedule cosine (n = 1)",
  ]
  assert len({(line.get_color(), line.get_linestyle()) for line in lines.values()}) == 3
  if draw is plots.glimpse_generalization:
    first, second, _ = lines.values()
    np.testing.assert_allclose(first.get_ydata(), 0.9)
    np.testing.assert_allclose(second.get_ydata(), 0.1)
  assert_legends_cover_no_axes(figure)


@pytest.mark.parametrize("num_runs", [1, 2])
def test_records_show_time_glimpses_and_stopping(num_runs):
  runs = []
  for seed in range(num_runs):
    run = evaluated(seed, accuracy=0.98)
    one = {key: run.pop(key) for key in ("fixed", "dynamic")}
    ten = {"fixed": [{**point, "accuracy": 0.99} for point in one["fixed"]]}
    run["scores"] = [
      {"num_samples": 1, "location_policy": "sample", **one},
      {"num_samples": 10, "location_policy": "sample", **ten, "dynamic": []},
    ]
    run["recipe"] = "mnist_small"
    run["validation"] = [{"seconds": 60.0, "error": 5.0 + 2 * seed}]
    runs.append(run)
  figure = plots.records({"device": "NVIDIA H200 (gpu) x 1", "runs": runs})
  time, fixed, dynamic = figure.axes
  assert not any(map(blank, figure.axes))
  [[[minutes, error]]] = (line.get_xydata() for line in time.lines)
  assert (minutes, error) == (1.0, 4.0 + num_runs)
  np.testing.assert_allclose([line.get_ydata()[0] for line in fixed.lines], [2.0, 1.0])
  assert len(dynamic.lines) == num_runs
  [label] = (text.get_text() for text in figure.legends[0].texts)
  assert label == f"mnist_small (n = {num_runs}, 1 NVIDIA H200)"
  assert_legends_cover_no_axes(figure)


@pytest.mark.parametrize("num_points", [1, 3])
@pytest.mark.parametrize("num_seeds", [1, 2])
def test_a_short_study_is_not_blank(num_points, num_seeds):
  curve = {
    average: [[0.1 * n + 0.2 for n in range(num_points)]] * num_seeds
    for average in ("running_mean", "windowed_mean")
  }
  steps = list(range(5, 5 * num_points + 1, 5))
  figure = plots.convergence({"steps": steps, "window": 5, "curves": {"both": curve}})
  assert not any(map(blank, figure.axes))
  [label] = (text.get_text() for text in figure.legends[0].texts)
  assert label == f"both (n = {num_seeds})"
  assert_legends_cover_no_axes(figure)


def test_formats_of_files(tmp_path):
  """The same SVG each time, so that versions can be compared."""
  contents = []
  for name in ("first", "second"):
    figure = plots.calibration({"runs": [evaluated(0), evaluated(1)]})
    written = figures.save(figure, tmp_path / f"{name}.json", "both")
    assert [path.name for path in written] == [f"{name}.png", f"{name}.svg"]
    contents.append(written[1].read_text())
  assert contents[0] == contents[1]
  assert "<svg" in contents[0]
  assert [p.suffix for p in figures.save(figure, tmp_path / "x.png", "svg")] == [".svg"]


def test_the_figure_of_a_run_shows_what_its_model_saw(npz_file, tmp_path, monkeypatch):
  """On a canvas: the first state follows from the drawn image and the first location."""
  dataset = data.load_dataset(f"npz:{npz_file}", canvas_size=60)
  model = ModelConfig(image_shape=(60, 60, 1), hidden_size=16, branch_size=8)
  config = Config(model=model, train=TrainConfig(num_epochs=0, num_glimpses=2))
  workdir = workdir_lib.Workdir(tmp_path / "run")
  workdir_lib.open_run(workdir, config)
  optimizer = ramjax.make_optimizer(config.train, steps_per_epoch=1)
  run = ramjax.init_train_state(jax.random.key(1), config=config, optimizer=optimizer)
  with Checkpoints(workdir.checkpoints) as checkpoints:
    checkpoints.save(run)
  drawn = []
  draw = rollout_figure.glimpses

  def record(*arguments, **options):
    drawn.append(arguments)
    return draw(*arguments, **options)

  monkeypatch.setattr(rollout_figure, "glimpses", record)
  trainer.train([config], dataset, [workdir], trainer.Schedule(), figure_format="both")
  assert sorted(path.name for path in workdir.figures.iterdir()) == [
    *("glimpses.png", "glimpses.svg", "learning.png", "learning.svg"),
  ]
  ((shown, labels, unrolled, *_),) = drawn
  assert shown.shape == (8, 60, 60, 1)
  assert shown.dtype == np.uint8
  np.testing.assert_array_equal(labels, dataset.test.labels[:8])

  seen = data.normalize(jnp.asarray(shown), mean=dataset.mean, std=dataset.std)
  location = jnp.asarray(unrolled.location_t[0])
  state = RecurrentAttentionModel(model).apply(
    {"params": run.params.ram},
    initial_state(model, batch=(8,)),
    jax.vmap(functools.partial(extract_glimpse, patch_size=8))(seen, location),
    location,
    method="step",
  )
  np.testing.assert_allclose(unrolled.hidden_t[0], state.hidden, rtol=1e-4, atol=1e-5)


def test_a_figure_that_cannot_be_drawn_leaves_the_old_one(tmp_path):
  (tmp_path / "x.png").write_bytes(b"old")

  class Broken(Figure):
    def savefig(self, path, **kwargs):
      path.write_bytes(b"half of it")
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    figures.save(Broken(), tmp_path / "x.png", "png")
  assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [
    ("x.png", b"old")
  ]
