"""What the rare-gems rules read: functions of the configured section and a job's wildcards."""

from __future__ import annotations

from typing import Any

from winnow.pipelines.rare_gems.config import ImpBranch, RareGems
from winnow.pipelines.rare_gems.grid import (
    FOLDER,
    INVERTED,
    find,
    init_path,
    inverted_path,
    nearest_round,
    search_target,
    ticket_path,
)
from winnow.pipelines.rare_gems.grid import init_source as spelled_source


def init(section: RareGems, wildcards: Any) -> str:
    """The initial weights of a branch."""
    return init_path(section, wildcards.experiment, wildcards.branch, wildcards.seed)


def ticketed(section: RareGems, wildcards: Any) -> dict[str, Any]:
    """The weights that a target's ticket is trained from, and the ticket."""
    names = (wildcards.experiment, wildcards.branch, wildcards.seed)
    mask, branch = ticket_path(section, *names, wildcards.target), find(section, *names[:2])[1]
    if isinstance(branch, ImpBranch):
        number = nearest_round(branch.imp.schedule(), float(wildcards.target))
        return {"init": imp_start(section, wildcards, "imp", number), "mask": mask}
    return {"init": init(section, wildcards), "mask": mask}


def checked(section: RareGems, wildcards: Any) -> dict[str, Any]:
    """The same, and the inverted search or IMP where there is one."""
    inverted = inverted_path(section, wildcards.experiment, wildcards.branch, wildcards.seed, wildcards.target)
    return {**ticketed(section, wildcards), "inverted": inverted or []}


def order(section: RareGems, wildcards: Any) -> str:
    """The prune order that a target is drawn from."""
    experiment, branch = find(section, wildcards.experiment, wildcards.branch)
    name = search_target(experiment, branch, wildcards.target)
    return f"{FOLDER}/search/{name}.order.safetensors".format(**wildcards)


def pruned(section: RareGems, wildcards: Any) -> dict[str, Any]:
    """What a ticket is cut from: the initial weights; for round k of an IMP chain what round k-1 trained, under its
    ticket (k > 1).
    """
    if wildcards.method not in ("imp", INVERTED):
        return {"weights": init(section, wildcards), "mask": [], "like": []}
    last = int(wildcards.target.removeprefix("round")) - 1
    folder = f"{FOLDER}/{wildcards.method if last else 'imp'}".format(**wildcards)  # round 0 is of both chains
    mask = f"{folder}/round{last}.mask.safetensors" if last else []
    return {"weights": f"{folder}/round{last}.safetensors", "mask": mask, "like": []}


def init_source(section: RareGems, wildcards: Any) -> str | list[str]:
    """The weights that initial weights are made from; none for drawn ones."""
    return spelled_source(section, wildcards.experiment, wildcards.init, wildcards.seed) or []


def imported_file(section: RareGems, wildcards: Any) -> str | list[str]:
    """The local file of weights from outside; none for torchvision and hub weights."""
    source = find(section, wildcards.experiment, wildcards.branch)[1].imported
    assert source is not None
    return source.file or []


def imp_start(section: RareGems, wildcards: Any, chain: str, number: int) -> str:
    """The weights that round `number` of an IMP chain trains from."""
    folder = FOLDER.format(**wildcards)
    branch = find(section, wildcards.experiment, wildcards.branch)[1]
    assert isinstance(branch, ImpBranch)
    if branch.imp.rewind == "renda":
        return f"{folder}/{chain if number > 1 else 'imp'}/round{number - 1}.safetensors"
    return f"{folder}/imp/round0-rewind.safetensors" if branch.imp.rewind == "warm" else init(section, wildcards)
