"""Exports a trained model: `python -m experiments.export --model=NAME --output=FILE`.

The model is a run (`--workdir=RUN`) or comes with ramjax (`--model=NAME`). FILE becomes a
program in StableHLO that runs on CPUs and NVIDIA GPUs by jax.export, without ramjax: from
images [b, H, W, C] (uint8) and a seed (uint32) to class, probabilities, self-uncertainty,
confidence, number of glimpses and their locations. The parameters are in it.
"""

from __future__ import annotations

import pathlib
import re
from typing import Literal

from absl import flags as absl_flags

import ramjax
from experiments.cli import app, devices, files, flags, help_text
from experiments.cli.errors import RunError, UsageError


def define_flags() -> None:
  """Defines the flags of the script."""
  flags.define_model_flags()
  absl_flags.DEFINE_string("output", None, "File of the program.")
  help_text.REQUIRED.add("output")
  absl_flags.DEFINE_integer(
    "num_glimpses",
    None,
    "Number of glimpses N, at most if the model stops by itself; by default as many as in"
    " training, or 50.",
  )
  flags.define_rule_flags("Without a rule, it takes all glimpses.")
  absl_flags.DEFINE_boolean(
    "end_early",
    True,
    "End when all images are decided; else all glimpses are taken, and the rule is applied"
    " afterwards.",
  )
  flags.define_noise_flag()
  absl_flags.DEFINE_string(
    "image_size",
    None,
    "HxW, the height and width of the images, or any; by default those of the training.",
  )
  devices.define_jax_flags()


def main() -> None:
  """Exports the model that the flags name."""
  options = flags.FLAGS
  image_size = _image_size(options.image_size)
  if not options.output:
    raise UsageError("output must name the file of the program")
  rule = flags.stopping_rule()
  if rule == {"beta": None, "confidence": None} and not options.end_early:
    raise UsageError(
      "noend_early needs beta or confidence: without a rule no image is decided"
    )
  noise = flags.location_noise()
  devices.set_up_jax()
  predictor, _ = flags.load_model()
  output = _output()
  program = ramjax.export(
    predictor,
    num_glimpses=options.num_glimpses,
    **rule,
    ends_early=options.end_early,
    location_noise=noise,
    image_size=image_size,
  )
  try:
    content = bytes(program.serialize())
  except ImportError as error:
    raise RunError(
      "flatbuffers cannot be imported; pip install '.[export]' in a checkout of ramjax"
    ) from error
  files.replace(output, content)
  images, _ = program.in_avals
  print(
    f"written to {options.output} ({len(content):,} bytes): images {images}, seed"
    f" uint32; on {' and '.join(program.platforms)}"
  )


def _output() -> pathlib.Path:
  """The file of the program.

  Raises:
    UsageError: if it is a file of the model, or its folder cannot be written.
  """
  output, workdir = pathlib.Path(flags.FLAGS.output), flags.FLAGS.workdir
  files.make_folder(output.parent)
  place = output.resolve()
  if workdir and place.exists():
    model = pathlib.Path(workdir).resolve()
    if model in (place, *place.parents):
      raise UsageError(f"output would overwrite {output}; give another --output")
  return output


def _image_size(text: str | None) -> tuple[int, int] | Literal["any"] | None:
  """The height and width that `--image_size` names.

  Raises:
    UsageError: if it names none.
  """
  if text is None or text == "any":
    return "any" if text else None
  if not (sides := re.fullmatch(r"(\d+)x(\d+)", text)):
    raise UsageError(f"image_size must be HxW, such as 28x28, or any, not {text!r}")
  return int(sides[1]), int(sides[2])


if __name__ == "__main__":
  define_flags()
  app.run(main)
