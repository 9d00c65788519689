"""Networks of one's own through IMP and transfer: a class in a file, timm's, Hugging Face's; what is pruned of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import ATTACK, DIGITS, ROOT, TRAIN

from winnow import Ticket, WinnowError
from winnow.artifacts import read_metadata, read_tensors
from winnow.config import architectures, own_models
from winnow.config.notices import notices
from winnow.config.parts import Model
from winnow.config.root import load
from winnow.schema import parse
from winnow.vision import models

CODE = '''"""A network."""
from torch import nn

from blocks import block


class Net(nn.Module):
    def __init__(self, num_classes, width=4):
        super().__init__()
        self.body = nn.Sequential(block(3, width), block(width, width))
        self.middle = nn.Linear(width, 32)
        self.head = nn.Linear(32, num_classes)

    def forward(self, x):
        return self.head(self.middle(self.body(x).mean((2, 3))).relu())
'''
BLOCKS = (
    "from torch import nn\n\n\ndef block(a, b):\n    "
    "return nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU())\n"
)
BOTH = {"kinds": ["conv", "linear"]}


@pytest.fixture
def own(tmp_path, monkeypatch) -> dict[str, object]:
    """The working folder with a file that holds a network; its `model` section."""
    monkeypatch.chdir(tmp_path)
    Path("nets").mkdir()
    Path("nets/net.py").write_text(CODE)
    Path("nets/blocks.py").write_text(BLOCKS)
    return {"arch": "python:nets/net.py:Net", "layers": BOTH}


def convnext(folder: Path) -> dict[str, object]:
    """A Hugging Face ConvNeXt of two stages, of which the folder holds the configuration alone."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, patch_size=2, image_size=8)
    config.architectures = ["ConvNextForImageClassification"]
    config.save_pretrained(folder)
    return {"arch": f"hf:{folder.name}", "layers": BOTH}


def timm_vit(folder: Path) -> dict[str, object]:
    if not own_models.timm_names():
        pytest.skip("timm is not installed")
    return {
        "arch": "timm:vit_tiny_patch16_224",
        "options": {"img_size": 8, "patch_size": 4, "embed_dim": 24, "depth": 2},
        "layers": BOTH,
    }


def python_class(folder: Path) -> dict[str, object]:
    (folder / "nets").mkdir()
    (folder / "nets/net.py").write_text(CODE)
    (folder / "nets/blocks.py").write_text(BLOCKS)
    return {"arch": "python:nets/net.py:Net", "layers": BOTH}


@pytest.mark.parametrize("kind", [python_class, convnext, timm_vit])
def test_imp_and_transfer(kind, tmp_path, run_stage):
    model = kind(tmp_path / "convnext" if kind is convnext else tmp_path)
    config = {"method": "std", "data": DIGITS, "model": model, "train": TRAIN, "compute": {}, "seed": 0}
    code, said = run_stage("pretrain", config, out="dense.safetensors", metrics="dense.json")
    assert code == 0, said
    prunable = read_metadata("dense.safetensors")["prunable"]
    dense = read_tensors("dense.safetensors")
    head = models.head_names(models.load_pretrained("dense.safetensors")[0])
    assert {dense[n].dim() for n in prunable} == {2, 4} and not set(prunable) & set(head)
    ticket: Path | None = None
    weights = "dense.safetensors"
    for number in (1, 2):  # IMP: prune what the last round trained, rewind to the dense weights
        out = Path(f"r{number}.mask.safetensors")
        files = {"weights": weights, **({"mask": ticket} if ticket else {})}
        prune = {"method": "magnitude", "remaining_percent": 100 * 0.5**number, "round": number}
        assert run_stage("prune", prune, **files, out=out)[0] == 0
        ticket, weights = out, f"t{number}.safetensors"
        train = {"data": DIGITS, "train": TRAIN | {"epochs": 1}, "compute": {}, "seed": 0, "keep": "last"}
        code, said = run_stage(
            "train", train, init="dense.safetensors", mask=ticket, out=weights, metrics=f"t{number}.json"
        )
        assert code == 0, said
    found = Ticket.load(ticket)
    assert found.remaining_percent == pytest.approx(25, abs=0.1) and set(found.arrays) == set(prunable)
    down = DIGITS | {"classes": [5, 6]}
    transfer = {"data": down, "train": TRAIN | {"epochs": 1}, "attack": ATTACK, "compute": {}, "seed": 0}
    out = {"best_sa": "sa.safetensors", "best_ra": "ra.safetensors", "metrics": "transfer.json"}
    code, said = run_stage("transfer", transfer, init="dense.safetensors", mask=ticket, **out)
    assert code == 0, said
    trained = read_tensors("ra.safetensors")
    assert all(not trained[n][~m].any() for n, m in found.masks.items())
    assert all(trained[n][m].all() for n, m in found.masks.items())
    assert all(trained[n].shape[0] == 2 for n in head)
    evaluate = {"data": down, "evaluation": {"attack": ATTACK}, "compute": {}, "seed": 0}
    code, said = run_stage("evaluate", evaluate, best_sa="sa.safetensors", best_ra="ra.safetensors", metrics="e.json")
    assert code == 0, said
    assert 0 <= json.loads(Path("e.json").read_text())["best_ra"]["ra"] <= 100


