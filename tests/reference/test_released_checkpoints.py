"""Files that the papers' released programs wrote: read to the expected masks and weights, and written back in their
layouts.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import shared_folder
from safetensors.torch import load_file
from torch import Tensor, nn

from winnow import Ticket, WinnowError
from winnow.artifacts import read_tensors
from winnow.interchange import fit, read_checkpoint, tickets_from_file, write_layout
from winnow.vision.models.plain_convs import Conv4
from winnow.vision.models.wide_resnet import WideResNet

pytestmark = pytest.mark.skipif(
    shared_folder() is None, reason="the reference data (WINNOW_SHARED, or ../shared) is not there"
)


def folder(name: str) -> Path:
    return shared_folder() / "golden/released/checkpoints" / name


def expected(file: Path, kind: str) -> dict[str, Tensor]:
    beside = file.with_name(f"{file.name}.expected.safetensors")
    values = load_file(beside if beside.exists() else file.with_name("expected.safetensors"))
    return {f"{k.removeprefix(kind)}.weight": v for k, v in values.items() if k.startswith(kind)}


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {k: tuple(v.shape) for k, v in model.state_dict().items()}


def wide() -> nn.Module:
    return WideResNet(10, 1, 10, bias=False, affine=False)


def conv4() -> nn.Module:
    return Conv4(10, bias=False, width=8)


def same(ticket: Ticket, masks: dict[str, Tensor]) -> bool:
    """Equal masks; heads of 1x1 convolutions are linear layers here."""
    theirs = {k: v.numpy().astype(bool).reshape(ticket.arrays[k].shape) for k, v in masks.items()}
    return set(theirs) == set(ticket.arrays) and all(np.array_equal(v, ticket.arrays[k]) for k, v in theirs.items())


GEMS = [
    ("gem_wideresnet_at_prune/hc_ckpt_at_sparsity_50.pt", wide, None, "auto", "mask."),
    ("gem_wideresnet_at_prune/hc_ckpt_at_sparsity_50.pt", wide, None, "flags_and_scores", "mask."),
    ("gem_wideresnet_at_prune/hc_ckpt_at_sparsity_50.pt", wide, None, "flags", "flag."),
    ("gem_conv4_finetune/model_before_finetune.pth", conv4, None, "auto", "mask."),
    ("gem_conv4_finetune/model_before_finetune.pth", conv4, None, "flags", "flag."),
    ("gem_conv4_finetune/model_after_finetune.pth", conv4, None, "auto", "mask."),
    ("gem_conv4_finetune/model_after_finetune.pth", conv4, None, "flags", "flag."),
    ("gem_conv4_ep/wt_model_after_epoch_4.pth", conv4, 30, "ep", "mask."),
    ("imp_wideresnet/round_2_model.pth", wide, None, "auto", "mask."),
    ("imp_wideresnet/round_2_model.pth", wide, None, "weights", "mask."),
    ("imp_wideresnet/round_2_mask.npy", wide, None, "auto", "mask."),
]


@pytest.mark.parametrize(("name", "model", "remaining", "rule", "kind"), GEMS)
def test_rare_gems_tickets(name, model, remaining, rule, kind):
    file = folder(name)
    found = tickets_from_file(read_checkpoint(file), name, shapes_of(model()), remaining, rule)
    assert same(found.ticket, expected(file, kind))


def test_the_two_readings_of_a_search_checkpoint_differ():
    file = folder("gem_wideresnet_at_prune/hc_ckpt_at_sparsity_50.pt")
    own, alive = expected(file, "mask."), expected(file, "flag.")
    assert all((own[k] <= alive[k]).all() for k in own) and any((own[k] != alive[k]).any() for k in own)


@pytest.mark.parametrize(
    ("name", "model", "remaining", "rule", "message"),
    [
        ("gem_conv4_ep/wt_model_after_epoch_4.pth", conv4, None, "auto", "edge-popup search, not masks; say rule"),
        (
            "gem_conv4_ep/wt_model_after_epoch_4.pth",
            conv4,
            None,
            "ep",
            "say remaining_percent, the percentage that ep keeps",
        ),
        (
            "gem_conv4_finetune/model_after_finetune.pth",
            conv4,
            50,
            "auto",
            "holds masks .*; leave remaining_percent out",
        ),
    ],
)
def test_what_a_file_leaves_open_has_to_be_said(name, model, remaining, rule, message):
    with pytest.raises(WinnowError, match=message):
        tickets_from_file(read_checkpoint(folder(name)), name, shapes_of(model()), remaining, rule)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("gem_wideresnet_at_prune/hc_ckpt_at_sparsity_50.pt", wide),
        ("gem_conv4_finetune/model_after_finetune.pth", conv4),
        ("imp_wideresnet/round_2_model.pth", lambda: WideResNet(10, 1, 10, bias=False, affine=True)),
    ],
)
def test_rare_gems_weights_load_strictly(name, model):
    net, state = model(), read_checkpoint(folder(name))
    fitted = fit(state, shapes_of(net))
    net.load_state_dict(fitted.tensors, strict=True)
    assert {n.rpartition(".")[2] for n in fitted.left_out} == {"flag", "bias_flag", "scores", "bias_scores"}
    for key, value in expected(folder(name), "weight.").items():
        assert torch.equal(fitted.tensors[key].reshape(value.shape), value)


DOUBLE_WIN = ["dw_imp_adv/2-checkpoint.pth.tar", "dw_imp_std/2-checkpoint.pth.tar",
 "dw_downstream_adv/checkpoint.pth.tar",
              "dw_downstream_std/checkpoint.pth.tar"]  # fmt: skip


def small_resnet() -> nn.Module:
    """torchvision's ResNet of 4 to 32 channels, one block a stage, as the files' programs were run on."""
    from winnow.compat import torchvision

    resnet = torchvision().models.resnet
    net = resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], num_classes=10)
    net.conv1, net.bn1, net.inplanes = nn.Conv2d(3, 4, 7, 2, 3, bias=False), nn.BatchNorm2d(4), 4
    for i in range(4):
        setattr(net, f"layer{i + 1}", net._make_layer(resnet.BasicBlock, 4 * 2**i, 1, 2 if i else 1))
    net.fc = nn.Linear(32, 10)
    return net


@pytest.mark.parametrize("name", DOUBLE_WIN)
def test_double_win_tickets_and_weights(name):
    net, file = small_resnet(), folder(name)
    state = read_checkpoint(file)
    assert same(tickets_from_file(state, name, shapes_of(net)).ticket, expected(file, "mask."))
    fitted = fit(state, shapes_of(net))
    net.load_state_dict(fitted.tensors, strict=True)
    for key, value in expected(file, "weight.").items():
        assert torch.equal(net.state_dict()[key], value)
    assert set(fitted.normalisation) == ({"mean", "std"} if "adv" in name else set())


@pytest.mark.parametrize("name", DOUBLE_WIN[:2])
def test_the_weights_before_pruning_lie_under_another_entry(name):
    net = small_resnet()
    first = fit(read_checkpoint(folder(name), "init"), shapes_of(net))
    net.load_state_dict(first.tensors, strict=True)
    last = fit(read_checkpoint(folder(name)), shapes_of(net)).tensors
    assert not torch.equal(first.tensors["conv1.weight"], last["conv1.weight"])
    with pytest.raises(WinnowError, match="no entry 'start'; it holds epoch, arch, state_dict, best_acc1"):
        read_checkpoint(folder(name), "start")


ROBUST = ["robust_search_weight", "robust_search_row", "robust_search_column"]


def bert_shapes(name: str) -> dict[str, tuple[int, ...]]:
    state = read_checkpoint(folder(name) / "pytorch_model.bin")
    return {k: tuple(v.shape) for k, v in state.items() if not k.endswith("mask_scores")}


@pytest.mark.parametrize("removed", [20, 40])
@pytest.mark.parametrize("name", ROBUST)
def test_robust_tickets_drawn_from_scores(name, removed):
    file = folder(name) / "pytorch_model.bin"
    found = tickets_from_file(read_checkpoint(file), name, bert_shapes(name), 100 - removed)
    assert same(found.ticket, expected(file, f"ticket_0.{removed // 10}."))
    with pytest.raises(WinnowError, match="holds scores, not masks; say remaining_percent"):
        tickets_from_file(read_checkpoint(file), name, bert_shapes(name))


BLOCKS = {"weight": [1, 1], "row": [1, 32], "column": [32, 1]}  # out_w_per_mask, in_w_per_mask of the three files


@pytest.mark.parametrize("kind", BLOCKS)
def test_masks_over_blocks_are_the_released_ones(kind, run_stage, tmp_path):
    """The released scores under `masks.block`: the released network's outputs in evaluation, and its drawn tickets."""
    from winnow.config.text import HardConcrete
    from winnow.text import compat, hard_concrete
    from winnow.text.models import prunable

    file = folder(f"robust_search_{kind}") / "pytorch_model.bin"
    state, values = read_checkpoint(file), load_file(file.with_name("expected.safetensors"))
    transformers = compat.transformers()
    config = transformers.BertConfig.from_pretrained(file.parent, local_files_only=True)
    model = transformers.BertForSequenceClassification(config)
    model.load_state_dict({k: v for k, v in state.items() if not k.endswith("mask_scores")}, strict=True)
    shapes = {n: list(model.get_parameter(n).shape) for n in prunable(model)}
    scores = hard_concrete.attach(model, list(shapes), HardConcrete(block=BLOCKS[kind]))
    for name, score in scores.items():  # of one shape: copied as they are
        score.data = torch.empty_like(score).copy_(
            state[name.replace(".weight", ".mask.mask_scores")].view(score.shape)
        )
    with torch.no_grad():
        logits = model.eval()(input_ids=values["ids"], attention_mask=values["attention_mask"]).logits
    assert torch.allclose(logits, values["eval_logits"], atol=1e-5)
    saved, out = tmp_path / "s.safetensors", tmp_path / "t.mask.safetensors"
    hard_concrete.write_scores(saved, scores, {"shapes": shapes, "search_epoch": 1, "seed": 0})
    for removed in (0.2, 0.4):
        assert run_stage("draw_ticket", {"removed_fraction": removed}, scores=saved, out=out)[0] == 0
        assert same(Ticket.load(out), expected(file, f"ticket_{removed}."))


