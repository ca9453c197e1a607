"""Looks at images: `python -m experiments.look my_digit.png --model=mnist`.

Takes image files, or folders of them, and a trained model: one of the package (--model)
or your own run (--workdir). Prints a line for each image: class, confidence, number of
glimpses. Writes into --output: look.html, a page to watch the model look; look.json;
scanpaths.csv; and a PNG and an animated GIF of each image.
"""

from __future__ import annotations

import collections
import itertools
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from absl import flags as absl_flags

import ramjax
from experiments.cli import app, devices, files, flags
from experiments.cli.errors import RunError, UsageError
from experiments.reporting import looks, scanpaths
from experiments.reporting.looks import Look
from experiments.runs import shown
from ramjax.data.info import listed

_MOST_PIXELS = 25_000_000
"""So many pixels are looked at together at most."""

_MOST_ON_PAGE = 40
"""So many images the page shows at most."""

_Image = TypeVar("_Image", shown.Shown, Look)
"""An image before and after it was looked at."""


def define_flags() -> None:
  """Defines the flags of the script."""
  flags.define_model_flags()
  absl_flags.DEFINE_string("output", "look", "Folder of what is written.")
  flags.define_rule_flags("Without a rule, the number of glimpses is fixed.")
  absl_flags.DEFINE_integer(
    "num_glimpses",
    None,
    "Number of glimpses, at most if the model stops by itself; by default that of the"
    " training, or 50.",
  )
  absl_flags.DEFINE_integer("num_samples", 1, "Rollouts averaged for an answer, M.")
  flags.define_noise_flag()
  absl_flags.DEFINE_integer("seed", 0, "Seed of first locations and policy.")
  absl_flags.DEFINE_boolean(
    "as_is", False, "Whether images are not made like those of the training."
  )
  absl_flags.DEFINE_boolean(
    "label_from_folder",
    False,
    "Whether the name of the folder of an image is its true class.",
  )
  absl_flags.DEFINE_boolean(
    "figures", True, "Whether to draw a PNG and a GIF of each image."
  )
  absl_flags.DEFINE_enum(
    "format", "csv", ["csv", "coco_search18"], "Format of the scanpaths."
  )
  devices.define_jax_flags()


def main(paths: Sequence[str]) -> None:
  """Looks at the images, and writes what the model answered.

  Raises:
    RunError: at the end, if some files were left out.
  """
  options = flags.FLAGS
  if not paths:
    raise UsageError("no image is given; name files, or folders of images")
  if not options.output:
    raise UsageError("output must name a folder")
  flags.check_at_least(1, "num_samples")
  flags.location_noise()  # checks it
  flags.check_seed()
  devices.set_up_jax()
  model, source = flags.load_model()
  model.number_of_glimpses(options.num_glimpses, **flags.stopping_rule())  # checks them
  folder = pathlib.Path(options.output)
  found_files = shown.find_files(paths, output=folder)
  if options.label_from_folder:
    _check_labels(found_files, model)
  figure_names = _unique_names(found_files)
  if options.figures:
    _check_output(folder, figure_names, found_files)
  named = dict(zip(found_files, figure_names, strict=True))
  images, preparation = shown.read(found_files, model, as_is=options.as_is)
  files.make_folder(folder)
  print(f"{len(images)} image{'s' * (len(images) > 1)}, {preparation}", flush=True)
  shown.warn_of_sizes(images, model)
  shown.warn_of_ground(images, model)
  found: list[Look] = []
  for part in _parts(images):
    for look in _look(part, model):
      print(looks.line(look, model), flush=True)
      found.append(look)
  if options.label_from_folder:
    right = np.mean([looks.class_of(each, model) == each.label for each in found])
    print(f"accuracy {right:.4f} ({len(found)} images)")
  _write(folder, found, [named[each.file] for each in images], model, source)
  if left_out := len(found_files) - len(found):
    raise RunError(f"{left_out} of {len(found_files)} files left out, see above")


def _write(
  folder: pathlib.Path,
  found: Sequence[Look],
  figure_names: Sequence[str],
  model: ramjax.Predictor,
  source: str,
) -> None:
  """Writes the answers as JSON, scanpaths, page and figures; says where."""
  # Matplotlib takes a second to import, and the answers are printed before.
  from experiments.reporting import figures, look_figure, look_page

  options = flags.FLAGS
  files.write_json(folder / "look.json", [looks.entry(each, model) for each in found])
  paths = [path for part in _parts(found) for path in _scanpaths(part, model, source)]
  if options.format == "csv":
    scanpaths_name, content = "scanpaths.csv", scanpaths.csv_text(paths)
  else:
    scanpaths_name = "scanpaths.json"
    content = json.dumps(files.finite(scanpaths.coco_search18(paths)), indent=1)
  files.replace(folder / scanpaths_name, content)
  page = look_page.page(found[:_MOST_ON_PAGE], model, source)
  files.replace(folder / "look.html", page)
  if len(found) > _MOST_ON_PAGE:
    print(f"look.html shows the first {_MOST_ON_PAGE} of {len(found)} images")
  written = f"{folder / 'look.html'}, look.json and {scanpaths_name}"
  print(f"written to {written}", flush=True)
  if options.figures:
    for name, look in zip(figure_names, found, strict=True):
      drawn = look_figure.look_figure(look, model)
      figures.save(drawn, folder / f"{name}.png", "png")
      look_figure.write_animation(look, model, folder / f"{name}.gif")
    print(f"and a PNG and a GIF of each image ({name}.png, …; --nofigures for none)")


