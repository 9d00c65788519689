"""Search for a gem: train scores over frozen weights, round them in the forward pass, prune the smallest for good.

Gem-Miner (`hc_iter`; Rare Gems, NeurIPS 2022, section 4), its form without hard prunes (`hc`), and edge-popup per layer and
globally (`ep`, `global_ep`, `global_ep_iter`; Ramanujan et al., CVPR 2020).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from winnow.config.gems import ITERATIVE, Search
from winnow.config.parts import Attack, Compute, Train
from winnow.errors import WinnowError
from winnow.gems import pruning
from winnow.gems.inits import draw_scores, generator
from winnow.gems.regularizers import add_gradient, penalty
from winnow.gems.scores import ScoredWeights, hard_prunable, scorable
from winnow.run import Run
from winnow.train import ranks
from winnow.train.device import autocast
from winnow.train.loop import Batches, Fit, fit
from winnow.train.optim import make_optimizer
from winnow.vision.attack import perturb


def start_scores(model: nn.Module, score_init: str, *seed: object) -> dict[str, Tensor]:
    """Start scores by weight name, each layer from its own generator."""
    parameters = dict(model.named_parameters())
    return {n: draw_scores(tuple(parameters[n].shape), score_init, generator(*seed, "scores", n)) for n in scorable(model)}


class GemSearch:
    """The state of one search, and the hooks that the training loop calls. Lives in the checkpoint beside the model.

    Weights that have scores but are not `hard_prunable` (projections of some released networks) stay in every hard prune and
    count in no percentage; they are part of the ticket only when its last rounding takes some of them.
    """

    def __init__(self, model: nn.Module, scores: Mapping[str, Tensor], config: Search, epochs: int):
        self.model, self.config, self.epochs = model, config, epochs
        self.popup = "ep" in config.algo.split("_")  # ranked by |score|, not confined to [0,1]
        self.iterative = config.algo in ITERATIVE
        self.scored = ScoredWeights(model, scores)
        prunable = set(hard_prunable(model))
        sizes = torch.tensor(self.scored.sizes)
        self.prunable = torch.tensor([n in prunable for n in self.scored.names]).repeat_interleave(sizes)
        self.prunable = self.prunable.to(self.scored.scores.device)
        self.total = int(self.prunable.sum())
        self.finished = self.collapsed = False
        self.prunes = 0
        self.level = torch.zeros(self.scored.scores.numel(), dtype=torch.int16, device=self.scored.scores.device)
        self.score_at = torch.zeros_like(self.scored.weights)
        self.fraction = 0.0
        if self.iterative:
            try:
                self.fraction = pruning.prune_fraction(config.target_sparsity, epochs, config.iter_period)
            except ValueError as error:
                raise WinnowError(f"config.train.epochs: {error}") from None
        self.target_count = self.total - math.ceil((1.0 - config.target_sparsity / 100.0) * self.total)

    @torch.no_grad()
    def rounded(self) -> Tensor:
        """The mask that the scores stand for now (flat bool): what the search would keep if it ended here."""
        scores, alive = self.scored.scores.detach(), self.scored.alive
        if self.config.algo == "ep":
            remaining = self.config.target_sparsity / 100.0
            parts = scores.abs().split(self.scored.sizes)
            return torch.cat([pruning.keep_top(p, pruning.edge_popup_count(p.numel(), remaining)) for p in parts])
        if self.config.algo == "global_ep":
            count = pruning.edge_popup_count(self.total, self.config.target_sparsity / 100.0)
            return pruning.keep_top(scores.abs(), count)
        return alive if self.popup else (scores > self.config.quantize_threshold) & alive

    @torch.no_grad()
    def fold(self, training: bool = False) -> None:
        """Put weight * mask(score) into the layers; in training with `round: prob` the mask is drawn, else it is rounded."""
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
        """Forward and backward of images x (B,C,H,W) in [0,1], labels y (B,); the loss without the regulariser, detached."""
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
                self.config.regularization, self.scored.scores.detach(), self.scored.weights, self.config.lmbda, gradient
            )

    def after_update(self) -> None:
        """Project the scores back to [0,1] (hc forms)."""
        if not self.popup:
            self.scored.scores.data.clamp_(0.0, 1.0)

    def end_of_epoch(self, epoch: int) -> dict[str, Any]:
        """Hard prune when it is time; returns what remains and the regulariser. `epoch` is 0-based."""
        record: dict[str, Any] = {}
        if self.iterative and epoch > 0 and epoch % self.config.iter_period == 0:
            record["prune_threshold"] = self._prune()
        self.fold()
        record["remaining_percent"] = 100.0 * int((self.rounded() & self.prunable).sum()) / self.total
        record["alive_percent"] = 100.0 * int((self.scored.alive & self.prunable).sum()) / self.total
        if self.config.regularization:
            sum_ = penalty(self.config.regularization, self.scored.scores.detach(), self.scored.weights)
            record["reg_loss"] = self.config.lmbda * float(sum_)
        return record

    @torch.no_grad()
    def _prune(self) -> float:
        """One hard prune. If nothing would be left to compute with, straight to the target, and the search ends."""
        scores, alive = self.scored.scores.detach(), self.scored.alive & self.prunable
        rank = scores.abs() if self.popup else scores
        rank = -rank if self.config.invert else rank
        if self.config.prune_type == "FixThresholding":
            kept, threshold = alive & (scores > self.config.quantize_threshold), self.config.quantize_threshold
        elif self.config.prune_type == "LocalBottomK":
            kept, threshold = pruning.local_bottom_k(rank, alive, self.fraction, self.scored.sizes)
        else:
            kept, threshold = pruning.bottom_k(rank, alive, self.fraction)
        active = kept if self.popup else kept & (scores > self.config.quantize_threshold)
        if not bool(active.any()):
            self.collapsed = self.finished = True
            kept = pruning.keep_top(rank, min(self.target_count, int(alive.sum())), alive)
        self._drop(kept | (self.scored.alive & ~self.prunable), rank)
        if self.config.rewind_score:
            self.scored.scores.data.copy_(self.scored.start_scores)
        return threshold

    @torch.no_grad()
    def close(self) -> None:
        """End the search: what does not round to 1 goes in a last prune, unless hard prunes alone decide (unflag_before_finetune).

        Raises WinnowError when not one weight is left.
        """
        if self.iterative and (self.config.unflag_before_finetune or self.collapsed):
            return
        scores = self.scored.scores.detach()
        mask = self.rounded()
        if not bool(mask.any()):
            raise WinnowError(
                f"{self.config.algo}: every score ended below {self.config.quantize_threshold:g}, no weight is left; "
                f"lower lmbda ({self.config.lmbda:g})"
            )
        self._drop(mask.clone(), scores.abs() if self.popup else scores)

    def _drop(self, kept: Tensor, rank: Tensor) -> None:
        """Record one prune: `kept` survives; what goes is remembered with its level and its rank."""
        self.prunes += 1
        gone = self.scored.alive & ~kept
        self.level[gone] = self.prunes
        self.score_at[gone] = rank[gone]
        self.scored.set_alive(kept)

    def ticket(self) -> dict[str, Any]:
        """Bool arrays by weight name: what is left (after `close`, the search's ticket)."""
        return {n: m for n, m in self.scored.arrays(self.scored.alive).items() if n in self._masked()}

    def _masked(self) -> set[str]:
        """Names of the layers that the ticket masks: the hard-prunable ones, and others that have lost a weight."""
        counted, alive = self.scored.views(self.prunable), self.scored.views(self.scored.alive)
        return {n for n in self.scored.names if bool(counted[n].any()) or not bool(alive[n].all())}

    @torch.no_grad()
    def order(self) -> dict[str, Any]:
        """Arrays `<name>.level` (int16) and `<name>.score` (float32) for gems.order; survivors come one level after the last."""
        alive = self.scored.alive
        level = torch.where(alive, torch.full_like(self.level, self.prunes + 1), self.level)
        score = torch.where(alive, self.scored.scores.detach(), self.score_at)
        masked = self._masked()
        levels, scores = self.scored.arrays(level), self.scored.arrays(score)
        ordered = {f"{n}.level": v for n, v in levels.items() if n in masked}
        return {**ordered, **{f"{n}.score": v for n, v in scores.items() if n in masked}}

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        tensors = {
            "scores": self.scored.scores.detach(),
            "alive": self.scored.alive,
            "level": self.level,
            "score_at": self.score_at,
        }
        return {**tensors, "prunes": self.prunes, "finished": self.finished, "collapsed": self.collapsed}

    def load_state_dict(self, state: Any) -> None:
        """From the checkpoint."""
        self.scored.scores.data.copy_(state["scores"])
        self.level.copy_(state["level"])
        self.score_at.copy_(state["score_at"])
        self.scored.set_alive(state["alive"].to(self.level.device))
        self.prunes, self.finished, self.collapsed = state["prunes"], state["finished"], state["collapsed"]


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

    `scores`: start scores by weight name (default: drawn from the seed); `attack`: search for a robust gem on adversarial
    images; `evaluate()` adds metrics of the rounded network to each epoch. The search is closed: its ticket is final.
    """
    gem = GemSearch(model, scores or start_scores(model, config.score_init, seed), config, train.epochs)

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
