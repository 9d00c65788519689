"""What wiring.yaml means, written down apart from the code: for each artifact its stage, its parents and the settings
it stands for.

Parents are {role: path}. Settings are the YAML's own values, of which the recorded configuration must hold every one;
NONE says that a section must be absent or null. Text models are named by the record of their folder, winnow.json.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

NONE = object()
Config = dict[str, Any]


@dataclass
class Meaning:
    """What one artifact must say of itself."""

    stage: str
    parents: dict[str, str]
    config: dict[str, Any] = field(default_factory=dict)


Rule = tuple[str, Callable[..., Meaning]]


def by_name(items: list[Config], name: str) -> Config:
    return next(item for item in items if item["name"] == name)


def double_win(section: Config) -> list[Rule]:
    """Rules of the double-win pipeline: (pattern of a path, meaning of its groups)."""
    source, imp = section["source"], section["imp"]

    def chain(p: str, s: str) -> str:
        return f"results/double_win/src/{p}/s{s}"

    def dense(p: str, s: str) -> Meaning:
        pre = by_name(section["pretrainings"], p)
        if p == "imported":
            file = {"file": f"{chain('plain', s)}/exported/imp-std-2.pth.tar"}
            return Meaning("import_weights", file, {"num_classes": 4, "model": source["model"], "seed": NONE})
        own = {"method": pre["method"], "train": pre["train"], "attack": pre.get("attack", NONE)}
        return Meaning("pretrain", {}, {**source_task, "model": source["model"], **own, "seed": int(s)})

    source_task = {"data": source["data"]}

    def cut(k: str) -> Config:
        return {"remaining_percent": 100 * (1 - imp["prune_percent"] / 100) ** int(k), "round": int(k)}

    def ticket(p: str, s: str, regime: str, k: str) -> Meaning:
        c, last = chain(p, s), int(k) - 1
        parents = {"weights": f"{c}/dense.safetensors"}
        if last:
            parents = {"weights": f"{c}/trained/imp-{regime}-{last}.safetensors"}
            parents["mask"] = f"{c}/tickets/imp-{regime}-{last}.mask.safetensors"
        return Meaning("prune", parents, {"method": "magnitude", "label": "imp", **cut(k)})

    def trained(p: str, s: str, regime: str, k: str) -> Meaning:
        c = chain(p, s)
        attack = imp["attack"] if regime == "adv" else NONE
        parents = {"init": f"{c}/dense.safetensors", "mask": f"{c}/tickets/imp-{regime}-{k}.mask.safetensors"}
        own = {"keep": "last", "measure": False, "rewind_iteration": 0}
        return Meaning(
            "train", parents, {**source_task, "train": imp["train"], "attack": attack, "seed": int(s), **own}
        )

    def omp(p: str, s: str, k: str) -> Meaning:
        own = {"method": "magnitude", "label": "omp"}
        return Meaning("prune", {"weights": f"{chain(p, s)}/dense.safetensors"}, {**own, **cut(k)})

    def random(p: str, s: str, regime: str, k: str) -> Meaning:
        parents = {"like": f"{chain(p, s)}/tickets/imp-{regime}-{k}.mask.safetensors"}
        return Meaning("prune", parents, {"method": "random", "remaining_percent": NONE, "seed": int(s)})

    def exported(p: str, s: str, t: str) -> Meaning:
        c = chain(p, s)
        return Meaning(
            "export_ticket", {"mask": f"{c}/tickets/{t}.mask.safetensors", "weights": f"{c}/dense.safetensors"}
        )

    def released(p: str, s: str) -> Meaning:
        file = f"{chain('plain', s)}/exported/imp-std-2.pth.tar"
        return Meaning("import_ticket", {"file": file, "weights": f"{chain(p, s)}/dense.safetensors"})

    def transfer(p: str, s: str, d: str, percent: str, t: str, mode: str, run: str) -> Meaning:
        assert s == run, "each seed has its own chain"
        task, parents = by_name(section["downstreams"], d), {"init": f"{chain(p, s)}/dense.safetensors"}
        if t != "dense":
            parents["mask"] = f"{chain(p, s)}/tickets/{t}.mask.safetensors"
        own = {"train": task[mode], "attack": task["attack"] if mode == "adv" else NONE}
        return Meaning(
            "transfer", parents, {"data": task["data"], "fraction": int(percent) / 100, **own, "seed": int(run)}
        )

    def evaluated(folder: str, d: str, mode: str, run: str) -> Meaning:
        task, names = by_name(section["downstreams"], d), ["best_sa"] + ["best_ra"] * (mode == "adv")
        parents = {name: f"{folder}/{name}.safetensors" for name in names}
        wanted = {k: v for k, v in task["evaluation"].items() if k != "autoattack"}
        return Meaning("evaluate", parents, {"data": task["data"], "evaluation": wanted, "seed": int(run)})

    def autoattacked(folder: str, d: str, mode: str, run: str) -> Meaning:
        task = by_name(section["downstreams"], d)
        settings = {"data": task["data"], "autoattack": task["evaluation"]["autoattack"], "seed": int(run)}
        return Meaning("autoattack", {"weights": f"{folder}/best_ra.safetensors"}, settings)

    base = r"results/double_win/src/(\w+)/s(\d+)"
    run = rf"{base}/transfer/(\w+)/(\d+)/([\w-]+)/(std|adv)/s(\d+)"
    folder = r"(results/double_win/src/\w+/s\d+/transfer/(\w+)/\d+/[\w-]+/(std|adv)/s(\d+))"
    return [
        (rf"{base}/dense\.(?:safetensors|json)", dense),
        (rf"{base}/tickets/imp-(std|adv)-(\d)\.mask\.safetensors", ticket),
        (rf"{base}/trained/imp-(std|adv)-(\d)\.(?:safetensors|json)", trained),
        (rf"{base}/tickets/omp-(\d)\.mask\.safetensors", omp),
        (rf"{base}/tickets/random-(std|adv)-(\d)\.mask\.safetensors", random),
        (rf"{base}/exported/(imp-std-2)\.json", exported),
        (rf"{base}/tickets/extra-released\.mask\.safetensors", released),
        (rf"{run}/(?:best_sa\.safetensors|best_ra\.safetensors|transfer\.json)", transfer),
        (rf"{folder}/evaluation\.json", evaluated),
        (rf"{folder}/autoattack\.json", autoattacked),
    ]


def robust_bert(section: Config) -> list[Rule]:
    """Rules of the robust-ticket pipeline."""

    def folder(task: str, rest: str) -> str:
        return f"results/robust_bert/tiny_bert/{task}/{rest}"

    def model(task: str, s: str, network: str) -> str:
        return folder(task, f"s{s}/{network}/winnow.json")

    def data(task: str, without: str) -> Config:
        return {k: v for k, v in by_name(section["tasks"], task)["data"].items() if k != without}

    def pretrained(task: str) -> Meaning:
        return Meaning("import_text_model", {}, {"model": section["model"], "data": data(task, "test_examples")})

    def training(task: str, s: str, network: str) -> Meaning:
        t = by_name(section["tasks"], task)
        parents = {"model": folder(task, "pretrained/winnow.json")}
        if network not in ("dense", "freelb"):
            parents["mask"] = folder(task, f"s{s}/tickets/{network}.mask.safetensors")
        adversary = t.get("freelb_adversary", t["adversary"]) if network == "freelb" else NONE
        train = {"dense": t["finetune"], "freelb": t["freelb"]}.get(network, t["retrain"])
        config = {"data": data(task, "test_examples"), "train": train, "adversary": adversary, "seed": int(s)}
        return Meaning("finetune_text", parents, config)

    def scores(task: str, s: str) -> Meaning:
        t = by_name(section["tasks"], task)
        config = {
            "data": data(task, "test_examples"),
            "train": t["search"],
            "adversary": t["adversary"],
            "seed": int(s),
        }
        config |= {"keep_epochs": t["search_epochs"], "masks": t.get("masks", {})}
        return Meaning("search_robust_ticket", {"model": model(task, s, "dense")}, config)

    def drawn(task: str, s: str, epoch: str, percent: str) -> Meaning:
        parents = {"scores": folder(task, f"s{s}/scores/epoch-{epoch}.safetensors")}
        return Meaning("draw_ticket", parents, {"removed_fraction": int(percent) / 100})

    def magnitude(task: str, s: str, percent: str) -> Meaning:
        own = {"method": "magnitude", "remaining_percent": 100 - int(percent)}
        return Meaning("prune", {"weights": model(task, s, "dense")}, own)

    def random(task: str, s: str, percent: str) -> Meaning:
        parents = {"weights": folder(task, "pretrained/winnow.json")}
        return Meaning("prune", parents, {"method": "random", "remaining_percent": 100 - int(percent), "seed": int(s)})

    def attacked(task: str, s: str, attacker: str, network: str) -> Meaning:
        t, attack = by_name(section["tasks"], task), by_name(section["attackers"], attacker)["attack"]
        own = {"examples": t["attacked_examples"], "selection": t.get("attacked_selection", "stratified")}
        config = {"data": data(task, "train_examples"), "attack": attack, **own, "seed": int(s)}
        return Meaning("attack_text", {"model": model(task, s, network)}, config)

    task, base = r"results/robust_bert/tiny_bert/(\w+)", r"results/robust_bert/tiny_bert/(\w+)/s(\d+)"
    return [
        (rf"{task}/pretrained/winnow\.json", pretrained),
        (rf"{base}/([\w-]+)/winnow\.json", training),
        (rf"{base}/training/([\w-]+)\.json", training),
        (rf"{base}/scores/(?:epoch-\d\.safetensors|search\.json)", scores),
        (rf"{base}/tickets/robust-(\d)-(\d+)\.mask\.safetensors", drawn),
        (rf"{base}/tickets/magnitude-(\d+)\.mask\.safetensors", magnitude),
        (rf"{base}/tickets/random-(\d+)\.mask\.safetensors", random),
        (rf"{base}/attacks/(\w+)/([\w-]+)\.json", attacked),
    ]


def rare_gems(section: Config) -> list[Rule]:
    """Rules of the rare-gems pipeline."""

    def find(e: str, b: str) -> tuple[Config, Config]:
        experiment = by_name(section["experiments"], e)
        return experiment, by_name(experiment["branches"], b)

    def folder(e: str, b: str, s: str) -> str:
        return f"results/rare_gems/{e}/{b}/s{s}"

    def init(e: str, b: str, s: str) -> str:
        spelled = {"warm_gem": "from-warm_gem", "popup": "kaiming_normal-fan40.0"}.get(b, "signed_constant")
        return f"results/rare_gems/{e}/init/{'xavier_normal' if e == 'two' else spelled}/s{s}.safetensors"

    def mask(e: str, b: str, s: str, target: str) -> str:
        kind = {"gem": "search" if target == "15" else "drawn", "popup": "search", "smart": "smart_ratio"}
        kind["warm_gem"] = kind["gem"]
        return f"{folder(e, b, s)}/{kind.get(b, b)}/{target}.mask.safetensors"

    def training(e: str, b: str, s: str, train: Config) -> Config:
        experiment, branch = find(e, b)
        return {"data": experiment["data"], "train": train, "attack": branch.get("attack", NONE), "seed": int(s)}

    def drawn_init(e: str, spelled: str, s: str) -> Meaning:
        experiment = by_name(section["experiments"], e)
        config: Config = {"data": experiment["data"], "seed": int(s)}
        if spelled == "from-warm_gem":
            return Meaning("gem_init", {"weights": f"{folder(e, 'dense', s)}/imp/round0.safetensors"}, config)
        name = spelled.removesuffix("-fan40.0")
        scale = {"scale_fan": True, "target_sparsity": 40} if name != spelled else {"scale_fan": False}
        return Meaning("gem_init", {}, {**config, "model": experiment["model"], "init": {"init": name, **scale}})

    def searched(e: str, b: str, s: str, kind: str, target: str) -> Meaning:
        _, branch = find(e, b)
        own = {"algo": branch["algo"], "target_sparsity": int(target), "invert": kind == "inverted"}
        config = {"search": {**branch["search"], **own}, **training(e, b, s, branch["train"])}
        return Meaning("gem_search", {"init": init(e, b, s)}, config)

    def drawn(e: str, b: str, s: str, target: str) -> Meaning:
        assert target == "40", "the lowest target is what the search itself gives"
        return Meaning(
            "gem_ticket", {"order": f"{folder(e, b, s)}/search/15.order.safetensors"}, {"target_sparsity": 40}
        )

    def tuned(e: str, b: str, s: str, target: str) -> Meaning:
        experiment, branch = find(e, b)
        train = branch.get("finetune", experiment["finetune"])
        config = {**training(e, b, s, train), "keep": "best", "measure": True}
        return Meaning("train", {"init": init(e, b, s), "mask": mask(e, b, s, target)}, config)

    def checked(e: str, b: str, s: str, target: str) -> Meaning:
        if b in ("warm", "renda"):
            k = {"40": "1", "15": "2"}[target]
            meaning = imp(e, b, s, "imp", k)
            config = {key: v for key, v in meaning.config.items() if key not in ("measure", "rewind_iteration")}
            meaning.parents["inverted"] = f"{folder(e, b, s)}/imp_inverted/round{k}.mask.safetensors"
            own = {"target_sparsity": int(target), "checks": ["reinit", "shuffle"]}
            return Meaning("gem_sanity", meaning.parents, {**config, **own})
        meaning = tuned(e, b, s, target)
        config = {k: v for k, v in meaning.config.items() if k not in ("keep", "measure")}
        if b == "gem":
            meaning.parents["inverted"] = f"{folder(e, b, s)}/inverted/15.order.safetensors"
        return Meaning(
            "gem_sanity", meaning.parents, {**config, "target_sparsity": int(target), "checks": ["reinit", "shuffle"]}
        )

    def baseline(e: str, b: str, s: str, kind: str, target: str) -> Meaning:
        experiment, branch = find(e, b)
        config: Config = {"method": kind, "remaining_percent": int(target), "seed": 0 if kind == "synflow" else int(s)}
        if kind in ("snip", "grasp"):
            config |= {"images": branch["images"], "data": experiment["data"]}
        return Meaning("prune", {"weights": init(e, b, s)}, config)

    def imp(e: str, b: str, s: str, chain: str, k: str) -> Meaning:
        _, branch = find(e, b)
        options, own = branch.get("imp", {}), f"{folder(e, b, s)}/imp"
        config, keep = training(e, b, s, branch["train"]), options.get("ranked", "best")
        if k == "0":
            iteration = options.get("rewind_iteration", 0) if options.get("rewind") == "warm" else 0
            config |= {"keep": keep, "measure": True, "rewind_iteration": iteration}
            return Meaning("train", {"init": init(e, b, s)}, config)
        start = {
            "warm": f"{own}/round0-rewind.safetensors",
            "cold": init(e, b, s),
            "renda": f"{folder(e, b, s)}/{chain if k != '1' else 'imp'}/round{int(k) - 1}.safetensors",
        }
        mask = f"{folder(e, b, s)}/{chain}/round{k}.mask.safetensors"
        parents = {"init": start[options["rewind"]], "mask": mask}
        return Meaning("train", parents, {**config, "keep": keep, "measure": True, "rewind_iteration": 0})

    def imp_cut(e: str, b: str, s: str, chain: str, k: str) -> Meaning:
        _, branch = find(e, b)
        last = int(k) - 1
        own = f"{folder(e, b, s)}/{chain if last else 'imp'}"
        parents = {"weights": f"{own}/round{last}.safetensors"}
        if last:
            parents["mask"] = f"{own}/round{last}.mask.safetensors"
        left = branch["imp"]["remaining_percents"][last]
        config: Config = {"method": "magnitude", "label": chain, "round": int(k), "remaining_percent": left}
        return Meaning("prune", parents, {**config, "options": {"invert": True} if chain == "imp_inverted" else {}})

    base = r"results/rare_gems/(\w+)/(\w+)/s(\d+)"
    file = r"(?:\.mask\.safetensors|\.order\.safetensors|\.json|\.levels/[\w.]+)"
    return [
        (r"results/rare_gems/(\w+)/init/([\w.-]+)/s(\d+)\.safetensors", drawn_init),
        (rf"{base}/(search|inverted)/(\d+){file}", searched),
        (rf"{base}/drawn/(\d+)\.mask\.safetensors", drawn),
        (rf"{base}/tuned/(\d+)\.(?:safetensors|json)", tuned),
        (rf"{base}/sanity/(\d+)\.json", checked),
        (rf"{base}/(random|smart_ratio|snip|grasp|synflow)/(\d+)\.mask\.safetensors", baseline),
        (rf"{base}/(imp|imp_inverted)/round(\d)\.mask\.safetensors", imp_cut),
        (rf"{base}/(imp|imp_inverted)/round(\d)(?:-rewind)?\.(?:safetensors|json)", imp),
    ]


def meaning_of(config: Config, path: str) -> Meaning | None:
    """The meaning of an artifact's path; None where no rule knows it. Tables and figures are not meant."""
    rules = [*double_win(config["double_win"]), *robust_bert(config["robust_bert"]), *rare_gems(config["rare_gems"])]
    for pattern, rule in rules:
        if found := re.fullmatch(pattern, path):
            return rule(*found.groups())
    return None


def differences(expected: Any, recorded: Any, where: str = "") -> list[str]:
    """Every value of `expected` that `recorded` does not hold; numbers are compared to 1e-9."""
    if expected is NONE:
        return [] if recorded is None else [f"{where}: {recorded}, must be absent"]
    if isinstance(expected, dict) and isinstance(recorded, dict):
        return [d for k, v in expected.items() for d in differences(v, recorded.get(k), f"{where}.{k}".lstrip("."))]
    if isinstance(expected, float) and isinstance(recorded, (int, float)):
        return [] if abs(expected - recorded) < 1e-9 else [f"{where}: {recorded}, must be {expected}"]
    return [] if expected == recorded else [f"{where}: {recorded}, must be {expected}"]
