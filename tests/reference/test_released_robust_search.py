"""The robust search on weights that are not frozen, as released: their gradients add up and count in the norm that is
clipped.
"""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

import released_bert  # noqa: E402

from winnow.artifacts import read_tensors  # noqa: E402
from winnow.config.parts import Compute  # noqa: E402
from winnow.prune.counts import keep_largest  # noqa: E402
from winnow.run import Run  # noqa: E402
from winnow.text import freelb as freelb_module  # noqa: E402
from winnow.text import search as search_module  # noqa: E402
from winnow.text.models import prunable  # noqa: E402


@pytest.fixture(scope="module")
def golden(shared):
    folder = shared / "golden/released/golden"
    return json.loads((folder / "rt_D.json").read_text()), read_tensors(folder / "rt_D.safetensors")


@pytest.fixture(scope="module")
def run(golden):
    """search() on the reference's model, batches and adversarial starts, masks noiseless as there; every step is
    recorded.
    """
    log, tensors = golden
    hard, adversary, train = released_bert.settings(log["args"])
    model, encoded = released_bert.model_of(log, tensors), released_bert.encoded(tensors)
    seen, names = SimpleNamespace(losses=[], norms=[], clipped=[], model=model), prunable(model)
    with pytest.MonkeyPatch.context() as patch:
        clip, step = torch.nn.utils.clip_grad_norm_, freelb_module.freelb_step

        def logged_clip(parameters, limit):
            seen.norms.append(float(total := clip(parameters, limit)))
            kept = [s.grad.double().pow(2).sum() for s in seen.scores.values()]
            seen.clipped.append(float(torch.stack(kept).sum().sqrt()))
            return total

        def logged_freelb(*arguments):
            found = step(*arguments)
            seen.losses.append([float(loss) for loss in found])
            return found

        released_bert.replay(patch, model, tensors, train, seen)
        patch.setattr(torch.nn.utils, "clip_grad_norm_", logged_clip)
        patch.setattr(freelb_module, "freelb_step", logged_freelb)
        seen.history, seen.kept = search_module.search(
            model, names, {"train": encoded, "val": encoded}, run=Run("cpu"), train=train, masks=hard,
            adversary=adversary,
            keep_epochs=[train.epochs], compute=Compute(), seed=0, frozen=False,
        )  # fmt: skip
    return seen


def test_each_step_is_the_released_one_s(golden, run):
    log, _ = golden
    assert len(run.losses) == len(log["log"]) == 12
    for number, theirs in enumerate(log["log"]):
        assert run.losses[number] == pytest.approx(theirs["adv_losses"], rel=1e-3), number
        assert run.norms[number] == pytest.approx(theirs["grad_norm"], rel=1e-3), number
        assert run.clipped[number] == pytest.approx(theirs["score_grad_norm_after_clip"], rel=1e-3), number


def test_the_end_and_the_drawn_tickets_are_the_released_ones(golden, run):
    _, tensors = golden
    final = run.kept[3]
    for name, score in final.items():
        theirs = tensors[f"final.{name.removesuffix('.weight')}.mask.mask_scores"].view(score.shape)
        assert (score - theirs).abs().max() < 2e-3, name
    run.model.eval()
    with torch.no_grad():
        logits = run.model(input_ids=tensors["ids"], attention_mask=tensors["attention_mask"]).logits
    assert torch.allclose(logits, tensors["final_logits"], atol=2e-3)
    arrays = {name: score.numpy() for name, score in final.items()}
    total = sum(a.size for a in arrays.values())
    for removed in (0.2, 0.4, 0.7):
        drawn = keep_largest(arrays, total - round(removed * total))
        for name, mask in drawn.items():
            theirs = tensors[f"ticket_{removed}.{name.removesuffix('.weight')}.mask.mask_scores_mask"]
            assert (mask == theirs.view(mask.shape).bool().numpy()).all(), (removed, name)


def test_weights_never_move(golden, run):
    _, tensors = golden
    for name, value in run.model.state_dict().items():
        if (start := tensors.get(f"init.{name.replace('parametrizations.weight.original', 'weight')}")) is not None:
            assert torch.equal(value, start), name
