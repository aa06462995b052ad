# ruff: noqa: RUF001 (the page is typeset: ×, – and ▼ are meant)
"""One self-contained HTML page of an evaluation, computed from its records alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from tasks import plots, statistics, tables
from tasks.markup import definitions, document, figure, soften_bounds, table, text
from tasks.parametrization import describe
from tasks.records import Record
from tasks.results import Results, Summary
from tasks.scaling import Family, families

Summaries = Mapping[str, list[Summary]]

_MARKS = {"better": "▼ better", "worse": "▲ worse", "no clear difference": "○ unclear"}
_READING = (
    "Final validation loss: interquartile mean over seeds with its 95 % bootstrap "
    "interval. ▼ better and ▲ worse than the baseline (shaded): the interval of the "
    "seed-by-seed difference lies wholly on one side of 0; ○ unclear: it does not."
)
_COSTS_READING = "A range of costs is over the tasks."
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
_SCALING_CAPTION = (
    "Final training loss, the mean over the last twentieth of the steps, by width. "
    "Line: interquartile mean over seeds; band: its 95 % bootstrap interval. A run "
    "that diverged counts as +∞; where that makes the estimate infinite is a gap."
)
_FAMILY_READING = (
    "Final training loss, the mean over the last twentieth of the steps: interquartile "
    "mean over seeds with its 95 % bootstrap interval. ▼ better and ▲ worse than the "
    "baseline of the suite (shaded) at the same width: the interval of the seed-by-"
    "seed difference lies wholly on one side of 0; ○ unclear: it does not. "
    "Parametrizations: sp is the standard one, mup the maximal-update one."
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
_METHOD = (
    "Seeds are paired: the initial parameters, the batches and the noise of a step "
    "depend on the seed and the step alone, so every optimizer meets the same ones.",
    "Estimates are interquartile means over seeds, intervals are 95 % percentile "
    f"bootstrap intervals ({statistics.RESAMPLES} resamples, fixed seed). Over five "
    "normally distributed seeds such an interval covers the truth in 90 of 100 cases, "
    "over ten in 94. Nothing is corrected for comparing several optimizers.",
    "A run diverged at the first step whose loss is not finite. Its final loss counts "
    "as +∞, its best loss is the one before. It is never left out.",
    "The target of a task is, unless the suite sets one, the median over seeds of the "
    "best validation loss that the baseline reaches in the first three quarters of its "
    "steps. A run that does not get there counts as longer than its N steps, shown as "
    ">N. Steps to target are medians over seeds.",
    "Update ms is the median of single calls of the jitted update alone, its state "
    "donated, on the task's parameters, in turns with optax.adamw in one process. The "
    "ratio is more robust than the milliseconds; below some 0.1 ms a call is mostly "
    "dispatch. Meta-updates, of optimizers that make any, are in the run seconds only. "
    "Compile seconds are those of the whole training program.",
    "State bytes are those of the optimizer's state over the number of parameters; "
    "AdamW's in float32 are 8.",
)


def page(results: Results) -> str:
    """The page as HTML, with its style and figures inside, without any script.

    Args:
      results: at least one record.
    """
    summaries = results.summaries()
    figures = plots.figures(summaries)
    in_families = families(summaries)
    shown = {task for family in in_families for task in family.tasks}
    alone = {task: found for task, found in summaries.items() if task not in shown}
    suite = results.records[0].context["suite"]
    title = f"Evaluation: {suite}" if suite else "Evaluation"
    return document(
        title,
        [
            f"<h1>{text(title)}</h1>",
            _lead(summaries, results.records[0]),
            _contents(in_families, alone),
            *(part for family in in_families for part in _family_section(family)),
            *([f'<p class="note">{text(_FAMILY_READING)}</p>'] if in_families else []),
            "<h2>Overview</h2>",
            *_overview(summaries, alone),
            *(_task_section(of_task, figures) for of_task in summaries.values()),
            '<h2 id="reproduce">How to reproduce</h2>',
            *_reproduction(summaries, results.records),
            '<h2 id="method">How it was measured</h2>',
            "<ul>",
            *(f"<li>{text(item)}</li>" for item in _METHOD),
            "</ul>",
        ],
    )


def _lead(summaries: Summaries, record: Record) -> str:
    optimizers = {s.optimizer for of_task in summaries.values() for s in of_task}
    seeds = {len(s.records) for of_task in summaries.values() for s in of_task}
    versions = record.environment["versions"]
    said = [
        record.context["description"],
        f"{len(optimizers)} optimizers on {len(summaries)} tasks, "
        f"{' or '.join(map(str, sorted(seeds)))} paired seeds.",
        f"Ran on {record.environment['hardware']}; jax {versions['jax']}, "
        f"optax {versions['optax']}.",
    ]
    return f'<p class="lead">{text(" ".join(s for s in said if s))}</p>'


def _contents(in_families: Sequence[Family], alone: Summaries) -> str:
    links = [(_anchor(family.name), family.name) for family in in_families]
    links += [(_anchor(task), task) for task in alone]
    links += [("reproduce", "How to reproduce"), ("method", "How it was measured")]
    return f"<nav>{_links(links)}</nav>"


def _links(links: Iterable[tuple[str, str]]) -> str:
    return "".join(f'<a href="#{anchor}">{text(name)}</a> ' for anchor, name in links)


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
    return f"<b>{text(best.task)}</b>: {text(' '.join(said))}"


def _overview(summaries: Summaries, alone: Summaries) -> list[str]:
    """What was found on tasks that stand alone, and what every optimizer costs."""
    parts = [_overview_table(summaries, alone)]
    if alone:
        verdicts = "".join(f"<li>{_verdict(found)}</li>" for found in alone.values())
        parts = [f"<ul>{verdicts}</ul>", *parts]
    notes = f"{_READING} {_COSTS_READING}" if alone else _COSTS_READING
    return [*parts, f'<p class="note">{text(notes)}</p>']


def _overview_table(summaries: Summaries, tasks: Iterable[str]) -> str:
    """Optimizers by `tasks`: final loss, what it means, and what an update costs."""
    tasks = list(tasks)
    by_name: dict[str, dict[str, Summary]] = {}
    for task, of_task in summaries.items():
        for s in of_task:
            by_name.setdefault(s.optimizer, {})[task] = s
    head = [
        "optimizer",
        *map(text, tasks),
        "update time<br>× adamw",
        "state<br>B/param",
    ]
    rows = []
    for name, found in by_name.items():
        cells = [_outcome(found[task]) if task in found else "–" for task in tasks]
        for cost in ("update_ratio_to_adamw", "state_bytes_per_parameter"):
            cells.append(_range(s.cost(cost) for s in found.values()))
        rows.append((name, cells))
    return table(head, rows, _baseline(s for task in tasks for s in summaries[task]))


def _outcome(summary: Summary) -> str:
    return _interval(summary.final) + _mark(summary.verdict)


def _mark(verdict: str | None) -> str:
    if verdict is None:
        return ""
    style = verdict if verdict in ("better", "worse") else ""
    shown = _MARKS.get(verdict, verdict)
    return f'<span class="verdict {style}">{shown}</span>'


def _range(values: Iterable[float]) -> str:
    shown = [tables.number(v, 2) for v in sorted(values)]
    return " – ".join(dict.fromkeys([shown[0], shown[-1]]))


def _baseline(summaries: Iterable[Summary]) -> str:
    return next((s.optimizer for s in summaries if s.is_baseline), "")


def _family_section(family: Family) -> Iterator[str]:
    """Losses over width, or of parametrizations side by side."""
    kind = "Over width" if family.is_curve else "Side by side"
    yield f'<h2 id="{_anchor(family.name)}">{kind}: {text(family.name)}</h2>'
    if family.is_curve:
        yield figure(family.plot(), _SCALING_CAPTION)
    head = ["optimizer", *(f"width {w}" for w in family.widths)]
    rows = []
    for optimizer, by_width in family.losses.items():
        verdicts = family.verdicts.get(optimizer, {})
        cells = [
            _interval(by_width[w], 3) + _mark(verdicts.get(w)) if w in by_width else "–"
            for w in family.widths
        ]
        rows.append((optimizer, cells))
    yield table(head, rows, family.baseline or "")
    links = _links((_anchor(task), task) for task in family.tasks)
    yield f'<nav class="note">{links}</nav>'


def _task_section(of_task: Sequence[Summary], figures: Mapping[str, Figure]) -> str:
    task = of_task[0].task
    caption = _LOSS_CAPTION
    if of_task[0].target is not None:
        caption += (
            f" Horizontal line: the target loss {tables.number(of_task[0].target)}."
        )
    parts = [f'<h2 id="{_anchor(task)}">{text(task)}</h2>', _task_facts(of_task)]
    parts += [_outcomes_table(of_task), *_divergences(of_task), *_stopping(of_task)]
    parts.append(figure(figures[f"{task}.loss"], caption))
    if f"{task}.hyperparams" in figures:
        parts.append(figure(figures[f"{task}.hyperparams"], _HYPERPARAMS_CAPTION))
    return "\n".join([*parts, "<h3>Cost</h3>", _costs_table(of_task)])


def _task_facts(of_task: Sequence[Summary]) -> str:
    config = of_task[0].records[0].config
    metadata = dict(config["task_metadata"])
    metadata.pop("sha256", None)
    data = {k: metadata.pop(k) for k in ("dataset", "source", "sizes") if k in metadata}
    rules = describe(metadata.pop("parametrization", None))
    if rules != "sp":
        metadata["parametrization"] = rules
    facts = {
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
    metrics = [m for m in of_task[0].records[0].valid if m != "loss"]
    head = [
        "optimizer",
        "final<br>valid loss",
        "difference to<br>baseline",
        "best<br>valid loss",
        *(f"final<br>{text(m.replace('_', ' '))}" for m in metrics),
        "steps to<br>target",
        "diverged",
    ]
    rows = []
    for s in of_task:
        finals = [[r.valid[m][-1] for r in s.records] for m in metrics]
        cells = [
            _interval(s.final),
            _interval(s.difference, digits=3) if s.difference else "–",
            _interval(s.best),
            *(tables.number(float(statistics.interquartile_mean(f))) for f in finals),
            soften_bounds(tables.steps_with_interval(s.steps_to_target, s.steps)),
            f"{s.num_diverged}/{len(s.records)}",
        ]
        rows.append((s.optimizer, cells))
    return table(head, rows, _baseline(of_task))


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
        table(["optimizer", *tables.STOPPING_COLUMNS], rows, _baseline(of_task)),
        f'<p class="note">{text(_STOPPING_READING.format(**rule))}</p>',
    ]


def _costs_table(of_task: Sequence[Summary]) -> str:
    columns = {
        "update ms": "update_ms",
        "× adamw": "update_ratio_to_adamw",
        "state B/param": "state_bytes_per_parameter",
        "compile s": "compile_seconds",
        "run s, all seeds": "run_seconds",
    }
    rows = [
        (s.optimizer, [tables.number(s.cost(name), 3) for name in columns.values()])
        for s in of_task
    ]
    return table(["optimizer", *columns], rows, _baseline(of_task))


def _divergences(of_task: Sequence[Summary]) -> list[str]:
    return [
        f"<p>{text(s.optimizer)}: seed {r.seed} diverged at step {r.diverged_at}.</p>"
        for s in of_task
        for r in s.records
        if r.diverged_at is not None
    ]


def _reproduction(summaries: Summaries, records: Sequence[Record]) -> list[str]:
    in_python = "# started from Python with tasks.evaluate(...)"
    commands = dict.fromkeys(r.context["command"] or in_python for r in records)
    parts = ["<pre>", text("\n".join(commands)), "</pre>"]
    for task, of_task in summaries.items():
        specs = {s.optimizer: s.records[0].config["optimizer"]["spec"] for s in of_task}
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


def _interval(interval: statistics.Interval, digits: int = 4) -> str:
    return soften_bounds(tables.with_interval(interval, digits))


def _anchor(task: str) -> str:
    return "task-" + "".join(c if c.isalnum() else "-" for c in task)
