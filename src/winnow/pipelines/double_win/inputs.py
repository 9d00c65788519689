"""What the double-win rules read: functions of the configured section and a job's wildcards."""

from __future__ import annotations

import re
import shlex
from typing import Any

from winnow.pipelines import named
from winnow.pipelines.double_win.config import DoubleWin
from winnow.pipelines.double_win.grid import CHAIN

MOVED = ("dataset", "percent", "mode", "run_seed")  # wildcards that the configuration of a transfer follows


def imported_names(section: DoubleWin) -> str:
    """A regular expression of the pre-trainings that are brought in rather than trained (one that matches nothing:
    none).
    """
    return "|".join(re.escape(p.name) for p in section.pretrainings if p.method == "import") or "(?!)"


def weights_file(section: DoubleWin, wildcards: Any) -> str | list[str]:
    """The local file of an imported pre-training; none for torchvision and hub weights."""
    file = named(section.pretrainings, wildcards.pretraining).weights.file
    return file.replace("{seed}", wildcards.seed) if file else []


def extra_file(section: DoubleWin, wildcards: Any) -> str:
    """The file of a ticket from outside the grid."""
    return named(section.transfer.tickets, wildcards.name).file.replace("{seed}", wildcards.seed)


def pruned(section: DoubleWin, wildcards: Any) -> dict[str, str | list[str]]:
    """What a ticket is made from. imp: the weights that the last round trained under its mask, or the dense ones in
    round 1; random per layer: the IMP ticket of its round; any other: the dense weights."""
    chain = CHAIN.format(**wildcards)
    kind, _, rest = wildcards.ticket.partition("-")
    found: dict[str, str | list[str]] = {"weights": f"{chain}/dense.safetensors", "mask": [], "like": []}
    if kind == "random" and section.transfer.random == "per_layer":
        return {"weights": [], "mask": [], "like": f"{chain}/tickets/imp-{rest}.mask.safetensors"}
    regime, _, number = rest.partition("-")
    if kind == "imp" and int(number) > 1:
        last = f"imp-{regime}-{int(number) - 1}"
        return found | {
            "weights": f"{chain}/trained/{last}.safetensors",
            "mask": f"{chain}/tickets/{last}.mask.safetensors",
        }
    return found


def imp_start(section: DoubleWin, wildcards: Any) -> str:
    """The weights that an IMP round trains from."""
    chain, last = CHAIN.format(**wildcards), int(wildcards.round) - 1
    if section.imp.rewind == "renda" and last:
        return f"{chain}/trained/imp-{wildcards.regime}-{last}.safetensors"
    return f"{chain}/dense.safetensors"


def transferred(wildcards: Any) -> dict[str, str | list[str]]:
    """Dense weights and, unless the dense model itself is transferred, a ticket."""
    chain = CHAIN.format(**wildcards)
    mask: str | list[str] = (
        [] if wildcards.ticket == "dense" else f"{chain}/tickets/{wildcards.ticket}.mask.safetensors"
    )
    return {"init": f"{chain}/dense.safetensors", "mask": mask}


def best_ra_option(wildcards: Any, output: Any) -> str:
    """The argument of the stage transfer for an adversarial transfer's second checkpoint."""
    return f"--best-ra {shlex.quote(output.best_ra)}" if wildcards.mode == "adv" else ""


def best_ra(wildcards: Any) -> str | list[str]:
    """The best-RA checkpoint beside a best-SA one; adversarial transfers alone have it."""
    if wildcards.mode == "std":
        return []
    folder = "{dataset}/{percent}/{ticket}/adv/s{run_seed}".format(**wildcards)
    return f"{CHAIN.format(**wildcards)}/transfer/{folder}/best_ra.safetensors"
