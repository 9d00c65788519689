"""The staleness matrix as data: each edit of a finished project, and exactly what reruns. docs/staleness.md shows the
same rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .conftest import put

Config = dict[str, Any]
DW_TABLE = {"double_win_table": 1, "double_win_plots": 1}
RB_TABLE = {"robust_bert_table": 1, "robust_bert_plots": 1}
RG_TABLE = {"rare_gems_table": 1, "rare_gems_plots": 1}
TABLES = DW_TABLE | RB_TABLE | RG_TABLE


@dataclass(frozen=True)
class Edit:
    """An edit of the configuration. `jobs`: rule -> number of jobs that rerun; `new`: all of them, but for tables and
    figures, of outputs that were not there; `within`: a part of the path of each of those outputs."""

    name: str
    apply: Callable[[Config], Config]
    jobs: dict[str, int] = field(default_factory=dict)
    new: bool = False
    within: str = ""


def sets(path: str, value: Any) -> Callable[[Config], Config]:
    """An edit that sets one key."""
    return lambda config: put(config, path, value)


def more(path: str, **changes: Any) -> Callable[[Config], Config]:
    """An edit that adds a changed copy of the first item of a list."""

    def edit(config: Config) -> Config:
        items: Any = config
        for step in path.split("."):
            items = items[int(step)] if isinstance(items, list) else items[step]
        return put(config, path, [*items, {**items[0], **changes}])

    return edit


def all_of(*edits: Callable[[Config], Config]) -> Callable[[Config], Config]:
    """Several edits at once."""

    def edit(config: Config) -> Config:
        for one in edits:
            config = one(config)
        return config

    return edit


DW, RB, RG = "double_win", "robust_bert", "rare_gems.experiments.0"
TASK, TEXT = f"{DW}.downstreams.0", f"{RB}.tasks.0"
EVERY_TRANSFER = {"transfer_std": 8, "transfer_adv": 8, "evaluate": 16, "autoattack": 8, **DW_TABLE}
GEMS = {
    "gem_init": 1, "gem_search": 3, "gem_prune": 4, "gem_score": 2, "weight_training": 2, "gem_imp_train": 2,
    "gem_finetune": 6, "gem_sanity": 1, **RG_TABLE,
}  # fmt: skip
IMAGES = {
    "pretrain": 2, "import_weights": 1, "prune_ticket": 6, "imp_train": 2, "export_ticket": 1, "import_ticket": 1,
    **EVERY_TRANSFER,
}  # fmt: skip
TEXTS = {
    "import_text_model": 1, "finetune_text": 5, "search_robust_ticket": 1, "draw_ticket": 1, "prune_text": 2,
    "attack_text": 5, **RB_TABLE,
}  # fmt: skip
TRAINED = {  # and what is made of it; what comes from outside or from a draw stays
    **IMAGES, **{rule: count for rule, count in TEXTS.items() if rule not in ("import_text_model", "prune_text")},
    "prune_text": 1,
    "gem_search": 3, "gem_prune": 2, "weight_training": 2, "gem_imp_train": 2, "gem_finetune": 6, "gem_sanity": 1,
    **RG_TABLE,
}  # fmt: skip
EDITS = [
    Edit(
        "one IMP round more",
        all_of(sets(f"{DW}.imp.rounds", 3), sets(f"{DW}.transfer.rounds", [2, 3])),
        {"imp_train": 2, "prune_ticket": 4, "transfer_std": 4, "transfer_adv": 4, "evaluate": 8, "autoattack": 4,
         **DW_TABLE},
        new=True,
    ),
    Edit("one IMP round less", all_of(sets(f"{DW}.imp.rounds", 1), sets(f"{DW}.transfer.rounds", [])), DW_TABLE),
    Edit("one seed more", sets(f"{DW}.seeds", [0, 1]), IMAGES, new=True, within="/s1/"),
    Edit("one downstream task more", more(f"{DW}.downstreams", name="more"), EVERY_TRANSFER | {"double_win_plots": 2},
     new=True,
         within="/transfer/more/"),
    Edit("one data fraction more", sets(f"{TASK}.fractions", [1.0, 0.5]), EVERY_TRANSFER | {"double_win_plots": 2},
     new=True,
         within="/transfer/down/50/"),
    Edit("fewer pre-trainings and kinds of tickets",
         all_of(lambda c: put(c, f"{DW}.pretrainings", c[DW]["pretrainings"][:1]),
          sets(f"{DW}.transfer", {"methods": ["dense"]})),
         DW_TABLE),
    Edit("epochs of the standard transfer", sets(f"{TASK}.std.epochs", 2),
     {"transfer_std": 8, "evaluate": 8, **DW_TABLE}),
    Edit("steps of the evaluation's attack", sets(f"{TASK}.evaluation.attack.steps", 3), {"evaluate": 16, **DW_TABLE}),
    Edit("images of AutoAttack", sets(f"{TASK}.evaluation.autoattack.images", 9), {"autoattack": 8, **DW_TABLE}),
    Edit("tickets of AutoAttack", sets(f"{TASK}.evaluation.autoattack.tickets", ["dense", "imp-2"]), DW_TABLE),
    Edit("eps of an adversarial pre-training", sets(f"{DW}.pretrainings.1.attack.eps", 0.11),
         {"pretrain": 1, "prune_ticket": 2, "imp_train": 1, "transfer_std": 2, "transfer_adv": 2, "evaluate": 4,
          "autoattack": 2, **DW_TABLE},
         within="/fast_adv/"),
    Edit("learning rate of IMP", sets(f"{DW}.imp.train.lr", 0.04),
         {"imp_train": 2, "prune_ticket": 3, "export_ticket": 1, "import_weights": 1, "import_ticket": 1,
          "transfer_std": 5, "transfer_adv": 5, "evaluate": 10, "autoattack": 5, **DW_TABLE}),
    Edit("number of GPUs of training jobs: they sum in another order", sets("gpus", 2), TRAINED),
    Edit("tolerance of a match", sets(f"{DW}.tolerance", 2.0), DW_TABLE),
    Edit("threads of the text pipeline: they are part of what fixes the bytes", sets(f"{RB}.compute.threads", 2),
     TEXTS),
    Edit("one removed fraction of text tickets more", sets(f"{RB}.removed_fractions", [0.3, 0.6]),
         {"draw_ticket": 1, "prune_text": 2, "finetune_text": 3, "attack_text": 3, **RB_TABLE},
         new=True, within="-60"),
    Edit("fewer methods of text tickets", sets(f"{RB}.methods", ["dense", "robust_ticket"]), RB_TABLE),
    Edit("attacked examples", sets(f"{TEXT}.attacked_examples", 12), {"attack_text": 5, **RB_TABLE}),
    Edit("adversary of the text search", sets(f"{TEXT}.adversary.steps", 1),
         {"search_robust_ticket": 1, "draw_ticket": 1, "finetune_text": 1, "attack_text": 1, **RB_TABLE}),
    Edit("lambda of a gem", sets(f"{RG}.branches.0.search.lmbda", 2e-4),
         {"gem_search": 2, "gem_finetune": 1, "gem_sanity": 1, **RG_TABLE}, within="/gem/s0/"),
    Edit("one sparsity of gems more", sets(f"{RG}.targets", [30, 10]),
         {"gem_ticket": 1, "gem_search": 1, "gem_prune": 2, "gem_score": 2, "gem_finetune": 6, "gem_sanity": 1,
          **RG_TABLE}, new=True, within="/30."),
    Edit("epochs of a gem's fine-tuning", sets(f"{RG}.finetune.epochs", 2),
     {"gem_finetune": 6, "gem_sanity": 1, **RG_TABLE}),
]  # fmt: skip

GROWN = all_of(
    sets(f"{DW}.seeds", [0, 1]), more(f"{DW}.downstreams", name="more"), sets(f"{RB}.removed_fractions", [0.3, 0.6]),
    sets(f"{RG}.targets", [30, 10]),
)  # fmt: skip
LESS = [  # edits of the finished larger grid
    Edit("one seed less", sets(f"{DW}.seeds", [0]), {"double_win_table": 1, "double_win_plots": 2}),
    Edit("one downstream task less", lambda c: put(c, f"{DW}.downstreams", c[DW]["downstreams"][:1]), DW_TABLE),
    Edit("one removed fraction of text tickets less", sets(f"{RB}.removed_fractions", [0.3]), RB_TABLE),
    Edit("one sparsity of gems less", sets(f"{RG}.targets", [10]), RG_TABLE),
]

# Each of these is made at once with the others of its line: nothing reruns.
NOTHING = {
    "spelling": ["order of keys in YAML", "comments in YAML", "a default said aloud", "1/10 for 0.1"],
    "how to run": [
        "log level",
        "workers",
        "device",
        "data, scratch and store folders",
        "time between checkpoints",
    ],
    "places and times": ["fresh clone beside old results", "every file touched", "folder moved"],
    "sources": ["a comment in code", "a docstring", "formatting of code", "a comment in an environment"],
    "words": ["words of a key's description", "a help text", "an error message", "a log line"],
    "carriers": ["code of commands, launch, store, records, report and schema"],
}


@dataclass(frozen=True)
class SourceEdit:
    """An edit of the project's files: line `line` is added to each of `files`."""

    name: str
    files: list[str]
    jobs: dict[str, int]
    line: str = "EDITED = 1"


