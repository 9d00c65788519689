"""Hard-concrete masks, the L0 term, FreeLB: closed forms against autograd, invariants, one sample a forward."""

from __future__ import annotations

import pytest
import yaml
from conftest import ROOT

torch = pytest.importorskip("torch")

from winnow.artifacts import read_metadata, read_tensors  # noqa: E402
from winnow.config.text import FreeLB, HardConcrete  # noqa: E402
from winnow.errors import WinnowError  # noqa: E402
from winnow.pipelines.robust_bert.config import RobustBert  # noqa: E402
from winnow.schema import parse  # noqa: E402
from winnow.text import hard_concrete as hc  # noqa: E402
from winnow.text.freelb import freelb_step, initial_delta, next_delta  # noqa: E402
from winnow.text.search import L0Schedule, Snapshots  # noqa: E402


@pytest.mark.parametrize("beta", [2 / 3, 0.667, 0.5])
def test_fast_sample_is_the_formula(beta):
    config = HardConcrete(beta=beta)
    torch.manual_seed(0)
    score = (3 * torch.randn(50, 40)).requires_grad_()
    weight, u = torch.randn(50, 40), torch.rand(50, 40)
    reference = weight * hc.train_mask(score, u, config)
    upstream = torch.randn(50, 40)
    (expected,) = torch.autograd.grad(reference, score, upstream)
    fast = hc._Masked.apply(weight, score, u.clone(), config)
    (found,) = torch.autograd.grad(fast, score, upstream)
    assert torch.allclose(fast, reference, atol=2e-6)
    assert torch.allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("granularity, shape", [("row", (6, 1)), ("matrix", (1, 1))])
def test_shared_scores_get_the_summed_gradient(granularity, shape):
    config = HardConcrete(granularity=granularity)
    torch.manual_seed(1)
    layer = torch.nn.Linear(5, 6)
    scores = hc.attach(torch.nn.Sequential(layer), ["0.weight"], config)
    assert scores["0.weight"].shape == shape
    score, weight = torch.randn(shape, requires_grad=True), torch.randn(6, 5)
    u, upstream = torch.rand(shape), torch.randn(6, 5)
    (expected,) = torch.autograd.grad(weight * hc.train_mask(score, u, config), score, upstream)
    (found,) = torch.autograd.grad(hc._Masked.apply(weight, score, u.clone(), config), score, upstream)
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("block", [[1, 1], [2, 1], [1, 4], [3, 2]])
def test_a_block_s_score_covers_rows_and_columns_by_their_remainders(block, frozen, monkeypatch):
    """Against autograd through masks that are spread index by index."""
    config = HardConcrete(block=block)
    torch.manual_seed(1)
    layer = torch.nn.Linear(8, 6)
    weight, model = layer.weight.detach().clone().requires_grad_(), torch.nn.Sequential(layer).train()
    score = hc.attach(model, ["0.weight"], config, frozen)["0.weight"]
    rows, columns = 6 // block[0], 8 // block[1]
    assert score.shape == (1, rows, 1, columns)
    score.data.normal_()
    noise, x = torch.rand(score.shape), torch.rand(3, 8)
    monkeypatch.setattr(hc, "uniform_noise", lambda shape, device: noise.clone())
    model(x).pow(2).sum().backward()
    reference = score.detach().clone().requires_grad_()
    mask = hc.train_mask(reference, noise, config)
    spread = torch.stack([torch.stack([mask[0, i % rows, 0, j % columns] for j in range(8)]) for i in range(6)])
    torch.nn.functional.linear(x, weight * spread, layer.bias.detach()).pow(2).sum().backward()
    torch.testing.assert_close(score.grad, reference.grad, rtol=1e-4, atol=1e-6)
    if not frozen:
        torch.testing.assert_close(layer.parametrizations.weight.original.grad, weight.grad)
    model.eval()
    fixed = hc.eval_mask(score.detach(), config)
    spread = torch.stack([torch.stack([fixed[0, i % rows, 0, j % columns] for j in range(8)]) for i in range(6)])
    torch.testing.assert_close(layer.weight, weight.detach() * spread)


