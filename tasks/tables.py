# ruff: noqa: RUF001 (×, – and − are meant)
"""Numbers as people read them, and tables of them as text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from tasks import statistics
from tasks.claims import Outcome
from tasks.comparison import Comparison, Standing
from tasks.measures import finals, further_metrics, metric_name
from tasks.results import Summary
from tasks.statistics import Interval

COLUMNS = (
    "optimizer",
    "final valid loss",
    "best valid loss",
    "steps to target",
    "update ms",
    "× adamw",
    "state B/param",
    "diverged",
)
STOPPING_COLUMNS = (
    "stopped at step",
    "time to stop s",
    "restored valid loss",
    "its difference",
)


COSTS = {
    "update ms": "update_ms",
    "× adamw": "update_ratio_to_adamw",
    "share of the step": "update_share",
    "state B/param": "state_bytes_per_parameter",
    "temporary B/param": "temporary_bytes_per_parameter",
    "compile s": "compile_seconds",
}


def measured_costs(summaries: Iterable[Summary]) -> dict[str, str]:
    """The columns of `COSTS` that any of the summaries has a number for."""
    summaries = list(summaries)
    return {
        shown: name
        for shown, name in COSTS.items()
        if any(not math.isnan(s.cost(name)) for s in summaries)
    }


def cost(value: float, digits: int = 2) -> str:
    """A cost; nothing where it was not measured.

    Example:
      >>> cost(1.234), cost(float("nan"))
      ('1.2', '–')
    """
    return "–" if math.isnan(value) else number(value, digits)


def number(value: float, digits: int = 4) -> str:
    """A number with a few significant digits, without an exponent where it is short.

    Example:
      >>> number(0.123456), number(12345.6), number(float("inf")), number(3e-7)
      ('0.1235', '12346', '∞', '3e-07')
    """
    if math.isnan(value):
        return "undefined"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if abs(value) >= 10**digits:
        return f"{value:.0f}"
    return f"{value:#.{digits}g}".rstrip(".") if abs(value) >= 1e-4 else f"{value:.3g}"


def with_interval(interval: Interval, digits: int = 4) -> str:
    """`estimate [low, high]`, or the estimate alone where all three are the same.

    Example:
      >>> with_interval(Interval(0.5, 0.25, 0.75))
      '0.5000 [0.2500, 0.7500]'
    """
    shown = [number(x, digits) for x in interval]
    if len(set(shown)) == 1:
        return shown[0]
    return f"{shown[0]} [{shown[1]}, {shown[2]}]"


def steps_with_interval(interval: Interval | None, last_step: int) -> str:
    """Steps to target, `>N` where the run ended before.

    Example:
      >>> steps_with_interval(Interval(200.0, 150.0, float("inf")), 1000)
      '200 [150, >1000]'
    """
    if interval is None:
        return "–"
    shown = [f"{x:.0f}" if math.isfinite(x) else f">{last_step}" for x in interval]
    if len(set(shown)) == 1:
        return shown[0]
    return f"{shown[0]} [{shown[1]}, {shown[2]}]"


def row(summary: Summary) -> list[str]:
    """The cells of an optimizer's line, in the order of `COLUMNS`."""
    return [
        summary.optimizer,
        with_interval(summary.final),
        with_interval(summary.best),
        steps_with_interval(summary.steps_to_target, summary.steps),
        number(summary.cost("update_ms"), 3),
        number(summary.cost("update_ratio_to_adamw"), 3),
        number(summary.cost("state_bytes_per_parameter"), 3),
        f"{summary.num_diverged}/{len(summary.records)}",
    ]


def final_metric(summary: Summary, metric: str) -> str:
    """A metric at the end, over seeds; "undefined" if one of them diverged."""
    return with_interval(statistics.interval(finals(summary.records, metric)))


