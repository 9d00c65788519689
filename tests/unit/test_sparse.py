"""A sparse network has the outputs of the dense one under its ticket, whatever way its layers take, and loses what is
empty.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from winnow.config.parts import Model
from winnow.errors import WinnowError
from winnow.prune import prune
from winnow.sparse import choice, sparse
from winnow.sparse.choice import Plan
from winnow.sparse.compact import compact
from winnow.sparse.layers import SparseConv2d, SparseLinear
from winnow.sparse.ways import Geometry
from winnow.ticket import Ticket
from winnow.vision import models

REMAINING = (50, 20, 10, 5, 2)
# architecture, side of the images, ways of the whole network that are compared
NETWORKS = {
    "resnet20": (32, ("dense", "csr", "rows", "points")),
    "resnet18": (16, ("rows",)),
    "resnet50": (16, ("rows",)),
    "vgg16_cifar": (16, ("csr",)),
    "mobilenet_v2_cifar": (16, ("dense", "csr", "rows", "points")),
}


def trained_like(model: nn.Module) -> nn.Module:
    """Statistics, scales and shifts as after training: empty filters then have values that are not zero."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
            if module.affine:
                module.weight.data.uniform_(0.5, 1.5, generator=generator)
                module.bias.data.normal_(0, 0.3, generator=generator)
    return model.eval()


def built(arch: str) -> nn.Module:
    torch.manual_seed(0)
    return trained_like(models.build(Model(arch=arch), 10))


def under(model: nn.Module, ticket: Ticket) -> nn.Module:
    masked = copy.deepcopy(model)
    ticket.apply(masked)
    return masked


def all_in(network: nn.Module, way: str, shape: tuple[int, ...]) -> Plan:
    """Every layer that has this way takes it."""
    layers = choice.layers_of(network)
    for layer in layers.values():
        layer.seen = set()
    choice.use(network, Plan({}))
    network(torch.rand(shape))
    fits = {n for n, x in layers.items() if x.seen and way in x.names() and all(x.built(way, s) for s in x.seen)}
    return Plan(dict.fromkeys(fits, way))


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("arch", NETWORKS)
@torch.no_grad()
def test_outputs_are_the_dense_networks(arch):
    side, tried = NETWORKS[arch]
    model, x = built(arch), torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(2))
    smaller = []
    for percent in REMAINING:
        masked = under(model, ticket := prune(model, "magnitude", percent))
        expected = masked(x)
        network = sparse(model, ticket, keep_plans=False)
        assert network.untraced is None
        smaller.append(network.smaller_layers)
        for way in tried:
            plan = all_in(network.network, way, tuple(x.shape))
            assert way == "dense" or len(plan.ways) >= len(network.layers) // 2
            choice.use(network.network, plan)
            assert difference(network.network(x), expected) < 1e-5, (percent, way)
    assert smaller == sorted(smaller) and smaller[-1] > 0  # fewer weights, more emptied channels


@torch.no_grad()
def test_the_measured_plan_is_used_and_kept(tmp_path, monkeypatch):
    model, x = built("resnet8"), torch.rand(3, 3, 8, 8)
    ticket = prune(model, "magnitude", 10)
    network = sparse(model, ticket, cache=tmp_path)
    expected = under(model, ticket)(x)
    assert difference(network(x), expected) < 1e-5
    assert difference(copy.deepcopy(network)(x), expected) < 1e-5
    assert len(list(tmp_path.glob("*.json"))) == 1
    monkeypatch.setattr(choice, "measure", lambda *_: pytest.fail("measured again"))
    again = sparse(model, ticket, cache=tmp_path)
    assert difference(again(x), expected) < 1e-5
    assert again.plan(x) == network.plan(x) and sum(again.ways(again.plan(x)).values()) == len(again.layers) == 8
    assert again.plan(x).seconds <= again.plan(x).dense_seconds


def chain() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3, padding=1),
     nn.MaxPool2d(2),
              nn.Flatten(), nn.Linear(6 * 16, 7), nn.ReLU(), nn.Linear(7, 5)]  # fmt: skip
    return trained_like(nn.Sequential(*layers))


