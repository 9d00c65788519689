"""Everything that reaches into Snakemake beyond its documented language, in one place, each with its reason.

tests/workflow/test_adapter.py fails on a version of Snakemake that this module does not know.
"""

from __future__ import annotations

import math
import os
import shlex
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import cut_off
import quicker
import yaml
from quicker import signed
from snakemake.exceptions import WorkflowError
from snakemake.iocontainers import Wildcards

from winnow.artifacts import sha256_text
from winnow.config.notices import notices
from winnow.config.pruning import modules_of
from winnow.config.root import Root, load, load_files, run_arguments
from winnow.errors import WinnowError
from winnow.fingerprint import closure, module_hash, stamps
from winnow.launch import JOB_ENVIRONMENT, SAFE_PATH
from winnow.pipelines import packs
from winnow.pipelines.cost import model_of, parameters, work
from winnow.schema import Part, canonical_json
from winnow.surroundings import COMMAND, COMMIT, commit

PACKED = "packed"  # `group-components: [packed=8]` in a profile
KNOWN = ("9.27",)  # versions of Snakemake whose internals this module was tried with


class Asked(NamedTuple):
    """What the jobs of a rule get (`params`) and ask for."""

    threads: int
    resources: dict[str, Any]
    params: dict[str, Any]


class Adapter:
    """The configuration of a workflow, and what its rules declare."""

    signed = staticmethod(quicker.signed)

    def __init__(self, workflow: Any, config: dict[str, Any], base: Path):
        self.base = base
        with (self.base / "workflow/resources.yaml").open() as stream:
            self.requests = yaml.safe_load(stream)
        self.config = self._configuration(workflow, config)
        if not workflow.remote_exec:  # a cluster's jobs have the environment of what submitted them
            os.environ[COMMAND], os.environ[COMMIT] = shlex.join(["snakemake", *sys.argv[1:]]), commit()
            for notice in notices(self.config):
                print(f"note: {notice}", file=sys.stderr)
        self.run = run_arguments(self.config)
        self.cores = workflow.resource_settings.cores or 1
        self.known: dict[str, Asked] = {}
        self.prefix = self._prefix(workflow)
        os.environ[SAFE_PATH] = "1"  # on a cluster a job is `python -m snakemake` in the working folder
        quicker.prepare(workflow)

    def _configuration(self, workflow: Any, config: dict[str, Any]) -> Root:
        """From the files of --configfile, read again for the places of their keys; from `config` where another workflow
        gives it.
        """
        settings = workflow.config_settings
        try:
            if config != settings.overwrite_config:
                return load(config)
            return load_files(settings.configfiles, settings.config)[0]
        except WinnowError as error:
            raise WorkflowError(str(error)) from None

    def _prefix(self, workflow: Any) -> str:
        """Jobs find winnow without installing it, and the Python that runs Snakemake, unless an environment is deployed
        for them.

        They import nothing from the working folder, where a numpy.py or an argparse.py of the user's, or of a
        stranger's, may lie.
        """
        prefix = f"export PYTHONPATH={shlex.quote(str(self.base / 'src'))}; "
        prefix += f"export {SAFE_PATH}=1; "
        prefix += "".join(f"export {n}={shlex.quote(os.environ.get(n, v))}; " for n, v in JOB_ENVIRONMENT.items())
        if not workflow.deployment_settings.deployment_method:
            prefix += f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"; '
        return prefix

    def asked(
        self,
        rule: str,
        section: Any,
        build: Callable[..., Part],
        *names: str,
        stage: str | None = None,
        env: str = "vision",
        gpus: int = 0,
        loads: bool = False,
        threads: int | None = None,
        **more: Any,
    ) -> Asked:
        """What a rule declares. `build(section, *wildcards)` gives what its stage parses.

        gpus: of a job; its threads are then the section's. loads: data comes through worker processes. `more` are
        further params.
        """
        made = cache(lambda *values: build(section, *values))
        text = cache(lambda *values: canonical_json(made(*values)))
        config = signed(lambda wildcards: text(*[wildcards[n] for n in names]))
        module = stage or rule
        stamp: dict[str, Any] = self.stamp(module, env)
        if module == "prune":  # each method is a file, and has a stamp of its own
            stamp["method"] = signed(lambda wildcards: self.method_stamp(made(*[wildcards[n] for n in names])))
        resources: dict[str, Any] = {
            "mem_mb": self._memory(rule, self.config.workers if loads else 0, max(1, gpus)),
            "runtime": self._runtime(rule, config),
        }
        if gpus:
            model = {"gpu_model": self.config.gpu_model} if self.config.gpu_model else {}
            resources = {**model, "nodes": 1, "gpu": gpus, **resources}
            if (
                gpus > 1
            ):  # sums in another order are other bytes; Snakemake would not compare what is read from `resources`
                stamp["processes"] = gpus
        own = threads if threads is not None else section.compute.threads * gpus if gpus else 1
        named = {"stage": module} if rule in ("table", "plots") else {}  # their shell line takes it
        params = {"config": config, **stamp, "run": self._untracked(), **named, **more}
        self.known[rule] = Asked(own, resources, params)
        return self.known[rule]

    def all_cores(self, threads: list[int]) -> int:
        """Threads of a job beside which no other of this run shall be; on a cluster, those that it measures with."""
        return max(*threads, self.cores, 1)

    def pack(self, workflow: Any) -> None:
        """Where the profile says `group-components: [packed=N]`: let up to N members of a ticket share a SLURM job.

        The group of a job is a function here and no text in the rules: how many fit depends on their run times. It is
        asked when jobs are known, for Snakemake learns its group settings after it has read the rules.
        """
        rules = {name: workflow.get_rule(workflow.modifier.modify_rulename(name)) for name in packs.rules(self.config)}

        @cache
        def found() -> dict[packs.Job, str]:
            made = self.packed(workflow)
            workflow.parent_groupids.update(dict.fromkeys(made.values(), PACKED))
            return made

        cut_off.keep(workflow)
        for rule in workflow.rules:
            quicker.share_resources(rule)
        for name, rule in rules.items():
            rule.group = signed(lambda wildcards, name=name: found().get(packs.job(name, **wildcards)))

    def packed(self, workflow: Any) -> dict[packs.Job, str]:
        """The pack of each job that shares a SLURM job; none within a SLURM job, where its members are jobs like
        any.
        """
        most = workflow.group_settings.group_components.get(PACKED, 0)
        if not most or workflow.remote_exec:
            return {}

        def minutes(job: packs.Job) -> int:
            rule, values = job
            asked = self.known[rule if rule in self.known else rule.rpartition("_")[0]]
            return asked.resources["runtime"](Wildcards(fromdict=dict(values)), attempt=1)

        return packs.packed(packs.members(self.config), minutes, most, self.requests["longest"])

    def _untracked(self) -> Callable[..., str]:
        """The arguments that change no result: Snakemake does not compare params whose function takes `input`. The
        number of processes is among them, but counts as a param of its own."""

        @signed
        def run(wildcards: Any, input: Any, resources: Any) -> str:
            return " ".join([self.run, *filter(None, [self._processes(wildcards, resources)])])

        return run

    @staticmethod
    def _processes(wildcards: Any, resources: Any) -> str:
        """A job that gets several GPUs starts as many processes, which share its batches."""
        gpus = resources.get("gpu", 0)
        return f"--processes {gpus}" if isinstance(gpus, int) and gpus > 1 else ""

    def stamp(self, stage: str, env: str) -> dict[str, Any]:
        """Code and environment of a stage, both without comments, as params: a rule is stale when one changes, and
        Snakemake's reason shows the one that did."""
        with (self.base / f"envs/{env}.yaml").open() as stream:
            environment = sha256_text(canonical_json(yaml.safe_load(stream)))[:12]
        code = {f"code_{i}": text for i, text in enumerate(stamps(stage))}
        return {**code, "environment": f"envs/{env}.yaml {environment}"}

    @staticmethod
    def method_stamp(config: Any) -> str:
        """The code of the pruning method that a job runs, and of what it imports beyond the stage."""
        own = set(closure("winnow.stages.prune"))
        return ", ".join(f"{m} {module_hash(m)}" for m in closure(modules_of(config)) if m not in own)

    def _memory(self, rule: str, workers: int, processes: int) -> Callable[..., int]:
        """Host memory of a rule in MB, from workflow/resources.yaml, for each of its processes; it grows with every
        attempt.
        """
        base = self.requests[rule]["mem_mb"] + self.requests["worker_mb"] * workers

        @quicker.ours
        def asked(wildcards: Any, attempt: int) -> int:
            model = model_of(self.config, wildcards)
            return (
                attempt
                * processes
                * (base + math.ceil(parameters(model) * self.requests["weight_bytes"] / 1e6 if model else 0))
            )

        return asked

    def _runtime(self, rule: str, config: Callable[..., str]) -> Callable[..., int]:
        """Minutes: the table's, and time for the work that the configuration stands for; more with every attempt, up to
        `longest`.
        """
        base, longest = self.requests[rule]["minutes"], self.requests["longest"]
        rate = self.requests["rates"]["cpu" if self.config.device == "cpu" else "gpu"]
        known: dict[Any, int] = {}

        @quicker.ours
        def asked(wildcards: Any, attempt: int) -> int:
            text = config(wildcards)
            place = (text, wildcards.get("experiment"), wildcards.get("mode"))
            if place not in known:
                tmac = work(text, model_of(self.config, wildcards), wildcards)
                known[place] = base + math.ceil(2 * tmac / rate / 60)
            return min(longest, known[place] * attempt)

        return asked
