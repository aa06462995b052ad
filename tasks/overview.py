# ruff: noqa: RUF001 (the page is typeset: × and – are meant)
"""The head of the page: which optimizer to try first, and what was claimed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from tasks import grid_views, grids, profile_plots, tables
from tasks.claims import Outcome
from tasks.comparison import Comparison
from tasks.grids import Grid
from tasks.markup import anchor, figure, interval, mark, soften_bounds, table, text
from tasks.measures import FINAL_TRAIN
from tasks.results import Summary

Summaries = Mapping[str, Sequence[Summary]]

_MOST_COLUMNS, _MOST_IN_MATRIX = 6, 16
_HEAD = (
    "optimizer",
    "tasks",
    "score",
    "optimality<br>gap",
    "probability of<br>improvement",
    "area, steps<br>to target",
    "area, time<br>to target",
    "diverged<br>runs",
)
_READING = (
    "Score: interquartile mean over the runs of all tasks, where 0 is the loss at the "
    "start and 1 the best baseline. Optimality gap: mean distance below 1, less is "
    "better. Probability of improvement: that a run scores higher than one of "
    "{baseline} (shaded) on the same task. Areas under the profile on the right: 1 "
    "for the fastest to the target everywhere, 0 for one that never gets there in "
    "time. All with 95 % stratified bootstrap intervals over seeds; the tasks are "
    "those of the suite, and nothing is said about others."
)
_PROFILE_CAPTION = (
    "Left: share of runs that score above τ, averaged over tasks, with 95 % "
    "stratified bootstrap bands; further right is better, and what is low on the left "
    "is fragile. Right: share of tasks on which the target is reached within τ times "
    "the steps of the fastest optimizer; higher is better. Each optimizer has its "
    "own line style and marker."
)
_MATRIX_READING = (
    "Probability that a run of the optimizer of the row scores higher than one of the "
    "column on the same task, over the tasks that both were run on."
)
_TASKS_READING = (
    "Final validation loss: interquartile mean over seeds with its 95 % bootstrap "
    "interval. ▼ better and ▲ worse than the baseline (shaded): the interval of the "
    "seed-by-seed difference lies wholly on one side of 0; ○ unclear: it does not."
)
_CLAIMS_READING = (
    "Differences are left less right: interquartile mean over paired seeds with its "
    "95 % bootstrap interval. p: one-sided sign-flip test."
)
_COSTS_READING = (
    "A range is over the tasks. Compare ratios rather than milliseconds, which depend "
    "on the machine and on what else it did."
)


def of(comparison: Comparison) -> Iterator[str]:
    """Which optimizer to try first, and how all of them stand over the tasks."""
    title = f" ({comparison.title})" if comparison.title else ""
    yield f"<h2>Which optimizer to try first{text(title)}</h2>"
    yield f"<p>{_advice(comparison)}</p>"
    rows = [
        (
            s.optimizer,
            [
                f"{s.num_tasks}/{len(comparison.tasks)}",
                interval(s.score),
                interval(s.gap, 2),
                interval(s.improvement, 2) if s.improvement else "–",
                tables.cost(s.steps),
                tables.cost(s.seconds),
                f"{s.num_diverged}/{s.num_runs}",
            ],
        )
        for s in comparison.standings
    ]
    yield table(_HEAD, rows, comparison.baseline or "")
    reading = _READING.format(baseline=comparison.baseline or "the baseline")
    yield f'<p class="note">{text(reading)}</p>'
    yield figure(profile_plots.profile_curves(comparison), _PROFILE_CAPTION)
    yield from _matrix(comparison)


def _advice(comparison: Comparison) -> str:
    """The optimizer with the highest score, and which are not told apart from it."""
    first, *others = comparison.whole
    unclear = [
        s.optimizer
        for s in others
        if (p := comparison.improvement(first.optimizer, s.optimizer)) and p.low <= 0.5
    ]
    tasks = "the task" if len(comparison.tasks) == 1 else f"{first.num_tasks} tasks"
    said = (
        f" has the highest score by {comparison.measure}, "
        f"{tables.with_interval(first.score)}, of the {len(comparison.whole)} "
        f"optimizers that were run on {tasks}."
    )
    if first.improvement:
        probability = tables.with_interval(first.improvement, 2)
        said += (
            f" A run of it beats one of {comparison.baseline} with probability "
            f"{probability}."
        )
    elif (
        first.optimizer == comparison.baseline
        and others
        and (least := comparison.improvement(others[0].optimizer, first.optimizer))
    ):
        said += (
            f" It is the baseline. A run of the next, {others[0].optimizer}, beats one "
            f"of it with probability {tables.with_interval(least, 2)}."
        )
    if unclear:
        said += f" These data do not tell it from {', '.join(unclear)}: choose by cost."
    return f"<b>{text(first.optimizer)}</b>{text(said)}"


def _matrix(comparison: Comparison) -> Iterator[str]:
    names = [s.optimizer for s in comparison.standings]
    if not 3 <= len(names) <= _MOST_IN_MATRIX:
        return
    rows = []
    for row in names:
        found = [
            None if row == other else comparison.improvement(row, other)
            for other in names
        ]
        cells = ["–" if p is None else tables.number(p.estimate, 2) for p in found]
        rows.append((row, cells))
    yield "<h3>Probability of improvement</h3>"
    yield table(["", *map(text, names)], rows)
    yield f'<p class="note">{_MATRIX_READING}</p>'


def of_claims(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """What was claimed before the run, and what became of it."""
    if not outcomes:
        return
    yield "<h2>Claims declared before the run</h2>"
    rows = []
    for outcome in outcomes:
        claim, verdict, *cells = tables.claim_row(outcome)
        rows.append((claim, [f"<b>{verdict}</b>", *map(soften_bounds, cells)]))
    yield table(tables.CLAIM_COLUMNS, rows)
    yield f'<p class="note">{_CLAIMS_READING}</p>'


def of_tasks(summaries: Summaries) -> Iterator[str]:
    """A sentence for each task, and a table where there are few of them."""
    yield "<h2>Task by task</h2><ul>"
    alone: dict[str, Sequence[Summary]] = {}
    for task, found in summaries.items():
        in_grids, others = grids.split(found)
        if in_grids:
            yield f"<li>{_robustness(in_grids)}</li>"
        if others:
            yield f"<li>{_verdict(others)}</li>"
            alone[task] = others
    yield "</ul>"
    if not 0 < len(alone) <= _MOST_COLUMNS:
        return
    rows = []
    for name, found in _by_optimizer(alone).items():
        cells = [
            interval(found[t].final) + mark(found[t].verdict) if t in found else "–"
            for t in alone
        ]
        rows.append((name, cells))
    every = (s for of_task in alone.values() for s in of_task)
    shaded = next((s.optimizer for s in every if s.is_baseline), "")
    yield table(["optimizer", *map(text, alone)], rows, shaded)
    yield f'<p class="note">{text(_TASKS_READING)}</p>'


def of_costs(summaries: Summaries) -> Iterator[str]:
    """What the optimizers cost, over the tasks and over the settings of a grid."""
    yield "<h2>Cost</h2>"
    every = [s for of_task in summaries.values() for s in of_task]
    columns = tables.measured_costs(every)
    names: dict[str, list[Summary]] = {}
    for s in every:
        names.setdefault(grids.base(s.optimizer), []).append(s)
    rows = [
        (name, [_range(s.cost(c) for s in found) for c in columns.values()])
        for name, found in names.items()
    ]
    yield table(["optimizer", *columns], rows)
    yield f'<p class="note">{_COSTS_READING}</p>'


def _verdict(of_task: Sequence[Summary]) -> str:
    """A task's outcome in a sentence or two."""
    best = min(of_task, key=lambda s: s.final.estimate)
    groups: dict[str, list[str]] = {
        "better": [],
        "worse": [],
        "no clear difference": [],
    }
    for s in of_task:
        groups.setdefault(s.verdict, []).append(s.optimizer)
    baseline = groups.pop("baseline", None)
    said = [
        f"the lowest final validation loss is {tables.number(best.final.estimate)}, "
        f"by {best.optimizer}."
    ]
    if baseline and any(groups.values()):
        against = [f"{k}: {', '.join(names)}" for k, names in groups.items() if names]
        said.append(f"Against {baseline[0]}, {'; '.join(against)}.")
    diverged = [
        f"{s.optimizer} in {s.num_diverged} of {len(s.records)} seeds"
        for s in of_task
        if s.num_diverged
    ]
    if diverged:
        said.append(f"Diverged: {', '.join(diverged)}.")
    return f"{_link(best)}: {text(' '.join(said))}"


