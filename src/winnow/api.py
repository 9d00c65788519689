"""winnow on one's own modules and loaders: two lines each, no files. docs/library.md shows them.

A loader is any iterable of (x, y) that can be gone through again: x (B,C,H,W) in [0,1], y (B,) labels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from winnow.config.gems import Search
from winnow.config.parts import Attack, Compute, Train
from winnow.errors import WinnowError
from winnow.prune import magnitude
from winnow.prune.counts import imp_count
from winnow.prune.layers import Layers
from winnow.run import Run
from winnow.schema import parse
from winnow.ticket import Ticket
from winnow.train.masking import enforce

Loader = Iterable[Any]


def _attack(
    eps: float | str, step_size: float | str | None, steps: int, norm: str, restarts: int, random_start: bool
) -> Attack:
    keys: dict[str, Any] = {
        "eps": eps,
        "step_size": eps if step_size is None else step_size,
        "steps": steps,
        "norm": norm,
    }
    attack = parse(Attack, {**keys, "restarts": restarts, "random_start": random_start}, "attack")
    return attack if step_size is not None else attack.having(step_size=attack.eps / 4)


def pgd(
    model: nn.Module, x: Tensor, y: Tensor, eps: float | str = "8/255", step_size: float | str | None = None,
    steps: int = 10,
    norm: str = "linf", random_start: bool = True, mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Tensor:  # fmt: skip
    """Adversarial images for x (B,C,H,W) in [0,1], labels y (B,), by projected gradient ascent (Madry et al., ICLR
    2018).

    eps, step_size: pixel units, also as "8/255" (step_size: eps / 4). The model is attacked in evaluation mode and left
    as it was. mean, std: by channel, what the images were normalised with where the model does not do so itself; the
    result is normalised too. Raises WinnowError for settings out of range or images outside [0,1].
    """
    from winnow.vision.attack import check_pixels, perturb

    pixels = _Pixels(model, mean, std)
    x = pixels.of(x)
    check_pixels(x)
    return pixels.normalised(perturb(pixels.model, x, y, _attack(eps, step_size, steps, norm, 1, random_start)))


def robust_accuracy(
    model: nn.Module, loader: Loader, eps: float | str = "8/255", step_size: float | str | None = None, steps: int = 20,
    norm: str = "linf", restarts: int = 1, seed: int = 0, mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> float:  # fmt: skip
    """Percentage of the loader's images that are classified correctly under the worst of `restarts` PGD attacks.

    loader: any iterable of (x, y); what it gives goes to the model's device. mean, std: as in `pgd`. Raises WinnowError
    for an empty loader, settings out of range or images outside [0,1].
    """
    from winnow.vision.attack import check_pixels, evaluation_mode, perturb

    attack = _attack(eps, step_size, steps, norm, restarts, True)
    device, right, total = next(model.parameters()).device, 0, 0
    pixels = _Pixels(model, mean, std)
    model = pixels.model
    for number, (x, y) in enumerate(loader):
        x, y = pixels.of(x.to(device)), y.to(device)
        check_pixels(x)
        total += len(y)
        for restart in range(attack.restarts):
            if len(y) == 0:
                break
            with _drawing(device, seed, "evaluate", number, restart):
                adversarial = perturb(model, x, y, attack)
            with evaluation_mode(model), torch.no_grad():
                robust = model(adversarial).argmax(1) == y
            x, y = x[robust], y[robust]
        right += len(y)
    if total == 0:
        raise WinnowError("loader: gives no images")
    return 100.0 * right / total


class _Pixels:
    """Images in [0,1] of a loader that normalises them by `mean` and `std`, and the model that takes such images."""

    def __init__(self, model: nn.Module, mean: Sequence[float] | None, std: Sequence[float] | None):
        if (mean is None) != (std is None):
            raise WinnowError("mean, std: give both, or none where the model normalises by itself")
        self.model, self.statistics = model, None
        if mean is not None and std is not None:
            like = next(model.parameters())
            self.statistics = [torch.tensor(list(v), device=like.device).view(1, -1, 1, 1) for v in (mean, std)]
            self.model = _Normalising(model, *self.statistics)
            self.model.training = model.training

    def of(self, x: Tensor) -> Tensor:
        """Normalised images carried back; what rounding puts outside [0,1] by under 1e-3 is put on its border."""
        if self.statistics is None:
            return x
        mean, std = self.statistics
        pixels = x * std + mean
        inside = pixels.clamp(0, 1)
        return torch.where((pixels - inside).abs() < 1e-3, inside, pixels)

    def normalised(self, x: Tensor) -> Tensor:
        """Images in [0,1] as the loader gives them."""
        return x if self.statistics is None else (x - self.statistics[0]) / self.statistics[1]


class _Normalising(nn.Module):
    def __init__(self, model: nn.Module, mean: Tensor, std: Tensor):
        super().__init__()
        self.model, self.mean, self.std = model, mean, std

    def forward(self, x: Tensor) -> Tensor:
        return self.model((x - self.mean) / self.std)


@contextmanager
def _drawing(device: torch.device, *seed: object) -> Iterator[None]:
    """Within: torch's global generators are seeded; afterwards they are where they were."""
    from winnow.rng import seed_of

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed_of(*seed))
        yield


