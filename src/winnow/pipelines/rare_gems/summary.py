"""What the rare-gems table comes to: which tickets are gems, how sparse, and how far that can be trusted."""

from __future__ import annotations

from winnow.tables.summary import ROWS, Row, Summary, flag, groups, mean, number, percent, sureness, whole

HEADER = ["branch", "remaining %", "before", "after", "published", "best check", "seeds", "gem"]
CHECKS = ("reinit_acc", "shuffle_acc", "invert_acc")


def summary(rows: list[Row]) -> Summary:
    """One verdict an experiment; of each, every ticket whose checks were run, then the most accurate of the others."""
    verdicts, chosen = [], []
    experiments = groups(rows, "experiment")
    for (experiment,), own in experiments.items():
        checked = [r for r in own if number(r, "is_gem") is not None]
        gems = [r for r in checked if number(r, "is_gem") == 1]
        if not checked:
            verdicts.append(f"{experiment}: open: no branch asks for the sanity checks")
        elif not gems:
            verdicts.append(f"{experiment}: none of {len(checked)} checked tickets is a gem")
        else:
            best = min(gems, key=lambda r: number(r, "remaining_percent") or 100.0)
            sure = sureness(number(best, "is_gem_margin_se"), number(best, "is_gem_seeds"))
            verdicts.append(
                f"{experiment}: the sparsest gem is {best['branch']} with {percent(best, 'remaining_percent')} % of "
                f"the weights: "
                f"{number(best, 'acc_before') or 0:.1f} % before any training, "
                f"{number(best, 'acc_after_mean') or 0:.1f} % after{_perplexities(best)}, its best "
                f"sanity check {_best_check(best)} % ({sure}); {len(gems)} of {len(checked)} checked tickets are gems"
            )
        others = sorted(
            (r for r in own if r not in checked), key=lambda r: number(r, "acc_after_mean") or 0.0, reverse=True
        )
        chosen += [*checked, *others][: max(2, ROWS // len(experiments))]
    several = len(experiments) > 1
    table = [
        [
            (f"{r['experiment']}: " if several else "") + r["branch"] + _perplexities(r),
            percent(r, "remaining_percent"),
            mean(r, "acc_before", "acc_before_std"), mean(r, "acc_after_mean", "acc_after_std"),
            percent(r, "published_acc_after"), _best_check(r), whole(r, "seeds"), flag(r, "is_gem"),
        ]
        for r in chosen
    ]  # fmt: skip
    marked = {i for i, r in enumerate(chosen) if number(r, "is_gem") == 1}
    return Summary(verdicts, HEADER, table, marked, len(rows) - len(chosen))


def _perplexities(row: Row) -> str:
    before, after = number(row, "perplexity_before"), number(row, "perplexity_after_mean")
    return "" if before is None or after is None else f" (perplexity {before:.4g} and {after:.4g})"


def _best_check(row: Row) -> str:
    found = [v for c in CHECKS if (v := number(row, c)) is not None]
    return f"{max(found):.1f}" if found else ""