def test_blocks_that_do_not_fit_are_refused():
    with pytest.raises(WinnowError, match=r"masks\.block: \[4, 1\] does not divide 0\.weight, 6x5"):
        hc.attach(torch.nn.Sequential(torch.nn.Linear(5, 6)), ["0.weight"], HardConcrete(block=[4, 1]))
    for wrong in ({"block": [2]}, {"block": [1, 2], "granularity": "row"}):
        with pytest.raises(ValueError, match="must be two numbers"):
            HardConcrete(**wrong)
    section = yaml.safe_load((ROOT / "config/config.yaml").read_text())["robust_bert"]
    section["tasks"][0]["masks"] = {"block": [48, 1]}
    with pytest.raises(WinnowError, match=r"embedded\.masks\.block: \[48, 1\] must divide the model's hidden 64"):
        parse(RobustBert, section)


def test_extreme_scores_stay_finite():
    score = torch.tensor([[-200.0, 200.0, 0.0]], requires_grad=True)
    masked = hc._Masked.apply(torch.ones(1, 3), score, torch.tensor([[0.0, 1.0, 0.5]]), HardConcrete())
    masked.sum().backward()
    assert masked.tolist()[0][:2] == [0.0, 1.0]
    assert torch.isfinite(score.grad).all()


def test_noise_is_uniform_fresh_and_seeded():
    torch.manual_seed(3)
    first, second = (hc.uniform_noise(torch.Size((400, 501)), torch.device("cpu")) for _ in range(2))
    torch.manual_seed(3)
    assert torch.equal(first, hc.uniform_noise(torch.Size((400, 501)), torch.device("cpu")))
    assert not torch.equal(first, second)
    assert first.min() > 0 and first.max() < 1
    assert abs(first.mean() - 0.5) < 0.005 and abs(first.var() - 1 / 12) < 0.001
    assert abs(torch.corrcoef(torch.stack([first.flatten()[:-1], first.flatten()[1:]]))[0, 1]) < 0.01


def test_initial_score_gives_the_initial_mask():
    config = HardConcrete(init_mask=0.9)
    assert hc.eval_mask(torch.tensor(hc.initial_score(config)), config).item() == pytest.approx(0.9, abs=1e-6)


def test_l0_gradient_is_that_of_the_term():
    config = HardConcrete()
    scores = {n: torch.randn(s, requires_grad=True) for n, s in (("a", (4, 3)), ("b", (2, 5)))}
    expected = torch.autograd.grad(0.3 * hc.l0_term(scores, config), list(scores.values()))
    hc.add_l0_gradient(scores, 0.3, config)
    for score, gradient in zip(scores.values(), expected, strict=True):
        assert torch.allclose(score.grad, gradient, atol=1e-7)


def test_l0_weight_counts_optimisation_steps():
    config = HardConcrete(l0_amplitude=0.5, l0_start_fraction=0.1, l0_ramp_fraction=0.3)
    found = [hc.l0_weight(step, 100, config) for step in (1, 10, 25, 40, 100)]
    assert found == pytest.approx([0.0, 0.0, 0.25, 0.5, 0.5])


def test_the_schedule_counts_from_one_and_goes_on_where_it_was():
    config = HardConcrete(l0_amplitude=0.5, l0_start_fraction=0.1, l0_ramp_fraction=0.4)
    score, expected = torch.nn.Parameter(torch.zeros(3, 2)), torch.zeros(3, 2)
    schedule = L0Schedule({"w": score}, config, 20)
    for step in range(1, 15):
        schedule()
        expected += hc.l0_weight(step, 20, config) * slope(score, config)
        assert (score.grad is None) == (step <= 2)
        if step == 7:
            again = L0Schedule({"w": score}, config, 20)
            again.load_state_dict(schedule.state_dict())
            schedule = again
    assert torch.allclose(score.grad, expected, atol=1e-7) and schedule.state_dict() == {"step": 14}