def test_a_drawn_robust_ticket_is_read_as_it_is():
    file = folder("robust_retrained_weight") / "pytorch_model.bin"
    state, shapes = read_checkpoint(file), bert_shapes("robust_retrained_weight")
    assert same(tickets_from_file(state, "f", shapes).ticket, expected(file, "mask."))
    assert same(tickets_from_file(state, "f", shapes, 60).ticket, expected(file, "mask."))
    with pytest.raises(WinnowError, match=r"drawn already, at 60 % remaining; leave remaining_percent out"):
        tickets_from_file(state, "f", shapes, 50)
    for key, value in expected(file, "weight.").items():
        assert torch.equal(fit(state, shapes).tensors[key], value)


def test_retrained_weights_under_their_ticket_give_the_logits_of_the_released_program():
    from winnow.text import compat

    file = folder("robust_retrained_weight") / "pytorch_model.bin"
    model = (
        compat.transformers()
        .AutoModelForSequenceClassification.from_pretrained(file.parent, local_files_only=True)
        .eval()
    )
    tickets_from_file(read_checkpoint(file), "f", bert_shapes(file.parent.name)).ticket.apply(model)
    values = load_file(file.with_name("expected.safetensors"))
    with torch.no_grad():
        logits = model(input_ids=values["ids"], attention_mask=values["attention_mask"]).logits
    assert torch.allclose(logits, values["eval_logits"], atol=1e-5)


