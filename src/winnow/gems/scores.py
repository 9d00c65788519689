"""Scores over the frozen weights of any model: a parametrization of its convolutions and linear layers, kept flat.

The model keeps its own layers; their weights become views of one flat tensor that is filled with weight * mask(score)
once a step. The gradient of the scores is the dense gradient of the weights times the weights (straight through the
rounding), so the model runs its ordinary kernels and nothing is done per layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from winnow.errors import WinnowError


def scorable(model: nn.Module) -> list[str]:
    """Names of the weights that get scores: of every convolution and linear layer, the classifier's too."""
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
    return [f"{n}.weight" for n, m in model.named_modules() if isinstance(m, kinds)]


def hard_prunable(model: nn.Module) -> list[str]:
    """Names of the scored weights that hard prunes may remove and densities count, in the order of the model's layers.

    In the released TinyResNet18, ResNet50 and ResNet101 the projections of the shortcuts have scores, but are never
    pruned for good and count nowhere: such a model names them in `never_hard_pruned`.
    """
    exempt: frozenset[str] = getattr(model, "never_hard_pruned", frozenset())  # type: ignore[assignment]
    return [name for name in scorable(model) if name not in exempt]


def memory_format(model: nn.Module) -> torch.memory_format:
    """channels_last when the model was placed so, else contiguous; its inputs should follow."""
    last = any(p.dim() == 4 and not p.is_contiguous() for p in model.parameters())
    return torch.channels_last if last else torch.contiguous_format


class ScoredWeights:
    """Flat tensors over the scored weights of `model`, stored in the model's own memory format.

    `weights`: frozen values; `scores`: the parameter that a search trains; `alive`: bool, False once hard-pruned;
    `counted`: bool, what hard prunes may remove and densities count; `effective`: what the layers compute with. All of
    them have the dtype of the model's first scored weight. All other parameters of the model are frozen.
    Raises WinnowError when the model has no weight to score.
    """

    def __init__(self, model: nn.Module, scores: Mapping[str, Tensor]):
        parameters = dict(model.named_parameters())
        self.names = scorable(model)
        if not self.names:
            raise WinnowError("the model has no convolution or linear layer to score")
        self.shapes = {n: tuple(parameters[n].shape) for n in self.names}
        self.sizes = [parameters[n].numel() for n in self.names]
        self.layout = memory_format(model)
        like = parameters[self.names[0]]
        total = sum(self.sizes)
        self.effective = like.new_empty(total)
        self.weights = like.new_empty(total)
        self.scores = nn.Parameter(like.new_empty(total), requires_grad=True)
        self.alive = torch.ones(total, dtype=torch.bool, device=like.device)
        self.gate = like.new_empty(total)
        self.counted_names = hard_prunable(model)
        self.counted = torch.cat(
            [self.alive.new_full((s,), n in self.counted_names) for n, s in zip(self.names, self.sizes, strict=True)]
        )
        with torch.no_grad():
            for name, view in self.views(self.weights).items():
                view.copy_(parameters[name])
            for name, view in self.views(self.scores.data).items():
                view.copy_(scores[name])
        self.start_scores = self.scores.detach().clone()
        for parameter in parameters.values():
            parameter.requires_grad_(False)
        self.leaves = [nn.Parameter(view) for view in self.views(self.effective).values()]
        for name, leaf in zip(self.names, self.leaves, strict=True):
            owner, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(owner), attribute, leaf)
        self.scores.grad = torch.zeros_like(self.scores)
        self._gradient = self.scores.grad
        self._gradient_views = list(self.views(self._gradient).values())
        self.set_alive(self.alive)

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """Name -> view of `flat` (total,) with the weight's shape."""
        found = {}
        for name, part in zip(self.names, flat.split(self.sizes), strict=True):
            shape = self.shapes[name]
            if len(shape) == 4 and self.layout == torch.channels_last:
                out, inputs, height, width = shape
                found[name] = part.view(out, height, width, inputs).permute(0, 3, 1, 2)
            else:
                found[name] = part.view(shape)
        return found

    def arrays(self, flat: Tensor) -> dict[str, Any]:
        """Name -> NumPy copy of `flat` in the weight's shape."""
        return {name: view.cpu().contiguous().numpy().copy() for name, view in self.views(flat.detach()).items()}

    @torch.no_grad()
    def set_alive(self, alive: Tensor) -> None:
        """Take a new mask of what is not hard-pruned."""
        self.alive.copy_(alive)
        torch.mul(self.weights, self.alive, out=self.gate)

    @torch.no_grad()
    def mask_weights(self, mask: Tensor) -> None:
        """Make the layers compute with weight * alive * mask (`mask`: flat, bool or float)."""
        torch.mul(self.gate, mask, out=self.effective)

    def backward(self, loss: Tensor) -> None:
        """scores.grad = d loss / d score with the rounding passed straight through: dense gradient * weight * alive."""
        gradients = torch.autograd.grad(loss, self.leaves)
        self.scores.grad = self._gradient
        torch._foreach_copy_(self._gradient_views, [g.detach() for g in gradients])
        self._gradient.mul_(self.gate)