def _label(file: pathlib.Path) -> str:
  """The name of the folder of a file."""
  return file.resolve().parent.name


def _check_labels(found: Sequence[pathlib.Path], model: ramjax.Predictor) -> None:
  """Raises a `UsageError` if an image is in a folder that has no class's name."""
  for file in found:
    if _label(file) not in model.class_names:
      raise UsageError(
        f"label_from_folder: {file} is in the folder {_label(file)}, but the classes are"
        f" {listed(model.class_names)}"
      )


def _parts(images: Sequence[_Image]) -> Iterator[list[_Image]]:
  """Images in their order, in parts of one size that are looked at together."""
  part: list[_Image] = []
  for each in images:
    size = each.image.size
    if part and (
      part[0].image.shape != each.image.shape or (len(part) + 1) * size > _MOST_PIXELS
    ):
      yield part
      part = []
    part.append(each)
  yield part


def _given() -> dict[str, Any]:
  """Randomness and number of rollouts, as the flags say."""
  options = flags.FLAGS
  return {
    "key": jax.random.key(options.seed),
    "num_samples": options.num_samples,
    "location_noise": flags.location_noise(),
  }


def _look(part: Sequence[shown.Shown], model: ramjax.Predictor) -> list[Look]:
  """Answers for images of one size."""
  options = flags.FLAGS
  answers = jax.device_get(
    model(
      np.stack([each.image for each in part]),
      num_glimpses=options.num_glimpses,
      **flags.stopping_rule(),
      **_given(),
    )
  )
  found = []
  for i, (file, image, grid, photo) in enumerate(part):
    answer = ramjax.Answer(
      **{
        name: values[:, i] if name.endswith("_t") else values[i]
        for name, values in answers._asdict().items()
      }
    )
    name = str(file).encode(errors="replace").decode()  # which may not be UTF-8
    label = _label(file) if options.label_from_folder else None
    decided_t = model.decided_t(
      answer.probs_t, answer.predicted_error_t, **flags.stopping_rule()
    )
    stopped = bool(decided_t[answer.num_glimpses - 1])
    found.append(
      Look(
        name,
        image,
        answer,
        **flags.stopping_rule(),
        stopped=stopped,
        label=label,
        grid=grid,
        photo=photo,
        num_samples=options.num_samples,
      )
    )
  return found


def _scanpaths(
  part: Sequence[Look], model: ramjax.Predictor, source: str
) -> Iterator[scanpaths.Scanpath]:
  """The rollouts at images of one size, each until its own stop."""
  rollouts: Any = jax.device_get(
    model.scanpaths(
      np.stack([look.image for look in part]),
      num_glimpses=len(part[0].answer.probs_t),
      **_given(),
    )
  )
  for i, look in enumerate(part):
    height, width, _ = look.image.shape
    for m in range(rollouts.probs_t.shape[1]):
      probs_t, error_t = rollouts.probs_t[:, m, i], rollouts.predicted_error_t[:, m, i]
      decided_t = model.decided_t(probs_t, error_t, **flags.stopping_rule())
      taken = int(ramjax.first_decision(decided_t))
      yield scanpaths.Scanpath(
        image=look.file,
        label=look.label,
        run=source,
        rollout=m + 1,
        height=height,
        width=width,
        grid=look.grid,
        location_t=rollouts.location_t[:, m, i],
        probs_t=probs_t,
        predicted_error_t=error_t,
        class_names=model.class_names,
        num_fixations=taken,
        stopped=bool(decided_t[taken - 1]),
        patch_sides=model.config.model.patch_sides,
      )


def _check_output(
  folder: pathlib.Path, names: Sequence[str], images: Sequence[pathlib.Path]
) -> None:
  """Raises a `UsageError` if figures of these names would take the place of an image."""
  written = {
    folder / f"{name}{ending}" for name in names for ending in (".png", ".gif")
  }
  taken = {path.resolve() for path in written}
  for image in images:
    if image.resolve() in taken:
      raise UsageError(
        f"output {folder} would overwrite {image}; give another --output"
      )


def _unique_names(images: Sequence[pathlib.Path]) -> list[str]:
  """A name for the figures of each image: that of its file.

  If it is not alone, its folder stands before it, or a number behind it.
  """
  stems = collections.Counter(image.stem for image in images)
  names: dict[str, None] = {}
  for image in images:
    numbered = (f"{image.stem}_{number}" for number in itertools.count(1))
    apart = itertools.chain([f"{image.resolve().parent.name}_{image.stem}"], numbered)
    free = (name for name in apart if name not in names and name not in stems)
    names[image.stem if stems[image.stem] == 1 else next(free)] = None
  return list(names)


if __name__ == "__main__":
  define_flags()
  app.run(main, takes_files=True)
