"""The report of a finished workflow: its words, and how it looks in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Workflow

pytestmark = pytest.mark.slow
BROWSER = next((b for n in ("chromium", "chromium-browser", "google-chrome") if (b := shutil.which(n))), None)
# Written into a copy of the page: what is where, as JSON in the title
MEASURE = """<script>window.addEventListener("load", () => {
  const box = (e) => e.getBoundingClientRect(), all = (q) => [...document.querySelectorAll(q)];
  document.title = JSON.stringify({
    width: innerWidth, height: innerHeight, page: document.documentElement.scrollWidth,
    verdicts: all("#verdicts p").map((e) => box(e).bottom), ran: box(document.querySelector("#ran")).bottom,
    clipped: all(".card .wide").filter((e) => e.scrollWidth > e.clientWidth).length, cards: all(".card table").length,
    columns: all(".card table").map((t) => t.rows[0].cells.length), open: all("details[open]").length, images: all("img").length,
    broken: all("img").filter((i) => i.naturalWidth === 0).length,
  });
});</script>"""


@pytest.fixture(scope="module")
def report(finished: Workflow, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page, twice: the same bytes."""
    folder, pages = tmp_path_factory.mktemp("report"), []
    for name in ("one.html", "two.html"):
        command = [sys.executable, "-m", "winnow", "report", "results", "--out", str(folder / name)]
        done = subprocess.run(command, cwd=finished.folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        pages.append((folder / name).read_text(encoding="utf-8"))
    assert pages[0] == pages[1]
    return pages[0]


def test_it_opens_with_a_verdict_for_each_pipeline_and_with_what_ran(report):
    words = re.sub(r"<[^>]+>", " ", report[: report.index('id="double_win"')])
    for title in ("Double-win tickets.", "Robust BERT tickets.", "Rare gems."):
        assert title in words
    assert "1 seed, so nothing is known of chance" in words or "none of" in words
    assert "every one was verified" in words and "snakemake --cores 2" in words and "CPUs" in words
    assert 'href="http' not in report and 'src="http' not in report  # nothing from elsewhere


def test_everything_else_is_there_and_folded(report, finished):
    for name in ("double_win", "robust_bert", "rare_gems"):
        header = (finished.folder / f"results/tables/{name}.csv").read_text().splitlines()[0].split(",")
        part = report[report.index(f'id="{name}"') :]
        assert all(re.search(f"<th[^>]*>{column}</th>", part) for column in header)
    assert report.count("<details") > 20 and "<details open" not in report
    assert report.count("input on the left; dashed: the whole ticket") >= 20  # a chart for each ticket


@pytest.mark.skipif(BROWSER is None, reason="no chromium here")
@pytest.mark.parametrize(("width", "height"), [(1400, 900), (800, 900)])
def test_in_a_browser_verdicts_are_above_the_fold_and_nothing_scrolls_sideways(report, tmp_path, width, height):
    file = tmp_path / "report.html"
    file.write_text(report.replace("</body>", f"{MEASURE}</body>"), encoding="utf-8")
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
     f"--user-data-dir={tmp_path / 'b'}",
               f"--window-size={width},{height}", "--virtual-time-budget=5000", "--dump-dom",
               file.as_uri()]  # fmt: skip
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    title = re.search(r"<title>(\{.*?\})</title>", shown)
    assert title, shown[:2000]
    found = json.loads(title[1])
    assert found["width"] == width and found["page"] <= width
    assert len(found["verdicts"]) >= 3 and max(found["verdicts"]) <= found["height"] <= height
    assert found["cards"] == 3 and found["clipped"] == 0 and max(found["columns"]) <= 8
    assert found["open"] == 0 and found["images"] == 3 and found["broken"] == 0
    if width == 1400:
        assert found["ran"] <= found["height"]


def test_figures_come_as_svg_with_text_pdf_and_png_of_300_dpi(finished):
    from PIL import Image

    for figure in ("double_win/down-100", "robust_bert/embedded", "rare_gems/tiny"):
        path = finished.folder / "results/figures" / figure
        assert "remaining weights (%)" in Path(f"{path}.svg").read_text()
        assert Path(f"{path}.pdf").read_bytes().startswith(b"%PDF")
        assert round(Image.open(f"{path}.png").info["dpi"][0]) == 300
