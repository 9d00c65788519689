"""Write a ticket as a folder to share: mask, masked weights in the framework's own format, a card, a statement; or
fetch one.

The weights load without winnow: a text model by `from_pretrained`, an image model of torchvision's by its state dict
`model.pth`. `winnow verify FOLDER` checks such a folder.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from winnow.errors import WinnowError
from winnow.share import statement
from winnow.share.folder import export
from winnow.share.hub import pull, push


def main(argv: Sequence[str] | None = None) -> int:
    """The command `winnow export`; returns its exit code."""
    summary, _, details = (__doc__ or "").partition("\n\n")
    p = argparse.ArgumentParser(prog="winnow export", description=summary, epilog=details)
    p.add_argument("ticket", type=Path, nargs="?", help="a *.mask.safetensors")
    p.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="the folder to write, new or empty")
    p.add_argument(
        "--weights", type=Path, help="weights under the ticket (the ones below --results that were trained under it)"
    )
    p.add_argument(
        "--results", type=Path, default=Path("results"), help="where weights and metrics are looked for (results)"
    )
    p.add_argument("--key", type=Path, help="sign with this private key (elliptic curve, PEM), by model_signing")
    p.add_argument("--data-licence", metavar="TEXT", help="licence of the data, for the card")
    p.add_argument("--push", metavar="OWNER/NAME", help="upload to the Hugging Face hub afterwards")
    p.add_argument("--pull", metavar="OWNER/NAME", help="fetch from the hub into --to, and check it, instead")
    p.add_argument("--public-key", type=Path, help="with --pull: the key that must have signed it")
    args = p.parse_args(argv)
    if (args.ticket is None) == (args.pull is None):
        raise WinnowError("give a ticket to export, or --pull OWNER/NAME")
    if args.pull:
        print(f"{args.to}: {pull(args.pull, args.to, args.public_key)} files, as stated")
        return 0
    names = export(args.ticket, args.to, args.weights, args.results, args.key, args.data_licence)
    print(f"{args.to}: {', '.join(names)}")
    if args.push:
        push(args.to, args.push)
        print(f"pushed to {args.push}")
    return 0


def verify(argv: Sequence[str]) -> int:
    """`winnow verify FOLDER` of a shared folder; returns the exit code."""
    p = argparse.ArgumentParser(prog="winnow verify", description="Check a shared folder against its statement.")
    p.add_argument("folder", type=Path)
    p.add_argument("--public-key", type=Path, help="the key that must have signed it")
    args = p.parse_args(argv)
    count = statement.check(args.folder, args.public_key)
    signed = f", signed by the holder of {args.public_key}" if args.public_key else ""
    print(f"{args.folder}: {count} files, as stated{signed}")
    return 0
