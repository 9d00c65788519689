"""All benches one after the other, then one table: `python -m bench [--device cuda] [--threads 1]`, or `make bench`."""

from __future__ import annotations

import importlib
import sys
import time
import traceback

from bench import report

ON_GPU = ("adversarial_step", "pgd_evaluation", "gem_search_epoch", "robust_search_step", "mask_memory", "text_attack")


def main() -> int:
    """Exit code 1 when a bench failed (paths that disagree, for one); the others are measured all the same."""
    failed, begun, argv = list[str](), time.time(), sys.argv[1:]
    for name in ON_GPU if "cuda" in argv else (*report.ORDER, "floor"):
        print(f"[{time.time() - begun:.0f} s] {name}", flush=True)
        try:
            importlib.import_module(f"bench.{name}").main(argv)
        except Exception:
            traceback.print_exc()
            failed.append(name)
    report.main()
    print(f"{time.time() - begun:.0f} s in all" + (f"; FAILED: {', '.join(failed)}" if failed else ""))
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
