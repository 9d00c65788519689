"""Sparse networks as files that need no winnow to be read: CSR parts in safetensors, and ONNX.

A CSR file holds, for every weight of a ticket, three tensors: its rows are output channels, its columns the flattened
rest of its shape. All other tensors are as in the state dict. Read back:

    import json, math, torch
    from safetensors import safe_open
    with safe_open("network.csr.safetensors", "pt") as f:
        shapes = json.loads(f.metadata()["winnow"])["shapes"]
        state = {name: f.get_tensor(name) for name in f.keys()}
    for name, shape in shapes.items():
        starts, columns, values = (state.pop(f"{name}.{part}") for part in ("starts", "columns", "values"))
        size = (shape[0], math.prod(shape[1:]))
        matrix = torch.sparse_csr_tensor(starts.int(), columns.int(), values, size)
        state[name] = matrix.to_dense().view(shape)
"""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from winnow.artifacts import atomic_path, write_tensors
from winnow.errors import WinnowError
from winnow.sparse import choice
from winnow.sparse.compact import Whole
from winnow.sparse.layers import SparseConv2d, SparseLinear
from winnow.sparse.model import SparseModel
from winnow.ticket import Ticket


def write_csr(path: str | Path, state: dict[str, Tensor], ticket: Ticket, /, **metadata: Any) -> None:
    """Write a state dict with the ticket's weights in CSR parts: `<name>.starts` (int32), `.columns` (int16 where they
    fit), `.values`.

    What the ticket removes is left out, and so are kept weights that are zero. Raises WinnowError when it does not fit.
    """
    ticket.check_fits({k: tuple(v.shape) for k, v in state.items()}, "the state dict")
    parts: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name not in ticket.arrays:
            parts[name] = tensor
            continue
        matrix = tensor.detach().cpu().masked_fill(~torch.from_numpy(ticket.arrays[name]), 0.0).flatten(1)
        rows, columns = matrix.nonzero(as_tuple=True)
        starts = torch.zeros(len(matrix) + 1, dtype=torch.int32)
        starts[1:] = torch.bincount(rows, minlength=len(matrix)).cumsum(0)
        parts[f"{name}.starts"] = starts
        parts[f"{name}.columns"] = columns.to(torch.int16 if matrix.shape[1] <= 2**15 else torch.int32)
        parts[f"{name}.values"] = matrix[rows, columns]
    shapes = {name: list(mask.shape) for name, mask in ticket.arrays.items()}
    write_tensors(path, parts, {"kind": "csr", "shapes": shapes, **metadata})


class Bordered(nn.Module):
    """A convolution and what removed constant channels added to it, in plain torch modules."""

    def __init__(self, conv: nn.Conv2d, border: nn.Conv2d):
        super().__init__()
        self.conv, self.border = conv, border

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,O,Ho,Wo)."""
        return self.conv(x) + self.border(torch.ones_like(x[:1, :1]))


def in_torch_modules(model: SparseModel) -> nn.Module:
    """The smaller network, dense, made of torch's own layers alone. Raises WinnowError for one that was not traced."""
    if model.untraced is not None:
        raise WinnowError(
            f"sparse: no channel was removed ({model.untraced}); export the dense network under its ticket instead"
        )
    network = copy.deepcopy(model.network)
    for name, layer in choice.layers_of(network).items():
        made = _linear(layer) if isinstance(layer, SparseLinear) else _conv(layer)  # type: ignore[arg-type]
        network.set_submodule(name, made)
    return Whole(network).eval()  # exporters take what `forward` calls, not a network's own hooks


def write_onnx(path: str | Path, model: SparseModel, example: Tensor) -> None:
    """Write the smaller network, dense, as ONNX; the batch may have any size. Raises WinnowError without the packages
    for it.
    """
    missing = [p for p in ("onnx", "onnxscript") if importlib.util.find_spec(p) is None]
    if missing:
        raise WinnowError(
            f"{path}: ONNX needs the package{'s' * (len(missing) > 1)} {' and '.join(missing)}; pip install them"
        )
    with atomic_path(path) as temporary:
        axes = ({0: torch.export.Dim("batch")},)
        torch.onnx.export(
            in_torch_modules(model), (example,), temporary, dynamo=True, external_data=False, dynamic_shapes=axes
        )


def _linear(layer: SparseLinear) -> nn.Linear:
    made = nn.Linear(layer.weight.shape[1], layer.weight.shape[0], layer.bias is not None)
    return _filled(made, layer.weight, layer.bias)


def _conv(layer: SparseConv2d) -> nn.Module:
    how, (outputs, inputs, *kernel) = layer.how, layer.weight.shape
    settings: dict[str, Any] = {
        "kernel_size": tuple(kernel), "stride": how.stride, "padding": how.padding, "dilation": how.dilation,
    }  # fmt: skip
    made = nn.Conv2d(inputs * how.groups, outputs, groups=how.groups, **settings)
    conv = _filled(made, layer.weight, layer.bias)
    if layer.border is None:
        return conv
    return Bordered(conv, _filled(nn.Conv2d(1, outputs, **settings), layer.border, None))


def _filled(made: Any, weight: Tensor, bias: Tensor | None) -> Any:
    made.weight = nn.Parameter(weight.clone(), requires_grad=False)
    made.bias = None if bias is None else nn.Parameter(bias.clone(), requires_grad=False)
    return made