SOURCE_EDITS = [
    SourceEdit("code of a stage", ["src/winnow/stages/transfer.py"], EVERY_TRANSFER),
    SourceEdit("code of one pipeline", ["src/winnow/text/hard_concrete.py"],
               {"search_robust_ticket": 1, "draw_ticket": 1, "finetune_text": 1, "attack_text": 1, **RB_TABLE}),
    SourceEdit("code that all stages share", ["src/winnow/artifacts.py"], IMAGES | TEXTS | GEMS),
    SourceEdit("code of one pruning method", ["src/winnow/prune/snip.py"],
               {"gem_score": 1, "gem_finetune": 1, **RG_TABLE}),
    SourceEdit("style of the figures", ["src/winnow/tables/figures.py"],
               {"double_win_plots": 1, "robust_bert_plots": 1, "rare_gems_plots": 1}),
    SourceEdit("code of trace, verify and report",
     [f"src/winnow/{n}.py" for n in ("records", "tables/page", "stages/verify")], {}),
    SourceEdit("environment of images", ["envs/vision.yaml"], IMAGES | GEMS, "variables: {EDITED: 1}"),
    SourceEdit("environment of text", ["envs/text.yaml"], TEXTS, "variables: {EDITED: 1}"),
    SourceEdit("environment of tables", ["envs/tables.yaml"], TABLES, "variables: {EDITED: 1}"),
]  # fmt: skip


def table() -> str:
    """The matrix in Markdown, as docs/staleness.md shows it."""

    def shown(jobs: dict[str, int]) -> str:
        whole = {"all jobs": IMAGES | TEXTS | GEMS, "all jobs of the text pipeline": TEXTS,
         "all jobs of double_win": IMAGES,
                 "all jobs of the two image pipelines": IMAGES | GEMS}  # fmt: skip
        name = next((n for n, all_ in whole.items() if jobs == all_), None)
        return name or ", ".join(f"{rule} {count}" for rule, count in jobs.items()) or "nothing"

    rows = [f"| {name} | nothing |" for names in NOTHING.values() for name in names]
    rows += [f"| {e.name} | {shown(e.jobs)}{' (what there was, stays)' if e.new else ''} |" for e in EDITS]
    rows += [f"| {e.name} | {shown(e.jobs)} |" for e in LESS]
    rows.append("| the paper's grid added | its own jobs and the table (what there was, stays) |")
    rows += [f"| {e.name} | {shown(e.jobs)} |" for e in SOURCE_EDITS]
    return "\n".join(["| edit | reruns |", "|---|---|", *rows])
