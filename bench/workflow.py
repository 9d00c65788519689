"""The workflow's own time: dry runs of the papers' configurations, a run with nothing to do, and what a job costs to
start.

A job's overhead is the time from the start of its process to its first step (the first batch trained on, evaluated or
attacked): interpreter, imports, data, weights. It is measured on the demo's own commands, so it needs a finished `make
demo` in the working folder; without one, only the dry runs and the start of a light stage are measured.

    python -m bench.workflow [--repeats 5]
"""

from __future__ import annotations

import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml

from bench.common import Run, arguments, measured
from winnow.artifacts import write_tensors
from winnow.launch import JOB_ENVIRONMENT
from winnow.pipelines import NAMES

ROOT = Path(__file__).resolve().parent.parent
PAPER = ("double_win", "robust_bert", "rare_gems")
# Ends the process at its first step. What it imports early, the stage would import anyway.
FIRST_STEP = """
import os, runpy, sys
def end(*_args, **_kwargs): os._exit(0)
{patches}
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
TRAINS = "import winnow.train.loop as m; m._one_step = end"
EVALUATES = "import winnow.vision.evaluate as m; m.evaluation_mode = end"
ATTACKS = "import winnow.text.attacks.run as m; m.attack_one = end"
HEAVY = {  # stage -> (the stage whose start stands for its own, where its first step is); all others count as light
    **{s: ("transfer", TRAINS) for s in ("pretrain", "train", "transfer")},
    **{s: ("gem_search", TRAINS) for s in ("gem_search", "gem_sanity")},
    **{s: ("finetune_text", TRAINS) for s in ("import_text_model", "finetune_text", "search_robust_ticket")},
    **{
        s: ("transfer", TRAINS) for s in ("export_ticket", "import_ticket", "import_weights", "gem_init")
    },  # they import torch
    **{f"{s}_plots": ("transfer", TRAINS) for s in NAMES},  # matplotlib is quicker
    "evaluate": ("evaluate", EVALUATES),
    "attack_text": ("attack_text", ATTACKS),
}
LIGHT = "prune"
NOTHING_BUT_JOBS = """
rule all:
    input: expand("{{i}}.b", i=range({count}))
rule one:
    output: "{{i}}.a"
    shell: "touch {{output}}"
rule two:
    input: "{{i}}.a"
    output: "{{i}}.b"
    shell: "touch {{output}}"
"""


def seconds(command, **keys):
    """Wall seconds of a command, and what it printed; CalledProcessError with its output when it fails."""
    environment = os.environ | JOB_ENVIRONMENT | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    begun = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, **keys)
    taken = time.perf_counter() - begun
    if done.returncode:
        raise RuntimeError(f"{shlex.join(map(str, command))}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return taken, done.stdout


def stage(name, config, folder, **files):
    """Wall seconds of a stage's command, run in `folder`; `files`: option -> value."""
    folder.mkdir(parents=True, exist_ok=True)
    words = [word for option, value in files.items() for word in (f"--{option.replace('_', '-')}", str(value))]
    command = [sys.executable, "-m", f"winnow.stages.{name}", "--config", json.dumps(config), "--device", "cpu", *words]
    return seconds(command, cwd=folder)[0]


def snakemake(*words):
    return [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), *words]


def dry_run(*words):
    """Seconds of a dry run, and its number of jobs."""
    taken, text = seconds(snakemake("-n", "--quiet", "rules", *words))
    return taken, int(re.findall(r"^total\s+(\d+)", text, re.MULTILINE)[0])


