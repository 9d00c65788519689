"""What the robust-ticket rules read: functions of the configured section and a job's wildcards."""

from __future__ import annotations

import shlex
from typing import Any

from winnow.pipelines.robust_bert.config import RobustBert
from winnow.pipelines.robust_bert.grid import FETCHED, SEED, TASK, attack_of
from winnow.text.assets import needed_roles
from winnow.weights import pretrained_files, pretrained_folder


def model_inputs(section: RobustBert, data_root: str) -> list[str]:
    """Files of a pre-trained model that lies in a folder; none for tiny and hub models."""
    folder = pretrained_folder(section.model.path, data_root) if section.model.path else None
    return [str(file) for file in pretrained_files(folder)] if folder else []


def pruned(section: RobustBert, wildcards: Any) -> dict[str, str | list[str]]:
    """What a ticket is made from: the fine-tuned dense model; for random the pre-trained one; for a later IMP round
    what the last round trained, and its ticket."""
    seed, step = SEED.format(**wildcards), section.imp_step_percent
    found: dict[str, str | list[str]] = {"weights": f"{seed}/dense/model.safetensors", "mask": [], "like": []}
    if wildcards.kind == "random":
        return found | {"weights": f"{TASK.format(**wildcards)}/pretrained/model.safetensors"}
    last = float(wildcards.percent) - step
    if wildcards.kind == "imp" and last > 1e-9:
        name = f"imp-{last:g}"
        return found | {
            "weights": f"{seed}/{name}/model.safetensors",
            "mask": f"{seed}/tickets/{name}.mask.safetensors",
        }
    return found


def tuned(wildcards: Any) -> dict[str, str | list[str]]:
    """The pre-trained model and, unless the dense network itself is trained, a ticket."""
    mask: str | list[str] = f"{SEED}/tickets/{wildcards.network}.mask.safetensors".format(**wildcards)
    return {
        "model": f"{TASK.format(**wildcards)}/pretrained/model.safetensors",
        "mask": [] if wildcards.network in ("dense", "freelb") else mask,
    }


def kept_option(wildcards: Any, output: Any) -> str:
    """The argument of finetune_text for the networks of earlier epochs."""
    kept = output.get("kept", [])
    return f"--kept {' '.join(map(shlex.quote, kept))}" if kept else ""


def given_assets(section: RobustBert, wildcards: Any) -> dict[str, str]:
    """Role -> path of the files that the attacker needs and the configuration names."""
    roles = needed_roles(attack_of(section, wildcards.attacker))
    return {role: path for role in roles if (path := getattr(section.assets, role))}


def asset_inputs(section: RobustBert, wildcards: Any) -> dict[str, str]:
    """The same as inputs; what lies in the folder that fetch_attack_assets fills stands for that rule's manifest."""
    given = given_assets(section, wildcards)
    own = {role: path for role, path in given.items() if not path.startswith(f"{FETCHED}/")}
    return own if len(own) == len(given) else {**own, "fetched": f"{FETCHED}/manifest.json"}


def asset_arguments(section: RobustBert, wildcards: Any) -> str:
    """The same as arguments of attack_text, quoted."""
    given = given_assets(section, wildcards)
    return " ".join(f"--{role.replace('_', '-')} {shlex.quote(path)}" for role, path in given.items())
