"""Pictures put together for people to look at."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont


def grid(pictures: Sequence[np.ndarray], *, columns: int, captions: Sequence[str] = (), width: int = 480) -> np.ndarray:
    """Lay pictures out in rows, each with a caption above it.

    Args:
        pictures: RGB arrays (H, W, 3) uint8 of any sizes, in reading order.
        captions: one per picture, or none at all.
        width: of every picture in pixels; its height follows from its own proportions.

    Returns:
        (H, W, 3) uint8, on white.
    """
    border, band = 4, 22 if captions else 0
    cells = [Image.fromarray(picture) for picture in pictures]
    cells = [cell.resize((width, max(1, round(cell.height * width / cell.width)))) for cell in cells]
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    heights = [band + border + max(cell.height for cell in row) for row in rows]
    sheet = Image.new("RGB", (columns * (width + border) + border, sum(heights) + border), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=14)
    for index, cell in enumerate(cells):
        row, column = divmod(index, columns)
        left, top = border + column * (width + border), border + sum(heights[:row])
        if captions:
            draw.text((left, top + 2), captions[index], fill="black", font=font)
        sheet.paste(cell, (left, top + band))
    return np.asarray(sheet)
