"""The pages: every configuration, command, path and link on them is one that works; consoles are typed and compared."""

from __future__ import annotations

import doctest
import functools
import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from winnow import cli
from winnow.config.root import load_files
from winnow.errors import WinnowError
from winnow.pipelines.double_win.grid import grid_of
from winnow.schema import parse
from winnow.stage import Stage

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "results/README.md"])
NAMES = [p.relative_to(ROOT).as_posix() for p in PAGES]
MISTAKES = "docs/troubleshooting.md"
# Commands of others that pages name, with what is checked of them: that is all
OTHERS = {"docker", "git", "hf", "mkdir", "openssl", "pip", "printf", "scancel", "export"}


def blocks(page: str, kind: str) -> list[str]:
    """The fenced blocks of one kind."""
    return re.findall(rf"^```{kind}\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), flags=re.S | re.M)


def with_blocks(kind: str) -> list[str]:
    return [name for name in NAMES if blocks(name, kind)]


def typed(page: str) -> list[list[str]]:
    """The words of every command in `sh` and `console` blocks."""
    lines = [line for block in blocks(page, "sh") for line in block.replace("\\\n", " ").splitlines()]
    if page != MISTAKES:
        lines += [line[2:] for block in blocks(page, "console") for line in block.splitlines() if line.startswith("$ ")]
    found = [shlex.split(line, comments=True) for line in lines]
    return [[w for i, w in enumerate(words) if i or "=" not in w] for words in found if words]


@pytest.mark.parametrize("page", with_blocks("yaml"))
def test_whole_configurations_are_taken(page, tmp_path, monkeypatch):
    """A block that names its file is whole: it stands alone, or on the base that it names."""
    monkeypatch.chdir(tmp_path)
    for block in blocks(page, "yaml"):
        if match := re.match(r"# (\w+\.yaml)", block):
            Path(match[1]).write_text(block)
            assert load_files([Path(match[1])], {"check_data": False})[0].sections()


@functools.cache
def snakemake_options() -> str:
    return subprocess.run([sys.executable, "-m", "snakemake", "--help"], capture_output=True, text=True).stdout


def help_of(command, capsys) -> str:
    with pytest.raises(SystemExit):
        command(["--help"])
    return capsys.readouterr().out


def check(words: list[str], capsys) -> None:
    """AssertionError for a command, option, target or file that is not there."""
    name, *rest = words
    name = name.removeprefix(".venv/bin/")
    if name == "make":
        makefile = (ROOT / "Makefile").read_text()
        assert all(re.search(rf"^{w}:", makefile, flags=re.M) for w in rest if "=" not in w and w[0] != "-")
        assert all(re.search(rf"^{w.partition('=')[0]} \?=", makefile, flags=re.M) for w in rest if "=" in w)
        return
    if name == "python" and rest[0] == "-m":
        module = rest[1]
        assert (ROOT / "src" / f"{module.replace('.', '/')}.py").is_file() or (ROOT / module.replace(".", "/")).exists() \
            or (ROOT / f"{module.replace('.', '/')}.py").is_file(), module  # fmt: skip
        if not module.startswith("winnow.stages."):
            return
        own = importlib.import_module(module)
        stage = next((v for v in vars(own).values() if isinstance(v, Stage)), None)
        known, rest = help_of(stage.run if stage else own.main, capsys), rest[2:]
        if stage and "--config" in rest:
            parse(stage.config, json.loads(rest[rest.index("--config") + 1]), "config")
    elif name == "winnow":
        assert rest[0] in cli.COMMANDS, rest[0]
        command = cli.COMMANDS[rest[0]][1]
        passed_on = rest[0] in ("run", "plan", "demo", "config")
        known = snakemake_options() + "--each" if passed_on else help_of(command, capsys)
        if rest[0] == "verify":
            known += help_of(cli._later("winnow.share.command", "verify"), capsys)
    elif name == "snakemake":
        known = snakemake_options()
    else:
        assert name in OTHERS, f"{name} is no command that a page may name without a check"
        return
    for word in rest:
        if word.startswith("-") and not word.lstrip("-")[:1].isdigit():
            assert re.search(rf"(?<![\w-]){re.escape(word.partition('=')[0])}(?![\w-])", known), f"{name} {word}"
        if re.match(r"(config|profiles|examples|requirements)/", word):
            assert (ROOT / word).exists(), word


@pytest.mark.parametrize("page", [n for n in NAMES if typed(n)])
def test_commands_have_the_options_and_files_that_they_name(page, capsys):
    for words in typed(page):
        check(words, capsys)


def test_a_command_that_is_not_there_is_noticed(capsys):
    for line in ("winnow stats", "winnow attack W --epsilon 1", "make demos", "make demo CORE=2", "rm -rf data",
                 "python -m winnow.stages.prune --masks a", "python -m winnow.stages.prunes", "snakemake --core 2",
                 "winnow run config/papers/double_win.yaml",
                 "python -m winnow.stages.pack_images --config '{\"size\": 8}' --source a --out b"):  # fmt: skip
        with pytest.raises((AssertionError, WinnowError)):
            check(shlex.split(line), capsys)


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as GitHub and the site make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    heads = re.findall(r"^#+ (.*)$", text, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in heads}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    for target, _, anchor in (link.partition("#") for link in re.findall(r"\]\((?!https?:)([^)]+)\)", text)):
        other = page.parent / target if target else page
        assert other.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(other), f"{page.name}: {target}#{anchor}"


def test_every_page_is_in_the_site():
    listed = {line for block in blocks("docs/index.md", "{toctree}") + blocks("docs/results/README.md", "{toctree}")
              for line in block.splitlines() if re.match(r"[\w./]", line)}  # fmt: skip
    stems = {re.sub(r".*<(.*)>", r"\1", line).rpartition("/")[2] for line in listed}
    assert {p.stem for p in PAGES} - {"index"} == stems


@functools.cache
def shell(folder: str) -> dict[str, str]:
    """The environment of a shell in which `winnow` is this one."""
    shim = Path(folder) / "winnow"
    shim.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m winnow "$@"\n')
    shim.chmod(0o755)
    return os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "src")}


