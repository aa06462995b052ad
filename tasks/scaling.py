# ruff: noqa: RUF001 (– is meant)
"""What width does to training: final training loss over the widths of one model.

Where a model was run in several parametrizations, they stand side by side.
"""

from __future__ import annotations

import collections
import dataclasses
import textwrap
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tasks import statistics, tables
from tasks.parametrization import describe
from tasks.plots import line_style, logarithmic, style
from tasks.records import Record
from tasks.results import Summary
from tasks.statistics import Interval

# What may differ between the tasks of one family besides the width.
_NOT_OF_THE_FAMILY = ("width", "parametrization", "num_parameters", "sha256")
_FEWEST_WIDTHS = 3
_LAST = 0.05

# An optimizer and a parametrization, and what was run with them by width.
_Key = tuple[str, str]
_Runs = Mapping[_Key, Mapping[int, Sequence[Record]]]
_Finals = Mapping[int, Mapping[int, float]]  # by width and seed


@dataclasses.dataclass(frozen=True)
class Family:
    """Tasks that differ in width and parametrization alone.

    Attributes:
      name: data set, model and steps.
      tasks: the names of the tasks.
      losses: final training loss by optimizer and width: the mean over the last
        twentieth of the steps, +inf for a run that diverged. Where there are several
        parametrizations, that of an optimizer is in its name.
      verdicts: like `losses`, what the seed-by-seed difference to the suite's baseline
        at that width says, see `statistics.verdict`; nothing where there is none.
      baseline: which of `losses` is the baseline, if there is one.
    """

    name: str
    tasks: tuple[str, ...]
    losses: Mapping[str, Mapping[int, Interval]]
    verdicts: Mapping[str, Mapping[int, str]]
    baseline: str | None

    @property
    def widths(self) -> list[int]:
        """All widths, ascending."""
        return sorted({w for by_width in self.losses.values() for w in by_width})

    @property
    def is_curve(self) -> bool:
        """Whether there are widths enough for a plot."""
        return len(self.widths) >= _FEWEST_WIDTHS

    def table(self) -> str:
        """A headline and a Markdown table of optimizers by widths."""
        head = ["optimizer", *(f"width {w}" for w in self.widths)]
        rows = [[name, *self._cells(name)] for name in self.losses]
        headline = f"final training loss, {self.name}"
        if self.baseline:
            headline += f" (▼ better, ▲ worse than {self.baseline})"
        return f"{headline}\n\n{tables.aligned([head, *rows])}"

    def _cells(self, name: str) -> list[str]:
        marks = {"better": " ▼", "worse": " ▲"}
        losses, verdicts = self.losses[name], self.verdicts.get(name, {})
        return [
            tables.with_interval(losses[w], 3) + marks.get(verdicts.get(w, ""), "")
            if w in losses
            else "–"
            for w in self.widths
        ]

    def plot(self) -> Figure:
        """Final training loss over width, a line and its intervals per optimizer."""
        with style():
            figure = Figure(figsize=(7.5, 4.4), layout="constrained")
            axes = figure.subplots()
            for i, (optimizer, by_width) in enumerate(self.losses.items()):
                _draw(axes, i, optimizer, by_width)
            axes.set_xscale("log", base=2)
            axes.set_xticks(self.widths, [str(w) for w in self.widths])
            logarithmic(axes)
            axes.set_xlabel("width")
            axes.set_ylabel("final training loss")
            axes.set_title(self.name, loc="left")
            axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        return figure


def families(summaries: Mapping[str, Sequence[Summary]]) -> list[Family]:
    """Models with three widths, then those with two parametrizations at least.

    Args:
      summaries: those of `Results.summaries()`.
    """
    found: dict[str, dict[_Key, dict[int, Sequence[Record]]]] = {}
    for summary in (s for of_task in summaries.values() for s in of_task):
        metadata = summary.records[0].config["task_metadata"]
        if "width" in metadata:
            of_family = found.setdefault(_name(summary.records[0]), {})
            key = summary.optimizer, describe(metadata.get("parametrization"))
            of_family.setdefault(key, {})[metadata["width"]] = summary.records
    made = [(_family(name, runs), runs) for name, runs in found.items()]
    curves = [family for family, _ in made if family.is_curve]
    twins = [f for f, runs in made if not f.is_curve and len({p for _, p in runs}) > 1]
    return curves + twins


def _family(name: str, runs: _Runs) -> Family:
    labels = _labels(runs)
    finals = {
        labels[key]: {w: _final_training_losses(r) for w, r in by_width.items()}
        for key, by_width in runs.items()
    }
    first = [records[0] for by_width in runs.values() for records in by_width.values()]
    asked = first[0].context.get("suite_baseline")
    baseline = next((labels[key] for key in runs if key[0] == asked), None)
    return Family(
        name,
        tuple(dict.fromkeys(record.task for record in first)),
        losses={
            label: {w: statistics.interval(list(f.values())) for w, f in of.items()}
            for label, of in finals.items()
        },
        verdicts={
            label: _verdicts(of, finals[baseline])
            for label, of in finals.items()
            if baseline is not None and label != baseline
        },
        baseline=baseline,
    )


def _verdicts(ours: _Finals, theirs: _Finals) -> dict[int, str]:
    return {
        w: statistics.verdict(statistics.paired_by_seed(ours[w], theirs[w]))
        for w in ours
        if w in theirs
    }


def _labels(keys: Iterable[_Key]) -> dict[_Key, str]:
    """Optimizers, with their parametrization where the family has several of them."""
    keys = list(keys)
    if len({rules for _, rules in keys}) == 1:
        return {key: key[0] for key in keys}
    short = {key: f"{key[0]} ({key[1].partition('(')[0]})" for key in keys}
    count = collections.Counter(short.values())
    return {k: s if count[s] == 1 else f"{k[0]} ({k[1]})" for k, s in short.items()}


def _name(record: Record) -> str:
    """Data set, model, and whatever else distinguishes one family from another."""
    metadata = record.config["task_metadata"]
    facts = {k: v for k, v in metadata.items() if k not in _NOT_OF_THE_FAMILY}
    hidden = ("dataset", "model", "source", "sizes", "num_classes", "dtype")
    shown = [f"{k} {v}" for k, v in facts.items() if k not in hidden]
    head = f"{facts.get('dataset', record.task)} {facts.get('model', '')}".strip()
    return ", ".join([head, *shown, f"{record.config['steps']} steps"])


def _final_training_losses(records: Sequence[Record]) -> dict[int, float]:
    """By seed; infinite for a run that diverged."""
    last = max(1, round(_LAST * len(records[0].train_loss)))
    return {
        r.seed: float(np.mean(r.train_loss[-last:]))
        if r.diverged_at is None
        else np.inf
        for r in records
    }


def _draw(axes: Axes, i: int, optimizer: str, by_width: Mapping[int, Interval]) -> None:
    """A width at which the estimate is infinite is a gap."""
    widths = sorted(by_width)
    estimate, low, high = np.array([by_width[w] for w in widths]).T
    estimate = np.where(np.isfinite(estimate), estimate, np.nan)
    look = line_style(i)
    axes.plot(widths, estimate, label=textwrap.fill(optimizer, 24), **look)
    axes.fill_between(
        widths,
        low,
        high,
        where=np.isfinite(high),
        color=look["color"],
        alpha=0.12,
        lw=0,
    )
