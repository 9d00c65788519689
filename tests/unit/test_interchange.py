"""Other people's files: prefixes, normalisation layers, released masks; pickles that would run code are refused."""

from __future__ import annotations

import argparse
import pickle
import re
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import MODEL
from torch import nn
from torch.nn.utils import prune

from winnow import Ticket, WinnowError
from winnow.artifacts import read_json, read_tensors, sha256_file
from winnow.compat import torchvision
from winnow.config.parts import Model
from winnow.interchange import read_checkpoint
from winnow.schema import parse
from winnow.vision.models import load_pretrained, networks


def whole_module():
    return networks.network(parse(Model, MODEL), 3)


def imported(run_stage, tmp_path, path, **weights):
    config = {"weights": {"file": str(path), **weights}, "model": MODEL, "num_classes": 3}
    return run_stage("import_weights", config, file=path, out=tmp_path / "i.safetensors", metrics=tmp_path / "i.json")


class Normalise(nn.Module):
    """The input layer that many robust-training programs put before a network."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(3, 1, 1))
        self.register_buffer("std", torch.ones(3, 1, 1))


class Lightning(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model


def pruned(model):
    prune.l1_unstructured(model.conv1, "weight", amount=0.3)
    return model.state_dict()


def robustness_library(model):
    """Names as in the checkpoints of the `robustness` library: the model, and again inside its attacker."""
    state = {"module.normalizer.new_mean": torch.zeros(3, 1, 1), "module.normalizer.new_std": torch.ones(3, 1, 1)}
    for copy in ("module.model.", "module.attacker.model."):
        state |= {f"{copy}{k}": v for k, v in model.state_dict().items()}
    return {"model": state | {"module.attacker.normalize.new_mean": torch.zeros(3, 1, 1)}, "epoch": 89}


def old_batch_norm(model):
    return {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}


@pytest.mark.parametrize(
    "save",
    [
        lambda m: m.state_dict(),
        lambda m: {"state_dict": nn.DataParallel(m).state_dict(), "best_acc1": torch.tensor(71.5), "epoch": 3},
        lambda m: {"state_dict": Lightning(m).state_dict(), "pytorch-lightning_version": "2.0"},
        lambda m: nn.Sequential(Normalise(), m).state_dict(),
        lambda m: nn.DataParallel(nn.Sequential(Normalise(), m)).state_dict(),
        lambda m: {"model": torch.compile(m).state_dict(), "args": argparse.Namespace(lr=0.1, path=Path("/data"))},
        lambda m: {"net": m.state_dict(), "acc": np.float64(91.2), "history": np.arange(3.0), "seed": np.int64(1)},
        lambda m: m.state_dict() | {"total_ops": torch.zeros(1), "conv1.total_params": torch.zeros(1)},
        lambda m: {"state_dict": {}, "model": {"a": 1}} | {"state_dict": m.state_dict()},
        pruned,
        robustness_library,
        old_batch_norm,
    ],
)
def test_common_wrappings_are_understood(dense, run_stage, tmp_path, save):
    state, (model, _) = read_tensors(dense), load_pretrained(dense)
    torch.save(save(model), tmp_path / "w.pth.tar")
    code, err = imported(run_stage, tmp_path, tmp_path / "w.pth.tar")
    assert code == 0, err
    ours = read_tensors(tmp_path / "i.safetensors")
    assert set(ours) == set(state)
    assert all(
        torch.equal(v, state[k]) for k, v in ours.items() if save is not old_batch_norm or "num_batches" not in k
    )


def test_a_normalisation_in_the_file_that_is_not_the_configured_one_is_said(dense, run_stage, tmp_path):
    torch.save(nn.Sequential(Normalise(), load_pretrained(dense)[0]).state_dict(), tmp_path / "w.pth")
    code, err = imported(run_stage, tmp_path, tmp_path / "w.pth")
    assert code == 0 and "its network normalises with mean [0.0, 0.0, 0.0], model.mean is [0.5, 0.5, 0.5]" in err
    assert read_json(tmp_path / "i.json")["normalisation"] == {"mean": [0.0] * 3, "std": [1.0] * 3}


def test_older_densenet_names(run_stage, tmp_path, monkeypatch):
    model = torchvision().models.densenet121(num_classes=3)
    new = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", k): v for k, v in new.items()}
    torch.save(old, tmp_path / "d.pth")
    # torchvision's own reader of these names takes the file
    weights = torchvision().models.DenseNet121_Weights.IMAGENET1K_V1
    monkeypatch.setattr(
        type(weights), "get_state_dict", lambda *_, **__: torch.load(tmp_path / "d.pth", weights_only=True)
    )
    torchvision().models.densenet._load_state_dict(model, weights, progress=False)
    config = {"weights": {"file": "d.pth"}, "model": {"arch": "densenet121"}, "num_classes": 3}
    code, err = run_stage("import_weights", config, file=tmp_path / "d.pth", out=tmp_path / "o", metrics=tmp_path / "m")
    assert code == 0, err
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in read_tensors(tmp_path / "o").items())


@pytest.mark.parametrize("arch", ["googlenet", "inception_v3"])
def test_auxiliary_classifiers_are_left_out(arch, run_stage, tmp_path):
    published = torchvision().models.get_model(arch, weights=None, num_classes=4, init_weights=False, aux_logits=True)
    torch.save(published.state_dict(), tmp_path / "a.pth")
    config = {"weights": {"file": "a.pth"}, "model": {"arch": arch}, "num_classes": 4}
    code, err = run_stage("import_weights", config, file=tmp_path / "a.pth", out=tmp_path / "o", metrics=tmp_path / "m")
    assert code == 0, err
    left = read_json(tmp_path / "m")["left_out"]
    assert left and all(n.lower().startswith("aux") for n in left)
    assert set(read_tensors(tmp_path / "o")) == set(published.state_dict()) - set(left)


def test_a_head_without_bias_leaves_the_bias_of_the_file_out(dense, run_stage, tmp_path):
    torch.save(read_tensors(dense), tmp_path / "w.pth")
    config = {"weights": {"file": "w.pth"}, "model": MODEL | {"classifier": "conv1x1"}, "num_classes": 3}
    files = {"file": tmp_path / "w.pth", "out": tmp_path / "o", "metrics": tmp_path / "m"}
    code, err = run_stage("import_weights", config, **files)
    assert code == 0, err
    assert read_json(tmp_path / "m")["left_out"] == ["fc.bias"]
    assert read_tensors(tmp_path / "o")["fc.weight"].shape == (3, 16, 1, 1)  # the linear layer as a 1x1 convolution


def test_sha256_is_checked(dense, run_stage, tmp_path):
    torch.save(read_tensors(dense), tmp_path / "w.pth")
    assert imported(run_stage, tmp_path, tmp_path / "w.pth", sha256=sha256_file(tmp_path / "w.pth"))[0] == 0
    code, err = imported(run_stage, tmp_path, tmp_path / "w.pth", sha256="0" * 64)
    assert code == 2 and f"expected {'0' * 64}; fetch the file again" in err


class Payload:
    def __reduce__(self):
        return (exec, ("open('executed', 'w').close()",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda p, s: torch.save(s | {"x": Payload()}, p), "holds an object of type exec beside tensors and is not"),
        (lambda p, s: torch.save(whole_module(), p), "winnow.vision.models.cifar_resnet.CifarResNet beside tensors"),
        (lambda p, s: torch.save(s | {"d": Decimal(1)}, p), "holds an object of type decimal.Decimal beside tensors"),
        (lambda p, s: p.write_bytes(b"nonsense"), "truncated or not a torch checkpoint"),
        (lambda p, s: p.write_bytes(b""), "is empty; fetch the file again"),
        (
            lambda p, s: p.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
            "is a Git LFS pointer",
        ),
        (lambda p, s: p.write_text("\n<!DOCTYPE html><html></html>"), "is a web page, not weights"),
        (lambda p, s: torch.save(s, p) or p.write_bytes(p.read_bytes()[:2000]), "truncated or not a torch checkpoint"),
        (lambda p, s: torch.save({"weights": {"a": {}}}, p), "no state dict found; looked for the keys state_dict"),
        (lambda p, s: torch.save([1, 2], p), "holds a list, expected a state dict"),
        (
            lambda p, s: torch.save({k: v for k, v in s.items() if "conv1" not in k}, p),
            "does not fit the model: missing conv1.weight",
        ),
        (lambda p, s: torch.save(s | {"extra.weight": torch.ones(2)}, p), "unexpected extra.weight"),
    ],
)
def test_unfit_files_are_one_line_and_run_nothing(dense, run_stage, tmp_path, content, message):
    content(tmp_path / "w.pth", read_tensors(dense))
    code, err = imported(run_stage, tmp_path, tmp_path / "w.pth")
    assert code == 2 and message in err.splitlines()[-1]
    assert not (tmp_path / "executed").exists() and not (tmp_path / "i.safetensors").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda real: real.replace(b"imp_mask", b"posixxxx"), "an object of type posixxxx.Mask and is not loaded"),
        (lambda real: real[:3000], "truncated or not a released IMP mask"),
        (lambda real: real[:128] + pickle.dumps(Payload()), "an object of type builtins.exec and is not loaded"),
        (lambda real: b"nonsense", "truncated or not a released IMP mask"),
    ],
)
def test_a_pickled_mask_runs_nothing(content, message, shared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "round_1_mask.npy"
    file.write_bytes(content((shared / "golden/released/checkpoints/imp_wideresnet/round_2_mask.npy").read_bytes()))
    with pytest.raises(WinnowError, match=message):
        read_checkpoint(file)
    assert not (tmp_path / "executed").exists()


def test_export_and_import_give_the_ticket_back(dense, run_stage, tmp_path):
    mask, out, again = (tmp_path / n for n in ("a.mask.safetensors", "a.pth.tar", "b.mask.safetensors"))
    run_stage("prune", {"method": "magnitude", "remaining_percent": 80}, weights=dense, out=mask)
    assert run_stage("export_ticket", {}, mask=mask, weights=dense, out=out, metrics=tmp_path / "m.json")[0] == 0
    released = torch.load(out, weights_only=True)["state_dict"]
    assert (
        released["conv1.weight_mask"].dtype == torch.float32
        and "conv1.weight_orig" in released
        and "fc.weight" in released
    )
    assert run_stage("import_ticket", {}, file=out, weights=dense, out=again)[0] == 0
    one, two = Ticket.load(mask), Ticket.load(again)
    assert one.is_within(two) and two.is_within(one)


def masked(model, layers, prefix=""):
    """The state dict that torch.nn.utils.prune leaves, half of each layer removed."""
    for name in layers:
        prune.random_unstructured(model.get_submodule(name), "weight", amount=0.5)
    return {f"{prefix}{k}": v for k, v in model.state_dict().items()}


@pytest.mark.parametrize("prefix", ["", "module.", "1."])
def test_masks_of_pruned_modules(dense, run_stage, tmp_path, prefix):
    model, _ = load_pretrained(dense)
    torch.save({"state_dict": masked(model, ["conv1", "layer1.0.conv1"], prefix)}, tmp_path / "m.pth.tar")
    files = {"file": tmp_path / "m.pth.tar", "weights": dense, "out": tmp_path / "m.mask.safetensors"}
    code, err = run_stage("import_ticket", {}, **files)
    assert code == 0, err
    ticket = Ticket.load(files["out"])
    assert set(ticket.arrays) == {"conv1.weight", "layer1.0.conv1.weight"}
    for name, mask in ticket.masks.items():
        assert torch.equal(mask, model.get_submodule(name.removesuffix(".weight")).weight_mask.bool())


@pytest.mark.parametrize(("head", "kept"), [("auto", False), ("drop", False), ("keep", True)])
def test_a_masked_head_is_dropped_unless_it_is_wanted(dense, run_stage, tmp_path, head, kept):
    torch.save(masked(load_pretrained(dense)[0], ["conv1", "fc"]), tmp_path / "m.pth")
    files = {"file": tmp_path / "m.pth", "weights": dense, "out": tmp_path / "m.mask.safetensors"}
    code, err = run_stage("import_ticket", {"head": head}, **files)
    assert code == 0, err
    assert set(Ticket.load(files["out"]).arrays) == {"conv1.weight", *(["fc.weight"] if kept else [])}
    assert ("masks of the head dropped (fc.weight)" in err) != kept


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (lambda m: masked(m, ["fc"]), "masks the classification head alone, which a transfer replaces; set head: keep"),
        (lambda m: {"conv1.weight_mask": torch.full((4, 3, 3, 3), 0.5)}, "holds values other than 0 and 1"),
        (
            lambda m: m.state_dict(),
            "no masks found; looked for names ending in weight_mask, .flag and .mask.mask_scores",
        ),
        (
            lambda m: {"conv9.weight_mask": torch.ones(4, 3, 3, 3)},
            "no parameter 'conv9.weight'; did you mean 'conv1.weight'",
        ),
        (
            lambda m: {"conv1.weight_mask": torch.ones(4, 3, 7, 7)},
            "conv1.weight is (4, 3, 3, 3), its mask (4, 3, 7, 7)",
        ),
    ],
)
def test_files_without_a_ticket_that_fits(dense, run_stage, tmp_path, state, message):
    torch.save(state(load_pretrained(dense)[0]), tmp_path / "m.pth.tar")
    files = {"file": tmp_path / "m.pth.tar", "weights": dense, "out": tmp_path / "m.mask.safetensors"}
    code, err = run_stage("import_ticket", {}, **files)
    assert code == 2 and message in err.splitlines()[-1] and not files["out"].exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            {"torchvision": "ResNet18_Weights.IMAGENET1K_V1"},
            "put the weights of ResNet18_Weights.IMAGENET1K_V1 there, or set download: true",
        ),
        (
            {"torchvision": "ResNet18_Weights.IMAGENET1K_V7"},
            "is unknown; did you mean 'ResNet18_Weights.IMAGENET1K_V1'",
        ),
        ({"file": "a", "sha256": "xyz"}, "is not 64 hexadecimal digits"),
    ],
)
def test_weights_that_are_not_there(run_stage, tmp_path, source, message):
    config = {"weights": source, "model": MODEL, "num_classes": 3}
    code, err = run_stage("import_weights", config, out=tmp_path / "o", metrics=tmp_path / "m")
    assert code == 2 and message in err.splitlines()[-1]


def test_a_download_without_a_network_names_the_file_to_put_in_place(run_stage, tmp_path, monkeypatch):
    def fail(*arguments, **keys):
        raise OSError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    config = {
        "weights": {"torchvision": "ResNet18_Weights.IMAGENET1K_V1"},
        "model": {"arch": "resnet18"},
        "num_classes": 1000,
    }
    code, err = run_stage("import_weights", config, "--download", out=tmp_path / "o", metrics=tmp_path / "m")
    assert (
        code == 2 and "cannot be downloaded (Name or service not known); put the file at data/weights/resnet18" in err
    )
