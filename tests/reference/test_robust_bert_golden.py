"""rt_A: the released code's robust-ticket search on a 2-layer BERT, replayed step by step."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import released_bert  # noqa: E402

from winnow.artifacts import read_tensors  # noqa: E402
from winnow.prune.counts import keep_largest  # noqa: E402
from winnow.text.freelb import AdversarialStep  # noqa: E402
from winnow.text.hard_concrete import attach, eval_mask, l0_term, l0_weight, train_mask  # noqa: E402
from winnow.text.models import prunable  # noqa: E402
from winnow.text.search import L0Schedule  # noqa: E402
from winnow.train.optim import lr_factor, make_optimizer  # noqa: E402


@pytest.fixture(scope="module")
def golden(shared):
    log = json.loads((shared / "golden/rt_A.json").read_text())
    return log, read_tensors(shared / "golden/rt_A.safetensors")


def score_name(weight):
    return weight.removesuffix(".weight") + ".mask.mask_scores"


@pytest.fixture(scope="module")
def replay(golden):
    log, tensors = golden
    hard, adversary, train = released_bert.settings(log["args"])
    model = released_bert.model_of(log, tensors)
    scores = attach(model, prunable(model), hard)
    released_bert.make_noiseless(model)
    start = {n: tensors[f"init.{score_name(n)}"].view(s.shape) for n, s in scores.items()}
    for name, score in scores.items():
        assert torch.allclose(score.detach(), start[name], atol=1e-6)
    per_epoch = len(tensors["labels"]) // train.batch_size
    step_of, optimizer = AdversarialStep(model, adversary), make_optimizer(train, scores.values())
    schedule = L0Schedule(scores, hard, per_epoch * train.epochs)
    model.train()
    records, step = [], 0
    for epoch in range(train.epochs):
        for index in tensors["order"][epoch].split(train.batch_size):
            batch = {"input_ids": tensors["ids"][index], "attention_mask": tensors["attention_mask"][index]}
            batch |= {"labels": tensors["labels"][index], "token_type_ids": torch.zeros_like(tensors["ids"][index])}
            for group in optimizer.param_groups:
                group["lr"] = train.lr * lr_factor(train, step, per_epoch)
            optimizer.zero_grad()
            step_of(batch, tensors["delta_uniform"][step])
            norm = torch.nn.utils.clip_grad_norm_(list(scores.values()), train.clip_norm)
            records.append(
                {
                    "adv_losses": [float(x) for x in step_of.losses],
                    "grad_norm": float(norm),
                    "lambda_reg": l0_weight(step + 1, schedule.total_steps, hard),
                    "regularizer": l0_term(scores, hard).item(),
                }
            )
            schedule()
            optimizer.step()
            step += 1
    return model, scores, records


def test_every_step_of_the_log(golden, replay):
    log, _ = golden
    _, _, records = replay
    assert len(records) == len(log["log"]) == 12
    for mine, theirs in zip(records, log["log"], strict=True):
        for name, value in mine.items():
            assert value == pytest.approx(theirs[name], rel=1e-3, abs=1e-9), (theirs["step"], name)


def test_final_scores_and_logits(golden, replay):
    _, tensors = golden
    model, scores, _ = replay
    for name, score in scores.items():
        expected = tensors[f"final.{score_name(name)}"].view(score.shape)
        assert (score.detach() - expected).abs().max() < 2e-3, name
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=tensors["ids"], attention_mask=tensors["attention_mask"]).logits
    assert torch.allclose(logits, tensors["final_logits"], atol=2e-3)


def test_mask_formulas(golden):
    log, tensors = golden
    hard, _, _ = released_bert.settings(log["args"])
    score = tensors["final." + score_name("bert.encoder.layer.0.attention.self.query.weight")]
    start = tensors["init." + score_name("bert.encoder.layer.0.attention.self.query.weight")]
    found = {}
    for which, value in (("init", start), ("final", score)):
        found[which] = (
            (train_mask(value, tensors["u"], hard) - tensors["train_mask_query0_given_u"]).abs().max().item(),
            (eval_mask(value, hard) - tensors["eval_mask_query0"]).abs().max().item(),
        )
    assert min(v[0] for v in found.values()) < 1e-6, found
    assert min(v[1] for v in found.values()) < 1e-6, found


@pytest.mark.parametrize("removed", [0.2, 0.4, 0.7])
def test_drawn_tickets(golden, removed):
    _, tensors = golden
    prefix = "final."
    scores = {k.removeprefix(prefix): v.numpy() for k, v in tensors.items() if k.startswith(prefix)}
    total = sum(s.size for s in scores.values())
    kept = keep_largest(scores, total - round(total * removed))
    different = sum(int((kept[n] != tensors[f"ticket_{removed}.{n}_mask"].numpy().astype(bool)).sum()) for n in scores)
    assert different == 0
    assert sum(int(np.sum(m)) for m in kept.values()) == total - round(total * removed)
