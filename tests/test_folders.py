"""Folders of image files: the layouts that people have are read, others are refused.

Images are seen as a viewer shows them.
"""

import forked
import numpy as np
import pytest
from PIL import Image

from ramjax import ConfigError, data
from ramjax.data.folders import read_folder

RNG = np.random.RandomState(3)
IMAGES = RNG.randint(0, 256, (30, 9, 12, 3)).astype(np.uint8)
LABELS = np.arange(30) % 3


def write(path, image, **options):
  """Writes an image, of Pillow or an array."""
  path.parent.mkdir(parents=True, exist_ok=True)
  if isinstance(image, np.ndarray):
    image = Image.fromarray(image.squeeze())
  image.save(path, **options)


def write_images(folder, images=IMAGES, labels=LABELS):
  for number, (image, label) in enumerate(zip(images, labels, strict=True)):
    write(folder / f"class {label}" / f"{number:03}.png", image)
  return folder


def with_orientation(orientation):
  exif = Image.Exif()
  exif[0x0112] = orientation
  return {"exif": exif.tobytes()}


@pytest.mark.parametrize("channels", [1, 3])
def test_a_folder_for_each_class_is_a_dataset(channels, tmp_path):
  """Images are sorted by class and file name; grey images have one channel."""
  images = IMAGES[..., :channels]
  write_images(tmp_path, images)
  (tmp_path / ".hidden").write_text("mine")
  found = read_folder(tmp_path)
  order = np.argsort(LABELS, kind="stable")
  np.testing.assert_array_equal(found.train.images, images[order])
  np.testing.assert_array_equal(found.train.labels, LABELS[order])
  assert found.class_names == ("class 0", "class 1", "class 2")
  assert found.notes == ()
  dataset = data.load_dataset(f"folder:{tmp_path}")
  assert dataset.image_shape == (9, 12, channels)
  assert dataset.class_counts.tolist() == [[8] * 3, [1] * 3, [1] * 3]


@pytest.mark.parametrize(
  "names",
  [
    ("train", "val", "test"),
    ("Training", "Validation", "Testing"),
    ("TRAIN", "valid", "Test"),
    ("train", "dev", None),
    ("train", None, "test"),
    ("train", None, None),
  ],
)
def test_splits_have_the_names_that_people_give_them(names, tmp_path):
  sizes = (30, 7, 5)
  for name, size in zip(names, sizes, strict=True):
    if name is not None:
      write_images(tmp_path / name, IMAGES[:size], LABELS[:size])
  found = read_folder(tmp_path)
  for split, name, size in zip(
    (found.train, found.validation, found.test), names, sizes, strict=True
  ):
    if name is None:
      assert split is None
    else:
      order = np.argsort(LABELS[:size], kind="stable")
      np.testing.assert_array_equal(split.images, IMAGES[:size][order])
      np.testing.assert_array_equal(split.labels, LABELS[:size][order])
  dataset = data.load_dataset(f"folder:{tmp_path}")
  set_aside = [3 if name is None else 0 for name in names[1:]]
  counts = dataset.class_counts.sum(1).tolist()
  assert counts == [
    30 - sum(set_aside),
    set_aside[0] or 7,
    set_aside[1] or 5,
  ]


def test_validation_and_test_images_are_told_apart_by_the_sum(tmp_path):
  """A run on train and val is not resumed on the same folder called test."""
  for name in ("val", "test"):
    root = tmp_path / name
    write_images(root / "train")
    write_images(root / name, IMAGES[:6], LABELS[:6])
  assert read_folder(tmp_path / "val").sha256 != read_folder(tmp_path / "test").sha256


def test_classes_are_in_their_natural_order(tmp_path):
  names = ["1", "2", "10", "a2b", "a10a", "a10b"]
  for number, name in enumerate(names):
    write(tmp_path / name / "x.png", np.full((4, 4), number, np.uint8))
  found = read_folder(tmp_path)
  assert found.class_names == tuple(names)
  assert found.train.images[:, 0, 0, 0].tolist() == found.train.labels.tolist()


def test_a_class_may_be_called_train(tmp_path):
  """Where its folder holds images, beside classes that are no splits."""
  for name in ("car", "train"):
    write(tmp_path / name / "x.png", IMAGES[0])
  assert read_folder(tmp_path).class_names == ("car", "train")


def test_what_other_tools_leave_beside_images_is_left_out_and_told(tmp_path):
  for part in ("train", "valid", "test"):
    write_images(tmp_path / part)
    (tmp_path / part / "class 1" / "Thumbs.db").write_bytes(b"\0")
  (tmp_path / "README.dataset.txt").write_text("exported by a tool")
  (tmp_path / "__MACOSX" / "train").mkdir(parents=True)
  found = read_folder(tmp_path)
  assert len(found.train.labels) == len(found.test.labels) == 30
  assert found.notes == (
    "left out: README.dataset.txt, Thumbs.db, Thumbs.db, Thumbs.db",
  )


