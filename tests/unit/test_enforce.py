"""Removed weights stay zero: the ways in which they came back to life, one by one, and a thousand random steps."""

from __future__ import annotations

import copy
import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import winnow
from winnow import Ticket, WinnowError
from winnow.train.masking import _HELD, enforce


class Lion(torch.optim.Optimizer):
    """An optimiser of one's own: the sign of momentum, decoupled decay."""

    def __init__(self, parameters, lr=0.01, weight_decay=0.1):
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                moment = state.setdefault("m", torch.ones_like(p))
                moment.mul_(0.9).add_(p.grad if p.grad is not None else 0, alpha=0.1)
                p.mul_(1 - group["lr"] * group["weight_decay"]).add_(moment.sign(), alpha=-group["lr"])


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=1e-2, nesterov=True),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1),
    "adam": lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.1, amsgrad=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.5),
    "lion": Lion,
}


def made(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4))
    rng = np.random.default_rng(seed)
    shapes = {n: tuple(p.shape) for n, p in model.named_parameters() if p.dim() > 1}
    return model, Ticket({n: rng.random(s) < 0.3 for n, s in shapes.items()})


def step(model, optimizer, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.rand(8, 3, 8, 8, generator=generator), torch.randint(0, 4, (8,), generator=generator)
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()


def revived(model, ticket) -> int:
    parameters = dict(model.named_parameters())
    return sum(int((parameters[n].detach() != 0)[~m].sum()) for n, m in ticket.masks.items())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_three_steps(name):
    model, ticket = made()
    handle = winnow.enforce(model, ticket)
    optimizer = OPTIMIZERS[name](model.parameters())
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    for k in range(3):
        step(model, optimizer, k)
    handle.check()
    assert revived(model, ticket) == 0
    assert all(
        (dict(model.named_parameters())[n] != before[n])[m].all() for n, m in ticket.masks.items() if n == "4.weight"
    )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimiser_that_is_warm(name):
    model, ticket = made()
    optimizer = OPTIMIZERS[name](model.parameters())
    for k in range(3):
        step(model, optimizer, k)
    enforce(model, ticket)
    for k in range(3):
        step(model, optimizer, k)
        assert revived(model, ticket) == 0


def test_a_deep_copy():
    model, ticket = made()
    handle = enforce(model, ticket)
    twin = copy.deepcopy(model)
    optimizer = OPTIMIZERS["adamw"](twin.parameters())
    for k in range(3):
        step(twin, optimizer, k)
    assert revived(twin, ticket) == 0 and revived(model, ticket) == 0
    handle.remove()  # the copy has a holder of its own
    step(twin, optimizer)
    assert revived(twin, ticket) == 0


def test_load_state_dict_and_writes_past_the_optimiser():
    model, ticket = made()
    enforce(model, ticket)
    other, _ = made(1)
    model.load_state_dict(other.state_dict())
    assert revived(model, ticket) == 0
    nn.init.ones_(model[0].weight)
    model(torch.rand(2, 3, 8, 8))
    assert revived(model, ticket) == 0


def test_check_tells_what_is_alive():
    model, ticket = made()
    handle = enforce(model, ticket)
    with torch.no_grad():
        model[4].weight.fill_(1.0)
    with pytest.raises(
        WinnowError, match=rf"4\.weight: {int((~ticket.masks['4.weight']).sum())} removed weights are not zero"
    ):
        handle.check()


def test_twice_is_once_and_another_ticket_replaces():
    model, ticket = made()
    for _ in range(3):
        handle = enforce(model, ticket)
    assert len(model._forward_pre_hooks) == 1 and len(model[0].weight._backward_hooks) == 1
    _, other = made(5)
    enforce(model, other)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    step(model, optimizer)
    assert revived(model, other) == 0
    handle.check()  # the old handle holds nothing and says nothing


def test_removed_everything_moves_again_and_nothing_is_left():
    model, ticket = made()
    before = len(_HELD)
    handle = enforce(model, ticket)
    handle.remove()
    assert len(_HELD) == before and not model._forward_pre_hooks and not model._load_state_dict_post_hooks
    step(model, OPTIMIZERS["adamw"](model.parameters()))
    assert revived(model, ticket) > 0


def test_nothing_to_mask_is_nothing_to_check_and_a_part_may_be_let_go_alone():
    model, ticket = made()
    nothing = enforce(model, None)
    nothing.check()
    nothing.remove()
    whole = enforce(model, ticket)
    enforce(model[4], None)  # its last layer alone is let go
    with torch.no_grad():
        for n in (0, 4):
            model[n].weight.fill_(1.0)
    model(torch.zeros(1, 3, 8, 8))
    assert model[4].weight.all() and float(model[0].weight.detach().sum()) == ticket.arrays["0.weight"].sum()
    whole.remove()
    with torch.no_grad():
        model[0].weight.fill_(1.0)
    model(torch.zeros(1, 3, 8, 8))
    assert model[0].weight.all(), "the rest was not let go"


def test_a_saved_model_is_held_when_it_comes_back():
    model, ticket = made()
    enforce(model, ticket)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    back = torch.load(file, weights_only=False)
    step(back, OPTIMIZERS["lion"](back.parameters()))
    assert revived(back, ticket) == 0


def test_kept_weights_move_as_under_torch_s_pruning():
    from torch.nn.utils import prune

    (ours, ticket), (theirs, _) = made(), made()
    enforce(ours, ticket)
    for name, mask in ticket.masks.items():
        prune.custom_from_mask(theirs[int(name[0])], "weight", mask)
    one, two = (torch.optim.SGD(m.parameters(), 0.1, momentum=0.9, weight_decay=1e-3) for m in (ours, theirs))
    for k in range(5):
        step(ours, one, k)
        step(theirs, two, k)
    for i in (0, 4):
        assert torch.allclose(ours[i].weight, theirs[i].weight_orig * theirs[i].weight_mask, atol=1e-6)


@settings(max_examples=8, deadline=None)
@given(name=st.sampled_from(sorted(OPTIMIZERS)), seed=st.integers(0, 10**6), clip=st.booleans())
def test_a_thousand_random_steps(name, seed, clip):
    torch.manual_seed(seed)
    model = nn.Linear(6, 5)
    mask = np.random.default_rng(seed).random((5, 6)) < 0.4
    mask[0, 0] = True
    ticket = Ticket({"weight": mask})
    optimizer = OPTIMIZERS[name](model.parameters())
    handle = enforce(model, ticket)
    for k in range(1000):
        optimizer.zero_grad(set_to_none=bool(k % 2))
        (model(torch.randn(3, 6)) * torch.randn(3, 5)).sum().backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
    handle.check()


def test_a_compiled_model():
    model, ticket = made()
    handle = enforce(model, ticket)
    compiled = torch.compile(model, backend="eager")
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    for k in range(2):
        step(compiled, optimizer, k)
    handle.check()
