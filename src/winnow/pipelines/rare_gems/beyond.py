"""Speed of the tickets of this pipeline, and how they and the networks trained under them relate (pipelines/beyond).

results/rare_gems/<experiment>/<branch>/s<seed>/speed/<target>.{csv,json,svg}
                                               /reordered/<target>.safetensors   trained on another order
results/rare_gems/<experiment>/<branch>/relations/<target>-{seeds,order}.{json,svg}
"""

from __future__ import annotations

from typing import Any

from winnow.config.jobs import CompareTickets, RelationOptions, Speed, SpeedOptions, TrainWeights
from winnow.config.parts import Corpus
from winnow.pipelines import beyond
from winnow.pipelines.rare_gems import grid
from winnow.pipelines.rare_gems.config import ImpBranch, RareGems

SPEED = f"{grid.FOLDER}/speed/{{target}}"
RELATIONS = f"{grid.ROOT}/{{experiment}}/{{branch}}/relations/{{target}}-{{pair}}"
SPEED_WILDCARDS = ("experiment",)
RELATIONS_WILDCARDS = ("experiment",)
OTHER_ORDER = 1000  # added to the seed of the first order


def rows(section: RareGems, kind: str) -> list[beyond.Row]:
    """Speed: each image ticket of the first seed; relations: each pair of each ticket, and of dense networks."""
    options: Any = getattr(section, kind)
    cells = [c for c in grid.grid_of(section).cells() if c.seed == section.seeds[0] and c.algo != "rigl"]  # no one mask
    found = []
    for cell in (c for c in cells if beyond.chosen(options, c.branch)):
        names = {"experiment": cell.experiment, "branch": cell.branch, "target": f"{cell.target:g}"}
        if kind == "relations":
            data = grid.find(section, cell.experiment, cell.branch)[0].data
            for pair in options.pairs:
                drawn = cell.algo != "imp" and not isinstance(data, Corpus)  # a corpus is read in its own order
                if drawn if pair == "order" else len(section.seeds) > 1:
                    file = RELATIONS.format(**names, pair=pair) + ".json"
                    found.append(beyond.Row(names={**names, "pair": pair}, file=file))
        elif cell.algo != "wt" and beyond.side(grid.find(section, cell.experiment, cell.branch)[0].data) is not None:
            found.append(beyond.Row(names=names, file=SPEED.format(**names, seed=cell.seed) + ".json"))
    return found


def speed(section: RareGems, experiment: str) -> Speed:
    """The measurement of a ticket's network."""
    data = next(e.data for e in section.experiments if e.name == experiment)
    assert section.speed is not None
    return Speed(image_size=beyond.side(data), **beyond.options_of(SpeedOptions, section.speed))


def relations(section: RareGems, experiment: str) -> CompareTickets:
    """The comparison of two tickets, or of two dense networks."""
    data = next(e.data for e in section.experiments if e.name == experiment)
    assert section.relations is not None
    keys = beyond.options_of(RelationOptions, section.relations)
    if isinstance(data, Corpus):
        keys["batch_size"] = min(keys["batch_size"], 20)
    compute = section.compute.having(compile=False)
    return CompareTickets(data=data, compute=compute, seed=section.seeds[0], **keys)


def reordered(section: RareGems, experiment: str, branch: str, seed: str) -> TrainWeights:
    """The same training on another order of the data."""
    build = grid.imp_train if grid.find(section, experiment, branch)[1].algo == "wt" else grid.finetune
    keys = (seed,) if build is grid.finetune else ("1", seed)
    return build(section, experiment, branch, *keys).having(seed=int(seed) + OTHER_ORDER, measure=False)


def trained(section: RareGems, wildcards: Any, seed: object) -> tuple[str, str | list[str]]:
    """Weights trained under a ticket, and the ticket (none: dense)."""
    branch = grid.find(section, wildcards.experiment, wildcards.branch)[1]
    folder = f"{grid.ROOT}/{wildcards.experiment}/{wildcards.branch}/s{seed}"
    if branch.algo == "wt":
        return f"{folder}/imp/round0.safetensors", []
    if isinstance(branch, ImpBranch):
        made = grid.nearest_round(branch.imp.schedule(), float(wildcards.target))
        return f"{folder}/imp/round{made}.safetensors", f"{folder}/imp/round{made}.mask.safetensors"
    mask = grid.ticket_path(section, wildcards.experiment, wildcards.branch, seed, wildcards.target)
    return f"{folder}/tuned/{wildcards.target}.safetensors", mask


def measured(section: RareGems, wildcards: Any) -> dict[str, Any]:
    """What a measurement of speed reads."""
    weights, mask = trained(section, wildcards, wildcards.seed)
    return {"weights": weights, "mask": mask}


def again(section: RareGems, wildcards: Any) -> dict[str, Any]:
    """What a training on another order reads."""
    init = grid.init_path(section, wildcards.experiment, wildcards.branch, wildcards.seed)
    return {"init": init, "mask": trained(section, wildcards, wildcards.seed)[1]}


def compared(section: RareGems, wildcards: Any) -> dict[str, Any]:
    """What a comparison reads; the weights at initialisation where both networks started from them."""
    first = section.seeds[0]
    weights, mask = trained(section, wildcards, first)
    if wildcards.pair == "seeds":
        other, other_mask = trained(section, wildcards, section.seeds[1])
        return {"weights": weights, "mask": mask, "other": other, "other_mask": other_mask, "init": []}
    folder = f"{grid.ROOT}/{wildcards.experiment}/{wildcards.branch}/s{first}"
    init = grid.init_path(section, wildcards.experiment, wildcards.branch, first)
    other = f"{folder}/reordered/{wildcards.target}.safetensors"
    return {"weights": weights, "mask": mask, "other": other, "other_mask": mask, "init": init}
