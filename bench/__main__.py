"""All benches one after the other, then one table: `python -m bench [--device cuda] [--threads 1]`, or `make bench`."""

from __future__ import annotations

import importlib
import sys
import time

from bench import report

ON_GPU = ("adversarial_step", "pgd_evaluation", "gem_search_epoch", "robust_search_step", "text_attack")


def main() -> None:
    begun, argv = time.time(), sys.argv[1:]
    for name in ON_GPU if "cuda" in argv else (*report.ORDER, "floor"):
        print(f"[{time.time() - begun:.0f} s] {name}", flush=True)
        importlib.import_module(f"bench.{name}").main(argv)
    report.main()
    print(f"{time.time() - begun:.0f} s in all")


if __name__ == "__main__":
    main()
