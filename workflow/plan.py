"""What a run would cost before anything is submitted: jobs, CPU and GPU hours and disk of every rule for what is not
done yet.

    make plan CONFIG=config/paper/double_win.yaml
    python workflow/plan.py [--each] [TARGET ...] [--configfile FILE] [any other option of snakemake]

Without a target: the tables of the pipelines that the file configures. Times come from the benchmarks of this
configuration's finished jobs, scaled by work; where a rule has none, from workflow/resources.yaml, which the column
`from` calls an estimate. `--each` also prints one line a job with what it asks for. Where sinfo answers, requests that
no partition allows are named.
"""

from __future__ import annotations

import csv
import shutil
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

from winnow.config.root import Root, load_files  # noqa: E402
from winnow.pipelines import packs  # noqa: E402
from winnow.pipelines.cost import model_of, output_bytes, work  # noqa: E402

REQUESTS = yaml.safe_load((ROOT / "workflow/resources.yaml").read_text())
BURST, A_MINUTE = 40, 4  # what sites with rate limits grant
REQUESTS_A_JOB = 5  # measured: sbatch, states, efficiency; and one more a member of a packed job (scontrol show config)
ASKED = ("threads", "mem_mb", "runtime", "gpu", "slurm_partition")


def row(rule: str) -> dict[str, Any]:
    """The row of a rule in the table of requests: its own, or that of what it takes over (prune_ticket: prune)."""
    before, _, after = rule.rpartition("_")
    return next(REQUESTS[name] for name in (rule, before, after) if name in REQUESTS)


def asks(job: Any) -> dict[str, Any]:
    """What a job asks for at its first attempt."""
    return {"threads": job.threads} | {name: job.resources.get(name) for name in ASKED[1:]}


def seconds_recorded(job: Any) -> float | None:
    """Wall seconds in the benchmark file of a finished job."""
    path = Path(str(job.benchmark))
    if job.benchmark is None or not path.is_file():
        return None
    with path.open() as stream:
        return float(next(csv.DictReader(stream, delimiter="\t"))["s"])


class Costs:
    """Seconds and bytes of jobs, from the finished ones and the shipped table."""

    def __init__(self, root: Root, finished: list[Any]):
        self.root = root
        self.counted: dict[tuple[str, int, str], float] = {}  # thousands of jobs share a few configurations
        self.recorded: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for job in finished:
            seconds = seconds_recorded(job)
            if seconds is not None:
                self.recorded[job.rule.name].append((seconds, self.work(job)))

    def work(self, job: Any) -> float:
        """TMAC of a job."""
        text, model = getattr(job.params, "config", "{}"), model_of(self.root, job.wildcards)
        place = (text, id(model), getattr(job.wildcards, "mode", ""))
        if place not in self.counted:
            self.counted[place] = work(text, model, job.wildcards)
        return self.counted[place]

    def seconds(self, job: Any) -> float:
        """Expected wall time. Recorded: the median time at the median work, more or less in proportion to the work."""
        known, tmac = self.recorded.get(job.rule.name), self.work(job)
        if known:
            usual = statistics.median(w for _, w in known)
            return statistics.median(s for s, _ in known) * (tmac / usual if usual else 1.0)
        gpus = job.resources.get("gpu", 0)
        rates = REQUESTS["rates"]
        rate = rates["gpu"] * gpus if gpus and self.root.device != "cpu" else rates["cpu"] * job.threads
        return (row(job.rule.name)["seconds"] or 60.0) + tmac / rate

    def bytes(self, job: Any) -> float:
        """Expected size of what stays of a job's artifacts (networks that are deleted once measured do not)."""
        kept = [str(o) for o in job.output if not getattr(o, "flags", {}).get("temp")]
        return output_bytes(kept, model_of(self.root, job.wildcards))


def table(root: Root, jobs: list[Any], finished: list[Any], local: set[str]) -> list[list[str]]:
    """One row a rule, and the total. Jobs of the rules in `local` run where snakemake runs."""
    costs, rules = Costs(root, finished), defaultdict(list)
    for job in jobs:
        rules[job.rule.name].append(job)
    rows = [["rule", "jobs", "CPU h", "GPU h", "disk GB", "threads", "mem_mb", "minutes", "gpu", "where", "from"]]
    sums = [0.0, 0.0, 0.0]
    for name, members in rules.items():
        asked = [asks(j) for j in members]
        hours = [costs.seconds(j) / 3600 for j in members]
        cpu = sum(h * a["threads"] for h, a in zip(hours, asked, strict=True))
        gpu = sum(h * (a["gpu"] or 0) for h, a in zip(hours, asked, strict=True))
        disk = sum(costs.bytes(j) for j in members) / 1e9
        sums = [a + b for a, b in zip(sums, (cpu, gpu, disk), strict=True)]
        most = [str(max(a[key] or 0 for a in asked)) for key in ("threads", "mem_mb", "runtime", "gpu")]
        known = len(costs.recorded.get(name, []))
        source = f"{known} finished jobs" if known else "estimate"
        numbers = [f"{v:.1f}" for v in (cpu, gpu, disk)]
        rows.append([name, str(len(members)), *numbers, *most, "here" if name in local else "cluster", source])
    return [*rows, ["total", str(len(jobs)), *(f"{v:.1f}" for v in sums), *[""] * 6]]


