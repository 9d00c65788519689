"""Runs stages on the pretended device in one process: [[stage, argument, ...], ...] as JSON on stdin, what was counted
on stdout.

For each stage {"code": exit code, "operations": n, "waits": [[what, line, how often], ...]}.
"""

from __future__ import annotations

import importlib
import json
import sys
from functools import cache

import device  # beside this file
import torch


@cache
def save_from_the_host() -> None:
    """transformers asks weights for the address of their memory, which pretended ones have not: it gets copies of the
    CPU.
    """
    from winnow.text.compat import transformers

    cls = transformers().PreTrainedModel
    save = cls.save_pretrained
    cls.save_pretrained = lambda self, folder: save(
        self, folder, state_dict={k: v.cpu() for k, v in self.state_dict().items()}
    )


def run(name: str, arguments: list[str]) -> dict[str, object]:
    """One stage."""
    stage = importlib.import_module(f"winnow.stages.{name}").stage
    if "text" in name:
        save_from_the_host()
    with device.counting() as ledger:
        code = stage.run([*arguments, "--device", device.NAME])
    waits = [[what, line, count] for (what, line), count in ledger.waits.most_common()]
    return {"code": code, "operations": ledger.operations, "waits": waits}


if __name__ == "__main__":
    torch.set_num_threads(1)
    device.register()
    print(json.dumps([run(name, arguments) for name, *arguments in json.load(sys.stdin)]))
