"""VGG-16, MobileNet-V2, WideResNet and Conv4 for 32x32 images, as the rare-gems paper uses them.

`classifier="conv1x1"` here means: no bias in the last linear layer (for the same arithmetic). `bn="non_affine"`: batch
normalisation without scale and shift.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

VGG16 = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")
# expansion, channels, blocks, stride of the first (Sandler et al., CVPR 2018, table 2, strides for 32x32 images)
MOBILENET = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def _conv_bn(inputs: int, outputs: int, size: int, affine: bool, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(outputs, affine=affine)]


class Vgg16(nn.Module):
    """Thirteen 3x3 convolutions with batch normalisation, one linear layer (Simonyan and Zisserman, configuration D)."""

    def __init__(self, num_classes: int, bias: bool, affine: bool):
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for step in VGG16:
            if step == "M":
                layers.append(nn.MaxPool2d(2, ceil_mode=True))  # ceil: images below 32x32 keep one pixel
            else:
                layers += [*_conv_bn(channels, int(step), 3, affine), nn.ReLU(inplace=True)]
                channels = int(step)
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, num_classes, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,num_classes) logits."""
        return self.classifier(torch.flatten(F.adaptive_avg_pool2d(self.features(x), 1), 1))


class Conv4(nn.Module):
    """Four 3x3 convolutions and three linear layers (Frankle and Carbin, ICLR 2019); without batch normalisation."""

    def __init__(self, num_classes: int, bias: bool, affine: bool):
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, 64), (64, 64), (64, 128), (128, 128)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.ReLU(inplace=True)]
            if inputs == outputs:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(128 * 64, 256, bias=False), nn.ReLU(inplace=True),
            nn.Linear(256, 256, bias=False), nn.ReLU(inplace=True),
            nn.Linear(256, num_classes, bias=bias),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,num_classes) logits; 32x32 images reach the linear layers as 8x8."""
        x = self.features(x)
        if x.shape[-1] != 8:  # its backward pass has no deterministic kernel on a GPU; 32x32 images need none
            x = F.adaptive_avg_pool2d(x, 8)
        return self.classifier(torch.flatten(x, 1))


class InvertedResidual(nn.Module):
    """Expand, depthwise 3x3, project; a shortcut when the shape stays."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int, affine: bool):
        super().__init__()
        hidden = inputs * expansion
        layers = [*_conv_bn(inputs, hidden, 1, affine), nn.ReLU6(inplace=True)] if expansion != 1 else []
        layers += [*_conv_bn(hidden, hidden, 3, affine, stride, groups=hidden), nn.ReLU6(inplace=True)]
        self.conv = nn.Sequential(*layers, *_conv_bn(hidden, outputs, 1, affine))
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B,in,H,W) -> (B,out,H/stride,W/stride)."""
        return x + self.conv(x) if self.shortcut else self.conv(x)


class MobileNetV2(nn.Module):
    """MobileNet-V2 (Sandler et al., CVPR 2018) with a stride of 1 in the stem and the second stage."""

    def __init__(self, num_classes: int, bias: bool, affine: bool):
        super().__init__()
        layers: list[nn.Module] = [*_conv_bn(3, 32, 3, affine), nn.ReLU6(inplace=True)]
        channels = 32
        for expansion, outputs, blocks, first in MOBILENET:
            for i in range(blocks):
                layers.append(InvertedResidual(channels, outputs, first if i == 0 else 1, expansion, affine))
                channels = outputs
        self.features = nn.Sequential(*layers, *_conv_bn(channels, 1280, 1, affine), nn.ReLU6(inplace=True))
        self.classifier = nn.Linear(1280, num_classes, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,num_classes) logits."""
        return self.classifier(torch.flatten(F.adaptive_avg_pool2d(self.features(x), 1), 1))


class WideBlock(nn.Module):
    """Pre-activation block: normalise, activate, convolve, twice; a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int, affine: bool):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs, affine=affine)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs, affine=affine)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        changes = stride != 1 or inputs != outputs
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """(B,in,H,W) -> (B,out,H/stride,W/stride)."""
        active = F.relu(self.bn1(x))
        out = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return out + (x if self.shortcut is None else self.shortcut(active))


class WideResNet(nn.Module):
    """WRN-depth-width (Zagoruyko and Komodakis, BMVC 2016): depth 6n+4, stages of 16k, 32k and 64k channels."""

    def __init__(self, depth: int, widen: int, num_classes: int, bias: bool, affine: bool):
        super().__init__()
        blocks, rest = divmod(depth - 4, 6)
        if rest or blocks < 1:
            raise ValueError(f"depth {depth} is not 6n+4")
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        layers, channels = [], 16
        for outputs, first in ((16 * widen, 1), (32 * widen, 2), (64 * widen, 2)):
            for i in range(blocks):
                layers.append(WideBlock(channels, outputs, first if i == 0 else 1, affine))
                channels = outputs
        self.blocks = nn.Sequential(*layers)
        self.bn = nn.BatchNorm2d(channels, affine=affine)
        self.fc = nn.Linear(channels, num_classes, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,num_classes) logits."""
        out = F.relu(self.bn(self.blocks(self.conv1(x))))
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(out, 1), 1))
