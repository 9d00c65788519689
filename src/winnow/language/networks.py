"""Networks that foretell the next word: the transformer of the rare-gems code, and an LSTM of linear layers.

Both take word numbers (B, L) and return logits (B, V, L), as cross_entropy wants them. Neither has biases; norms have
no scale and shift. Embeddings have no scores: a search leaves them as they are drawn, fine-tuning trains them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from winnow.config.parts import LanguageNetwork, Model

EMBEDDED_RANGE = 0.1  # embeddings, and a decoder that stays, are uniform within it


class _Attention(nn.Module):
    """Causal self-attention without an output projection."""

    def __init__(self, c: LanguageNetwork):
        super().__init__()
        self.heads, self.dropout = c.heads, c.dropout
        self.query, self.key, self.value = (nn.Linear(c.size, c.size, bias=False) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        dropped = self.dropout if self.training else 0.0
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropped, is_causal=True).transpose(1, 2).flatten(2)


class _Mlp(nn.Module):
    def __init__(self, c: LanguageNetwork):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(c.size, c.hidden, bias=False), nn.Linear(c.hidden, c.size, bias=False)
        self.drop = nn.Dropout(c.dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(F.gelu(self.fc1(x)))))


class _Block(nn.Module):
    def __init__(self, c: LanguageNetwork):
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(c.size, elementwise_affine=False) for _ in range(2))
        self.attn, self.mlp = _Attention(c), _Mlp(c)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """Pre-norm blocks over sinusoidal positions; the names of its weights are those of the rare-gems code."""

    def __init__(self, c: LanguageNetwork, words: int):
        super().__init__()
        self.encoder = nn.Embedding(words, c.size)
        self.transformer_encoder = nn.ModuleDict({"layers": nn.ModuleList(_Block(c) for _ in range(c.layers))})
        self.decoder = nn.Linear(c.size, words, bias=False)
        self.drop = nn.Dropout(c.dropout)

    def forward(self, words: Tensor) -> Tensor:
        """Logits (B, V, L) of the word after each of (B, L)."""
        size = self.encoder.embedding_dim
        x = self.encoder(words) * math.sqrt(size)
        x = self.drop(x + positions(words.shape[1], size, x))
        for block in self.transformer_encoder["layers"]:  # type: ignore[attr-defined]
            x = block(x)
        return self.decoder(x).transpose(1, 2)


def positions(length: int, size: int, like: Tensor) -> Tensor:
    """Sines (even features) and cosines (odd ones) of the position, (length, size) (Vaswani et al., 2017, section
    3.5).
    """
    even = torch.arange(0, size, 2, device=like.device, dtype=like.dtype)
    angle = torch.arange(length, device=like.device, dtype=like.dtype)[:, None] * 10000.0 ** (-even / size)
    return torch.stack((angle.sin(), angle.cos()), dim=2).flatten(1)[:, :size]


class _Cells(nn.Module):
    """One LSTM layer; its four gates are one linear layer each way."""

    def __init__(self, inputs: int, hidden: int):
        super().__init__()
        self.ih, self.hh = nn.Linear(inputs, 4 * hidden, bias=False), nn.Linear(hidden, 4 * hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        given = self.ih(x)
        state = memory = given.new_zeros(len(x), self.hh.in_features)
        shown = []
        for at in range(x.shape[1]):
            let_in, forget, new, out = (given[:, at] + self.hh(state)).chunk(4, dim=1)
            memory = forget.sigmoid() * memory + let_in.sigmoid() * new.tanh()
            state = out.sigmoid() * memory.tanh()
            shown.append(state)
        return torch.stack(shown, dim=1)


class Lstm(nn.Module):
    """Layers of cells that start from zero in every window."""

    def __init__(self, c: LanguageNetwork, words: int):
        super().__init__()
        self.encoder = nn.Embedding(words, c.size)
        self.layers = nn.ModuleList(_Cells(c.hidden if i else c.size, c.hidden) for i in range(c.layers))
        self.decoder = nn.Linear(c.hidden, words, bias=False)
        self.drop = nn.Dropout(c.dropout)

    def forward(self, words: Tensor) -> Tensor:
        """Logits (B, V, L) of the word after each of (B, L)."""
        x = self.drop(self.encoder(words))
        for layer in self.layers:
            x = self.drop(layer(x))
        return self.decoder(x).transpose(1, 2)


def build(config: Model, words: int) -> nn.Module:
    """The network of `arch` transformer or lstm over so many words, freshly drawn from torch's generator.

    A decoder that stays is named in `never_hard_pruned` and, as in the rare-gems code, in `drawn_by_itself`.
    """
    options = config.language or LanguageNetwork()
    model = (Transformer if config.arch == "transformer" else Lstm)(options, words)
    for weight in (model.encoder.weight, model.decoder.weight):
        nn.init.uniform_(weight, -EMBEDDED_RANGE, EMBEDDED_RANGE)
    if options.decoder_stays:
        model.never_hard_pruned = model.drawn_by_itself = frozenset({"decoder.weight"})  # type: ignore[assignment]
    return model