def _free(model: nn.Module) -> nn.Module:
    """A copy that no ticket holds."""
    twin = copy.deepcopy(model)
    enforce(twin, None)
    return twin


class _Batches:
    """A loader as `fit` takes it: its own order, its batches on the device."""

    def __init__(self, loader: Loader, device: torch.device):
        self.loader, self.device = loader, device
        self._sizes = [len(y) for _, y in loader]
        if not self._sizes:
            raise WinnowError("loader: gives no batches")
        self.steps_per_epoch = len(self._sizes)

    def sizes(self, epoch: int) -> Sequence[int]:
        return self._sizes

    def epoch(self, epoch: int, first: int = 0, share: Callable[[int], slice] = slice) -> Iterator[Any]:
        batches = iter(self.loader)
        for number in range(self.steps_per_epoch):
            batch = next(batches, None)
            if batch is None:
                raise WinnowError(
                    f"loader: gave {self.steps_per_epoch} batches, then {number}; give one that can be gone through "
                    f"again, as a list "
                    "or a DataLoader"
                )
            if number >= first:
                yield batch[0].to(self.device), batch[1].to(self.device)


class _Keywords:
    """Batches of keyword arguments as `fit` takes them, in their own order."""

    def __init__(self, batches: Sequence[Mapping[str, Tensor]], device: torch.device):
        if not batches:
            raise WinnowError("batches: there are none")
        self.batches, self.device, self.steps_per_epoch = batches, device, len(batches)

    def sizes(self, epoch: int) -> Sequence[int]:
        return [len(b["labels"]) for b in self.batches]

    def epoch(self, epoch: int, first: int = 0, share: Callable[[int], slice] = slice) -> Iterator[Any]:
        for batch in self.batches[first:]:
            yield {k: v.to(self.device) for k, v in batch.items()}


def find_gem(
    model: nn.Module, loader: Loader, remaining_percent: float, *, epochs: int = 30, lr: float = 0.1,
    lmbda: float = 1e-4,
    iter_period: int = 1, algo: str = "hc_iter", seed: int = 0, run: Run | None = None, **search: Any,
) -> Ticket:  # fmt: skip
    """A subnetwork of `model` that classifies before any training: Gem-Miner (Rare Gems, NeurIPS 2022, section 4).

    The model is left as it was (a copy is searched). remaining_percent: of all convolution and linear weights.
    lr, lmbda, iter_period: rate of the scores (SGD, cosine), their L2 penalty, epochs between prunes; `search`: further
    keys of docs/configuration.md's Search. Raises WinnowError where the search cannot prune or nothing is left.

        ticket = winnow.find_gem(model, loader, 5)
        ticket.apply(model)
    """
    from winnow.gems import search as gems

    run = run or Run()
    keys = {"algo": algo, "target_sparsity": remaining_percent, "lmbda": lmbda, "iter_period": iter_period, **search}
    config = parse(Search, keys, "search")
    train = parse(Train, {"epochs": epochs, "batch_size": 1, "lr": lr, "schedule": "cosine"}, "find_gem")
    twin = _free(model).to(run.device)
    with _drawing(run.device, seed, "find_gem"):
        batches = _Batches(loader, run.device)
        gem, _ = gems.search(twin, batches, config=config, train=train, compute=Compute(), seed=seed, run=run)
    return Ticket(gem.ticket(), {"method": algo, "seed": seed})


