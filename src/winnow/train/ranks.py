"""Several processes that train one model: who takes which examples, what is summed, and the random numbers they share.

Without a process group (one process) everything here is the identity. Gradients are averaged by hand after the backward
pass, not by DistributedDataParallel: its hooks assume one forward and one backward pass through its wrapper, while
attacks, FreeLB and score searches differentiate the model several times a step, with respect to other things.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor, nn

from winnow.errors import WinnowError
from winnow.rng import seed_of

_BUCKET = 1 << 24  # numbers that are copied into one message; bounds the memory that averaging takes


class PeerLostError(RuntimeError):
    """Another process of the group ended; it tells why."""


def size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process, counted from 0, which alone writes."""
    return dist.get_rank() if size() > 1 else 0


_launcher = os.getppid()


def join(device: torch.device) -> None:
    """Enter the group that torchrun's environment describes: NCCL between GPUs, gloo on the CPU (and for small
    messages).
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")


def leave() -> None:
    """Close the group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def share(count: int) -> slice:
    """This process's contiguous part of `count` examples of a global batch; parts differ by one example at most.

    A last batch with less than two examples a process (no batch statistics) is worked on whole by every process.
    """
    if count < 2 * size():
        return slice(0, count)
    return slice(count * rank() // size(), count * (rank() + 1) // size())


def weight(count: int) -> float:
    """What this process's mean over its `share` of `count` examples counts in the mean over all."""
    part = share(count)
    return 1.0 / size() if count < 2 * size() else (part.stop - part.start) / count


def turns(done: int = 0) -> slice:
    """Every size()-th item, starting with this process's, or so many turns later: how evaluation is split."""
    return slice(rank() + done * size(), None, size())


@dataclass
class _Step:
    """The examples that all processes are working on, this one's place among them and what its mean over them counts.

    The generators give the same stream in every process.
    """

    seed: int
    examples: int
    mine: slice
    weight: float
    generators: dict[torch.device, torch.Generator] = field(default_factory=dict)


def pieces(count: int, at_most: int | None) -> int:
    """How many micro-batches of `at_most` examples a process makes of its part of `count`: as many in every process.

    No micro-batch holds a single example, which has no batch statistics: where `at_most` is 2 or 3 one may hold up to
    two more.
    """
    parts = _parts(count)
    return max(1, min(-(-max(parts) // at_most), min(parts) // 2)) if at_most else 1


def _parts(count: int) -> list[int]:
    """Examples of `count` that each process works on."""
    if count < 2 * size():
        return [count] * size()
    bounds = [count * r // size() for r in range(size() + 1)]
    return [b - a for a, b in itertools.pairwise(bounds)]


def piece(length: int, number: int, of: int) -> slice:
    """Micro-batch `number` of `of` in a part of `length` examples."""
    return slice(length * number // of, length * (number + 1) // of)


@contextmanager
def micro_batch(count: int, number: int, of: int) -> Iterator[slice]:
    """Within a step on `count` examples: micro-batch `number` of `of`, as a slice of this process's part."""
    global _step
    whole, parts = _step, _parts(count)
    mine = piece(parts[rank()], number, of)
    if whole is not None and of > 1:
        lengths = [p.stop - p.start for p in (piece(part, number, of) for part in parts)]
        own, before = lengths[rank()], sum(lengths[: rank()])
        shared = count >= 2 * size()
        _step = _Step(
            whole.seed, sum(lengths) if shared else own, slice(before, before + own) if shared else slice(0, own),
            own / sum(lengths), whole.generators,
        )  # fmt: skip
    try:
        yield mine
    finally:
        _step = whole


_step: _Step | None = None


@contextmanager
def step(seed: int, number: int, examples: int) -> Iterator[None]:
    """Within: optimisation step `number` on a global batch of `examples`; seeds every generator.

    Draws that one process makes for the whole batch or for the model (`generator`, `noise`) are the same whatever the
    number of processes. What torch draws by itself for a part of the batch (dropout) differs from process to process.
    """
    global _step
    common = seed_of(seed, "step", number)
    torch.manual_seed(common if size() == 1 else seed_of(seed, "step", number, "rank", rank()))
    _step = _Step(common, examples, share(examples), weight(examples)) if size() > 1 else None
    try:
        yield
    finally:
        _step = None


def training_together() -> bool:
    """True within a step of several processes."""
    return _step is not None


def examples() -> int:
    """Examples of the global batch, or micro-batch, that several processes are working on."""
    assert _step is not None
    return _step.examples


def weighted_sum(value: Tensor) -> Tensor:
    """Within a step of several processes: the mean over the global batch of each one's mean over its part."""
    assert _step is not None
    return _all_reduce(value * _step.weight)


def generator(device: torch.device) -> torch.Generator | None:
    """What to draw from for the model as a whole; None (torch's default generator) with one process."""
    if _step is None:
        return None
    if device not in _step.generators:
        _step.generators[device] = torch.Generator(device).manual_seed(_step.seed)
    return _step.generators[device]


def noise(like: Tensor, draw: Callable[[Tensor, torch.Generator | None], Tensor]) -> Tensor:
    """Noise shaped like `like`, this process's part of the batch: drawn for the global batch and cut, so parts fit
    together.

    `draw(empty, generator)` fills a tensor of any length in its first dimension.
    """
    if _step is None:
        return draw(torch.empty_like(like), None)
    last = like.dim() == 4 and like.is_contiguous(memory_format=torch.channels_last) and not like.is_contiguous()
    whole = torch.empty(
        (_step.examples, *like.shape[1:]), dtype=like.dtype, device=like.device,
        memory_format=torch.channels_last if last else torch.contiguous_format,
    )  # fmt: skip
    return draw(whole, generator(like.device))[_step.mine]


def _all_reduce(tensor: Tensor, op: dist.ReduceOp.RedOpType = dist.ReduceOp.SUM) -> Tensor:
    try:
        dist.all_reduce(tensor, op)
    except RuntimeError as error:
        raise PeerLostError(str(error)) from None
    return tensor


def average(tensors: Sequence[Tensor], examples: int) -> None:
    """In place: the mean over the global batch of `examples` of what each process holds as the mean over its part."""
    for bucket in _buckets(tensors):
        flat = _all_reduce(torch.cat([t.detach().reshape(-1) for t in bucket]).mul_(weight(examples)))
        for tensor, mean in zip(bucket, flat.split([t.numel() for t in bucket]), strict=True):
            tensor.detach().copy_(mean.view(tensor.shape))


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and sum(t.numel() for t in bucket) + tensor.numel() > _BUCKET:
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


def statistics(model: nn.Module) -> list[Tensor]:
    """Running statistics of the batch normalisations that are in training."""
    layers = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    return [t for m in layers for t in (m.running_mean, m.running_var) if t is not None]


def any_of(flag: bool) -> bool:
    """True when any process says so, or when the process that started them is gone."""
    if size() == 1:
        return flag
    return bool(_all_reduce(torch.tensor(int(flag or os.getppid() != _launcher)), dist.ReduceOp.MAX))


def total(count: int) -> int:
    """Sum of `count` over the processes."""
    return int(_all_reduce(torch.tensor(count))) if size() > 1 else count


def check_agreement(tensors: Sequence[Tensor], position: int) -> None:
    """RuntimeError unless `position` and the sums of `tensors` are the same in every process: they must train one
    model.
    """
    if size() == 1:
        return
    sums = torch.stack([t.detach().double().sum() for t in tensors]).cpu()
    own = torch.cat([sums, torch.tensor([float(position)], dtype=torch.float64)])
    low, high = _all_reduce(own.clone(), dist.ReduceOp.MIN), _all_reduce(own, dist.ReduceOp.MAX)
    if not torch.equal(low, high):
        raise RuntimeError(f"the {size()} processes hold different models at step {position}")


def check_batches(sizes: Sequence[int]) -> None:
    """WinnowError when the batches are too small to be shared out."""
    if size() > 1 and max(sizes) < 2 * size():
        raise WinnowError(
            f"--processes: a batch of {max(sizes)} examples cannot be shared by {size()} processes (two each at "
            f"least); "
            "raise batch_size or take fewer processes (gpu)"
        )


@contextmanager
def rank_0_first() -> Iterator[None]:
    """Within: process 0 goes through the block, then the others (it downloads, they find the files)."""
    if rank() > 0:
        any_of(False)
    yield
    if size() > 1 and rank() == 0:
        any_of(False)
