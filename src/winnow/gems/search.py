"""Search for a gem: train scores over frozen weights, round them in the forward pass, prune the smallest for good.

Gem-Miner (`hc_iter`; Rare Gems, NeurIPS 2022, section 4), its form without hard prunes (`hc`), and edge-popup per layer
and globally (`ep`, `global_ep`, `global_ep_iter`; Ramanujan et al., CVPR 2020). Edge-popup removes nothing for good:
its mask is taken anew from |score| at every forward pass, so every score has a gradient; `global_ep_iter` removes a
fraction that grows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from winnow.config.gems import Search
from winnow.config.parts import Attack, Compute, Train
from winnow.errors import WinnowError
from winnow.gems import pruning
from winnow.gems.inits import draw_scores, generator
from winnow.gems.regularizers import add_gradient, penalty
from winnow.gems.scores import ScoredWeights, scorable
from winnow.run import Run
from winnow.train import ranks
from winnow.train.device import autocast
from winnow.train.loop import Batches, Fit, fit
from winnow.train.optim import make_optimizer
from winnow.vision.attack import perturb

FIXED_THRESHOLD = 0.5  # of prune_type FixThresholding, whatever the rounding threshold


def start_scores(model: nn.Module, score_init: str, *seed: object) -> dict[str, Tensor]:
    """Start scores by weight name, each layer from its own generator; `score_init` as in `gems.inits.draw_scores`."""
    parameters = dict(model.named_parameters())
    return {
        n: draw_scores(tuple(parameters[n].shape), score_init, generator(*seed, "scores", n)) for n in scorable(model)
    }


class GemSearch:
    """The state of one search, and the hooks that the training loop calls. Lives in the checkpoint beside the model.

    Weights that have scores but are not `hard_prunable` (projections of some released networks) stay in every hard
    prune and count in no percentage; they are part of the ticket only when its last rounding takes some of them.
    """

    def __init__(self, model: nn.Module, scores: Mapping[str, Tensor], config: Search, epochs: int):
        self.model, self.config, self.epochs = model, config, epochs
        self.popup = "ep" in config.algo.split("_")  # ranked by |score|, not confined to [0,1]
        self.hard = config.algo == "hc_iter"
        self.scored = ScoredWeights(model, scores)
        self.total = int(self.scored.counted.sum())
        self.finished = self.collapsed = False
        self.prunes = 0
        self.level = torch.zeros(self.scored.scores.numel(), dtype=torch.int16, device=self.scored.scores.device)
        self.score_at = torch.zeros_like(self.scored.weights)
        self.removed = 1.0 - config.target_sparsity / 100.0  # what global edge-popup leaves out now
        self.fraction = 0.0
        if config.iterative:
            try:
                self.fraction = pruning.prune_fraction(config.target_sparsity, epochs, config.iter_period)
            except ValueError as error:
                raise WinnowError(f"config.train.epochs: {error}") from None
            self.removed = self.fraction
        self.target_count = self.total - math.ceil((1.0 - config.target_sparsity / 100.0) * self.total)

    @torch.no_grad()
    def rounded(self) -> Tensor:
        """The mask that the scores stand for now (flat bool): what the search would keep if it ended here."""
        if self.config.algo == "ep":
            remaining = self.config.target_sparsity / 100.0
            parts = self.scored.scores.detach().abs().split(self.scored.sizes)
            return torch.cat([pruning.keep_top(p, pruning.edge_popup_count(p.numel(), remaining)) for p in parts])
        if self.popup:
            return self._above_threshold()[0]
        return (self.scored.scores.detach() > self.config.quantize_threshold) & self.scored.alive

    def _above_threshold(self) -> tuple[Tensor, Tensor]:
        """Global edge-popup's mask and threshold; weights that are not counted stay."""
        rank = self.scored.scores.detach().abs()
        rank = -rank if self.config.invert else rank
        if self.total == rank.numel():
            return pruning.above_smallest(rank, self.removed)
        kept, threshold = pruning.above_smallest(rank[self.scored.counted], self.removed)
        return torch.ones_like(self.scored.alive).masked_scatter_(self.scored.counted, kept), threshold

    @torch.no_grad()
    def fold(self, training: bool = False) -> None:
        """Put weight * mask(score) into the layers; in training with `round: prob` the mask is drawn, else it is
        rounded.
        """
        scores = self.scored.scores.detach()
        if self.popup:
            self.scored.mask_weights(self.rounded())
        elif not self.config.hc_quantized:
            self.scored.mask_weights(scores)
        elif training and self.config.round == "prob":
            drawn = torch.rand(scores.shape, device=scores.device, generator=ranks.generator(scores.device))
            self.scored.mask_weights(drawn < scores)
        else:
            self.scored.mask_weights(scores > self.config.quantize_threshold)

    def backward(self, loss: Tensor) -> None:
        """Gradient of the scores from the loss, straight through the rounding (and through |score| in edge-popup)."""
        self.scored.backward(loss)
        if self.popup:
            assert self.scored.scores.grad is not None
            self.scored.scores.grad.mul_(self.scored.scores.detach().sign())

    def step(
        self, x: Tensor, y: Tensor, compute: Compute, attack: Attack | None = None, label_smoothing: float = 0.0
    ) -> Tensor:
        """Forward and backward of images x (B,C,H,W) in [0,1], labels y (B,); the loss without the regulariser,
        detached.
        """
        x = x.contiguous(memory_format=self.scored.layout)
        self.fold(training=True)
        with autocast(compute, x.device):
            if attack is not None:
                x = perturb(self.model, x, y, attack)
            loss = F.cross_entropy(self.model(x), y, label_smoothing=label_smoothing)
        self.backward(loss)
        return loss.detach()

    def before_update(self) -> None:
        """Add the regulariser's gradient."""
        if self.config.regularization and self.config.lmbda:
            gradient = self.scored.scores.grad
            assert gradient is not None
            add_gradient(
                self.config.regularization,
                self.scored.scores.detach(),
                self.scored.weights,
                self.config.lmbda,
                gradient,
            )

    def after_update(self) -> None:
        """Project the scores back to [0,1] (hc forms)."""
        if not self.popup:
            self.scored.scores.data.clamp_(0.0, 1.0)

    def end_of_epoch(self, epoch: int) -> dict[str, Any]:
        """Hard prune when it is time; returns what remains and the regulariser. `epoch` is 0-based."""
        record: dict[str, Any] = {}
        due = self.config.iterative and epoch > 0 and epoch % self.config.iter_period == 0
        if due and self.hard:
            record["prune_threshold"] = self._prune()
        self.fold()
        record["remaining_percent"] = 100.0 * self._count(self.rounded()) / self.total
        record["alive_percent"] = 100.0 * self._count(self.scored.alive) / self.total
        if self.popup and self.config.algo != "ep":
            record["prune_threshold"] = float(self._above_threshold()[1])
        if self.config.regularization:
            sum_ = penalty(self.config.regularization, self.scored.scores.detach(), self.scored.weights)
            record["reg_loss"] = self.config.lmbda * float(sum_)
        if due and not self.hard:  # acts from the next epoch on; after the last one, in the ticket
            prunes = min(
                (epoch + 1) // self.config.iter_period, pruning.prune_count(self.epochs, self.config.iter_period)
            )
            self.removed = 1.0 - (1.0 - self.fraction) ** prunes
        return record

    def _count(self, mask: Tensor) -> int:
        """Weights in a flat mask, of those that count."""
        return int((mask & self.scored.counted).sum())

    @torch.no_grad()
    def _prune(self) -> float:
        """One hard prune. If nothing would be left to compute with, straight to the target, and the search ends."""
        scores, counted = self.scored.scores.detach(), self.scored.counted
        alive = self.scored.alive & counted
        rank = -scores if self.config.invert else scores
        if self.config.prune_type == "FixThresholding":
            kept, threshold = alive & (scores > FIXED_THRESHOLD), FIXED_THRESHOLD
        elif self.config.prune_type == "LocalBottomK":
            kept, threshold = pruning.local_bottom_k(rank, alive, self.fraction, self.scored.sizes)
        else:
            kept, threshold = pruning.bottom_k(rank, alive, self.fraction)
        if not bool((kept & (scores > self.config.quantize_threshold)).any()):
            self.collapsed = self.finished = True
            kept = pruning.keep_top(rank, min(self.target_count, int(alive.sum())), alive)
        self._drop(kept | ~counted, rank)
        if self.config.rewind_score:
            self.scored.scores.data.copy_(self.scored.start_scores)
        return threshold

    @torch.no_grad()
    def close(self) -> None:
        """End the search: what does not round to 1 goes in a last prune, unless hard prunes alone decide
        (unflag_before_finetune).

        Raises WinnowError when not one weight is left.
        """
        if self.hard and (self.config.unflag_before_finetune or self.collapsed):
            return
        scores = self.scored.scores.detach()
        mask = self.rounded()
        if not bool(mask.any()):
            raise WinnowError(
                f"{self.config.algo}: every score ended below {self.config.quantize_threshold:g}, no weight is left; "
                f"lower lmbda ({self.config.lmbda:g})"
            )
        rank = scores.abs() if self.popup else scores
        self._drop(mask.clone(), -rank if self.config.invert else rank)
        if self.popup:
            self.fold()

    def _drop(self, kept: Tensor, rank: Tensor) -> None:
        """Record one prune: `kept` survives; what goes is remembered with its level and its rank."""
        self.prunes += 1
        gone = self.scored.alive & ~kept
        self.level[gone] = self.prunes
        self.score_at[gone] = rank[gone]
        self.scored.set_alive(kept)

    def ticket(self) -> dict[str, Any]:
        """Bool arrays by weight name: what is left (after `close`, the search's ticket).

        A weight tensor that hard prunes never touch and that is whole is left out: it does not count.
        """
        found = self.scored.arrays(self.scored.alive)
        return {n: v for n, v in found.items() if n in self.scored.counted_names or not v.all()}

    @torch.no_grad()
    def order(self) -> dict[str, Any]:
        """Arrays `<name>.level` (int16) and `<name>.score` (float32) for gems.order, of the weights that count.

        Survivors come one level after the last.
        """
        alive = self.scored.alive
        level = torch.where(alive, torch.full_like(self.level, self.prunes + 1), self.level)
        score = torch.where(alive, self.scored.scores.detach(), self.score_at).float()
        levels, scores = self.scored.arrays(level), self.scored.arrays(score)
        names = self.scored.counted_names
        return {**{f"{n}.level": levels[n] for n in names}, **{f"{n}.score": scores[n] for n in names}}

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        tensors = {
            "scores": self.scored.scores.detach(),
            "alive": self.scored.alive,
            "level": self.level,
            "score_at": self.score_at,
        }
        plain = {name: getattr(self, name) for name in ("prunes", "finished", "collapsed", "removed")}
        return {**tensors, **plain}

    def load_state_dict(self, state: Any) -> None:
        """From the checkpoint."""
        self.scored.scores.data.copy_(state["scores"])
        self.level.copy_(state["level"])
        self.score_at.copy_(state["score_at"])
        self.scored.set_alive(state["alive"].to(self.level.device))
        self.prunes, self.finished, self.collapsed = state["prunes"], state["finished"], state["collapsed"]
        self.removed = state["removed"]


