"""Crops, flips and resizes of uint8 image batches on their device.

The geometry of an image depends on (seed, epoch, image index) alone, and both loaders call these functions (in batches on
the device, or one image at a time in a worker), so an image is augmented alike wherever it is.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from winnow.config.parts import Data
from winnow.errors import WinnowError
from winnow.rng import uniform

_DRAWS = 6


def train_batch(images: Tensor, indices: np.ndarray, data: Data, seed: int, epoch: int) -> Tensor:
    """uint8 (B,C,H,W) -> float32 in [0,1], augmented as `data` says; `indices` (B,) are the images' own numbers."""
    draws = uniform(indices, _DRAWS, seed, "augment", epoch)
    flips = (draws[:, 0] < 0.5) if data.flip else np.zeros(len(indices), dtype=bool)
    if data.train_crop == "resized":
        boxes = _random_boxes(images.shape[-2], images.shape[-1], draws[:, 1:])
        size = data.image_size or images.shape[-1]
        return resample(images, boxes, boxes, size, flips)
    sized = eval_batch(images, data) if _resizes(images, data) else images
    pad = data.crop_padding if data.train_crop == "pad" else 0
    shifts = np.floor(draws[:, 1:3] * (2 * pad + 1)).astype(np.int64)
    return to_float(_shift(sized, shifts, pad, flips) if pad or data.flip else sized)


def eval_batch(images: Tensor, data: Data) -> Tensor:
    """uint8 (B,C,H,W) -> float32 in [0,1] at image_size: short side to test_resize, centre crop (or a plain resize)."""
    height, width = images.shape[-2:]
    size = data.image_size or width
    if data.image_size is None and height != width:
        raise WinnowError("data.image_size: the stored images are not square; set the side that the model shall see")
    if not _resizes(images, data):
        return to_float(images)
    scale = min(height, width) / (data.test_resize or size)
    view = size * scale
    box = np.array([[(height - view) / 2, (width - view) / 2, view, view]])
    if data.test_resize is None and height != width:
        box = np.array([[0.0, 0.0, height, width]])
    boxes = np.repeat(box, len(images), axis=0)
    whole = np.repeat(np.array([[0.0, 0.0, height, width]]), len(images), axis=0)
    return resample(images, boxes, whole, size, np.zeros(len(images), dtype=bool))


def to_float(images: Tensor) -> Tensor:
    """uint8 to float32 in [0,1]; floats pass."""
    return images.to(torch.float32).div_(255.0) if images.dtype == torch.uint8 else images


def resample(images: Tensor, boxes: np.ndarray, limits: np.ndarray, size: int, flips: np.ndarray) -> Tensor:
    """Antialiased bilinear view of `boxes` (B,4: top, left, height, width in pixels) as (B,C,size,size) floats in [0,1].

    Triangle filter widened by the scale when shrinking, taps confined to `limits`: what torchvision's antialiased resize
    of the crop gives, as two batched matrix products.
    """
    rows = _filter_matrix(boxes[:, 0], boxes[:, 2], limits[:, 0], limits[:, 2], size, images.shape[-2])
    columns = _filter_matrix(boxes[:, 1], boxes[:, 3], limits[:, 1], limits[:, 3], size, images.shape[-1])
    columns[flips] = columns[flips, ::-1]
    left = torch.from_numpy(rows).to(images.device)[:, None]
    right = torch.from_numpy(columns).to(images.device)[:, None].transpose(-1, -2)
    return (left @ to_float(images) @ right).clamp_(0.0, 1.0)


def _filter_matrix(start, length, low, span, size: int, pixels: int) -> np.ndarray:  # type: ignore[no-untyped-def]
    """(B, size, pixels) weights of a triangle filter; each row sums to one."""
    scale = (length / size)[:, None, None]
    support = np.maximum(scale, 1.0)
    centres = start[:, None, None] + (np.arange(size)[None, :, None] + 0.5) * scale
    positions = np.arange(pixels)[None, None, :] + 0.5
    weights = np.maximum(0.0, 1.0 - np.abs(positions - centres) / support)
    inside = (positions > low[:, None, None]) & (positions < (low + span)[:, None, None])
    weights = weights * inside
    return (weights / np.maximum(weights.sum(-1, keepdims=True), 1e-12)).astype(np.float32)


def _random_boxes(height: int, width: int, draws: np.ndarray) -> np.ndarray:
    """RandomResizedCrop's box: area 8-100 %, aspect ratio 3/4-4/3 (log-uniform), clipped to the image; whole pixels."""
    area = (0.08 + 0.92 * draws[:, 0]) * height * width
    ratio = np.exp(np.log(3 / 4) + draws[:, 1] * (np.log(4 / 3) - np.log(3 / 4)))
    w = np.clip(np.rint(np.sqrt(area * ratio)), 1, width)
    h = np.clip(np.rint(np.sqrt(area / ratio)), 1, height)
    top, left = np.floor(draws[:, 2] * (height - h + 1)), np.floor(draws[:, 3] * (width - w + 1))
    return np.stack([top, left, h, w], axis=1)


def _resizes(images: Tensor, data: Data) -> bool:
    size = data.image_size or images.shape[-1]
    return data.test_resize is not None or tuple(images.shape[-2:]) != (size, size)


def _shift(images: Tensor, shifts: np.ndarray, pad: int, flips: np.ndarray) -> Tensor:
    """Zero-pad by `pad`, cut the original size at `shifts` (B,2), mirror where `flips`."""
    padded = torch.nn.functional.pad(images, (pad,) * 4)
    height, width = images.shape[-2:]
    offsets = torch.from_numpy(shifts).to(images.device)
    rows = offsets[:, :1] + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device).expand(len(images), -1)
    columns = torch.where(torch.from_numpy(flips).to(images.device)[:, None], width - 1 - columns, columns) + offsets[:, 1:]
    batch = torch.arange(len(images), device=images.device)[:, None, None, None]
    channel = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
    return padded[batch, channel, rows[:, None, :, None], columns[:, None, None, :]]
