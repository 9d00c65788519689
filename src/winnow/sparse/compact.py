"""A network without the channels that its ticket has emptied: the same outputs, fewer and smaller operations."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from winnow.sparse import attention
from winnow.sparse.channels import Channels, depthwise, plain_layer
from winnow.sparse.layers import SparseConv2d, SparseLinear
from winnow.sparse.ways import Geometry, from_stored


@dataclass(frozen=True)
class Compaction:
    """What became of a layer: shapes of its weight before and after, and surviving weights in the smaller one."""

    name: str
    before: tuple[int, ...]
    after: tuple[int, ...]
    kept: int


INSIDE = "sparse"  # name of the computing layer in a layer of a network that is not traced


class Embed(nn.Module):
    """Zeros around the map and between its channels: `pad` in a network whose channels were removed."""

    def __init__(self, widths: list[int], places: np.ndarray, channels: int):
        super().__init__()
        self.widths, self.channels = widths, channels
        self.register_buffer("places", torch.from_numpy(places))
        self.places: Tensor
        self.count = len(places)
        self.low = int(places[0]) if len(places) and (np.diff(places) == 1).all() else None  # one piece: a plain copy

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,channels,...), channel i of x at places[i]."""
        left, right, top, bottom = self.widths
        x = F.pad(x, (left, right, top, bottom)) if any(self.widths) else x
        order = tuple(sorted(range(4), key=x.stride, reverse=True))  # stored as x is
        shape = (x.shape[0], self.channels, *x.shape[2:])
        out = from_stored(x.new_zeros([shape[i] for i in order]), order)
        if self.low is None:
            out[:, self.places] = x
        else:
            out.narrow(1, self.low, self.count).copy_(x)
        return out


class Whole(nn.Module):
    """A traced network with the hooks that the model had: a graph module's own are lost when it is copied."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the network."""
        return self.network(*args, **kwargs)


def compact(model: nn.Module) -> tuple[nn.Module, list[Compaction]]:
    """`model` (in evaluation mode, removed weights zero) traced and made smaller; it stays as it is.

    Normalisations are folded into the convolutions before them. Raises what tracing raises for a forward pass that
    depends on its data.
    """
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        if module is not model and (module._forward_hooks or module._forward_pre_hooks) and any(module.children()):
            raise TypeError(f"{type(module).__name__} has hooks that tracing would pass by")
    traced = fx.GraphModule(model, fx.Tracer().trace(model), type(model).__name__)
    held = [
        n.target for n in traced.graph.nodes if n.op == "call_module" and [*traced.get_submodule(n.target).parameters()]
    ]
    if repeated := {name for name in held if held.count(name) > 1}:
        raise TypeError(f"{min(repeated)} is called more than once")
    _fold_normalisations(traced)
    channels = Channels(traced)
    channels.solve(traced.graph)
    found = []
    for node in list(traced.graph.nodes):
        if node in channels.layers:
            found.append(_smaller_layer(traced, node, channels))
        elif node.op == "call_module" and isinstance(layer := traced.get_submodule(node.target), nn.BatchNorm2d):
            if (kept := channels.kept(channels.states[node])) is not None:
                traced.set_submodule(node.target, _smaller_norm(layer, kept))
        elif node.target is F.pad and channels.states[node] is not None and len(node.args[1]) == 6:
            _embed(traced, node, channels)
    traced.delete_all_unused_submodules()  # folded normalisations
    traced.graph.lint()
    traced.recompile()
    whole = Whole(traced)
    _take_over(model, whole)
    return whole.eval(), found


def in_layers(model: nn.Module) -> tuple[nn.Module, list[Compaction]]:
    """`model` with its plain layers computing in other ways, one by one: for what cannot be traced.

    Only attention heads and hidden units of the BERT family are removed. In other networks each layer stores what it
    returns as the dense one does: their code may rely on it.
    """
    model = copy.deepcopy(model).eval()
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    known = attention.remove(model)
    found = []
    found_layers: list[tuple[str, Any]] = list(model.named_modules())
    for name, layer in found_layers:
        if name and plain_layer(layer):
            made = made_of(layer)
            made.contiguous = known is None
            layer.add_module(INSIDE, made)  # the layer itself stays: code may ask of which class it is
            layer.weight = nn.Parameter(made.weight, requires_grad=False)
            layer.forward = made.forward
            kept = int(made.weight.count_nonzero())
            found.append(Compaction(name, shapes[f"{name}.weight"], tuple(made.weight.shape), kept))
    return model, found


