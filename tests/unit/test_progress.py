"""Long jobs tell where they are: the words, the silence that is broken, and the last line with the result."""

from __future__ import annotations

import logging
import re
import time

import pytest
import torch
from conftest import ATTACK, DIGITS, TRAIN

from winnow import progress, status
from winnow.config.parts import Train
from winnow.errors import WinnowError
from winnow.progress import Position, duration, figures, rate, speaking
from winnow.run import Run
from winnow.train import loop
from winnow.train.loop import Fit, fit


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (150, "2 min 30 s"),
        (3599, "59 min 59 s"),
        (7260, "2 h 01 min"),
    ],
)
def test_durations_in_words(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "seconds", "text"),
    [(40, 10, "4.0 steps/s"), (10, 10, "1.0 s/step"), (3, 60, "20.0 s/step"), (0, 5, ""), (1, 0, "")],
)
def test_a_slow_rate_is_told_as_seconds_each(count, seconds, text):
    assert rate(count, seconds, "step") == text


def test_a_position_tells_rate_and_time_left_of_what_this_run_did():
    position = Position("epoch 2/4", total=100, unit="step", done=50, first=30, figures={"loss": 0.51234})
    position.begun = time.monotonic() - 60  # 20 steps in a minute: 3 s each, 50 to go
    assert position.text() == "epoch 2/4: 50 of 100 steps, loss 0.5123, 3.0 s/step, 2 min 30 s left"
    position.first = 50
    assert position.text().endswith("50 of 100 steps, loss 0.5123, 1 min 00 s so far")


def test_figures_are_the_numbers_of_a_record():
    assert (
        figures({"best_sa": {"sa": 91.25, "names": ["x"]}, "images": 40, "ok": True}) == "best_sa.sa 91.25, images 40"
    )
    assert figures({str(i): i for i in range(9)}, most=2) == "0 0, 1 1, ..."


def test_silence_is_broken_and_a_line_puts_it_off(caplog):
    log, run = logging.getLogger("winnow"), Run("cpu")
    with caplog.at_level(logging.INFO, "winnow"):
        with speaking(run, log, silence=0.3), run.doing("attack", 10, "example") as position:
            position.done = 4
            for _ in range(8):
                time.sleep(0.1)
                log.info("own line")
            assert [r.message for r in caplog.records] == ["own line"] * 8
            time.sleep(0.7)
        told = [r.message for r in caplog.records if r.message != "own line"]
        assert 1 <= len(told) <= 3 and all(t.startswith("attack: 4 of 10 examples, ") for t in told)
        time.sleep(0.5)
        assert len([r for r in caplog.records if r.message != "own line"]) == len(told)  # it has ended


def test_every_stage_s_log_ends_with_its_result(dense, run_stage, tmp_path):
    train = {"data": DIGITS, "train": TRAIN | {"epochs": 1}, "attack": None, "compute": {}, "seed": 0, "keep": "last"}
    wanted = {"attack": ATTACK, "batch_size": 20}
    evaluate = {"data": DIGITS, "evaluation": wanted, "compute": {}, "seed": 0}
    cut = {"method": "magnitude", "remaining_percent": 80}
    jobs = {
        "train": (
            train,
            {"init": dense, "out": tmp_path / "t.safetensors", "metrics": tmp_path / "t.json"},
            r"test_acc|images \d+|\w+ [\d.]+",
        ),
        "evaluate": (
            evaluate,
            {"best_sa": dense, "metrics": tmp_path / "e.json"},
            r"best_sa.sa [\d.]+, best_sa.ra [\d.]+",
        ),
        "prune": (cut, {"weights": dense, "out": tmp_path / "m.mask.safetensors"}, r"80\.\d+ % of \d+ weights remain"),
    }
    for stage, (config, files, result) in jobs.items():
        code, told = run_stage(stage, config, **files)
        lines = told.strip().splitlines()
        assert code == 0 and re.search(rf"^\d\d:\d\d:\d\d done in \d+ s: .*{result}", lines[-1]), lines
        if stage == "train":
            assert re.search(r"epoch 1/1  loss .*\(.*s/?(step)?, 0 s left\)", told)
        if stage == "evaluate":
            assert any(re.search(r" best_sa/ra: [\d.]+ % of \d+ images$", line) for line in lines)


