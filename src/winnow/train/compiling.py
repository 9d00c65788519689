"""torch.compile where it pays: in the stages that train for long. Scores, searches and evaluations run as they are.

A frame is compiled anew for training and evaluation mode, with and without gradients, and for a smaller last batch:
more often than torch's limit of 8, beyond which it would silently run uncompiled.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from winnow.config.parts import Compute

log = logging.getLogger("winnow")
LIMIT = 64  # recompilations of one frame


def compile_if_asked(model: nn.Module, compute: Compute) -> None:
    """Compile `model` in place when the configuration says so; the names of its state dict stay."""
    if compute.compile:
        torch._dynamo.config.recompile_limit = LIMIT
        torch._dynamo.config.fail_on_recompile_limit_hit = True  # an error, and not slow without a word
        model.compile()


def eager(model: nn.Module) -> AbstractContextManager[object]:
    """Within: a compiled model runs as it is, for passes that each would be compiled anew."""
    return torch.compiler.set_stance("force_eager") if is_compiled(model) else nullcontext()


def is_compiled(model: nn.Module) -> bool:
    """Whether the model was compiled in place."""
    return model._compiled_call_impl is not None


def report(model: nn.Module) -> None:
    """Log how often a compiled model's code was compiled so far."""
    if is_compiled(model):
        first, again, seconds = counts()
        log.info("torch.compile: %d frames, %d recompilations, %.0f s", first, again, seconds)


def counts() -> tuple[int, int, float]:
    """Frames compiled in this process, how many more times in all, and the seconds that took."""
    from torch._dynamo.utils import get_compilation_metrics

    made = [m for m in get_compilation_metrics() if m.co_name and m.is_forward is not False]
    frames = {m.frame_key for m in made}
    return len(frames), len(made) - len(frames), sum(m.entire_frame_compile_time_s or 0.0 for m in made)
