"""Networks of artifacts, and made-up inputs for them: their values change no time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from winnow.config.jobs import Speed
from winnow.sparse.speed import Call, Inputs


def load(weights: Path, config: Speed) -> nn.Module:
    """The network of a weights artifact, in evaluation mode."""
    if config.length is not None:
        from winnow.text.models import load_classifier

        return load_classifier(weights)[0].eval()
    from winnow.vision.models import load_pretrained

    return load_pretrained(weights)[0].eval()


def example_inputs(model: Any, config: Speed, device: torch.device) -> Inputs:
    """Batch size -> arguments: images in [0,1], or tokens with an attention mask that hides none."""

    def images(batch: int) -> Call:
        shape = (batch, 3, config.image_size or 0, config.image_size or 0)
        return (torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(device),), {}

    def texts(batch: int) -> Call:
        drawn = torch.randint(
            model.config.vocab_size, (batch, config.length or 0), generator=torch.Generator().manual_seed(0)
        )
        return (), {"input_ids": drawn.to(device), "attention_mask": torch.ones_like(drawn).to(device)}

    return images if config.length is None else texts