def test_the_code_of_a_class_counts_and_its_comments_do_not(own):
    stamp = parse(Model, own).code
    assert stamp is not None and len(stamp) == 16
    for file, change, moves in [
        ("net.py", lambda t: t.replace('"""A network."""', '"""Words."""  # more'), False),
        ("net.py", lambda t: t.replace("self.middle(", "self.middle(0.5 * "), True),
        ("blocks.py", lambda t: t.replace("padding=1", "padding=2"), True),
        ("blocks.py", lambda t: t + "# a comment\n", False),
    ]:
        path = Path("nets") / file
        path.write_text(change(path.read_text()))
        now = parse(Model, own).code
        assert (now != stamp) == moves, (file, moves)
        stamp = now
    Path("nets/other.py").write_text("x = 1\n")  # beside it, but nothing imports it
    assert parse(Model, own).code == stamp


def test_weights_of_code_that_changed_are_refused(own):
    recorded = models.spec(parse(Model, own), 3)
    models.from_spec(recorded)
    path = Path("nets/net.py")
    path.write_text(path.read_text().replace("self.middle(self", "self.middle(2 * self"))
    with pytest.raises(
        WinnowError, match=r"the code of python:nets/net.py:Net has changed since these weights were made"
    ):
        models.from_spec(recorded)
    path.unlink()
    with pytest.raises(WinnowError, match=r"is not there since these weights were made"):
        models.from_spec(recorded)


def test_an_edit_of_the_class_is_what_is_built(own):
    first = models.build(parse(Model, own), 3)
    assert first.middle.out_features == 32
    path = Path("nets/net.py")
    path.write_text(path.read_text().replace("32", "16"))
    assert models.build(parse(Model, own), 3).middle.out_features == 16


