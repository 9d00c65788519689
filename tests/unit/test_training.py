"""The training loop: masks hold, restarts cost nothing, divergence is told."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.utils.prune
from conftest import ATTACK, DIGITS, TRAIN

from winnow import Ticket
from winnow.artifacts import read_metadata, read_tensors, write_tensors
from winnow.config.parts import Compute, Train
from winnow.schema import parse
from winnow.stages import train, transfer
from winnow.train.checkpoint import CURRENT, PREVIOUS, Checkpoints
from winnow.train.masking import enforce
from winnow.train.optim import lr_factor, make_optimizer
from winnow.vision import training


@pytest.fixture
def ticket(dense, run_stage, tmp_path):
    out = tmp_path / "r1.mask.safetensors"
    assert run_stage("prune", {"method": "magnitude", "remaining_percent": 40}, weights=dense, out=out)[0] == 0
    return out


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("attack", [None, ATTACK])
def test_no_pruned_weight_ever_moves(dense, ticket, run_stage, tmp_path, optimizer, attack):
    training = TRAIN | {"optimizer": optimizer, "lr": 0.01, "momentum": 0.9, "weight_decay": 0.1}
    config = {"data": DIGITS, "train": training, "attack": attack, "compute": {}, "seed": 0, "keep": "last"}
    files = {"out": tmp_path / "t.safetensors", "metrics": tmp_path / "t.json"}
    assert run_stage("train", config, init=dense, mask=ticket, **files)[0] == 0
    trained, start = read_tensors(files["out"]), read_tensors(dense)
    for name, mask in Ticket.load(ticket).masks.items():
        assert not trained[name][~mask].any()
        assert not torch.equal(trained[name][mask], start[name][mask])


def test_kept_weights_move_as_under_torch_prune():
    torch.manual_seed(0)
    ours = torch.nn.Linear(6, 4, bias=False)
    theirs = torch.nn.Linear(6, 4, bias=False)
    theirs.load_state_dict(ours.state_dict())
    mask = np.random.default_rng(0).random((4, 6)) < 0.5
    enforce(ours, Ticket({"weight": mask}))
    torch.nn.utils.prune.custom_from_mask(theirs, "weight", torch.from_numpy(mask))
    config = parse(Train, {"epochs": 1, "batch_size": 1, "lr": 0.1, "weight_decay": 0.01})
    optimizers = [make_optimizer(config, m.parameters()) for m in (ours, theirs)]
    x = torch.randn(8, 6)
    for _ in range(5):
        for net, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            net(x).square().mean().backward()
            optimizer.step()
    assert torch.allclose(ours.weight, theirs.weight_orig * theirs.weight_mask, atol=1e-7)


def test_another_configuration_never_takes_the_checkpoint(dense, tmp_path):
    def job(config, init=dense, out="a"):
        arguments = ["--config", json.dumps(config), "--init", str(init), "--best-sa", out, "--metrics", "b"]
        return transfer.stage._job(vars(transfer.stage.parser().parse_args(arguments)))

    config = {"data": DIGITS, "train": TRAIN, "compute": {}, "seed": 0}
    other = tmp_path / "other.safetensors"
    write_tensors(other, read_tensors(dense), {**read_metadata(dense), "note": "another file of the same tensors"})
    keys = [job(config).key(), job(config | {"seed": 1}).key(), job(config, other).key(), job(config, out="c").key()]
    assert len(set(keys)) == 4 and job(config).key() == keys[0]
    assert train.stage.name != transfer.stage.name


def test_whoever_does_not_write_only_reads(tmp_path):
    Checkpoints(tmp_path, writes=False).save({"step": 1})
    assert not list(tmp_path.iterdir())
    Checkpoints(tmp_path).save({"step": 2})
    assert Checkpoints(tmp_path, writes=False).load() == {"step": 2}
    nowhere = Checkpoints(None)
    nowhere.save({"step": 3})
    assert nowhere.load() is None and not nowhere.due(3600.0) and nowhere.due(-1.0)


def test_a_torn_checkpoint_falls_back_to_the_one_before(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.load() is None
    checkpoints.save({"step": 1, "w": torch.ones(3)})
    checkpoints.save({"step": 2, "w": torch.ones(3)})
    assert checkpoints.load()["step"] == 2
    (tmp_path / CURRENT).write_bytes((tmp_path / CURRENT).read_bytes()[:-5])
    assert checkpoints.load()["step"] == 1
    (tmp_path / PREVIOUS).write_bytes(b"")
    assert checkpoints.load() is None


@pytest.mark.parametrize("together", [False, True])
def test_a_model_is_placed_as_configured(monkeypatch, together):
    asked = []
    monkeypatch.setattr(training, "compile_if_asked", lambda *arguments: asked.append(arguments))
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    compute = Compute(sync_batchnorm=together)
    assert training.place(model, compute, torch.device("cpu")) is model and asked == [(model, compute)]
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert ("forward" in vars(model[1])) == together  # its own forward pass stands in


def test_divergence_is_one_line_and_writes_nothing(run_stage, pretrain_config, tmp_path):
    config = pretrain_config | {"train": TRAIN | {"lr": 1e12, "epochs": 5}}
    code, err = run_stage("pretrain", config, out=tmp_path / "o.safetensors", metrics=tmp_path / "m.json")
    assert code == 2
    assert "training diverged: the loss is" in err.splitlines()[-1] and "lower lr (1e+12)" in err
    assert not list(tmp_path.glob("*.safetensors"))


def test_schedules():
    def factors(steps, **keys):
        config = parse(Train, {"epochs": 4, "batch_size": 1, "lr": 1.0} | keys)
        return [round(lr_factor(config, s, 2), 4) for s in steps]

    assert factors(range(8), schedule="multistep", milestones=[1, 3]) == [1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01]
    assert factors([0, 2, 4, 6], schedule="cosine") == [1, 0.8536, 0.5, 0.1464]
    assert factors([0, 1, 2, 5, 8], schedule="linear", warmup_fraction=0.25) == [0, 0.5, 1, 0.5, 0]
    assert factors([0, 7]) == [1, 1]
