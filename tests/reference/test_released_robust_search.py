"""The robust search on weights that are not frozen, as released: their gradients add up and count in the norm that is clipped."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from winnow.artifacts import read_tensors  # noqa: E402
from winnow.config.parts import Compute, Train  # noqa: E402
from winnow.config.text import FreeLB, HardConcrete  # noqa: E402
from winnow.prune.counts import keep_largest  # noqa: E402
from winnow.run import Run  # noqa: E402
from winnow.text import compat  # noqa: E402
from winnow.text import freelb as freelb_module  # noqa: E402
from winnow.text import search as search_module  # noqa: E402
from winnow.text.batches import Encoded, TextBatches  # noqa: E402
from winnow.text.models import prunable  # noqa: E402
from winnow.train import ranks  # noqa: E402


@pytest.fixture(scope="module")
def golden(shared):
    folder = shared / "golden/released/golden"
    return json.loads((folder / "rt_D.json").read_text()), read_tensors(folder / "rt_D.safetensors")


@pytest.fixture(scope="module")
def run(golden):
    """search() on the reference's model, batches and adversarial starts, masks noiseless as there; every step is recorded."""
    log, tensors = golden
    args = log["args"]
    hard = HardConcrete(
        low=args["hard_concrete"]["l"], high=args["hard_concrete"]["r"], beta=args["hard_concrete"]["beta"],
        init_mask=args["mask_p"], l0_amplitude=args["lambda_amp"], l0_start_fraction=args["lambda_startup_frac"],
        l0_ramp_fraction=args["lambda_warmup_frac"],
    )  # fmt: skip
    adversary = FreeLB(
        steps=args["adv_steps"], step_size=args["adv_lr"], init_magnitude=args["adv_init_mag"], norm=args["adv_norm_type"]
    )
    train = Train(
        epochs=args["epochs"], batch_size=args["batch_size"], optimizer="adamw", lr=args["lr"], weight_decay=args["weight_decay"],
        schedule="linear", warmup_fraction=args["warmup_ratio"], clip_norm=args["max_grad_norm"],
    )  # fmt: skip
    transformers = compat.transformers()
    known = {k: v for k, v in log["bert"].items() if k not in ("transformers_version", "model_type")}
    model = transformers.BertForSequenceClassification(transformers.BertConfig(**known))
    state = {k.removeprefix("init."): v for k, v in tensors.items() if k.startswith("init.") and "mask_scores" not in k}
    model.load_state_dict(state, strict=True)
    lengths = tensors["attention_mask"].sum(1).tolist()
    ids = [row[:n].numpy() for row, n in zip(tensors["ids"], lengths, strict=True)]
    encoded = Encoded(ids, [np.zeros_like(i) for i in ids], tensors["labels"].numpy(), 0)
    order = [[part.numpy() for part in epoch.split(train.batch_size)] for epoch in tensors["order"]]
    starts, seen = iter(tensors["delta_uniform"]), SimpleNamespace(losses=[], norms=[], clipped=[], model=model)
    names = prunable(model)
    with pytest.MonkeyPatch.context() as patch:
        attach, clip, step = search_module.attach, torch.nn.utils.clip_grad_norm_, freelb_module.freelb_step

        def attach_noiseless(*arguments):
            seen.scores = attach(*arguments)
            for layer in model.modules():
                if hasattr(layer, "sampled"):
                    layer.sampled = False
            return seen.scores

        def logged_clip(parameters, limit):
            seen.norms.append(float(total := clip(parameters, limit)))
            kept = [s.grad.double().pow(2).sum() for s in seen.scores.values()]
            seen.clipped.append(float(torch.stack(kept).sum().sqrt()))
            return total

        def logged_freelb(*arguments):
            found = step(*arguments)
            seen.losses.append([float(loss) for loss in found])
            return found

        patch.setattr(search_module, "attach", attach_noiseless)
        patch.setattr(torch.nn.utils, "clip_grad_norm_", logged_clip)
        patch.setattr(freelb_module, "freelb_step", logged_freelb)
        patch.setattr(TextBatches, "order", lambda self, epoch: order[epoch])
        patch.setattr(ranks, "noise", lambda like, draw: next(starts)[: like.shape[0], : like.shape[1]])
        seen.history, seen.kept = search_module.search(
            model, names, {"train": encoded, "val": encoded}, run=Run("cpu"), train=train, masks=hard, adversary=adversary,
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
