"""The whole configuration: what every run shares, and one section a pipeline."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from winnow.config.double_win import DoubleWin
from winnow.config.rare_gems import RareGems
from winnow.config.robust_bert import RobustBert
from winnow.errors import WinnowError
from winnow.schema import key, parse, part


@part
class Root:
    """config/config.yaml, or what `--configfile` lays over it."""

    data_root: str = key("folder with the datasets", "data")
    download: bool = key("allow downloads of datasets and models", False)
    device: str = key("auto, cpu, cuda or cuda:N", "auto")
    gpus: int = key("GPUs of a training job on a cluster, all of one node; changes no result", 1, ge=1)
    gpu_model: str | None = key("kind of GPU to ask a cluster for, as it spells them (a100); null: any", None)
    workers: int = key("data loading processes for data that is read from files", 2, ge=0)
    scratch: str = key("folder for checkpoints; on a cluster, one that all nodes see", ".winnow/scratch")
    store: str | None = key("folder of finished artifacts that several working folders share; null: none", None)
    checkpoint_seconds: float = key("time between checkpoints, in seconds", 60.0, gt=0)
    log_level: Literal["debug", "info", "warning", "error"] = key("what the logs hold", "info")
    double_win: DoubleWin | None = key("the double-win pipeline", None)
    robust_bert: RobustBert | None = key("the robust-ticket pipeline", None)
    rare_gems: RareGems | None = key("the rare-gems pipeline", None)


SECTIONS: dict[str, type] = {"double_win": DoubleWin, "robust_bert": RobustBert, "rare_gems": RareGems}


def lay_over(default: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """`given` over `default`. A section that is complete in itself replaces the default's: nothing leaks into a paper's grid.

    Any other mapping is merged key by key; lists and scalars are replaced.
    """
    complete = [name for name in SECTIONS if name in given and _is_complete(name, given[name])]
    return _merge({k: v for k, v in default.items() if k not in complete}, given)


def _is_complete(name: str, section: Any) -> bool:
    try:
        parse(SECTIONS[name], section)
    except WinnowError:
        return False
    return True


def _merge(default: Any, given: Any) -> Any:
    if isinstance(default, dict) and isinstance(given, dict):
        return default | {k: _merge(default.get(k), v) for k, v in given.items()}
    return given


def load(config: dict[str, Any]) -> Root:
    """The checked configuration; raises WinnowError naming the key."""
    root = parse(Root, config, "config")
    if root.rare_gems is None or not root.rare_gems.from_files:
        return root
    from winnow.config.gem_vocabulary import with_published

    return replace(root, rare_gems=with_published(root.rare_gems))


def run_arguments(root: Root) -> str:
    """The arguments that every stage gets and that do not change its result."""
    import shlex

    values = {
        "--device": root.device,
        "--workers": root.workers,
        "--data-root": root.data_root,
        "--scratch": root.scratch,
        "--checkpoint-seconds": f"{root.checkpoint_seconds:g}",
        "--log-level": root.log_level,
    }
    if root.store is not None:
        values["--store"] = root.store
    return " ".join([f"{k} {shlex.quote(str(v))}" for k, v in values.items()] + (["--download"] if root.download else []))
