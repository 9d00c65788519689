"""What a ticket costs: bits against their bound, files that need no winnow, times by a calibrated rule, and the
verdict.
"""

from __future__ import annotations

import importlib.util
import json
import textwrap
import time
from math import comb, log2

import numpy as np
import pandas as pd
import pytest
import torch

from winnow.config.parts import Model
from winnow.errors import WinnowError
from winnow.prune import prune
from winnow.sparse import choice, formats, rule, sizes, sparse, speed
from winnow.sparse.layers import SparseConv2d
from winnow.sparse.rule import LayerShape, Rates
from winnow.sparse.ways import Geometry
from winnow.ticket import Ticket
from winnow.vision import models


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return models.build(Model(arch="resnet8"), 10).eval()


@pytest.mark.parametrize("share", [0.5, 0.2, 0.05, 0.014, 0.001])
def test_places_take_little_more_than_the_bound(share):
    mask = np.random.default_rng(0).random(100_000 if share > 0.005 else 3_000_000) < share
    kept = int(mask.sum())
    bound = sizes.bound_bits(mask.size, kept)
    assert bound == pytest.approx(log2(comb(mask.size, kept)), rel=0.02, abs=20)  # of all choices
    assert 1.0 <= sizes.compressed_bits(mask) / bound < 1.12


def test_numbers_are_read_back_from_their_bytes():
    numbers, found, sum_ = np.array([0, 1, 254, 255, 256, 510, 2000]), [], 0
    for byte in sizes._bytes(numbers):
        sum_ += byte
        if byte < 255:
            found, sum_ = [*found, sum_], 0
    assert found == numbers.tolist()
    assert sizes._bytes(numbers[:0]) == b""


def test_the_report_adds_up():
    ticket = Ticket({"a": np.arange(64).reshape(8, 8) % 4 == 0, "b": np.zeros((4, 4), bool), "c": np.ones(10, bool)})
    *rows, whole = sizes.report(ticket)
    assert rows[1]["bits_bound"] is None and rows[2]["bits_bound"] == 0.0
    assert rows[0]["bits_bound"] == pytest.approx(4 * (0.25 * 2 + 0.75 * log2(4 / 3)))
    assert whole["bits_stored"] == 90 / 26
    assert whole["bits_bound"] == pytest.approx(rows[0]["bits_bound"] * 16 / 26)


def test_csr_files_are_read_back_by_the_documented_lines(tmp_path, monkeypatch):
    model = network()
    ticket = prune(model, "magnitude", 5)
    ticket.apply(model)
    monkeypatch.chdir(tmp_path)
    formats.write_csr("network.csr.safetensors", model.state_dict(), ticket)
    text = formats.__doc__.partition("Read back:\n\n")[2]
    lines = textwrap.dedent(text).strip().splitlines()
    assert len(lines) == 10
    names: dict = {}
    exec("\n".join(lines), names)
    again = network()
    again.load_state_dict(names["state"])
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    dense = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    assert (tmp_path / "network.csr.safetensors").stat().st_size < 0.25 * dense
    with pytest.raises(WinnowError, match="no parameter"):
        formats.write_csr("x", {"other": torch.zeros(2)}, ticket)


@torch.no_grad()
def test_the_smaller_network_in_torch_modules_alone():
    model = network()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.bias.fill_(0.5)
    arrays = {name: mask.copy() for name, mask in prune(model, "magnitude", 20).arrays.items()}
    arrays["layer2.0.conv1.weight"][:4] = False
    ticket = Ticket(arrays)
    small = sparse(model, ticket, keep_plans=False)
    assert any(getattr(x, "border", None) is not None for x in choice.layers_of(small.network).values())
    ticket.apply(model)
    plain = formats.in_torch_modules(small)
    assert not choice.layers_of(plain) and not any(type(m).__name__.startswith("Sparse") for m in plain.modules())
    x = torch.rand(2, 3, 16, 16)
    assert torch.allclose(plain(x), model(x), atol=1e-5)
    # the input's normalisation is in the graph
    assert torch.allclose(torch.jit.trace(plain, x)(x), model(x), atol=1e-5)


