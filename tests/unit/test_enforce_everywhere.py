"""Removed weights stay zero where models are copied, moved, wrapped, shared out, frozen and written to; or an error
says so.
"""

from __future__ import annotations

import copy
import gc
import os
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import winnow
from winnow import Ticket, WinnowError
from winnow.train.masking import _HELD, enforce

KEPT = 0.3


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(8 * 36, 4)

    def forward(self, x):
        return self.head(self.body(x))


def made(seed=0, network=Net):
    torch.manual_seed(seed)
    model = network()
    rng = np.random.default_rng(seed)
    return model, Ticket({n: rng.random(tuple(p.shape)) < KEPT for n, p in model.named_parameters() if p.dim() > 1})


def gradients(model, forward=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    p = next(model.parameters())
    x = torch.rand(8, 3, 8, 8, generator=generator).to(p.device, p.dtype)
    run = model if forward is None else forward
    nn.functional.cross_entropy(run(x), torch.arange(8) % 4).backward()


def train(model, steps=3, forward=None, make=lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1)):
    optimizer = make(model.parameters())
    for k in range(steps):
        optimizer.zero_grad()
        gradients(model, forward, k)
        optimizer.step()
    return optimizer


def revived(model, ticket, prefix="") -> int:
    parameters = dict(model.named_parameters())
    return sum(int((parameters[prefix + n].detach().cpu() != 0)[~m].sum()) for n, m in ticket.masks.items())


def warm(model):
    """An optimiser whose state would move every weight, with or without a gradient."""
    return train(model, make=lambda p: torch.optim.SGD(p, 0.1, momentum=0.9))


def test_writes_to_data_before_an_evaluation():
    model, ticket = made()
    enforce(model, ticket)
    average = {n: torch.ones_like(p) for n, p in model.named_parameters()}  # a moving average of the dense weights
    model.eval()
    for name, parameter in model.named_parameters():
        parameter.data.copy_(average[name])
    with torch.no_grad():
        model(torch.rand(2, 3, 8, 8))
    assert revived(model, ticket) == 0
    assert model.head.weight.detach()[ticket.masks["head.weight"]].eq(1).all()


def test_two_forward_passes_before_a_backward_pass():
    model, ticket = made()
    enforce(model, ticket)
    x = torch.rand(4, 3, 8, 8)
    (model(x) - model(x.flip(0))).square().sum().backward()
    assert all(not p.grad[~ticket.masks[n]].any() for n, p in model.named_parameters() if n in ticket.arrays)


def test_a_deep_copy_whose_parts_run_by_themselves():
    model, ticket = made()
    optimizer = warm(model)
    enforce(model, ticket)
    twin = copy.deepcopy(model)
    other = torch.optim.SGD(twin.parameters(), 0.1, momentum=0.9)
    other.load_state_dict(optimizer.state_dict())
    for k in range(3):
        other.zero_grad()
        gradients(twin, lambda x: twin.head(twin.body(x)), k)
        other.step()
    assert revived(twin, ticket) == 0 and (twin.head.weight != model.head.weight).any()


def test_another_ticket_for_a_deep_copy_replaces_the_first():
    model, ticket = made()
    enforce(model, ticket)
    twin = copy.deepcopy(model)
    _, other = made(7)
    twin.load_state_dict(made()[0].state_dict())
    handle = enforce(twin, other)
    twin.load_state_dict(made()[0].state_dict())
    train(twin)
    handle.check()
    assert twin.head.weight.detach()[other.masks["head.weight"]].ne(0).all()  # nothing of the first ticket is left
    handle.remove()
    assert (
        not twin._forward_pre_hooks and not twin.head._forward_pre_hooks and not twin.head._load_state_dict_post_hooks
    )
    assert revived(model, ticket) == 0


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("part", ["model", "head", "parent"])
def test_load_state_dict(assign, part):
    model, ticket = made()
    enforce(model, ticket)
    dense, _ = made(1)
    loaded = {"model": model, "head": model.head, "parent": nn.ModuleDict({"net": model})}[part]
    source = {"model": dense, "head": dense.head, "parent": nn.ModuleDict({"net": dense})}[part]
    loaded.load_state_dict(source.state_dict(), assign=assign)
    assert revived(model, ticket) == 0
    train(model)  # with assign the parameters are others: they are held as well
    assert revived(model, ticket) == 0


def test_moved_to_another_dtype_and_back():
    model, ticket = made()
    enforce(model, ticket)
    for dtype in (torch.float64, torch.bfloat16, torch.float32):
        model.to(dtype)
        train(model)
        assert revived(model, ticket) == 0 and model.head.weight.dtype == dtype


def test_weights_that_are_frozen_first():
    model, ticket = made()
    model.requires_grad_(False)
    enforce(model, ticket)
    model.head.requires_grad_(True)
    train(model)
    model.requires_grad_(True)
    warm(model)
    assert revived(model, ticket) == 0


def test_a_parameter_that_is_replaced():
    model, ticket = made()
    enforce(model, ticket)
    model.head.weight = nn.Parameter(torch.ones_like(model.head.weight))
    train(model)
    assert revived(model, ticket) == 0


