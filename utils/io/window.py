"""A window that shows results while they come."""

import subprocess
import sys

import cv2
import numpy as np

TITLE = "ICNet"
NO_KEY = -1
ATTEMPT = f"import cv2; cv2.namedWindow({TITLE!r}); cv2.waitKey(1)"


class Window:
    """A window on the screen.

    Raises:
        ValueError: there is no display, or OpenCV was built without windows.
    """

    def __init__(self) -> None:
        # Without a display OpenCV's window library ends the whole process, so another one tries first.
        if subprocess.run([sys.executable, "-c", ATTEMPT], capture_output=True).returncode:
            raise ValueError("--show: no window can be opened, for want of a display or of windows in this OpenCV")
        cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)

    def show(self, picture: np.ndarray, *, wait: bool) -> bool:
        """Show an RGB picture, `wait` for a key to go on; return whether it was q or Escape, or the window closed."""
        cv2.imshow(TITLE, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        key = cv2.waitKey(1)
        while wait and key == NO_KEY and self._is_open():
            key = cv2.waitKey(50)
        return key & 0xFF in (ord("q"), 27) or not self._is_open()

    def _is_open(self) -> bool:
        return cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) >= 1
