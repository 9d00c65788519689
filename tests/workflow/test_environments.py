"""An environment for each rule: what `--sdm conda` does and does not change. conda itself is a stand-in that answers as it would."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

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


class Copy:
    """A copy of the repository over a folder whose jobs are all marked as done; its environment files may be edited."""

    def __init__(self, folder: Path):
        self.folder, self.bin = folder, folder / "conda/bin"
        for name in ("config", "envs", "profiles", "src", "workflow"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        shutil.copy(ROOT / "Snakefile", folder)
        self.bin.mkdir(parents=True)
        base, packages = Path(sys.executable).resolve(), sysconfig.get_paths()["purelib"]
        for name, text in (
            ("bin/conda", CONDA.format(prefix=self.bin.parent)),
            ("bin/activate", ACTIVATE),
            ("python", PYTHON.format(base=base, packages=packages)),
        ):
            (self.bin.parent / name).write_text(text)
            (self.bin.parent / name).chmod(0o755)
        config = yaml.safe_load((ROOT / "tests/workflow/tiny.yaml").read_text())
        config |= yaml.safe_load((ROOT / "tests/workflow/tiny_gems.yaml").read_text())
        (folder / "my.yaml").write_text(yaml.safe_dump(config))

    def snakemake(self, *arguments: str) -> str:
        """What snakemake prints, having ended well."""
        command = [sys.executable, "-m", "snakemake", *arguments, "--configfile", "my.yaml"]
        environment = os.environ | {"PATH": f"{self.bin}:{os.environ['PATH']}"}
        environment.pop("PYTHONPATH", None)
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done.stdout

    def outputs(self, *arguments: str) -> list[dict[str, str]]:
        """Every output with its status and whether a run would write it."""
        head, *rows = [line.split("\t") for line in self.snakemake("--summary", *arguments).splitlines()]
        return [dict(zip(head, row, strict=True)) for row in rows]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """Every output of three small pipelines there (empty) and recorded as done."""
    copy = Copy(tmp_path_factory.mktemp("environments"))
    for row in copy.outputs():
        path = copy.folder / row["output_file"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(exist_ok=True) if path.suffix == ".levels" else path.touch()
    copy.snakemake("--touch", "--forceall", "--cores", "1")
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


def test_winnow_is_found_in_an_environment_that_has_not_got_it(tmp_path):
    copy = Copy(tmp_path / "copy")
    target = "results/rare_gems/tiny/init/signed_constant/s0.safetensors"
    copy.snakemake(target, "--cores", "1", "--sdm", "conda")
    assert (copy.folder / target).stat().st_size > 1000
    assert list((copy.folder / ".snakemake/conda").glob("*/bin/python"))  # it ran in the environment


def test_every_rule_names_its_environment():
    text = "".join(p.read_text() for p in (ROOT / "workflow/rules").glob("*.smk"))
    rules = text.split("\nrule ")[1:]
    assert len(rules) > 35 and not [r.partition(":")[0] for r in rules if "    conda:\n" not in r]


def test_the_container_is_built_from_the_lock_by_the_setup_script():
    recipe = (ROOT / "requirements/Dockerfile").read_text()
    assert "requirements/setup.sh" in recipe and "requirements/lock.txt" not in recipe.replace("COPY requirements", "")
    assert "requirements/lock.txt" in (ROOT / "requirements/setup.sh").read_text()
    copied = {w for line in recipe.splitlines() if line.startswith("COPY") for w in line.split()[1:-1]}
    assert all((ROOT / path).exists() for path in copied) and {"requirements", "pyproject.toml", "src"} <= copied
