"""Tickets to share: what is exported loads without winnow, a changed byte is refused, and the hub is refused cleanly
without a network.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import create_autospec

import pytest
import torch

from winnow import Ticket, WinnowError
from winnow.cli import main
from winnow.share import hub, statement
from winnow.share.folder import export

TEXT = {"dataset": "embedded", "max_length": 24, "train_examples": 96, "test_examples": 40, "val_fraction": 0.02}
TINY_BERT = {"source": "tiny", "layers": 1, "hidden": 16, "heads": 2, "intermediate": 32}
# In a process that has no winnow: the weights of a folder, and how many of the masked ones are not zero
WITHOUT_WINNOW = """
import sys; sys.modules["winnow"] = None
import json, torch
library = torch.library.Library("torchvision", "FRAGMENT")  # a CPU-only torch does not load the operators of a CUDA torchvision
for operator in ("nms(Tensor a, Tensor b, float c) -> Tensor", "qnms(Tensor a, Tensor b, float c) -> Tensor"):
    try: library.define(operator)
    except RuntimeError: pass
"""
LOAD_IMAGE = """
import torchvision
model = torchvision.models.squeezenet1_1(num_classes=3)
model.load_state_dict(torch.load(sys.argv[1] + "/model.pth"))
print(json.dumps({n: int((p == 0).sum()) for n, p in model.named_parameters()}))
"""
LOAD_TEXT = """
from transformers import AutoModelForSequenceClassification, AutoTokenizer
model, loading = AutoModelForSequenceClassification.from_pretrained(sys.argv[1], output_loading_info=True)
assert not loading["missing_keys"] and not loading["unexpected_keys"], loading
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
assert len(tokenizer("a good film")["input_ids"]) > 2
print(json.dumps({n: int((p == 0).sum()) for n, p in model.named_parameters()}))
"""


def zeros(script: str, folder: Path) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_WINNOW + script, str(folder)], capture_output=True, text=True, cwd=folder.parent
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def images(run_stage, tmp_path) -> Path:
    """results/ with a torchvision network, a ticket of it, and weights trained under the ticket."""
    data = {
        "dataset": "digits",
        "classes": [0, 1, 2],
        "image_size": 32,
        "val_images": 30,
        "train_images": 40,
        "test_images": 30,
    }
    train = {"epochs": 1, "batch_size": 20, "lr": 0.01}
    config = {"data": data, "train": train, "compute": {}, "seed": 0}
    folder = Path("results/a")
    arch = {"model": {"arch": "squeezenet1_1"}, "method": "std"}
    assert run_stage("pretrain", {**config, **arch}, out=folder / "d.safetensors", metrics=folder / "d.json")[0] == 0
    mask = folder / "t.mask.safetensors"
    cut = {"method": "magnitude", "label": "imp", "remaining_percent": 30}
    assert run_stage("prune", cut, weights=folder / "d.safetensors", out=mask)[0] == 0
    keep = {**config, "attack": None, "keep": "last"}
    files = {
        "init": folder / "d.safetensors",
        "mask": mask,
        "out": folder / "w.safetensors",
        "metrics": folder / "w.json",
    }
    assert run_stage("train", keep, **files)[0] == 0
    return tmp_path / mask


def test_a_torchvision_network_loads_without_winnow_and_its_removed_weights_are_zero(images, tmp_path, capsys):
    assert main(["export", str(images), "--to", "shared"]) == 0  # the weights are found: those trained under it
    found, ticket = zeros(LOAD_IMAGE, tmp_path / "shared"), Ticket.load(images)
    for name, mask in ticket.arrays.items():
        assert found[name] >= mask.size - int(mask.sum()) > 0
    assert Ticket.load(tmp_path / "shared/ticket.mask.safetensors").kept == ticket.kept
    assert json.loads((tmp_path / "shared/model.json").read_text())["num_classes"] == 3
    text = (tmp_path / "shared/README.md").read_text()
    for said in (
        "torchvision.models.squeezenet1_1(num_classes=3)",
        "Found by `imp`",
        "| train | 0 |",
        "CC BY 4.0",
        "sha256",
    ):
        assert said in text
    capsys.readouterr()
    assert main(["verify", "shared"]) == 0 and "5 files" not in capsys.readouterr().err


def test_a_text_model_loads_by_from_pretrained_without_winnow(run_stage, tmp_path):
    model, mask = Path("results/bert/model.safetensors"), Path("results/t.mask.safetensors")
    assert run_stage("import_text_model", {"model": TINY_BERT, "data": TEXT}, out=model)[0] == 0
    assert run_stage("prune", {"method": "magnitude", "remaining_percent": 40}, weights=model, out=mask)[0] == 0
    export(mask, Path("shared"), model, Path("results"))
    found = zeros(LOAD_TEXT, tmp_path / "shared")
    for name, array in Ticket.load(mask).arrays.items():
        assert found[name] >= array.size - int(array.sum()) > 0


@pytest.fixture
def shared(dense, run_stage, tmp_path) -> Path:
    mask = tmp_path / "t.mask.safetensors"
    assert run_stage("prune", {"method": "magnitude", "remaining_percent": 40}, weights=dense, out=mask)[0] == 0
    export(mask, tmp_path / "shared", dense, tmp_path / "none")
    return tmp_path / "shared"


def test_the_statement_is_in_toto_s_with_slsa_s_predicate(shared):
    found = json.loads((shared / "statement.intoto.json").read_text())
    assert (
        found["_type"] == "https://in-toto.io/Statement/v1"
        and found["predicateType"] == "https://slsa.dev/provenance/v1"
    )
    assert {s["name"] for s in found["subject"]} == {"README.md", "model.json", "model.pth", "ticket.mask.safetensors"}
    build = found["predicate"]["buildDefinition"]
    assert build["buildType"] == "urn:winnow:stage:prune" and build["externalParameters"]["remaining_percent"] == 40
    assert [len(d["digest"]["sha256"]) for d in build["resolvedDependencies"]] == [64]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["README.md", "model.json", "model.pth", "ticket.mask.safetensors"])
def test_a_flipped_byte_is_refused_by_name(shared, name, capsys):
    flip(shared / name)
    assert main(["verify", str(shared)]) == 2
    told = capsys.readouterr().err
    assert (
        told.startswith(f"winnow verify: error: {shared / name}: is not the file that was stated")
        and told.count("\n") == 1
    )


def test_what_was_added_lost_or_linked_is_refused(shared, tmp_path):
    (shared / "extra.py").write_text("import os")
    with pytest.raises(WinnowError, match=r"extra\.py: is there, and not stated"):
        statement.check(shared)
    (shared / "extra.py").unlink()
    (shared / "model.json").rename(tmp_path / "model.json")
    with pytest.raises(WinnowError, match=r"model\.json: is stated, and not there"):
        statement.check(shared)
    (shared / "model.json").symlink_to(tmp_path / "model.json")
    with pytest.raises(WinnowError, match="is a link"):
        statement.check(shared)
    (shared / "statement.intoto.json").write_text("[]")
    (shared / "model.json").unlink()
    with pytest.raises(WinnowError, match="is no in-toto statement"):
        statement.check(shared)


def test_nothing_is_overwritten_and_nothing_half_written_stays(shared, dense, tmp_path):
    with pytest.raises(WinnowError, match="is there already"):
        export(tmp_path / "t.mask.safetensors", shared, dense, tmp_path / "none")
    with pytest.raises(WinnowError, match="no such file"):
        export(tmp_path / "t.mask.safetensors", tmp_path / "new", tmp_path / "nowhere.safetensors", tmp_path / "none")
    with pytest.raises(WinnowError, match=r"0 weights .* name them with --weights"):
        export(tmp_path / "t.mask.safetensors", tmp_path / "new", None, tmp_path / "none")
    assert not (tmp_path / "new").exists() and not list(tmp_path.glob(".winnow-export-*"))


def keys(folder: Path, name: str) -> tuple[Path, Path]:
    ec = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ec")
    from cryptography.hazmat.primitives import serialization as s

    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo))
    return private, public


def test_a_signed_folder_holds_for_its_key_alone_and_a_flipped_byte_is_refused(shared, tmp_path, monkeypatch):
    pytest.importorskip("model_signing", reason="model_signing (the extra `share`) is not installed")
    private, public = keys(tmp_path, "own")
    _, other = keys(tmp_path, "other")
    with pytest.raises(WinnowError, match="is not signed"):
        statement.check(shared, public)
    monkeypatch.chdir(tmp_path)
    statement.sign(Path("shared"), private)
    assert statement.check(Path("shared"), public) == statement.check(shared, public) == 4
    with pytest.raises(WinnowError, match="the signature does not hold"):
        statement.check(shared, other)
    flip(shared / "model.pth")
    with pytest.raises(WinnowError, match="the signature does not hold"):
        statement.check(shared, public)
    # a forger who states the changed file anew has no key for it
    statement.write(shared, {})
    assert statement.check(shared) == 4
    with pytest.raises(WinnowError, match="the signature does not hold"):
        statement.check(shared, public)


def test_a_key_that_is_none_is_told_so(shared, tmp_path):
    pytest.importorskip("model_signing", reason="model_signing (the extra `share`) is not installed")
    (tmp_path / "key.pem").write_text("no key")
    with pytest.raises(WinnowError, match="cannot sign"):
        statement.sign(shared, tmp_path / "key.pem")
    with pytest.raises(WinnowError, match="no such key"):
        statement.sign(shared, tmp_path / "nowhere.pem")


def test_the_hub_is_refused_cleanly_without_a_network_and_what_comes_is_checked(shared, tmp_path, monkeypatch):
    library = pytest.importorskip("huggingface_hub")

    def instead(owner, name, does):
        """Stands for a function of the hub's, with its signature: a call that the real one would not take fails."""
        found = create_autospec(getattr(owner, name), side_effect=does)
        monkeypatch.setattr(owner, name, found)
        return found

    gone = ConnectionError("no route to host")
    fetch = instead(library, "snapshot_download", gone)
    create = instead(library.HfApi, "create_repo", gone)
    with pytest.raises(WinnowError, match=r"me/t: cannot be fetched \(no route to host\)"):
        hub.pull("me/t", tmp_path / "got")
    with pytest.raises(WinnowError, match=r"me/t: cannot be sent \(no route to host\)"):
        hub.push(shared, "me/t")
    with pytest.raises(WinnowError, match="is not owner/name"):
        hub.pull("t", tmp_path / "got")
    with pytest.raises(WinnowError, match=r"me/t: cannot be fetched \(no route to host\)"):
        instead(library, "hf_hub_download", gone)
        Ticket.load("me/t")
    create.side_effect = None
    upload = instead(library.HfApi, "upload_folder", None)
    hub.push(shared, "me/t")
    assert create.call_args.args[1:] == ("me/t",) and create.call_args.kwargs == {"exist_ok": True}
    assert upload.call_args.kwargs == {"repo_id": "me/t", "folder_path": str(shared)}
    fetch.side_effect = lambda name, local_dir: shutil.copytree(shared, local_dir)
    assert hub.pull("me/t", tmp_path / "got") == 4 and (tmp_path / "got/model.pth").is_file()
    flip(shared / "model.pth")
    with pytest.raises(WinnowError, match="is not the file that was stated"):
        hub.pull("me/t", tmp_path / "again")
    assert not (tmp_path / "again").exists() and not list(tmp_path.glob(".winnow-pull-*"))


def test_the_exported_state_holds_the_weights_themselves(shared, dense):
    from winnow.artifacts import read_tensors

    state, own = torch.load(shared / "model.pth"), read_tensors(dense)
    masks = Ticket.load(shared / "ticket.mask.safetensors").masks
    for name, value in own.items():
        assert torch.equal(state[name], value * masks[name] if name in masks else value)
