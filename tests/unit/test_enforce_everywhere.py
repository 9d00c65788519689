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


def fill(model):
    """A write past every optimiser."""
    for parameter in model.parameters():
        parameter.data.fill_(1.0)


@pytest.mark.parametrize("copied", [False, True])
def test_a_state_dict_that_is_read_without_a_forward_pass(copied):
    model, ticket = made()
    handle = enforce(model, ticket)
    model = copy.deepcopy(model) if copied else model
    fill(model)
    state = nn.ModuleDict({"net": model}).state_dict()
    assert all(not state[f"net.{n}"][~m].any() and state[f"net.{n}"][m].all() for n, m in ticket.masks.items())
    if not copied:
        handle.remove()
        fill(model)
        assert model.head.weight.all() and model.state_dict()["head.weight"].all()
        assert not model.head._state_dict_pre_hooks


def test_a_deep_copy_that_is_trained_without_a_forward_pass_of_a_module():
    model, ticket = made()
    enforce(model, ticket)
    twin = copy.deepcopy(copy.deepcopy(model))
    optimizer = torch.optim.SGD(twin.parameters(), 0.1, momentum=0.9)
    for _ in range(2):
        for parameter in twin.parameters():
            parameter.grad = torch.ones_like(parameter)  # by hand: no backward pass masks it
        optimizer.step()
        assert revived(twin, ticket) == 0
    x = torch.rand(4, 8 * 36)
    nn.functional.linear(x, twin.head.weight).sum().backward()
    assert (
        not twin.head.weight.grad[~ticket.masks["head.weight"]].sub(1).any()
    )  # what was put there by hand, and no more


def test_averaged_models_are_held():
    model, ticket = made()
    enforce(model, ticket)
    average = torch.optim.swa_utils.AveragedModel(model)
    train(model)
    average.update_parameters(model)
    fill(average.module)
    assert not average.state_dict()["module.head.weight"][~ticket.masks["head.weight"]].any()


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
    handle = enforce(model, ticket)
    for dtype in (torch.float64, torch.bfloat16, torch.float16, torch.float32):
        model.to(dtype)
        handle.check()
        (warm if dtype == torch.float16 else train)(
            model
        )  # Adam's 1e-8 is zero there: it divides 0 by 0, also unmasked
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


def test_a_model_that_is_compiled_in_place():
    model, ticket = made()
    handle = enforce(model, ticket)
    model.compile(backend="aot_eager")
    train(model)
    handle.check()
    fill(model)
    with torch.no_grad():
        model(torch.rand(2, 3, 8, 8))  # what is written past the optimiser waits for its next step, or check
    with pytest.raises(WinnowError, match="removed weights are not zero"):
        handle.check()
    assert not model.state_dict()["head.weight"][~ticket.masks["head.weight"]].any()


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


def _one_of_two(rank, folder, first):
    """Each process has its own images; both end with the same weights, none of them alive under the mask."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    model, ticket = made(seed=rank)  # what the first process has is what both start from
    ticket = made(seed=0)[1]
    if first == "enforce":
        handle = enforce(model, ticket)
    wrapped = nn.parallel.DistributedDataParallel(model)
    if first == "wrap":
        handle = enforce(wrapped, ticket)
    assert revived(model, ticket) == 0
    optimizer = torch.optim.AdamW(wrapped.parameters(), 0.01, weight_decay=0.1)
    for k in range(3):
        optimizer.zero_grad()
        gradients(model, wrapped, seed=10 * rank + k)
        optimizer.step()
        assert revived(model, ticket) == 0
    handle.check()
    state = {n: p.detach().clone() for n, p in model.named_parameters()}  # running statistics are each one's own
    torch.save(state, f"{folder}/{rank}.pth")
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without torch.distributed")
@pytest.mark.parametrize("first", ["enforce", "wrap"])
def test_two_processes(tmp_path, first):
    torch.multiprocessing.spawn(_one_of_two, (str(tmp_path), first), nprocs=2)
    one, two = (torch.load(tmp_path / f"{rank}.pth") for rank in (0, 1))
    assert all(torch.equal(one[n], two[n]) for n in one)
    assert (one["head.weight"] != 0).sum() == made()[1].masks["head.weight"].sum()


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
