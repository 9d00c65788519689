"""Which way each layer of a network takes: measured once for a shape of input on this machine, and kept.

Every layer is timed in every way that it has, on inputs of the shape that it gets. From the times a few plans for the
whole network are made (all dense; the fastest way of each layer, of all ways and of those that store alike; the same
with dense kernels where the gain is small, since a change of storage between layers costs too), their outputs are
compared, and the plan that is fastest as a whole is taken.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from winnow.artifacts import read_json, write_json
from winnow.errors import WinnowError
from winnow.schema import canonical_json
from winnow.sparse import ways
from winnow.sparse.layers import Layer, SparseConv2d

log = logging.getLogger("winnow")
VERSION = 2
TOLERANCE = 1e-4  # of two plans, relative to the largest output; rounding gives some 1e-6
LEAST_AT_ONCE = 8  # images; of fewer, sums of rows lose more than the caches give
LEAST_GAINS = (1.0, 1.5, 3.0)  # a sparse way is taken where the dense one takes so many times as long
ROUNDS = 5


@dataclass(frozen=True)
class Plan:
    """The way of each layer that is not dense, and how images and dense kernels are stored.

    at_once: images that pass through the network together, so that what lies between its layers stays in the caches;
    None: the batch. seconds: of the whole network when it was measured; dense_seconds: with all layers dense, the same
    smaller network.
    """

    ways: Mapping[str, str]
    channels_last: bool = False
    at_once: int | None = None
    seconds: float = float("nan")
    dense_seconds: float = float("nan")


def cache_folder() -> Path:
    """Where plans are kept by default: winnow/sparse in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "winnow" / "sparse"


def layers_of(network: nn.Module) -> dict[str, Layer]:
    """The layers that have a choice, by name."""
    return {name: m for name, m in network.named_modules() if isinstance(m, Layer)}


def use(network: nn.Module, plan: Plan) -> None:
    """Set the network's layers to a plan."""
    order = torch.channels_last if plan.channels_last else torch.contiguous_format
    for name, layer in layers_of(network).items():
        layer.choose(plan.ways.get(name, "dense"), order)


def stored(value: Any, plan: Plan) -> Any:
    """An argument of the network as the plan wants it stored."""
    if plan.channels_last and isinstance(value, Tensor) and value.dim() == 4:
        return value.contiguous(memory_format=torch.channels_last)
    return value


