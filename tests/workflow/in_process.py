"""Run planned jobs in one process, one after the other: commands as JSON on stdin, [[stage module, argument, ...],
...].

Importing torch and transformers anew takes a job two seconds, and its work on a tiny network a tenth of one.
"""

from __future__ import annotations

import json
import runpy
import sys
import time


def run(module: str, arguments: list[str]) -> int:
    """`python -m module arguments`, as if in a process of its own; returns the exit code."""
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


if __name__ == "__main__":
    for module, *arguments in json.load(sys.stdin):
        begun = time.monotonic()
        code = run(module, arguments)
        print(f"{time.monotonic() - begun:6.2f} s  {module} {' '.join(arguments[2:])}"[:200])
        if code:
            sys.exit(f"{module}: exit code {code} of {arguments}")
