import numpy as np
import pytest

from dataset.labels import ClassTable
from utils.io.drawing import Painter, colorize, grid, overlay

CLASSES = ClassTable(("road", "sky", "car"), ((200, 0, 0), (0, 200, 0), (0, 0, 100)))
LABELS = np.array([[0, 1], [1, 2]], np.uint8)
IMAGE = np.full((2, 2, 3), 100, np.uint8)
COLORS = [[[200, 0, 0], [0, 200, 0]], [[0, 200, 0], [0, 0, 100]]]


def test_ignored_pixels_are_black():
    assert colorize(np.array([[2, 255]], np.uint8), CLASSES).tolist() == [[[0, 0, 100], [0, 0, 0]]]


def test_overlay_blends_image_and_colors():
    image = np.full((2, 2, 3), (11, 100, 201), np.uint8)
    assert np.array_equal(overlay(image, LABELS, CLASSES, alpha=0), image)
    assert overlay(image, LABELS, CLASSES, alpha=1).tolist() == COLORS
    quarter = overlay(image, LABELS, CLASSES, alpha=0.25)
    assert quarter.dtype == np.uint8
    assert quarter[0, 0].tolist() == [58, 75, 151]  # 0.75 * (11, 100, 201) + 0.25 * (200, 0, 0), rounded
    assert quarter[1, 1].tolist() == [8, 75, 176]


def test_color_overlay_and_side_by_side():
    painter = Painter(classes=CLASSES, alpha=0.25)
    assert painter.paint("color", IMAGE, LABELS).tolist() == COLORS
    assert painter.paint("overlay", IMAGE, LABELS)[0, 0].tolist() == [125, 75, 75]  # 0.75 * 100 + 0.25 * (200, 0, 0)
    side = painter.paint("side", IMAGE, LABELS)
    assert side[:, :2].tolist() == IMAGE.tolist() and side[:, 2:].tolist() == COLORS


def test_only_selected_classes_are_shown():
    painter = Painter(classes=CLASSES, shown=("car", "sky"))
    assert painter.paint("color", IMAGE, LABELS).tolist() == [[[0, 0, 0], [0, 200, 0]], COLORS[1]]
    blended = painter.paint("overlay", IMAGE, LABELS)
    assert blended[0, 0].tolist() == [100, 100, 100] and blended[0, 1].tolist() == [50, 150, 50]
    assert painter.shares(LABELS) == {"sky": 0.5, "car": 0.25}


def test_legend_lists_the_classes_present_and_covers_only_a_corner():
    labels = np.zeros((96, 128), np.uint8)
    labels[:, 64:] = 2
    image = np.zeros((96, 128, 3), np.uint8)
    plain = Painter(classes=CLASSES).paint("color", image, labels)
    drawn = Painter(classes=CLASSES, legend=True).paint("color", image, labels)
    assert drawn.shape == plain.shape and (drawn[60:] == plain[60:]).all()
    corner = {tuple(color) for color in drawn[:40, :16].reshape(-1, 3).tolist()}
    assert (200, 0, 0) in corner and (0, 0, 100) in corner and (0, 200, 0) not in corner


@pytest.mark.parametrize("size", [(1, 1), (5, 200), (200, 5), (20, 20)])
def test_legend_in_an_image_too_small_for_it(size):
    image, labels = np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint8)
    for kind in ("color", "overlay", "side"):
        assert Painter(classes=CLASSES, legend=True).paint(kind, image, labels).shape[0] == size[0]


def test_painting_does_not_modify_its_inputs():
    image, labels = IMAGE.copy(), LABELS.copy()
    for kind in ("color", "overlay", "side"):
        Painter(classes=CLASSES, shown=("car",), legend=True).paint(kind, image, labels)
    assert (image == IMAGE).all() and (labels == LABELS).all()


def test_unknown_class_and_alpha_out_of_range_are_rejected():
    with pytest.raises(ValueError, match="--classes: unknown cars; the classes are road, sky, car"):
        Painter(classes=CLASSES, shown=("sky", "cars"))
    for alpha in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="--alpha must be from 0 to 1"):
            Painter(classes=CLASSES, alpha=alpha)


def test_grid_arranges_images_in_reading_order_on_white():
    images = [np.full((10, 20, 3), value, np.uint8) for value in (10, 20, 30)]
    sheet = grid(images, columns=2, width=20)
    assert sheet.shape == (2 * 14 + 4, 2 * 24 + 4, 3)
    assert (sheet[4:14, 4:24] == 10).all() and (sheet[4:14, 28:48] == 20).all() and (sheet[18:28, 4:24] == 30).all()
    assert (sheet[18:28, 28:48] == 255).all()


def test_grid_resizes_to_the_width_and_draws_captions():
    sheet = grid([np.zeros((10, 20, 3), np.uint8)], columns=1, captions=["a caption"], width=40)
    assert sheet.shape == (4 + 22 + 20 + 4, 48, 3)
    assert (sheet[26:46, 4:44] == 0).all() and (sheet[4:26] < 128).any()
