"""Coloured images: the luminance of an image, shown in one colour (Block et al. 2025, arXiv 2505.22601)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

RED, GREEN, GRAY = (255, 0, 0), (0, 255, 0), (255, 255, 255)

PALETTE = (
    (255, 0, 0),  # red
    (0, 255, 0),  # green
    (0, 0, 255),  # blue
    (255, 255, 0),  # yellow
    (255, 0, 255),  # magenta
    (0, 255, 255),  # cyan
    (255, 128, 0),  # orange
    (128, 0, 255),  # purple
    (128, 128, 128),  # gray
    (0, 128, 128),  # teal
)
"""The colour of each of ten classes."""

_BT601 = (0.299, 0.587, 0.114)


def luminance(pixels: Tensor) -> Tensor:
    """L = 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601). The paper does not say which luminance it takes.

    Args:
        pixels: (..., 3, H, W), or (..., 1, H, W) which are grey already.

    Returns:
        (..., 1, H, W).
    """
    if pixels.shape[-3] == 1:
        return pixels
    return (pixels * pixels.new_tensor(_BT601)[:, None, None]).sum(dim=-3, keepdim=True)


def coloured(grey: Tensor, colours: Tensor | Sequence[int]) -> Tensor:
    """What the models see: L · colour / 255 in each channel, then (x − 0.5) / 0.5.

    Args:
        grey: luminance in [0, 1], (N, 1, H, W).
        colours: red, green and blue in 0..255: (N, 3), or (3,) for all.

    Returns:
        (N, 3, H, W) in [−1, 1].
    """
    shares = torch.as_tensor(colours, dtype=grey.dtype) / 255
    return (grey * shares[..., None, None] - 0.5) / 0.5
