"""Masked-language-model pre-training (Devlin et al. 2019, section 3.1) of a tiny encoder, so that masks have something
to keep.

15 % of a sentence's tokens are asked for; of these 80 % are shown as [MASK], 10 % as a random token and 10 % as they
are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from winnow.config.parts import Compute, Train
from winnow.rng import seed_of
from winnow.run import Run
from winnow.text import compat
from winnow.text.batches import TextBatches, encode
from winnow.text.data import Examples
from winnow.train.device import autocast
from winnow.train.loop import Fit, fit
from winnow.train.optim import decay_groups, make_optimizer

ASKED, AS_MASK, AS_RANDOM = 0.15, 0.8, 0.1


def mask_tokens(ids: Tensor, maskable: Tensor, mask_id: int, words: Tensor) -> tuple[Tensor, Tensor]:
    """What the model sees, and which positions it is asked for: (ids, asked), shaped like `ids`.

    `maskable`: bool, the positions that may be asked for; `words`: the ids that a random replacement is drawn from.
    Draws from torch's default generator.
    """
    asked = maskable & (torch.rand(ids.shape, device=ids.device) < ASKED)
    fate = torch.rand(ids.shape, device=ids.device)
    random = words[torch.randint(len(words), ids.shape, device=ids.device)]
    seen = torch.where(asked & (fate < AS_MASK), mask_id, ids)
    return torch.where(asked & (fate >= AS_MASK) & (fate < AS_MASK + AS_RANDOM), random, seen), asked


class _WithHead(nn.Module):
    """The encoder, and BERT's prediction head with the decoder tied to the word embeddings."""

    def __init__(self, model: Any):
        super().__init__()
        head = compat.transformers().models.bert.modeling_bert.BertLMPredictionHead
        self.encoder, self.head = model.bert, head(model.config)
        self.head.transform.apply(model._init_weights)
        self.head.decoder.weight = model.bert.embeddings.word_embeddings.weight


def pretrain(
    model: Any,
    tokenizer: Any,
    texts: list[str],
    train: Train,
    compute: Compute,
    max_length: int,
    seed: int,
    run: Run | None = None,
) -> list[dict[str, Any]]:
    """Train the encoder of `model` (a BERT classifier) in place; returns one record an epoch. Its head and pooler
    stay.
    """
    run = run or Run()
    device = run.device
    data = encode(tokenizer, Examples(texts, None, np.zeros(len(texts), dtype=np.int64)), max_length)
    torch.manual_seed(seed_of(seed, "language model head"))
    whole = _WithHead(model).to(device)
    special = torch.tensor(sorted(tokenizer.all_special_ids), device=device)
    words = torch.unique(torch.tensor([i for ids in data.ids for i in ids.tolist()], device=device))
    words = words[~torch.isin(words, special)]

    def step(batch: Mapping[str, Tensor]) -> Tensor:
        ids, attention = batch["input_ids"], batch["attention_mask"]
        seen, asked = mask_tokens(ids, ~torch.isin(ids, special), tokenizer.mask_token_id, words)
        if not asked.any():
            asked[0, 1] = True
        with autocast(compute, device):
            hidden = whole.encoder(
                seen, attention_mask=attention, token_type_ids=batch["token_type_ids"]
            ).last_hidden_state
            logits = whole.head(hidden[asked])
        loss = cross_entropy(logits.float(), ids[asked], label_smoothing=train.label_smoothing)
        loss.backward()
        return loss.detach()

    return fit(
        Fit(
            model=whole,
            optimizer=make_optimizer(train, decay_groups(whole, train.weight_decay)),
            train=train,
            batches=TextBatches(data, train.batch_size, seed, device),
            step=step,
            seed=seed_of(seed, "language model"),
        ),
        run,
    )
