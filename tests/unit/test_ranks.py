"""What several processes share, without starting any: parts of a batch, weights, noise; batch normalisation over all of
them.
"""

from __future__ import annotations

import pytest
import torch

from winnow.errors import WinnowError
from winnow.train import ranks
from winnow.train.device import configure, explained
from winnow.train.sync_norm import synchronise


@pytest.fixture
def of(monkeypatch):
    """of(r, n): from here on this process is the r-th of n."""

    def pretend(number, count):
        monkeypatch.setattr(ranks, "size", lambda: count)
        monkeypatch.setattr(ranks, "rank", lambda: number)

    return pretend


@pytest.mark.parametrize("count", [1, 3, 6, 7, 17, 64])
@pytest.mark.parametrize("processes", [1, 2, 3, 8])
def test_parts_cover_a_batch_and_their_means_make_its_mean(of, count, processes):
    values = torch.randn(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean, seen = 0.0, []
    for r in range(processes):
        of(r, processes)
        part = ranks.share(count)
        mean += ranks.weight(count) * values[part].mean()
        seen += values[part].tolist()
    assert float(mean) == pytest.approx(float(values.mean()))
    whole = count < 2 * processes  # every process takes all of it
    assert seen == values.tolist() * (processes if whole else 1)


def test_noise_of_the_parts_is_that_of_the_whole_batch(of):
    def uniform(tensor, generator):
        return tensor.uniform_(-1, 1, generator=generator)

    for layout in (torch.contiguous_format, torch.channels_last):
        batch = torch.empty(7, 3, 4, 4).contiguous(memory_format=layout)
        with ranks.step(5, 9, 7):
            whole = ranks.noise(batch, uniform)
            mask = torch.rand(5, generator=ranks.generator(batch.device))
        parts = []
        for r in (0, 1):
            of(r, 2)
            with ranks.step(5, 9, 7):
                torch.rand(r + 3)  # dropout's draws are no part of it
                parts.append(ranks.noise(batch[ranks.share(7)], uniform))
                assert torch.equal(torch.rand(5, generator=ranks.generator(batch.device)), mask)
        of(0, 1)
        assert torch.equal(torch.cat(parts), whole) and not ranks.training_together()


def test_processes_draw_their_own_dropout(of):
    draws = []
    for r in (0, 1):
        of(r, 2)
        with ranks.step(5, 9, 8):
            draws.append(torch.nn.functional.dropout(torch.ones(64)))
    assert not torch.equal(*draws)


def test_batches_that_cannot_be_shared_are_refused(of):
    of(0, 4)
    ranks.check_batches([64, 64, 3])  # a small last batch is worked on by all
    with pytest.raises(WinnowError, match="a batch of 7 examples cannot be shared by 4 processes"):
        ranks.check_batches([7, 7, 2])


@pytest.mark.parametrize("affine", [True, False])
def test_synchronised_normalisation_of_one_process_is_torchs(of, monkeypatch, affine):
    torch.manual_seed(0)
    ours, theirs = (torch.nn.BatchNorm2d(3, affine=affine) for _ in range(2))
    synchronise(ours)
    assert "forward" in vars(ours)  # its own forward pass stands in
    x = torch.randn(6, 3, 4, 4)
    monkeypatch.setattr(ranks, "training_together", lambda: True)
    monkeypatch.setattr(ranks, "examples", lambda: 6)
    monkeypatch.setattr(ranks, "weighted_sum", lambda value: value.clone())
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    for layer, batch in zip((ours, theirs), inputs, strict=True):
        (layer(batch) * torch.arange(96.0).view(6, 1, 4, 4)).sum().backward()
    assert torch.allclose(inputs[0].grad, inputs[1].grad, atol=1e-4)
    for name, value in theirs.state_dict().items():
        assert torch.allclose(ours.state_dict()[name], value, atol=1e-6), name
    ours.eval(), theirs.eval()
    assert torch.allclose(ours(x), theirs(x), atol=1e-5)


def test_a_kernel_without_deterministic_form_ends_in_one_line():
    from winnow.config.parts import Compute

    configure(Compute(), torch.device("cpu"))
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(WinnowError, match=r"compute.deterministic: put_.* set it to false"), explained(""):
            torch.zeros(3).put_(torch.tensor([0]), torch.tensor([1.0]))
    finally:
        torch.use_deterministic_algorithms(False)
    with pytest.raises(RuntimeError, match="inconsistent"), explained(""):
        torch.zeros(2) @ torch.zeros(3)
