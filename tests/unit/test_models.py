"""Architectures: the published ones, normalisation inside, names that other tools read."""

from __future__ import annotations

import pytest
import torch

from winnow import WinnowError
from winnow.compat import torchvision
from winnow.config.parts import Model
from winnow.schema import parse
from winnow.vision.models import build, head_names, load_pretrained, load_state, prunable


def model(num_classes=10, **keys):
    return build(parse(Model, keys), num_classes)


@pytest.mark.parametrize(("arch", "parameters"), [("resnet20", 269722), ("resnet32", 464154)])
def test_cifar_resnets_have_the_published_size(arch, parameters):
    assert sum(p.numel() for p in model(arch=arch).parameters()) == parameters
    assert model(arch=arch)(torch.rand(2, 3, 32, 32)).shape == (2, 10)


def test_the_rare_gems_variant_is_convolutions_alone():
    net = model(arch="resnet20", classifier="conv1x1", bn="non_affine")
    assert [p.dim() for p in net.parameters()] == [4] * 20
    assert sum(p.numel() for p in net.parameters()) == 268336
    assert net(torch.rand(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("arch", ["resnet18", "resnet50", "mobilenet_v2", "vgg11"])
def test_torchvision_reads_what_winnow_writes(arch):
    ours, theirs = model(arch=arch), torchvision().models.get_model(arch, num_classes=10)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = torch.rand(2, 3, 64, 64)
    ours.eval(), theirs.eval()
    assert torch.allclose(ours(x), theirs((x - 0.5) / 0.5), atol=1e-5)


def test_normalisation_is_inside_and_not_in_the_state():
    torch.manual_seed(0)
    net = model(arch="resnet8", width=4, mean=[0.1, 0.2, 0.3], std=[1.0, 2.0, 4.0]).eval()
    torch.manual_seed(0)
    plain = model(arch="resnet8", width=4, mean=[0.0, 0.0, 0.0], std=[1.0, 1.0, 1.0]).eval()
    x = torch.rand(2, 3, 8, 8)
    shifted = (x - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([1.0, 2.0, 4.0]).view(3, 1, 1)
    assert torch.allclose(net(x), plain(shifted), atol=1e-6)
    assert not [k for k in net.state_dict() if "input_" in k]


def test_prunable_is_every_convolution_but_the_head():
    assert prunable(model(arch="resnet8")) == [n for n, p in model(arch="resnet8").named_parameters() if p.dim() == 4]
    gems = model(arch="resnet8", classifier="conv1x1")
    assert "fc.weight" not in prunable(gems) and head_names(gems) == ["fc.weight"]
    assert len(prunable(model(arch="resnet50"))) == 53


def test_the_small_stem_replaces_the_large_one():
    assert model(arch="resnet18", imagenet_stem=False).conv1.weight.shape == (64, 3, 3, 3)
    with pytest.raises(WinnowError, match=r"imagenet_stem: only torchvision ResNets"):
        model(arch="mobilenet_v2", imagenet_stem=False)


def test_an_unknown_architecture_names_the_nearest():
    with pytest.raises(WinnowError, match="did you mean 'resnet18'"):
        model(arch="resnet_18")


def test_what_does_not_fit_is_listed():
    net = model(arch="resnet8", width=4)
    state = {k: v for k, v in net.state_dict().items() if k != "conv1.weight"} | {
        "extra": torch.ones(1),
        "fc.bias": torch.ones(3),
    }
    with pytest.raises(WinnowError) as error:
        load_state(net, state, "file.pth")
    assert str(error.value) == (
        "file.pth does not fit the model: missing conv1.weight; unexpected extra; fc.bias is (3,), the model's (10,)"
    )


def test_transfer_replaces_the_head_and_nothing_else(dense):
    old, _ = load_pretrained(dense)
    new, spec = load_pretrained(dense, 7)
    assert spec["num_classes"] == 7 and new.fc.weight.shape == (7, 16)
    for name, value in new.state_dict().items():
        assert name in head_names(new) or torch.equal(value, old.state_dict()[name])
