"""Full-size label maps, computed without holding full-size logits in memory."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

STRIP, GPU_STRIP = 16, 256  # rows resized at a time: on a CPU they fit in its cache, on a GPU they need few kernels
AT_ONCE = 1 << 17  # pixels of mixed cells that are interpolated at a time
MANY = 0.5  # share of mixed cells above which strips are faster


@torch.inference_mode()
def label_map(logits: Tensor, size: Sequence[int], *, align_corners: bool = True) -> Tensor:
    """Resize logits (B, C, h, w) bilinearly to `size` and take the argmax over the classes.

    A cell is the square between four neighbouring logits. If all four have the same argmax, so has every pixel in the
    cell, as its logits are a convex combination of theirs. A CPU therefore interpolates only the mixed cells, whose
    corners differ: those along the borders of objects.

    Args:
        align_corners: see `models.layers.resize`; segmenters have an attribute of that name.

    Returns:
        (B, H, W) uint8.
    """
    logits = logits.float()
    (h, w), (height, width) = logits.shape[-2:], size
    if (h, w) == (height, width):
        return logits.argmax(1).to(torch.uint8)
    if logits.device.type != "cpu" or min(h, w) < 2 or height < h or width < w:
        return _in_strips(logits, height, width, align_corners)
    return torch.stack([_by_cells(image, height, width, align_corners) for image in logits])


def _by_cells(logits: Tensor, height: int, width: int, align_corners: bool) -> Tensor:
    """Return the label map (height, width) of logits (C, h, w), interpolating mixed cells only.

    In most of them, only two classes can win: every other class is at or below the same one of the two at all corners,
    and therefore in the whole cell.
    """
    channels, h, w = logits.shape
    table = logits.permute(1, 2, 0).reshape(h * w, channels)  # a row for each pixel of the logits
    small = table.argmax(1).to(torch.uint8).view(h, w)
    corner = small[:-1, :-1]
    mixed = (corner != small[1:, :-1]) | (corner != small[:-1, 1:]) | (corner != small[1:, 1:])  # (h - 1, w - 1)
    cells = mixed.nonzero()
    if len(cells) > MANY * mixed.numel():
        return _in_strips(logits[None], height, width, align_corners)[0]
    row, rows, down = _pixels_of_cells(h, height, logits, align_corners)
    column, columns, right = _pixels_of_cells(w, width, logits, align_corners)
    labels = torch.from_numpy(corner.numpy().take(column, 1).take(row, 0))  # several times as fast as indexing tensors
    for y, x in (part.unbind(1) for part in cells.split(max(1, AT_ONCE // (rows.shape[1] * columns.shape[1])))):
        ends = y * w + x + torch.tensor([0, 1, w, w + 1])[:, None]  # (4, n)
        values = table.index_select(0, ends.flatten()).view(4, -1, channels)
        block = _argmax_of_cells(values, small.view(-1)[ends], right[x], down[y])
        pixels = rows[y][:, :, None] * width + columns[x][:, None]  # (n, K, L)
        labels.view(-1).scatter_(0, pixels.flatten(), block.flatten().to(torch.uint8))
    return labels


def _argmax_of_cells(values: Tensor, found: Tensor, right: Tensor, down: Tensor) -> Tensor:
    """Return the labels (n, K, L) of the pixels in cells.

    Args:
        values, found: logits (4, n, C) of the cells' corners, row by row, and their argmax (4, n).
        right, down: position (n, L) and (n, K) of the pixels in the cell, from 0 to 1.
    """
    one, other = found.amin(0).long(), found.amax(0).long()
    of_one, of_other = (values.gather(2, label.expand(4, -1)[..., None]) for label in (one, other))  # (4, n, 1)
    ahead = _interpolate(of_other - of_one, right, down)[..., 0] > 0
    labels = torch.where(ahead, other[:, None, None], one[:, None, None])
    above = torch.minimum((values - of_one).amax(0), (values - of_other).amax(0)).amax(1)  # the best of other classes
    rest = (above > 0).nonzero().squeeze(1)
    labels[rest] = _interpolate(values[:, rest], right[rest], down[rest]).argmax(3)
    return labels


def _interpolate(values: Tensor, right: Tensor, down: Tensor) -> Tensor:
    """Interpolate between the corners (4, n, C) of cells; return (n, K, L, C)."""
    top, bottom = (torch.lerp(values[k, :, None], values[k + 1, :, None], right[..., None]) for k in (0, 2))
    return torch.lerp(top[:, None], bottom[:, None], down[:, :, None, None])


def _in_strips(logits: Tensor, height: int, width: int, align_corners: bool) -> Tensor:
    """Return the label maps (B, height, width) of logits (B, C, h, w), a few rows at a time."""
    row, down = _position(logits.shape[-2], height, logits, align_corners)
    below = (row + 1).clamp(max=logits.shape[-2] - 1)
    strips, strip = [], STRIP if logits.device.type == "cpu" else GPU_STRIP
    for start in range(0, height, strip):
        part = slice(start, start + strip)
        rows = torch.lerp(logits[:, :, row[part]], logits[:, :, below[part]], down[part, None])
        wide = F.interpolate(rows, (rows.shape[-2], width), mode="bilinear", align_corners=align_corners)
        strips.append(wide.argmax(1).to(torch.uint8))
    return torch.cat(strips, 1)


def _pixels_of_cells(small: int, large: int, like: Tensor, align_corners: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return, along an axis, the cell (large,) of each output pixel, and of each cell the pixels and their positions.

    The latter two are (small - 1, K), where K is the most pixels of a cell; others repeat their last one.
    """
    cell, beyond = _position(small, large, like, align_corners)
    count = torch.bincount(cell, minlength=small - 1)
    first = count.cumsum(0) - count
    pixels = first[:, None] + torch.arange(int(count.max())).minimum(count[:, None] - 1)
    return cell, pixels, beyond[pixels]


def _position(small: int, large: int, like: Tensor, align_corners: bool) -> tuple[Tensor, Tensor]:
    """Return, for each of `large` output pixels, the input pixel before it and the fraction (0 to 1) beyond that."""
    place = torch.arange(large, dtype=torch.float64, device=like.device)
    if align_corners:
        place = place * ((small - 1) / max(1, large - 1))
    else:  # output pixels beyond the outermost input centres take their values
        place = ((place + 0.5) * (small / large) - 0.5).clamp(0, small - 1)
    before = place.floor().clamp(max=max(0, small - 2))
    return before.long(), (place - before).float()
