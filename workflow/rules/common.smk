"""What all rules share: the checked configuration, the arguments of every stage, and the stamps that decide staleness.

A rule's params hold two strings: `config`, the part of the configuration that decides its result, as canonical JSON, and
`stamp`, a hash over the code that its stage can reach and over its environment file. Snakemake reruns a job when either
changes. What does not change a result (data folder, workers, device, log level) is in `run`, which it does not compare.
"""

import gc
import json
import math
import os
import shlex
import sys
import tempfile
from functools import cache
from inspect import signature

import yaml
from snakemake.exceptions import WorkflowError
from snakemake.resources import Resource

SOURCES = os.path.join(workflow.basedir, "src")
sys.path.insert(0, SOURCES)
from winnow.launch import JOB_ENVIRONMENT

# Jobs find winnow without installing it, and, unless an environment is deployed for them, the Python that runs Snakemake.
PREFIX = f"export PYTHONPATH={shlex.quote(SOURCES)}; "
PREFIX += "".join(f"export {n}={shlex.quote(os.environ.get(n, value))}; " for n, value in JOB_ENVIRONMENT.items())
if not workflow.deployment_settings.deployment_method:
    PREFIX += f'export PATH={shlex.quote(os.path.dirname(sys.executable))}:"$PATH"; '
shell.prefix(PREFIX)

from winnow.artifacts import sha256_text
from winnow.config.root import lay_over, load, run_arguments
from winnow.errors import WinnowError
from winnow.fingerprint import source_hash
from winnow.grid.cost import model_of, parameters, work
from winnow.schema import canonical_json

# The jobs of a paper's grid are a million objects that live to the end: looking for garbage among them again and again took a third
# of the time of a dry run.
gc.freeze()
gc.set_threshold(500_000, 20, 100)

# Default resources are expressions, worked out for every job anew, a tenth of a dry run: those that are a mere word, and the folder
# for temporary files (each process asks for its own), are settled here.
DEFAULT_RESOURCES = workflow.resource_settings.default_resources or {}
for name, resource in DEFAULT_RESOURCES.items():
    if resource.raw == "system_tmpdir":
        DEFAULT_RESOURCES[name] = Resource(name, tempfile.gettempdir(), raw=resource.raw)
    elif name in ("slurm_partition", "slurm_account", "constraint", "qos") and str(resource.raw).isidentifier():
        DEFAULT_RESOURCES[name] = Resource(name, resource.raw, raw=resource.raw)

with open(os.path.join(workflow.basedir, "config", "config.yaml")) as stream:
    DEFAULT = yaml.safe_load(stream)
with open(os.path.join(workflow.basedir, "workflow", "resources.yaml")) as stream:
    REQUESTS = yaml.safe_load(stream)
try:
    CONFIG = load(lay_over(DEFAULT, config))
except WinnowError as error:
    raise WorkflowError(str(error)) from None

RUN = run_arguments(CONFIG)
ENVS = "../../envs"


def signed(function):
    """The function with its signature written down: Snakemake asks for it 20 times a job, and working it out took a tenth of a dry run."""
    function.__signature__ = signature(function)
    return function


@signed
def untracked(wildcards, input, resources):
    """The arguments that change no result. Snakemake does not compare params whose function takes `input`.

    A job that gets several GPUs starts as many processes, which share its batches.
    """
    gpus = resources.get("gpu", 0)
    return f"{RUN} --processes {gpus}" if isinstance(gpus, int) and gpus > 1 else RUN


def part_of(section, build, *names):
    """A params function: the configuration that `build(section, *wildcards)` gives, as canonical JSON."""
    made = cache(lambda *values: canonical_json(build(section, *values)))
    return signed(lambda wildcards: made(*[wildcards[n] for n in names]))


def stamp(stage, env="vision"):
    """Code and environment of a stage, both without comments: a rule is stale when its stamp changes."""
    with open(os.path.join(workflow.basedir, "envs", f"{env}.yaml")) as stream:
        return f"{source_hash(stage)}-{sha256_text(canonical_json(yaml.safe_load(stream)))[:12]}"


def memory(rule, workers=0):
    """Host memory of a rule in MB, from workflow/resources.yaml; it grows with every attempt."""
    base = REQUESTS[rule]["mem_mb"] + REQUESTS["worker_mb"] * workers

    @signed
    def asked(wildcards, attempt):
        model = model_of(CONFIG, wildcards)
        return attempt * (base + math.ceil(parameters(model) * REQUESTS["weight_bytes"] / 1e6 if model else 0))

    return asked


def runtime(rule, config=None):
    """Minutes that every job of a rule asks for, namely the table's, and time for the work that the job's configuration stands for.

    They grow with every attempt, up to the longest request of the table.
    """
    base, longest = REQUESTS[rule]["minutes"], REQUESTS["longest"]
    rate = REQUESTS["rates"]["cpu" if CONFIG.device == "cpu" else "gpu"]
    known = {}

    @signed
    def asked(wildcards, attempt):
        text = config(wildcards) if config else None
        place = (text, wildcards.get("experiment"), wildcards.get("mode"))
        if place not in known:
            tmac = work(json.loads(text), model_of(CONFIG, wildcards), wildcards) if text else 0
            known[place] = base + math.ceil(2 * tmac / rate / 60)
        return min(longest, known[place] * attempt)

    return asked


GPU_MODEL = {"gpu_model": CONFIG.gpu_model} if CONFIG.gpu_model else {}  # of every rule that asks for a GPU


wildcard_constraints:
    source=r"[\w.]+",
    pretraining=r"[\w.]+",
    dataset=r"[\w.]+",
    seed=r"\d+",
    run_seed=r"\d+",
    round=r"\d+",
    regime=r"std|adv",
    mode=r"std|adv",