@pytest.mark.parametrize("level", ["info", "warning", "error"])
def test_a_stage_that_trains_for_long_tells_where_it_is(level, dense, run_stage, tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "SILENCE", 0.02)
    monkeypatch.setattr(loop, "log", logging.getLogger("elsewhere"))  # as in an epoch of hours: the loop says nothing
    train = {"data": DIGITS, "train": TRAIN | {"epochs": 40}, "attack": None, "compute": {}, "seed": 0, "keep": "last"}
    files = {"init": dense, "out": tmp_path / "t.safetensors", "metrics": tmp_path / "t.json"}
    code, told = run_stage("train", train, "--log-level", level, **files)
    lines = re.findall(r"epoch (\d+)/40: (\d+) of 160 steps, loss [\d.e-]+, .*(?:steps/s|s/step), (.*) left", told)
    assert code == 0 and len(lines) >= 3
    assert all((int(epoch) - 1) * 4 <= int(done) <= int(epoch) * 4 for epoch, done, _ in lines)
    assert told.strip().splitlines()[-1][9:].startswith("done in ")
    assert ("t.safetensors written" in told) == (level == "info")
    log = tmp_path / "t.log"
    log.write_text(told)  # and so it stands in `winnow status`
    assert status.job_log(log, time.time()).state == "done"
    log.write_text("\n".join(told.splitlines()[:-1]))
    assert status.job_log(log, time.time()).state == "running"


@pytest.mark.parametrize(("seconds", "waited", "speed", "percent"), [(2.0, 0.5, 25.0, 25.0), (0.0, 0.0, 5e10, 0.0)])
def test_the_speed_of_an_epoch_is_kept_and_waiting_is_warned_of(caplog, seconds, waited, speed, percent):
    run = Run("cpu")
    with caplog.at_level("WARNING", "winnow"):
        loop._record_speed(run, 3, 9, 50, seconds, waited)
    assert run.speeds == [{"epoch": 4, "examples_per_second": speed, "waiting_percent": percent}]
    assert ("waited for data for 25 % of its time (25 examples/s)" in caplog.text) == (percent > 10)


def test_a_training_tells_each_epoch_with_the_steps_so_far():
    weight, told, run = torch.nn.Parameter(torch.ones(1)), [], Run("cpu")

    def step(batch):
        loss = (weight * batch).sum()
        loss.backward()
        return loss.detach()

    class Three:
        steps_per_epoch = 3

        def sizes(self, epoch):
            return [2, 2, 2]

        def epoch(self, epoch, first=0, share=slice):
            return iter(torch.zeros(6, 1).split(2)[first:])

    run.watchers.append(lambda record, step: told.append((record["epoch"], record["loss"], step)))
    train = Train(epochs=2, batch_size=2, lr=0.1)
    plan = Fit(model=torch.nn.Module(), optimizer=torch.optim.SGD([weight], 0.1), train=train, batches=Three(),
               step=step, seed=0)  # fmt: skip
    fit(plan, run)
    assert told == [(1, 0.0, 3), (2, 0.0, 6)]


def test_whoever_watches_is_told_of_each_epoch():
    told, run = [], Run("cpu")
    run.watchers.append(lambda record, step: told.append((record["loss"], step)))
    run.tell({"loss": 1.5}, 40)
    assert told == [(1.5, 40)]


def test_tensorboard_writes_events_or_says_what_is_missing(tmp_path):
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        with pytest.raises(WinnowError, match="pip install tensorboard"):
            Run("cpu", tensorboard=tmp_path)
        return
    Run("cpu", tensorboard=tmp_path).tell({"loss": 1.5, "epoch": 1}, 40)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith("events")]
