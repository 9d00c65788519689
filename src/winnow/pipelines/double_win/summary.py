"""What the double-win table comes to: the sparsest double-win ticket of each task, beside the published one."""

from __future__ import annotations

from winnow.tables.summary import ROWS, Row, Summary, flag, groups, mean, number, percent, sureness, whole

HEADER = [
    "ticket",
    "removed %",
    "published %",
    "SA, standard",
    "SA, adversarial",
    "RA, adversarial",
    "seeds",
    "double win",
]


def summary(rows: list[Row]) -> Summary:
    """One verdict a task; of each pre-training its dense row and its sparsest double-win ticket, else its sparsest
    ticket.
    """
    verdicts, chosen = [], []
    tasks = groups(rows, "dataset", "fraction")
    for (dataset, fraction), of_task in tasks.items():
        where = f"{dataset}, {100 * float(fraction):g} % of its training data" if float(fraction) < 1 else dataset
        tickets = [r for r in of_task if r["method"] != "dense"]
        won = [r for r in tickets if number(r, "double_win") == 1]
        if won:
            best = max(won, key=lambda r: (number(r, "removed_percent") or 0, r["method"] == "imp"))
            sure = sureness(number(best, "double_win_margin_se"), number(best, "double_win_seeds"))
            verdicts.append(
                f"{where}: the sparsest double-win ticket is {_name(best)} with {percent(best, 'removed_percent')} % "
                f"removed ({sure}); "
                f"{len(won)} of {len(tickets)} tickets are double-win"
            )
        elif tickets and all(number(r, "double_win") is None for r in tickets):
            verdicts.append(f"{where}: not decided: with 1 seed and no tolerance there is no spread to compare with")
        else:
            verdicts.append(f"{where}: none of {len(tickets)} tickets is double-win")
        for of_one in groups(of_task, "pretraining").values():
            dense = [r for r in of_one if r["method"] == "dense"]
            others = [r for r in of_one if r["method"] != "dense"]
            best_of = (
                [r for r in others if number(r, "double_win") == 1]
                or [r for r in others if r["method"] == "imp"]
                or others
            )
            chosen += dense[:1] + sorted(best_of, key=lambda r: number(r, "removed_percent") or 0)[-1:]
    several = len(tasks) > 1
    shown = chosen[: max(ROWS, 8)]
    table = [
        [
            _name(r) + (f" → {r['dataset']}" if several else ""), percent(r, "removed_percent"),
            percent(r, "published_double_win_removed_percent"), mean(r, "std_sa_mean", "std_sa_std"),
            mean(r, "adv_sa_mean", "adv_sa_std"), mean(r, "adv_ra_mean", "adv_ra_std"), whole(r, "seeds"),
            flag(r, "double_win"),
        ]
        for r in shown
    ]  # fmt: skip
    marked = {i for i, r in enumerate(shown) if number(r, "double_win") == 1}
    return Summary(verdicts, HEADER, table, marked, len(rows) - len(shown))


def _name(row: Row) -> str:
    method = row["method"] if row["imp_regime"] in ("none", "") else f"{row['method']} ({row['imp_regime']})"
    return f"{row['pretraining']}, {method}"
