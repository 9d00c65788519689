"""All released rare-gems configurations: each is an experiment that runs, or is refused with the reason."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path

import pytest
import yaml

torch = pytest.importorskip("torch")

from winnow.config import architectures, root  # noqa: E402
from winnow.errors import WinnowError  # noqa: E402
from winnow.gems.pruning import prune_fraction  # noqa: E402
from winnow.gems.scores import scorable  # noqa: E402
from winnow.gems.search import GemSearch  # noqa: E402
from winnow.pipelines.rare_gems import grid  # noqa: E402
from winnow.pipelines.rare_gems.released import experiment_name, milestones, translate  # noqa: E402
from winnow.pipelines.rare_gems.released_options import ELSEWHERE, NEVER_READ, REFUSED  # noqa: E402
from winnow.vision import models  # noqa: E402
from winnow.vision.models import networks  # noqa: E402

CLASSES = {
    "CIFAR10": 10,
    "CIFAR100": 100,
    "TinyImageNet": 200,
    "Caltech101": 101,
    "ImageNet": 1000,
    "FfcvImageNet": 1000,
}
REASONS = {
    "greedy program": 17,
    "only checks finished runs": 3,
    "only evaluates a finished file": 2,
    "hold no prune with iter_period": 1,
    "scores are rewound to their start": 1,
    "by rank within each forward pass": 1,
    "no biases": 1,
    "defines it nowhere": 1,
    "half of the weights": 1,
}

WORDS = {  # of the table
    "greedy program": "the greedy program is not built",
    "only checks finished runs": "`only_sanity` checks finished runs, and ends in an error as released",
    "only evaluates a finished file": "`evaluate` measures a finished file, which has to be brought in",
    "hold no prune with iter_period": "too few epochs for one prune: the released code divides by zero",
    "scores are rewound to their start": "scores are rewound to epoch 3, here to their start only",
    "by rank within each forward pass": "`bottom_k_on_forward` is not built",
    "no biases": "`bias`: masks have none",
    "defines it nowhere": "its network is defined nowhere",
    "half of the weights": "`drop_bottom_half_weights` is not built",
}


@pytest.fixture(scope="module")
def released(shared):
    """File -> settings."""
    lines = (shared / "golden/released/configs.jsonl").read_text().splitlines()
    return {r["file"]: r["settings"] for r in map(json.loads, lines)}


@pytest.fixture(scope="module")
def outcome(released):
    """File -> experiment, and file -> refusal."""
    accepted, refused = {}, {}
    for file, settings in released.items():
        try:
            accepted[file] = translate(settings, experiment_name(file), file)
        except WinnowError as error:
            refused[file] = str(error)
    return accepted, refused


def test_each_is_accepted_or_refused_with_a_reason(released, outcome):
    accepted, refused = outcome
    assert len(accepted) + len(refused) == len(released) == 225
    assert Counter(e.branches[0].algo for e in accepted.values()) == {
        "hc_iter": 143, "hc": 16, "ep": 12, "global_ep": 3, "global_ep_iter": 3, "imp": 5, "wt": 9, "random": 6,
    }  # fmt: skip
    found = Counter(reason for text in refused.values() for reason in REASONS if reason in text)
    assert found == REASONS and sum(REASONS.values()) == len(refused)
    assert all(text.startswith(file) and "\n" not in text for file, text in refused.items())


def counts(released, outcome) -> str:
    """The table of docs/fidelity.md: by the files' algo, what they become, and why some are refused."""
    accepted, refused = outcome
    made, why = Counter(), Counter()
    for file, s in released.items():
        kind = s.get("algo", "greedy")
        if file in accepted:
            made[kind, accepted[file].branches[0].algo] += 1
        else:
            why[kind, next(reason for reason in REASONS if reason in refused[file])] += 1
    lines = ["| algo of the file | accepted, as | refused | because |", "|---|---|---|---|"]
    kinds = Counter(s.get("algo", "greedy") for s in released.values())
    for kind, _ in sorted(kinds.items(), key=lambda item: (-item[1], item[0])):
        became = ", ".join(f"{n} {algo}" for (k, algo), n in sorted(made.items(), key=lambda i: -i[1]) if k == kind)
        reasons = [(n, reason) for (k, reason), n in sorted(why.items(), key=lambda i: (-i[1], i[0])) if k == kind]
        words = "; ".join(WORDS[reason] + (f" ({n})" if n > 1 and len(reasons) > 1 else "") for n, reason in reasons)
        lines.append(f"| {kind} | {became or '0'} | {sum(n for n, _ in reasons)} | {words} |")
    return "\n".join([*lines, f"| all | {len(accepted)} | {len(refused)} | |"])


def test_the_page_counts_them(released, outcome):
    page = (Path(__file__).resolve().parents[2] / "docs/fidelity.md").read_text(encoding="utf-8")
    assert counts(released, outcome) in page


