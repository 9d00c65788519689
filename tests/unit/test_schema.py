"""Configuration: what is accepted, and the one line that says what is not."""

from __future__ import annotations

from typing import Literal

import pytest

from winnow.config.parts import Attack, Data, Ordinal, Train
from winnow.config.root import load
from winnow.errors import WinnowError
from winnow.schema import Part, canonical_json, key, parse

TRAIN = {"epochs": 1, "batch_size": 8, "lr": 0.1}


def test_yaml_reads_small_numbers_as_text_and_they_are_converted():
    assert parse(Train, TRAIN | {"weight_decay": "1e-4"}).weight_decay == 1e-4
    assert parse(Train, TRAIN | {"epochs": "3"}).epochs == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 1}, "config.learning_rate: unknown key; known:"),
        ({"batchsize": 1}, "config.batchsize: unknown key; did you mean 'batch_size'?"),
        ({"epochs": -1}, "config.epochs: -1 must be >= 0"),
        ({"epochs": 1.5}, "config.epochs: expected a whole number, got 1.5"),
        ({"epochs": True}, "config.epochs: expected a whole number, got True"),
        ({"lr": 0}, "config.lr: 0 must be > 0"),
        ({"lr": "fast"}, "config.lr: expected a number, got 'fast'"),
        ({"lr": float("nan")}, "config.lr: expected a finite number, got nan"),
        ({"lr": None}, "config.lr: expected a number, got None"),
        ({"optimizer": "sdg"}, "config.optimizer: 'sdg' is not a valid choice; did you mean 'sgd'?"),
        ({"milestones": 5}, "config.milestones: expected a list, got 5"),
        ({"milestones": [1, -2]}, "config.milestones[1]: -2 must be >= 0"),
        ({"nesterov": "yes"}, "config.nesterov: expected true or false, got 'yes'"),
        ({"momentum": 1.0}, "config.momentum: 1.0 must be < 1"),
    ],
)
def test_each_mistake_is_named_with_its_key(change, message):
    with pytest.raises(WinnowError) as error:
        parse(Train, TRAIN | change)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


class Odd(Part):
    """Kinds of keys that pydantic converts more freely than a configuration should."""

    switches: dict[str, bool] = key("switches", factory=dict)
    only: Literal[True] = key("one value", True)
    text: str = key("text", "x")
    count: int | None = key("count", None, ge=2)
    steps: list[Ordinal] | None = key("steps", None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"switches": {"a": "yes"}}, "config.switches.a: expected true or false, got 'yes'"),
        ({"switches": {"a": 1}}, "config.switches.a: expected true or false, got 1"),
        ({"switches": [1]}, "config.switches: expected a mapping, got [1]"),
        ({"only": 1}, "config.only: 1 is not a valid choice"),
        ({"only": False}, "config.only: False is not a valid choice"),
        ({"text": 5}, "config.text: expected text, got 5"),
        ({"text": None}, "config.text: expected text, got None"),
        ({"count": "1e999"}, "config.count: expected a finite number, got inf"),
        ({"count": 1}, "config.count: 1 must be >= 2"),
        ({"count": "1/2"}, "config.count: expected a whole number, got 0.5"),
        ({"count": [3]}, "config.count: expected a whole number, got [3]"),
        ({"count": {"a": 3}}, "config.count: expected a whole number, got {'a': 3}"),
        ({"steps": [1, 0]}, "config.steps[1]: 0 must be >= 1"),
        ({"steps": [1, True]}, "config.steps[1]: expected a whole number, got True"),
        ({"steps": [[1]]}, "config.steps[0]: expected a whole number, got [1]"),
        ({"steps": "12"}, "config.steps: expected a list, got 12"),
        ({"a\nb": 1}, "config.a b: unknown key"),
        ({5: 1}, "config.5: unknown key"),
    ],
)
def test_nothing_is_converted_silently(change, message):
    with pytest.raises(WinnowError) as error:
        parse(Odd, change)
    said = str(error.value)
    assert said.startswith(message) and "\n" not in said and len(said) < 400 and "validation error" not in said


def test_missing_key_says_what_it_is_for():
    with pytest.raises(WinnowError, match=r"config\.lr: required key is missing \(peak learning rate\)"):
        parse(Train, {"epochs": 1, "batch_size": 8})


def test_eps_beyond_the_pixel_range_is_refused():
    with pytest.raises(WinnowError, match="eps 8 exceeds 1"):
        parse(Attack, {"eps": 8, "step_size": 2, "steps": 1})
    assert parse(Attack, {"eps": 3, "step_size": 2, "steps": 1, "norm": "l2"}).eps == 3


def test_nested_keys_carry_their_path():
    source = {"name": "a", "data": {"dataset": "digits", "val_images": 5}, "model": {"arch": "resnet8"}}
    section = {"seeds": [0], "source": source, "pretrainings": [], "imp": {"rounds": 1, "train": TRAIN | {"lr": -1}}}
    with pytest.raises(WinnowError, match=r"^config\.double_win\.imp\.train\.lr: -1 must be > 0"):
        load({"double_win": section})


def test_canonical_json_ignores_the_order_of_keys():
    one, two = parse(Data, {"dataset": "digits", "val_images": 5}), parse(Data, {"val_images": 5, "dataset": "digits"})
    assert canonical_json(one) == canonical_json(two)
    assert canonical_json({"b": 1, "a": [1.0, None]}) == '{"a":[1.0,null],"b":1}'