@torch.no_grad()
def test_exactly_what_nothing_reads_or_writes_is_removed():
    model = chain()
    model[0].weight[[2, 5]] = 0  # empty filters: constant channels,
    model[0].bias[[2, 5]] = 3.0  # and not zero after the activation
    model[3].weight[:, 3] = 0  # a channel that is not read
    model[3].weight[1] = 0
    model[6].weight.view(7, 6, 16)[:, 4] = 0  # a whole map that is not read
    model[6].weight[0] = 0
    model[8].weight[:, 6] = 0
    x = torch.rand(2, 3, 8, 8)
    network, rows = compact(model)
    assert [r.after for r in rows] == [(5, 3, 3, 3), (4, 5, 3, 3), (5, 4 * 16), (5, 5)]
    assert difference(network(x), model(x)) < 1e-6
    assert network.get_submodule("network.3").border is not None  # constants seen through padding are no constant


@torch.no_grad()
def test_a_channel_of_a_residual_stream_stays_as_long_as_one_branch_writes_it():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.one, self.two, self.out = (
                nn.Conv2d(i, o, 3, padding=1) for i, o in ((3, 6), (6, 4), (4, 6), (6, 2))
            )

        def forward(self, x):
            x = torch.relu(self.stem(x))
            return self.out(torch.relu(self.two(torch.relu(self.one(x)))) + x)

    torch.manual_seed(0)
    model = Block().eval()
    model.stem.weight[[0, 1]] = 0
    model.two.weight[[1, 2]] = 0  # channel 1 is constant in both branches
    network, rows = compact(model)
    assert {r.name: r.after[:2] for r in rows} == {"stem": (5, 3), "one": (4, 4 + 1), "two": (5, 4), "out": (2, 5)}
    x = torch.rand(2, 3, 6, 6)
    assert difference(network(x), model(x)) < 1e-6


@torch.no_grad()
def test_what_is_written_over_is_not_taken_for_what_it_was():
    class Reused(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.third = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1)

        def forward(self, x):
            x = self.first(x)
            y = self.second(torch.nn.functional.relu(x, inplace=True))
            return self.third(x) + self.third.weight.sum() * y[:, :2]

    torch.manual_seed(0)
    model = Reused().eval()
    model.first.weight[:2] = 0
    model.first.bias.fill_(-1.0)
    x = torch.rand(2, 3, 5, 5)
    assert difference(compact(model)[0](x), model(x)) < 1e-6