def test_grey_images_beside_colour_images_get_three_channels(tmp_path):
  write_images(tmp_path, IMAGES[:2], [0, 0])
  write_images(tmp_path, IMAGES[:2, ..., 0], [1, 1])
  found = read_folder(tmp_path).train.images
  assert found.shape == (4, 9, 12, 3)
  for channel in range(3):
    np.testing.assert_array_equal(found[2:, ..., channel], IMAGES[:2, ..., 0])


@pytest.mark.parametrize(
  ("orientation", "stored"),
  [
    (1, lambda image: image),
    (2, lambda image: image[:, ::-1]),
    (3, lambda image: image[::-1, ::-1]),
    (4, lambda image: image[::-1]),
    (5, lambda image: image.swapaxes(0, 1)),
    (6, lambda image: np.rot90(image, 1)),
    (7, lambda image: np.rot90(image, 2).swapaxes(0, 1)),
    (8, lambda image: np.rot90(image, -1)),
  ],
)
def test_images_are_upright_as_exif_says(orientation, stored, tmp_path):
  """All eight orientations of the standard: which row and column is first."""
  for name, image in (("cat", IMAGES[0]), ("dog", IMAGES[1])):
    pixels = np.ascontiguousarray(stored(image))
    write(tmp_path / name / "1.png", pixels, **with_orientation(orientation))
  found = read_folder(tmp_path)
  np.testing.assert_array_equal(found.train.images, IMAGES[:2])
  turned = () if orientation == 1 else ("2 turned upright as EXIF says",)
  assert found.notes == turned


def icon(mode):
  """Black ink, half of it faint, on transparent ground, and what is seen on white."""
  alpha = np.array([[0, 255, 128], [255, 0, 0]], np.uint8)
  ink = np.zeros((2, 3, 4), np.uint8)
  ink[..., 3] = alpha
  seen = 255 - alpha
  image = Image.fromarray(ink)
  if mode == "P":
    palette = Image.new("P", (3, 2))
    palette.putpalette([9, 9, 9, 0, 0, 0])
    palette.putdata([0, 1, 0, 1, 0, 0])
    palette.info["transparency"] = 0
    return palette, np.where(alpha == 255, 0, 255).astype(np.uint8)
  return (image if mode == "RGBA" else image.convert(mode)), seen


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_composed_on_white_or_black(mode, tmp_path):
  """Black ink on transparent ground was a constant image before."""
  image, seen = icon(mode)
  channels = 1 if mode == "LA" else 3
  for name in ("cat", "dog"):
    write(tmp_path / name / "1.png", image)
  found = read_folder(tmp_path)
  expected = np.broadcast_to(seen[..., None], (2, 2, 3, channels))
  np.testing.assert_array_equal(found.train.images, expected)
  assert found.notes == (
    "2 with transparent pixels on white (--transparent_as=black for the other)",
  )
  on_black = read_folder(tmp_path, transparent_as="black").train.images
  assert on_black.max() == 0


def test_icons_that_vanish_on_their_ground_are_refused_with_the_remedy(tmp_path):
  image, _ = icon("RGBA")
  for number in range(12):
    write(tmp_path / f"class {number % 2}" / f"{number}.png", image)
  name = f"folder:{tmp_path}"
  assert data.load_dataset(name).test.images.max() == 255
  with pytest.raises(data.DataError, match=r"show nothing.*--transparent_as=white for"):
    data.load_dataset(name, transparent_as="black")


def photo(height, width, colour):
  return np.full((height, width, 3), colour, np.uint8)


