# ruff: noqa: RUF001 (– is meant)
"""What an axis does to training: final loss over width, depth, steps and so on.

A task may lie on several axes; everything but the axis is the same along one.
"""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tasks import measures, statistics, tables
from tasks.plots import line_style, logarithmic, style
from tasks.problems import variant_of
from tasks.records import Record, as_json
from tasks.results import Summary
from tasks.statistics import Interval

LEARNING_RATE = "learning rate ×"
AXES = ("width", "depth", "batch_size", "steps", LEARNING_RATE)
_FEWEST_VALUES = 3
# What follows from the axis, or is another way to do the same.
_NOT_OF_THE_FAMILY = ("parametrization", "num_parameters", "sha256")
_HIDDEN = ("dataset", "model", "source", "sizes", "num_classes", "dtype", LEARNING_RATE)

_Runs = dict[str, dict[float, Sequence[Record]]]  # by optimizer and value
_Finals = Mapping[float, Mapping[int, float]]  # by value and seed


@dataclasses.dataclass(frozen=True)
class Family:
    """Tasks that differ along one axis alone.

    Attributes:
      axis: one of `AXES`.
      name: data set, model and what else the tasks have in common.
      tasks: the names of the tasks.
      losses: final training loss by optimizer and value: the mean over the last
        twentieth of the steps, +inf for a run that diverged.
      verdicts: like `losses`, what the seed-by-seed difference to the baseline at that
        value says, see `statistics.verdict`; nothing where there is none.
      baseline: which of `losses` is the baseline, if there is one.
    """

    axis: str
    name: str
    tasks: tuple[str, ...]
    losses: Mapping[str, Mapping[float, Interval]]
    verdicts: Mapping[str, Mapping[float, str]]
    baseline: str | None

    @property
    def values(self) -> list[float]:
        """All values along the axis, ascending."""
        return sorted({v for of in self.losses.values() for v in of})

    @property
    def columns(self) -> list[str]:
        """The values in words."""
        return [f"{self.axis.replace('_', ' ')} {v:g}" for v in self.values]

    def table(self) -> str:
        """A headline and a Markdown table of optimizers by values."""
        rows = [[name, *self._cells(name)] for name in self.losses]
        headline = f"final training loss, {self.name}"
        if self.baseline:
            headline += f" (▼ better, ▲ worse than {self.baseline})"
        return f"{headline}\n\n{tables.aligned([['optimizer', *self.columns], *rows])}"

    def _cells(self, name: str) -> list[str]:
        marks = {"better": " ▼", "worse": " ▲"}
        losses, verdicts = self.losses[name], self.verdicts.get(name, {})
        return [
            tables.with_interval(losses[v], 3) + marks.get(verdicts.get(v, ""), "")
            if v in losses
            else "–"
            for v in self.values
        ]

    def plot(self) -> Figure:
        """Final training loss along the axis, a line and intervals per optimizer."""
        with style():
            figure = Figure(figsize=(11, 4.8), layout="constrained")
            axes = figure.subplots()
            for i, (optimizer, by_value) in enumerate(self.losses.items()):
                _draw(axes, i, optimizer, by_value)
            axes.set_xscale("log", base=2)
            axes.set_xticks(self.values, [f"{v:g}" for v in self.values])
            axes.minorticks_off()
            logarithmic(axes)
            axes.set_xlabel(self.axis.replace("_", " "))
            axes.set_ylabel("final training loss")
            axes.set_title(textwrap.fill(self.name, 72), loc="left")
            axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        return figure


def families(summaries: Mapping[str, Sequence[Summary]]) -> list[Family]:
    """What was run at three values of an axis at least, axis by axis.

    Args:
      summaries: those of `Results.summaries()`.
    """
    every = [s for of_task in summaries.values() for s in of_task]
    found = []
    for axis in AXES:
        runs: dict[str, _Runs] = {}
        facts_of: dict[str, dict] = {}
        tasks: dict[str, list[str]] = {}
        for s in every:
            facts = _facts(s)
            if axis not in facts:
                continue
            value = facts.pop(axis)
            key = json.dumps(as_json(facts), sort_keys=True)
            facts_of[key] = facts
            tasks.setdefault(key, []).append(s.task)
            name = variant_of(s.optimizer)[0]
            runs.setdefault(key, {}).setdefault(name, {})[value] = s.records
        for key, of_family in runs.items():
            if len({v for of in of_family.values() for v in of}) >= _FEWEST_VALUES:
                together = tuple(dict.fromkeys(tasks[key]))
                found.append(_family(axis, facts_of[key], together, of_family))
    return found


def _facts(summary: Summary) -> dict:
    """All that tells one task, or one learning rate, from another."""
    config = summary.records[0].config
    facts = {
        k: v for k, v in config["task_metadata"].items() if k not in _NOT_OF_THE_FAMILY
    }
    # A task without metadata is like no other, except for its length.
    facts |= {} if "model" in facts else {"task": summary.task.partition(" [")[0]}
    return facts | {
        "steps": config["steps"],
        LEARNING_RATE: variant_of(summary.optimizer)[1],
    }


def _family(axis: str, facts: dict, tasks: tuple[str, ...], runs: _Runs) -> Family:
    finals = {
        name: {v: measures.by_seed(r, measures.FINAL_TRAIN) for v, r in of.items()}
        for name, of in runs.items()
    }
    first = {name: next(iter(of.values()))[0] for name, of in runs.items()}
    asked = next(iter(first.values())).context.get("suite_baseline")
    baseline = next(
        (n for n, r in first.items() if variant_of(r.optimizer)[0] == asked), None
    )
    return Family(
        axis,
        _name(axis, facts, tasks),
        tasks,
        losses={
            name: {v: statistics.interval(list(f.values())) for v, f in of.items()}
            for name, of in finals.items()
        },
        verdicts={
            name: _verdicts(of, finals[baseline])
            for name, of in finals.items()
            if baseline is not None and name != baseline
        },
        baseline=baseline,
    )


def _verdicts(ours: _Finals, theirs: _Finals) -> dict[float, str]:
    return {
        v: statistics.verdict(statistics.paired_by_seed(ours[v], theirs[v]))
        for v in ours
        if v in theirs
    }


def _name(axis: str, facts: dict, tasks: Sequence[str]) -> str:
    """Data set, model, and whatever else distinguishes one family from another."""
    shown = [f"{k} {v}" for k, v in facts.items() if k not in (*_HIDDEN, "steps")]
    head = f"{facts.get('dataset', tasks[0])} {facts.get('model', '')}".strip()
    length = [f"{facts['steps']} steps"] if "steps" in facts else []
    over = [] if axis == "width" else [f"over {axis.replace('_', ' ').rstrip(' ×')}"]
    return ", ".join([head, *shown, *length, *over])


def _draw(axes: Axes, i: int, optimizer: str, losses: Mapping[float, Interval]) -> None:
    """A value at which the estimate is infinite is a gap."""
    values = sorted(losses)
    estimate, low, high = np.array([losses[v] for v in values]).T
    estimate = np.where(np.isfinite(estimate), estimate, np.nan)
    look = line_style(i)
    axes.plot(values, estimate, label=textwrap.fill(optimizer, 24), **look)
    axes.fill_between(
        values,
        low,
        high,
        where=np.isfinite(high),
        color=look["color"],
        alpha=0.12,
        lw=0,
    )
