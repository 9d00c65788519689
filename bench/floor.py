"""How far the hot paths are from what the machine can do: a roofline per operation, beside the measured time.

Every tensor operation of one step is counted: its floating point operations, and the bytes of its arguments and results
as if they came from memory. Its floor is the larger of operations / peak and bytes / bandwidth, both measured here
(matrix product and copy of blocks beyond the cache, the best of several). The sum over all operations is the step's
floor; activations that stay in the cache and fused kernels can be faster than their bytes.

    python -m bench.floor [--threads 1] [--repeats 5]
"""

from __future__ import annotations

import statistics
import time

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from bench import adversarial_step, gem_search_epoch, robust_search_step
from bench.common import Run, arguments, measured

FREE = ("view", "reshape", "as_strided", "transpose", "permute", "expand", "detach", "t", "alias", "unsqueeze",
 "squeeze", "slice",
        "select", "split", "empty", "empty_like", "empty_strided", "new_empty", "_unsafe_view", "set_",
        "is_same_size")  # fmt: skip


def tensors(value):
    """All tensors in nested arguments."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors(part)


class Roofline(TorchDispatchMode):
    """Adds up operations, bytes and the floor of what runs within."""

    def __init__(self, peak, bandwidth):
        super().__init__()
        self.peak, self.bandwidth, self.flops, self.bytes, self.seconds = peak, bandwidth, 0.0, 0.0, 0.0
        self.by_kind = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.split("::")[1]
        if name in FREE:
            return result
        count = flop_registry.get(func._overloadpacket)
        flops = count(*args, **(kwargs or {}), out_val=result) if count else 0
        moved = {t.data_ptr(): t.numel() * t.element_size() for t in (*tensors(args), *tensors(result))}
        # what is read and written in place counts twice
        moved = sum(moved.values()) + sum(t.numel() * t.element_size() for t in tensors(args[:1]) if name.endswith("_"))
        half = any(t.dtype == torch.bfloat16 for t in tensors(args))
        seconds = max(flops / self.peak["bf16" if half else "float32"], moved / self.bandwidth)
        self.flops, self.bytes, self.seconds = self.flops + flops, self.bytes + moved, self.seconds + seconds
        self.by_kind[name] = self.by_kind.get(name, 0.0) + seconds
        return result


def best(action, repeats):
    """Shortest of several runs, in seconds."""
    times = []
    for _ in range(repeats + 1):
        begun = time.perf_counter()
        action()
        times.append(time.perf_counter() - begun)
    return min(times[1:])


def limits(size, repeats):
    """Peak operations a second by precision, and bytes a second of a copy (read and written)."""
    peak = {}
    for name, dtype in (("float32", torch.float32), ("bf16", torch.bfloat16)):
        a = torch.randn(size, size).to(dtype)
        peak[name] = 2 * size**3 / best(lambda a=a: a @ a, repeats)
    source = torch.zeros(16 * size * size)
    target = torch.zeros_like(source)
    return peak, 2 * source.numel() * 4 / best(lambda: target.copy_(source), repeats)


def steps(tiny, threads):
    """Name -> one step of a hot path, ready to run."""
    (model, size, batches, crop) = (adversarial_step.TINY if tiny else adversarial_step.CASES)[
        "ResNet-8 16x16" if tiny else "ResNet-18 32x32"
    ]
    bert, adversarial = (robust_search_step.TINY if tiny else robust_search_step.CASES)[
        "tiny" if tiny else "MiniLM size"
    ]
    for precision in ("float32", "bf16"):
        common = {"device": "cpu", "threads": threads, "precision": precision}
        step = adversarial_step.Winnow(model, size, batches[0], crop, **common)
        yield f"PGD-10 training step, batch {batches[0]}, {precision}", step.run
        images, width = (16, 4) if tiny else (gem_search_epoch.BATCH, 16)
        search = gem_search_epoch.Winnow(images, images, width, **common)
        yield f"gem search step, ResNet-20, batch {images}, {precision}", search.run
        batch, length = (4, 8) if tiny else (16, 64)
        robust = robust_search_step.Winnow(bert, adversarial, batch, length, **common)
        yield (
            f"robust search step, {'tiny' if tiny else 'MiniLM'} size, {batch}x{length} tokens, {precision}",
            robust.run,
        )


def main(argv=None):
    args = arguments(__doc__, argv)
    run = Run("floor", args)
    torch.set_num_threads(args.threads)
    peak, bandwidth = limits(64 if args.tiny else 2048, args.repeats)
    for name, value in peak.items():
        run.add(measured("machine", f"matrix product, {name}", value / 1e9, "GFLOP/s"))
    run.add(measured("machine", "copy, read and written", bandwidth / 1e9, "GB/s"))
    for name, step in steps(args.tiny, args.threads):
        step()
        with Roofline(peak, bandwidth) as roofline:
            step()
        times = []
        for _ in range(args.repeats):
            begun = time.perf_counter()
            step()
            times.append(time.perf_counter() - begun)
        seconds = statistics.median(times)
        largest = sorted(roofline.by_kind, key=roofline.by_kind.__getitem__, reverse=True)[:3]
        run.add(
            measured(
                name,
                "measured, times its floor",
                seconds / roofline.seconds,
                "x",
                seconds=seconds,
                floor_seconds=roofline.seconds,
                gflop=roofline.flops / 1e9,
                gigabytes=roofline.bytes / 1e9,
                largest={k: round(roofline.by_kind[k] / roofline.seconds, 3) for k in largest},
            )
        )
    run.write()


if __name__ == "__main__":
    main()