def test_photos_of_several_sizes_are_resized_with_their_aspect(tmp_path):
  """The rest is the commonest colour on the borders of the training images."""
  sky, red = (200, 210, 220), (250, 0, 0)
  wide, tall, small = photo(60, 120, sky), photo(120, 60, sky), photo(4, 4, red)
  write(tmp_path / "train" / "a" / "wide.png", wide)
  write(tmp_path / "train" / "a" / "sideways.png", tall, **with_orientation(6))
  write(tmp_path / "train" / "b" / "tall.png", tall)
  write(tmp_path / "test" / "b" / "small.png", small)
  write(tmp_path / "test" / "a" / "wide.png", photo(60, 120, red))
  found = read_folder(tmp_path, resize="20x30")
  assert found.train.images.shape == (3, 20, 30, 3)
  assert (found.train.images == sky).all()
  assert found.background == "200,210,220"
  assert "5 resized" in found.notes
  assert "aspect kept, the rest filled with the colour 200,210,220" in found.notes
  seen = (found.test.images == red).all(-1)
  # 120 x 60 becomes 30 x 15, and 4 x 4 becomes 20 x 20, in the middle.
  expected = np.zeros((2, 20, 30), bool)
  expected[0, 2:17] = expected[1, :, 5:25] = True
  np.testing.assert_array_equal(seen, expected)
  assert (found.test.images[~expected] == sky).all()
  other = read_folder(tmp_path, resize="20x30", background="7").test.images
  assert (other[~expected] == 7).all()
  assert (other[expected] == red).all()


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_resizing_averages_pixels(suffix, tmp_path):
  """Stripes of one pixel become grey; without antialiasing they would stay stripes."""
  stripes = np.zeros((240, 240), np.uint8)
  stripes[:, ::2] = 255
  for name in ("a", "b"):
    write(tmp_path / name / f"1.{suffix}", stripes)
  found = read_folder(tmp_path, resize="24x24").train.images
  assert found.shape == (2, 24, 24, 1)
  assert 120 <= found[:, 2:-2, 2:-2].min() <= found[:, 2:-2, 2:-2].max() <= 135


def test_a_canvas_after_resizing_has_the_same_background(tmp_path):
  for number in range(12):
    colour = (number * 9, 40, 50)
    image = photo(20, 30, (0, 0, 255))
    image[5:15, 5:25] = colour
    write(tmp_path / f"class {number % 2}" / f"{number}.png", image)
  found = data.load_dataset(f"folder:{tmp_path}", resize="16x16", canvas_size=24)
  assert found.background == "0,0,255"
  assert found.image_shape == (24, 24, 3)


def spoil_text(folder):
  (folder / "class 1" / "notes.png").write_text("not an image")


def spoil_size(folder):
  write(folder / "class 2" / "odd.png", IMAGES[0, :5])


def spoil_depth(folder):
  write(folder / "class 2" / "deep.png", np.zeros((9, 12), np.uint16))


def spoil_with_an_image(folder):
  write(folder / "loose.png", IMAGES[0])


def spoil_with_an_empty_class(folder):
  (folder / "class 3").mkdir()


def spoil_classes(folder):
  for name in ("class 1", "class 2"):
    for file in (folder / name).iterdir():
      file.unlink()
    (folder / name).rmdir()


def spoil_by_folders(folder):
  (folder / "class 0" / "more").mkdir()


def spoil_by_a_split(folder):
  write_images(folder / "train")


def spoil_by_a_flat_folder(folder):
  for path in sorted(folder.glob("*/*.png")):
    path.rename(folder / f"{path.parent.name}.{path.name}")
  for path in folder.glob("class*"):
    if path.is_dir():
      path.rmdir()


@pytest.mark.parametrize(
  ("spoil", "message"),
  [
    (spoil_text, r"class 1/notes\.png cannot be read as an image; convert it"),
    (
      spoil_size,
      r"class 2/odd\.png is 12 x 5 pixels, .*000\.png is 12 x 9; resize them, in training by --res",
    ),
    (spoil_depth, r"class 2/deep\.png has pixels of more than 8 bits \(mode I"),
    (spoil_with_an_image, r"loose\.png is a file where a folder for each class is exp"),
    (spoil_with_an_empty_class, "no train images of the class class 3"),
    (spoil_classes, "at least two classes, not 1; expected are DIR/CLASS/IMAGE"),
    (
      spoil_by_folders,
      "class 0/more is a folder in class 0, where images are expected",
    ),
    (
      spoil_by_a_split,
      "class 0 stands beside the split train, but is no split; expect",
    ),
    (spoil_by_a_flat_folder, "is a file where a folder for each class is expected"),
  ],
)
def test_invalid_folder_gives_one_line(spoil, message, tmp_path):
  """Which names the entry, says what is expected, and never to remove anything."""
  write_images(tmp_path, IMAGES[:6], LABELS[:6])
  spoil(tmp_path)
  with pytest.raises(data.DataError, match=message) as caught:
    read_folder(tmp_path)
  assert "\n" not in str(caught.value)
  assert "remove" not in str(caught.value)


def nest_in_a_folder(root):
  write_images(root / "flowers" / "train")
  write_images(root / "flowers" / "test")


def call_a_split_twice(root):
  for name in ("train", "val", "valid"):
    write_images(root / name)


def add_a_class_to_the_test(root):
  write_images(root / "train")
  write_images(root / "test", IMAGES[:4], [0, 1, 2, 3])


def leave_the_test_flat(root):
  write_images(root / "train")
  write(root / "test" / "001.png", IMAGES[0])


