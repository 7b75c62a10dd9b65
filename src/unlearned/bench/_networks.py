"""A small residual network (He et al. 2016) with batch normalisation: what image suites train in seconds."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """Two convolutions beside a shortcut: relu(norm(conv(relu(norm(conv(x))))) + shortcut(x)).

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
        stride: of the first convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        alike = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if alike else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H/stride, W/stride)."""
        inner = torch.relu(self.first_norm(self.first(x)))
        return torch.relu(self.second_norm(self.second(inner)) + self.shortcut(x))


def small_resnet(channels: int, width: int = 16, classes: int = 10) -> nn.Module:
    """From (B, channels, H, W) to logits (B, classes): a strided stem, two blocks, a mean over positions, a linear layer; 20,000 parameters at width 16."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, 2, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        Block(width, width, 1),
        Block(width, 2 * width, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * width, classes),
    )


def resnet18(channels: int, classes: int = 10) -> nn.Module:
    """ResNet-18 for small images (B, channels, H, W): its stem is a 3 x 3 convolution without stride and without pooling; 11 million parameters."""
    widths = (64, 64, 128, 256, 512)
    stages = [Block(inputs, outputs, 1 if inputs == outputs else 2) for inputs, outputs in itertools.pairwise(widths)]
    return nn.Sequential(
        nn.Conv2d(channels, widths[0], 3, 1, 1, bias=False),
        nn.BatchNorm2d(widths[0]),
        nn.ReLU(),
        *(block for stage, width in zip(stages, widths[1:], strict=True) for block in (stage, Block(width, width, 1))),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(widths[-1], classes),
    )


def fashion_network() -> nn.Module:
    """For Fashion-MNIST at half its size: grey, ten classes."""
    return small_resnet(1)


def cifar_network() -> nn.Module:
    """For CIFAR-10 at half its size: three colours, ten classes."""
    return small_resnet(3)