def imp(
    model: nn.Module, train_fn: Callable[[nn.Module], Any], rounds: int, *, prune_percent: float = 20.0,
    layers: Layers | None = None, rewind: str | Mapping[str, Tensor] = "cold",
) -> list[Ticket]:  # fmt: skip
    """Iterative magnitude pruning: `train_fn(model)` trains to the end, the smallest remaining weights go, and so on.

    rewind: what each round starts from. "cold": the weights as they were at the call; a state dict, e.g. of an early
    step (Frankle et al., ICML 2020): these; "none": the weights that the last round trained.
    layers: convolutions and linear layers but the last. Removed weights are held at zero (winnow.enforce) while
    `train_fn` runs. Returns a ticket a round; the model ends trained under the one before the last cut. Raises
    WinnowError for settings out of range.
    """
    if rounds < 1 or not 0 < prune_percent < 100 or (isinstance(rewind, str) and rewind not in ("cold", "none")):
        raise WinnowError(
            f"imp: rounds {rounds}, prune_percent {prune_percent:g}, rewind {str(rewind)[:20]!r}: give rounds >= 1, 0 "
            f"< percent < 100, cold "
            "or none or a state dict"
        )
    names = (layers or Layers()).names(model)
    origin = rewind if isinstance(rewind, Mapping) else model.state_dict()
    start = {k: v.detach().clone() for k, v in origin.items()}
    total = sum(model.get_parameter(n).numel() for n in names)
    tickets: list[Ticket] = []
    for number in range(1, rounds + 1):
        if rewind != "none" and (tickets or isinstance(rewind, Mapping)):
            model.load_state_dict(start)
        with enforce(model, tickets[-1] if tickets else None) as handle:
            train_fn(model)
            handle.check()
        weights = {n: model.get_parameter(n).detach().float().cpu().contiguous().numpy() for n in names}
        alive = tickets[-1].arrays if tickets else None
        masks = magnitude.masks(weights, imp_count(total, number, prune_percent), alive)
        tickets.append(Ticket(masks, {"method": "imp", "round": number}))
    return tickets


def robust_ticket(
    model: nn.Module, batches: Sequence[Mapping[str, Tensor]], removed_percent: float, *, epochs: int = 3,
    lr: float = 0.1,
    adversarial_steps: int = 5, step_size: float = 0.03, layers: Layers | None = None, seed: int = 0,
    run: Run | None = None,
) -> Ticket:  # fmt: skip
    """A robust ticket of a Hugging Face classifier (Robust Lottery Tickets, ACL 2022, section 3): hard-concrete masks
    learnt against an adversary on the word embeddings, weights frozen.

    batches: input_ids, attention_mask, labels and, for models that take them, token_type_ids. removed_percent: of the
    encoder's linear weights; the lowest scores over all layers go. The model is left as it was. Raises WinnowError for
    what does not fit.
    """
    from winnow.config.text import FreeLB, HardConcrete
    from winnow.prune.counts import keep_largest
    from winnow.text import search as text_search
    from winnow.text.models import prunable

    run = run or Run()
    names = layers.names(model) if layers else prunable(model)
    train = parse(
        Train,
        {"epochs": epochs, "batch_size": 1, "optimizer": "adamw", "lr": lr, "weight_decay": 1e-6, "schedule": "linear"},
        "train",
    )
    adversary = parse(FreeLB, {"steps": adversarial_steps, "step_size": step_size}, "adversary")
    if not 0 <= removed_percent < 100:
        raise WinnowError(f"removed_percent: {removed_percent:g} must be at least 0 and less than 100")
    twin = _free(model)
    with _drawing(run.device, seed, "robust_ticket"):
        _, kept = text_search.learn(
            twin, names, _Keywords(batches, run.device), train=train, masks=HardConcrete(), adversary=adversary,
            keep_epochs=[epochs],
            compute=Compute(), seed=seed, run=run,
        )  # fmt: skip
    scores = {n: s.expand(model.get_parameter(n).shape).cpu().numpy() for n, s in kept[epochs].items()}
    total = sum(s.size for s in scores.values())
    return Ticket(
        keep_largest(scores, total - round(total * removed_percent / 100)), {"method": "robust_ticket", "seed": seed}
    )
