"""What the rare-gems rules read: functions of the configured section and a job's wildcards."""

from __future__ import annotations

from typing import Any

from winnow.config.rare_gems import RareGems
from winnow.grid.rare_gems import find, init_path, inverted_path, search_target, ticket_path

FOLDER = "results/rare_gems/{experiment}/{branch}/s{seed}"


def init(section: RareGems, wildcards: Any) -> str:
    """The initial weights of a branch."""
    return init_path(section, wildcards.experiment, wildcards.branch, wildcards.seed)


def ticketed(section: RareGems, wildcards: Any) -> dict[str, Any]:
    """Initial weights and ticket of one target."""
    mask = ticket_path(section, wildcards.experiment, wildcards.branch, wildcards.seed, wildcards.target)
    return {"init": init(section, wildcards), "mask": mask}


def checked(section: RareGems, wildcards: Any) -> dict[str, Any]:
    """The same, and the inverted search where there is one."""
    inverted = inverted_path(section, wildcards.experiment, wildcards.branch, wildcards.seed, wildcards.target)
    return {**ticketed(section, wildcards), "inverted": inverted or []}


def order(section: RareGems, wildcards: Any) -> str:
    """The prune order that a target is drawn from."""
    experiment, branch = find(section, wildcards.experiment, wildcards.branch)
    name = search_target(experiment, branch, wildcards.target)
    return f"{FOLDER}/search/{name}.order.safetensors".format(**wildcards)


def last_round(section: RareGems, wildcards: Any) -> dict[str, Any]:
    """What IMP round k starts from: what round k-1 trained, its ticket (k > 1) and the weights to go back to."""
    folder, last = f"{FOLDER}/imp".format(**wildcards), int(wildcards.round) - 1
    imp = find(section, wildcards.experiment, wildcards.branch)[1].imp
    assert imp is not None
    back = {"warm": f"{folder}/round0-rewind.safetensors", "cold": init(section, wildcards), "renda": []}[imp.rewind]
    mask = f"{folder}/round{last}.mask.safetensors" if last else []
    return {"trained": f"{folder}/round{last}.safetensors", "mask": mask, "rewind": back}
