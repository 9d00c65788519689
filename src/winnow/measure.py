"""Accuracy of one set of weights, clean or under attack: what `winnow evaluate` and `winnow attack` do.

An image model is a weights artifact of winnow, a text model a folder (or its model.safetensors). The task is the one
that the weights were trained for, as their record tells, or that of --data.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from winnow import outside
from winnow.artifacts import read_json
from winnow.config.parts import Attack, Compute, Data
from winnow.config.text import TextAttack, TextData
from winnow.errors import WinnowError
from winnow.progress import figures, speaking
from winnow.run import Run
from winnow.schema import parse
from winnow.weights import model_folder, record_of


def evaluate(argv: Sequence[str] | None = None) -> int:
    """The command `winnow evaluate`; returns its exit code."""
    args = _parser("evaluate", "Accuracy on the test split.").parse_args(argv)
    return _measured(args, None)


def attack(argv: Sequence[str] | None = None) -> int:
    """The command `winnow attack`; returns its exit code."""
    p = _parser(
        "attack", "Accuracy on the test split, clean and under attack: PGD for images, a TextAttack recipe for texts."
    )
    image = p.add_argument_group("images (pixels lie in [0,1])")
    image.add_argument("--eps", default="8/255", help="radius (8/255)")
    image.add_argument("--step-size", default="2/255", help="step (2/255)")
    image.add_argument("--steps", type=int, default=20, help="steps (20)")
    image.add_argument("--restarts", type=int, default=1, help="starts, all of which must be withstood (1)")
    image.add_argument("--norm", choices=["linf", "l2"], default="linf", help="norm of the perturbation (linf)")
    text = p.add_argument_group("texts")
    text.add_argument(
        "--recipe", default="textfooler", help="textfooler, textbugger, bertattack, bae, pwws, deepwordbug (textfooler)"
    )
    text.add_argument("--candidates", default="embedded", help="where replacement words come from (embedded)")
    text.add_argument(
        "--asset", action="append", default=[], metavar="ROLE=PATH", help="a file that the recipe needs; may repeat"
    )
    args = p.parse_args(argv)
    keys = ("eps", "step_size", "steps", "restarts", "norm")
    return _measured(args, {k: getattr(args, k) for k in keys})


def _parser(name: str, summary: str) -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog=f"winnow {name}", description=summary, epilog=(__doc__ or "").partition("\n\n")[2])
    p.add_argument("weights", type=Path, help="a weights artifact, or a model folder")
    p.add_argument(
        "--data", metavar="JSON", help="another task, as in the configuration's `data`; @FILE reads it from a file"
    )
    p.add_argument(
        "--images",
        "--examples",
        dest="count",
        type=int,
        metavar="N",
        help="only so many of the test split (stratified)",
    )
    p.add_argument("--batch-size", type=int, default=256, help="images at once (256)")
    p.add_argument("--seed", type=int, default=0, help="of the attack's starts, or edits (0)")
    p.add_argument("--data-root", type=Path, default=Path("data"), help="folder with the datasets (data)")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (auto)")
    p.add_argument("--workers", type=int, default=0, help="processes that load images, or attack texts (0)")
    return p


def _measured(args: argparse.Namespace, attack: dict[str, Any] | None) -> int:
    import logging

    from winnow.launch import start_log

    start_log("info")
    if not args.weights.exists():
        raise WinnowError(f"{args.weights}: no such file; give a weights artifact, or a model folder")
    run = Run(args.device, workers=args.workers, data_root=args.data_root)
    texts = (model_folder(args.weights) / "config.json").is_file()
    with speaking(run, logging.getLogger("winnow")):
        found = _texts(args, attack is not None, run) if texts else _images(args, attack, run)
    print(f"{args.weights}: {figures(found)}")
    return 0


def _task(args: argparse.Namespace, kind: Any) -> Any:
    """The task of --data, or the one in the record of the weights."""
    if args.data is None:
        recorded = record_of(args.weights).get("config", {}).get("data")
        if recorded is None:
            raise WinnowError(f"{args.weights}: its record names no task; give one with --data")
        return parse(kind, recorded, "data")
    try:
        value = read_json(args.data[1:]) if args.data.startswith("@") else outside.parse_json(args.data)
    except ValueError as error:
        raise WinnowError(f"--data: not JSON ({error}); pass an object in quotes, or @FILE") from None
    return parse(kind, value, "--data")


def _images(args: argparse.Namespace, attack: dict[str, Any] | None, run: Run) -> dict[str, Any]:
    from winnow.train.device import start
    from winnow.vision import evaluate as ev
    from winnow.vision import models, sources
    from winnow.vision.batches import Loader
    from winnow.vision.training import place

    data, compute = _task(args, Data), Compute()
    chosen = None if attack is None else parse(Attack, attack, "--")
    device = start(compute, run.device, args.seed)
    test = sources.load(data, run.data_root).test
    if args.count is not None:
        test = sources.subset(test, args.count, data.split_seed)
    loader = Loader(test, data, args.batch_size, device, args.seed, run.workers)
    model = place(models.load_pretrained(args.weights)[0], compute, device)
    with ev.tallies(run) as tally:
        found = {"images": len(test), "sa_percent": ev.accuracy(model, loader, compute, tally=tally("sa"))}
        if chosen is not None:
            found["ra_percent"] = ev.robust_accuracy(model, loader, chosen, compute, args.seed, tally("ra"))
    return found


def _texts(args: argparse.Namespace, attacked: bool, run: Run) -> dict[str, Any]:
    from winnow.text.attacks.summary import summarise
    from winnow.text.batches import encode
    from winnow.text.data import load_text, stratified
    from winnow.text.evaluate import accuracy
    from winnow.text.models import check_classes, load_classifier, token_types

    data: TextData = _task(args, TextData)
    compute, device = Compute(), run.device
    if not attacked:
        model, tokenizer = load_classifier(args.weights)
        check_classes(model, data.classes, str(args.weights))
        test = load_text(data, run.data_root, False, ("test",))["test"]
        encoded = encode(tokenizer, test, data.max_length, token_types(model))
        return {"examples": len(test), "accuracy_percent": accuracy(model.to(device), encoded, compute, device)}
    from winnow.text.attacks.run import attack_all
    from winnow.text.attacks.setup import Setup

    attacker = parse(TextAttack, {"recipe": args.recipe, "candidates": args.candidates}, "--")
    pairs = [word.partition("=") for word in args.asset]
    if bad := next((role for role, equals, _ in pairs if not equals), None):
        raise WinnowError(f"--asset: {bad!r} is not ROLE=PATH, for example neighbours=words.json")
    assets: dict[str, Path | None] = {role: Path(path) for role, _, path in pairs}
    setup = Setup(args.weights, data, attacker, compute, assets, device, run.data_root)
    _, test = setup.victim()
    chosen = list(range(len(test)))
    if args.count is not None and args.count < len(test):
        chosen = stratified(test.labels, args.count / len(test), data.split_seed, "attacked").tolist()
    with tempfile.TemporaryDirectory(prefix="winnow-") as folder:
        own = Run(device, checkpoints=Path(folder) / "rows", workers=args.workers, data_root=run.data_root)
        return summarise(attack_all(setup.attack, chosen, args.seed, own))