def _link(of_task: Summary) -> str:
    """To the section of a task, with what sets the task apart."""
    tags = f" ({', '.join(of_task.tags)})" if of_task.tags else ""
    task = of_task.task
    return f'<a href="#{anchor(task)}">{text(task)}</a>{text(tags)}'


def _by_optimizer(summaries: Summaries) -> dict[str, dict[str, Summary]]:
    found: dict[str, dict[str, Summary]] = {}
    for task, of_task in summaries.items():
        for s in of_task:
            found.setdefault(s.optimizer, {})[task] = s
    return found


def _robustness(of_grids: Sequence[Grid]) -> str:
    """The sentence of a task on which optimizers were run from a grid."""
    _, *rows = grid_views.rows(of_grids, FINAL_TRAIN)
    worst = [f"{row[5]} for {row[0]}" for row in rows]
    pairs = f"{len(of_grids[0].members)} pairs of {' and '.join(of_grids[0].axes)}"
    said = f"over {pairs}, the worst final training loss is {', '.join(worst)}."
    return f"{_link(next(iter(of_grids[0].members.values())))}: {text(said)}"


def _range(values: Iterable[float]) -> str:
    ordered = sorted(v for v in values if v == v)
    if not ordered:
        return "–"
    shown = [tables.number(v, 2) for v in (ordered[0], ordered[-1])]
    return " – ".join(dict.fromkeys(shown))