def dry_runs():
    """A dry run of each paper's configuration; files that users bring are there, but empty. Then Snakemake's own share
    of the largest.
    """
    rows, total, most = [], 0.0, 0
    for name in PAPER:
        path = ROOT / f"config/paper/{name}.yaml"
        given = yaml.safe_load(path.read_text())
        tables = [f"results/tables/{s}.csv" for s in NAMES if s in given]
        with tempfile.TemporaryDirectory() as folder:
            for asset in given.get("robust_bert", {}).get("assets", {}).values():
                if not asset.startswith("data/attack_assets/"):
                    (Path(folder) / asset).parent.mkdir(parents=True, exist_ok=True)
                    (Path(folder) / asset).touch()
            taken, jobs = dry_run(
                "--directory", folder, *tables, "--configfile", str(path), "--config", "check_data=false"
            )
        total, most = total + taken, max(most, jobs)
        rows.append(measured("dry run of a paper's configuration", f"{name}, {jobs} jobs", taken, "s"))
    rows.append(measured("dry run of the papers' configurations", "all together", total, "s", 10.0))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "Snakefile").write_text(NOTHING_BUT_JOBS.format(count=most // 2))
        taken, jobs = dry_run("--snakefile", f"{folder}/Snakefile", "--directory", folder)
    return [
        *rows,
        measured("dry run of as many jobs that declare nothing but files", f"Snakemake alone, {jobs} jobs", taken, "s"),
    ]


def plans():
    """A plan of each paper's configuration with every job's requests under the SLURM profile, at the same time: `make
    -j plan EACH=1`.
    """
    files = [f"config/paper/{name}.yaml" for name in PAPER]
    command = ["make", f"-j{os.cpu_count()}", "-O", "plan", "EACH=1", f"CONFIG={' '.join(files)}", f"VENV={sys.prefix}"]
    taken, text = seconds(command, cwd=ROOT)
    jobs = sum(" threads=" in line for line in text.splitlines())
    return measured(
        "plans of the papers' configurations, at the same time", f"{jobs} jobs with their requests", taken, "s", 20.0
    )


def spread(times):
    return [min(times), max(times)]


def light_start(repeats):
    """Start to end of a light stage on a handful of weights: what a job that needs no torch costs."""
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.safetensors"
        write_tensors(
            weights,
            {"conv.weight": np.ones((2, 2, 3, 3), np.float32)},
            {"kind": "weights", "prunable": ["conv.weight"]},
        )
        command = [
            sys.executable,
            "-m",
            f"winnow.stages.{LIGHT}",
            "--config",
            '{"method": "magnitude", "remaining_percent": 80}',
            "--weights",
            str(weights),
        ]
        times = [seconds([*command, "--out", f"{folder}/{i}.mask.safetensors"])[0] for i in range(repeats + 1)][1:]
    return statistics.median(times), spread(times)


def stage_commands(text):
    """Stage -> one of its commands, and how many jobs of each there are, from what `snakemake -n -p` prints."""
    commands, counts = {}, {}
    for line in text.splitlines():
        found = re.search(r"python -m winnow\.stages\.(\w+) .*", line)
        if found:
            words = shlex.split(found[0].split(" 2> ")[0])
            commands.setdefault(found[1], words[2:])
            counts[found[1]] = counts.get(found[1], 0) + 1
    return commands, counts


def first_step(words, patches, repeats):
    """Median seconds from process start to the first step of a stage's command."""
    code = FIRST_STEP.format(patches=patches)
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-c", code, *words, "--scratch", scratch, "--workers", "0"]
        times = [seconds(command)[0] for _ in range(repeats)]
    return statistics.median(times), spread(times)


def job_seconds(results):
    """The sum of all jobs' seconds, from the benchmark files below `results`."""
    total = 0.0
    for path in results.rglob("*.tsv"):
        lines = path.read_text().splitlines()
        if lines and lines[0].startswith("s\th:m:s"):
            total += sum(float(line.split("\t")[0]) for line in lines[1:])
    return total


def overhead(light, repeats):
    """What the demo's jobs cost to start, and its share of all their time."""
    _, text = seconds(snakemake("-n", "-p", "--forceall", "all"))
    commands, counts = stage_commands(text)
    starts, rows = {}, []
    for representative, patches in dict(HEAVY.values()).items():
        starts[representative], times = first_step(commands[representative], patches, repeats)
        rows.append(
            measured(
                "job overhead, process start to first step", representative, starts[representative], "s", spread=times
            )
        )
    spent = sum(n * (starts[HEAVY[s][0]] if s in HEAVY else light) for s, n in counts.items())
    share = 100 * spent / job_seconds(Path("results"))
    what = f"{sum(counts.values())} jobs of the demo, {spent:.0f} s"
    return [*rows, measured("job overhead, share of all jobs' time", what, share, "%", 35.0)]


def demo_is_finished():
    """Whether the results in this folder are those of the default configuration and of this code."""
    return "Nothing to be done" in seconds(snakemake("-n", "all"))[1]


def main(argv=None):
    args = arguments(__doc__, argv)
    run = Run("workflow", args)
    light, times = light_start(args.repeats)
    run.add(measured("start to end of a light stage", LIGHT, light, "s", 1.0, spread=times))
    if not args.tiny:
        run.add(*dry_runs(), plans())
    if not args.tiny and demo_is_finished():
        times = [seconds(snakemake("--cores", "2", "--quiet", "all"))[0] for _ in range(args.repeats)]
        run.add(
            measured("a run with nothing to do", "the demo again", statistics.median(times), "s", spread=spread(times))
        )
        run.add(*overhead(light, args.repeats))
    elif not args.tiny:
        print(
            "workflow: no finished demo of this code in this folder, so no-op run and job overhead are left out; run "
            "`make demo` first"
        )
    run.write()


if __name__ == "__main__":
    main()
