"""Batch normalisation over the global batch of several processes (`compute.sync_batchnorm`).

torch.nn.SyncBatchNorm runs on GPUs alone and weighs uneven parts wrongly in the backward pass; these few operations run
on every device and give what one process gets for the whole batch. They are slower than the fused kernels of a GPU.
"""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import Tensor, nn

from winnow.train import ranks


class _Mean(torch.autograd.Function):
    """The mean over the global batch. Parameters' gradients get their process's weight after the backward pass, so here
    the gradient takes the weights of the losses that it comes from, and not that of the part it goes to.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return ranks.weighted_sum(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        return ranks.weighted_sum(gradient)


def _forward(layer: Any, x: Tensor) -> Tensor:
    if not (layer.training and ranks.training_together()):
        return type(layer).forward(layer, x)
    dims = [d for d in range(x.dim()) if d != 1]
    shape = [1, -1, *[1] * (x.dim() - 2)]
    wide = x.float()
    mean = _Mean.apply(wide.mean(dims))
    centred = wide - mean.view(shape)
    variance = _Mean.apply(centred.square().mean(dims))
    if layer.track_running_stats:
        count = ranks.examples() * x[0, 0].numel()
        layer.num_batches_tracked.add_(1)
        layer.running_mean.lerp_(mean.detach(), layer.momentum)
        layer.running_var.lerp_(variance.detach() * (count / (count - 1)), layer.momentum)
    y = centred * torch.rsqrt(variance + layer.eps).view(shape)
    if layer.affine:
        y = y * layer.weight.view(shape) + layer.bias.view(shape)
    return y.to(x.dtype)


def synchronise(model: nn.Module) -> None:
    """Make the batch normalisations of `model` normalise by the global batch in training steps; with one process they
    do.
    """
    forward = torch.compiler.disable(_forward)  # here and not at its definition: this imports the whole compiler
    for layer in model.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.forward = types.MethodType(forward, layer)  # type: ignore[method-assign]