def test_onnx(tmp_path):
    model = network()
    small = sparse(model, ticket := prune(model, "magnitude", 5), keep_plans=False)
    x = torch.rand(3, 3, 16, 16)
    if missing := [p for p in ("onnx", "onnxscript") if importlib.util.find_spec(p) is None]:
        with pytest.raises(WinnowError, match=f"ONNX needs the packages? {' and '.join(missing)}; pip install them"):
            formats.write_onnx(tmp_path / "x.onnx", small, x[:2])
        pytest.skip(f"no {', '.join(missing)} here: only the refusal was tested")
    import onnx
    from onnx.reference import ReferenceEvaluator

    formats.write_onnx(tmp_path / "x.onnx", small, x[:2])
    graph = onnx.load(tmp_path / "x.onnx")
    found = ReferenceEvaluator(graph).run(None, {graph.graph.input[0].name: x.numpy()})[0]
    ticket.apply(model)
    assert np.allclose(found, model(x).detach().numpy(), atol=1e-4)


def test_rates_are_found_again():
    rates = {("conv", "dense"): (1e-5, 1e-9, 0, 0, 2e-9, 3e-10), ("conv", "rows"): (5e-6, 1e-10, 2e-10, 0, 1e-10)}
    pairs: dict = {k: [] for k in rates}
    for side in (8, 14, 32):
        for batch in (1, 8):
            for channels, kernel in ((16, 3), (64, 3), (16, 1), (64, 1)):
                how = Geometry(padding=(kernel // 2, kernel // 2))
                layer = LayerShape((channels, 16, kernel, kernel), (batch, 16, side, side), how)
                for kept in (50, 400):
                    counted = rule.counts(layer, kept)
                    for key in rates:
                        pairs[key].append((counted[key[1]], float(np.dot(counted[key[1]], rates[key]))))
    for key, expected in rates.items():
        found, errors = rule._fit(pairs[key])
        assert max(errors) < 1e-6, key
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-13)


@torch.no_grad()
def test_the_rule_counts_what_a_way_does():
    weight = torch.zeros(6, 4, 3, 3)
    weight.view(-1)[::7] = 1.0
    layer, kept = SparseConv2d(weight, None, Geometry((2, 2), (1, 1))), int(weight.count_nonzero())
    counted = rule.counts(LayerShape.of(layer, (8, 4, 9, 9)), kept)
    points, lines = layer.built("points", (8, 4, 9, 9))[0], layer.built("rows", (8, 4, 9, 9))[0]
    sums = {n: next(c.cell_contents for c in f.__closure__ if hasattr(c.cell_contents, "indices")) for n,
     f in (("points", points), ("rows", lines))}  # fmt: skip
    # all entries but those that fall beyond the edge
    assert 0.75 * counted["points"][2] < len(sums["points"].indices) <= counted["points"][2] == kept * 25
    assert 0.85 * counted["rows"][3] < len(sums["rows"].indices) <= counted["rows"][3] == kept * 5
    assert counted["rows"][1] == 4 * 3 * 9 * 5 * 8


def test_a_calibration_finds_the_rates_that_its_layers_follow(monkeypatch):
    """Of a machine whose times are exactly counts x rates: bench/sparse.py compares with a real one."""
    true = {"dense": (2e-6, 1e-9, 1e-10, 3e-10, 1e-10, 2e-10), "csr": (9e-6, 2e-10, 4e-9, 1e-9, 3e-10),
            "rows": (6e-6, 3e-10, 3e-9, 2e-9, 2e-10), "points": (5e-6, 2e-9, 1e-9, 1e-10),
            "bag": (5e-6, 1e-10, 3e-9, 2e-9, 1e-10)}  # fmt: skip

    def seconds(layer, shapes, device):
        (given,) = shapes
        shape = LayerShape(tuple(layer.weight.shape), given, getattr(layer, "how", None))
        counted = rule.counts(shape, int(layer.weight.count_nonzero()))
        return {way: float(np.dot(counted[way], true[way][: len(counted[way])])) for way in counted}

    monkeypatch.setattr(rule, "times", seconds)
    rates = rule.calibrate((1, 8))
    assert {w for k, w in rates.values if k == "conv"} == {"dense", "csr", "rows", "points"}
    assert rates.error < 1e-6
    layer = LayerShape((48, 24, 3, 3), (8, 24, 16, 16), Geometry(padding=(1, 1)))  # not one of those measured
    for way, counted in rule.counts(layer, 500).items():
        assert rates.by_way(layer, 500)[way] == pytest.approx(np.dot(counted, true[way]), rel=1e-4), way
    assert rates.seconds(layer, 500) == min(rates.by_way(layer, 500).values())


def test_a_calibration_measures_each_way_that_a_layer_has():
    (layer, kept, measured), *_ = [m for m in rule.measurements((2,), True) if m[0].how is not None]
    assert kept > 0 and set(measured) == {"dense", "csr", "rows", "points"} and min(measured.values()) > 0
    assert set(rule.counts(layer, kept)) == set(measured)


RATES = Rates({("conv", "dense"): (1e-6, 1e-10, 0, 0, 0, 0), ("conv", "rows"): (1e-6, 0, 1e-9, 0, 0),
               ("linear", "dense"): (1e-6, 0, 0, 0, 0)}, 0.0)  # fmt: skip


def test_predictions_fall_with_the_density_and_say_from_where_on(monkeypatch):
    model = network()
    ticket = prune(model, "magnitude", 5)
    ticket.apply(model)
    given = ((torch.rand(1, 3, 32, 32),), {})
    monkeypatch.setattr(speed, "_seconds_within", lambda *_: 1.0)  # of the dense layers, whatever the machine does
    found = speed.predict(model, ticket, given, RATES, 1.0, 1.0)
    assert sorted(found.curve.values(), reverse=True) == [found.curve[p] for p in sorted(found.curve)]
    # ten times the time a weight: dense stays faster
    assert found.curve[90] == pytest.approx(1.0) and found.folding == 1.0
    assert 6 <= found.worth_from <= 20
    other_work = speed.predict(model, ticket, given, RATES, 1001.0, 1001.0)
    assert other_work.speedup == pytest.approx(1.0, abs=0.01) and other_work.worth_from is None
    folds = speed.predict(model, ticket, given, RATES, 2002.0, 1001.0)
    assert folds.speedup == pytest.approx(2.0, abs=0.02) and folds.worth_from is None  # without any ticket


def test_time_within_layers():
    class Slow(torch.nn.Linear):
        def forward(self, x):
            time.sleep(0.02)
            return super().forward(x)

    model = torch.nn.Sequential(Slow(2, 2), torch.nn.Linear(2, 2))
    model.insert(2, Slow(2, 2))
    found = speed._seconds_within(model, ["0", "1"], ((torch.rand(1, 2),), {}))
    assert 0.02 <= found < 0.035


def row(speedup, low, worth_from, batch=1):
    return {"speedup": speedup, "low": low, "high": speedup, "worth_from": worth_from, "batch": batch, "threads": 1}


@pytest.mark.parametrize(
    "rows,says",
    [
        ([row(3.0, 2.5, 25.0), row(5.0, 4.0, 40.0)],
         "Worth it here: 3 to 5 times as fast as dense at 5 % remaining; by the rule worth it from 40 % remaining down "
         "at best, 25 % at worst."),
        ([row(1.0, 0.9, None)],
         "Not worth it here: 1 times as fast as dense at 5 % remaining; by the rule worth it at no density."),
        ([row(1.0, 0.9, 2.0), row(2.0, 1.9, 20.0, 64)],
         "Worth it here in some cases (batch 64 on 1 thread): 1 to 2 times as fast as dense at 5 % remaining; by the "
         "rule worth it from 20 % remaining down at best, 2 % at worst."),
    ],
)  # fmt: skip
def test_the_verdict_is_one_sentence(rows, says):
    assert speed.verdict(rows, 5.0) == says


def test_the_stage_measures_and_says(run_stage, dense, tmp_path):
    code, _ = run_stage(
        "prune", {"method": "magnitude", "remaining_percent": 5}, weights=dense, out="gem.mask.safetensors"
    )
    assert code == 0
    config = {"image_size": 8, "batches": [1, 4], "threads": [1], "repeats": 3, "keep_plans": False}
    files = {"table": "speed.csv", "csr": "gem.csr.safetensors", "metrics": "speed.json"}
    code, error = run_stage("speed", config, weights=dense, mask="gem.mask.safetensors", **files)
    assert code == 0, error
    table, metrics = pd.read_csv("speed.csv"), json.loads((tmp_path / "speed.json").read_text())
    assert table[["threads", "batch"]].values.tolist() == [[1, 1], [1, 4]]
    assert (table["low"] <= table["speedup"]).all() and (table["speedup"] <= table["high"]).all()
    assert metrics["verdict"].count(".") >= 1 and metrics["verdict"].endswith(".")
    assert metrics["sizes"]["bits_compressed"] >= metrics["sizes"]["bits_bound"] * 0.8
    assert metrics["bytes_in_files"]["csr"] == (tmp_path / "gem.csr.safetensors").stat().st_size
    drawn = {"svg": "speed.svg", "png": "speed.png", "metrics": "drawn.json"}
    assert run_stage("speed_plots", {"title": "a gem"}, measured="speed.json", **drawn)[0] == 0
    assert "<svg" in (tmp_path / "speed.svg").read_text()
    code, error = run_stage("speed", {}, weights=dense, mask="gem.mask.safetensors", **files)
    assert code == 2 and "image_size, length: give one of them" in error
