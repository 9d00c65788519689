"""What the robust-ticket table comes to: the ticket that withstands most attacks, beside the dense model."""

from __future__ import annotations

from math import hypot

from winnow.tables.summary import ROWS, Row, Summary, error, groups, mean, number, percent, sureness, whole

HEADER = ["task, attacker", "network", "removed %", "clean", "under attack", "queries", "seeds"]


def summary(rows: list[Row]) -> Summary:
    """One verdict for each task and attacker; of each the dense model, FreeLB's and the best ticket of each kind."""
    verdicts, chosen, marked, every = list[str](), list[Row](), set[int](), len(rows)
    rows = [r for r in rows if not number(r, "retrain_epoch")]  # at the end of the training
    cells = groups(rows, "task", "attacker")
    for (task, attacker), of_cell in cells.items():
        tickets = [r for r in of_cell if r["method"].endswith("_ticket")]
        dense = next((r for r in of_cell if r["method"] == "dense"), None)
        best = max(tickets, key=_aua, default=None)
        if best is None or dense is None:
            verdicts.append(f"{task}, {attacker}: no ticket beside a dense model to compare with")
        else:
            gain, spreads = _aua(best) - _aua(dense), [error(r, "aua_std") for r in (best, dense)]
            spread = hypot(*[s for s in spreads if s is not None]) if None not in spreads else 0.0
            seeds = min(number(best, "seeds") or 0, number(dense, "seeds") or 0)
            sure = sureness(gain / spread if spread else None, seeds)
            verdicts.append(
                f"{task}, {attacker}: the best ticket, {best['method']} with {percent(best, 'removed_percent')} % "
                f"removed, keeps "
                f"{_aua(best):.1f} % under attack, the dense model {_aua(dense):.1f} %: {gain:+.1f} points ({sure})"
            )
        kinds = [max(of_kind, key=_aua) for of_kind in groups(of_cell, "method").values()]
        order = sorted(kinds, key=lambda r: (r is not best, r is not dense, -_aua(r)))
        for r in order[: max(2, ROWS // len(cells))]:
            if r is best:
                marked.add(len(chosen))
            chosen.append(r)
    table = [
        [
            f"{r['task']}, {r['attacker']}", r["method"], percent(r, "removed_percent"),
            mean(r, "clean_percent", "clean_std"),
            mean(r, "aua_percent", "aua_std"), percent(r, "mean_queries"), whole(r, "seeds"),
        ]
        for r in chosen
    ]  # fmt: skip
    return Summary(verdicts, HEADER, table, marked, every - len(chosen))


def _aua(row: Row) -> float:
    return number(row, "aua_percent") or 0.0
