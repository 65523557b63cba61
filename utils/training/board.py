"""A run's figures and pictures for TensorBoard: tensorboard --logdir FOLDER"""

import logging
from pathlib import Path
from typing import Any

import numpy as np


class Board:
    """Write TensorBoard's event files into a folder; without the package tensorboard, do nothing and say so.

    Args:
        purge_step: what former runs in the folder wrote from this step on is not shown any more.
    """

    def __init__(self, folder: Path, *, log: logging.Logger, purge_step: int = 0) -> None:
        self._writer = None
        try:
            from torch.utils.tensorboard import SummaryWriter  # takes a second to import
        except ImportError:
            log.info("no TensorBoard files: pip install tensorboard")
            return
        self._writer = SummaryWriter(folder, purge_step=purge_step)

    def scalars(self, record: dict[str, Any], step: int) -> None:
        """Show the numbers of a record; those of a nested one as `key/name`; what is no number is left out."""
        for key, value in record.items():
            if isinstance(value, dict):
                self.scalars({f"{key}/{name}": number for name, number in value.items()}, step)
            elif isinstance(value, float) and self._writer is not None:
                self._writer.add_scalar(key, value, step)

    def picture(self, name: str, image: np.ndarray, step: int) -> None:
        """Show an RGB picture (H, W, 3) uint8."""
        if self._writer is not None:
            self._writer.add_image(name, image, step, dataformats="HWC")

    def text(self, name: str, text: str) -> None:
        """Show a text as it is, line by line."""
        if self._writer is not None:
            self._writer.add_text(name, "\n".join(f"    {line}" for line in text.splitlines()))

    def close(self) -> None:
        """Finish the files."""
        if self._writer is not None:
            self._writer.close()