# the layouts' own rules, on what winnow writes from tickets of these files


def through_gem_miner(path: Path) -> dict[str, Tensor]:
    state = torch.load(path, weights_only=True)
    real = torch.load(folder("gem_wideresnet_at_prune/hc_ckpt_at_sparsity_50.pt"), weights_only=True)
    assert {k: (v.shape, v.dtype) for k, v in state.items()} == {k: (v.shape, v.dtype) for k, v in real.items()}
    assert all(
        (state[k] != 0).equal((state[k] != 0) & (state[k.replace("flag", "scores")] > 0.5))
        for k in state
        if ".flag" in k
    )
    return {k.replace(".flag", ".weight"): v != 0 for k, v in state.items() if k.endswith(".flag")}


def through_imp_mask(path: Path) -> dict[str, Tensor]:
    module = types.ModuleType("imp_mask")
    module.Mask = type("Mask", (dict,), {"__module__": "imp_mask"})
    sys.modules["imp_mask"] = module
    try:
        masks = np.load(path, allow_pickle=True).item()
    finally:
        del sys.modules["imp_mask"]
    assert isinstance(masks, module.Mask) and {v.dtype for v in masks.values()} == {torch.float32}
    return masks


def through_imp_model(path: Path) -> dict[str, Tensor]:
    state = torch.load(path, weights_only=True)["model_state_dict"]
    return {k: v != 0 for k, v in state.items() if k.endswith(".weight") and v.dim() == 4}


@pytest.mark.parametrize(
    ("layout", "suffix", "read"),
    [
        ("gem_miner", "pt", through_gem_miner),
        ("imp_mask", "npy", through_imp_mask),
        ("imp_model", "pth", through_imp_model),
    ],
)
def test_rare_gems_layouts_are_written(layout, suffix, read, tmp_path):
    file, net = folder("gem_wideresnet_at_prune/hc_ckpt_at_sparsity_50.pt"), wide()
    state = read_checkpoint(file)
    ticket = tickets_from_file(state, "f", shapes_of(net)).ticket
    out = tmp_path / f"out.{suffix}"
    write_layout(out, layout, ticket, fit(state, shapes_of(net)).tensors)
    theirs = read(out)
    assert all(v.dim() == 4 for v in theirs.values()) and same(ticket, theirs)
    assert same(tickets_from_file(read_checkpoint(out), "f", shapes_of(net)).ticket, theirs)


