"""Architectures: the published ones, normalisation inside, names that other tools read."""

from __future__ import annotations

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from winnow import WinnowError
from winnow.compat import torchvision
from winnow.config import architectures
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


@pytest.mark.parametrize(
    "arch",
    ["resnet18", "vgg11", "vgg11_bn", "alexnet", "squeezenet1_1", "densenet121", "vit_b_32", "swin_t", "convnext_tiny",
     "maxvit_t", "mobilenet_v3_small", "efficientnet_b0", "shufflenet_v2_x0_5", "mnasnet0_5", "resnet8", "vgg16_cifar",
     "conv4", "Conv4", "Conv4Normal", "tinyvgg16", "MobileNetV2", "wideresnet-28-2"],
)  # fmt: skip
def test_the_name_says_whether_batches_are_normalised(arch):
    with torch.device("meta"):
        built = model(arch=arch)
    assert architectures.normalises_batches(arch) == any(isinstance(m, _BatchNorm) for m in built.modules())


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


@pytest.mark.parametrize("arch", ["googlenet", "inception_v3"])
def test_networks_with_auxiliary_outputs_give_logits_alone(arch):
    net = model(arch=arch).train()
    assert net(torch.rand(2, 3, 96, 96)).shape == (2, 10)


@pytest.mark.parametrize("arch", ["googlenet", "inception_v3"])
def test_published_weights_see_the_input_that_torchvision_gives_them(arch):
    # transform_input: as its weights are loaded
    keys = {"aux_logits": False, "transform_input": True, "init_weights": False}
    theirs = torchvision().models.get_model(arch, weights=None, num_classes=10, **keys).eval()
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    ours = model(arch=arch, mean=mean, std=std).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.rand(2, 3, 96, 96)
    normalised = (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    first = "conv1" if arch == "googlenet" else "Conv2d_1a_3x3"  # untrained, deeper layers hide a shift of the input
    seen = {}
    for name, net, images in (("theirs", theirs, normalised), ("ours", ours, x)):
        hook = net.get_submodule(first).register_forward_pre_hook(lambda _, a, name=name: seen.update({name: a[0]}))
        net(images)
        hook.remove()
    assert torch.allclose(seen["ours"], seen["theirs"], atol=1e-5) and seen["ours"].min() >= -1.001


@pytest.mark.parametrize(
    ("keys", "size"), [({"arch": "resnet18", "classifier": "conv1x1"}, 512), ({"arch": "resnet8"}, 64)]
)
def test_dropout_before_the_head_acts_in_training_alone(keys, size):
    torch.manual_seed(0)
    net, seen = model(**keys, dropout=0.4), []
    assert set(net.state_dict()) == set(model(**keys).state_dict())
    for prepend in (True, False):  # the input of the layer before the hook that drops, and after it
        net.fc.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]), prepend=prepend)
    x = torch.rand(8, 3, 32, 32)
    net.eval()(x), net.train()(x)
    assert torch.equal(seen[0], seen[1]) and seen[0].shape == (8, size)
    alive = seen[2] != 0
    assert float((seen[3][alive] == 0).float().mean()) == pytest.approx(0.4, abs=0.05)
    kept = seen[3] != 0
    assert torch.allclose(seen[3][kept], seen[2][kept] / 0.6)
    with pytest.raises(WinnowError, match="dropout"):
        model(**keys, dropout=1.0)