def test_weights_that_are_no_parameters_any_more_raise():
    for change in (
        lambda m: nn.utils.parametrizations.weight_norm(m.head),
        lambda m: prune.l1_unstructured(m.head, "weight", 0.5),
    ):
        model, ticket = made()
        handle = enforce(model, ticket)
        change(model)
        with pytest.raises(WinnowError, match=r"head\.weight is no parameter any more"):
            gradients(model)
        with pytest.raises(WinnowError, match=r"head\.weight is no parameter any more"):
            handle.check()
    model, ticket = made()
    enforce(model, ticket)
    stand_ins = {n: torch.ones_like(p) for n, p in model.named_parameters()}
    with pytest.raises(WinnowError, match=r"weight is no parameter any more"):
        torch.func.functional_call(model, stand_ins, (torch.rand(2, 3, 8, 8),))


def test_attacks_run_on_an_enforced_model():
    model, ticket = made()
    handle = enforce(model, ticket)
    loader = [(torch.rand(8, 3, 8, 8), torch.arange(8) % 4)]
    alone = copy.deepcopy(model)
    enforce(alone, None)
    # folds normalisations into stand-ins of the weights
    found = winnow.robust_accuracy(model, loader, eps=0.1, steps=3)
    assert found == winnow.robust_accuracy(alone, loader, eps=0.1, steps=3)
    handle.check()


def test_modules_that_are_never_called_but_read():
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.embed = nn.Linear(3 * 8, 8)
            self.head = nn.Linear(8, 4)

        def forward(self, x):
            x = self.embed(x.permute(0, 2, 1, 3).flatten(2))
            return nn.functional.linear(self.attention(x, x, x)[0].mean(1), self.head.weight)

    model, ticket = made(network=Reader)
    assert {"attention.in_proj_weight", "attention.out_proj.weight", "head.weight"} <= set(ticket.arrays)
    optimizer = warm(model)
    enforce(model, ticket)
    twin = copy.deepcopy(model)
    train(twin)
    for k in range(3):
        gradients(model, seed=k)
        optimizer.step()
    assert revived(twin, ticket) == 0 and revived(model, ticket) == 0


def test_a_compiled_model_without_a_break_in_its_graph():
    model, ticket = made()
    handle = enforce(model, ticket)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    train(model, forward=compiled)
    handle.check()
    enforce(compiled, ticket).check()  # the wrapper is seen through
    assert len(model._forward_pre_hooks) == 1


@pytest.fixture
def group(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without torch.distributed")
@pytest.mark.parametrize("first", ["enforce", "wrap"])
def test_distributed_data_parallel(group, first):
    model, ticket = made()
    optimizer = warm(model)
    if first == "enforce":
        enforce(model, ticket)
        wrapped = nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
    else:
        wrapped = nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
        enforce(wrapped, ticket)
    for k in range(3):
        optimizer.zero_grad()
        gradients(model, wrapped, k)
        assert all(not p.grad[~ticket.masks[n]].any() for n, p in model.named_parameters() if n in ticket.arrays)
        optimizer.step()
    assert revived(model, ticket) == 0


def test_a_prefix_stands_before_the_tickets_names():
    model, ticket = made()
    whole = nn.ModuleDict({"backbone": model})
    handle = enforce(whole, ticket, prefix="backbone.")
    train(model)
    handle.check()
    assert revived(whole, ticket, "backbone.") == 0
    with pytest.raises(WinnowError, match=r"no parameter 'other\.body\.0\.weight'"):
        enforce(whole, ticket, prefix="other.")


def test_nothing_keeps_a_model_that_is_gone():
    model, ticket = made()
    handle = enforce(model, ticket)
    train(model)
    gone, held = weakref.ref(model), len(_HELD)
    del model, handle
    gc.collect()
    assert gone() is None and len(_HELD) <= held - 2


def test_a_handle_is_a_context():
    model, ticket = made()
    with enforce(model, ticket) as handle:
        train(model)
        handle.check()
    train(model)
    assert revived(model, ticket) > 0


def test_the_loop_of_winnow_leaves_out_what_it_does_not_need():
    model, ticket = made()
    enforce(model, ticket, every_forward=False)
    assert not model._forward_pre_hooks and not model.head._forward_pre_hooks
    optimizer = warm(model)
    model.load_state_dict(made(3)[0].state_dict())
    for k in range(3):
        gradients(model, seed=k)
        optimizer.step()
    assert revived(model, ticket) == 0


@pytest.mark.skipif(os.environ.get("WINNOW_GPU") is None and not torch.cuda.is_available(), reason="no GPU")
def test_moved_to_a_gpu_after_it_was_held():
    model, ticket = made()
    handle = enforce(model, ticket)
    model.to("cuda")
    optimizer = torch.optim.AdamW(model.parameters(), 0.01, weight_decay=0.1, fused=True)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.rand(8, 3, 8, 8, device="cuda")).square().sum().backward()
        optimizer.step()
    handle.check()


def test_a_search_on_an_enforced_model_leaves_it_enforced():
    model, ticket = made()
    handle = enforce(model, ticket)
    loader = [(torch.rand(8, 3, 8, 8), torch.arange(8) % 4)]
    gem = winnow.find_gem(model, loader, 50, epochs=3, lr=1.0)
    dense = made()[0]
    ticket.apply(dense)
    assert all(
        np.array_equal(m, gem.arrays[n]) for n, m in winnow.find_gem(dense, loader, 50, epochs=3, lr=1.0).arrays.items()
    )
    train(model)
    handle.check()
