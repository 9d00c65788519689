"""The run context: a default that needs nothing, checkpoints that no two trainings share, and stops that keep the
state.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from winnow.config.parts import Train
from winnow.errors import WinnowError
from winnow.run import Run, Stopped
from winnow.train.checkpoint import CURRENT
from winnow.train.loop import Fit, fit

IMAGES = """
import numpy as np, torch
from torch import nn
from winnow.config.gems import Search
from winnow.config.parts import Attack, Compute, Data, Train
from winnow.gems.search import search
from winnow.run import Run
from winnow.ticket import Ticket
from winnow.train.loop import Fit, fit
from winnow.vision.batches import Loader
from winnow.vision.sources import Split
from winnow.vision.training import train_classifier

torch.manual_seed(0)
labels = np.arange(64) % 2
bright = labels[:, None, None, None] * 120 + np.random.default_rng(0).integers(0, 120, (64, 3, 8, 8))
loader = Loader(Split(bright.astype(np.uint8), labels), Data(dataset="npz", val_images=1), 16, Run().device)
make = lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 2)).to(loader.device)
train = Train(epochs=3, batch_size=16, lr=0.05)

model = make()
history, best = train_classifier(model, loader, loader, train=train, compute=Compute(), seed=0, watch=("val_sa",))
assert history[-1]["val_sa"] > 90 and best.values["val_sa"] > 90, history

model = make()
gem, history = search(model, loader, config=Search(algo="hc_iter", target_sparsity=50, iter_period=1), train=train,
                      compute=Compute(), seed=0)
assert 0 < Ticket(gem.ticket()).remaining_percent < 100 and len(history) == 3

def step(batch):
    loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
    loss.backward()
    return loss

model = make()
history = fit(Fit(model, torch.optim.SGD(model.parameters(), lr=0.05), train, loader, step, seed=0))
assert [r["epoch"] for r in history] == [1, 2, 3] and history[-1]["loss"] < history[0]["loss"]
"""

TEXTS = """
from winnow.config.parts import Compute, Train
from winnow.config.text import FreeLB, HardConcrete, TextData, TextModel
from winnow.run import Run
from winnow.text.batches import encode
from winnow.text.data import load_text
from winnow.text.models import prunable, tiny_bert, vocabulary
from winnow.text.search import search
from winnow.text.training import finetune

task = TextData(dataset="embedded", max_length=24, train_examples=64)
splits = load_text(task, Run().data_root, False, ("train",))
vocab = vocabulary(splits["train"].texts, [], 500)
model, tokenizer = tiny_bert(TextModel(source="tiny", layers=1, hidden=16, heads=2, intermediate=32), 2, vocab, 24, 0)
data = {name: encode(tokenizer, split, 24) for name, split in splits.items()}
train = Train(epochs=2, batch_size=16, optimizer="adamw", lr=1e-2)

history, _ = finetune(model, data, train=train, compute=Compute(), seed=0)
assert len(history) == 2 and 0 <= history[-1]["val_accuracy"] <= 100

adversary = FreeLB(steps=1)
history, kept = search(model, prunable(model), data, train=train, masks=HardConcrete(), adversary=adversary, keep_epochs=[2],
                       compute=Compute(), seed=0)
