"""README's example is a whole configuration, whose keys are found where they stand."""

from __future__ import annotations

import re

from conftest import ROOT

from winnow.config.root import load_files

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_is_complete(tmp_path):
    example = re.findall(r"```yaml\n(# my\.yaml.*?)```", TEXT, flags=re.S)
    assert len(example) == 1
    file = tmp_path / "my.yaml"
    file.write_text(example[0])
    root, document = load_files([file], {"check_data": False})
    section = root.double_win
    assert section is not None and [d.data.path for d in section.downstreams] == ["flowers", "insects"]
    assert section.source.data.classes is None and document.given(["double_win", "imp", "rounds"]) == f"{file}:18"
