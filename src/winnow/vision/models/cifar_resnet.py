"""ResNets for 32x32 images (He et al., CVPR 2016, section 4.2): depth 6n+2, option-A shortcuts, three stages.

With `classifier="conv1x1"` and `bn="non_affine"` it is the network of the rare-gems paper: every weight is a
convolution's, no bias, no scale or shift. Parameter names: conv1, layer{1,2,3}.{i}.conv{1,2}, fc.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a parameter-free shortcut: subsampled, padded with zero channels on both sides (option
    A).
    """

    def __init__(self, inputs: int, outputs: int, stride: int, affine: bool):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs, affine=affine)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs, affine=affine)
        self.stride, self.extra = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        """(B,in,H,W) -> (B,out,H/stride,W/stride)."""
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)), inplace=True)))
        if self.stride != 1 or self.extra:
            low = self.extra // 2
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, low, self.extra - low))
        return F.relu(out.add_(x), inplace=True)


class CifarResNet(nn.Module):
    """depth = 6n+2 layers; `width`, 2*width and 4*width channels; global average pooling."""

    def __init__(self, depth: int, num_classes: int, width: int = 16, classifier: str = "linear", bn: str = "affine"):
        super().__init__()
        blocks, rest = divmod(depth - 2, 6)
        if rest or blocks < 1:
            raise ValueError(f"depth {depth} is not 6n+2")
        affine = bn == "affine"
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width, affine=affine)
        self.layer1 = self._stage(width, width, blocks, 1, affine)
        self.layer2 = self._stage(width, 2 * width, blocks, 2, affine)
        self.layer3 = self._stage(2 * width, 4 * width, blocks, 2, affine)
        if classifier == "linear":
            self.fc: nn.Module = nn.Linear(4 * width, num_classes)
        else:
            self.fc = nn.Conv2d(4 * width, num_classes, 1, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    @staticmethod
    def _stage(inputs: int, outputs: int, blocks: int, stride: int, affine: bool) -> nn.Sequential:
        first = BasicBlock(inputs, outputs, stride, affine)
        return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1, affine) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,num_classes) logits."""
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.layer3(self.layer2(self.layer1(out)))
        out = F.adaptive_avg_pool2d(out, 1)
        return torch.flatten(self.fc(out if isinstance(self.fc, nn.Conv2d) else torch.flatten(out, 1)), 1)
