"""Is this ticket worth it here? Its network dense against sparse: latency, throughput, memory, file sizes, and one
sentence.

Times belong to the machine and to the moment: another run gives other bytes. `--device cpu` measures threads; on a GPU
threads are ignored. The first run measures which way each layer takes (seconds to minutes) and keeps that in the user's
cache folder.
"""

from __future__ import annotations

import sys
from typing import Any

from winnow.config.jobs import Speed
from winnow.stage import Job, Stage

stage = Stage(
    "speed",
    Speed,
    inputs={"weights": "trained weights: a safetensors file or a model folder", "mask": "the ticket"},
    outputs={
        "table": "a row for each batch size and number of threads",
        "csr?": "the weights with CSR parts, as safetensors",
        "onnx?": "the smaller network, dense, as ONNX (images)",
        "metrics": "the verdict, sizes, layers",
    },
)


@stage
def main(job: Job[Speed]) -> None:
    """Convert, measure, say, write."""
    import csv
    import io

    from winnow.artifacts import write_bytes
    from winnow.sparse import choice, formats, sizes, sparse, speed
    from winnow.sparse.inputs import example_inputs, load
    from winnow.sparse.rule import calibrate
    from winnow.ticket import Ticket

    cfg, ticket, device = job.config, Ticket.load(job["mask"]), job.run.device
    model = load(job["weights"], cfg).to(device)
    network = sparse(model, ticket, keep_plans=cfg.keep_plans)
    ticket.apply(model)
    inputs = example_inputs(model, cfg, device)
    threads = cfg.threads if device.type == "cpu" else cfg.threads[:1]
    rows = speed.compare(model, network, inputs, cfg.batches, threads, cfg.repeats)
    curves = []
    for count in threads:
        with choice.threads(count):
            rates = calibrate(tuple(b * (cfg.length or 1) for b in cfg.batches), cfg.length is None, device)
        for row in (r for r in rows if r["threads"] == count):
            seconds = (row["dense_ms"] / 1e3, row["folded_dense_ms"] / 1e3)
            found = speed.predict(model, ticket, inputs(row["batch"]), rates, *seconds)
            row |= {"predicted_speedup": found.speedup, "worth_from": found.worth_from, "rule_error": rates.error}
            curves.append({"batch": row["batch"], "threads": count, "speedup": list(found.curve.items())})
    says = speed.verdict(rows, ticket.remaining_percent)
    about: dict[str, Any] = {
        "remaining_percent": ticket.remaining_percent,
        "verdict": says,
        "machine": choice.machine(),
    }
    text = io.StringIO()
    table = csv.DictWriter(
        text, list(dict.fromkeys(name for row in rows for name in row)), restval=0, lineterminator="\n"
    )
    table.writeheader()
    table.writerows(rows)
    write_bytes(job["table"], text.getvalue().encode())
    held = sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()])
    about |= {"bytes_in_memory": {"dense": held, "sparse": network.held_bytes()}, "sizes": sizes.report(ticket)[-1]}
    about["bytes_in_files"] = {"dense": job["weights"].stat().st_size, "ticket": job["mask"].stat().st_size}
    if job.outputs["csr"]:
        formats.write_csr(job["csr"], model.state_dict(), ticket, **job.provenance(job["csr"]))
        about["bytes_in_files"]["csr"] = job["csr"].stat().st_size
    if job.outputs["onnx"]:
        formats.write_onnx(job["onnx"], network, *inputs(2)[0])
        about["bytes_in_files"]["onnx"] = job["onnx"].stat().st_size
    layers = [{"name": x.name, "before": x.before, "after": x.after, "kept": x.kept} for x in network.layers]
    job.write_metrics(
        "metrics", {**about, "layers": layers, "untraced": network.untraced, "rows": rows, "curves": curves}
    )
    print(says)


if __name__ == "__main__":
    sys.exit(stage.run())
