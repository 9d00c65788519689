"""What is said of public data sets without opening them is what the loaders find."""

from __future__ import annotations

from pathlib import Path

import pytest

from winnow.config.parts import Data
from winnow.config.public_data import PUBLIC
from winnow.config.text import TextData
from winnow.text.data import load_text
from winnow.vision import sources


def test_digits():
    sets = sources.load(Data(dataset="digits", val_images=100), Path("data"))
    assert (sets.num_classes, len(sets.train) + len(sets.val), len(sets.test)) == PUBLIC["digits"][:3]


def test_the_embedded_texts():
    known = PUBLIC["embedded"]
    data = TextData(dataset="embedded", classes=known.classes)
    found = load_text(data, Path("data"))
    assert len(found["test"].labels) == known.test
    assert sum(len(part.labels) for name, part in found.items() if name != "test") == known.train


@pytest.mark.parametrize(("file", "count"), [("train", PUBLIC["sst2"].train), ("dev", PUBLIC["sst2"].test)])
def test_sst2(shared, file, count):
    data = TextData(
        dataset="file", train_path=f"sst2_glue_{file}.tsv.gz", test_path=f"sst2_glue_{file}.tsv.gz", val_fraction=0
    )
    assert len(load_text(data, shared / "data", wanted=("test",))["test"].labels) == count
