"""Which channels of a network's maps and vectors no surviving weight writes or reads.

A channel is constant where its filter is empty: the value is its bias, and goes on through normalisations, activations,
pooling and sums as a number. It is needed where a surviving weight of a needed channel reads it while it is not
constant. Channels that an operation carries along (elementwise operations, sums of branches, depthwise kernels) stand
or fall together: they share a label. What is not needed can be removed exactly; what is constant goes into the bias of
its readers.

Operations that are not known here keep all channels of what they read: nothing about them is assumed.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh,
 nn.Sigmoid,
               nn.Tanh, nn.Softplus, nn.Mish)  # fmt: skip
CARRYING = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
ACTIVATION_CALLS = {F.relu, F.relu6, F.leaky_relu, F.elu, F.gelu, F.silu, F.hardswish, F.hardsigmoid, F.hardtanh,
 torch.relu,
                    torch.sigmoid, F.sigmoid, torch.tanh, F.tanh, F.mish, "relu", "relu_", "sigmoid",
                    "tanh"}  # fmt: skip
CARRYING_CALLS = {F.adaptive_avg_pool2d, F.adaptive_max_pool2d, F.max_pool2d, torch.max_pool2d, "contiguous"}
SUMS: dict[Any, Callable[[Tensor, Tensor], Tensor]] = {
    operator.add: torch.add, operator.iadd: torch.add, torch.add: torch.add, "add": torch.add, "add_": torch.add,
    operator.sub: torch.sub, operator.mul: torch.mul, operator.imul: torch.mul, torch.mul: torch.mul, "mul": torch.mul,
}  # fmt: skip
FLATTEN = {torch.flatten, "flatten"}


@dataclass
class State:
    """Of a node's channels: labels (C), and values where they are constant (C, float64; NaN: they depend on the input).

    `flat`: one value a channel, (B,C), or a flattened map (B,C*H*W), channel by channel.
    """

    labels: np.ndarray
    constant: Tensor
    flat: bool = False


@dataclass
class Reader:
    """A layer that mixes channels: which output channel has a surviving weight on which input channel, (O,I) bool."""

    inputs: State | None
    outputs: State
    weights: np.ndarray


@dataclass
class Channels:
    """The channels of a traced network; `kept(node)` after `solve()`."""

    module: nn.Module
    states: dict[fx.Node, State | None] = field(default_factory=dict)
    readers: list[Reader] = field(default_factory=list)
    # convolutions and linear layers
    layers: dict[fx.Node, tuple[State | None, State | None]] = field(default_factory=dict)
    _parents: list[int] = field(default_factory=list)
    _forced: set[int] = field(default_factory=set)
    _needed: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))

    def solve(self, graph: fx.Graph) -> None:
        """Follow constants forwards, then needs backwards until nothing is added."""
        for node in graph.nodes:
            self.states[node] = self._state(node)
        roots = np.array([self._root(i) for i in range(len(self._parents))], dtype=np.int64)
        self._parents = roots.tolist()
        needed = np.zeros(len(roots), bool)
        needed[[roots[i] for i in self._forced]] = True
        while True:
            before = needed.sum()
            for reader in reversed(self.readers):
                if reader.inputs is None:
                    continue
                rows = needed[roots[reader.outputs.labels]]
                read = reader.weights[rows].any(0) & reader.inputs.constant.isnan().numpy()
                needed[roots[reader.inputs.labels[read]]] = True
            if needed.sum() == before:
                empty = next((s for s in self._stored() if not needed[roots[s.labels]].any()), None)
                if empty is None:
                    break
                needed[roots[empty.labels[0]]] = True  # a layer keeps one channel at least
        self._needed = needed[roots]

    def kept(self, state: State | None) -> np.ndarray | None:
        """Indices of the channels that stay; None where all do because nothing is known of them."""
        return None if state is None else np.flatnonzero(self._needed[state.labels])

    def _stored(self) -> Iterator[State]:
        return (s for s in self.states.values() if s is not None)

    def _root(self, label: int) -> int:
        while self._parents[label] != label:
            self._parents[label] = self._parents[self._parents[label]]
            label = self._parents[label]
        return label

    def _new(self, count: int) -> np.ndarray:
        first = len(self._parents)
        self._parents += range(first, first + count)
        return np.arange(first, first + count)

    def _join(self, some: np.ndarray, others: np.ndarray) -> None:
        for a, b in zip(some.tolist(), others.tolist(), strict=True):
            self._parents[self._root(a)] = self._root(b)

    def _force(self, state: State | None) -> None:
        if state is not None:
            self._forced.update(state.labels.tolist())

    def _unknown(self, node: fx.Node) -> None:
        for before in node.all_input_nodes:
            self._force(self.states[before])

    def _state(self, node: fx.Node) -> State | None:
        if node.op in ("placeholder", "get_attr"):
            return None
        if in_place(node, self.module) and any(len(n.users) > 1 for n in node.all_input_nodes[:1]):
            self._force(self.states[node.all_input_nodes[0]])  # what else reads it sees the result
        first = self.states[node.args[0]] if node.args and isinstance(node.args[0], fx.Node) else None
        found = self._module(node, first) if node.op == "call_module" else self._call(node, first)
        if found is None and node not in self.layers:
            self._unknown(node)
        return found

    def _module(self, node: fx.Node, first: State | None) -> State | None:
        layer: Any = self.module.get_submodule(str(node.target))
        if plain_layer(layer) and len(node.args) == 1 and not node.kwargs:
            return self._layer(node, layer, first)
        if first is None or len(node.args) != 1 or node.kwargs or layer._forward_hooks or layer._forward_pre_hooks:
            return None
        if isinstance(layer, ACTIVATIONS):
            return State(first.labels, layer(first.constant.clone()), first.flat)
        if isinstance(layer, CARRYING) or (isinstance(layer, nn.AvgPool2d) and _even(layer)):
            return first
        if isinstance(layer, nn.Flatten) and (layer.start_dim, layer.end_dim) == (1, -1):
            return State(first.labels, first.constant, True)
        if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None and not first.flat:
            gain, shift = gain_and_shift(layer)
            return State(first.labels, first.constant * gain + shift)
        return None

    def _layer(self, node: fx.Node, layer: Any, first: State | None) -> State | None:
        weight = layer.weight.detach()
        groups = getattr(layer, "groups", 1)
        outputs = weight.shape[0]
        bias = layer.bias.detach().double() if layer.bias is not None else torch.zeros(outputs, dtype=torch.float64)
        if groups > 1 and not depthwise(layer):
            self._force(first)
            self.layers[node] = (first, None)
            return None
        if depthwise(layer):
            sums = weight.double().sum((1, 2, 3))
            values = torch.full((outputs,), torch.nan, dtype=torch.float64) if first is None else first.constant
            exact = (values == 0) | (torch.tensor(max(layer.padding) == 0) & ~values.isnan())
            constant = torch.where(exact, values * sums + bias, torch.nan)
            constant = torch.where(weight.flatten(1).ne(0).any(1), constant, bias)
            state = State(self._new(outputs), constant)
            if first is None:
                self._force(state)
            else:
                self._join(first.labels, state.labels)
            self.layers[node] = (first, state)
            return state
        inputs = None
        if first is not None:
            times = weight.shape[1] // len(first.labels)
            inputs = State(np.repeat(first.labels, times), first.constant.repeat_interleave(times), first.flat)
            if (isinstance(layer, nn.Linear) and not first.flat) or times * len(first.labels) != weight.shape[1]:
                self._force(first)
                inputs = None
        taps = weight.flatten(2).ne(0).any(2) if weight.dim() == 4 else weight.ne(0)
        padded = weight.dim() == 4 and max(layer.padding) > 0
        values = torch.full((weight.shape[1],), torch.nan, dtype=torch.float64) if inputs is None else inputs.constant
        moving = (values.isnan() | ((values != 0) & padded)).to(taps.device)
        total = weight.double().flatten(2).sum(2) if weight.dim() == 4 else weight.double()
        constant = torch.where((taps & moving).any(1), torch.nan, total @ values.nan_to_num(0.0).to(total) + bias).cpu()
        state = State(self._new(outputs), constant, flat=isinstance(layer, nn.Linear))
        self.readers.append(Reader(inputs, state, taps.cpu().numpy()))
        self.layers[node] = (inputs, state)
        if (
            isinstance(layer, nn.Linear) and inputs is None
        ):  # (B,outputs) or (B,...,outputs): not known, so followed no further
            self._force(state)
            return None
        return state

    def _call(self, node: Any, first: State | None) -> State | None:
        target, rest = node.target, node.args[1:]
        plain_rest = not any(isinstance(a, fx.Node) for a in [*rest, *node.kwargs.values()])
        if target in (torch.cat, torch.concat) and _axis(node) == 1:
            parts = [s for n in node.args[0] if (s := self.states[n]) is not None and not s.flat]
            if len(parts) < len(node.args[0]):
                return None
            return State(np.concatenate([p.labels for p in parts]), torch.cat([p.constant for p in parts]))
        if first is None:
            return None
        if target in SUMS and len(node.args) == 2 and not node.kwargs:
            return self._sum(SUMS[target], first, rest[0])
        if not plain_rest:
            return None
        if target in ACTIVATION_CALLS:
            return State(first.labels, _applied(node, first.constant), first.flat)
        if target in CARRYING_CALLS or (target is F.dropout and not _trains(node)) or _strides(node):
            return first
        if target in FLATTEN and rest == (1,) and not node.kwargs:
            return State(first.labels, first.constant, True)
        if target == "mean" and tuple(rest[:1]) in (((2, 3),), ([2, 3],)):
            return State(first.labels, first.constant, not (node.kwargs.get("keepdim") or rest[1:] == (True,)))
        return self._pad(first, rest, node.kwargs) if target is F.pad and not first.flat else None

    def _sum(self, function: Callable[[Tensor, Tensor], Tensor], first: State, other: Any) -> State | None:
        if isinstance(other, int | float):
            return State(
                first.labels, function(first.constant, torch.tensor(float(other), dtype=torch.float64)), first.flat
            )
        second = self.states.get(other)
        if second is None or len(second.labels) != len(first.labels) or second.flat != first.flat:
            return None
        self._join(first.labels, second.labels)
        return State(first.labels, function(first.constant, second.constant), first.flat)

    def _pad(self, first: State, rest: tuple[Any, ...], kwargs: dict[str, Any]) -> State | None:
        """Zeros around the map, and as new channels."""
        widths = list(rest[0]) if rest else []
        how = dict(zip(("mode", "value"), rest[1:], strict=False)) | kwargs  # tracing may spell the defaults out
        if (
            how.pop("mode", "constant") != "constant"
            or how.pop("value", None) not in (None, 0)
            or how
            or not all(isinstance(n, int) and n >= 0 for n in widths)
            or len(widths) not in (4, 6)
        ):
            return None
        constant = torch.where(first.constant == 0, 0.0, torch.nan) if any(widths[:4]) else first.constant
        low, high = widths[4:] or (0, 0)
        zeros = torch.zeros(low + high, dtype=torch.float64)
        labels = self._new(low + high)
        return State(
            np.concatenate([labels[:low], first.labels, labels[low:]]), torch.cat([zeros[:low], constant, zeros[low:]])
        )


def plain_layer(layer: nn.Module) -> bool:
    """A convolution or linear layer that does what its class says: no hook, no parametrization, zero padding."""
    if layer._forward_hooks or layer._forward_pre_hooks or "weight" not in layer._parameters:
        return False
    if type(layer) is nn.Conv2d:
        return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return type(layer) is nn.Linear


def depthwise(layer: nn.Module) -> bool:
    """Whether each input channel has one filter of its own."""
    return isinstance(layer, nn.Conv2d) and 1 < layer.groups == layer.in_channels == layer.out_channels


def gain_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """A normalisation in evaluation mode as y = x * gain + shift, (C) each, float64."""
    assert norm.running_mean is not None and norm.running_var is not None
    gain = torch.rsqrt(norm.running_var.detach().double() + norm.eps)
    gain = gain if norm.weight is None else gain * norm.weight.detach()
    shift = -norm.running_mean.detach().double() * gain
    return gain.cpu(), (shift if norm.bias is None else shift + norm.bias.detach()).cpu()


def in_place(node: fx.Node, module: nn.Module) -> bool:
    """Whether an operation writes over its input."""
    if node.op == "call_module":
        return bool(getattr(module.get_submodule(str(node.target)), "inplace", False))
    named = isinstance(node.target, str) and node.target.endswith("_") and not node.target.endswith("__")
    return named or bool(node.kwargs.get("inplace")) or node.target in (operator.iadd, operator.imul)


def _even(pool: nn.AvgPool2d) -> bool:
    return not pool.count_include_pad or pool.padding in (0, (0, 0))


def _axis(node: fx.Node) -> Any:
    return node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", node.kwargs.get("axis", 0))


def _trains(node: fx.Node) -> bool:
    return bool(node.args[2] if len(node.args) > 2 else node.kwargs.get("training", True))


def _strides(node: fx.Node) -> bool:
    """x[:, :, ::a, ::b]."""
    if node.target is not operator.getitem or not isinstance(node.args[1], tuple) or len(node.args[1]) > 4:
        return False
    cuts = node.args[1]
    return all(isinstance(c, slice) for c in cuts) and all(c == slice(None) for c in cuts[:2])


def _applied(node: fx.Node, constant: Tensor) -> Tensor:
    """The constants after an activation; NaN stays NaN."""
    if isinstance(node.target, str):
        return getattr(constant.clone(), node.target)()
    assert callable(node.target)
    return node.target(constant.clone(), *node.args[1:], **node.kwargs)