def slope(score, config):
    """d l0_term / d score, by torch."""
    free = score.detach().clone().requires_grad_()
    return torch.autograd.grad(hc.l0_term({"w": free}, config), free)[0]


def test_scores_are_kept_as_they_are_after_the_epochs_that_are_named():
    score = torch.nn.Parameter(torch.zeros(2))
    kept = Snapshots({"w": score}, [1, 3])
    for epoch in (1, 2, 3, 4):
        score.data.fill_(float(epoch))
        kept.after_epoch(epoch)
    assert {e: s["w"].tolist() for e, s in kept.taken.items()} == {1: [1.0, 1.0], 3: [3.0, 3.0]}
    again = Snapshots({"w": score}, [1, 3])
    again.load_state_dict(kept.state_dict())
    assert again.taken == kept.taken


def test_scores_are_written_with_their_record(tmp_path):
    file = tmp_path / "s.safetensors"
    hc.write_scores(file, {"w": torch.tensor([1.0, -2.0])}, {"shapes": {"w": [2]}, "search_epoch": 3, "seed": 4})
    about = read_metadata(file)
    assert (about["kind"], about["search_epoch"], about["shapes"]) == ("scores", 3, {"w": [2]})
    assert read_tensors(file)["w"].tolist() == [1.0, -2.0]


def test_a_mask_is_sampled_once_a_forward(monkeypatch):
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
    scores = hc.attach(model, ["0.weight", "1.weight"], HardConcrete())
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {
        "0.parametrizations.weight.0.score", "1.parametrizations.weight.0.score",
    }  # fmt: skip
    calls = []
    noise = hc.uniform_noise
    monkeypatch.setattr(hc, "uniform_noise", lambda *a: calls.append(1) or noise(*a))
    model.train()
    outputs = [model(torch.ones(1, 4)) for _ in range(3)]
    assert len(calls) == 3 * len(scores)
    assert not torch.equal(outputs[0], outputs[1])
    model.eval()
    assert torch.equal(model(torch.ones(1, 4)), model(torch.ones(1, 4)))
    assert len(calls) == 6


def test_delta_starts_inside_real_tokens_and_obeys_the_ball():
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    uniform = torch.rand(2, 3, 8) * 2 - 1
    for norm, bound in (("l2", 0.05), ("linf", 0.05)):
        config = FreeLB(norm=norm, init_magnitude=0.05, step_size=1.0, max_norm=0.3)
        delta = initial_delta(uniform, mask, config)
        assert delta[0, 2].abs().max() == 0
        order = 2 if norm == "l2" else float("inf")
        assert torch.linalg.vector_norm(delta.flatten(1), ord=order, dim=1).max() <= bound + 1e-6
        moved = next_delta(delta, torch.randn(2, 3, 8), config)
        assert torch.linalg.vector_norm(moved.flatten(1), ord=order, dim=1).max() <= 0.3 + 1e-6


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("reach", [None, 0.3])
def test_freelb_is_its_algorithm_written_out(norm, reach):
    """Zhu et al. 2020, algorithm 1, example by example; gradients of 1e-5 count as those of 1 do."""
    torch.manual_seed(2)
    head = torch.nn.Linear(12, 3).double()
    embeddings, labels = torch.randn(5, 4, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 0])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]])
    noise = torch.rand(5, 4, 3, dtype=torch.float64) * 2 - 1
    config = FreeLB(steps=4, step_size=0.2, init_magnitude=0.1, norm=norm, max_norm=reach)

    def loss_of(x, scale=1e-5):
        return scale * torch.nn.functional.cross_entropy(head(x.flatten(1)), labels)

    losses = freelb_step(embeddings, mask, loss_of, config, noise)
    deltas = noise * mask[:, :, None] * 0.1
    if norm == "l2":
        deltas = torch.stack([d / (int(m.sum()) * 3) ** 0.5 for d, m in zip(deltas, mask, strict=True)])
    for loss in losses:
        x = (embeddings + deltas).requires_grad_()
        assert float(loss) == pytest.approx(float(loss_of(x).detach()) / 4)
        (gradient,) = torch.autograd.grad(loss_of(x), x)
        moved = []
        for d, g in zip(deltas, gradient, strict=True):
            d = d + 0.2 * g / (g.norm() if norm == "l2" else g.abs().max())
            if reach is not None:
                d = d.clamp(-reach, reach) if norm == "linf" else d * min(1.0, reach / float(d.norm()))
            moved.append(d)
        deltas = torch.stack(moved)