def refused(jobs: list[Any]) -> list[str]:
    """Requests that the partitions, as sinfo tells them, can never grant (they would be refused, or wait for ever)."""
    if shutil.which("sinfo") is None:
        return []
    told = subprocess.run(["sinfo", "-h", "-o", "%R|%c|%m|%l"], capture_output=True, text=True)
    if told.returncode:
        return [f"sinfo: {told.stderr.strip()}; the limits of the partitions were not checked"]
    limits = defaultdict(list)
    for line in told.stdout.split():
        name, cpus, megabytes, longest = line.split("|")
        limits[name].append((int(cpus.rstrip("+")), int(megabytes.rstrip("+")), minutes(longest)))
    found = set()
    for job in jobs:
        a = asks(job)
        if a["slurm_partition"] is None:
            continue
        kinds = limits.get(a["slurm_partition"])
        if kinds is None:
            found.add(
                f"there is no partition {a['slurm_partition']!r}; set slurm_partition in profiles/slurm/config.yaml"
            )
        elif not any(a["threads"] <= c and a["mem_mb"] <= m and a["runtime"] <= t for c, m, t in kinds):
            wanted = f"{a['threads']} threads, {a['mem_mb']} MB and {a['runtime']} min"
            found.add(f"{job.rule.name} asks for {wanted}: more than a node of partition {a['slurm_partition']} gives")
    return sorted(found)


def submissions(jobs: list[Any], packed: dict[packs.Job, str]) -> str:
    """How many SLURM jobs these are, and how long it takes to be let in."""
    groups = {packed.get(packs.job(j.rule.name, **j.wildcards)) or id(j) for j in jobs}
    members = sum(packs.job(j.rule.name, **j.wildcards) in packed for j in jobs)
    requests = REQUESTS_A_JOB * len(groups) + members
    hours = [max(0.0, count - BURST) / A_MINUTE / 60 for count in (len(groups), requests)]
    return (
        f"{len(jobs)} jobs for the cluster in {len(groups)} SLURM jobs, about {requests} requests to its controller; "
        f"where a site takes "
        f"{BURST} at once and then {A_MINUTE} a minute: {hours[0]:.1f} h if it counts submissions, {hours[1]:.1f} h if "
        f"all requests"
    )


def minutes(text: str) -> float:
    """SLURM's [days-]hours:minutes:seconds in minutes."""
    if text == "infinite":
        return float("inf")
    days, _, clock = text.rpartition("-")
    parts = [0, 0, *map(int, clock.split(":"))][-3:]
    return int(days or 0) * 1440 + parts[0] * 60 + parts[1] + parts[2] / 60


def show(workflow: Any, each: bool, packed: dict[packs.Job, str]) -> None:
    """Print the plan of a workflow whose jobs are known; `packed`: the SLURM job of those that share one."""
    settings = workflow.config_settings
    root = load_files(settings.configfiles, settings.config)[0]
    jobs = sorted(workflow.dag.needrun_jobs(), key=lambda j: (j.rule.name, str(j.output[:1])))
    jobs = [j for j in jobs if j.output]  # the targets `all` and the like are no work
    waiting = set(jobs)
    finished = [j for j in workflow.dag.jobs if j not in waiting]
    if each:
        for job in jobs:
            asked = " ".join(f"{name}={value}" for name, value in asks(job).items() if value is not None)
            print(f"{job.rule.name} {job.output[0]} {asked}")
    rows = table(root, jobs, finished, workflow._localrules)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = enumerate(zip(row, widths, strict=True))
        print("  ".join(cell.ljust(w) if i in (0, 9, 10) else cell.rjust(w) for i, (cell, w) in cells).rstrip())
    print("threads, mem_mb, minutes, gpu: the largest request of the rule at its first attempt")
    print(submissions([j for j in jobs if j.rule.name not in workflow._localrules], packed))
    for problem in refused([j for j in jobs if j.rule.name not in workflow._localrules]):
        print(f"warning: {problem}")


def main() -> None:
    """Run snakemake up to the point where it knows its jobs, and print them instead of a summary."""
    import snakemake.cli
    import snakemake.workflow
    from snakemake.settings.types import GroupSettings

    each, arguments = "--each" in sys.argv, [a for a in sys.argv[1:] if a != "--each"]
    given = snakemake.cli.get_argument_parser().parse_args(arguments)
    _, with_profiles = snakemake.cli.parse_args(arguments)
    if not given.targets:
        root, _ = load_files(given.configfile or [], {"check_data": False})
        arguments = [f"results/tables/{name}.csv" for name in root.sections()] + arguments
    arguments += ["--config", "check_data=false", *(given.config or [])]  # a plan may be made where the data is not

    def summary(self: Any, detailed: bool = False) -> None:
        # a summary is not told how jobs are grouped, and does not group them
        self.group_settings = GroupSettings(group_components=with_profiles.group_components or {})
        packed = self.globals["ADAPTER"].packed(self)
        self._prepare_dag(forceall=False, ignore_incomplete=True, lock_warn_only=True)
        self._build_dag()
        show(self, each, packed)

    snakemake.workflow.Workflow.summary = summary  # type: ignore[method-assign]  # what --summary calls; it has no other hook
    snakemake.cli.main(["--summary", *arguments])


if __name__ == "__main__":
    main()
