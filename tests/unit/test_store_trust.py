"""Whom the store trusts: an entry is whole and of this job or is not taken; strangers' entries and unsigned ones are
not taken.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from test_store import entries, work  # noqa: F401  (a fixture)

from winnow import store
from winnow.artifacts import write_record


def manifest(tmp_path: Path) -> tuple[Path, dict]:
    (entry,) = entries(tmp_path)
    return entry / store.MANIFEST, json.loads((entry / store.MANIFEST).read_text())


def without(name: str):
    return lambda m: m | {"files": {k: v for k, v in m["files"].items() if name not in k}}


FORGED = {
    "empty": lambda m: m | {"files": {}},
    "no files": lambda m: {"stage": "pretrain"},
    "files as a list": lambda m: m | {"files": list(m["files"])},
    "without the weights": without("w.safetensors"),
    "without the metrics": without("m.json"),
    "without one level": without("levels/1"),
    "without any level": without("levels"),
    "digests that are paths": lambda m: m | {"files": {k: "../" * 9 + "etc/passwd" for k in m["files"]}},
    "one digest that is a path": lambda m: m | {"files": m["files"] | {"r/m.json": "../" * 9 + "etc/passwd"}},
    "digests that are numbers": lambda m: m | {"files": dict.fromkeys(m["files"], 3)},
    "weights in place of metrics": lambda m: m | {"files": m["files"] | {"r/m.json": m["files"]["r/w.safetensors"]}},
    "one level in place of the weights": lambda m: m | {
        "files": m["files"] | {"r/w.safetensors": m["files"]["r/levels/0.safetensors"]}
    },
    "another file too": lambda m: m | {"files": m["files"] | {"../../.bashrc": m["files"]["r/m.json"]}},
}  # fmt: skip


@pytest.mark.parametrize("how", FORGED.values(), ids=FORGED)
def test_an_entry_that_is_not_whole_is_not_done(work, tmp_path, how):  # noqa: F811
    work("one")
    file, content = manifest(tmp_path)
    write_record(file, how(content))
    assert work("two") == 1, "an entry that is not whole counted as done"
    assert "is damaged" in work.log() or entries(tmp_path)
    assert Path(tmp_path / "two/r/w.safetensors").read_bytes() == Path(tmp_path / "one/r/w.safetensors").read_bytes()
    assert work("three") == 0  # it was thrown away and made anew


def test_a_fifo_in_the_store_does_not_hold_a_run_up(work, tmp_path):  # noqa: F811
    for name in (store.MANIFEST, None):
        work("one")
        file, content = manifest(tmp_path)
        victim = file if name else file.with_name(next(iter(content["files"].values())))
        victim.unlink()
        os.mkfifo(victim)
        assert work("two") == 1 and work("two") == 0


def test_in_a_folder_that_all_may_write_to_only_ones_own_entries_count(work, tmp_path):  # noqa: F811
    if os.geteuid() != 0:
        pytest.skip("giving a file to another user needs root")
    work("one")
    (entry,) = entries(tmp_path)
    os.chown(entry, 12345, 12345)
    assert work("two") == 0  # others cannot write to the folder: whoever put it there was let in
    (tmp_path / "store").chmod(0o1777)
    assert work("three") == 1 and "everyone can write there, and it belongs to user 12345" in work.log()
    os.chown(entry, 0, 0)
    assert work("four") == 0


def test_with_a_key_only_signed_entries_are_taken(work, tmp_path, monkeypatch):  # noqa: F811
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef0123")
    secret.chmod(0o600)
    assert work("one") == 1  # unsigned
    monkeypatch.setenv(store.KEY, str(secret))
    assert work("two") == 1 and "is not signed with the key" in work.log()
    assert work("three") == 0
    file, content = manifest(tmp_path)
    # resealed
    write_record(file, content | {"files": content["files"] | {"r/m.json": content["files"]["r/w.safetensors"]}})
    assert work("four") == 1
    secret.write_text("another secret, as long")
    assert work("five") == 1 and work("six") == 0
    monkeypatch.delenv(store.KEY)
    assert work("seven") == 0


@pytest.mark.parametrize(
    ("mode", "text", "message"), [(0o644, "x" * 32, "chmod 600"), (0o600, "short", "shorter than 16")]
)
def test_a_key_that_keeps_no_secret_is_refused(tmp_path, monkeypatch, mode, text, message):
    from winnow.errors import WinnowError

    (tmp_path / "secret").write_text(text)
    (tmp_path / "secret").chmod(mode)
    monkeypatch.setenv(store.KEY, str(tmp_path / "secret"))
    with pytest.raises(WinnowError, match=message):
        store._key()