def leave_all_flat(root):
  write(root / "train" / "cat.1.png", IMAGES[0])
  write(root / "test" / "1.png", IMAGES[0])


def have_no_test_images(root):
  write_images(root / "train")
  (root / "test" / "class 1").mkdir(parents=True)


@pytest.mark.parametrize(
  ("build", "message"),
  [
    (nest_in_a_folder, "flowers/test is a folder in flowers, where .* as DIR$"),
    (call_a_split_twice, "holds val and valid, two folders of the validation split"),
    (add_a_class_to_the_test, "test images of the class class 3, but no train images"),
    (leave_the_test_flat, r"test/001\.png is a file where a folder for each class is"),
    (leave_all_flat, r"train/cat\.1\.png is a file where a folder for each class is"),
    (have_no_test_images, "no test images of the class class 1; add images, or move"),
  ],
)
def test_splits_that_cannot_be_meant_are_refused_by_name(build, message, tmp_path):
  build(tmp_path)
  with pytest.raises(data.DataError, match=message) as caught:
    read_folder(tmp_path)
  assert "\n" not in str(caught.value)
  assert "remove" not in str(caught.value)


def test_missing_folder_is_refused(tmp_path):
  with pytest.raises(data.DataError, match="nowhere cannot be read"):
    read_folder(tmp_path / "nowhere")


def test_what_has_no_use_or_does_not_fit_is_refused(tmp_path):
  write_images(tmp_path / "mine")
  np.savez(tmp_path / "mine.npz", images=IMAGES, labels=LABELS)
  with pytest.raises(ConfigError, match="resize must not be given with npz:"):
    data.load_dataset(f"npz:{tmp_path / 'mine.npz'}", resize="8x8")
  with pytest.raises(ConfigError, match="one for each of 3 channels, not '1,2'"):
    data.load_dataset(f"folder:{tmp_path / 'mine'}", canvas_size=20, background="1,2")


def test_the_first_line_tells_what_was_loaded(tmp_path):
  write_images(tmp_path / "train", IMAGES[:24], LABELS[:24])
  write_images(tmp_path / "val", IMAGES[:3], LABELS[:3])
  write_images(tmp_path / "test", IMAGES[:4], LABELS[:4])
  (tmp_path / "notes.txt").touch()
  found = data.load_dataset(f"folder:{tmp_path}", canvas_size=16, background="9")
  assert found.describe() == (
    f"folder:{tmp_path}: 31 images (24 + 3 + 4 for training, validation, test) of 9 x 12"
    " pixels and 3 channels; 3 classes (class 0: 8 + 1 + 2, class 1: 8 + 1 + 1, class 2:"
    " 8 + 1 + 1); left out: notes.txt; on a canvas of 16 x 16 pixels of the colour 9"
  )


@pytest.mark.slow
def test_photos_of_both_orientations_are_learned_from_a_folder(tmp_path):
  """Half of them are stored upside down; read so, no more than half could be right."""
  rng = np.random.RandomState(0)
  for label, name in enumerate(("sky", "street")):
    for number in range(100):
      pixels = rng.randint(0, 60, (20, 16, 3)).astype(np.uint8)
      pixels[10 * label : 10 * label + 10] += 180
      turned = number % 2
      part = ("train", "train", "train", "Valid", "Test")[number // 20]
      options = with_orientation(3) if turned else {}
      file = tmp_path / "mine" / part / name / f"{number}.jpg"
      write(file, pixels[::-1, ::-1].copy() if turned else pixels, **options)
  done = forked.run(
    "train",
    f"--dataset=folder:{tmp_path / 'mine'}",
    f"--workdir={tmp_path / 'run'}",
    *("--objective=original", "--resize=16x16", "--num_glimpses=4", "--hidden_size=32"),
    *("--num_epochs=30", "--batch_size=24", "--learning_rate=3e-3"),
  )
  assert done.returncode == 0, done.stderr
  first, *_, last = done.stdout.splitlines()
  assert "200 images (120 + 40 + 40 for training, validation, test) of 16 x 16" in first
  assert "100 turned upright as EXIF says" in first
  assert last.startswith("test accuracy ")
  assert float(last.split()[2]) > 0.9


def test_a_very_thin_image_keeps_a_pixel_when_it_is_resized(tmp_path):
  for name in ("a", "b"):
    for number in range(12):
      pixels = np.random.RandomState(number).randint(0, 255, (20, 20), np.uint8)
      write(tmp_path / name / f"{number}.png", pixels)
  write(tmp_path / "a" / "thin.png", np.full((900, 9), 200, np.uint8))
  assert read_folder(tmp_path, resize="32x32").train.images.shape[1:] == (32, 32, 1)
