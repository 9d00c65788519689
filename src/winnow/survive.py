"""Does a ticket survive what is harder than its own test split? `winnow survive TICKET`.

In the spirit of SMC-Bench (Liu et al., ICLR 2023): the ticket and the dense network it was cut from are trained anew, on
all of the data and on a tenth, standard and adversarially, and both are measured clean, corrupted, under PGD and under
AutoAttack. It is the double-win pipeline on one ticket: the configuration is written beside the results, and what is
done already is not done again.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from winnow import outside, records
from winnow.artifacts import read_metadata, write_bytes
from winnow.errors import WinnowError

FILE, TABLE = "survive.yaml", "results/tables/double_win.csv"
SHOWN = {  # column of the table -> heading
    "method": "network", "fraction": "data", "seeds": "seeds", "std_sa_mean": "clean, std", "std_corruption_sa_mean":
    "corrupted, std", "adv_sa_mean": "clean, adv", "adv_corruption_sa_mean": "corrupted, adv", "adv_ra_mean": "PGD, adv",
    "adv_aa_mean": "AutoAttack, adv",
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """The command `winnow survive`; returns its exit code."""
    args = _arguments(argv)
    if not args.ticket.is_file():
        raise WinnowError(f"{args.ticket}: no such file; give a ticket (*.mask.safetensors)")
    weights = args.weights or _weights_of(args.ticket)
    about = read_metadata(weights)
    if about.get("model") is None:
        raise WinnowError(f"{weights}: not weights of an image model that winnow wrote; give them with --weights")
    section = _section(args, weights, about)
    args.to.mkdir(parents=True, exist_ok=True)
    document = {"data_root": str(args.data_root.absolute()), "device": args.device, "double_win": section}
    write_bytes(args.to / FILE, (json.dumps(document, indent=1) + "\n").encode())  # JSON is YAML
    from winnow.cli import run

    code = run(
        [str(args.to / FILE), TABLE, "--directory", str(args.to), "--cores", args.cores, "--quiet", "rules", "host"]
    )
    if code == 0:
        print(_table(args.to / TABLE))
    return code


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    summary, _, details = (__doc__ or "").partition("\n\n")
    p = argparse.ArgumentParser(prog="winnow survive", description=summary, epilog=details)
    p.add_argument("ticket", type=Path, help="a ticket of an image network")
    p.add_argument("--weights", type=Path, help="the weights it masks (those that its record names)")
    p.add_argument("--data", metavar="JSON", help="the task, as in the configuration's `data` (that of the weights)")
    p.add_argument("--corruptions", metavar="FOLDER", help="CIFAR-10-C below data_root; without, that column is empty")
    p.add_argument("--fractions", type=float, nargs="+", default=[1.0, 0.1], help="parts of the training data (1 0.1)")
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="seeds (0 1)")
    p.add_argument("--epochs", type=int, default=20, help="of each training (20)")
    p.add_argument("--batch-size", type=int, default=128, help="of each training (128)")
    p.add_argument("--lr", type=float, default=0.05, help="its peak rate, cosine (0.05)")
    p.add_argument("--eps", default="8/255", help="radius of the attacks, linf, pixels in [0,1] (8/255)")
    p.add_argument("--images", type=int, default=200, help="test images under AutoAttack (200)")
    p.add_argument("--to", type=Path, default=Path("survive"), help="folder for all of it (survive)")
    p.add_argument("--data-root", type=Path, default=Path("data"), help="folder with the datasets (data)")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (auto)")
    p.add_argument("--cores", default="all", help="cores (all)")
    return p.parse_args(argv)


def _weights_of(ticket: Path) -> Path:
    """The nearest weights that the ticket's record leads to."""
    for node in records.tree(ticket):
        if node.record is not None and node.record.about.get("kind") == "weights":
            return node.file
    raise WinnowError(f"{ticket}: its record leads to no weights that are still there; name them with --weights")


def _section(args: argparse.Namespace, weights: Path, about: dict[str, Any]) -> dict[str, Any]:
    from winnow.config.parts import Attack, Data
    from winnow.schema import parse

    try:
        data = outside.parse_json(args.data) if args.data else about.get("config", {}).get("data")
    except ValueError as error:
        raise WinnowError(f"--data: not JSON ({error}); pass an object in quotes") from None
    if data is None:
        raise WinnowError(f"{weights}: its record names no task; give one with --data")
    parse(Data, data, "data")
    model = {k: v for k, v in about["model"].items() if k != "num_classes"}
    train = {
        "epochs": args.epochs,
        "batch_size": args.batch_size,
        "lr": args.lr,
        "weight_decay": 5e-4,
        "schedule": "cosine",
    }
    eps = parse(Attack, {"eps": args.eps, "step_size": args.eps, "steps": 1}, "--").eps
    attacks = ["apgd-ce", "apgd-t"] if about["model"]["num_classes"] > 3 else ["apgd-ce"]
    evaluation = {
        "attack": {"eps": eps, "step_size": eps / 4, "steps": 20}, "corruptions": args.corruptions,
        "autoattack": {"eps": eps, "attacks": attacks, "images": args.images},
    }  # fmt: skip
    return {
        "seeds": args.seeds,
        "compute": {"threads": 1},
        "source": {"name": "own", "data": data, "model": model},
        "pretrainings": [{
            "name": "given", "method": "import", "weights": {"file": str(weights.absolute())},
            "num_classes": about["model"]["num_classes"],
        }],
        "imp": {"rounds": 0, "train": train},
        "transfer": {
            "methods": ["dense"], "rounds": [],
            "tickets": [{"name": "ticket", "pretraining": "given", "file": str(args.ticket.absolute())}],
        },
        "downstreams": [{
            "name": "own", "data": data, "fractions": args.fractions, "std": train, "adv": train,
            "attack": {"eps": eps, "step_size": eps / 4, "steps": 7}, "evaluation": evaluation,
        }],
    }  # fmt: skip


def _table(file: Path) -> str:
    """The ticket beside dense, in columns."""
    with file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    rows.sort(key=lambda r: (-float(r["fraction"]), r["method"] != "dense"))
    used = [c for c in SHOWN if any(r.get(c) for r in rows)]
    cells = [[SHOWN[c] for c in used], *[[_cell(c, r[c]) for c in used] for r in rows]]
    widths = [max(len(line[i]) for line in cells) for i in range(len(used))]
    return "\n".join("  ".join(w.rjust(n) for w, n in zip(line, widths, strict=True)) for line in cells)


def _cell(column: str, value: str) -> str:
    return f"{float(value):.1f}" if column.endswith("_mean") and value else value
