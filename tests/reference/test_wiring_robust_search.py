"""rt_A through `search()` and `fit()` themselves: the released run's batches and noise go in, every step's gradient
comes out.

test_robust_bert_golden.py replays the log with the parts; here the loop, the optimiser, the adversary, the ramp and the
order of clipping and L0 term are those that the stage runs.
"""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import released_bert  # noqa: E402
from torch.optim.optimizer import register_optimizer_step_pre_hook  # noqa: E402

from winnow.artifacts import read_tensors  # noqa: E402
from winnow.config.parts import Compute  # noqa: E402
from winnow.run import Run  # noqa: E402
from winnow.text import search as search_module  # noqa: E402
from winnow.text.hard_concrete import l0_term  # noqa: E402
from winnow.text.models import prunable  # noqa: E402


def searched(log, tensors, patch, **changes):
    """search() on the log's model, batches and adversarial starts, masks noiseless as in the log: what it gave, step by
    step.
    """
    args = {**log["args"], **changes}
    hard, adversary, train = released_bert.settings(args)
    model, encoded = released_bert.model_of(log, tensors), released_bert.encoded(tensors)
    seen = SimpleNamespace(scores={}, steps=[])

    def log_step(optimizer, *_):
        values = {n: s.detach().clone().requires_grad_() for n, s in seen.scores.items()}
        regulariser = l0_term(values, hard)
        slopes = torch.autograd.grad(regulariser, list(values.values()))
        gradients = [s.grad.clone() for s in seen.scores.values()]
        seen.steps.append(
            {
                "rate": optimizer.param_groups[0]["lr"],
                "l0": float(regulariser.detach()),
                "slopes": slopes,
                "gradients": gradients,
            }
        )

    released_bert.replay(patch, model, tensors, train, seen)
    hook = register_optimizer_step_pre_hook(log_step)
    history, kept = search_module.search(
        model, prunable(model), {"train": encoded, "val": encoded}, run=Run("cpu"), train=train, masks=hard,
        adversary=adversary,
        keep_epochs=list(range(1, train.epochs + 1)), compute=Compute(), seed=0,
    )  # fmt: skip
    hook.remove()
    return SimpleNamespace(history=history, kept=kept, steps=seen.steps, model=model)


@pytest.fixture(scope="module")
def golden(shared):
    return json.loads((shared / "golden/rt_A.json").read_text()), read_tensors(shared / "golden/rt_A.safetensors")


@pytest.fixture(scope="module")
def run(golden):
    with pytest.MonkeyPatch.context() as patch:
        return searched(*golden, patch)


def norm(tensors) -> float:
    return float(torch.stack([t.double().pow(2).sum() for t in tensors]).sum().sqrt())


def test_each_update_is_the_released_one_s(golden, run):
    """The gradient that reaches the optimiser is FreeLB's, as long as the log says, and lambda times the L0 term's."""
    log, _ = golden
    assert len(run.steps) == len(log["log"]) == 12
    for number, (mine, theirs) in enumerate(zip(run.steps, log["log"], strict=True)):
        assert mine["l0"] == pytest.approx(theirs["regularizer"], rel=1e-3), number
        rest = [g - theirs["lambda_reg"] * s for g, s in zip(mine["gradients"], mine["slopes"], strict=True)]
        assert norm(rest) == pytest.approx(theirs["grad_norm"], rel=2e-3), number
        warmup = 0.1 * 12
        expected = number / warmup if number < warmup else (12 - number) / (12 - warmup)
        assert mine["rate"] == pytest.approx(0.1 * expected)


def test_the_end_is_the_released_one_s(golden, run):
    log, tensors = golden
    final = run.kept[3]
    assert len(final) == sum(n.startswith("final.") for n in tensors)
    for name, score in final.items():
        theirs = tensors[f"final.{name.removesuffix('.weight')}.mask.mask_scores"].view(score.shape)
        assert (score - theirs).abs().max() < 2e-3, name
    run.model.eval()
    with torch.no_grad():
        logits = run.model(input_ids=tensors["ids"], attention_mask=tensors["attention_mask"]).logits
    assert torch.allclose(logits, tensors["final_logits"], atol=2e-3)
    for epoch, record in enumerate(run.history):
        losses = [sum(step["adv_losses"]) for step in log["log"][4 * epoch : 4 * epoch + 4]]
        assert record["loss"] == pytest.approx(np.mean(losses), rel=1e-3)
    right = (tensors["final_logits"].argmax(1) == tensors["labels"]).double().mean()
    assert run.history[-1]["val_accuracy"] == pytest.approx(100 * float(right))
    assert any((run.kept[1][n] != final[n]).any() for n in final)  # snapshots are copies, not the scores themselves


def test_clipping_is_of_the_loss_and_never_of_the_l0_term(golden, monkeypatch):
    log, tensors = golden
    run = searched(log, tensors, monkeypatch, max_grad_norm=0.005)  # below every norm in the log
    for step, theirs in zip(run.steps, log["log"], strict=True):
        rest = [g - theirs["lambda_reg"] * s for g, s in zip(step["gradients"], step["slopes"], strict=True)]
        assert norm(rest) == pytest.approx(0.005, rel=1e-3)
