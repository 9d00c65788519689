"""Stacks of plain convolutions for 32x32 images: VGG-16 and Conv4, with the layer names of the released rare-gems
networks.

Their last layers are linear here and 1x1 convolutions there: the same arithmetic, and the same weights but for two axes
of one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

VGG16 = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")


class Vgg16(nn.Module):
    """Thirteen 3x3 convolutions with batch normalisation, one linear layer (Simonyan and Zisserman, configuration D).

    `average`: average the last map (one vector whatever the image size). Without it the last layer acts on every
    position of the map, as in the released `tinyvgg16`: 64x64 images then give 4 * num_classes outputs, class by class.
    """

    def __init__(self, num_classes: int, bias: bool, affine: bool, average: bool = True):
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for step in VGG16:
            if step == "M":
                layers.append(nn.MaxPool2d(2, ceil_mode=True))  # ceil: images below 32x32 keep one pixel
                continue
            convolution = nn.Conv2d(channels, int(step), 3, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(int(step), affine=affine), nn.ReLU(inplace=True)]
            channels = int(step)
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, num_classes, bias=bias)
        self.average = average

    def forward(self, x: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,num_classes) logits; without `average` (B,num_classes*(H//32)*(W//32))."""
        x = self.features(x)
        if self.average:
            return self.classifier(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
        return torch.flatten(self.classifier(x.movedim(1, -1)).movedim(-1, 1), 1)


class Conv4(nn.Module):
    """Four 3x3 convolutions and three linear layers (Frankle and Carbin, ICLR 2019); without batch normalisation.

    `width` channels in the first two convolutions, twice as many in the others, 4 * width hidden units.
    """

    def __init__(self, num_classes: int, bias: bool, width: int = 64):
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, width), (width, width), (width, 2 * width), (2 * width, 2 * width)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.ReLU(inplace=True)]
            if inputs == outputs:
                layers.append(nn.MaxPool2d(2))
        self.convs = nn.Sequential(*layers)
        self.linear = nn.Sequential(
            nn.Linear(2 * width * 64, 4 * width, bias=False), nn.ReLU(inplace=True),
            nn.Linear(4 * width, 4 * width, bias=False), nn.ReLU(inplace=True),
            nn.Linear(4 * width, num_classes, bias=bias),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,num_classes) logits; 32x32 images reach the linear layers as 8x8."""
        x = self.convs(x)
        if x.shape[-1] != 8:  # its backward pass has no deterministic kernel on a GPU; 32x32 images need none
            x = F.adaptive_avg_pool2d(x, 8)
        return self.linear(torch.flatten(x, 1))