@pytest.mark.parametrize("module", ["IMP_codebase.mask", "mask"])
def test_masks_of_older_runs_and_of_round_0(module, tmp_path, monkeypatch):
    """The class of the pickled masks has moved in the released code; before the first prune a mask is all ones."""
    real = {k: v.numpy() for k, v in expected(folder("imp_wideresnet/round_2_mask.npy"), "mask.").items()}
    kind = type("Mask", (dict,), {"__module__": module})
    for name in ("IMP_codebase", "IMP_codebase.mask", "mask"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules[module].Mask = kind
    net = wide()
    for name, ones in (("old", False), ("round_0", True)):
        masks = {k: torch.ones(v.shape) if ones else torch.tensor(v, dtype=torch.float32) for k, v in real.items()}
        array = np.empty((), dtype=object)
        array[()] = kind(masks)
        np.save(tmp_path / f"{name}.npy", array, allow_pickle=True)
        found = tickets_from_file(read_checkpoint(tmp_path / f"{name}.npy"), name, shapes_of(net)).ticket
        assert same(found, {k: v.bool() for k, v in masks.items()})


def test_double_win_layout_is_written(tmp_path):
    file, net = folder(DOUBLE_WIN[1]), small_resnet()
    state = read_checkpoint(file)
    ticket = tickets_from_file(state, "f", shapes_of(net)).ticket
    write_layout(tmp_path / "o.pth.tar", "double_win", ticket, fit(state, shapes_of(net)).tensors)
    written = torch.load(tmp_path / "o.pth.tar", weights_only=True)["state_dict"]
    real = torch.load(file, weights_only=True)["state_dict"]
    assert set(written) == set(real) and all(torch.equal(written[k], real[k]) for k in real)


def test_robust_layout_is_written(tmp_path):
    file = folder("robust_retrained_weight") / "pytorch_model.bin"
    state, shapes = read_checkpoint(file), bert_shapes("robust_retrained_weight")
    ticket = tickets_from_file(state, "f", shapes).ticket
    write_layout(tmp_path / "pytorch_model.bin", "robust_bert", ticket, fit(state, shapes).tensors)
    written, real = torch.load(tmp_path / "pytorch_model.bin", weights_only=True), torch.load(file, weights_only=True)
    assert set(written) == set(real) and all(torch.equal(written[k], real[k]) for k in real)


def test_a_layout_that_holds_weights_asks_for_them(tmp_path):
    with pytest.raises(WinnowError, match="--weights: required for the layout gem_miner"):
        write_layout(tmp_path / "o", "gem_miner", Ticket({"a.weight": np.ones((1, 1), bool)}), None)


# through the stages, as a user would


def test_a_released_file_through_the_stages(run_stage, tmp_path):
    model = {"arch": "wideresnet-10-1", "classifier": "conv1x1", "bn": "non_affine"}
    file = folder("gem_wideresnet_at_prune/hc_ckpt_at_sparsity_50.pt")
    weights, mask, out, again = (
        tmp_path / n for n in ("w.safetensors", "t.mask.safetensors", "o.pt", "u.mask.safetensors")
    )
    config = {"weights": {"file": file.name}, "model": model, "num_classes": 10}
    assert run_stage("import_weights", config, file=file, out=weights, metrics=tmp_path / "m.json")[0] == 0
    assert run_stage("import_ticket", {"rule": "flags"}, file=file, weights=weights, out=mask)[0] == 0
    assert same(Ticket.load(mask), expected(file, "flag."))
    files = {"mask": mask, "weights": weights, "out": out, "metrics": tmp_path / "e.json"}
    assert run_stage("export_ticket", {"layout": "gem_miner"}, **files)[0] == 0
    assert run_stage("import_ticket", {}, file=out, weights=weights, out=again)[0] == 0
    assert same(Ticket.load(again), expected(file, "flag."))


def test_a_retrained_model_is_brought_in_as_a_text_model(run_stage, tmp_path):
    source = folder("robust_retrained_weight")
    config = {"model": {"source": "pretrained", "path": str(source)}, "data": {"dataset": "embedded", "max_length": 16}}
    code, err = run_stage("import_text_model", config, out=tmp_path / "m" / "model.safetensors")
    assert code == 0, err
    ours = read_tensors(tmp_path / "m" / "model.safetensors")
    for key, value in expected(source / "pytorch_model.bin", "weight.").items():
        assert torch.equal(ours[key], value)
    files = {"weights": tmp_path / "m" / "model.safetensors", "out": tmp_path / "t.mask.safetensors"}
    assert run_stage("import_ticket", {}, file=source / "pytorch_model.bin", **files)[0] == 0
    assert same(Ticket.load(files["out"]), expected(source / "pytorch_model.bin", "mask."))
