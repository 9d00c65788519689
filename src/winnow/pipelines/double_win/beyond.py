"""Speed of the tickets of this pipeline, and how the networks transferred from two seeds relate (pipelines/beyond).

    results/double_win/<source>/<pretraining>/s<seed>/speed/<ticket>.{csv,json,svg}
    results/double_win/<source>/<pretraining>/relations/<dataset>/<percent>/<ticket>-<mode>.{json,svg}

Speed does not depend on the values of the weights: it is that of the pre-trained network under the ticket. With a
`source_seed` two seeds share ticket and weights, and their relation is the stability to the order of the data.
"""

from __future__ import annotations

from typing import Any

from winnow.config.jobs import CompareTickets, RelationOptions, Speed, SpeedOptions
from winnow.pipelines import beyond, named
from winnow.pipelines.double_win import grid
from winnow.pipelines.double_win.config import DoubleWin

SPEED = f"{grid.CHAIN}/speed/{{ticket}}"
RELATIONS = f"{grid.ROOT}/{{source}}/{{pretraining}}/relations/{{dataset}}/{{percent}}/{{ticket}}-{{mode}}"
SPEED_WILDCARDS = ()
RELATIONS_WILDCARDS = ("dataset",)


def rows(section: DoubleWin, kind: str) -> list[beyond.Row]:
    """Speed: each ticket of the first seed; relations: each ticket and the dense network, by task and mode."""
    options: Any = getattr(section, kind)
    found: dict[str, beyond.Row] = {}
    for run in grid.grid_of(section).runs():
        wanted = run.run_seed == section.seeds[0] and beyond.chosen(options, run.ticket, run.method)
        names = {"source": run.source, "pretraining": run.pretraining, "ticket": run.ticket}
        if wanted and kind == "speed" and run.mask is not None:
            file = SPEED.format(**names, seed=run.seed) + ".json"
            found[file] = beyond.Row(names=names, file=file)
        elif wanted and kind == "relations" and len(section.seeds) > 1 and "seeds" in options.pairs:
            names |= {"dataset": run.dataset, "percent": run.percent, "mode": run.mode}
            file = RELATIONS.format(**names) + ".json"
            found[file] = beyond.Row(names={**names, "pair": "seeds"}, file=file)
    return list(found.values())


def speed(section: DoubleWin) -> Speed:
    """The measurement of a ticket's network."""
    assert section.speed is not None
    size = beyond.side(section.source.data)
    return Speed(image_size=size, **beyond.options_of(SpeedOptions, section.speed))


def relations(section: DoubleWin, dataset: str) -> CompareTickets:
    """The comparison of two transferred networks on their task."""
    assert section.relations is not None
    keys = beyond.options_of(RelationOptions, section.relations)
    compute = section.compute.having(compile=False)
    return CompareTickets(data=named(section.downstreams, dataset).data, compute=compute, seed=section.seeds[0], **keys)


def measured(section: DoubleWin, wildcards: Any) -> dict[str, Any]:
    """What a measurement of speed reads."""
    chain = grid.CHAIN.format(**wildcards)
    return {"weights": f"{chain}/dense.safetensors", "mask": f"{chain}/tickets/{wildcards.ticket}.mask.safetensors"}


def compared(section: DoubleWin, wildcards: Any) -> dict[str, Any]:
    """What a comparison reads: the transferred networks of the first two seeds and their tickets."""
    found: dict[str, Any] = {"init": []}
    wanted = (wildcards.pretraining, wildcards.dataset, wildcards.percent, wildcards.ticket, wildcards.mode)
    for run in grid.grid_of(section).runs():
        if (run.pretraining, run.dataset, run.percent, run.ticket, run.mode) == wanted:
            at = section.seeds.index(run.run_seed)
            if at < 2:
                prefix = "other" if at else "weights"
                found[prefix] = f"{run.folder}/best_sa.safetensors"
                found["other_mask" if at else "mask"] = run.mask or []
    return found
