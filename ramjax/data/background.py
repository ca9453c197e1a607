"""The background of images: the colour around them on a canvas or after padding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ramjax.config import ConfigError

Colour = tuple[int, ...]
"""One number from 0 to 255 for each channel."""


def border_colour(images: Sequence[np.ndarray]) -> Colour:
  """The commonest colour on the borders of images.

  Paper has no exact colour in a scan or a photo. So colours are counted in steps of 32,
  and the median of those in the commonest step is taken. Among equally common ones it is
  the darkest, by the last channel first.

  Args:
    images: arrays [..., H, W, C], uint8. H and W may differ from array to array.

  Returns:
    The colour, C numbers.

  >>> import numpy as np
  >>> paper = np.full((5, 9, 3), 250, np.uint8)
  >>> paper[1:4, 1:8] = 0  # ink
  >>> border_colour([paper])
  (250, 250, 250)
  """
  channels = images[0].shape[-1]
  edges = [
    edge.reshape(-1, channels)
    for image in images
    for edge in (image[..., [0, -1], :, :], image[..., :, [0, -1], :])
  ]
  pixels = np.concatenate(edges)
  # One integer a step. From the ninth channel on, powers of 256 overflow to 0.
  numbers = (pixels >> 5) @ (np.uint64(256) ** np.arange(channels, dtype=np.uint64))
  steps, counts = np.unique(numbers, return_counts=True)
  common = pixels[numbers == steps[counts.argmax()]]
  return tuple(np.percentile(common, 50, axis=0, method="lower").tolist())


def colour_of(text: str, *, channels: int) -> Colour:
  """The colour that a text stands for: `255`, or `250,250,245`.

  Args:
    text: one number for all channels, or one for each, from 0 to 255.
    channels: number of channels C.

  Returns:
    The colour, C numbers.

  Raises:
    ConfigError: if there are several numbers, but not C.

  >>> colour_of("255", channels=3)
  (255, 255, 255)
  """
  numbers = tuple(map(int, text.split(",")))
  if len(numbers) not in (1, channels):
    raise ConfigError(
      f"background must be one number, or one for each of {channels} channels, not"
      f" {text!r}"
    )
  return numbers * (channels // len(numbers))


def text_of(colour: Colour) -> str:
  """The shortest text for which `colour_of` gives this colour.

  >>> text_of((255, 255, 255))
  '255'
  """
  shown = colour[:1] if len(set(colour)) == 1 else colour
  return ",".join(map(str, shown))
