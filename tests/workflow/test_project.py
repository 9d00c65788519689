"""The project's own promises: paper grids, lint, generated documents, pinned environments."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.version import Version

from winnow.config import document
from winnow.config.root import load_files
from winnow.pipelines.double_win.grid import grid_of

OVERLAYS = sorted([*(ROOT / "config/paper").glob("*.yaml"), *(ROOT / "config/examples").glob("*.yaml")])


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_overlays_stand_alone(path):
    root, document = load_files([path], {"check_data": False})
    assert set(root.sections()) == set(document.values) & {"double_win", "robust_bert", "rare_gems"} != set()


def test_the_paper_grid_is_the_papers():
    section = load_files([ROOT / "config/paper/double_win.yaml"])[0].double_win
    runs = list(grid_of(section).runs())
    assert {r.dataset for r in runs} == {"cifar10", "cifar100", "svhn"}
    assert {r.percent for r in runs} == {"100", "10", "1"}
    assert {r.round for r in runs if r.method == "imp"} == set(range(1, 20))
    # 3 pre-trainings x 3 tasks x 3 fractions x (dense + 19 rounds x 3 methods) x 2 modes x 3 seeds
    assert len(runs) == 3 * 3 * 3 * (1 + 19 * 3) * 2 * 3


LIGHT = {"prune_ticket", "prune_text", "gem_prune", "gem_ticket", "draw_ticket", "fetch_attack_assets"}
NO_GPU = LIGHT | {"import_weights", "gem_import", "gem_init", "export_ticket", "import_ticket", "import_text_model"}


def plan(folder, *words):
    """What `make plan EACH=1` prints."""
    command = [sys.executable, str(ROOT / "workflow/plan.py"), "--each", "--snakefile", str(ROOT / "Snakefile")]
    done = subprocess.run([*command, "--directory", str(folder), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_a_partition_may_have_any_name_or_be_an_expression(tmp_path):
    tiny = ["results/tables/double_win.csv", "--configfile", str(ROOT / "tests/workflow/tiny.yaml")]
    words = plan(tmp_path, *tiny, "--default-resources", "slurm_partition=input")
    assert {line.split()[-1] for line in words.splitlines() if " threads=" in line} == {"slurm_partition=input"}
    words = plan(tmp_path, *tiny, "--default-resources", "slurm_partition=f'try{attempt}'")
    assert {line.split()[-1] for line in words.splitlines() if " threads=" in line} == {"slurm_partition=try1"}


@pytest.mark.slow
@pytest.mark.parametrize("path", OVERLAYS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_overlays_plan_and_every_job_says_what_it_asks_for(path, tmp_path):
    """`make plan EACH=1` under the SLURM profile: one line a job with its requests, then one row a rule with its
    cost.
    """
    assets = yaml.safe_load(path.read_text()).get("robust_bert", {}).get("assets", {})
    named = [p for p in assets.values() if not p.startswith("data/attack_assets/")]
    for own in (tmp_path / p for p in named + re.findall(r"data/pretrained/[\w.]+", path.read_text())):
        own.parent.mkdir(parents=True, exist_ok=True)
        own.touch()
    each, _, table = plan(tmp_path, "--profile", str(ROOT / "profiles/slurm"), "--configfile", str(path)).partition(
        "rule  "
    )
    lines = itertools.takewhile(lambda line: not line.startswith("total"), table.splitlines()[1:])
    rows = {words[0]: words for words in map(str.split, lines)}
    jobs = [line.split() for line in each.splitlines()]
    assert len(jobs) == sum(int(row[1]) for row in rows.values()) > 5
    for rule, _, *asked in jobs:
        values = dict(word.split("=") for word in asked)
        assert values["slurm_partition"] == "main" and int(values["threads"]) >= 1
        assert 500 <= int(values["mem_mb"]) <= 64000 and 10 <= int(values["runtime"]) <= 1440
        assert values.get("gpu") == (None if rule in NO_GPU or rule.endswith(("_table", "_plots")) else "1"), rule
    light = {rule for rule in rows if rule in LIGHT or rule.endswith(("_table", "_plots"))}
    assert {rule for rule, row in rows.items() if row[9] == "here"} == light


@pytest.mark.parametrize(
    ("name", "key", "folder"),
    [
        ("rare_gems", r"rare_gems\.experiments\[4\]", "tiny-imagenet-200"),
        ("double_win_further", r"double_win\.downstreams\[2\]", "visda2017"),
    ],
)
def test_a_paper_s_grid_without_its_image_folders_is_refused_before_any_job(name, key, folder, tmp_path):
    """What torchvision or the hub brings (CIFAR, GLUE) plans without being there, as the test above does for all."""
    files = ["--snakefile", str(ROOT / "Snakefile"), "--configfile", str(ROOT / f"config/paper/{name}.yaml")]
    command = [sys.executable, "-m", "snakemake", "-n", "--directory", str(tmp_path), *files]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    lines = re.findall(rf"(?m)^config\.{key}\.data\.path: .*$", done.stdout + done.stderr)
    assert done.returncode == 1 and len(lines) == 1
    assert f"data/{folder}: not there; put the data in place, or correct the path or data_root" in lines[0]
    assert f"{name}.yaml:" in lines[0] and not (tmp_path / "results").exists()


def test_generated_documents_are_up_to_date():
    assert (ROOT / document.REFERENCE).read_text(encoding="utf-8") == document.markdown(), "run: make docs"


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["snakefmt", "--check", "Snakefile", "workflow"],
        ["mypy"],
    ],
    ids=lambda c: " ".join(c),
)
def test_style(command):
    done = subprocess.run(
        [str(Path(sys.executable).parent / command[0]), *command[1:]], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_snakemake_lint(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(tmp_path),
         "--lint"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_tests_that_keep_the_promises_exist():
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs/reliability.md").read_text(encoding="utf-8"))
    assert len(named) > 25
    for path, test in named:
        assert f"def {test}(" in (ROOT / path).read_text(encoding="utf-8"), f"{path}::{test}"


def lock() -> dict[str, str]:
    text = "".join((ROOT / "requirements" / name).read_text() for name in ("lock.txt", "docs.txt"))
    held = re.findall(r"^([\w.-]+)==([\w.]+)", text, flags=re.M)
    return {name.lower().replace("_", "-"): version for name, version in held}


def requirements() -> list[Requirement]:
    """Everything that pyproject.toml asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [
        Requirement(r) for group in (project["dependencies"], *project["optional-dependencies"].values()) for r in group
    ]


