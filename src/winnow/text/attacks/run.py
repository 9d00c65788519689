"""Running an attack over examples: one row each, kept on disk as soon as it is known, over one or several processes."""

from __future__ import annotations

import collections
import json
import logging
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from winnow import outside
from winnow.errors import WinnowError
from winnow.guard import beat
from winnow.progress import rate
from winnow.rng import seed_of
from winnow.run import Run, Stopped
from winnow.text.data import Examples

log = logging.getLogger("winnow")


def attack_one(attack: Any, examples: Examples, index: int, seed: int) -> dict[str, Any]:
    """The row of one example: `index` in the test split in use, `row` in its data set, both from 0. All random
    edits are seeded by (seed, index), so rows do not depend on order or restarts.
    """
    state = seed_of(seed, "attack", index)
    random.seed(state)
    np.random.seed(state % 2**32)
    torch.manual_seed(state)
    text: Any = examples.texts[index]
    if examples.pairs is not None:
        text = collections.OrderedDict(zip(examples.columns, (text, examples.pairs[index]), strict=True))
    attack.clear_cache()
    result = attack.attack(text, int(examples.labels[index]))
    before, after = result.original_result, result.perturbed_result
    kind = type(result).__name__.removesuffix("AttackResult").lower()
    changed = 0 if kind == "skipped" else len(after.attacked_text.attack_attrs["modified_indices"])
    return {
        "index": index,
        "row": int(examples.rows[index]),
        "status": {"successful": "succeeded"}.get(kind, kind),
        "label": int(examples.labels[index]),
        "original_prediction": int(before.output),
        "perturbed_prediction": int(after.output),
        "original": _text(before.attacked_text),
        "perturbed": _text(after.attacked_text),
        "queries": int(result.num_queries),
        "words": int(before.attacked_text.num_words),
        "words_changed": changed,
    }


def _text(attacked: Any) -> str | list[str]:
    parts = list(attacked._text_input.values())
    return parts[0] if len(parts) == 1 else parts


def rows_so_far(folder: Path) -> dict[int, dict[str, Any]]:
    """Complete rows of the parts below `folder` by example number; a line torn by a kill is passed over."""
    rows = {}
    for part in sorted(folder.glob("part-*.jsonl")):
        if part.is_symlink():
            continue
        for line in outside.read_bytes(part).split(b"\n")[:-1]:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict) and isinstance(row.get("index"), int):
                rows[row["index"]] = row
    return rows


def attack_all(
    make: Callable[[int], tuple[Any, Examples]], chosen: Sequence[int], seed: int, run: Run | None = None
) -> list[dict[str, Any]]:
    """Rows of the `chosen` examples in that order. `make(worker)` builds the attack and its examples, in each of
    `run.workers` processes anew (a function that can be pickled, such as `Setup.attack`).

    Rows that an earlier, killed run finished are taken over. Raises Stopped when the run is asked to stop, WinnowError
    from any process.
    """
    run = run or Run()
    kept = run.claim_checkpoints()
    with nullcontext(kept) if kept else tempfile.TemporaryDirectory(prefix="winnow-") as name:
        folder = Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        done = rows_so_far(folder)
        left = [i for i in chosen if i not in done]
        if done:
            log.info("%d of %d examples were done before", len(done), len(chosen))
        processes = max(1, min(run.workers, len(left)))
        with run.doing("attack", len(chosen), "example", len(chosen) - len(left)) as position:
            position.count = lambda: len(rows_so_far(folder))
            if processes == 1:
                _work(folder, left, seed, make, 0, run)
            elif left:
                _in_parallel(folder, left, seed, make, processes, run)
        rows = rows_so_far(folder)
    return [rows[i] for i in chosen]


def _work(
    folder: Path, indices: list[int], seed: int, make: Callable[[int], tuple[Any, Examples]], worker: int, run: Run
) -> None:
    if not indices:
        return
    attack, examples = make(worker)
    begun = time.monotonic()
    # a new file, whatever lies there
    handle, _ = tempfile.mkstemp(dir=folder, prefix=f"part-{worker}-", suffix=".jsonl")
    with os.fdopen(handle, "w", encoding="utf-8") as part:
        bar = tqdm(indices, desc="attack", unit="example", leave=False, disable=not run.shows_progress or worker > 0)
        for n, index in enumerate(bar, 1):
            part.write(json.dumps(attack_one(attack, examples, index, seed), sort_keys=True) + "\n")
            part.flush()
            os.fsync(part.fileno())
            beat()
            if n % 50 == 0:
                log.info("%d of %d examples (%s)", n, len(indices), rate(n, time.monotonic() - begun, "example"))
            if run.stop_requested:
                raise Stopped


def _child(
    folder: Path, indices: list[int], seed: int, make: Callable[[int], tuple[Any, Examples]], worker: int
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C reaches the process that started this one, which ends it
    try:
        _work(folder, indices, seed, make, worker, Run())
    except WinnowError as error:
        (folder / f"error-{worker}.txt").write_text(str(error))
        sys.exit(2)


def _in_parallel(
    folder: Path, left: list[int], seed: int, make: Callable[[int], tuple[Any, Examples]], processes: int, run: Run
) -> None:
    context = multiprocessing.get_context("spawn")
    shares = [left[i::processes] for i in range(processes)]
    children = [context.Process(target=_child, args=(folder, share, seed, make, i)) for i, share in enumerate(shares)]
    for child in children:
        child.start()
    finished, written = False, 0
    try:
        while any(c.is_alive() for c in children):
            before, written = written, sum(part.stat().st_size for part in folder.glob("part-*.jsonl"))
            if written > before:
                beat()
            if run.stop_requested:
                raise Stopped
            if any(c.exitcode not in (None, 0) for c in children):
                break
            time.sleep(0.05)
        finished = all(c.exitcode == 0 for c in children)
    finally:
        for child in children:
            if not finished:  # stopped from outside, or one child failed: what the others have done so far is on disk
                child.terminate()
            child.join()
    for message in sorted(folder.glob("error-*.txt")):
        text = message.read_text()
        message.unlink()
        raise WinnowError(text)
    failed = next((c for c in children if c.exitcode), None)
    if failed is not None:
        raise WinnowError(
            f"an attack process ended with code {failed.exitcode}; run again, it goes on from the rows so far"
        )