def type_in(page: str, folder: Path, environment: dict[str, str]) -> None:
    """Type what stands after each `$ ` and compare what is shown with what follows; `...` stands for anything."""
    for block in blocks(page, "console"):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, wanted = part.partition("\n")
            done = subprocess.run(["bash", "-c", command], cwd=folder, env=environment, text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
            flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            assert doctest.OutputChecker().check_output(wanted, done.stdout, flags), f"{command}\n{done.stdout}"


def test_the_mistakes_on_the_page_of_troubles_are_answered_as_it_says(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "work").mkdir()
    type_in(MISTAKES, tmp_path / "work", shell(str(tmp_path / "bin")))


def test_the_tutorial_s_paths_are_those_of_the_embedded_default():
    section = load_files([])[0].double_win
    outputs = {run.folder for run in grid_of(section).runs()}
    named = set(re.findall(r"(results/double_win/\S+/s0)/best_ra", (ROOT / "docs/tutorial.md").read_text()))
    assert len(named) == 1 and named <= outputs


def test_the_tutorial_on_a_finished_demo(tmp_path):
    """Where `make demo` has been run in this checkout, or where WINNOW_DEMO says."""
    demo = Path(os.environ.get("WINNOW_DEMO", ROOT))
    results = demo / "results"
    if not (results / "tables/double_win.csv").is_file() or not (results / "double_win/digits04").is_dir():
        pytest.skip("make demo has not been run here")
    work = tmp_path / "work"
    work.mkdir()
    shutil.copytree(demo / "results", work / "results")
    shutil.copytree(demo / ".snakemake/log", work / ".snakemake/log")
    (tmp_path / "bin").mkdir()
    type_in("docs/tutorial.md", work, shell(str(tmp_path / "bin")))


def test_the_method_on_its_page_is_a_method_everywhere(tmp_path):
    source = tmp_path / "src/winnow"
    shutil.copytree(ROOT / "src/winnow", source, ignore=shutil.ignore_patterns("__pycache__"))
    file, entry, use = blocks("docs/method.md", "python")
    (source / "prune/uniform.py").write_text(file)
    methods = (source / "prune/methods.py").read_text()
    (line,) = [line for line in entry.splitlines() if line.startswith("    ")]
    (source / "prune/methods.py").write_text(methods.replace("METHODS = {\n", f"METHODS = {{\n{line}\n"))
    used = "from winnow.pipelines.double_win.config import METHODS as images\n" \
        "from winnow.pipelines.rare_gems.config import FOR_IMAGES as gems\n" \
        "from winnow.pipelines.robust_bert.config import METHODS as texts\n" \
        "assert 'uniform' in images and 'uniform' in gems and 'uniform_ticket' in texts\n" \
        "assert [round(row['remaining_percent']) for row in ticket.report()] == [10, 10, 10]\n"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", use + used], capture_output=True, text=True, cwd=tmp_path,
                          env=os.environ | {"PYTHONPATH": str(tmp_path / "src")})  # fmt: skip
    assert done.returncode == 0, done.stderr
