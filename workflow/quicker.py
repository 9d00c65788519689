"""What Snakemake would work out anew for each of a grid's twenty thousand jobs, worked out once. A part of the adapter.

docs/performance.md (dry runs) has what each saves.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable
from inspect import signature
from typing import Any

from snakemake.common import overwrite_function_params
from snakemake.iocontainers import Wildcards
from snakemake.resources import Resource

WORDS = ("slurm_partition", "slurm_account", "constraint", "qos")  # default resources that are mere words


def signed(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its parameters written down: Snakemake asks for them 20 times a job."""
    overwrite_function_params(function, signature(function).parameters)
    return function


def prepare(workflow: Any) -> None:
    """Once, before the rules are read."""
    signed_method = Resource("any", 1).evaluate  # bound: its parameters are without `self`
    overwrite_function_params(Resource.evaluate, signature(signed_method).parameters)
    _settle_default_resources(workflow)
    # The jobs of a paper's grid are a million objects that live to the end: looking for garbage among them again
    # and again took a third of the time of a dry run.
    gc.freeze()
    gc.set_threshold(500_000, 20, 100)


def _settle_default_resources(workflow: Any) -> None:
    """Default resources are expressions, worked out for every job anew: those that are a mere word, and the folder for
    temporary files (each process asks for its own), are settled here."""
    defaults = workflow.resource_settings.default_resources or {}
    for name, resource in defaults.items():
        if resource.raw == "system_tmpdir":
            defaults[name] = Resource(name, tempfile.gettempdir(), raw=resource.raw)
        elif name in WORDS and str(resource.raw).isidentifier():
            defaults[name] = Resource(name, resource.raw, raw=resource.raw)


def ours(function: Callable[..., int]) -> Callable[..., int]:
    """A request that follows from (wildcards, attempt) alone."""
    function.ours = True  # type: ignore[attr-defined]
    return signed(function)


def share_resources(rule: Any) -> None:
    """Let the jobs of a rule that ask for the same have one list of it, which nothing may change. A rule with a
    function of somebody else's is left alone, for that may look at anything.
    """
    changing = [r._evaluator for r in rule.resources.values() if r.is_evaluable()]
    if not changing or not all(hasattr(function, "ours") for function in changing):
        return
    expand, made = rule.expand_resources, dict[Any, Any]()

    def shared(wildcards: Any, input: Any, attempt: int, skip_evaluation: Any = None) -> Any:
        values = Wildcards(fromdict=wildcards)
        asked = tuple(function(values, attempt=attempt) for function in changing)
        place = (attempt, asked, frozenset(skip_evaluation or ()))
        if place not in made:
            made[place] = expand(wildcards, input, attempt, skip_evaluation=skip_evaluation)
        return made[place]

    rule.expand_resources = shared
