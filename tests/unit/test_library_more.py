"""The library on what users have: normalised images, frozen parts, generators, tickets as tensors, from folders and the
hub.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import winnow
from winnow import Ticket, WinnowError
from winnow.share import hub

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]


def normalised(x):
    return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()
        )
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


class Inside(nn.Module):
    """The same network with its normalisation inside."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(normalised(x))


@pytest.fixture
def pixels():
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(32) % 2
    x = torch.rand(32, 3, 8, 8, generator=generator) * 0.5
    x[y == 1, 0] += 0.4
    return [(x[:16], y[:16]), (x[16:], y[16:])]


@pytest.fixture
def model(pixels):
    torch.manual_seed(0)
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    for _ in range(15):
        for x, y in pixels:
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(normalised(x)), y).backward()
            optimizer.step()
    return net.eval()


def test_images_that_the_loader_normalises(model, pixels):
    keys = {"eps": 0.3, "steps": 5}
    loader = [(normalised(x), y) for x, y in pixels]
    found = winnow.robust_accuracy(model, loader, mean=MEAN, std=STD, **keys)
    assert found == winnow.robust_accuracy(Inside(model), pixels, **keys)
    assert found < 100.0 == winnow.robust_accuracy(model, loader, eps=1e-6, steps=1, mean=MEAN, std=STD)
    (x, y) = pixels[0]
    attacked = winnow.pgd(model, normalised(x), y, mean=MEAN, std=STD, random_start=False, **keys)
    moved = attacked * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1) - x
    assert float(moved.abs().max()) == pytest.approx(0.3, abs=1e-5)
    assert torch.allclose(attacked, normalised(winnow.pgd(Inside(model), x, y, random_start=False, **keys)), atol=1e-4)
    with pytest.raises(WinnowError, match="images must lie in"):
        winnow.robust_accuracy(model, loader, **keys)
    with pytest.raises(WinnowError, match="mean, std: give both"):
        winnow.pgd(model, x, y, mean=MEAN)


def test_parts_in_evaluation_mode_stay_in_it(model, pixels):
    model.train()
    model.body[1].eval()  # frozen statistics
    before = model.body[1].running_mean.clone()
    winnow.robust_accuracy(model, pixels, eps=0.1, steps=2)
    winnow.pgd(model, *pixels[0], eps=0.1, steps=2)
    winnow.pgd(model, normalised(pixels[0][0]), pixels[0][1], eps=0.1, steps=2, mean=MEAN, std=STD)
    assert model.training and model.head.training and not model.body[1].training
    assert torch.equal(model.body[1].running_mean, before)


def test_the_users_random_numbers_go_on_as_before(model, pixels):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    winnow.robust_accuracy(model, pixels, eps=0.1, steps=2)
    winnow.find_gem(model, pixels, 50, epochs=2, lr=1.0)
    assert torch.equal(torch.rand(1), expected)


def test_a_loader_that_shuffles_gives_the_same_gem_again(model, pixels):
    data = torch.utils.data.TensorDataset(torch.cat([x for x, _ in pixels]), torch.cat([y for _, y in pixels]))
    loader = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True)
    one, two = (winnow.find_gem(model, loader, 40, epochs=3, lr=2.0) for _ in range(2))
    assert all(np.array_equal(one.arrays[n], two.arrays[n]) for n in one.arrays)


def test_generators(model, pixels):
    whole = winnow.robust_accuracy(model, pixels, eps=0.1, steps=2)
    assert winnow.robust_accuracy(model, iter(pixels), eps=0.1, steps=2) == whole  # once is enough here
    with pytest.raises(WinnowError, match=r"gave 2 batches, then 0; give one that can be gone through again"):
        winnow.find_gem(model, iter(pixels), 50, epochs=2)
    with pytest.raises(WinnowError, match="gives no images"):
        winnow.robust_accuracy(model, [])


