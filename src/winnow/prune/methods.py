"""The methods by name: an entry here and a file of that name make one."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from winnow.errors import WinnowError, nearest
from winnow.prune.layers import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """What a method needs. `takes` decides the interface of its module:

    weights: masks(weights, count), with `seed=` when it `draws`; NumPy alone.
    ticket: masks(like, seed), another ticket's counts; NumPy alone.
    model: masks(model, names, count, batches); a batch is (inputs, labels), or keyword
    arguments with `labels`.
    training: a class (model, optimizer, ticket, *, steps) with before_update(), ticket(), state_dict() and
    load_state_dict().
    tasks: where the pipelines offer it. whole: the count is rounded to a whole number of weights first. examples: what
    takes a model looks at examples, not at their shape alone.
    """

    takes: Literal["weights", "ticket", "model", "training"] = "weights"
    draws: bool = False
    whole: bool = True
    examples: bool = True
    kinds: tuple[Kind, ...] = ("conv", "linear")
    tasks: tuple[Literal["images", "texts"], ...] = ("images", "texts")


METHODS = {
    "magnitude": Method(),
    "lamp": Method(),
    "random_global": Method(draws=True),
    "random_like": Method(takes="ticket", draws=True),
    "smart_ratio": Method(draws=True, whole=False),
    "erk": Method(draws=True),
    "snip": Method(takes="model"),
    "grasp": Method(takes="model"),
    "synflow": Method(takes="model", examples=False, tasks=("images",)),
    "wanda": Method(takes="model", kinds=("linear",), tasks=("texts",)),
    "rigl": Method(takes="training"),
}
START = "erk"  # what masks that move in training start from


def find(name: str) -> Method:
    """The entry of a method; WinnowError names the nearest when there is none."""
    if name not in METHODS:
        raise WinnowError(f"method: {name!r} is no pruning method{nearest(name, METHODS)}")
    return METHODS[name]


def module_name(name: str) -> str:
    """The module of a method: what a code stamp must cover, as it is imported by name."""
    find(name)
    return f"winnow.prune.{name}"


def class_of(name: str) -> Any:
    """The class of a method that takes a training, imported now."""
    return next(c for n, c in vars(load(name)).items() if n.lower() == name)


def load(name: str) -> Any:
    """The module of a method, imported now: those that take weights or a ticket import no torch."""
    return import_module(module_name(name))