def test_ranges_begin_at_what_the_lock_holds_and_end_before_the_next_major_version():
    """The lock is what was tested: each range begins at its version, and its upper bound is the next major one."""
    assert len(requirements()) > 20
    for wanted in requirements():
        held = Version(lock()[wanted.name.lower().replace("_", "-")])
        bounds = {s.operator: Version(s.version) for s in wanted.specifier}
        assert set(bounds) == {">=", "<"} and bounds["<"] == Version(str(held.major + 1)), wanted
        given = bounds[">="].release
        assert given == held.release[: len(given)], f"{wanted}: {held} is what is tested"


def test_the_lock_is_exact_and_holds_no_address():
    held = (ROOT / "requirements/lock.txt").read_text()
    assert not re.search(r"https?:|file:|@ |/|\+cpu", held.split("\n", 1)[1])
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in held.splitlines()[1:])


@pytest.mark.parametrize("name", ["vision", "text", "tables"])
def test_environments_have_the_versions_of_the_lock(name):
    spec = yaml.safe_load((ROOT / f"envs/{name}.yaml").read_text())
    pip = next(d["pip"] for d in spec["dependencies"] if isinstance(d, dict))
    assert pip
    for requirement in pip:
        package, version = requirement.split("==")
        assert lock()[package.lower().replace("_", "-")] == version


@pytest.mark.skipif(not (shutil.which("git") and shutil.which("make")), reason="git or make is not installed")
def test_the_page_of_results_comes_with_a_clone_and_outlives_make_clean(tmp_path):
    for name in (".gitignore", "Makefile", "results/README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "results/tables").mkdir()
    for name in ("results/tables/double_win.csv", "results/report.html"):
        (tmp_path / name).touch()

    def run(*command):
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    run("git", "init", "--quiet")
    run("git", "add", "--all")
    assert run("git", "ls-files").split() == [".gitignore", "Makefile", "results/README.md"]
    run("make", "clean")
    assert [p.name for p in (tmp_path / "results").iterdir()] == ["README.md"]
    shutil.rmtree(tmp_path / "results")
    run("make", "clean")
