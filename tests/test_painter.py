import numpy as np
import pytest

from dataset.labels import ClassTable
from utils.io.drawing import Painter

CLASSES = ClassTable(("road", "sky", "car"), ((200, 0, 0), (0, 200, 0), (0, 0, 100)))
LABELS = np.array([[0, 1], [1, 2]], np.uint8)
IMAGE = np.full((2, 2, 3), 100, np.uint8)
COLORS = [[[200, 0, 0], [0, 200, 0]], [[0, 200, 0], [0, 0, 100]]]


def test_color_overlay_and_side_by_hand():
    painter = Painter(classes=CLASSES, alpha=0.25)
    assert painter.paint("color", IMAGE, LABELS).tolist() == COLORS
    assert painter.paint("overlay", IMAGE, LABELS)[0, 0].tolist() == [125, 75, 75]  # 0.75 * 100 + 0.25 * (200, 0, 0)
    side = painter.paint("side", IMAGE, LABELS)
    assert side[:, :2].tolist() == IMAGE.tolist() and side[:, 2:].tolist() == COLORS


def test_only_the_shown_classes():
    painter = Painter(classes=CLASSES, shown=("car", "sky"))
    assert painter.paint("color", IMAGE, LABELS).tolist() == [[[0, 0, 0], [0, 200, 0]], COLORS[1]]
    over = painter.paint("overlay", IMAGE, LABELS)
    assert over[0, 0].tolist() == [100, 100, 100] and over[0, 1].tolist() == [50, 150, 50]
    assert painter.shares(LABELS) == {"sky": 0.5, "car": 0.25}


def test_legend_shows_the_colors_present_and_leaves_the_rest_of_the_picture():
    labels = np.zeros((96, 128), np.uint8)
    labels[:, 64:] = 2
    image = np.zeros((96, 128, 3), np.uint8)
    plain = Painter(classes=CLASSES).paint("color", image, labels)
    drawn = Painter(classes=CLASSES, legend=True).paint("color", image, labels)
    assert drawn.shape == plain.shape and (drawn[60:] == plain[60:]).all()
    corner = {tuple(color) for color in drawn[:40, :16].reshape(-1, 3).tolist()}
    assert (200, 0, 0) in corner and (0, 0, 100) in corner and (0, 200, 0) not in corner


@pytest.mark.parametrize("size", [(1, 1), (5, 200), (200, 5), (20, 20)])
def test_legend_in_a_picture_too_small_for_it(size):
    image, labels = np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint8)
    for kind in ("color", "overlay", "side"):
        assert Painter(classes=CLASSES, legend=True).paint(kind, image, labels).shape[0] == size[0]


def test_nothing_given_is_changed():
    image, labels = IMAGE.copy(), LABELS.copy()
    for kind in ("color", "overlay", "side"):
        Painter(classes=CLASSES, shown=("car",), legend=True).paint(kind, image, labels)
    assert (image == IMAGE).all() and (labels == LABELS).all()


def test_wrong_class_and_alpha():
    with pytest.raises(ValueError, match="there is no cars; there are: road, sky, car"):
        Painter(classes=CLASSES, shown=("sky", "cars"))
    for alpha in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="--alpha must be from 0 to 1"):
            Painter(classes=CLASSES, alpha=alpha)
