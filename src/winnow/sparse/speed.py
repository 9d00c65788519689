"""Is a ticket worth it here? Dense against sparse in one run, and from which density on it would be.

The dense side is the network under its mask in evaluation mode, its images stored as is faster for it (channels last or
not). Both sides run in turn, round by round; a round gives one ratio, so that what else the machine does meanwhile hits
both.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from winnow.sparse import choice
from winnow.sparse.channels import plain_layer
from winnow.sparse.compact import compact, made_of
from winnow.sparse.layers import Layer
from winnow.sparse.model import SparseModel
from winnow.sparse.rule import LayerShape, Rates
from winnow.ticket import Ticket

PASSES = 10
WORTH = 1.1  # times as fast as dense; below, a user would not notice
Call = tuple[tuple[Any, ...], Mapping[str, Any]]  # positional and keyword arguments of a network
Inputs = Callable[[int], Call]  # for a batch of so many examples
GRID = tuple(float(p) for p in (90, 80, 70, 60, 50, 40, 30, 25, 20, 15, 12, 10, 8, 6, 5, 4, 3, 2, 1.5, 1, 0.5))


@dataclass(frozen=True)
class Prediction:
    """What the rule says of a network at one batch and number of threads: speed-up at the ticket, and over remaining
    percentages.

    folding: how many times as fast the dense network is with its normalisations folded in, which takes no ticket.
    """

    speedup: float
    curve: dict[float, float]
    folding: float = 1.0

    @property
    def worth_from(self) -> float | None:
        """The largest remaining percentage from which on all smaller ones are worth it, folding aside; None: none of
        the grid is.
        """
        found = None
        for percent in sorted(self.curve):
            if self.curve[percent] < WORTH * self.folding:
                break
            found = percent
        return found


@torch.no_grad()
def compare(
    model: nn.Module, network: SparseModel, inputs: Inputs, batches: Sequence[int], threads: Sequence[int], repeats: int
) -> list[dict[str, Any]]:
    """A row for each batch and number of threads; `model` holds the ticket's zeros, `network` is made of it.

    dense_ms, sparse_ms: medians over `repeats` rounds; speedup with its quartiles low and high: of the rounds' ratios;
    examples_per_second: of the sparse network.
    """
    rows, folded = [], _folded(model, network)
    for count in threads:
        with choice.threads(count):
            for batch in batches:
                given = inputs(batch)
                row = _row(model, network, given, batch, count, repeats)
                device = next(model.parameters()).device
                rows.append(
                    row
                    | {"folded_dense_ms": 1e3 * choice.seconds_of(_stored_best(folded, given, device), device, 0.05)}
                )
    return rows


def _folded(model: nn.Module, network: SparseModel) -> nn.Module:
    """The dense network with its normalisations folded in, and no channel removed."""
    if network.untraced is not None:
        return model
    full = copy.deepcopy(model)
    for parameter in full.parameters():
        parameter.masked_fill_(parameter == 0, 1e-6)  # nothing is empty
    return compact(full)[0]


def _row(model: nn.Module, network: SparseModel, given: Call, batch: int, count: int, repeats: int) -> dict[str, Any]:
    args, kwargs = given
    device = next(model.parameters()).device
    plan = network.plan(*args, **kwargs)
    dense = _stored_best(model, given, device)
    network(*args, **kwargs)
    pairs = []
    for _ in range(repeats):
        pairs.append(
            (choice.seconds_of(dense, device, 0.02), choice.seconds_of(lambda: network(*args, **kwargs), device, 0.02))
        )
    ratios = [a / b for a, b in pairs]
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    plain, sparse = (statistics.median(times) for times in zip(*pairs, strict=True))
    return {
        "batch": batch, "threads": count, "dense_ms": 1e3 * plain, "sparse_ms": 1e3 * sparse, "speedup": middle,
        "low": low,
        "high": high, "examples_per_second": batch / sparse, "dense_examples_per_second": batch / plain,
        "smaller_dense_ms": 1e3 * plan.dense_seconds, **{f"layers_{k}": n for k, n in network.ways(plan).items()},
    }  # fmt: skip


def _stored_best(model: nn.Module, given: Call, device: torch.device) -> Callable[[], Any]:
    """The dense network on inputs stored in the order that is faster."""
    calls: list[Callable[[], Any]] = [lambda m=m, g=g: m(*g[0], **g[1]) for m, g in _stored(model, given)]  # type: ignore[misc]
    return min(calls, key=lambda call: choice.seconds_of(call, device, 0.02))


def _stored(model: nn.Module, given: Call) -> list[tuple[nn.Module, Call]]:
    """Network and inputs in both orders of storage."""
    found: list[tuple[nn.Module, Call]] = []
    for order in (torch.contiguous_format, torch.channels_last):
        args = tuple(
            v.contiguous(memory_format=order) if isinstance(v, Tensor) and v.dim() == 4 else v for v in given[0]
        )
        found.append((copy.deepcopy(model).to(memory_format=order), (args, given[1])))  # type: ignore[call-overload]
    return found


def _layers(model: nn.Module) -> dict[str, Layer]:
    """What the rule knows: the plain layers, by name."""
    return {name: made_of(layer) for name, layer in model.named_modules() if plain_layer(layer)}


def _shapes(model: nn.Module, layers: Mapping[str, Layer], given: Call) -> dict[str, list[LayerShape]]:
    """The inputs that each layer gets."""
    found: dict[str, list[LayerShape]] = {}

    def seen(name: str, shape: tuple[int, ...]) -> None:
        found.setdefault(name, []).append(LayerShape.of(layers[name], shape))

    hooks = [
        model.get_submodule(n).register_forward_pre_hook(lambda _, x, n=n: seen(n, tuple(x[0].shape)))  # type: ignore[misc]
        for n in layers
    ]
    model(*given[0], **given[1])
    for hook in hooks:
        hook.remove()
    return found


def _seconds_within(model: nn.Module, layers: Iterable[str], given: Call) -> float:
    """Seconds that one pass of the network spends in these layers; the shortest of several passes."""
    device, spent, begun = next(model.parameters()).device, [0.0], [0.0]

    def before(*_: Any) -> None:
        choice.wait(device)
        begun[0] = time.perf_counter()

    def after(*_: Any) -> None:
        choice.wait(device)
        spent[0] += time.perf_counter() - begun[0]

    modules = [model.get_submodule(name) for name in layers]
    hooks = [h for m in modules for h in (m.register_forward_pre_hook(before), m.register_forward_hook(after))]
    found = []
    for _ in range(PASSES):
        spent[0] = 0.0
        model(*given[0], **given[1])
        found.append(spent[0])
    for hook in hooks:
        hook.remove()
    return min(found)


@torch.no_grad()
def predict(
    model: nn.Module, ticket: Ticket, given: Call, rates: Rates, dense_seconds: float, folded_seconds: float
) -> Prediction:
    """By the rule, for the ticket's counts and for the same shares between layers at other densities.

    What the folded network's time leaves beside its layers' is taken as the same in both: activations, sums, pooling.
    Layers take longer within a network than alone (their inputs are not in the caches); the measured factor of the
    dense ones is taken for all. dense_seconds, folded_seconds: of the whole dense network as it is, and with its
    normalisations folded in, measured.
    """
    layers = _layers(model)
    shapes = _shapes(model, layers, given)
    kept = {name: int(layer.weight.count_nonzero()) for name, layer in layers.items()}
    within = min(_seconds_within(m, layers, g) for m, g in _stored(model, given))
    dense = sum(rates.dense(s) for found in shapes.values() for s in found)
    context, rest = within / dense, max(0.0, folded_seconds - within)

    def speedup(scale: float) -> float:
        sparse = 0.0
        for name, found in shapes.items():
            masked = f"{name}.weight" in ticket.arrays
            count = min(layers[name].weight.numel(), round(kept[name] * scale)) if masked else kept[name]
            sparse += sum(rates.seconds(s, count) for s in found)
        return dense_seconds / (rest + context * sparse)

    curve = {percent: speedup(percent / ticket.remaining_percent) for percent in GRID}
    return Prediction(speedup(1.0), curve, dense_seconds / folded_seconds)


def verdict(rows: Sequence[Mapping[str, Any]], remaining_percent: float) -> str:
    """One sentence over all rows (with worth_from of the rule): worth it here or not, and from which density on."""
    worth = [r for r in rows if r["low"] >= WORTH]
    cases = ", ".join(f"batch {r['batch']} on {r['threads']} thread{'s' * (r['threads'] > 1)}" for r in worth)
    some = f"Worth it here in some cases ({cases})" if worth else "Not worth it here"
    measured = " to ".join(dict.fromkeys(f"{f(r['speedup'] for r in rows):.2g}" for f in (min, max)))
    points = [r["worth_from"] for r in rows]
    found = [p for p in points if p is not None]
    if found:
        worst = f"{min(found):g} % at worst" if len(found) == len(points) else "nowhere at worst"
        span = f"from {max(found):g} % remaining down" + (f" at best, {worst}" if len(points) > 1 else "")
    return (
        f"{'Worth it here' if len(worth) == len(rows) else some}: {measured} times as fast as dense at "
        f"{remaining_percent:.3g} % "
        f"remaining; by the rule worth it {span if found else 'at no density'}."
    )
