"""Scans, photos and drawings become images like those of MNIST and Fashion-MNIST."""

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from ramjax.data import DataError
from ramjax.data.scans import LIKE, like_fashion_mnist, like_mnist


def drawing(*, ink=0, paper=255, width=14, size=200, shift=(0, 0)):
  """A seven in a quarter of a sheet."""
  image = Image.new("L", (size, size), paper)
  points = np.array([(60, 50), (140, 50), (90, 150)]) * size / 200 + shift
  ImageDraw.Draw(image).line([tuple(p) for p in points], ink, width, joint="curve")
  return np.asarray(image)[..., None]


def framed(image, margin, level):
  return np.pad(
    image, ((margin, margin), (margin, margin), (0, 0)), constant_values=level
  )


def assert_alike(found, expected):
  assert np.abs(found.astype(int) - expected).mean() < 4


def test_a_digit_is_white_of_20_pixels_with_its_mass_in_the_middle():
  found = like_mnist(drawing())
  assert found.shape == (28, 28, 1)
  assert found.dtype == np.uint8
  assert found.max() == 255
  rows, columns = (np.flatnonzero(found.any(axis=(axis, 2))) for axis in (1, 0))
  assert max(np.ptp(rows), np.ptp(columns)) + 1 == 20
  centre = ndimage.center_of_mass(found[..., 0].astype(float))
  np.testing.assert_allclose(centre, (14, 14), atol=0.6)  # as in MNIST


SHEETS = pytest.mark.parametrize(
  ("image", "ink"),
  [
    (drawing(ink=255, paper=0), 255),  # a blackboard
    (drawing(ink=60, paper=180), 60),  # pale
    (drawing(shift=(30, 20)), 0),
    (drawing(size=800, width=56), 0),
    (drawing(size=2000, width=140), 0),
    (drawing().repeat(3, -1), 0),
    *(
      (framed(drawing(), margin, level), 0)
      for margin in (10, 80)
      for level in (0, 128, 230)
    ),
    (framed(framed(drawing(), 20, 90), 30, 200), 0),  # a sheet on a table on a floor
  ],
)


@SHEETS
def test_paper_frame_size_and_place_make_no_difference(image, ink):
  del ink
  assert_alike(like_mnist(image), like_mnist(drawing()))


@SHEETS
@pytest.mark.parametrize("like", LIKE.values())
def test_the_grid_leads_from_the_ink_that_was_made_to_that_of_the_sheet(
  like, image, ink
):
  made, grid = like(image)
  rows, columns = np.nonzero(made[..., 0] > 0.85 * made.max())
  assert rows.size > 20
  places = [grid.place(*each) for each in zip(rows + 0.5, columns + 0.5, strict=True)]
  assert {image[int(y), int(x), 0] for y, x in places} == {ink}


def test_specks_and_shadows_at_the_border_are_left_out():
  dirty = drawing().copy()
  dirty[20:23, 170:173] = 0
  dirty[:, :6] = 0
  assert_alike(like_mnist(dirty), like_mnist(drawing()))


def test_a_thin_pen_is_as_strong_as_a_thick_one():
  thin, thick = (like_mnist(drawing(width=width)) for width in (2, 14))
  assert 0.6 < thin.mean() / thick.mean() < 1.4


def test_a_digit_that_is_like_mnist_already_stays_as_it_is():
  image = like_mnist(drawing())
  assert_alike(like_mnist(image), image)


@pytest.mark.parametrize("like", [like_mnist, like_fashion_mnist])
@pytest.mark.parametrize("shape", [(5, 7, 1), (300, 200, 3)])
def test_an_empty_image_is_refused(like, shape):
  with pytest.raises(DataError, match="nothing can be seen on it"):
    like(np.full(shape, 200, np.uint8))


def test_a_garment_fills_the_image_and_keeps_its_shades():
  image = np.full((120, 100, 3), 255, np.uint8)
  image[30:90, 40:60] = 155
  image[30:90, 60:70] = 55
  found = like_fashion_mnist(image)
  assert found.shape == (28, 28, 1)
  np.testing.assert_array_equal(np.flatnonzero(found.any(axis=(1, 2))), np.arange(28))
  assert np.flatnonzero(found.any(axis=(0, 2))).tolist() == list(range(7, 21))
  assert found[14, 9, 0] == pytest.approx(100, abs=3)
  assert found[14, 19, 0] == pytest.approx(200, abs=3)
