"""What the tables of speed and of relations come to."""

from __future__ import annotations

from winnow.tables.summary import ROWS, Row, Summary, number


def summary(name: str, rows: list[Row]) -> Summary:
    """Verdicts and the small table of `<pipeline>_speed` or `<pipeline>_relations`."""
    return _speed(rows) if name.endswith("_speed") else _relations(rows)


def _called(row: Row) -> str:
    known = ("experiment", "pretraining", "branch", "ticket", "dataset", "percent", "mode")
    return ", ".join(row[k] for k in known if row.get(k))


def _figure(row: Row, column: str) -> str:
    value = number(row, column)
    return "" if value is None else f"{value:.3g}"


def _speed(rows: list[Row]) -> Summary:
    verdicts = dict.fromkeys(f"{_called(r)}: {r['verdict'].rstrip('.')}" for r in rows)
    columns = ("remaining_percent", "batch", "threads", "speedup", "low", "high", "predicted_speedup")
    table = [[_called(r), *(_figure(r, c) for c in columns)] for r in rows]
    header = ["ticket", "remaining %", "batch", "threads", "times as fast", "low", "high", "by the rule"]
    return Summary(list(verdicts), header, table[:ROWS], more=max(0, len(table) - ROWS))


def _relations(rows: list[Row]) -> Summary:
    verdicts = []
    for row in rows:
        what = "two seeds" if row["pair"] == "seeds" else "two orders of the data"
        at = f" at {row['target']} %" if row.get("target") not in (None, "", "100") else ""
        shared = ""
        if row["pair"] == "seeds" and number(row, "jaccard") is not None:
            shared = f"; their overlap is {_figure(row, 'jaccard')}, that of random masks {_figure(row, 'jaccard_by_chance')}"
        verdicts.append(
            f"{_called(row)}{at}, {what}: a loss barrier of {_figure(row, 'test_loss_barrier')} on the test split, "
            f"instability {_figure(row, 'test_instability')} points{shared}"
        )
    columns = ("jaccard", "jaccard_by_chance", "test_loss_barrier", "test_instability", "test_acc_of_ends")
    table = [[_called(r), r.get("target", ""), r["pair"], *(_figure(r, c) for c in columns)] for r in rows]
    header = ["ticket", "remaining %", "pair", "overlap", "by chance", "loss barrier", "instability", "accuracy"]
    return Summary(verdicts, header, table[:ROWS], more=max(0, len(table) - ROWS))