@pytest.mark.parametrize("groups", [1, 2, 8], ids=lambda g: f"groups={g}")
@pytest.mark.parametrize(
    "kernel,stride,padding,dilation", [(3, 1, 1, 1), (3, 2, 1, 1), (1, 2, 0, 1), (3, 1, 2, 2), (5, 2, 0, 1)]
)
@torch.no_grad()
def test_every_way_of_a_convolution(groups, kernel, stride, padding, dilation):
    generator = torch.Generator().manual_seed(kernel)
    weight = torch.randn(8, 8 // groups, kernel, kernel, generator=generator)
    weight *= torch.rand(weight.shape, generator=generator) < 0.2
    pairs = ((stride, stride), (padding, padding), (dilation, dilation))
    layer = SparseConv2d(weight, torch.randn(8, generator=generator), Geometry(*pairs, groups))
    x = torch.randn(3, 8, 9, 7, generator=generator)
    expected = nn.functional.conv2d(x, weight, layer.bias, *pairs, groups)
    assert len(layer.names()) == (3 if groups > 1 else 4)
    for name in layer.names()[1:]:
        layer.choose(name, torch.contiguous_format)
        assert difference(layer(x), expected) < 1e-5, name


@torch.no_grad()
def test_layers_without_any_weight_left():
    linear, conv = (
        SparseLinear(torch.zeros(4, 6), torch.arange(4.0)),
        SparseConv2d(torch.zeros(4, 6, 3, 3), None, Geometry()),
    )
    for layer, x in ((linear, torch.rand(5, 2, 6)), (conv, torch.rand(2, 6, 5, 5))):
        for name in layer.names()[1:]:
            if layer.built(name, tuple(x.shape)):
                layer.choose(name, torch.contiguous_format)
                assert torch.equal(layer(x), layer.dense(x)), name


def tiny_bert() -> nn.Module:
    from winnow.text import compat

    transformers = compat.transformers()
    sizes = {
        "vocab_size": 50,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
    }
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(transformers.BertConfig(**sizes)).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data.normal_(0, 0.3)
    return model


@torch.no_grad()
def test_bert_keeps_its_outputs_and_loses_heads_and_units():
    model = tiny_bert()
    tokens = torch.randint(0, 50, (3, 9))
    words = {"input_ids": tokens, "attention_mask": (torch.arange(9) < torch.tensor([[9], [5], [7]])).long()}
    for percent in REMAINING:
        ticket = prune(model, "magnitude", percent)
        layer = "bert.encoder.layer.1."
        arrays = {name: mask.copy() for name, mask in ticket.arrays.items()}
        arrays[layer + "attention.self.value.weight"][8:16] = False  # head 1 writes its bias only
        arrays[layer + "attention.output.dense.weight"][:, 24:] = False  # head 3 is not read
        arrays[layer + "intermediate.dense.weight"][:10] = False
        ticket = Ticket(arrays)
        expected = under(model, ticket)(**words).logits
        network = sparse(model, ticket, keep_plans=False)
        assert network.untraced is not None
        after = {r.name: r.after for r in network.layers}
        if percent == 50:
            assert after[layer + "attention.self.query"] == (16, 32) and after[layer + "output.dense"] == (32, 54)
            assert network.smaller_layers == 6
        for way in ("dense", "csr", "bag"):
            choice.use(network.network, Plan({n: way for n in choice.layers_of(network.network)}))
            assert difference(network.network(**words).logits, expected) < 1e-5, (percent, way)
    assert difference(network(**words).logits, expected) < 1e-5


@torch.no_grad()
def test_a_network_that_cannot_be_traced_keeps_its_channels():
    model, x = built("conv4"), torch.rand(2, 3, 32, 32)
    ticket = prune(model, "magnitude", 5)
    network = sparse(model, ticket, keep_plans=False)
    assert "control flow" in network.untraced and network.smaller_layers == 0
    for way in ("rows", "bag"):
        plan = Plan({n: way for n, layer in choice.layers_of(network.network).items() if way in layer.names()})
        choice.use(network.network, plan)
        assert difference(network.network(x), under(model, ticket)(x)) < 1e-5


@torch.no_grad()
def test_code_that_asks_for_a_layers_class_gets_the_old_answer():
    class Asking(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

        def forward(self, x):
            x = self.conv(x).mean((2, 3))
            x = self.fc(x) if isinstance(self.fc, nn.Linear) else x[:, :2]
            return x if x.sum() > 1e9 else x * 2  # cannot be traced

    torch.manual_seed(0)
    model, x = Asking(), torch.rand(2, 3, 6, 6)
    network = sparse(model, ticket := prune(model, "magnitude", 30), keep_plans=False)
    choice.use(network.network, all_in(network.network, "rows", tuple(x.shape)))
    assert network.untraced and difference(network.network(x), under(model, ticket)(x)) < 1e-5
    assert difference(copy.deepcopy(network)(x), under(model, ticket)(x)) < 1e-5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="2:4 layouts need a GPU")
@torch.no_grad()
def test_two_of_four_on_a_gpu():
    weight = torch.randn(64, 128, device="cuda", dtype=torch.float16)
    weight.view(64, 32, 4)[:, :, 2:] = 0
    layer, x = SparseLinear(weight, None), torch.randn(32, 128, device="cuda", dtype=torch.float16)
    layer.choose("n:m", torch.contiguous_format)
    assert difference(layer(x).float(), layer.dense(x).float()) < 1e-2


def test_refusals():
    model = built("resnet8")
    ticket = prune(model, "magnitude", 10)
    with pytest.raises(WinnowError, match=r"ticket does not fit CifarResNet: no parameter 'nothing.weight'"):
        sparse(model, Ticket({"nothing.weight": np.ones((2, 2), bool)}))
    with pytest.raises(WinnowError, match="inference only"):
        sparse(model, ticket, keep_plans=False).train()
    nn.utils.parametrizations.weight_norm(model.conv1)
    with pytest.raises(WinnowError, match=r"conv1 is parametrized; remove its parametrizations first"):
        sparse(model, ticket)
