"""The card of a shared ticket, from its record alone: what it is, how it was made, how to load it, what was
measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from winnow.progress import figures
from winnow.schema import canonical_json
from winnow.share.licences import LICENCES, UNKNOWN
from winnow.ticket import Ticket


def card(
    ticket: Ticket,
    weights: Mapping[str, Any],
    measured: Sequence[tuple[str, Any, Mapping[str, Any]]],
    command: str,
    licence: str | None,
) -> str:
    """Markdown. `weights`: the record of the weights; `measured`: (stage, seed, metrics) of what measured them."""
    about, texts = ticket.metadata, weights.get("kind") == "text_model"
    library = "transformers" if texts else "pytorch"
    lines = [
        "---", f"library_name: {library}", "tags: [winnow, lottery-ticket, pruning, sparse]", "---", "",
        f"# {_model(weights)}: {ticket.remaining_percent:.2f} % of the weights", "",
        f"A lottery ticket: of {ticket.total:,} prunable weights in {len(ticket.arrays)} layers {ticket.kept:,} "
        f"remain; the others are "
        f"zero. Found by `{about.get('method', 'unknown')}`, seed {_seed(about)}; the weights are of seed "
        f"{_seed(weights)}.", "",
        "## Load", "", "```python", *(_load_text() if texts else _load_image(weights["model"])), "```", "",
        "Plain training gives removed weights values again. `ticket.mask.safetensors` holds the mask (one bit a "
        "weight); "
        "`winnow.Ticket.load` reads it.", "",
        "## Measured", "", *(_measured(measured) or ["Nothing was recorded for these weights."]), "",
        "## Made", "",
        f"- ticket: stage `{about.get('stage', 'none')}` with `{canonical_json(about.get('config', {}))}`",
        f"- weights: stage `{weights.get('stage', 'none')}` with `{canonical_json(weights.get('config', {}))}`",
        *([f"- command: `{command}`"] if command else []),
        f"- code: {about.get('source', 'unknown')} (ticket), {weights.get('source', 'unknown')} (weights); "
        + ", ".join(f"{k} {v}" for k, v in weights.get("versions", {}).items()),
        *(f"- made from {role} `{p['path']}`, sha256 `{p['sha256']}`" for role,
         p in {**about.get("parents", {})}.items()),
        "", "## Data", "", *_data(weights, licence), "",
        "## Check", "", "```sh",
        "winnow verify FOLDER                        # every file against statement.intoto.json",
        "winnow verify FOLDER --public-key key.pub   # and the signature, where there is a model.sig", "```", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _seed(about: Mapping[str, Any]) -> Any:
    seed = about.get("config", {}).get("seed")
    return "not recorded" if seed is None else seed


def _model(weights: Mapping[str, Any]) -> str:
    return str(weights["model"]["arch"]) if "model" in weights else "text classifier"


def _load_text() -> list[str]:
    return [
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer",
        'model = AutoModelForSequenceClassification.from_pretrained("FOLDER")',
        'tokenizer = AutoTokenizer.from_pretrained("FOLDER")',
    ]


def _load_image(model: Mapping[str, Any]) -> list[str]:
    mean, std = list(model["mean"]), list(model["std"])
    lines = [f"model.load_state_dict(torch.load('FOLDER/model.pth'))  # images in [0,1], then (x - {mean}) / {std}"]
    if known_to_torchvision(str(model["arch"])):
        return [
            "import torch, torchvision",
            f"model = torchvision.models.{model['arch']}(num_classes={model['num_classes']})",
            *lines,
        ]
    return [
        "import json, torch",
        "from winnow.vision.models import from_spec  # this architecture is winnow's; it normalises its input itself",
        "model = from_spec(json.load(open('FOLDER/model.json')))",
        lines[0].partition("  #")[0],
    ]


def known_to_torchvision(arch: str) -> bool:
    """Whether torchvision builds this architecture by its name."""
    from winnow.compat import torchvision

    return arch in torchvision().models.list_models(module=torchvision().models)


def _measured(measured: Sequence[tuple[str, Any, Mapping[str, Any]]]) -> list[str]:
    rows = [
        f"| {stage} | {'' if seed is None else seed} | {figures(metrics)} |"
        for stage, seed, metrics in measured
        if figures(metrics)
    ]
    return ["| stage | seed | figures |", "|---|---|---|", *rows] if rows else []


def _data(weights: Mapping[str, Any], licence: str | None) -> list[str]:
    data = weights.get("config", {}).get("data")
    if not isinstance(data, dict):
        return ["No data are recorded for these weights."]
    name = str(data.get("dataset", "unknown"))
    where = next((f" ({data[k]})" for k in ("path", "train_path", "subset") if data.get(k)), "")
    return [f"Trained on `{name}`{where}. Licence of the data: {licence or LICENCES.get(name, UNKNOWN)}."]


def metrics_of(records: Sequence[tuple[Path, Mapping[str, Any]]]) -> list[tuple[str, Any, Mapping[str, Any]]]:
    """(stage, seed, what was measured) of metrics files."""
    found: list[tuple[str, Any, Mapping[str, Any]]] = []
    for _, document in records:
        about = document["provenance"]
        left = {k: v for k, v in document.items() if k not in ("provenance", "outputs", "run", "seal", "epochs")}
        found.append((about.get("stage", "none"), about.get("config", {}).get("seed"), left))
    return found
