# ruff: noqa: RUF001 (the page is typeset: ×, – and ▼ are meant)
"""Sections of the page: one for each axis, for each task, and how to run it again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from tasks import grid_views, grids, tables
from tasks.grids import Grid
from tasks.markup import (
    anchor,
    definitions,
    figure,
    interval,
    links,
    mark,
    soften_bounds,
    table,
    text,
)
from tasks.measures import FINAL_TRAIN, FINAL_VALID, further_metrics, metric_name
from tasks.parametrization import describe
from tasks.records import Record
from tasks.results import Summary
from tasks.scaling import LEARNING_RATE, Family

_LOSS_CAPTION = (
    "Loss over training steps. Line: interquartile mean over seeds; band: its 95 % "
    "bootstrap interval. Names stand at the ends of their curves; each has its own "
    "line style and marker. The frame shows the losses from a tenth of the run on: "
    "the very start, and what diverges, lies above it."
)
_HYPERPARAMS_CAPTION = (
    "The optimizers' own hyper-parameters while they train, for those that change any. "
    "Lines and bands over seeds as above."
)
_GRID_CAPTION = (
    "The mean over seeds from every pair of settings, in numbers where there is room, "
    "and in grey: white is the lowest loss of all, black what nine tenths of all pairs "
    "attain and what is beyond. A pair with a diverged seed is infinite."
)
_SCALING_CAPTION = (
    "Final training loss, the mean over the last twentieth of the steps. Line: "
    "interquartile mean over seeds; band: its 95 % bootstrap interval. A run that "
    "diverged counts as +∞; where that makes the estimate infinite is a gap."
)
FAMILY_READING = (
    '<p class="note">'
    "Final training loss, the mean over the last twentieth of the steps: interquartile "
    "mean over seeds with its 95 % bootstrap interval. ▼ better and ▲ worse than the "
    "baseline of the suite (shaded) at the same value: the interval of the seed-by-"
    "seed difference lies wholly on one side of 0; ○ unclear: it does not. "
    "Parametrizations: sp is the standard one, mup the maximal-update one.</p>"
)
_STOPPING_READING = (
    "A run stops after {patience} evaluations in a row whose validation loss is not "
    "below the best one by more than {min_delta:g}; the weights of the best one are "
    "restored. Computed from the records of whole runs. Steps and time to stop: "
    "medians over seeds, > where the end of the run comes first; the time is the share "
    "of the steps in the run seconds of all seeds side by side, evaluations and "
    "meta-updates included. Restored loss, and its difference to the baseline's seed "
    "by seed: interquartile means. All with 95 % bootstrap intervals."
)


def baseline_of(summaries: Iterable[Summary]) -> str:
    """The optimizer whose row is set off, if there is one."""
    return next((s.optimizer for s in summaries if s.is_baseline), "")


def of_family(family: Family) -> Iterator[str]:
    """Losses along an axis."""
    axis = family.axis.replace("_", " ").removesuffix(" ×")
    yield f'<h2 id="{anchor(family.name)}">Over {axis}: {text(family.name)}</h2>'
    yield figure(family.plot(), _SCALING_CAPTION)
    head = ["optimizer", *family.columns]
    rows = []
    for optimizer, by_value in family.losses.items():
        verdicts = family.verdicts.get(optimizer, {})
        cells = [
            interval(by_value[v], 3) + mark(verdicts.get(v)) if v in by_value else "–"
            for v in family.values
        ]
        rows.append((optimizer, cells))
    yield table(head, rows, family.baseline or "")
    if family.axis != LEARNING_RATE:
        yield f'<nav class="note">{links((anchor(t), t) for t in family.tasks)}</nav>'


def of_task(found: Sequence[Summary], figures: Mapping[str, Figure]) -> str:
    """What the optimizers reached on one task, and what they cost there."""
    task = found[0].task
    in_grids, others = grids.split(found)
    parts = [f'<h2 id="{anchor(task)}">{text(task)}</h2>', _task_facts(found)]
    parts += [*_grids(in_grids)] if in_grids else []
    parts += [*_others(others, figures)] if others else []
    return "\n".join(parts)


def _grids(in_grids: Sequence[Grid]) -> Iterator[str]:
    axes = " and ".join(in_grids[0].axes)
    yield f"<h3>From a grid of {text(axes)}</h3>"
    for measure in (FINAL_TRAIN, FINAL_VALID):
        head, *rows = grid_views.rows(in_grids, measure)
        yield f"<p>{measure.capitalize()}:</p>"
        yield table(head, [(name, [*map(text, cells)]) for name, *cells in rows])
        yield figure(grid_views.plot(in_grids, measure), _GRID_CAPTION)


def _others(found: Sequence[Summary], figures: Mapping[str, Figure]) -> Iterator[str]:
    task, target = found[0].task, found[0].target
    caption = _LOSS_CAPTION
    if target is not None:
        caption += f" Horizontal line: the target loss {tables.number(target)}."
    yield from (_outcomes_table(found), *_divergences(found), *_stopping(found))
    yield figure(figures[f"{task}.loss"], caption)
    if f"{task}.hyperparams" in figures:
        yield figure(figures[f"{task}.hyperparams"], _HYPERPARAMS_CAPTION)
    yield from ("<h3>Cost</h3>", _costs_table(found), *_tuning(found))


def _task_facts(of_task: Sequence[Summary]) -> str:
    config = of_task[0].records[0].config
    metadata = dict(config["task_metadata"])
    metadata.pop("sha256", None)
    data = {k: metadata.pop(k) for k in ("dataset", "source", "sizes") if k in metadata}
    metadata.pop("parametrization", None)
    rules = {
        describe(s.records[0].config["task_metadata"].get("parametrization"))
        for s in of_task
    }
    if rules != {"sp"}:
        metadata["parametrizations"] = " and ".join(sorted(rules))
    facts = {
        "tags": ", ".join(of_task[0].tags),
        "data": _sentence(data),
        "model": _sentence(metadata),
        "batch": _sentence(config["batch"]),
        "run": f"{config['steps']} steps, evaluated every {config['eval_every']}",
    }
    return definitions({k: v for k, v in facts.items() if v})


def _sentence(facts: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{k.replace('_', ' ')} {_sentence(v) if isinstance(v, Mapping) else v}".strip()
        for k, v in facts.items()
    )


def _outcomes_table(of_task: Sequence[Summary]) -> str:
    first = of_task[0].records[0]
    own = [m for m in first.valid if "/" not in m and m != "loss"]
    metrics = own + further_metrics(first)
    head = [
        "optimizer",
        "final<br>valid loss",
        "difference to<br>baseline",
        "best<br>valid loss",
        *(f"final<br>{text(metric_name(m))}" for m in metrics),
        "steps to<br>target",
        "diverged",
    ]
    rows = []
    for s in of_task:
        cells = [
            interval(s.final),
            interval(s.difference, digits=3) if s.difference else "–",
            interval(s.best),
            *(soften_bounds(tables.final_metric(s, m)) for m in metrics),
            soften_bounds(tables.steps_with_interval(s.steps_to_target, s.steps)),
            f"{s.num_diverged}/{len(s.records)}",
        ]
        rows.append((s.optimizer, cells))
    return table(head, rows, baseline_of(of_task))


def _stopping(of_task: Sequence[Summary]) -> list[str]:
    """What early stopping makes of the runs, where the suite asks for it."""
    if not any(s.stopping for s in of_task):
        return []
    rule = of_task[0].records[0].context["early_stopping"]
    rows = [
        (s.optimizer, [soften_bounds(cell) for cell in tables.stopping_row(s)])
        for s in of_task
    ]
    return [
        "<h3>With early stopping</h3>",
        table(["optimizer", *tables.STOPPING_COLUMNS], rows, baseline_of(of_task)),
        f'<p class="note">{text(_STOPPING_READING.format(**rule))}</p>',
    ]


def _costs_table(of_task: Sequence[Summary]) -> str:
    columns = {**tables.measured_costs(of_task), "run s, all seeds": "run_seconds"}
    rows = [
        (s.optimizer, [tables.cost(s.cost(name), 3) for name in columns.values()])
        for s in of_task
    ]
    return table(["optimizer", *columns], rows, baseline_of(of_task))


def _tuning(of_task: Sequence[Summary]) -> list[str]:
    """How the settings of the optimizers were chosen, where that is said."""
    rows = []
    for s in of_task:
        context = s.records[0].context
        found = context.get("tuning", {}).get(s.records[0].optimizer, {})
        edges = ", ".join(found.get("at_edge", ())) or "none"
        if found:
            cells = [s.track, found["trials"], f"{found['volume']:g}", edges]
            rows.append((s.optimizer, [text(c or "–") for c in cells]))
        elif s.track:
            rows.append((s.optimizer, [text(s.track), "–", "–", "–"]))
    head = ["optimizer", "track", "trials", "volume, decades", "won at the edge"]
    return ["<h3>Tuning</h3>", table(head, rows)] if rows else []


def _divergences(of_task: Sequence[Summary]) -> list[str]:
    return [
        f"<p>{text(s.optimizer)}: seed {r.seed} diverged at step {r.diverged_at}.</p>"
        for s in of_task
        for r in s.records
        if r.diverged_at is not None
    ]


def reproduction(
    summaries: Mapping[str, Sequence[Summary]], records: Sequence[Record]
) -> list[str]:
    """Commands, specs, versions, hardware and data."""
    in_python = "# started from Python with tasks.evaluate(...)"
    commands = dict.fromkeys(r.context["command"] or in_python for r in records)
    parts = ["<pre>", text("\n".join(commands)), "</pre>"]
    for task, of_task in summaries.items():
        in_grids, others = grids.split(of_task)
        firsts = [next(iter(grid.members.values())) for grid in in_grids]
        specs = {f"{s.optimizer}, of a grid": _spec(s) for s in firsts}
        specs |= {s.optimizer: _spec(s) for s in others}
        parts += [f"<h3>Optimizers on {text(task)}</h3>", definitions(specs)]
    for environment in map(json.loads, {json.dumps(r.environment): 0 for r in records}):
        hardware = {"hardware": environment["hardware"]}
        parts += ["<h3>Versions and hardware</h3>"]
        parts += [definitions(environment["versions"] | hardware)]
    hashes = {
        f"{task}, {split}": digest
        for task, of_task in summaries.items()
        for split, digest in of_task[0]
        .records[0]
        .config["task_metadata"]
        .get("sha256", {})
        .items()
    }
    return [*parts, "<h3>Data, SHA-256</h3>", definitions(hashes)] if hashes else parts


def _spec(summary: Summary) -> str:
    record = summary.records[0]
    spec = record.config["optimizer"]["spec"]
    return spec if record.task == summary.task else f"{spec} on {record.task}"
