# ruff: noqa: RUF001 (the page is typeset: ×, − and τ are meant)
"""One self-contained HTML page of an evaluation, computed from its records alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tasks import aggregates, claims, overview, plots, profiles, sections, statistics
from tasks.markup import anchor, document, links, text
from tasks.records import Record
from tasks.results import Results, Summary
from tasks.scaling import Family, families

_METHOD = (
    "Seeds are paired: the initial parameters, the batches and the noise of a step "
    "depend on the seed and the step alone, so every optimizer meets the same ones.",
    "Estimates are interquartile means over seeds, intervals are 95 % percentile "
    f"bootstrap intervals ({statistics.RESAMPLES} resamples, fixed seed). Over five "
    "normally distributed seeds such an interval covers the truth in 90 of 100 cases, "
    "over ten in 94. Nothing is corrected for comparing several optimizers.",
    "A run diverged at the first step whose loss is not finite. Its final loss counts "
    "as +∞, its best loss is the lowest one before. The loss at the start, of no "
    "optimizer, is nobody's best. A run is never left out.",
    "The target of a task is, unless the suite sets one, the median over seeds of the "
    "lowest loss in the first three quarters of the steps, of that baseline which "
    "reaches the lowest. The baselines are the tuned optimizers that the suite names "
    "as such, or the one that the others are compared with; where none gets below its "
    "start, there is no target. A run that does not get "
    "there counts as longer than its N steps, shown as >N. Steps to target are "
    "medians over seeds.",
    "The score of a run is (start − loss) / (start − best), where start is the loss "
    "at the initial parameters and best the interquartile mean over seeds of the best "
    "baseline: 0 for no progress, 1 for the best baseline, more for better. A run "
    "that diverged, or made the loss worse, scores 0. Tasks on which no baseline "
    "makes progress have no scores. Over tasks, the interquartile mean, the "
    "optimality gap (the mean distance below 1) and the probability of improvement "
    "(the share of pairs of runs of a task in which one scores higher, ties counted "
    "by half, averaged over tasks) are those of Agarwal et al. (arXiv 2108.13264), "
    f"with intervals of the stratified bootstrap ({aggregates.RESAMPLES} resamples): "
    "seeds are drawn anew within each task, the tasks are as they are.",
    "Time to target: the share of tasks on which an optimizer needs at most τ times "
    "the steps, or the seconds, of the fastest; its area between τ = 1 and "
    f"{profiles.LARGEST_RATIO:g} is 1 for one that is the fastest everywhere and 0 for "
    "one that never gets there in that time (Dolan and Moré, 2002; AlgoPerf, arXiv "
    "2306.07179).",
    "A claim is part of the suite and stands in the records from before the run. It is "
    "tested by a one-sided sign-flip permutation test, exact up to 16 pairs, on the "
    f"differences of paired seeds: held at p ≤ {claims.ALPHA:g}, not held if the "
    "opposite is, else undecided. n pairs cannot give a p below 2⁻ⁿ. Over all tasks "
    "every seed of every task is a pair. Each claim is tested by itself.",
    "Update ms is the median of single calls of the jitted update alone, its state "
    "donated, on the task's parameters, in turns with optax.adamw in one process. The "
    "ratio is more robust than the milliseconds; below some 0.1 ms a call is mostly "
    "dispatch. The share of the step is the update's part in the sum of an update and "
    "a gradient of one batch, timed likewise. Meta-updates, of optimizers that make "
    "any, are in the run seconds only. Compile seconds are those of the whole "
    "training program.",
    "State bytes are those of the optimizer's state over the number of parameters; "
    "AdamW's in float32 are 8. Temporary bytes are what the compiled update needs "
    "beside its arguments and results.",
)


def page(results: Results) -> str:
    """The page as HTML, with its style and figures inside, without any script.

    Args:
      results: at least one record.
    """
    summaries = results.summaries()
    figures = plots.figures(summaries)
    varied = families(summaries)
    suite = results.records[0].context["suite"]
    title = f"Evaluation: {suite}" if suite else "Evaluation"
    return document(
        title,
        [
            f"<h1>{text(title)}</h1>",
            _lead(summaries, results.records[0]),
            _contents(varied, list(summaries)),
            *(part for found in results.comparisons() for part in overview.of(found)),
            *overview.of_claims(results.claims()),
            *overview.of_tasks(summaries),
            *overview.of_costs(summaries),
            *(part for family in varied for part in sections.of_family(family)),
            *([sections.FAMILY_READING] if varied else []),
            *(sections.of_task(found, figures) for found in summaries.values()),
            '<h2 id="reproduce">How to reproduce</h2>',
            *sections.reproduction(summaries, results.records),
            '<h2 id="method">How it was measured</h2>',
            "<ul>",
            *(f"<li>{text(item)}</li>" for item in _METHOD),
            "</ul>",
        ],
    )


def _lead(summaries: Mapping[str, Sequence[Summary]], record: Record) -> str:
    optimizers = {s.optimizer for of_task in summaries.values() for s in of_task}
    seeds = {len(s.records) for of_task in summaries.values() for s in of_task}
    versions = record.environment["versions"]
    tasks = f"{len(summaries)} tasks" if len(summaries) > 1 else "one task"
    said = [
        record.context["description"],
        f"{len(optimizers)} optimizers on {tasks}, "
        f"{' or '.join(map(str, sorted(seeds)))} paired seeds.",
        f"Ran on {record.environment['hardware']}; jax {versions['jax']}, "
        f"optax {versions['optax']}.",
    ]
    return f'<p class="lead">{text(" ".join(s for s in said if s))}</p>'


def _contents(varied: Sequence[Family], tasks: Sequence[str]) -> str:
    pairs = [(anchor(family.name), family.name) for family in varied]
    pairs += [(anchor(task), task) for task in tasks]
    pairs += [("reproduce", "How to reproduce"), ("method", "How it was measured")]
    return f"<nav>{links(pairs)}</nav>"
