"""winnow as a module of another workflow: its sources are found beside its own Snakefile, its configuration is what it
is given.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pandas as pd
import pytest
import yaml
from conftest import ROOT

pytestmark = pytest.mark.slow
HOST = f"""
configfile: "host.yaml"


module winnow:
    snakefile:
        "{ROOT}/Snakefile"
    config:
        config["tickets"]


use rule * from winnow as winnow_*


rule all:
    default_target: True
    input:
        "sparsest.txt",


rule sparsest:
    input:
        "results/tables/double_win.csv",
    output:
        "sparsest.txt",
    shell:
        "tail -n 1 {{input}} | cut -d, -f6 > {{output}}"
"""


def snakemake(folder, *arguments):
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


def test_another_workflow_takes_winnow_and_goes_on_from_its_table(tmp_path):
    config = yaml.safe_load((ROOT / "tests/slurm/small.yaml").read_text())
    config["double_win"]["transfer"] = {"methods": ["dense"]}
    (tmp_path / "host.yaml").write_text(yaml.safe_dump({"mine": 1, "tickets": config}))
    (tmp_path / "Snakefile").write_text(HOST)
    done = snakemake(tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "rule winnow_pretrain" in done.stderr + done.stdout or "winnow_pretrain" in done.stderr + done.stdout
    assert len(pd.read_csv(tmp_path / "results/tables/double_win.csv")) == 1
    assert float((tmp_path / "sparsest.txt").read_text()) == 0
    again = snakemake(tmp_path, "-n")
    assert "Nothing to be done" in again.stdout + again.stderr


def test_a_mistake_in_the_part_that_it_is_given_is_one_line(tmp_path):
    config = yaml.safe_load((ROOT / "tests/slurm/small.yaml").read_text())
    config["double_win"]["sauce"] = config["double_win"]["source"]
    (tmp_path / "host.yaml").write_text(yaml.safe_dump({"tickets": config}))
    (tmp_path / "Snakefile").write_text(HOST)
    done = snakemake(tmp_path, "-n")
    assert done.returncode != 0 and "config.double_win.sauce: unknown key; did you mean" in done.stdout + done.stderr


def test_the_catalog_finds_what_it_asks_for():
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert usage["software-stack-deployment"] == {"conda": True, "apptainer": True} and usage["report"] is True
    assert set(usage["mandatory-flags"]) == {"desc", "flags"} and (ROOT / "Snakefile").is_file()


def test_a_container_is_that_of_every_rule(tmp_path, monkeypatch):
    config = yaml.safe_load((ROOT / "tests/slurm/small.yaml").read_text()) | {"container": "docker://winnow"}
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "bin").mkdir()
    for name in ("apptainer", "singularity"):  # a dry run asks them for their version alone
        (tmp_path / "bin" / name).write_text("#!/bin/sh\necho apptainer version 1.3.4\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    words = [
        "-n",
        "--forceall",
        "--sdm",
        "apptainer",
        "--snakefile",
        str(ROOT / "Snakefile"),
        "--configfile",
        "my.yaml",
    ]
    done = snakemake(tmp_path, "results/tables/double_win.csv", *words)
    assert done.returncode == 0 and "Singularity image docker://winnow will be pulled" in done.stdout + done.stderr
