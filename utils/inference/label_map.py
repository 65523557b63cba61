"""Full-size label maps, computed without holding full-size logits in memory."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

STRIP = 16  # rows of the label map that are resized at a time
AT_ONCE = 1 << 15  # pixels whose logits are in memory at a time
MANY = 0.5  # share of mixed pixels above which strips are faster


@torch.inference_mode()
def label_map(logits: Tensor, size: Sequence[int], *, align_corners: bool = True) -> Tensor:
    """Resize logits (B, C, h, w) bilinearly to `size` and take the argmax over the classes.

    A pixel among four logits with the same argmax has that argmax too, as its logits are a mean of theirs. On a CPU
    therefore only the mixed pixels, along the borders of objects, are interpolated one by one.

    Args:
        align_corners: see `models.layers.resize`; segmenters have an attribute of that name.

    Returns:
        (B, H, W) uint8.
    """
    logits = logits.float()
    (h, w), (height, width) = logits.shape[-2:], size
    if (h, w) == (height, width):
        return logits.argmax(1).to(torch.uint8)
    if logits.is_cuda or min(h, w) < 2 or height < h or width < w:
        return _in_strips(logits, height, width, align_corners)
    return torch.stack([_by_cells(image, height, width, align_corners) for image in logits])


def _by_cells(logits: Tensor, height: int, width: int, align_corners: bool) -> Tensor:
    """Return the label map (height, width) of logits (C, h, w), interpolating mixed pixels only."""
    channels, h, w = logits.shape
    table = logits.permute(1, 2, 0).reshape(h * w, channels)  # a row for each pixel of the logits
    small = table.argmax(1).to(torch.uint8).view(h, w)
    corner = small[:-1, :-1]
    mixed = (corner != small[1:, :-1]) | (corner != small[:-1, 1:]) | (corner != small[1:, 1:])  # (h - 1, w - 1)
    row, down = _position(h, height, logits, align_corners)
    column, right = _position(w, width, logits, align_corners)
    labels = corner[row][:, column]
    pixels = mixed[row][:, column].flatten().nonzero().squeeze(1)
    if len(pixels) > MANY * labels.numel():
        return _in_strips(logits[None], height, width, align_corners)[0]
    for some in pixels.split(AT_ONCE):
        y, x = some // width, some % width
        first, v, u = row[y] * w + column[x], down[y], right[x]
        corners = torch.stack([first, first + 1, first + w, first + w + 1], 1)
        weights = torch.stack([(1 - v) * (1 - u), (1 - v) * u, v * (1 - u), v * u], 1)
        resized = F.embedding_bag(corners, table, per_sample_weights=weights, mode="sum")  # (pixels, C)
        labels.view(-1)[some] = resized.argmax(1).to(torch.uint8)
    return labels


def _in_strips(logits: Tensor, height: int, width: int, align_corners: bool) -> Tensor:
    """Return the label maps (B, height, width) of logits (B, C, h, w), a few rows at a time."""
    row, down = _position(logits.shape[-2], height, logits, align_corners)
    below = (row + 1).clamp(max=logits.shape[-2] - 1)
    strips = []
    for start in range(0, height, STRIP):
        part = slice(start, start + STRIP)
        rows = torch.lerp(logits[:, :, row[part]], logits[:, :, below[part]], down[part, None])
        wide = F.interpolate(rows, (rows.shape[-2], width), mode="bilinear", align_corners=align_corners)
        strips.append(wide.argmax(1).to(torch.uint8))
    return torch.cat(strips, 1)


def _position(small: int, large: int, like: Tensor, align_corners: bool) -> tuple[Tensor, Tensor]:
    """Return, for each of `large` output pixels, the input pixel before it and the fraction (0 to 1) beyond that."""
    place = torch.arange(large, dtype=torch.float64, device=like.device)
    if align_corners:
        place = place * ((small - 1) / max(1, large - 1))
    else:  # output pixels beyond the outermost input centres take their values
        place = ((place + 0.5) * (small / large) - 0.5).clamp(0, small - 1)
    before = place.floor().clamp(max=max(0, small - 2))
    return before.long(), (place - before).float()
