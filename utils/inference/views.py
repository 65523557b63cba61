"""Segmenters built from a segmenter: test-time augmentation, and sliding windows over large images.

Both average probabilities and return their logarithms as scores; a single view keeps the logits of its segmenter.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from models.layers import resize, resize_target
from utils.config import TestConfig
from utils.inference.segmenter import Segmenter

_LEAST = 1e-30  # probability, so that its logarithm is finite


def with_options(segmenter: Segmenter, test: TestConfig) -> Segmenter:
    """Wrap a segmenter as configured: input size, test-time augmentation, and sliding windows.

    Args:
        test: with the checkpoint's own input size filled in, see `utils.inference.opening.with_checkpoint_input`.

    Raises:
        ValueError: incompatible options; the message names their keys.
    """
    _check_options(segmenter, test)
    scales, flip = test.tta.scales, test.tta.flip
    resize_probabilities = bool(test.resize_probabilities)
    resized = test.short_side or test.input_size or (resize_probabilities and segmenter.gives_scores)
    if scales != (1.0,) or flip or resized:
        segmenter = MultiView(
            segmenter,
            scales=scales,
            flip=flip,
            short_side=test.short_side or None,
            input_size=test.input_size,
            resize_probabilities=resize_probabilities,
        )
    if test.window is not None:
        segmenter = SlidingWindow(segmenter, window=test.window, stride=test.stride or 2 * test.window // 3)
    return segmenter


def _check_options(segmenter: Segmenter, test: TestConfig) -> None:
    scales, window, stride = test.tta.scales, test.window, test.stride
    if stride is not None and (window is None or stride > window):
        against = "is set without test.window" if window is None else f"({stride}) is above test.window ({window})"
        raise ValueError(f"test.stride {against}; it is the step between windows, at most the side of one")
    if window is not None and (test.short_side or test.input_size):
        name, value = (
            ("short_side", test.short_side) if test.short_side else ("input_size", list(test.input_size or ()))
        )
        raise ValueError(
            f"test.window is for images at their own size, but test.{name} ({value}, possibly the "
            "checkpoint's own) resizes them; set test.short_side=0 (and test.input_size=null), or leave out "
            "test.window"
        )
    if not segmenter.gives_scores and (len(scales) > 1 or test.tta.flip or window is not None):
        raise ValueError(
            "test.tta and test.window average scores, but this file gives label maps; export it with --output logits"
        )


class _Wrapper(Segmenter):
    """Base class of segmenters that wrap another one, whose device, alignment, runtime and precision they report."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter
        self.device = segmenter.device
        self.align_corners = segmenter.align_corners
        self.runtime, self.precision = segmenter.runtime, segmenter.precision


