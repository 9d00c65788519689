"""Which jobs of a cluster run share a SLURM job: those of one ticket, as many as fit into a request.

A site grants a few submissions a minute, and a job of seconds costs a scheduler as much as one of hours. Members of a pack wait for
nothing but one ticket, so none waits for another's inputs; they run one after the other on what one of them asks for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

from winnow.config.root import Root
from winnow.pipelines.double_win import grid as dw
from winnow.pipelines.rare_gems import grid as rg
from winnow.pipelines.robust_bert import grid as rb

Job = tuple[str, tuple[tuple[str, str], ...]]  # rule, sorted wildcards


def job(rule: str, **wildcards: object) -> Job:
    """A job by its rule and wildcards."""
    return rule, tuple(sorted((name, str(value)) for name, value in wildcards.items()))


def rules(root: Root) -> list[str]:
    """The rules of which there may be members."""
    of = {
        "double_win": ["transfer_std", "transfer_adv", "evaluate", "autoattack"],
        "rare_gems": ["gem_finetune"],
        "robust_bert": ["finetune_text", "attack_text"],
    }
    return [rule for name in root.sections() for rule in of[name]]


def members(root: Root) -> Iterator[tuple[str, list[Job]]]:
    """The ticket, and the jobs that run for it one after the other: a transfer and its evaluation, a fine-tuning, a network's
    training and its attacks.
    """
    if root.double_win is not None:
        yield from _double_win(dw.grid_of(root.double_win))
    if root.rare_gems is not None:
        for cell in rg.grid_of(root.rare_gems).cells():
            if cell.algo not in ("imp", "wt"):
                tuned = job(
                    "gem_finetune", experiment=cell.experiment, branch=cell.branch, seed=cell.seed, target=f"{cell.target:g}"
                )
                yield f"gem_{cell.experiment}_{cell.branch}_{cell.seed}", [tuned]
    if root.robust_bert is not None:
        yield from _robust_bert(rb.grid_of(root.robust_bert))


def _double_win(grid: dw.Grid) -> Iterator[tuple[str, list[Job]]]:
    for run in grid.runs():
        names = {
            "source": run.source, "pretraining": run.pretraining, "seed": run.seed, "dataset": run.dataset, "percent": run.percent,
            "ticket": run.ticket, "mode": run.mode, "run_seed": run.run_seed,
        }  # fmt: skip
        measured = ["evaluate", "autoattack"] if grid.autoattacked(run) else ["evaluate"]
        jobs = [job(rule, **names) for rule in (f"transfer_{run.mode}", *measured)]
        yield f"pair_{run.source}_{run.pretraining}_{run.seed}_{run.ticket}", jobs


def _robust_bert(grid: rb.Grid) -> Iterator[tuple[str, list[Job]]]:
    networks: dict[tuple[str, str, int, str], list[str]] = defaultdict(list)
    for run in grid.runs():
        networks[run.model, run.task, run.seed, run.network].append(run.attacker)
    for (model, task, seed, network), attackers in networks.items():
        names = {"model": model, "task": task, "seed": seed, "network": network}
        jobs = [job("finetune_text", **names), *(job("attack_text", attacker=a, **names) for a in attackers)]
        yield f"text_{model}_{task}_{seed}_{network}", jobs


def packed(
    found: Iterable[tuple[str, list[Job]]], minutes: Callable[[Job], float], most: int, longest: float
) -> dict[Job, str]:
    """The pack of each job: at most `most` members of one ticket in a row, of at most `longest` minutes together.

    A member that is longer by itself is a pack by itself.
    """
    packs: dict[Job, str] = {}
    filled: dict[str, tuple[int, int, float]] = {}  # ticket -> number of its last pack, members and minutes in it
    for ticket, jobs in found:
        number, count, sum_ = filled.get(ticket, (0, 0, 0.0))
        own = sum(minutes(j) for j in jobs)
        if count and (count == most or sum_ + own > longest):
            number, count, sum_ = number + 1, 0, 0.0
        filled[ticket] = number, count + 1, sum_ + own
        packs |= {j: f"{ticket}_{number}" for j in jobs}
    return packs