def test_freelb_draws_its_start_between_minus_one_and_one_from_what_all_share(monkeypatch):
    drawn = []

    def noise(like, draw):
        drawn.append(draw(torch.empty(4000), torch.Generator().manual_seed(3)))
        return draw(torch.empty_like(like), None)

    monkeypatch.setattr("winnow.train.ranks.noise", noise)
    for seed in (0, 1):
        torch.manual_seed(seed)
        freelb_step(torch.zeros(1, 2, 3), torch.ones(1, 2), lambda x: x.sum(), FreeLB(steps=1))
    assert torch.equal(*drawn)
    assert -1 <= drawn[0].min() < -0.99 and 0.99 < drawn[0].max() <= 1 and abs(drawn[0].mean()) < 0.05


def test_freelb_ascends_and_reaches_what_is_behind_the_embeddings():
    torch.manual_seed(0)
    table, head = torch.nn.Embedding(10, 8), torch.nn.Linear(8, 2)
    ids, labels = torch.randint(0, 10, (4, 6)), torch.tensor([0, 1, 0, 1])
    mask = torch.ones(4, 6)

    def loss_of(embedded):
        return torch.nn.functional.cross_entropy(head(embedded.mean(1)), labels)

    losses = freelb_step(table(ids), mask, loss_of, FreeLB(steps=4, step_size=0.5, init_magnitude=0.01))
    assert losses == sorted(losses) and losses[-1] > losses[0]
    assert table.weight.grad.abs().sum() > 0 and head.weight.grad.abs().sum() > 0


def test_freelb_without_perturbation_is_the_plain_gradient():
    torch.manual_seed(0)
    table, head = torch.nn.Embedding(10, 8), torch.nn.Linear(8, 2)
    ids, labels = torch.randint(0, 10, (4, 6)), torch.tensor([0, 1, 0, 1])

    def loss_of(embedded):
        return torch.nn.functional.cross_entropy(head(embedded.mean(1)), labels)

    freelb_step(table(ids), torch.ones(4, 6), loss_of, FreeLB(steps=3, step_size=0.0, init_magnitude=0.0))
    expected = torch.autograd.grad(loss_of(table(ids)), [table.weight, head.weight])
    assert torch.allclose(table.weight.grad, expected[0], atol=1e-6)
    assert torch.allclose(head.weight.grad, expected[1], atol=1e-6)


def test_under_autocast_the_masked_weight_is_the_rounded_one_and_its_gradient_float32():
    config, shape = HardConcrete(), (300, 250)  # more than one block
    torch.manual_seed(2)
    weight, score, u, upstream = (
        torch.randn(shape),
        torch.randn(shape).requires_grad_(),
        torch.rand(shape),
        torch.randn(shape),
    )
    full = hc._Masked.apply(weight, score, u.clone(), config)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = hc._Masked.apply(weight, score, u.clone(), config)
    assert half.dtype == torch.bfloat16 and torch.equal(half, full.bfloat16())
    (expected,) = torch.autograd.grad(full, score, upstream.bfloat16().float())
    (found,) = torch.autograd.grad(half, score, upstream.bfloat16())
    assert found.dtype == torch.float32 and torch.equal(found, expected)