def search(
    model: nn.Module,
    batches: Batches,
    *,
    config: Search,
    train: Train,
    compute: Compute,
    seed: int,
    attack: Attack | None = None,
    scores: Mapping[str, Tensor] | None = None,
    evaluate: Callable[[], Mapping[str, Any]] | None = None,
    run: Run | None = None,
) -> tuple[GemSearch, list[dict[str, Any]]]:
    """Search `model` (on its device); returns the final state and one record an epoch.

    `scores`: start scores by weight name (default: drawn from the seed); `attack`: search for a robust gem on
    adversarial images; `evaluate()` adds metrics of the rounded network to each epoch. The search is closed: its ticket
    is final.
    """
    gem = GemSearch(model, scores or start_scores(model, config.start, seed), config, train.epochs)

    def after_epoch(epoch: int) -> dict[str, Any]:
        record = gem.end_of_epoch(epoch)
        return {**record, **(evaluate() if evaluate else {})}

    history = fit(
        Fit(
            model=model,
            optimizer=make_optimizer(train, [gem.scored.scores]),
            train=train,
            batches=batches,
            step=lambda batch: gem.step(batch[0], batch[1], compute, attack, train.label_smoothing),
            seed=seed,
            before_update=gem.before_update,
            after_update=gem.after_update,
            after_epoch=after_epoch,
            finished=lambda: gem.finished,
            extras={"gem": gem},
        ),
        run,
    )
    gem.close()
    return gem, history