def answer(network: nn.Module, plan: Plan, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What the network, set to `plan`, returns."""
    if plan.at_once is None:
        return network(*(stored(v, plan) for v in args), **kwargs)
    return torch.cat([network(stored(part, plan)) for part in args[0].split(plan.at_once)])


def signature(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    """What of a call decides its plan: shapes, types and device of its tensors, and the number of threads."""
    given = (*args, *kwargs.values())
    return (
        *((tuple(v.shape), v.dtype, v.device.type) for v in given if isinstance(v, Tensor)),
        torch.get_num_threads(),
    )


def plan_for(network: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], cache: Path | None) -> Plan:
    """The plan that was measured before for such a network and input here, or the one that is measured now."""
    file = cache / f"{_key(network, signature(args, kwargs))}.json" if cache else None
    if file is not None and file.exists():
        return Plan(**read_json(file)["plan"])
    plan = measure(network, args, kwargs)
    if file is not None:
        try:
            write_json(file, {"plan": asdict(plan), "machine": machine()})
        except WinnowError as error:
            log.warning("the measured plan is not kept for later runs: %s", error)
    return plan


def measure(network: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Plan:
    """Time layers, then whole plans; the network is left with the last plan that was tried."""
    layers = layers_of(network)
    use(network, Plan({}))
    for layer in layers.values():
        layer.seen = set()
    network(*args, **kwargs)
    device = next((v.device for v in (*args, *kwargs.values()) if isinstance(v, Tensor)), torch.device("cpu"))
    by_layer: dict[str, dict[str, float]] = {}
    for name, layer in layers.items():
        shapes, layer.seen = layer.seen or set(), None
        by_layer[name] = times(layer, shapes, device) if shapes else {}
    plans = list(_plans(layers, by_layer))
    best = [float("inf")] * len(plans)
    expected = None
    for turn in range(ROUNDS):
        for i, plan in enumerate(plans):
            use(network, plan)
            output = answer(network, plan, args, kwargs)
            expected = output if expected is None else expected
            if best[i] == float("inf"):
                _compare(_tensor(output), _tensor(expected), plan)
            taken = seconds_of(lambda p=plan: answer(network, p, args, kwargs), device, 0.02, 2)  # type: ignore[misc]
            best[i] = min(best[i], taken)
        if turn == 0 and not kwargs:
            fastest = plans[min(range(len(plans)), key=best.__getitem__)]
            parts = list(_in_parts(fastest, args, expected))
            plans += parts
            best += [float("inf")] * len(parts)
    chosen = min(range(len(plans)), key=best.__getitem__)
    dense = min(t for t, p in zip(best, plans, strict=True) if not p.ways)
    log.info("%d plans measured: %.4g s, all dense %.4g s", len(plans), best[chosen], dense)
    return replace(plans[chosen], seconds=best[chosen], dense_seconds=dense)


def _in_parts(plan: Plan, args: tuple[Any, ...], output: Any) -> Iterator[Plan]:
    """The plan with half and a quarter of a batch of images at once, where the output is one row an image."""
    images = args[0] if len(args) == 1 and isinstance(args[0], Tensor) and args[0].dim() == 4 else None
    if images is not None and isinstance(output, Tensor) and len(output) == len(images):
        yield from (replace(plan, at_once=n) for d in (2, 4) if (n := len(images) // d) >= LEAST_AT_ONCE)


def times(layer: Layer, shapes: set[tuple[int, ...]], device: torch.device) -> dict[str, float]:
    """Seconds of a layer in each of its ways, its input stored as the way likes it."""
    found: dict[str, float] = {}
    inputs = [torch.randn(shape, device=device, dtype=layer.weight.dtype) for shape in sorted(shapes)]
    for name in layer.names():
        if name == "dense":
            found[name] = sum(seconds_of(lambda x=x: layer.dense(x), device) for x in inputs)  # type: ignore[misc]
            continue
        built = [layer.built(name, tuple(x.shape)) for x in inputs]
        if all(built):
            order = ways.LIKED.get(name, ways.CHANNELS_FIRST)
            liked = [ways.from_stored(ways.stored_as(x, order), order) if x.dim() == 4 else x for x in inputs]
            pairs = zip(built, liked, strict=True)
            found[name] = sum(seconds_of(lambda w=b[0], x=x: w(x), device) for b, x in pairs if b)  # type: ignore[misc]
    fastest = min((n for n in found if n != "dense"), key=found.__getitem__, default="dense")
    layer.forget(fastest)
    return found


def _plans(layers: Mapping[str, Layer], times: Mapping[str, Mapping[str, float]]) -> Iterator[Plan]:
    yield Plan({})
    if any(isinstance(layer, SparseConv2d) for layer in layers.values()):
        yield Plan({}, channels_last=True)
    tried: list[dict[str, str]] = [{}]
    for left_out, gain in product(((), ("points",), ("rows", "csr")), (0.0, *LEAST_GAINS)):
        found: dict[str, str] = {}
        for name, by_way in times.items():
            others = {n: t for n, t in by_way.items() if n != "dense" and n not in left_out}
            fastest = min(others, key=others.__getitem__, default="dense")
            if fastest != "dense" and by_way["dense"] >= gain * others[fastest]:
                found[name] = fastest
        if found not in tried:
            tried.append(found)
            yield Plan(found)


def seconds_of(call: Callable[[], Any], device: torch.device, least: float = 0.005, repeats: int = 3) -> float:
    """The shortest of at least `repeats` calls and `least` seconds of them, after one that is not counted."""
    call()
    wait(device)
    best, spent, done = float("inf"), 0.0, 0
    while done < repeats or spent < least:
        begun = time.perf_counter()
        call()
        wait(device)
        taken = time.perf_counter() - begun
        best, spent, done = min(best, taken), spent + taken, done + 1
    return best


def wait(device: torch.device) -> None:
    """Until a GPU has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _tensor(output: Any) -> Tensor:
    """The first tensor of what a network returns."""
    if isinstance(output, Tensor):
        return output
    values = output.values() if isinstance(output, Mapping) else output
    return next(v for v in values if isinstance(v, Tensor))


def _compare(output: Tensor, expected: Tensor, plan: Plan) -> None:
    difference = (output - expected).abs().max() / expected.abs().max().clamp_min(1e-30)
    if difference > TOLERANCE:
        raise RuntimeError(f"{plan} gives other outputs than the dense layers: {float(difference):.2g} of the largest")


def machine() -> dict[str, Any]:
    """What times depend on beside network, input and threads."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "gpu": gpu,
        "torch": torch.__version__,
    }


def _key(network: nn.Module, call: tuple[Any, ...]) -> str:
    built = [
        (n, list(x.weight.shape), int(x.weight.count_nonzero()), x.contiguous) for n, x in layers_of(network).items()
    ]
    about = canonical_json([VERSION, machine(), [str(c) for c in call], built])
    return hashlib.sha256(about.encode()).hexdigest()[:32]


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Within: torch computes with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
