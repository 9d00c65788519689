"""Tickets: exact round trips, exact counts, damage and misfits named."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow import Ticket, WinnowError
from winnow.artifacts import read_arrays, read_metadata, write_tensors


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=4), min_size=1, max_size=4), st.integers(0, 2**31))
def test_round_trip_is_exact(tmp_path_factory, shapes, seed):
    rng = np.random.default_rng(seed)
    ticket = Ticket({f"layer{i}.weight": rng.random(s) < 0.4 for i, s in enumerate(shapes)})
    path = tmp_path_factory.mktemp("t") / "a.mask.safetensors"
    ticket.save(path, method="test")
    again = Ticket.load(path)
    assert all(np.array_equal(again.arrays[k], v) for k, v in ticket.arrays.items())
    assert again.metadata["method"] == "test"
    assert again.metadata["remaining_percent"] == ticket.remaining_percent


def test_eight_weights_a_byte(tmp_path):
    path = tmp_path / "a.mask.safetensors"
    Ticket({"w": np.ones((64, 64, 3, 3), dtype=bool)}).save(path)
    assert path.stat().st_size < 64 * 64 * 9 / 8 + 1000


def saved(tmp_path):
    path = tmp_path / "a.mask.safetensors"
    ticket = Ticket({"a": np.arange(40).reshape(4, 10) % 3 == 0, "b": np.ones(9, dtype=bool)})
    ticket.save(path, method="test")
    return path


def test_a_flipped_bit_is_found(tmp_path):
    path = saved(tmp_path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 0x80
    path.write_bytes(bytes(data))
    with pytest.raises(WinnowError, match="the file is damaged; delete it and rerun"):
        Ticket.load(path)


def test_weights_are_no_ticket(tmp_path):
    path = tmp_path / "w.safetensors"
    write_tensors(path, {"a": np.zeros(3, dtype=np.float32)}, {"kind": "weights"})
    with pytest.raises(WinnowError, match="not a winnow ticket; import masks of other formats"):
        Ticket.load(path)


def test_tensors_that_disagree_with_the_record_are_refused(tmp_path):
    path = saved(tmp_path)
    arrays, metadata = read_arrays(path), read_metadata(path)
    arrays.pop("b")
    write_tensors(path, arrays, metadata)
    with pytest.raises(WinnowError, match="tensors and recorded shapes disagree"):
        Ticket.load(path)


def test_apply_zeroes_the_removed_and_only_them():
    layer = torch.nn.Linear(10, 4)
    before = layer.weight.detach().clone()
    mask = np.arange(40).reshape(4, 10) % 2 == 0
    Ticket({"weight": mask}).apply(layer)
    kept = torch.from_numpy(mask)
    assert torch.equal(layer.weight[kept], before[kept])
    assert not layer.weight[~kept].any()


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("wieght", (4, 10), "no parameter 'wieght'; did you mean 'weight'"),
        ("weight", (10, 4), r"weight is \(4, 10\), its mask \(10, 4\)"),
    ],
)
def test_misfits_are_named(name, shape, message):
    with pytest.raises(WinnowError, match=message):
        Ticket({name: np.ones(shape, dtype=bool)}).apply(torch.nn.Linear(10, 4))


def test_report_adds_up():
    ticket = Ticket({"a": np.array([True, False]), "b": np.array([[True], [True]])})
    *layers, total = ticket.report()
    assert [r["kept"] for r in layers] == [1, 2]
    assert (total["name"], total["kept"], total["total"], total["remaining_percent"]) == ("total", 3, 4, 75.0)
    assert ticket.removed_percent == 25.0


def test_an_empty_ticket_and_a_float_mask_are_refused():
    with pytest.raises(WinnowError, match="holds no masks"):
        Ticket({})
    with pytest.raises(WinnowError, match="expected bool"):
        Ticket({"a": np.ones(3)})


@pytest.mark.parametrize("name", ["mask.pth", "mask.npy", "notes.txt", "mask.safetensors", "mask"])
def test_nobody_is_told_to_delete_what_winnow_did_not_write(tmp_path, name):
    torch.save({"a": torch.ones(3)}, tmp_path / name)
    with pytest.raises(WinnowError) as error:
        Ticket.load(tmp_path / name)
    assert "delete it" not in str(error.value) and str(error.value).startswith(str(tmp_path / name))
    other = "winnow.stages.import_ticket" if not name.endswith(".safetensors") else "make it again"
    assert other in str(error.value)


def test_it_says_what_it_is():
    masks = {"a": np.array([True, False, False, False]), "b": np.array([[True], [True]])}
    assert repr(Ticket(masks)) == "Ticket(50 % of 6 weights kept, 2 masks)"
    assert repr(Ticket(masks, {"method": "imp"})) == "Ticket(imp, 50 % of 6 weights kept, 2 masks)"


def test_only_what_looks_like_a_hub_name_is_looked_for_there(tmp_path, monkeypatch):
    asked = []

    def fetch(name, file):
        asked.append((name, file))
        return saved(tmp_path)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("winnow.share.hub.fetch", fetch)
    for name in ("owner/name.safetensors", "a/b/c", "name", "/owner/name"):
        with pytest.raises(WinnowError, match="no such file"):
            Ticket.load(name)
    assert not asked and Ticket.load("owner/name").metadata["method"] == "test"
    assert asked == [("owner/name", "ticket.mask.safetensors")]
    (tmp_path / "folder").mkdir()
    saved(tmp_path).rename(tmp_path / "folder/ticket.mask.safetensors")
    assert Ticket.load(tmp_path / "folder").kept == 23 and len(asked) == 1
