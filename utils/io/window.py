"""A window that shows results as they are computed."""

import subprocess
import sys
from collections.abc import Callable

import cv2
import numpy as np

TITLE = "ICNet"


def open_window() -> None:
    """Open the window; raises a ValueError if there is no display or OpenCV was built without GUI support."""
    # Without a display OpenCV's GUI backend aborts the process, so a subprocess tries first.
    attempt = f"import cv2; cv2.namedWindow({TITLE!r}); cv2.waitKey(1)"
    if subprocess.run([sys.executable, "-c", attempt], capture_output=True).returncode:
        raise ValueError("--show: cannot open a window: no display, or OpenCV was built without GUI support")
    cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)


def show(image: np.ndarray, waiting: Callable[[], bool]) -> bool:
    """Show an RGB image, and while `waiting`, wait for a key; return whether to stop: q, Escape or a closed window."""
    cv2.imshow(TITLE, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    key = cv2.waitKey(1)
    while waiting() and key == -1 and _is_open():
        key = cv2.waitKey(50)
    return key & 0xFF in (ord("q"), 27) or not _is_open()


def _is_open() -> bool:
    try:
        return cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) >= 1
    except cv2.error:  # of OpenCV's Qt windows, once the last one is closed
        return False