assert list(kept) == [2] and set(kept[2]) == set(prunable(model))
"""

BARE = """
import sys
from pathlib import Path
assert not list(Path().iterdir()), "the script left files"
assert not {"winnow.stage", "winnow.launch"} & set(sys.modules)
"""


@pytest.mark.parametrize("script", [IMAGES, TEXTS], ids=["images", "texts"])
def test_a_script_of_ones_own_trains_and_searches_with_what_it_has(script, tmp_path):
    if script is TEXTS:
        pytest.importorskip("transformers")
    done = subprocess.run([sys.executable, "-c", script + BARE], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


class Points:
    """Four batches an epoch of a line with noise."""

    steps_per_epoch = 4

    def sizes(self, epoch):
        return [8] * 4

    def epoch(self, epoch, first=0, share=slice):
        for number in range(first, 4):
            generator = torch.Generator().manual_seed(100 * epoch + number)
            x = torch.randn(8, 2, generator=generator)
            yield x[share(8)], (x @ torch.tensor([1.0, -2.0]))[share(8)]


def training(after_step=None, epochs=3):
    torch.manual_seed(0)
    model = nn.Linear(2, 1)

    def step(batch):
        loss = (model(batch[0])[:, 0] - batch[1]).square().mean()
        loss.backward()
        return loss

    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    return Fit(
        model, optimizer, Train(epochs=epochs, batch_size=8, lr=0.05), Points(), step, 0, after_update=after_step
    )


def stop_at(run, step):
    """An `after_step` that asks for a stop in step number `step`, as a signal handler would."""
    taken = []

    def after_step():
        taken.append(None)
        run.stop_requested = run.stop_requested or len(taken) == step

    return after_step


def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path):
    whole = training()
    history = fit(whole)
    first = Run("cpu", checkpoints=tmp_path / "state")
    with pytest.raises(Stopped):
        fit(training(stop_at(first, 5)), first)
    assert (tmp_path / "state" / CURRENT).exists()
    resumed = training()
    again = fit(resumed, Run("cpu", checkpoints=lambda: tmp_path / "state"))
    assert resumed.global_step == 12 and again == history
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True))


def test_without_checkpoints_a_stop_keeps_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Run("cpu", checkpoint_seconds=0)
    with pytest.raises(Stopped):
        fit(training(stop_at(run, 2)), run)
    assert not list(tmp_path.iterdir())


def test_two_trainings_of_a_run_cannot_share_a_checkpoint(tmp_path):
    run = Run("cpu", checkpoints=tmp_path, checkpoint_seconds=0)
    fit(training(), run)
    with pytest.raises(
        WinnowError, match=r"holds the checkpoint of another training of this run; put each training into"
    ):
        fit(training(), run)
    with run.part("second"):
        assert len(fit(training(epochs=1), run)) == 1
    assert (tmp_path / CURRENT).exists() and (tmp_path / "second" / CURRENT).exists()
    run.discard_checkpoints()
    assert not tmp_path.exists()


def test_a_stop_is_safe_within_a_training_alone():
    run, seen = Run("cpu"), []
    fit(training(lambda: seen.append(run.stops_safely), epochs=1), run)
    assert seen == [True] * 4 and not run.stops_safely
    with pytest.raises(ZeroDivisionError), run.stopping_safely():
        raise ZeroDivisionError
    assert not run.stops_safely


def test_hooks_of_the_optimizer_run():
    plan, seen = training(epochs=1), []
    plan.optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    plan.optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    fit(plan)
    assert seen == ["before", "after"] * 4


def test_a_run_needs_neither_torch_nor_files_before_it_is_used():
    code = "import sys; from winnow.run import Run; run = Run(); assert run.device_type == 'cpu' and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_device_that_is_not_there_is_named():
    with pytest.raises(WinnowError, match="device: 'warp' is not a device"):
        assert Run("warp").device
    assert Run(torch.device("cpu")).device == Run("cpu").device == torch.device("cpu")


def test_attacks_leave_no_files_without_checkpoints(tmp_path, monkeypatch):
    from winnow.text.attacks import run as attacks

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(attacks, "attack_one", lambda attack, examples, index, seed: {"index": index})
    assert attacks.attack_all(lambda worker: (None, None), range(3), 0) == [{"index": i} for i in range(3)]
    assert not list(tmp_path.iterdir())
    run = Run(checkpoints=tmp_path / "rows")
    attacks.attack_all(lambda worker: (None, None), range(3), 0, run)
    assert [len(p.read_text().splitlines()) for p in Path(tmp_path / "rows").glob("part-*.jsonl")] == [3]
