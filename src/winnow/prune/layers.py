"""Which weights of a model are pruned: kinds of layers, name patterns; and how much of the model that is."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod
from typing import TYPE_CHECKING, Literal

from winnow.errors import WinnowError

if TYPE_CHECKING:
    from torch import nn

Kind = Literal["conv", "linear"]
FEW_PERCENT = 20.0
_ATTENTION = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


@dataclass(frozen=True, kw_only=True)
class Layers:
    """A choice of layers: of these kinds, with a name that matches one of `include` and none of `exclude`.

    The patterns are a shell's (* ? []) over parameter names, e.g. `layer4.*` or `*.attention.*.weight`. The head is the
    last layer of the model.
    """

    kinds: Collection[Kind] = ("conv", "linear")
    include: Collection[str] = ("*",)
    exclude: Collection[str] = ()
    head: bool = False

    def names(self, model: nn.Module) -> list[str]:
        """Names of the chosen weights of `model`, in its order. Raises WinnowError when there are none."""
        found = dict(_layers(model))
        own = {name for name, _ in model.named_parameters()}
        for path, _, leaf in (n.rpartition(".") for n in found):
            if own & {f"{path}.{leaf}_orig".lstrip("."), f"{path}.parametrizations.{leaf}.original".lstrip(".")}:
                raise WinnowError(f"layers: {path}.{leaf} is parametrized; remove its parametrization or mask first")
        head = list(found)[-1] if found and not self.head else None
        typed = [name for name, kind in found.items() if kind in self.kinds and name != head and name in own]
        return self.matching(typed)

    def matching(self, names: Collection[str]) -> list[str]:
        """Those of `names` that the patterns choose. Raises WinnowError when there are none."""
        chosen = [n for n in names if _any(n, self.include) and not _any(n, self.exclude)]
        if not chosen:
            raise WinnowError(
                f"layers: kinds {list(self.kinds)}, include {list(self.include)} and exclude {list(self.exclude)} "
                f"choose none of {len(names)} weights ({', '.join(list(names)[:4])}, ...)"
            )
        return chosen


def covered_percent(names: Collection[str], shapes: Mapping[str, tuple[int, ...]]) -> float:
    """Percentage of all parameters (`shapes`: name -> shape) that the named ones hold, 0..100."""
    return 100.0 * sum(prod(shapes[n]) for n in names) / sum(prod(s) for s in shapes.values())


def coverage_warning(names: Collection[str], shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """One line when the named weights hold under 20 % of all parameters, else None."""
    percent = covered_percent(names, shapes)
    if percent >= FEW_PERCENT:
        return None
    return (
        f"layers: the {len(names)} weights to prune hold only {percent:.2g} % of all parameters, so even the emptiest "
        f"ticket leaves {100 - percent:.3g} % of the model; choose more kinds of layers (conv, linear) or wider "
        f"patterns"
    )


def transposed(module: nn.Module) -> bool:
    """Whether a linear layer holds its weight as (in, out): Hugging Face's Conv1D, of GPT-2 and its kin."""
    return (type(module).__module__, type(module).__name__) == ("transformers.pytorch_utils", "Conv1D")


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer, torch's or the transposed one."""
    from torch import nn

    return isinstance(module, nn.Linear) or transposed(module)


def _layers(model: nn.Module) -> Iterator[tuple[str, Kind]]:
    """Every weight of a convolution or linear layer, those of torch's attention included, and its kind."""
    from torch import nn

    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        if isinstance(module, nn.modules.conv._ConvNd):
            yield f"{prefix}weight", "conv"
        elif is_linear(module):
            yield f"{prefix}weight", "linear"
        elif isinstance(module, nn.MultiheadAttention):
            for name in _ATTENTION:
                if getattr(module, name) is not None:
                    yield prefix + name, "linear"


def _any(name: str, patterns: Collection[str]) -> bool:
    return any(fnmatchcase(name, p) for p in patterns)
