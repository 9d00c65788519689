"""What an earlier version wrote stays readable: one small artifact of each kind and version of the formats (made by
make.py).
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from winnow.artifacts import FORMAT_VERSION, METADATA_KEY, read_metadata, seal_holds
from winnow.errors import WinnowError

from .contents import contents

HERE = Path(__file__).resolve().parent
VERSIONS = sorted(HERE.glob("v*"))


def test_there_is_a_folder_for_every_version():
    assert [p.name for p in VERSIONS] == [f"v{n}" for n in range(1, FORMAT_VERSION + 1)]


@pytest.mark.parametrize("folder", VERSIONS, ids=lambda p: p.name)
def test_every_kind_reads_as_it_was_written(folder):
    assert json.loads(json.dumps(contents(folder))) == json.loads((folder / "expected.json").read_text())


@pytest.mark.parametrize("folder", VERSIONS, ids=lambda p: p.name)
def test_every_seal_holds(folder):
    sealed = [p for p in folder.rglob("*") if p.suffix in (".safetensors", ".json") and seal_holds(p) is not None]
    assert len(sealed) >= 10 and all(seal_holds(p) for p in sealed)


def test_a_file_of_a_newer_version_says_so(tmp_path):
    save_file(
        {"a": np.ones(1, np.uint8)}, tmp_path / "new.safetensors", metadata={METADATA_KEY: json.dumps({"format": 99})}
    )
    with pytest.raises(WinnowError, match="is of format 99, this winnow reads formats up to"):
        read_metadata(tmp_path / "new.safetensors")
