"""The pictures that are put together."""

import numpy as np

from utils.drawing import grid


def test_grid_lays_pictures_out_in_reading_order_on_white() -> None:
    pictures = [np.full((10, 20, 3), value, np.uint8) for value in (10, 20, 30)]
    sheet = grid(pictures, columns=2, width=20)
    assert sheet.shape == (2 * 14 + 4, 2 * 24 + 4, 3)
    assert (sheet[4:14, 4:24] == 10).all() and (sheet[4:14, 28:48] == 20).all() and (sheet[18:28, 4:24] == 30).all()
    assert (sheet[18:28, 28:48] == 255).all()


def test_grid_scales_to_the_width_and_leaves_room_for_captions() -> None:
    sheet = grid([np.zeros((10, 20, 3), np.uint8)], columns=1, captions=["a caption"], width=40)
    assert sheet.shape == (4 + 22 + 20 + 4, 48, 3)
    assert (sheet[26:46, 4:44] == 0).all() and (sheet[4:26] < 128).any()
