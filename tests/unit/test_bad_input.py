"""Bad input: one table of mistakes, each with the one line that it earns. Nothing is left half written, no code of
others is run.

Stages end with exit code 2. A configuration is refused before any job starts, with Snakemake's own exit code 1 (the
test of that, and of names that a shell would read as commands, runs Snakemake: tests/workflow/test_bad_workflow.py).
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import ATTACK, DIGITS, MODEL, ROOT, TRAIN

from winnow import Ticket
from winnow.config.root import load
from winnow.errors import WinnowError

DEFAULT = yaml.safe_load((ROOT / "config/config.yaml").read_text())
DW, RB, GEM = "double_win", "robust_bert", "rare_gems.experiments.0"

# key, value, message: what Snakemake prints and ends with before any job
CONFIGURATIONS = [
    ("data_rot", "x", "config.data_rot: unknown key; did you mean 'data_root'?"),
    ("log_level", "loud", "config.log_level: 'loud' is not a valid choice; known: debug, error, info, warning"),
    ("workers", -1, "config.workers: -1 must be >= 0"),
    ("store", 5, "config.store: expected text, got 5"),
    ("checkpoint_seconds", 0, "config.checkpoint_seconds: 0 must be > 0"),
    ("download", "yes", "config.download: expected true or false, got 'yes'"),
    (f"{DW}.seds", [1], "config.double_win.seds: unknown key; did you mean 'seeds'?"),
    (f"{DW}.seeds", [], "config.double_win: seeds: [] must be at least one, and different"),
    (f"{DW}.seeds", [1, 1], "config.double_win: seeds: [1, 1] must be at least one, and different"),
    (f"{DW}.imp.rounds", -1, "config.double_win.imp.rounds: -1 must be >= 0"),
    (f"{DW}.imp.prune_percent", 100, "config.double_win.imp.prune_percent: 100 must be < 100"),
    (f"{DW}.imp.train.lr", float("nan"), "config.double_win.imp.train.lr: expected a finite number, got nan"),
    (f"{DW}.imp.attack.eps", "8/0", "config.double_win.imp.attack.eps: expected a number, got '8/0'"),
    (f"{DW}.imp.attack", None, "config.double_win: imp.attack: needed, since a pretraining has the IMP regime adv"),
    (f"{DW}.compute.threads", 0, "config.double_win.compute.threads: 0 must be >= 1"),
    (f"{DW}.pretrainings.1.attack.eps", 8, "config.double_win.pretrainings[1].attack: eps 8 exceeds 1"),
    (
        f"{DW}.pretrainings.0.method",
        "standard",
        "config.double_win.pretrainings[0].method: 'standard' is not a valid choice",
    ),
    (f"{DW}.pretrainings.0.name", "a/b", "'a/b' must be letters"),
    (f"{DW}.downstreams.0.data.dataset", "cifar11", "'cifar11' is not a valid choice; did you mean 'cifar10'?"),
    (f"{DW}.downstreams.0.fractions", [0], "config.double_win.downstreams[0].fractions[0]: 0 must be > 0"),
    (f"{DW}.transfer.methods", ["imp"], "config.double_win: transfer.methods: dense is missing"),
    (f"{DW}.transfer.rounds", [9], "config.double_win: transfer.rounds: round 9 is not run (imp.rounds is 2)"),
    (f"{DW}.transfer.tickets.0.pretraining", "nowhere", "names the unknown pretraining 'nowhere'"),
    (f"{RB}.tasks.0.search_epochs", [99], "search_epochs: [99] must lie within 1..4"),
    (f"{RB}.tasks.0.name", "a/b", "must be letters"),
    (f"{RB}.removed_fractions", [1.5], "config.robust_bert.removed_fractions[0]: 1.5 must be < 1"),
    (f"{RB}.attackers", [], "attackers is empty: nothing to run"),
    (f"{RB}.model.hidden", 30, "not a multiple of heads"),
    (f"{RB}.model.source", "pretrained", "needs path"),
    (f"{RB}.attackers.0.attack.recipe", "pwvs", "did you mean 'pwws'"),
    (f"{RB}.tasks.0.data.dataset", "file", "needs train_path and test_path"),
    (f"{RB}.tasks.0.data.dataset", "glue", "needs task"),
    (f"{GEM}.branches.0.search.lambd", 1, ".search.lambd: unknown key; did you mean 'lmbda'?"),
    (f"{GEM}.branches.0.algo", "hc_itr", "did you mean 'hc_iter'"),
    (f"{GEM}.targets", [0], "0 must be > 0"),
]


@pytest.mark.parametrize(("path", "value", "message"), CONFIGURATIONS, ids=lambda v: v if isinstance(v, str) else None)
def test_configurations(path, value, message):
    config = json.loads(json.dumps(DEFAULT))
    *way, last = path.split(".")
    inner = config
    for step in way:
        inner = inner[int(step)] if isinstance(inner, list) else inner[step]
    inner[last] = value
    with pytest.raises(WinnowError) as error:
        load(config)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert str(error.value).startswith("config." + path.split(".")[0])


class Code:
    """Runs when it is unpickled by a reader that runs code."""

    def __reduce__(self):
        return (Path.mkdir, (Path("code was run"),))


def saved(value, path: str = "x.pth") -> Path:
    torch.save(value, path)
    return Path(path)


def packed(**changes) -> str:
    """An npz data set; None leaves an array out."""
    arrays = {f"{s}_images": np.zeros((4, 8, 8, 3), np.uint8) for s in ("train", "test")}
    arrays |= {f"{s}_labels": np.array([0, 1, 0, 1]) for s in ("train", "test")}
    Path("data").mkdir(exist_ok=True)
    np.savez("data/d.npz", **{k: v for k, v in (arrays | changes).items() if v is not None})
    return "d.npz"


def written(path: str, data: bytes) -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(data)
    return Path(path)


def foreign_ticket() -> Path:
    Ticket({"elsewhere.weight": np.ones(3, bool)}).save("foreign.mask.safetensors", method="x")
    return Path("foreign.mask.safetensors")


TRANSFER = {"data": DIGITS, "train": TRAIN, "compute": {}, "seed": 0}
PRETRAIN = {"method": "std", "data": DIGITS, "model": MODEL, "train": TRAIN, "compute": {}, "seed": 0}
PRUNE = {"method": "magnitude", "remaining_percent": 80}
IMPORT = {"weights": {"file": "x"}, "model": MODEL, "num_classes": 3}


def data(**keys):
    return lambda dense: (PRETRAIN | {"data": {"dataset": "npz", "val_images": 1, **keys}}, {})


def arrays(**changes):
    return lambda dense: (PRETRAIN | {"data": {"dataset": "npz", "val_images": 1, "path": packed(**changes)}}, {})


def transfer(config=None, **files):
    return lambda dense: (TRANSFER | (config or {}), {k: f(dense) for k, f in files.items()})


def imported(make, **config):
    return lambda dense: (IMPORT | config, {"file": make()})


def ticket_from(state):
    return lambda dense: ({}, {"file": saved({"state_dict": state}), "weights": dense})


# what is wrong, stage, its configuration and files (made in an empty folder; `dense` are sound weights), the end of its
# log
STAGES = [
    # configurations of a stage run by hand
    ("unknown key", "transfer", transfer({"sed": 1}), "config.sed: unknown key; did you mean 'seed'?"),
    ("no JSON", "transfer", lambda dense: ("{not json", {}), "--config: not JSON"),
    ("no such file of JSON", "transfer", lambda dense: ("@nowhere.json", {}), "nowhere.json: no such file"),
    ("a file of half a JSON", "transfer", lambda d: (f"@{written('c.json', b'{')}", {}),
     "c.json: not a complete JSON file"),
    ("eps in 0..255", "transfer", transfer({"attack": ATTACK | {"eps": 8}}), "config.attack: eps 8 exceeds 1"),
    ("no training data", "transfer", transfer({"fraction": 0}), "config.fraction: 0 must be > 0"),
    ("one image a batch where it is one value a channel", "transfer",
     transfer({"train": TRAIN | {"batch_size": 1}, "data": {**DIGITS, "train_images": 9, "image_size": 4}}),
     "a batch of one example meets a batch normalisation"),
    ("diverging", "transfer", transfer({"train": TRAIN | {"lr": 1e15}, "data": {**DIGITS, "train_images": 30}}),
     "training diverged"),
    ("neither a percentage nor a ticket to follow", "prune", lambda d: ({"method": "magnitude"}, {"weights": d}),
     "config.remaining_percent: goes with --weights; --like takes"),
    ("a method that nobody knows", "prune", lambda d: (PRUNE | {"method": "magnitud"}, {"weights": d}),
     "did you mean 'magnitude'?"),
    ("a method that trains", "prune", lambda d: (PRUNE | {"method": "rigl"}, {"weights": d}),
     "the stage train takes it"),
    ("a method without its task", "prune", lambda d: (PRUNE | {"method": "snip"}, {"weights": d}),
     "needs the task (data or text)"),
    ("nothing to prune", "prune", lambda d: (PRUNE, {}), "--weights: magnitude needs the weights to prune"),
    ("hub spelled wrong", "import_weights", lambda d: (IMPORT | {"weights": {"hub": "owner/name"}}, {}),
     "is not owner/name:file"),
    ("two sources", "import_weights", lambda d: (IMPORT | {"weights": {"file": "a", "hub": "b"}}, {}),
     "set exactly one of file"),
    # artifacts
    ("missing artifact", "transfer", transfer(init=lambda d: "none"),
     "none: no such file; run the stage that writes it first"),
    ("truncated artifact", "transfer", transfer(init=lambda d: written("torn.safetensors", d.read_bytes()[:3000])),
     "torn.safetensors: damaged: its bytes are not those that were written"),
    ("empty artifact", "prune", lambda d: (PRUNE, {"weights": written("e.safetensors", b"")}),
     "e.safetensors: truncated or not a safetensors file"),
    ("weights as a ticket", "transfer", transfer(mask=lambda d: d), "not a winnow ticket"),
    ("ticket of another model", "transfer", transfer(mask=lambda d: foreign_ticket()),
     "ticket does not fit CifarResNet: no parameter 'elsewhere.weight'"),
    ("ticket as weights", "transfer", transfer(init=lambda d: foreign_ticket()),
     "not weights that winnow wrote; bring them in"),
    ("weights without prunable names", "prune", lambda d: (PRUNE, {"weights": foreign_ticket()}),
     "records no prunable weights"),
    ("weights as scores", "draw_ticket", lambda d: ({"removed_fraction": 0.5}, {"scores": d}), "holds no scores"),
    # data sets
    ("no path", "pretrain", data(), "data.path: required for dataset npz"),
    ("no file", "pretrain", data(path="no.npz"), "no.npz: no such file; data.path names an .npz with train_images"),
    ("array left out", "pretrain", arrays(train_labels=None), "holds no array 'train_labels'"),
    ("images as floats", "pretrain", arrays(train_images=np.zeros((4, 8, 8, 3))), "images must be uint8"),
    ("labels for other images", "pretrain", arrays(train_labels=np.zeros(3, int)), "with N labels"),
    ("no images", "pretrain", arrays(train_images=np.zeros((0, 8, 8, 3), np.uint8), train_labels=np.zeros(0, int)),
     "the dataset is empty"),
    ("objects in an npz", "pretrain", arrays(train_images=np.array([Code()] * 4)),
     "not a readable .npz of plain arrays"),
    ("half an npz", "pretrain", lambda d: (data(path="d.npz")(d)[0], {"": written("data/d.npz", b"PK\3\4 torn")}),
     "not a readable .npz"),
    ("unknown class", "pretrain", lambda d: (PRETRAIN | {"data": {**DIGITS, "classes": [0, 77]}}, {}),
     "digits has no images of class 77"),
    ("more held out than there is", "pretrain", lambda d: (PRETRAIN | {"data": {**DIGITS, "val_images": 5000}}, {}),
     "5000 images wanted"),
    ("no image folder", "pretrain", data(dataset="imagefolder", path="none"), "expected the folders train/<class>/"),
    ("no ImageNet", "pretrain", data(dataset="imagenet"), "must be placed there by hand"),
    ("no CIFAR-10", "pretrain", data(dataset="cifar10"), "cifar-10-batches-py is missing or damaged; put them there"),
    ("no SVHN", "pretrain", data(dataset="svhn"), "train_32x32.mat and test_32x32.mat is missing or damaged"),
    ("half a tar of images", "pack_images", lambda d: ({}, {"source": written("s.tar", b"torn")}),
     "s.tar: not a complete tar archive"),
    # checkpoints of others
    ("code in weights", "import_weights", imported(lambda: saved({"state_dict": {"a": Code()}})),
     "is not loaded, since that would run its code"),
    ("code in a ticket", "import_ticket", lambda d: ({}, {"file": saved(Code()), "weights": d}),
     "is not loaded, since that would run its code"),
    ("a bare pickle", "import_weights", imported(lambda: written("p.pth", pickle.dumps(Code()))), "p.pth:"),
    ("half a checkpoint", "import_weights", imported(lambda: written("h.pth", b"PK\3\4")),
     "h.pth: truncated or not a torch checkpoint"),
    ("no state dict", "import_weights", imported(lambda: saved({"epoch": 3})),
     "no state dict found; looked for the keys state_dict"),
    ("a list", "import_weights", imported(lambda: saved([1, 2])), "holds a list, expected a state dict"),
    ("other layers", "import_weights", imported(lambda: saved({"conv1.weight": torch.ones(2)})),
     "does not fit the model: missing"),
    ("another sha256", "import_weights",
     imported(lambda: saved({"a": torch.ones(1)}), weights={"file": "x", "sha256": "0" * 64}),
     "fetch the file again or correct the config"),
    ("no mask in it", "import_ticket", ticket_from({"conv1.weight": torch.full((4, 3, 3, 3), 0.5)}),
     "no masks found; looked for names ending"),
    ("scores for masks", "import_ticket", ticket_from({"conv1.mask_scores": torch.ones(4, 3, 3, 3)}),
     "holds scores, not masks"),
    ("a mask of 0.5", "import_ticket", ticket_from({"conv1.weight_mask": torch.full((4, 3, 3, 3), 0.5)}),
     "values other than 0 and 1"),
    ("a mask of another shape", "import_ticket", ticket_from({"conv1.weight_mask": torch.ones(4, 3, 7, 7)}),
     "its mask (4, 3, 7, 7)"),
    # the environment
    ("no network", "import_weights", lambda d: (IMPORT | {"weights": {"hub": "owner/name:w.pth"}}, {}),
     "put w.pth of owner/name there, or set download: true"),
    ("no such GPU", "transfer", lambda d: (TRANSFER, {"device": "cuda:99"}), "--device: cuda:99 is not available here"),
    ("no such device", "transfer", lambda d: (TRANSFER, {"device": "gpu"}),
     "'gpu' is not a device; use auto, cpu, cuda or cuda:N"),
    ("no process", "transfer", lambda d: (TRANSFER, {"processes": "0"}), "--processes: 0 is not a number of processes"),
    ("processes of a light stage", "prune", lambda d: (PRUNE, {"weights": d, "processes": "2"}),
     "prune does not train"),
    ("an output that cannot be written", "prune", lambda d: (PRUNE, {"weights": d, "out": written("f", b"") / "o"}),
     "cannot be written"),
]  # fmt: skip
OUTPUTS = {"transfer": ("best_sa", "metrics"), "pretrain": ("out", "metrics"), "import_weights": ("out", "metrics")}


@pytest.mark.parametrize(("stage", "make", "message"), [row[1:] for row in STAGES], ids=[row[0] for row in STAGES])
def test_stages(dense, run_stage, tmp_path, stage, make, message):
    config, files = make(dense)
    files = {"init": dense} | files if stage == "transfer" else files
    files = {name: f"made/{name}" for name in OUTPUTS.get(stage, ("out",))} | {k: v for k, v in files.items() if k}
    code, err = run_stage(stage, config, **files)
    last = err.splitlines()[-1]
    assert code == 2 and last.startswith(f"winnow {stage}: error: ") and message in last, err
    assert not (tmp_path / "made").exists() or not list((tmp_path / "made").iterdir())
    assert not list(tmp_path.rglob(".*.tmp")) and not (tmp_path / "code was run").exists()


def test_there_are_at_least_forty_of_each_kind_of_line():
    assert len(CONFIGURATIONS) + len(STAGES) >= 80
    assert len({row[0] for row in STAGES}) == len(STAGES)


def test_a_checkpoint_with_code_in_it_is_passed_over(tmp_path, monkeypatch, caplog):
    from winnow.train.checkpoint import CURRENT, Checkpoints

    monkeypatch.chdir(tmp_path)
    buffer = io.BytesIO()
    torch.save({"model": Code()}, buffer)
    checkpoints = Checkpoints(tmp_path)
    # its checksum holds
    (tmp_path / CURRENT).write_bytes(hashlib.sha256(buffer.getvalue()).digest() + buffer.getvalue())
    assert checkpoints.load() is None and "cannot be read" in caplog.text
    assert not (tmp_path / "code was run").exists()
    torch.load(io.BytesIO(buffer.getvalue()), weights_only=False)  # the test can fail: a careless reader does run it
    assert (tmp_path / "code was run").exists()