def _fold_normalisations(traced: fx.GraphModule) -> None:
    for node in list(traced.graph.nodes):
        before = node.args[0] if node.args else None
        if (
            node.op != "call_module"
            or not isinstance(before, fx.Node)
            or before.op != "call_module"
            or len(before.users) > 1
        ):
            continue
        norm: Any
        layer: Any
        norm, layer = traced.get_submodule(node.target), traced.get_submodule(str(before.target))
        once = all(sum(n.target == t for n in traced.graph.nodes) == 1 for t in (node.target, before.target))
        if once and isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and _folds(layer):
            traced.set_submodule(str(before.target), fuse_conv_bn_eval(layer, norm))
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)
    traced.recompile()


def _folds(layer: Any) -> bool:
    return isinstance(layer, nn.Conv2d) and plain_layer(layer)


def _bias(layer: Any) -> Tensor | None:
    return None if layer.bias is None else layer.bias.detach()


def made_of(layer: Any) -> SparseConv2d | SparseLinear:
    """A plain layer as one that has a choice."""
    return _made(layer, layer.weight.detach(), _bias(layer), None)


def _made(layer: Any, weight: Tensor, bias: Tensor | None, border: Tensor | None) -> SparseConv2d | SparseLinear:
    if isinstance(layer, nn.Linear):
        return SparseLinear(weight, bias)
    groups = len(weight) if depthwise(layer) else layer.groups
    return SparseConv2d(weight, bias, Geometry(layer.stride, layer.padding, layer.dilation, groups), border)


def _smaller_layer(traced: fx.GraphModule, node: fx.Node, channels: Channels) -> Compaction:
    """Replace a layer by one on the channels that stay; what the removed constant ones gave goes into bias or
    border.
    """
    layer: Any = traced.get_submodule(str(node.target))
    inputs, outputs = channels.layers[node]
    whole: Tensor = layer.weight.detach()
    weight, bias, border = whole, _bias(layer), None
    rows = channels.kept(outputs)
    if rows is not None:
        weight = weight[rows]
        bias = None if bias is None else bias[rows]
    columns = None if depthwise(layer) else channels.kept(inputs)
    if columns is not None and inputs is not None:
        bias, border = _constants(layer, weight, bias, inputs.constant, columns)
        weight = weight[:, columns]
    made = _made(layer, weight.contiguous(), bias, border)
    traced.set_submodule(str(node.target), made)
    return Compaction(str(node.target), tuple(whole.shape), tuple(weight.shape), int(weight.count_nonzero()))


def _constants(
    layer: Any, weight: Tensor, bias: Tensor | None, constant: Tensor, columns: np.ndarray
) -> tuple[Tensor | None, Tensor | None]:
    """Bias and border of a layer whose input channels outside `columns` are constant, or not read at all."""
    gone = torch.ones(len(constant), dtype=torch.bool)
    gone[columns] = False
    values = torch.where(gone, constant, 0.0).nan_to_num(0.0).to(weight.device)
    if not values.any():
        return bias, None
    given = torch.einsum("oi...,i->o...", weight.double(), values)
    if given.dim() > 2 and max(layer.padding) > 0:
        return bias, given[:, None].to(weight) if given.any() else None
    added = given.flatten(1).sum(1) if given.dim() > 1 else given
    return (added if bias is None else bias.double() + added).to(weight), None


def _smaller_norm(norm: Any, kept: np.ndarray) -> nn.BatchNorm2d:
    small = nn.BatchNorm2d(len(kept), norm.eps, norm.momentum, norm.affine, device=norm.running_mean.device)
    state: Mapping[str, Tensor] = norm.state_dict()
    small.load_state_dict({k: v[kept] if v.dim() else v for k, v in state.items()})
    return small.eval()


def _embed(traced: fx.GraphModule, node: Any, channels: Channels) -> None:
    before = channels.states[node.args[0]]
    state = channels.states[node]
    assert before is not None and state is not None
    inside, outside = channels.kept(before), channels.kept(state)
    low = node.args[1][4]
    assert inside is not None and outside is not None and isinstance(low, int)
    name = f"{node.name}_embed"
    widths: Any = list(node.args[1][:4])
    traced.add_submodule(name, Embed(widths, np.searchsorted(outside, inside + low), len(outside)))
    with traced.graph.inserting_before(node):
        made = traced.graph.call_module(name, (node.args[0],))
    node.replace_all_uses_with(made)
    traced.graph.erase_node(node)


def _take_over(model: nn.Module, whole: Whole) -> None:
    """Hooks and buffers of the whole model: its own normalisation of the input."""
    for name, buffer in model.named_buffers(recurse=False):
        whole.register_buffer(name, buffer, persistent=name not in model._non_persistent_buffers_set)
    whole._forward_pre_hooks.update(model._forward_pre_hooks)
    whole._forward_pre_hooks_with_kwargs.update(model._forward_pre_hooks_with_kwargs)
    whole._forward_hooks.update(model._forward_hooks)
    whole._forward_hooks_with_kwargs.update(model._forward_hooks_with_kwargs)
