"""Wide residual networks (Zagoruyko and Komodakis, BMVC 2016), with the layer names of the released rare-gems
network.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class WideBlock(nn.Module):
    """Pre-activation block: normalise, activate, convolve, twice; a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int, affine: bool):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs, affine=affine)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs, affine=affine)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        changes = stride != 1 or inputs != outputs
        self.convShortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """(B,in,H,W) -> (B,out,H/stride,W/stride)."""
        active = F.relu(self.bn1(x))
        out = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return out + (x if self.convShortcut is None else self.convShortcut(active))


class Stage(nn.Module):
    """`count` blocks, the first of which changes width and stride."""

    def __init__(self, inputs: int, outputs: int, count: int, stride: int, affine: bool):
        super().__init__()
        first = WideBlock(inputs, outputs, stride, affine)
        self.layer = nn.Sequential(first, *(WideBlock(outputs, outputs, 1, affine) for _ in range(count - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """(B,in,H,W) -> (B,out,H/stride,W/stride)."""
        return self.layer(x)


class WideResNet(nn.Module):
    """WRN-depth-widen: depth 6n+4, stages of 16k, 32k and 64k channels. Raises ValueError for another depth."""

    def __init__(self, depth: int, widen: int, num_classes: int, bias: bool, affine: bool):
        super().__init__()
        blocks, rest = divmod(depth - 4, 6)
        if rest or blocks < 1:
            raise ValueError(f"depth {depth} is not 6n+4")
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.block1 = Stage(16, 16 * widen, blocks, 1, affine)
        self.block2 = Stage(16 * widen, 32 * widen, blocks, 2, affine)
        self.block3 = Stage(32 * widen, 64 * widen, blocks, 2, affine)
        self.bn1 = nn.BatchNorm2d(64 * widen, affine=affine)
        self.fc = nn.Linear(64 * widen, num_classes, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,num_classes) logits."""
        out = F.relu(self.bn1(self.block3(self.block2(self.block1(self.conv1(x))))))
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(out, 1), 1))
