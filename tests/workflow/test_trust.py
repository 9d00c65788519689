"""The three finished pipelines can be trusted: two runs are the same, everything verifies, traces back, and is
reported.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from winnow.records import artifacts, differences
from winnow.stages import report, trace, verify

from .conftest import Workflow

pytestmark = pytest.mark.slow
CHAIN = "results/double_win/tiny/std/s0"
BROWSER = next((b for b in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if b), None)


def test_a_second_run_does_nothing(finished):
    done = finished.snakemake("--dry-run", "--cores", "2")
    assert done.returncode == 0 and "Nothing to be done" in done.stderr + done.stdout


def test_two_runs_in_two_folders_give_the_same_bytes(finished, tmp_path):
    again = Workflow(tmp_path / "again", finished.config, finished.snakefile)
    again.folder.mkdir()
    again.run()
    found, count = differences(finished.folder / "results", again.folder / "results")
    assert found == [] and count > 150
    kinds = {"".join(f.suffixes[-2:]) for f in artifacts(finished.folder / "results")}
    assert {".mask.safetensors", ".csv", ".svg", ".jsonl", ".pth.tar"} <= kinds


def test_everything_verifies_and_every_table_traces_back(finished, monkeypatch, capsys):
    monkeypatch.chdir(finished.folder)
    assert verify.main(["results"]) == 0
    assert re.fullmatch(r"results: \d+ artifacts, 0 bad\n", capsys.readouterr().out)
    reached = ""
    for table in ("double_win", "robust_bert", "rare_gems"):
        assert trace.main([f"results/tables/{table}.csv"]) == 0
        reached += capsys.readouterr().out
    for stage in (
        "pretrain seed 0",
        "import_text_model seed 0",
        "search_robust_ticket seed 0",
        "gem_search seed 0",
        "train seed 0",
    ):
        assert f"  {stage}  verified" in reached
    assert "not made by winnow" not in reached


def test_what_verify_says_to_delete_is_made_again(finished, tmp_path, monkeypatch, capsys):
    copy = finished.copy(tmp_path / "copy")
    monkeypatch.chdir(copy.folder)
    level = next(Path("results/rare_gems/tiny/gem/s0/search/10.levels").glob("*.safetensors"))
    tokenizer = Path("results/robust_bert/tiny_bert/embedded/s0/dense/tokenizer.json")
    for file in (level, tokenizer):
        file.write_bytes(file.read_bytes()[:-40])
    assert verify.main([]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].endswith("2 bad")
    remove, _, again = lines[-1].removeprefix("to mend: rm -f ").partition(" && snakemake --cores 2 ")
    for file in remove.split():
        Path(file).unlink()
    pending = copy.snakemake("--summary", *again.split()).stdout
    assert re.search(r"gem_search\t.*update pending", pending) and re.search(
        r"finetune_text\t.*update pending", pending
    )


def test_a_second_checkout_takes_finished_work_from_the_store(finished, tmp_path):
    """Dense weights and both IMP rounds: computed once, then taken, byte for byte."""
    target = f"{CHAIN}/trained/imp-std-2.safetensors"
    folders = [Workflow(tmp_path / name, finished.config | {"store": str(tmp_path / "store")}) for name in "ab"]
    for workflow in folders:
        workflow.folder.mkdir()
        workflow.run(target)
    assert differences(*(w.folder / "results" for w in folders))[0] == []
    for log in ("pretrain", "imp_train-std-1", "imp_train-std-2"):
        first, second = ((w.folder / CHAIN / f"logs/{log}.log").read_text() for w in folders)
        assert "epoch 1/1" in first and "put into the store" in first
        assert "epoch" not in second and "taken from the store, nothing is computed" in second


@pytest.fixture(scope="module")
def page(finished, tmp_path_factory) -> Path:
    """The report of the finished workflow."""
    out = tmp_path_factory.mktemp("report") / "report.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(finished.folder)
        assert report.main(["results", "--captions", str(ROOT / "workflow/report"), "--out", str(out)]) == 0
    return out


def test_the_report_needs_nothing_but_itself_and_holds_everything(page):
    text = page.read_text(encoding="utf-8")
    assert not re.search(r'(?:src|href|action)="(?!data:|#)|@import|url\(|https?://(?!www\.w3\.org)', text)
    assert "every one was verified" in text and "iterative magnitude pruning" in text and text.count("<img ") == 3
    for shown in (
        "imp-std-2.mask.safetensors",
        "layer1.0.conv1.weight",
        "remaining (%)",
        "search_robust_ticket",
        "adv_ra_mean",
    ):
        assert shown in text, shown


@pytest.mark.skipif(BROWSER is None, reason="no chromium here (Debian: apt-get install chromium)")
def test_the_report_works_in_a_browser(page, tmp_path):
    """No error on the console, every figure drawn, a click sorts the table by that column, a second click the other
    way.
    """
    checks = """<script>addEventListener("load", () => {
      const place = (t) => [...t.rows[0].cells].findIndex((c) => c.textContent === "adv_sa_mean");
      const table = [...document.querySelectorAll("table")].find((t) => place(t) >= 0), head = place(table);
      const column = () => [...table.tBodies[0].rows].map((r) => Number(r.cells[head].title || r.cells[head].textContent));
      table.rows[0].cells[head].click(); const up = column(); table.rows[0].cells[head].click(); const down = column();
      const drawn = [...document.images].filter((i) => i.complete && i.naturalWidth > 99 && i.getBoundingClientRect().height > 99);
      document.title = JSON.stringify({up, down, drawn: drawn.length, images: document.images.length});
    });</script>"""
    tried = tmp_path / "tried.html"
    tried.write_text(page.read_text(encoding="utf-8").replace("</body>", checks + "</body>"), encoding="utf-8")
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        f"--user-data-dir={tmp_path}/profile",
    ]
    done = subprocess.run(
        [str(BROWSER), *options, "--virtual-time-budget=5000", "--dump-dom", tried.as_uri()],
        capture_output=True,
        text=True,
    )
    assert "CONSOLE" not in done.stderr, done.stderr
    title = re.search(r"<title>(\{.*?\})</title>", done.stdout)
    assert title, done.stdout[:2000] + done.stderr[-2000:]
    seen = json.loads(title[1])
    assert seen["drawn"] == seen["images"] == 3
    assert (
        len(set(seen["up"])) > 1
        and seen["up"] == sorted(seen["up"])
        and seen["down"] == sorted(seen["down"], reverse=True)
    )


def test_commands_run_from_the_command_line(finished):
    done = subprocess.run(
        [sys.executable, "-m", "winnow.stages.verify"], capture_output=True, text=True, cwd=finished.folder
    )
    assert done.returncode == 0 and done.stdout.endswith(" artifacts, 0 bad\n"), done.stdout + done.stderr
