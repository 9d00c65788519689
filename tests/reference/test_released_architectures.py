"""The released rare-gems networks: layers, sizes, roles and float64 outputs for fixed weights, against
../shared/golden/released.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import shared_folder
from torch import nn

from winnow import Ticket, WinnowError
from winnow.config.parts import Model
from winnow.gems.scores import hard_prunable, scorable
from winnow.interchange import fit, read_checkpoint, tickets_from_file, write_layout
from winnow.schema import parse
from winnow.vision.models import build

OURS = {"vgg16": {"arch": "vgg16_cifar"}}  # torchvision has a vgg16 of its own


def entries() -> list:
    folder = shared_folder()
    if folder is None:
        return [
            pytest.param(
                None, marks=pytest.mark.skip(reason="the reference data (WINNOW_SHARED, or ../shared) is not there")
            )
        ]
    models = json.loads(Path(folder / "golden/released/architectures.json").read_text())["models"]
    return [pytest.param(m, id=f"{m['arch']}-{m['dataset']}-{m['input'][-1]}-{m['width']:g}") for m in models]


def network(entry: dict) -> nn.Module:
    width = {"width": round(64 * entry["width"])} if entry["arch"].startswith("Conv4") else {}
    bn = "affine" if entry["batch_norm"]["affine"] else "non_affine"
    model = {"arch": entry["arch"], "classifier": "conv1x1", "bn": bn, "mean": [0.0] * 3, "std": [1.0] * 3}
    classes = {"TinyImageNet": 200, "CIFAR100": 100, "Caltech101": 101, "ImageNet": 1000}.get(entry["dataset"], 10)
    return build(parse(Model, model | width | OURS.get(entry["arch"], {})), classes).double().eval()


def layers(model: nn.Module) -> dict[str, nn.Module]:
    return {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}


def four(shape) -> list[int]:
    return [*shape, *[1] * (4 - len(shape))]  # the released heads are 1x1 convolutions


@pytest.mark.parametrize("entry", entries())
def test_layers_sizes_and_roles(entry):
    model = network(entry)
    ours, theirs = layers(model), entry["layers"]
    renamed = [n.replace(".downsample.", ".shortcut.") if entry["arch"] == "cResNet18" else n for n in ours]
    assert renamed == [name for name, *_ in theirs]
    for module, (name, shape, stride, padding, groups, *_) in zip(ours.values(), theirs, strict=True):
        assert four(module.weight.shape) == shape and module.bias is None, name
        if isinstance(module, nn.Conv2d):
            assert [list(module.stride), list(module.padding), module.groups] == [stride, padding, groups], name
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [[m.num_features, m.affine, m.eps, m.momentum] for m in norms] == [row[1:] for row in entry["batch_norms"]]
    assert sum(m.weight.numel() for m in ours.values()) == entry["weights"]
    if entry["scored_weights"]:  # Conv4Normal is Conv4 for training weights: nothing in it is scored
        assert len(scorable(model)) == len(theirs) == sum(scored for *_, scored, _ in theirs)
        order = [
            n.replace(".downsample.", ".shortcut.") if entry["arch"] == "cResNet18" else n for n in hard_prunable(model)
        ]
        assert order == [f"{n}.weight" for n in entry["hard_prune_order"]]
        assert sum(model.get_parameter(n).numel() for n in hard_prunable(model)) == entry["hard_prunable_weights"]


@torch.no_grad()
@pytest.mark.parametrize("weights", ["plain", "mixed"])
@pytest.mark.parametrize("entry", entries())
def test_outputs_for_fixed_weights(entry, weights):
    model = network(entry)
    for module in layers(model).values():
        i = np.arange(module.weight.numel(), dtype=np.int64)
        fan_in = module.weight[0].numel()
        filled = (
            np.cos(0.1 * i) / fan_in if weights == "plain" else 2 / math.sqrt(fan_in) * np.cos(0.1 * ((i * i) % 1013))
        )
        module.weight.copy_(torch.from_numpy(filled).view_as(module.weight))
    x = torch.sin(0.01 * torch.arange(math.prod(entry["input"]), dtype=torch.float64)).view(entry["input"])
    out, expected = model(x), entry["reference"][weights]
    assert list(out.shape) == expected["shape"]
    numbers = {k: torch.tensor(v, dtype=torch.float64) for k, v in expected.items()}
    scale, k = numbers["abs_sums"], torch.arange(1, out.shape[1] + 1)
    assert torch.allclose(out.abs().sum(1), scale, rtol=1e-9, atol=0)
    assert torch.allclose(out.sum(1) / scale, numbers["sums"] / scale, rtol=0, atol=1e-9)
    assert torch.allclose((out * k).sum(1) / scale, numbers["weighted_sums"] / scale, rtol=0, atol=1e-9 * out.shape[1])
    first = numbers["logits"] if "logits" in numbers else numbers["first12"]
    assert torch.allclose(out[:, : first.shape[1]] / scale[:, None], first / scale[:, None], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "entry", [e for e in entries() if e.id is None or e.id.startswith(("cResNet18", "resnet20-CIFAR10-16"))]
)
def test_what_is_exported_has_the_released_names_and_shapes_and_comes_back(entry, tmp_path):
    model = network(entry).float()
    state = model.state_dict()
    shapes = {k: tuple(v.shape) for k, v in state.items()}
    generator = torch.Generator().manual_seed(0)
    masks = {n: (torch.rand(shapes[n], generator=generator) < 0.3).numpy() for n in hard_prunable(model)}
    write_layout(tmp_path / "o.pt", "gem_miner", Ticket(masks), state, entry["arch"])
    written = read_checkpoint(tmp_path / "o.pt")
    assert [(k.removesuffix(".flag"), list(v.shape)) for k, v in written.items() if k.endswith(".flag")] == [
        (name, shape) for name, shape, *_ in entry["layers"]
    ]
    again = tickets_from_file(written, "o.pt", shapes).ticket
    assert set(again.arrays) == set(masks) and all((again.arrays[n] == masks[n]).all() for n in masks)
    assert all(torch.equal(v, state[k]) for k, v in fit(written, shapes).tensors.items())


def test_a_released_network_has_the_stem_and_the_head_of_its_code():
    with pytest.raises(
        WinnowError, match=r"imagenet_stem: TinyResNet18 has the stem of its released code; leave the key out"
    ):
        build(parse(Model, {"arch": "TinyResNet18", "imagenet_stem": False}), 200)
    with pytest.raises(WinnowError, match=r"ResNet50 has 1000 outputs, as released; the task has 1001 classes"):
        build(parse(Model, {"arch": "ResNet50"}), 1001)