def test_names_take_the_folder_in(released):
    assert len({experiment_name(f) for f in released}) == len(released)
    assert (
        experiment_name("a/configs/x/y-1/conf1.yml") == "x.y_1.conf1"
        and experiment_name("/runs/y/conf1.yml") == "y.conf1"
    )


def test_together_they_are_one_configuration(released, outcome, tmp_path):
    """Through the files and the schema that a workflow reads, down to every job that it would plan."""
    accepted, _ = outcome
    files = []
    for file in accepted:
        files.append(tmp_path / file)
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        files[-1].write_text(yaml.safe_dump(released[file]))
    whole = root.load({"check_data": False, "rare_gems": {"seeds": [0], "from_files": [str(f) for f in files]}})
    section = whole.rare_gems
    assert [e.name for e in section.experiments] == [e.name for e in accepted.values()]
    assert len(grid.table_inputs(section)) >= len(accepted)
    for cell in grid.grid_of(section).cells():
        e, b, seed, target = cell.experiment, cell.branch, str(cell.seed), f"{cell.target:g}"
        _, branch = grid.find(section, e, b)
        grid.init(section, e, grid.init_name(grid.find(section, e, b)[0], branch), seed)
        if cell.algo in grid.SEARCHED:
            job = grid.search(section, e, b, target, "search", seed)
            assert job.train == branch.train and job.search.algo == cell.algo
            assert grid.finetune(section, e, b, seed).train == grid.find(section, e, b)[0].finetune
        elif cell.algo == "imp":
            assert grid.imp_train(section, e, b, "1", seed).keep == "last"
            assert grid.prune(section, e, b, f"round{cell.round}", seed).remaining_percent == pytest.approx(
                cell.target, rel=1e-5
            )
        elif cell.algo == "wt":
            assert grid.imp_train(section, e, b, "0", seed).train == branch.train
        else:
            assert grid.prune(section, e, b, target, seed).method == cell.algo


def test_each_network_builds_and_takes_its_search(outcome):
    accepted, _ = outcome
    built = set()
    for e in accepted.values():
        branch = e.branches[0]
        seen = (e.model.arch, e.model.width, e.model.bn, e.dataset, branch.algo)
        if seen in built:
            continue
        built.add(seen)
        model = models.build(e.model, CLASSES[e.dataset])
        if branch.algo not in grid.SEARCHED or e.model.arch == "ResNet101":
            continue
        parameters = dict(model.named_parameters())
        options = {n: getattr(branch.search, n) for n in type(branch.search).model_fields}
        config = grid.Search(**options, algo=branch.algo, target_sparsity=e.targets[0])
        scores = {n: torch.zeros(parameters[n].shape) for n in scorable(model)}
        gem = GemSearch(model, scores, config, branch.train.epochs)
        assert gem.total > 0
    assert len(built) > 20


def test_values_are_those_of_the_files(released, outcome):
    accepted, _ = outcome
    for file, e in accepted.items():
        s, branch = released[file], e.branches[0]
        tuned = e.finetune
        assert (tuned.lr, tuned.batch_size) == (s.get("fine_tune_lr", 0.01), s["batch_size"])
        assert (tuned.optimizer, tuned.weight_decay) == (
            s.get("fine_tune_optimizer", "sgd"),
            s.get("fine_tune_wd", 1e-4),
        )
        assert e.init.init == s["init"] and e.init.scale_fan == s.get("scale_fan", False)
        if e.init.scale_fan:
            assert e.init.target_sparsity == pytest.approx(100 * (1 - s.get("prune_rate", 0.5)))
        if branch.algo == "random":
            continue
        train = branch.train
        assert (train.lr, train.batch_size, train.optimizer) == (s.get("lr", 0.001), s["batch_size"], s["optimizer"])
        assert train.weight_decay == s.get("wd", 5e-4)  # not weight_decay, which nothing reads
        assert train.epochs == (s["iter_period"] if branch.algo == "imp" else s["epochs"])
        assert train.schedule == s.get("lr_policy", "constant_lr").removesuffix("_lr")
        if train.schedule == "multistep":
            assert train.gamma == s.get("lr_gamma", 0.1) and train.milestones == milestones(train.epochs)
        if branch.algo in grid.SEARCHED:
            assert branch.search.hc_quantized == s.get("hc_quantized", False)
            assert branch.search.unflag_before_finetune == s.get("unflag_before_finetune", False)
            assert (branch.search.regularization, branch.search.lmbda) == (
                r if isinstance(r := s.get("regularization"), str) else None,
                s.get("lmbda", 1e-3),
            )
            assert branch.search.score_init == (None if "ep" in branch.algo.split("_") else s.get("score_init", "unif"))
            assert branch.search.prune_type == s.get("prune_type", "FixThresholding")
            assert branch.sanity is not s.get("skip_sanity_checks", False)


