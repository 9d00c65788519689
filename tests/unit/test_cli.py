"""The command `winnow`: its words, what it hands to snakemake, and its mistakes in one line."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import ROOT

from winnow import cli, project


def test_help_fits_a_screen_and_names_every_command(capsys):
    assert cli.main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 80
    named = [line.split()[0] for line in lines if line.startswith("  ")]
    assert named == [
        "demo",
        "plan",
        "run",
        "config",
        "status",
        "tickets",
        "evaluate",
        "attack",
        "survive",
        "verify",
        "trace",
        "report",
        "export",
    ]


def test_it_starts_at_once_without_heavy_packages():
    code = (
        "import sys\nfor m in ('torch', 'pandas', 'snakemake', 'matplotlib', 'yaml', 'transformers'): sys.modules[m] "
        "= None\nfrom winnow.cli import main; sys.exit(main(['--help']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_explains_itself(name, capsys):
    try:
        code = cli.main([name, "--help"])
    except SystemExit as end:
        code = end.code
    assert code == 0 and len(capsys.readouterr().out) > 80


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["atack"], "winnow: error: 'atack' is no command; did you mean 'attack'?"),
        (["run", "nowhere.yaml"], "winnow run: error: nowhere.yaml: no such file"),
        (["tickets", "nowhere"], "winnow tickets: error: nowhere: no such folder"),
        (["status", "nowhere"], "winnow status: error: nowhere: no job has run here"),
        (["evaluate", "nowhere"], "winnow evaluate: error: nowhere: no such file"),
        (["config", "nowhere.yaml"], "error: "),
    ],
)
def test_mistakes_are_one_line_and_code_2(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (["results/t.csv"], ["results/t.csv", "--cores", "all"]),
        (["my.yaml", "results/t.csv", "-n"], ["results/t.csv", "-n", "--configfile", "my.yaml"]),
        (["my.yaml", "-c4", "--keep-going"], ["-c4", "--keep-going", "--configfile", "my.yaml"]),
        (["--cores=2"], ["--cores=2"]),
        (["--profile", "slurm"], ["--profile", str(ROOT / "profiles/slurm")]),
        (["--profile", "mine"], ["--profile", "mine"]),
        (["--configfile", "other.yaml"], ["--configfile", "other.yaml", "--cores", "all"]),
    ],
)
def test_run_passes_everything_on_to_snakemake(words, given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").touch()
    called = []
    monkeypatch.setattr(cli, "_snakemake", lambda arguments, warm=False: called.append(list(arguments)) or 0)
    assert cli.main(["run", *words]) == 0 and called == [given]


def test_run_is_snakemake_with_this_workflow(tmp_path):
    """The real thing, planned: jobs of the tiny configuration from a folder that is no checkout."""
    words = ["run", str(ROOT / "tests/workflow/tiny.yaml"), "results/tables/rare_gems.csv", "-n", "--quiet", "rules"]
    done = subprocess.run([sys.executable, "-m", "winnow", *words], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "gem_search" in done.stdout + done.stderr


def test_the_installed_workflow_is_whole():
    """What pyproject.toml lists as data is every file that the Snakefile reads."""
    import tomllib

    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["data-files"]
    there = {f.relative_to(ROOT).as_posix() for patterns in listed.values() for p in patterns for f in ROOT.glob(p)}
    folders = ("workflow", "config", "envs", "profiles")
    wanted = {f.relative_to(ROOT).as_posix() for d in folders for f in (ROOT / d).rglob("*") if f.is_file()}
    assert {w for w in wanted if "__pycache__" not in w} | {"Snakefile"} == there
    for target, patterns in listed.items():
        for pattern in patterns:
            assert target == "/".join(["share/winnow", *pattern.split("/")[:-1]])
    assert project.workflow() == ROOT


def test_a_reader_that_stops_early_is_no_error(tmp_path):
    """`winnow ... | head -0`: more is written than a pipe holds."""
    (tmp_path / "results").mkdir()
    for i in range(3000):
        (tmp_path / "results" / f"{i:0100}.log").write_text("Traceback (most recent call last):\n")
    script = "import winnow.status as s; s.MOST = 3000; from winnow.cli import main; raise SystemExit(main(['status']))"
    done = subprocess.run(["bash", "-c", f'{sys.executable} -c "{script}" | true; exit ${{PIPESTATUS[0]}}'],
                          cwd=tmp_path, capture_output=True, text=True)  # fmt: skip
    assert done.stderr == "" and done.returncode == 0
