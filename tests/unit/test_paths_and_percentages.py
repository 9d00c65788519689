"""Small things that silently missed their file or their rows: variables in paths, percentages that do not end."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.config.root import load
from winnow.errors import WinnowError
from winnow.pipelines import percent


@pytest.mark.parametrize("key", ["data_root", "scratch", "store", "tensorboard"])
def test_home_and_variables_expand_in_every_folder(key, monkeypatch):
    monkeypatch.setenv("HOME", "/homes/ada")
    monkeypatch.setenv("WINNOW_TEST_SCRATCH", "/fast")
    for written, meant in (("~/sets", "/homes/ada/sets"), ("$WINNOW_TEST_SCRATCH/a", "/fast/a"),
                           ("${WINNOW_TEST_SCRATCH}", "/fast"), ("plain/a b", "plain/a b")):  # fmt: skip
        assert str(getattr(load({key: written}), key)) == meant


def test_a_variable_that_is_not_set_is_named(monkeypatch):
    monkeypatch.delenv("WINNOW_NOT_SET", raising=False)
    with pytest.raises(WinnowError, match=r"WINNOW_NOT_SET"):
        load({"data_root": "$WINNOW_NOT_SET/a"})


@settings(max_examples=200, deadline=None)
@given(st.floats(1e-4, 1.0))
def test_a_fraction_of_the_table_names_the_files_it_was_made_of(fraction):
    """A sixth is 16.6667 in paths and in the table: figures find their rows by the same words."""
    in_table = float(percent(fraction)) / 100
    assert percent(in_table) == percent(fraction)
