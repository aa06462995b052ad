"""What width does to training: final training loss over the widths of one model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tasks import statistics, tables
from tasks.plots import line_style, style
from tasks.records import Record
from tasks.results import Summary
from tasks.statistics import Interval

# What may differ between the tasks of one family besides the width.
_NOT_OF_THE_FAMILY = ("width", "parametrization", "num_parameters", "sha256")
_FEWEST_WIDTHS = 3
_LAST = 0.05


@dataclasses.dataclass(frozen=True)
class Family:
    """Tasks that differ in width (and parametrization) alone.

    Attributes:
      name: data set, model and steps.
      losses: final training loss by optimizer and width: the mean over the last
        twentieth of the steps, +inf for a run that diverged.
    """

    name: str
    losses: Mapping[str, Mapping[int, Interval]]

    @property
    def widths(self) -> list[int]:
        """All widths, ascending."""
        return sorted({w for by_width in self.losses.values() for w in by_width})

    def table(self) -> str:
        """A headline and a Markdown table of optimizers by widths."""
        head = ["optimizer", *(f"width {w}" for w in self.widths)]
        rows = [
            [
                optimizer,
                *(
                    tables.with_interval(by_width[w], 3) if w in by_width else "–"  # noqa: RUF001
                    for w in self.widths
                ),
            ]
            for optimizer, by_width in self.losses.items()
        ]
        headline = f"final training loss, {self.name}"
        return f"{headline}\n\n{tables.aligned([head, *rows])}"

    def plot(self) -> Figure:
        """Final training loss over width, a line and its intervals per optimizer."""
        with style():
            figure = Figure(figsize=(7.5, 4.4), layout="constrained")
            axes = figure.subplots()
            for i, (optimizer, by_width) in enumerate(self.losses.items()):
                _draw(axes, i, optimizer, by_width)
            axes.set_xscale("log", base=2)
            axes.set_xticks(self.widths, [str(w) for w in self.widths])
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("{x:g}")
            axes.set_xlabel("width")
            axes.set_ylabel("final training loss")
            axes.set_title(self.name, loc="left")
            axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        return figure


def families(summaries: Mapping[str, Sequence[Summary]]) -> list[Family]:
    """The families with at least three widths, in the order of their first task.

    Args:
      summaries: those of `Results.summaries()`.
    """
    found: dict[str, dict[str, dict[int, Interval]]] = {}
    for of_task in summaries.values():
        for summary in of_task:
            record = summary.records[0]
            width = record.config["task_metadata"].get("width")
            if width is not None:
                of_family = found.setdefault(_name(record), {})
                of_optimizer = of_family.setdefault(summary.optimizer, {})
                of_optimizer[width] = _final_training_loss(summary.records)
    made = [Family(name, losses) for name, losses in found.items()]
    return [family for family in made if len(family.widths) >= _FEWEST_WIDTHS]


def _name(record: Record) -> str:
    """Data set, model, and whatever else distinguishes one family from another."""
    metadata = record.config["task_metadata"]
    facts = {k: v for k, v in metadata.items() if k not in _NOT_OF_THE_FAMILY}
    hidden = ("dataset", "model", "source", "sizes", "num_classes", "dtype")
    shown = [f"{k} {v}" for k, v in facts.items() if k not in hidden]
    head = f"{facts.get('dataset', record.task)} {facts.get('model', '')}".strip()
    return ", ".join([head, *shown, f"{record.config['steps']} steps"])


def _final_training_loss(records: Sequence[Record]) -> Interval:
    last = max(1, round(_LAST * len(records[0].train_loss)))
    losses = [
        float(np.mean(r.train_loss[-last:])) if r.diverged_at is None else np.inf
        for r in records
    ]
    return statistics.interval(losses)


def _draw(axes: Axes, i: int, optimizer: str, by_width: Mapping[int, Interval]) -> None:
    """A width at which the estimate is infinite is a gap."""
    widths = sorted(by_width)
    estimate, low, high = np.array([by_width[w] for w in widths]).T
    estimate = np.where(np.isfinite(estimate), estimate, np.nan)
    look = line_style(i)
    axes.plot(widths, estimate, label=optimizer, **look)
    axes.fill_between(
        widths,
        low,
        high,
        where=np.isfinite(high),
        color=look["color"],
        alpha=0.12,
        lw=0,
    )
