"""Crops, flips and resizes of uint8 image batches, with the geometry of `winnow.vision.geometry`.

On the CPU an image is resized in 8 bits, one at a time, by torch's antialiased kernel (within one level of PIL's); on a
GPU a batch is, in floats, as two matrix products with filters that are made there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from winnow.config.parts import Data
from winnow.train.device import on_device
from winnow.vision import geometry

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def train_batch(images: Tensor, indices: np.ndarray, data: Data, seed: int, epoch: int) -> Tensor:
    """uint8 (B,C,H,W) -> float32 in [0,1], augmented as `data` says; `indices` (B,) are the images' own numbers."""
    drawn = geometry.draws(indices, seed, epoch)
    if data.train_crop != "resized":
        return to_float(moved(_sized(images, data), drawn, data))
    height, width = images.shape[-2:]
    boxes = geometry.random_boxes(np.full(len(images), height), np.full(len(images), width), drawn)
    size, flips = data.image_size or width, geometry.flips(drawn, data)
    if images.device.type != "cpu":
        return resample(images, boxes, boxes, size, flips)
    crops = [image[:, t : t + h, w0 : w0 + w] for image, (t, w0, h, w) in zip(images, boxes.tolist(), strict=True)]
    return to_float(mirrored(torch.stack([shrunk(crop, size, size) for crop in crops]), flips))


def eval_batch(images: Tensor, data: Data) -> Tensor:
    """uint8 (B,C,H,W) -> float32 in [0,1] at image_size: short side to test_resize, centre crop (or a plain resize)."""
    return to_float(_sized(images, data))


def _sized(images: Tensor, data: Data) -> Tensor:
    height, width = images.shape[-2:]
    view = geometry.test_view(height, width, data)
    if view is None:
        return images
    if images.device.type == "cpu":
        return seen(images, view)
    whole = np.array([[0, 0, height, width]])
    return resample(images, view.box(height, width)[None], whole, view.size, None)


def seen(images: Tensor, view: geometry.TestView) -> Tensor:
    """The test view of uint8 images (...,C,H,W) of one size, in 8 bits."""
    resized = shrunk(images, view.height, view.width)
    return resized[..., view.top : view.top + view.size, view.left : view.left + view.size]


def shrunk(images: Tensor, height: int, width: int) -> Tensor:
    """uint8 (...,C,H,W) resized to (height, width), antialiased bilinear, in 8 bits on the CPU."""
    if images.shape[-2:] == (height, width):
        return images
    batch = images if images.dim() == 4 else images[None]
    resized = torch.nn.functional.interpolate(batch, size=(height, width), mode="bilinear", antialias=True)
    return resized if images.dim() == 4 else resized[0]


def pixels_of(picture: Pixels, size: tuple[int, int], mirror: bool = False) -> Tensor:
    """A picture (H,W,3) resized to `size`, and mirrored afterwards if so asked: uint8 (*size,3)."""
    resized = shrunk(torch.from_numpy(np.require(picture, requirements=["C", "W"])).permute(2, 0, 1), *size)
    return (resized.flip(-1) if mirror else resized).permute(1, 2, 0)


def moved(images: Tensor, drawn: geometry.Floats, data: Data) -> Tensor:
    """Images of the model's size, padded, cut and mirrored as `data` says for training without resized crops."""
    padding, flips = data.crop_padding if data.train_crop == "pad" else 0, geometry.flips(drawn, data)
    return _shift(images, geometry.shifts(drawn, padding), padding, flips) if padding else mirrored(images, flips)


def mirrored(images: Tensor, flips: np.ndarray) -> Tensor:
    """(B,C,H,W), those images mirrored for which `flips` (B,) is true."""
    if not flips.any():
        return images
    return torch.where(on_device(flips, images.device)[:, None, None, None], images.flip(-1), images)


def to_float(images: Tensor) -> Tensor:
    """uint8 to float32 in [0,1]; floats pass."""
    return images.to(torch.float32).div_(255.0) if images.dtype == torch.uint8 else images


def resample(images: Tensor, boxes: np.ndarray, limits: np.ndarray, size: int, flips: np.ndarray | None) -> Tensor:
    """Antialiased bilinear view of `boxes` (B,4: top, left, height, width in pixels) as (B,C,size,size) floats in
    [0,1].

    Triangle filter widened by the scale when shrinking, taps confined to `limits` (B,4): what torchvision's antialiased
    resize of the crop gives, as two batched matrix products. One row of boxes stands for the whole batch.
    """
    boxes, limits = np.broadcast_arrays(np.asarray(boxes, np.float64), np.asarray(limits, np.float64))
    numbers = on_device(np.stack([boxes, limits]), images.device)
    rows, columns = (
        _filters(
            numbers[:, :, axis], numbers[:, :, axis + 2], size, images.shape[axis - 2], float(boxes[:, axis + 2].max())
        )
        for axis in (0, 1)
    )
    if flips is not None and flips.any():
        columns = torch.where(on_device(flips, images.device)[:, None, None], columns.flip(1), columns)
    return (rows[:, None] @ to_float(images) @ columns[:, None].transpose(-1, -2)).clamp_(0.0, 1.0)


def _filters(starts: Tensor, lengths: Tensor, size: int, pixels: int, longest: float) -> Tensor:
    """(B, size, pixels) weights of a triangle filter over (box, limits) x B `starts` and `lengths`; each row sums to
    one.

    Only the taps that can count are computed: 2 * max(1, longest / size) + 1 of them.
    """
    scale = (lengths[0] / size)[:, None]
    support = scale.clamp_min(1.0)
    centres = starts[0][:, None] + (torch.arange(size, device=starts.device, dtype=torch.float64) + 0.5) * scale
    first = (centres - support - 0.5).ceil()
    taps = int(2 * max(1.0, longest / size)) + 2
    places = first[..., None] + torch.arange(taps, device=starts.device)
    weights = (1.0 - (places + 0.5 - centres[..., None]).abs() / support[..., None]).clamp_min_(0.0)
    low, high = starts[1][:, None, None], (starts[1] + lengths[1])[:, None, None]
    weights = weights * ((places + 0.5 > low) & (places + 0.5 < high))
    weights = weights / weights.sum(-1, keepdim=True).clamp_min_(1e-12)
    margin = taps + int(2 * max(1.0, longest / size))  # taps before the first and after the last pixel weigh nothing
    matrix = torch.zeros((*first.shape, pixels + 2 * margin), device=starts.device)
    return matrix.scatter_(2, (places + margin).long(), weights.float())[..., margin : margin + pixels]


def _shift(images: Tensor, shifts: np.ndarray, pad: int, flips: np.ndarray) -> Tensor:
    """Zero-pad by `pad`, cut the original size at `shifts` (B,2), mirror where `flips`."""
    padded = torch.nn.functional.pad(images, (pad,) * 4)
    height, width = images.shape[-2:]
    offsets = on_device(np.column_stack([shifts, flips]), images.device)
    rows = offsets[:, :1] + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device).expand(len(images), -1)
    columns = torch.where(offsets[:, 2:] > 0, width - 1 - columns, columns) + offsets[:, 1:2]
    batch = torch.arange(len(images), device=images.device)[:, None, None, None]
    channel = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
    return padded[batch, channel, rows[:, None, :, None], columns[:, None, None, :]]