def test_imp_rewinds_to_a_state_of_ones_own(model):
    early = model.state_dict()
    seen = []

    def train_fn(net):
        seen.append(net.head.weight.detach().clone())
        with torch.no_grad():
            net.head.weight.add_(1.0)

    before = early["head.weight"].clone()
    winnow.imp(model, train_fn, rounds=2, rewind=early)  # the model's own tensors, which training moves
    assert all(torch.equal(w, before) for w in seen)


def test_imp_refuses_a_training_that_brings_weights_back(model):
    def train_fn(net):
        for parameter in net.parameters():
            parameter.data.fill_(1.0)

    with pytest.raises(WinnowError, match=r"removed weights are not zero"):
        winnow.imp(model, train_fn, rounds=2)


def test_robust_ticket_of_an_enforced_model():
    transformers = pytest.importorskip("winnow.text.compat").transformers()
    sizes = {
        "vocab_size": 60,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(transformers.BertConfig(**sizes))
    ids = torch.randint(5, 60, (8, 6))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids[:, 1] % 2}
    with winnow.enforce(model, winnow.prune(model, remaining_percent=50)) as handle:
        assert winnow.robust_ticket(model, [batch], 40, epochs=1, adversarial_steps=1).removed_percent == pytest.approx(
            40, abs=0.1
        )
        model(**batch)
        handle.check()


def test_masks_may_be_tensors():
    mask = np.random.default_rng(0).random((4, 6)) < 0.5
    one, two = Ticket({"w": mask}), Ticket({"w": torch.from_numpy(mask)})
    assert np.array_equal(one.arrays["w"], two.arrays["w"]) and one.remaining_percent == two.remaining_percent
    for wrong, kind in [(mask.astype(np.float32), "float32"), (torch.ones(2), "float32"), ([[True]], "list")]:
        with pytest.raises(WinnowError, match=f"mask w is {kind}, expected bool"):
            Ticket({"w": wrong})


def test_a_ticket_shows_itself_in_a_line():
    ticket = Ticket(
        {"a": np.arange(3000).reshape(30, 100) % 4 == 0, "b": np.ones(1000, dtype=bool)}, {"method": "lamp"}
    )
    assert repr(ticket) == "Ticket(lamp, 43.75 % of 4,000 weights kept, 2 masks)"
    assert repr(Ticket({"a": np.eye(2, dtype=bool)})) == "Ticket(50 % of 4 weights kept, 1 masks)"


def test_a_prefix(model):
    ticket = winnow.prune(model, remaining_percent=40)
    whole = nn.ModuleDict({"net": model})
    ticket.apply(whole, prefix="net.")
    assert all(not p[~ticket.masks[n]].any() for n, p in model.state_dict().items() if n in ticket.arrays)


def test_a_ticket_of_an_exported_folder_and_of_the_hub(tmp_path, monkeypatch):
    ticket = Ticket({"w": np.eye(3, dtype=bool)}, {"method": "lamp"})
    ticket.save(tmp_path / "ticket.mask.safetensors")
    assert repr(Ticket.load(tmp_path)) == repr(ticket)
    asked = []

    class Hub:
        @staticmethod
        def hf_hub_download(name, file):
            asked.append((name, file))
            if name == "someone/gone":
                raise ConnectionError("no network\nhere")
            return str(tmp_path / file)

    monkeypatch.setattr(hub, "_hub", lambda name: Hub)
    monkeypatch.chdir(tmp_path)
    assert repr(Ticket.load("someone/resnet50-lamp")) == repr(ticket) and asked == [
        ("someone/resnet50-lamp", "ticket.mask.safetensors")
    ]
    with pytest.raises(
        WinnowError, match=r"^someone/gone: cannot be fetched \(no network here\); run this where there is a network"
    ):
        Ticket.load("someone/gone")
    with pytest.raises(WinnowError, match="no such file"):
        Ticket.load("folder/a.mask.safetensors")
