"""Damaged weights and mask files: each is read, or refused in one line; WINNOW_FUZZ=2000 takes as many examples a
reader.
"""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import MODEL, shared_folder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from winnow import WinnowError
from winnow.config.parts import Model
from winnow.interchange import fit, read_checkpoint, tickets_from_file, write_layout
from winnow.prune.counts import keep_largest
from winnow.schema import parse
from winnow.ticket import Ticket
from winnow.vision.models import build

torch.manual_seed(0)
NET = build(parse(Model, MODEL), 3)
STATE = NET.state_dict()
SHAPES = {k: tuple(v.shape) for k, v in STATE.items()}
EXAMPLES = int(os.environ.get("WINNOW_FUZZ", "100"))


def saved(value, **keys) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **keys)
    return buffer.getvalue()


def exported(layout: str) -> bytes:
    ticket = Ticket(keep_largest({n: p.detach().numpy() for n, p in NET.named_parameters() if p.dim() == 4}, 1000))
    with tempfile.TemporaryDirectory() as folder:
        write_layout(Path(folder) / "f", layout, ticket, STATE)
        return (Path(folder) / "f").read_bytes()


FILES = {
    "w.pth": lambda: saved({"state_dict": STATE, "best_acc1": torch.tensor(1.0), "acc": np.float64(1.0)}),
    "old.pth": lambda: saved(STATE, _use_new_zipfile_serialization=False),
    "t.pth.tar": lambda: exported("double_win"),
    "g.pt": lambda: exported("gem_miner"),
    "m.npy": lambda: exported("imp_mask"),
    "w.safetensors": lambda: save({k: v.contiguous() for k, v in STATE.items()}),
}


def attempt(file: Path) -> None:
    """Read `file` as weights and as a ticket: a WinnowError of one line is the only way to fail."""
    try:
        state = read_checkpoint(file)
        fit(state, SHAPES)
        tickets_from_file(state, file.name, SHAPES).ticket.check_fits(SHAPES)
    except WinnowError as error:
        assert "\n" not in str(error) and str(error)


@pytest.mark.parametrize("name", FILES)
def test_damaged_files(name, tmp_path):
    whole = FILES[name]()
    file = tmp_path / name
    early = st.integers(0, min(len(whole), 4000) - 1)  # headers and pickles, where a byte means something
    places = st.one_of(early, st.integers(max(0, len(whole) - 4000), len(whole) - 1), st.integers(0, len(whole) - 1))

    @settings(
        max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=EXAMPLES == 100
    )
    @given(st.lists(st.tuples(places, st.binary(min_size=0, max_size=3)), min_size=1, max_size=4), st.none() | places)
    def damaged(edits, end):
        data = bytearray(whole)
        for place, values in edits:
            data[place : place + max(1, len(values))] = values
        file.write_bytes(bytes(data[:end]))
        attempt(file)

    file.write_bytes(whole)
    attempt(file)
    damaged()


tensors = st.builds(
    lambda shape, fill: torch.full(shape, fill),
    st.sampled_from([(), (1,), (4,), (4, 3), (4, 3, 3, 3), (1, 4, 1, 3), (3, 16), (3, 16, 1, 1), (0,)]),
    st.sampled_from([0.0, 1.0, 0.5, 20.0, float("nan")]),
)
names = st.sampled_from(
    ["conv1.weight", "conv1.weight_mask", "conv1.weight_orig", "conv1.flag", "conv1.scores", "conv1.mask.mask_scores",
     "fc.flag",
     "fc.weight", "fc.mask_scores", "fc.weight_mask", "conv1.bias_flag", "mean", "a.b", "", ".flag", "_mask", "x"]
)  # fmt: skip
values = st.recursive(
    tensors | st.integers() | st.text(max_size=3) | st.none(), lambda inner: st.lists(inner, max_size=2)
)
prefixes = st.sampled_from(["", "module.", "1.", "model.module."])


def mappings(keys, inner):
    return st.tuples(prefixes, st.dictionaries(keys, inner, max_size=6)).map(
        lambda t: {t[0] + k: v for k, v in t[1].items()}
    )


@settings(
    max_examples=3 * EXAMPLES, deadline=None, derandomize=EXAMPLES == 100, suppress_health_check=list(HealthCheck)
)
@given(
    st.one_of(values, mappings(names, values), st.dictionaries(st.sampled_from(["state_dict", "model", "net", "x"]),
              mappings(names, tensors), max_size=2)),
    st.sampled_from(["auto", "flags", "flags_and_scores", "ep", "global_ep", "weights"]),
    st.none() | st.floats(0.1, 100),
)  # fmt: skip
def test_odd_contents(content, rule, remaining):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "odd.pth"
        torch.save(content, file)
        try:
            state = read_checkpoint(file)
            fit(state, SHAPES)
            tickets_from_file(state, "odd.pth", SHAPES, remaining, rule).ticket.check_fits(SHAPES)
        except WinnowError as error:
            assert "\n" not in str(error) and str(error)


@pytest.mark.skipif(shared_folder() is None, reason="the reference data (WINNOW_SHARED, or ../shared) is not there")
def test_damaged_released_masks(tmp_path):
    whole = (shared_folder() / "golden/released/checkpoints/imp_wideresnet/round_2_mask.npy").read_bytes()
    file = tmp_path / "round_2_mask.npy"

    @settings(max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES == 100)
    @given(st.integers(0, 1500), st.binary(min_size=1, max_size=2))
    def damaged(place, value):
        file.write_bytes(whole[:place] + value + whole[place + len(value) :])
        attempt(file)

    damaged()
