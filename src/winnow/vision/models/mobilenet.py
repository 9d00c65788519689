"""MobileNet-V2 for 32x32 images: the published network, and the one of the released rare-gems code, which differs.

Layer names are the released ones: conv1, bn1, layers.{i}.conv{1,2,3}, layers.{i}.shortcut.0, conv2, bn2, linear.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# expansion, channels, blocks, stride of the first (Sandler et al., CVPR 2018, table 2, strides for 32x32 images)
STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class InvertedResidual(nn.Module):
    """Expand, depthwise 3x3, project; a shortcut at stride 1.

    `released`: the expansion stands also where it expands nothing (t = 1), ReLU takes the place of ReLU6, and a block
    of stride 1 that changes the width has a 1x1 convolution as its shortcut instead of none.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int, affine: bool, released: bool):
        super().__init__()
        hidden = inputs * expansion
        self.activation: Callable[..., Tensor] = F.relu if released else F.relu6
        self.expands = released or expansion != 1
        if self.expands:
            self.conv1 = nn.Conv2d(inputs, hidden, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(hidden, affine=affine)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden, affine=affine)
        self.conv3 = nn.Conv2d(hidden, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs, affine=affine)
        self.shortcut: nn.Module | None = None
        if stride == 1 and inputs == outputs:
            self.shortcut = nn.Identity()
        elif stride == 1 and released:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs, affine=affine)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B,in,H,W) -> (B,out,H/stride,W/stride)."""
        out = self.activation(self.bn1(self.conv1(x))) if self.expands else x
        out = self.activation(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return out if self.shortcut is None else out + self.shortcut(x)


class MobileNetV2(nn.Module):
    """MobileNet-V2 with a stride of 1 in the stem and the second stage; `released` as in the blocks."""

    def __init__(self, num_classes: int, bias: bool, affine: bool, released: bool = False):
        super().__init__()
        self.activation: Callable[..., Tensor] = F.relu if released else F.relu6
        self.conv1 = nn.Conv2d(3, 32, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(32, affine=affine)
        blocks, channels = [], 32
        for expansion, outputs, count, first in STAGES:
            for i in range(count):
                blocks.append(InvertedResidual(channels, outputs, first if i == 0 else 1, expansion, affine, released))
                channels = outputs
        self.layers = nn.Sequential(*blocks)
        self.conv2 = nn.Conv2d(channels, 1280, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(1280, affine=affine)
        self.linear = nn.Linear(1280, num_classes, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,num_classes) logits."""
        out = self.layers(self.activation(self.bn1(self.conv1(x))))
        out = self.activation(self.bn2(self.conv2(out)))
        return self.linear(torch.flatten(F.adaptive_avg_pool2d(out, 1), 1))