class MultiView(_Wrapper):
    """Test-time augmentation: the mean probabilities over scaled and mirrored copies of an image.

    Args:
        scales: of the image's sides, relative to the image itself or to its size under `short_side` or `input_size`.
        flip: also use each scale mirrored.
        short_side: size in pixels that the short side has at scale 1; None for the image's own.
        input_size: height and width at scale 1, whatever the image's aspect ratio; None for the image's own. With it,
            images are resized as Matlab's `imresize` does bilinearly: corners are not aligned, shrinking antialiases.
        resize_probabilities: resize the probabilities at a view's size to that of the image, in the same way, rather
            than logits: as in the paper's evaluation. The scores then have the image's size.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        *,
        scales: Sequence[float],
        flip: bool,
        short_side: int | None = None,
        input_size: Sequence[int] | None = None,
        resize_probabilities: bool = False,
    ) -> None:
        super().__init__(segmenter)
        self.gives_scores = segmenter.gives_scores
        self.scales = sorted(scales, reverse=True)
        self.flip = flip
        self.short_side = short_side
        self.input_size = input_size
        self.resize_probabilities = resize_probabilities

    def __call__(self, image: Tensor) -> Tensor:
        """Return the most likely class of every pixel: (B, 3, H, W) uint8 -> (B, H, W) uint8."""
        if self.gives_scores:
            return super().__call__(image)
        labels = self.segmenter(self._scaled(image, self.scales[0]))  # a single view
        return resize_target(labels, image.shape[-2:], align_corners=self.align_corners)

    @torch.inference_mode()
    def scores(self, image: Tensor) -> Tensor:
        """Return the log of the mean probabilities (B, C, h, w), at the logits' resolution for the largest view.

        A single view's logits are returned as they are, and with `resize_probabilities` the size is (B, C, H, W).
        """
        image = image.to(self.device, non_blocking=self.device.type == "cuda")
        if len(self.scales) == 1 and not self.flip and not self.resize_probabilities:
            return self.segmenter.scores(self._scaled(image, self.scales[0]))
        size = image.shape[-2:] if self.resize_probabilities else None
        total: Tensor | float = 0.0
        for logits in self._views(image):
            size = size or logits.shape[-2:]
            total = total + self._probabilities(logits, size)
        assert isinstance(total, Tensor), self.scales
        return (total / (len(self.scales) * (1 + self.flip))).clamp_min(_LEAST).log()

    def _probabilities(self, logits: Tensor, size: Sequence[int]) -> Tensor:
        """Return the probabilities of a view at the size of the scores."""
        if self.resize_probabilities:
            return _imresize(logits.softmax(1), size)
        return resize(logits, size, align_corners=self.align_corners).softmax(1)

    def _views(self, image: Tensor) -> Iterator[Tensor]:
        """Yield the logits (B, C, h, w) of each view, largest first; those of mirrored views are mirrored back.

        With `resize_probabilities` they have the view's size.
        """
        for scale in self.scales:
            view = self._scaled(image, scale)
            for mirrored in (False, True) if self.flip else (False,):
                logits = self.segmenter.scores(view.flip(-1) if mirrored else view)
                if self.resize_probabilities:
                    logits = resize(logits, view.shape[-2:], align_corners=self.align_corners)
                yield logits.flip(-1) if mirrored else logits

    def _scaled(self, image: Tensor, scale: float) -> Tensor:
        """Resize uint8 images; enlarge them as the network resizes its features, shrink them with antialiasing."""
        if self.input_size is not None:
            size = [max(1, round(side * scale)) for side in self.input_size]
            return _imresize(image.float(), size).round().to(torch.uint8)
        if self.short_side is not None:
            scale = scale * self.short_side / min(image.shape[-2:])
        if scale == 1:
            return image
        size = [max(1, round(side * scale)) for side in image.shape[-2:]]
        if scale > 1:
            return _resize_pixels(image, size, align_corners=self.align_corners)
        return _resize_pixels(image, size, antialias=True)


class SlidingWindow(_Wrapper):
    """Prediction window by window, averaging probabilities where windows overlap.

    Memory holds the probabilities of one row of windows at full size, however high the image is.

    Args:
        window: height and width of the windows in pixels, each at most that of the image.
        stride: step from one window to the next; the last ones end at the image's borders.
    """

    gives_scores = False  # those of a large image would not fit into memory

    def __init__(self, segmenter: Segmenter, *, window: int, stride: int) -> None:
        super().__init__(segmenter)
        self.window = window
        self.stride = stride

    @torch.inference_mode()
    def __call__(self, image: Tensor) -> Tensor:
        """Return the most likely class of every pixel: (B, 3, H, W) uint8 -> (B, H, W) uint8."""
        return torch.cat([band.argmax(1).to(torch.uint8) for band in self._bands(image)], 1)

    @torch.inference_mode()
    def scores(self, image: Tensor) -> Tensor:
        """Return the log of the mean probabilities (B, C, H, W)."""
        bands = [(band / band.sum(1, keepdim=True)).clamp_min(_LEAST).log() for band in self._bands(image)]
        return torch.cat(bands, 2)

    def _bands(self, image: Tensor) -> Iterator[Tensor]:
        """Yield summed probabilities (B, C, rows, W) from the top, each band once no later window reaches it."""
        height = image.shape[-2]
        tops = _starts(height, self.window, self.stride)
        rest: Tensor | None = None
        for top, following in zip(tops, [*tops[1:], height], strict=True):
            row = self._row(image[..., top : top + self.window, :])
            if rest is not None:
                row[:, :, : rest.shape[2]] += rest
            yield row[:, :, : following - top]
            rest = row[:, :, following - top :]

    def _row(self, image: Tensor) -> Tensor:
        """Return the summed probabilities (B, C, h, W) of one row of windows."""
        total: Tensor | None = None
        for left in _starts(image.shape[-1], self.window, self.stride):
            part = image[..., left : left + self.window]
            logits = resize(self.segmenter.scores(part), part.shape[-2:], align_corners=self.align_corners)
            probabilities = logits.softmax(1)
            if total is None:
                total = probabilities.new_zeros(*probabilities.shape[:3], image.shape[-1])
            total[..., left : left + self.window] += probabilities
        assert total is not None, image.shape
        return total


def _resize_pixels(image: Tensor, size: Sequence[int], **how: bool) -> Tensor:
    """Resize uint8 images bilinearly; a CPU does so in integers, twice as fast, to within one level."""
    x = image if image.device.type == "cpu" else image.float()
    return F.interpolate(x, tuple(size), mode="bilinear", **how).round().to(torch.uint8)


def _imresize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Resize bilinearly, with antialiasing where that shrinks."""
    return F.interpolate(x, tuple(size), mode="bilinear", antialias=True)


def _starts(side: int, window: int, stride: int) -> list[int]:
    """Return the first pixel of each window along a side; the windows cover it and do not extend beyond it."""
    last = max(0, side - window)
    return [*range(0, last, stride), last]
