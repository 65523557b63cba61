import numpy as np
import pytest
from PIL import Image

from dataset.labels import ClassTable, cityscapes_classes
from utils.io.drawing import colorize, grid, overlay, palette, save_image, save_labels
from utils.io.sources import read_image

CLASSES = ClassTable(("a", "b", "c"), ((255, 0, 0), (0, 200, 0), (1, 2, 3)))
LABELS = np.array([[0, 1, 2], [2, 255, 0]], dtype=np.uint8)
COLORS = np.array([[[255, 0, 0], [0, 200, 0], [1, 2, 3]], [[1, 2, 3], [0, 0, 0], [255, 0, 0]]], dtype=np.uint8)


def test_colors_by_class_and_black_for_no_class():
    assert palette(CLASSES).shape == (256, 3)
    assert np.array_equal(colorize(LABELS, CLASSES), COLORS)


def test_pixel_values_of_a_saved_label_map_are_the_indices(tmp_path):
    save_labels(tmp_path / "deep" / "pred.png", LABELS, CLASSES)
    with Image.open(tmp_path / "deep" / "pred.png") as image:
        assert (image.format, image.mode, image.size) == ("PNG", "P", (3, 2))
        assert np.array_equal(np.asarray(image), LABELS)
        assert np.array_equal(np.asarray(image.convert("RGB")), COLORS)
        assert image.getpalette()[:9] == [255, 0, 0, 0, 200, 0, 1, 2, 3]


def test_every_cityscapes_class_is_saved_in_its_color(tmp_path):
    classes = cityscapes_classes()
    save_labels(tmp_path / "pred.png", np.arange(19, dtype=np.uint8)[None], classes)
    with Image.open(tmp_path / "pred.png") as image:
        assert np.asarray(image).tolist() == [list(range(19))]
    assert [tuple(color) for color in read_image(tmp_path / "pred.png")[0].tolist()] == list(classes.colors)


def test_label_map_that_is_a_view(tmp_path):
    view = np.ascontiguousarray(LABELS.T).T[:, ::-1]
    save_labels(tmp_path / "pred.png", view, CLASSES)
    with Image.open(tmp_path / "pred.png") as image:
        assert np.array_equal(np.asarray(image), view)


def test_overlay_between_image_and_colors():
    image = np.full((2, 3, 3), (11, 100, 200), dtype=np.uint8)
    assert np.array_equal(overlay(image, LABELS, CLASSES, alpha=0), image)
    assert np.array_equal(overlay(image, LABELS, CLASSES, alpha=1), COLORS)
    half = overlay(image, LABELS, CLASSES, alpha=0.5)
    assert half.dtype == np.uint8
    assert half[0, 0].tolist() == [133, 50, 100]  # (11 + 255) / 2, (100 + 0) / 2, (200 + 0) / 2
    assert half[1, 1].tolist() == [6, 50, 100] or half[1, 1].tolist() == [5, 50, 100]  # 5.5 is rounded either way
    assert overlay(image, LABELS, CLASSES, alpha=0.25)[0, 0].tolist() == [72, 75, 150]


def test_overlay_does_not_change_what_it_is_given():
    image, labels = np.zeros((2, 3, 3), np.uint8), LABELS.copy()
    overlay(image, labels, CLASSES)
    assert not image.any() and np.array_equal(labels, LABELS)


@pytest.mark.parametrize("shape", [(1, 1), (5, 3)])
def test_saved_image_is_read_as_it_was(tmp_path, shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    save_image(tmp_path / "image.png", image)
    assert np.array_equal(read_image(tmp_path / "image.png"), image)


def test_grid_lays_pictures_out_in_reading_order_on_white():
    pictures = [np.full((10, 20, 3), value, np.uint8) for value in (10, 20, 30)]
    sheet = grid(pictures, columns=2, width=20)
    assert sheet.shape == (2 * 14 + 4, 2 * 24 + 4, 3)
    assert (sheet[4:14, 4:24] == 10).all() and (sheet[4:14, 28:48] == 20).all() and (sheet[18:28, 4:24] == 30).all()
    assert (sheet[18:28, 28:48] == 255).all()


def test_grid_scales_to_the_width_and_leaves_room_for_captions():
    sheet = grid([np.zeros((10, 20, 3), np.uint8)], columns=1, captions=["a caption"], width=40)
    assert sheet.shape == (4 + 22 + 20 + 4, 48, 3)
    assert (sheet[26:46, 4:44] == 0).all() and (sheet[4:26] < 128).any()
