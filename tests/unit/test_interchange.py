"""Other people's files: prefixes, normalisation layers, released masks; pickles that would run code are refused."""

from __future__ import annotations

import argparse

import pytest
import torch
from conftest import MODEL

from winnow import Ticket
from winnow.artifacts import read_tensors, sha256_file


def imported(run_stage, tmp_path, path, **weights):
    config = {"weights": {"file": str(path), **weights}, "model": MODEL, "num_classes": 3}
    return run_stage("import_weights", config, file=path, out=tmp_path / "i.safetensors", metrics=tmp_path / "i.json")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}, "epoch": 3},
        lambda s: {"model": {f"model.{k}": v for k, v in s.items()}},
        lambda s: {f"1.{k}": v for k, v in s.items()} | {"0.mean": torch.zeros(1, 3, 1, 1), "0.std": torch.ones(1, 3, 1, 1)},
        lambda s: {f"module.model.{k}": v for k, v in s.items()} | {"module.normalize.mean": torch.zeros(3)},
        lambda s: {k: v for k, v in s.items()} | {"mean": torch.zeros(3), "std": torch.ones(3)},
        lambda s: (
            {f"{k}_orig" if k == "conv1.weight" else k: v for k, v in s.items()} | {"conv1.weight_mask": torch.ones(4, 3, 3, 3)}
        ),
    ],
)
def test_common_wrappings_are_understood(dense, run_stage, tmp_path, wrap):
    state = read_tensors(dense)
    torch.save(wrap(state), tmp_path / "w.pth.tar")
    code, err = imported(run_stage, tmp_path, tmp_path / "w.pth.tar")
    assert code == 0, err
    assert all(torch.equal(v, state[k]) for k, v in read_tensors(tmp_path / "i.safetensors").items())


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
        (
            lambda p, s: torch.save(s | {"args": argparse.Namespace(a=1)}, p),
            "holds objects other than tensors and is not loaded",
        ),
        (lambda p, s: torch.save(s | {"x": Payload()}, p), "holds objects other than tensors and is not loaded"),
        (lambda p, s: p.write_bytes(b"nonsense"), "w.pth"),
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


def test_export_and_import_give_the_ticket_back(dense, run_stage, tmp_path):
    mask, out, again = (tmp_path / n for n in ("a.mask.safetensors", "a.pth.tar", "b.mask.safetensors"))
    run_stage("imp_prune", {"round": 1}, weights=dense, out=mask)
    assert run_stage("export_ticket", {}, mask=mask, weights=dense, out=out, metrics=tmp_path / "m.json")[0] == 0
    released = torch.load(out, weights_only=True)["state_dict"]
    assert released["conv1.weight_mask"].dtype == torch.float32 and "conv1.weight_orig" in released and "fc.weight" in released
    assert run_stage("import_ticket", {}, file=out, weights=dense, out=again)[0] == 0
    one, two = Ticket.load(mask), Ticket.load(again)
    assert one.is_within(two) and two.is_within(one)


@pytest.mark.parametrize(
    ("keys", "config", "message"),
    [
        ({"module.conv1.weight_mask": torch.ones(4, 3, 3, 3)}, {}, None),
        ({"conv1.flag": torch.tensor([0.0, 1.0]).repeat(54).view(4, 3, 3, 3)}, {}, None),
        ({"conv1.mask_scores": torch.arange(108.0).view(4, 3, 3, 3)}, {"remaining_percent": 25}, None),
        ({"conv1.mask_scores": torch.arange(108.0).view(4, 3, 3, 3)}, {}, "holds scores, not masks; say remaining_percent"),
        ({"conv1.weight_mask": torch.full((4, 3, 3, 3), 0.5)}, {}, "holds values other than 0 and 1"),
        (
            {"conv1.weight": torch.ones(4, 3, 3, 3)},
            {},
            "no masks found; looked for names ending in weight_mask, flag, mask_scores",
        ),
        ({"conv9.weight_mask": torch.ones(4, 3, 3, 3)}, {}, "no parameter 'conv9.weight'; did you mean 'conv1.weight'"),
        ({"conv1.weight_mask": torch.ones(4, 3, 7, 7)}, {}, "conv1.weight is (4, 3, 3, 3), its mask (4, 3, 7, 7)"),
    ],
)
def test_released_masks(dense, run_stage, tmp_path, keys, config, message):
    torch.save({"state_dict": keys}, tmp_path / "m.pth.tar")
    files = {"file": tmp_path / "m.pth.tar", "weights": dense, "out": tmp_path / "m.mask.safetensors"}
    code, err = run_stage("import_ticket", config, **files)
    if message:
        assert code == 2 and message in err.splitlines()[-1]
        return
    assert code == 0, err
    ticket = Ticket.load(files["out"])
    if "remaining_percent" in config:
        assert ticket.kept == 27 and ticket.arrays["conv1.weight"].reshape(-1)[-27:].all()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            {"torchvision": "ResNet18_Weights.IMAGENET1K_V1"},
            "put the weights of ResNet18_Weights.IMAGENET1K_V1 there, or set download: true",
        ),
        ({"torchvision": "ResNet18_Weights.IMAGENET1K_V7"}, "is unknown; did you mean 'ResNet18_Weights.IMAGENET1K_V1'"),
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
    config = {"weights": {"torchvision": "ResNet18_Weights.IMAGENET1K_V1"}, "model": {"arch": "resnet18"}, "num_classes": 1000}
    code, err = run_stage("import_weights", config, "--download", out=tmp_path / "o", metrics=tmp_path / "m")
    assert code == 2 and "cannot be downloaded (Name or service not known); put the file at data/weights/resnet18" in err
