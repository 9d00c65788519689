"""Other people's names and shapes onto a model's: wrappers, older names, 1x1 convolutions for linear layers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

# what beside a model's own tensors stands in its file, and is no part of the function
_BESIDE = re.compile(
    r"(^|\.)attacker\."  # the robustness library's second copy of the model
    r"|(^|\.)total_(ops|params)$"  # counters of a FLOPs profiler
    r"|\.(flag|bias_flag|scores|bias_scores)$"  # Gem-Miner
    r"|mask_scores$|_mask$"  # robust tickets, torch.nn.utils.prune
)
_NORMALISATION = re.compile(r"(^|\.)(normali[sz]\w*|norm_?layer|0)\.(new_)?_?(mean|std)$|^(mean|std|mu|sigma)$")
_RENAMED = (
    (re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\."), r"\1\2."),  # torchvision's DenseNets before 0.2
    (re.compile(r"(?<=\.)shortcut\."), "downsample."),  # the released cResNet18 and others by that author's pattern
    (re.compile(r"_orig$"), ""),  # torch.nn.utils.prune
)


def stands_beside(name: str) -> bool:
    """Whether a tensor of this name is a mask, a score or a counter beside a model's own tensors."""
    return bool(_BESIDE.search(name))


@dataclass(frozen=True)
class Fitted:
    """`tensors` under the model's names and in its shapes as far as they are its, `left_out`: names of what is no part
    of it.

    `normalisation`: mean and std that the file's network applies to its input, where it holds them.
    """

    tensors: dict[str, Tensor]
    left_out: list[str]
    normalisation: dict[str, Tensor]


def fit(state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], extra: tuple[str, ...] = ()) -> Fitted:
    """Name and shape `state` as a model with parameters and buffers of `shapes` has it; what fits nowhere keeps its
    name.

    The wrapper (module., model., 1., ...) is the prefix under which most names of the model are found. `extra`:
    prefixes of parts that the file has and the model leaves out on purpose (auxiliary classifiers).
    """
    prefix = _wrapper(state, shapes)
    tensors, left_out, normalisation = {}, [], {}
    for name, value in state.items():
        inner = name.removeprefix(prefix)
        ours = _renamed(inner, shapes)
        if name.startswith(prefix) and ours in shapes:
            tensors[ours] = shaped(value, shapes[ours])
        elif _NORMALISATION.search(name) and value.numel() <= 4:
            normalisation["std" if name.endswith(("std", "sigma")) else "mean"] = value.reshape(-1)
            left_out.append(name)
        elif _BESIDE.search(name) or inner.startswith(extra or ("\0",)):
            left_out.append(name)
        else:
            tensors[inner] = value
    return Fitted(tensors, sorted(left_out), normalisation)


def fit_names(names: Iterable[str], known: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """Each of `names` with the name of `known` that it stands for (its own, less the wrapper, where it stands for
    none).
    """
    names = list(names)
    prefix = _wrapper(names, known)
    return {n: _renamed(n.removeprefix(prefix), known) for n in names}


def _renamed(name: str, known: Mapping[str, tuple[int, ...]]) -> str:
    if name in known:
        return name
    for pattern, replacement in _RENAMED:
        name = pattern.sub(replacement, name)
        if name in known:
            break
    return name


def _wrapper(names: Iterable[str], known: Mapping[str, tuple[int, ...]]) -> str:
    """The prefix that hides most of the `known` names; the shortest of several, "" when none does."""
    found: Counter[str] = Counter()
    for name in names:
        parts = name.split(".")
        for i in range(len(parts)):
            if _renamed(".".join(parts[i:]), known) in known:
                found["".join(f"{p}." for p in parts[:i])] += 1
    return min(found, key=lambda p: (-found[p], len(p)), default="")


def shaped(value: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A 1x1 convolution's weight for a linear layer and the reverse; anything else as it is."""
    squeezed = (*value.shape, 1, 1) == tuple(shape) or tuple(value.shape) == (*shape, 1, 1)
    return value.reshape(shape) if squeezed and len(shape) in (2, 4) else value