def test_a_class_within_a_package_has_its_relative_imports(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("some/mypkg").mkdir(parents=True)
    Path("some/mypkg/__init__.py").write_text("")
    Path("some/mypkg/net.py").write_text(CODE.replace("from blocks", "from .blocks"))
    Path("some/mypkg/blocks.py").write_text(BLOCKS)
    config = Model(arch="python:some/mypkg/net.py:Net", options={"width": 6})
    assert models.build(config, 3)(torch.rand(2, 3, 8, 8)).shape == (2, 3)
    assert set(own_models.modules(Path("some/mypkg/net.py"))) == {
        "mypkg/net.py",
        "mypkg/blocks.py",
        "mypkg/__init__.py",
    }


WRONG = {
    "no file": ("python:nets/absent.py:Net", "nets/absent.py: no such file"),
    "no class": ("python:nets/net.py:Nett", "holds no class 'Nett'; did you mean 'Net'?"),
    "no spelling": ("python:nets/net.py", "is not python:path/file.py:Class"),
    "no Python": ("python:nets/broken.py:Net", "nets/broken.py: is no Python"),
    "no folder": ("hf:./absent", "is neither a folder nor the id of a model"),
    "no images": ("hf:words", "model_type 'bert' classifies no images"),
    "no configuration": ("hf:nets", "nets/config.json: no such file"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_built_is_told_from_the_configuration(own, name):
    arch, told = WRONG[name]
    Path("nets/broken.py").write_text("class Net(:\n")
    Path("words").mkdir()
    Path("words/config.json").write_text('{"model_type": "bert"}')
    assert told in str(architectures.unknown(arch))


def test_timm_names_are_read_where_it_is_installed(monkeypatch):
    monkeypatch.setattr(own_models, "timm_names", lambda: frozenset({"vit_tiny_patch16_224"}))
    assert architectures.unknown("timm:vit_tiny_patch16_224.augreg_in21k") is None
    assert "did you mean 'vit_tiny_patch16_224'?" in str(architectures.unknown("timm:vit_tny_patch16_224"))
    monkeypatch.setattr(own_models, "timm_names", frozenset)
    assert architectures.unknown("timm:x") == "timm is not installed; pip install timm"


BREAKS = {
    "raises": (
        "        super().__init__()\n",
        "        raise KeyError('no such table')\n",
        r"cannot be built \(KeyError: 'no such table'\)",
    ),
    "head first": (
        "self.middle = nn.Linear(width, 32)\n        self.head = nn.Linear(32, num_classes)",
        "self.head = nn.Linear(32, num_classes)\n        self.middle = nn.Linear(width, 32)",
        r"middle, has 32 outputs for 3 classes; define the classification head last",
    ),
    "no module": (
        "class Net(nn.Module):",
        "def Net(num_classes):\n    return 3\n\n\nclass Other(nn.Module):",
        "makes a int, no torch module",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_code_that_does_not_work_is_one_line(own, name):
    old, new, told = BREAKS[name]
    path = Path("nets/net.py")
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(WinnowError, match=told) as error:
        models.build(parse(Model, own), 3)
    assert "\n" not in str(error.value)


def test_options_are_for_those_that_take_them(own):
    assert models.build(parse(Model, {**own, "options": {"width": 6}}), 3).middle.in_features == 6
    with pytest.raises(WinnowError, match=r"cannot be built \(TypeError.*depth"):
        models.build(parse(Model, {**own, "options": {"depth": 6}}), 3)
    with pytest.raises(WinnowError, match="options: resnet8 takes none"):
        parse(Model, {"arch": "resnet8", "options": {"width": 6}})
    with pytest.raises(WinnowError, match=r"imagenet_stem: python:.* has none"):
        parse(Model, {**own, "imagenet_stem": False})
    with pytest.raises(WinnowError, match="resnet18 does not take them"):
        models.build(Model(arch="resnet18", options={"depth": 2}), 3)


def tiny(model):
    """The embedded tests' configuration with another network."""
    import yaml

    values = yaml.safe_load((ROOT / "tests/workflow/tiny.yaml").read_text())
    values["double_win"]["source"]["model"] = model
    return {k: v for k, v in values.items() if k not in ("robust_bert", "rare_gems")}


def told(model) -> list[str]:
    return [n for n in notices(load(tiny(model))) if "layers" in n]


def test_a_choice_of_layers_that_leaves_the_network_whole_is_told_before_any_job():
    for arch, percent in [("vit_b_16", "0.68"), ("convnext_tiny", "6.6"), ("swin_t", "0.016"), ("alexnet", "4")]:
        (line,) = told({"arch": arch})
        assert (
            line.startswith("double_win.source.model.layers: ") and f"hold only {percent} % of all parameters" in line
        )
    assert told({"arch": "vit_b_16", "layers": BOTH}) == []
    assert "hold only 0.68 %" in told({"arch": "vit_b_16", "layers": BOTH | {"include": ["conv_proj.*"]}})[0]


def test_a_network_that_cannot_be_built_is_refused_before_any_job(own):
    path = Path("nets/net.py")
    path.write_text(path.read_text().replace("block(3, width)", "absent(3, width)"))
    with pytest.raises(WinnowError, match=r"config.double_win.source.model.arch: python:.*NameError"):
        load(tiny(own))


def test_no_network_is_built_for_those_that_are_known(monkeypatch):
    from winnow.vision.models import survey

    monkeypatch.setattr(survey, "network", lambda *_: pytest.fail("built a network"))
    for arch in ("resnet8", "resnet50", "efficientnet_b0", "TinyResNet18"):
        assert told({"arch": arch}) == []


def test_weights_brought_in_with_few_prunable_ones_warn(own, run_stage):
    model = {"arch": own["arch"], "options": {"width": 2}}  # the default: convolutions alone
    path = Path("nets/net.py")
    path.write_text(path.read_text().replace("32", "256"))
    torch.save(models.build(parse(Model, model), 4).state_dict(), "net.pth")
    job = {"weights": {"file": "f"}, "model": model, "num_classes": 4}
    code, said = run_stage("import_weights", job, file="net.pth", out="net.safetensors", metrics="v.json")
    assert code == 0 and "the 2 weights to prune hold only 4.7 % of all parameters" in said


def test_layers_are_what_was_pruned_before_by_default():
    for arch in ("resnet8", "resnet18", "conv4"):
        network = models.build(Model(arch=arch), 4)
        convolutions = [f"{n}.weight" for n, m in network.named_modules() if isinstance(m, torch.nn.Conv2d)]
        assert models.prunable(network) == convolutions


def test_a_class_may_take_the_number_of_classes_by_position(own):
    path = Path("nets/net.py")
    path.write_text(path.read_text().replace("num_classes", "outputs"))
    assert models.build(parse(Model, own), 3).head.out_features == 3