RATE = {
    "epochs": 7,
    "iter_period": 2,
    "batch_size": 64,
    "arch": "resnet20",
    "dataset": "CIFAR10",
    "prune_rate": 0.3,
    "target_sparsity": 5,
}


@pytest.mark.parametrize(
    ("algo", "override", "expected"),
    [
        ("ep", True, 30.0),
        ("ep", False, 100 * 0.05 ** (1 / 3)),
        ("global_ep", True, 70.0),
        ("global_ep", False, 100 * 0.05 ** (1 / 3)),
        ("global_ep_iter", True, 100 * 0.7**3),
        ("global_ep_iter", False, 5.0),
        ("hc_iter", True, 100 * 0.7**3),
        ("hc_iter", False, 5.0),
    ],
)
def test_what_prune_rate_means(algo, override, expected):
    found = translate({**RATE, "algo": algo, "override_prune_rate": override}, "x", "x.yml").targets
    assert found == pytest.approx([expected])
    if algo in ("hc_iter", "global_ep_iter"):
        assert prune_fraction(found[0], 7, 2) == pytest.approx(0.3 if override else 1 - 0.05 ** (1 / 3))


def test_the_vocabulary_is_whole(shared):
    """Every option that the released parser declares, and every key of its files, is known."""
    from winnow.pipelines.rare_gems.published import Published

    options = json.loads((shared / "golden/released/options.json").read_text())["pruning_is_enough"]
    declared = {o["name"] for o in options["programs"]["args_helper.py"]} | {
        o["name"] for o in options["config_keys_without_option"]
    }
    known = {*Published.model_fields, *NEVER_READ, *ELSEWHERE, *REFUSED}
    assert declared <= known
    defaults = {o["name"]: o["default"] for o in options["programs"]["args_helper.py"]}
    for name, field in Published.model_fields.items():
        if name not in ("arch", "dataset", "bn_type", "conv_type"):
            assert field.default == defaults[name], name
    for name, (harmless, _) in REFUSED.items():
        assert any(defaults[name] == v for v in harmless), name


@pytest.mark.parametrize("algo", ["hc_iter", "hc", "ep", "global_ep", "global_ep_iter", "imp", "training"])
def test_every_value_of_the_files_is_taken_or_refused_for_what_it_asks(algo, shared):
    """Values of all 299 files, the ones kept back among them, one at a time: none is unknown, or of a wrong type."""
    options = json.loads((shared / "golden/released/options.json").read_text())["pruning_is_enough"]
    values = {o["name"]: o.get("config_values") for o in options["programs"]["args_helper.py"]}
    values |= {o["name"]: o["values"] for o in options["config_keys_without_option"]}
    base = {**RATE, "prune_rate": 0.2, "epochs": 150, "iter_period": 5, "algo": algo}
    tried = 0
    for option, found in values.items():
        for value in found or []:
            if option == "algo":
                continue
            tried += 1
            try:
                translate({**base, option: value}, "x", "x.yml")
            except WinnowError as error:
                reason = f"x.yml.{option}: "
                also = ("x.yml.freeze_weights: False does not go with", "x.yml.epochs: 150 epochs hold no prune")
                assert str(error).startswith((reason, *also)), error
                assert not any(w in str(error) for w in ("valid choice", "unknown", "expected", "got ")), error
    assert tried > 150


def test_what_is_not_read_is_logged(released, caplog):
    file = "configs/ablation_ep_gm_resnet20_059/ep.yml"
    with caplog.at_level(logging.WARNING, logger="winnow"):
        e = translate({**released[file], "score_init": "unif", "lr_adjust": 30}, "x", file)
    (line,) = caplog.messages
    assert line.startswith(f"{file}: without effect: ")
    said = {part.split(" (")[0] for part in line.split("effect: ")[1].split(", ")}
    assert said == {"subfolder", "weight_decay", "workers", "checkpoint_at_prune", "score_init", "lr_adjust"}
    assert e.branches[0].train.weight_decay == 5e-4 and e.targets == [0.5]


@pytest.mark.parametrize(("said", "read"), [(True, None), (False, None), (None, None), ("L2", "L2")])
def test_a_regulariser_without_a_name_adds_nothing(said, read, caplog):
    """The released code compares the value with names of regularisers: `true` is none of them."""
    with caplog.at_level(logging.WARNING, logger="winnow"):
        e = translate({**RATE, "algo": "hc_iter", "regularization": said, "lmbda": 0.1}, "x", "x.yml")
    assert e.branches[0].search.regularization == read
    assert ("regularization" in " ".join(caplog.messages)) == (said is True)


def test_released_networks_are_known_where_torch_is_not():
    assert set(architectures.RELEASED) == set(networks.RELEASED)
