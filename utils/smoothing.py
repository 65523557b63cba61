"""Calmer label maps for the frames of a video."""

import torch
from torch import Tensor


class Smoother:
    """Exponential mean of the class scores over frames, so that single frames do not flicker.

    Args:
        weight: of the past, from 0 (off) to below 1; the past counts half after ln 0.5 / ln weight frames.

    Raises:
        ValueError: a weight outside that range.
    """

    def __init__(self, weight: float = 0.0) -> None:
        if not 0 <= weight < 1:
            raise ValueError(f"--smooth must be at least 0 and below 1, got {weight:g}")
        self.weight = weight
        self.mean: Tensor | None = None

    def __call__(self, scores: Tensor) -> Tensor:
        """Return the means (B, C, h, w) up to each of the frames in `scores`, which follow one another."""
        if not self.weight:
            return scores
        means = []
        for frame in scores:
            if self.mean is None or self.mean.shape != frame.shape:
                self.mean = frame
            self.mean = torch.lerp(frame, self.mean, self.weight)
            means.append(self.mean)
        return torch.stack(means)
