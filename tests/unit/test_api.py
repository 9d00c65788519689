"""The library on one's own modules and loaders: two lines each."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

import winnow
from winnow import Ticket, WinnowError


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16, affine=False), nn.ReLU())
        self.more = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16, affine=False), nn.ReLU())
        self.head = nn.Linear(16, 2)

    def forward(self, x):
        return self.head(self.more(self.body(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def loader():
    """Batches of images whose class is which half is bright."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, 2, (96,), generator=generator)
    x = torch.rand(96, 3, 8, 8, generator=generator) * 0.3
    x[y == 1, :, :4] += 0.6
    x[y == 0, 0] += 0.5
    return [(x[i : i + 24].clamp(0, 1), y[i : i + 24]) for i in range(0, 96, 24)]


def train(model, loader, epochs=6, lr=0.1):
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9)
    model.train()
    for _ in range(epochs):
        for x, y in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()


def accuracy(model, loader):
    model.eval()
    with torch.no_grad():
        return 100.0 * sum(int((model(x).argmax(1) == y).sum()) for x, y in loader) / sum(len(y) for _, y in loader)


def test_importing_winnow_imports_no_torch():
    code = "import sys, winnow; print('torch' in sys.modules, sorted(winnow.__all__)[:2])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.startswith("False")
    with pytest.raises(AttributeError):
        winnow.nothing  # noqa: B018


def test_prune_and_enforce(loader):
    torch.manual_seed(0)
    model = Net()
    ticket = winnow.prune(model, "lamp", 40)
    handle = winnow.enforce(model, ticket)
    train(model, loader)
    handle.check()
    assert accuracy(model, loader) > 90 and ticket.remaining_percent == pytest.approx(40, abs=0.1)


def test_pgd_and_robust_accuracy(loader):
    torch.manual_seed(0)
    model = Net()
    train(model, loader)
    x, y = loader[0]
    adversarial = winnow.pgd(model, x, y, eps="8/255")
    assert (adversarial - x).abs().max() <= 8 / 255 + 1e-6 and 0 <= adversarial.min() <= adversarial.max() <= 1
    clean, weak, strong = (
        accuracy(model, loader),
        winnow.robust_accuracy(model, loader, "1/255"),
        winnow.robust_accuracy(model, loader, 0.5),
    )
    assert clean >= weak >= strong and strong < 60
    state = torch.random.get_rng_state()
    assert winnow.robust_accuracy(model, loader, 0.1, restarts=2) == winnow.robust_accuracy(
        model, loader, 0.1, restarts=2
    )
    assert torch.equal(state, torch.random.get_rng_state())
    with pytest.raises(WinnowError, match="gives no images"):
        winnow.robust_accuracy(model, [])
    with pytest.raises(WinnowError, match=r"attack\.eps|eps"):
        winnow.pgd(model, x, y, eps=1.5)


def test_find_gem_leaves_the_model_and_beats_a_random_mask_before_training(loader):
    torch.manual_seed(0)
    model = Net()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    ticket = winnow.find_gem(model, loader, 30, epochs=12, lr=2.0, lmbda=1e-5)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert ticket.remaining_percent == pytest.approx(30, abs=1.0)

    def before_training(masks: Ticket) -> float:
        twin = Net()
        twin.load_state_dict(before)
        masks.apply(twin)
        twin.train()
        with torch.no_grad():
            for _ in range(20):
                [twin(x) for x, _ in loader]
        return accuracy(twin, loader)

    random = winnow.prune(model, "random_global", 30, layers=winnow.prune.layers.Layers(head=True))
    assert before_training(ticket) >= before_training(random) and before_training(ticket) > 75


def test_imp_rounds_are_nested_and_train_from_the_start(loader):
    torch.manual_seed(0)
    model = Net()
    start = model.head.weight.detach().clone()
    seen = []

    def train_fn(net):
        seen.append(torch.equal(net.head.weight, start))
        train(net, loader, epochs=2)

    tickets = winnow.imp(model, train_fn, rounds=3)
    assert [round(t.removed_percent, 1) for t in tickets] == pytest.approx([20, 36, 48.8], abs=0.1)
    assert tickets[1].is_within(tickets[0]) and tickets[2].is_within(tickets[1]) and seen == [True] * 3
    with pytest.raises(WinnowError, match="rounds 0"):
        winnow.imp(model, train_fn, rounds=0)


def test_robust_ticket_of_a_tiny_bert():
    transformers = pytest.importorskip("winnow.text.compat").transformers()
    config = transformers.BertConfig(
        vocab_size=60, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, num_labels=2
    )
    torch.manual_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    ids = torch.randint(5, 60, (16, 6))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": (ids[:, 1] > 30).long()}
    before = {k: v.clone() for k, v in model.state_dict().items()}
    ticket = winnow.robust_ticket(model, [batch] * 3, 40, epochs=1, adversarial_steps=2)
    assert ticket.removed_percent == pytest.approx(40, abs=0.1)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    winnow.enforce(model, ticket).check()