def stopping_row(summary: Summary) -> list[str]:
    """The cells of early stopping, in the order of `STOPPING_COLUMNS`."""
    found = summary.stopping
    if found is None:
        return ["–"] * len(STOPPING_COLUMNS)
    return [
        steps_with_interval(found.steps, found.total_steps),
        with_interval(found.seconds, 3).replace("∞", f">{found.total_seconds:.3g}"),
        with_interval(found.loss),
        "–" if found.difference is None else with_interval(found.difference, 3),
    ]


def markdown(summaries: Sequence[Summary]) -> str:
    """A headline and an aligned Markdown table of the optimizers on one task."""
    first = summaries[0]
    seeds = sorted({len(s.records) for s in summaries})
    headline = (
        f"{first.task}: {first.steps} steps, {' or '.join(map(str, seeds))} seeds"
    )
    if first.target is not None:
        headline += f", target loss {number(first.target)}"
    rows = [list(COLUMNS), *map(row, summaries)]
    metrics = further_metrics(first.records[0])
    extra = [[metric_name(m) for m in metrics]]
    extra += [[final_metric(s, m) for m in metrics] for s in summaries]
    if any(s.stopping for s in summaries):
        stopping = [list(STOPPING_COLUMNS), *map(stopping_row, summaries)]
        extra = [e + s for e, s in zip(extra, stopping, strict=True)]
    rows = [r[:-1] + e + r[-1:] for r, e in zip(rows, extra, strict=True)]
    return f"{headline}\n\n{aligned(rows)}"


OVERALL_COLUMNS = (
    "optimizer",
    "tasks",
    "score",
    "optimality gap",
    "P(improvement)",
    "time to target",
    "diverged",
)


def overall_row(standing: Standing) -> list[str]:
    """The cells of an optimizer's line over all tasks, in that order of columns."""
    return [
        standing.optimizer,
        str(standing.num_tasks),
        with_interval(standing.score),
        with_interval(standing.gap, 2),
        "–" if standing.improvement is None else with_interval(standing.improvement, 2),
        number(standing.steps, 2),
        f"{standing.num_diverged}/{standing.num_runs}",
    ]


def overall(comparison: Comparison) -> str:
    """A headline and a Markdown table of optimizers over all tasks."""
    title = f"{comparison.title}, " if comparison.title else ""
    n = len(comparison.tasks)
    tasks = f"{n} tasks" if n > 1 else "one task"
    headline = (
        f"{title}{tasks} by {comparison.measure}: score 1 is the best baseline, "
        f"improvement is over {comparison.baseline or 'the baseline'}, time to target "
        "is the area under the profile"
    )
    rows = [list(OVERALL_COLUMNS), *map(overall_row, comparison.standings)]
    return f"{headline}\n\n{aligned(rows)}"


CLAIM_COLUMNS = ("claim", "verdict", "one-sided p", "smallest p", "difference", "pairs")


def claim_row(outcome: Outcome) -> list[str]:
    """The cells of a claim, in the order of `CLAIM_COLUMNS`."""
    late = "" if outcome.declared else " (declared after a run)"
    return [
        str(outcome.claim) + late,
        outcome.verdict,
        number(outcome.p, 2),
        number(outcome.smallest_p, 2),
        "–" if outcome.difference is None else with_interval(outcome.difference, 3),
        str(outcome.num_pairs),
    ]


def claim_table(outcomes: Sequence[Outcome]) -> str:
    """A headline and a Markdown table of what was claimed before the run."""
    rows = [list(CLAIM_COLUMNS), *map(claim_row, outcomes)]
    return f"claims declared before the run\n\n{aligned(rows)}"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose first row is the head; numbers stand to the right.

    Example:
      >>> print(aligned([["a", "loss"], ["adam", "1"]]))
      | a    | loss |
      | ---- | ---: |
      | adam |    1 |
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    head, *lines = ["| " + " | ".join(_padded(r, widths)) + " |" for r in rows]
    rule = ["-" * widths[0], *("-" * (w - 1) + ":" for w in widths[1:])]
    return "\n".join([head, "| " + " | ".join(rule) + " |", *lines])


def _padded(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [cells[0].ljust(widths[0])] + [
        c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True)
    ]
