"""An environment for each rule: what `--sdm conda` does and does not change. conda itself is a stand-in that answers as
it would.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, copy_of_project

from .conftest import Workflow

pytestmark = pytest.mark.slow

CONDA = """#!/bin/sh
case "$*" in
    "info --json") echo '{{"conda_prefix": "{prefix}", "platform": "linux-64"}}' ;;
    "--version") echo "conda 25.1.0" ;;
    "config --get channel_priority --json") echo '{{"get": {{"channel_priority": "strict"}}}}' ;;
    "env create"*)
        for word; do folder=$word; done
        mkdir -p "$folder/bin" "$folder/conda-meta"
        cp "{prefix}/python" "$folder/bin/python" ;;
    "clean"*) ;;
    *) echo "conda $*: not known here" >&2; exit 1 ;;
esac
"""
ACTIVATE = 'export PATH="$1/bin:$PATH"\n'
# The base interpreter with the packages and nothing else: no .pth file is read, so an installed winnow is not seen
PYTHON = '#!/bin/sh\nPYTHONPATH="$PYTHONPATH:{packages}" exec {base} -S "$@"\n'


class Copy(Workflow):
    """A copy of the repository that is its own working folder, with conda on its PATH; its environment files may be
    edited.
    """

    def __init__(self, folder: Path, config: dict[str, Any]):
        super().__init__(folder, config, copy_of_project(folder))
        conda, base, packages = folder / "conda", Path(sys.executable).resolve(), sysconfig.get_paths()["purelib"]
        (conda / "bin").mkdir(parents=True)
        for name, text in (
            ("bin/conda", CONDA.format(prefix=conda)),
            ("bin/activate", ACTIVATE),
            ("python", PYTHON.format(base=base, packages=packages)),
        ):
            (conda / name).write_text(text)
            (conda / name).chmod(0o755)
        self.environment |= {"PATH": f"{conda / 'bin'}:{os.environ['PATH']}"}
        self.environment.pop("PYTHONPATH", None)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_config: dict[str, Any]) -> Copy:
    """Every output of three small pipelines there (empty) and recorded as done."""
    copy = Copy(tmp_path_factory.mktemp("environments"), tiny_config)
    copy.mark_finished()
    return copy


@pytest.mark.parametrize("deployment", [[], ["--sdm", "conda"]], ids=["plain", "conda"])
def test_toggling_conda_reruns_nothing(done, deployment):
    rows = done.outputs(*deployment)
    assert len(rows) > 100 and not [row for row in rows if row["plan"] != "no update"]


@pytest.mark.parametrize("deployment", [[], ["--sdm", "conda"]], ids=["plain", "conda"])
@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("tables", ("results/tables/", "results/figures/")),
        ("text", ("results/robust_bert/", "data/attack_assets/")),
        ("vision", ("results/double_win/", "results/rare_gems/")),
    ],
)
def test_an_edited_environment_makes_exactly_its_rules_stale(done, name, inside, deployment):
    path = done.folder / f"envs/{name}.yaml"
    before = path.read_text()
    try:
        path.write_text(before.replace("tqdm==4.70.1", "tqdm==4.70.0"))
        assert path.read_text() != before
        rows = done.outputs(*deployment)
    finally:
        path.write_text(before)
    changed = {row["output_file"] for row in rows if row["status"] == "params changed"}
    assert changed == {row["output_file"] for row in rows if row["output_file"].startswith(inside)} != set()


def test_winnow_is_found_in_an_environment_that_has_not_got_it(tmp_path, tiny_config):
    copy = Copy(tmp_path / "copy", tiny_config)
    target = "results/rare_gems/tiny/init/signed_constant/s0.safetensors"
    copy.run(target, "--sdm", "conda")
    assert (copy.folder / target).stat().st_size > 1000
    assert list((copy.folder / ".snakemake/conda").glob("*/bin/python"))  # it ran in the environment


def test_every_rule_names_its_environment():
    text = "".join(p.read_text() for p in (ROOT / "workflow/rules").glob("*.smk"))
    rules = re.split(r"\n(?=(?:use )?rule )", text)[1:]
    own = {r.split()[1].rstrip(":"): r for r in rules if r.startswith("rule ")}
    # these take the environment of the rule that they name
    taken = {r.split()[2] for r in rules if r.startswith("use ")}
    assert len(rules) > 30 and taken <= set(own) and not [n for n, r in own.items() if "    conda:\n" not in r]


def test_the_container_is_built_from_the_lock_by_the_setup_script():
    recipe = (ROOT / "requirements/Dockerfile").read_text()
    assert "requirements/setup.sh" in recipe and "requirements/lock.txt" not in recipe.replace("COPY requirements", "")
    assert "requirements/lock.txt" in (ROOT / "requirements/setup.sh").read_text()
    copied = {w for line in recipe.splitlines() if line.startswith("COPY") for w in line.split()[1:-1]}
    assert all((ROOT / path).exists() for path in copied) and {"requirements", "pyproject.toml", "src"} <= copied


def requirements(names: set[str]) -> set[str]:
    """These packages and all that they need, here."""
    found, left = set(), {re.sub(r"[-_.]+", "-", name).lower() for name in names}
    while left:
        name = left.pop()
        found.add(name)
        try:
            lines = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        needed = {re.match(r"[\w.-]+", line)[0] for line in lines if "extra ==" not in line}
        left |= {re.sub(r"[-_.]+", "-", n).lower() for n in needed} - found
    return found


@pytest.mark.parametrize(
    ("env", "stages"),
    [
        ("tables", ["double_win_table", "double_win_plots", "rare_gems_table", "robust_bert_table"]),
        ("text", ["import_text_model", "finetune_text", "search_robust_ticket", "attack_text"]),
        ("vision", ["pretrain", "prune", "train", "transfer", "evaluate", "autoattack", "gem_init", "gem_search"]),
    ],
)
def test_an_environment_has_what_its_stages_import_at_once(env, stages):
    named = yaml.safe_load((ROOT / f"envs/{env}.yaml").read_text())["dependencies"][-1]["pip"]
    there = requirements({line.partition("==")[0] for line in named})
    code = "import sys; before = set(sys.modules); "
    code += "; ".join(f"import winnow.stages.{stage}" for stage in stages)
    code += "; print(*sorted({m.partition('.')[0] for m in set(sys.modules) - before}))"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    owners = metadata.packages_distributions()
    for module in set(done.stdout.split()) - {"winnow", *sys.stdlib_module_names}:
        names = {re.sub(r"[-_.]+", "-", name).lower() for name in owners.get(module, [])}
        assert not names or names & there, f"{module} is not in envs/{env}.yaml"
