"""How `winnow.sparse` stores what passes between layers: the same outputs, and no copy where neighbours agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_sparse import all_in, built, difference, under
from torch.nn import functional as F

from winnow.prune import prune
from winnow.sparse import choice, sparse, ways
from winnow.sparse.choice import Plan
from winnow.sparse.compact import Embed


@pytest.mark.parametrize("order", [ways.CHANNELS_FIRST, ways.CHANNELS_INSIDE])
def test_a_stored_order_is_the_same_tensor(order):
    x = torch.arange(2.0 * 3 * 4 * 5).view(2, 3, 4, 5)
    stored = ways.stored_as(x, order)
    assert stored.is_contiguous() and stored.shape == tuple(x.shape[i] for i in order)
    back = ways.from_stored(stored, order)
    assert torch.equal(back, x) and ways.stored_as(back, order).data_ptr() == stored.data_ptr()


@pytest.mark.parametrize("order", [ways.CHANNELS_FIRST, ways.CHANNELS_INSIDE, (0, 1, 2, 3), (0, 2, 3, 1)])
@pytest.mark.parametrize("places", [[2, 3, 4], [0, 2, 5]], ids=["one piece", "scattered"])
def test_embedding_keeps_values_and_storage(order, places):
    x = ways.from_stored(ways.stored_as(torch.rand(2, 3, 4, 5), order), order)
    found = Embed([1, 0, 0, 2], np.array(places), 6)(x)
    expected = torch.zeros(2, 6, 6, 6)
    expected[:, places] = F.pad(x, (1, 0, 0, 2))
    assert torch.equal(found, expected)
    padless = Embed([0, 0, 0, 0], np.array(places), 6)(x)
    assert padless.permute(order).is_contiguous()


@torch.no_grad()
def test_padded_shortcuts_are_followed():
    """CIFAR ResNets pad their shortcuts with zero channels; torch's tracing spells the padding's defaults out."""
    model = built("resnet20")
    ticket = prune(model, "erk", 1.5)
    network = sparse(model, ticket, keep_plans=False)
    names = [node.name for node in network.network.network.graph.nodes]
    assert sum("embed" in n for n in names) == 2 and not any(n.startswith("pad") and "embed" not in n for n in names)
    x = torch.rand(3, 3, 32, 32)
    for plan in (Plan({}), all_in(network.network, "points", (3, 3, 32, 32))):
        choice.use(network.network, plan)
        assert difference(network.network(x), under(model, ticket)(x)) < 1e-5


@torch.no_grad()
def test_a_batch_in_parts_has_the_outputs_of_the_whole():
    model = built("resnet8")
    ticket = prune(model, "erk", 10)
    network, x = sparse(model, ticket, keep_plans=False).network, torch.rand(20, 3, 32, 32)
    expected = under(model, ticket)(x)
    plan = all_in(network, "points", (20, 3, 32, 32))
    passed = []
    network.register_forward_pre_hook(lambda module, args: passed.append(len(args[0])))
    choice.use(network, plan)
    for at_once, sizes in ((None, [20]), (10, [10, 10]), (8, [8, 8, 4])):
        passed.clear()
        found = choice.answer(network, Plan(plan.ways, at_once=at_once), (x,), {})
        assert passed == sizes and difference(found, expected) < 1e-5


def test_parts_are_tried_for_batches_of_images_alone():
    plan, images = Plan({"a": "rows"}), torch.rand(32, 3, 8, 8)
    tried = [p.at_once for p in choice._in_parts(plan, (images,), torch.rand(32, 10))]
    assert tried == [16, 8]
    assert [p.at_once for p in choice._in_parts(plan, (images[:20],), torch.rand(20, 10))] == [10]
    for args, output in (
        ((images,), torch.rand(1, 10)),  # not a row an image
        ((images,), (torch.rand(32, 10),)),
        ((torch.rand(32, 9),), torch.rand(32, 10)),
        ((images, images), torch.rand(32, 10)),
    ):
        assert not list(choice._in_parts(plan, args, output))
