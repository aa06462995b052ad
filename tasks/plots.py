"""Figures of an evaluation, made to be read without colour."""

from __future__ import annotations

import pathlib
import textwrap
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from tasks import grids, statistics
from tasks.measures import train_means, valid_losses
from tasks.records import file_stem
from tasks.results import Summary

# Okabe and Ito's palette, which colour-blind readers can tell apart; line styles and
# markers repeat what the colour says.
_COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_LINES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (8, 3)), (0, (1, 1)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "svg.hashsalt": "tasks",  # the same records give the same file
    "svg.fonttype": "none",  # text as text: a third of the size, and it can be searched
    "font.sans-serif": ["DejaVu Sans"],
    "path.simplify_threshold": 0.5,
    "figure.dpi": 110,
}


def style() -> AbstractContextManager[None]:
    """Matplotlib's settings while a figure is drawn or written as SVG."""
    return mpl.rc_context(_STYLE)


def line_style(i: int) -> dict[str, Any]:
    """How the i-th of several curves is drawn; 49 of them differ."""
    num_colours = len(_COLOURS)
    shift = i + i // num_colours
    return {
        "color": _COLOURS[i % num_colours],
        "linestyle": _LINES[shift % len(_LINES)],
        "marker": _MARKERS[shift % len(_MARKERS)],
        "markerfacecolor": "white",
    }


def figures(summaries: Mapping[str, Sequence[Summary]]) -> dict[str, Figure]:
    """Figures of tasks by file stem: `TASK.loss`, `TASK.hyperparams` if some change.

    Optimizers in a grid have figures of their own, see `tasks.grid_views`.

    Args:
      summaries: those of `Results.summaries()`.
    """
    made = {}
    for task, every in summaries.items():
        of_task = grids.split(every)[1]
        if not of_task:
            continue
        made[f"{task}.loss"] = loss_curves(of_task)
        if any(_changes(s) for s in of_task):
            made[f"{task}.hyperparams"] = hyperparam_curves(of_task)
    return made


def save(made: dict[str, Figure], directory: pathlib.Path) -> None:
    """Writes each figure as `directory/STEM.png`."""
    directory.mkdir(parents=True, exist_ok=True)
    for stem, figure in made.items():
        figure.savefig(directory / f"{file_stem(stem)}.png", dpi=150)


def loss_curves(summaries: Sequence[Summary]) -> Figure:
    """Training and validation loss over steps: estimate and interval over seeds.

    The training loss is the mean between two evaluations.
    """
    with style():
        figure = Figure(figsize=(11, 4.4), layout="constrained")
        panels = figure.subplots(1, 2)
        curves = (_train_curves, _valid_curves)
        start = float(np.median(valid_losses(summaries[0].records)[:, 0]))
        titles = ("Training loss, mean between evaluations", "Validation loss")
        for axes, of_split, title in zip(panels, curves, titles, strict=True):
            ends = _draw(axes, summaries, of_split)
            _fit_losses(axes, [of_split(s) for s in summaries], start)
            axes.set_title(title, loc="left")
            axes.set_xlabel("step")
            _label_ends(axes, ends)
        panels[0].set_ylabel("loss")
        _draw_target(panels[1], summaries[0].target)
    return figure


def hyperparam_curves(summaries: Sequence[Summary]) -> Figure:
    """The scalar hyper-parameters of the optimizers that change theirs, over steps."""
    changing = [s for s in summaries if _changes(s)]
    names = list(dict.fromkeys(n for s in changing for n in s.records[0].hyperparams))
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    with style():
        layout = ConstrainedLayoutEngine(w_pad=0.12)
        figure = Figure(figsize=(11, 0.6 + 2.3 * rows), layout=layout)
        panels = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
        for axes, name in zip(panels, names, strict=False):
            having = {s.optimizer for s in changing if name in s.records[0].hyperparams}
            ends = _draw(axes, summaries, partial(_hyperparam_curves, name), having)
            axes.set_title(name, loc="left")
            _widen(axes)
            _label_ends(axes, ends)
        for axes in panels[len(names) :]:
            axes.remove()
        for axes in panels[max(0, len(names) - columns) : len(names)]:
            axes.tick_params(labelbottom=True)
            axes.set_xlabel("step")
    return figure


def sizes_by_width(
    title: str,
    widths: Sequence[int],
    layers: Sequence[str],
    panels: Mapping[str, np.ndarray],
) -> Figure:
    """Sizes over width with a curve per layer, in panels by title.

    Args:
      title: what stands above all panels.
      widths: of the models.
      layers: names of the curves.
      panels: sizes of shape (widths, layers); those that are zero are not drawn.
    """
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    with style():
        figure = Figure(figsize=(11, 1.4 + 2.6 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes, (name, sizes) in zip(grid.ravel(), panels.items(), strict=False):
            for i, layer in enumerate(layers):
                shown = np.where(sizes[:, i] > 0, sizes[:, i], np.nan)
                axes.plot(widths, shown, label=layer, **line_style(i))
            axes.set_title(name, loc="left")
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.set_xticks(widths, [str(width) for width in widths])
            axes.minorticks_off()
        for axes in grid.ravel()[len(panels) :]:
            axes.remove()
        for axes in grid[:, 0]:
            axes.set_ylabel("standard deviation")
        for axes in grid[-1]:
            axes.set_xlabel("width")
        curves = grid[0, 0].get_legend_handles_labels()
        figure.legend(*curves, loc="outside lower left", ncols=5, frameon=False)
        figure.suptitle(title, x=0.01, ha="left")
    return figure


def _changes(summary: Summary) -> bool:
    return any(
        np.nanmax(values) > np.nanmin(values)
        for r in summary.records
        for values in r.hyperparams.values()
        if np.isfinite(values).any()
    )


def _draw(
    axes: Axes,
    summaries: Sequence[Summary],
    curves: Callable[[Summary], tuple[np.ndarray, np.ndarray]],
    names: Container[str] | None = None,
) -> list[_End]:
    """Draws the named optimizers, each in the style of its place among all."""
    ends = []
    for i, summary in enumerate(summaries):
        if names is not None and summary.optimizer not in names:
            continue
        steps, values = curves(summary)
        estimate, low, high = statistics.bootstrap(values.T)
        look = line_style(i)
        finite = np.isfinite(estimate)
        high = np.where(np.isfinite(high), high, np.finfo(np.float32).max)
        axes.fill_between(
            steps, low, high, where=finite, color=look["color"], alpha=0.15, lw=0
        )
        (drawn,) = axes.plot(
            steps[finite],
            estimate[finite],
            markevery=(i / len(summaries) / 8, 1 / 8),
            **look,
        )
        if finite.any():
            label = summary.optimizer
            if summary.num_diverged:
                label += f" ({summary.num_diverged}/{len(summary.records)} diverged)"
            last = np.flatnonzero(finite)[-1]
            ends.append(_End(label, drawn, float(steps[last]), float(estimate[last])))
    return ends


class _End(NamedTuple):
    """A curve's last point and what is written beside it."""

    label: str
    line: Line2D
    step: float
    value: float


def _label_ends(axes: Axes, ends: Sequence[_End]) -> None:
    """Names each curve beside its last point, pushing labels apart."""
    to_axes = axes.transData + axes.transAxes.inverted()
    points = [(e.step, float(np.clip(e.value, *axes.get_ylim()))) for e in ends]
    heights = [float(to_axes.transform(point)[1]) for point in points]
    placed = _spread(heights, gap=0.065)
    for end, point, height in zip(ends, points, placed, strict=True):
        axes.annotate(
            textwrap.fill(end.label, 24),
            xy=point,
            xytext=(1.04, height),
            textcoords="axes fraction",
            va="center",
            fontsize=8.5,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": end.line.get_color(),
                "linestyle": end.line.get_linestyle(),
                "shrinkA": 0,
                "shrinkB": 0,
            },
        )


def _spread(heights: Sequence[float], gap: float) -> np.ndarray:
    """Moves heights apart by at least `gap`, keeping their order."""
    order = np.argsort(heights, kind="stable")
    placed = np.array(heights, float)[order]
    for _ in range(500):
        overlap = np.maximum(gap - np.diff(placed), 0)
        if overlap.max(initial=0) < 1e-3:
            break
        placed[1:] += overlap / 2
        placed[:-1] -= overlap / 2
        placed = np.clip(placed, 0, 1)
    return placed[np.argsort(order, kind="stable")]


def _train_curves(summary: Summary) -> tuple[np.ndarray, np.ndarray]:
    steps = summary.records[0].eval_steps
    return (steps[:-1] + steps[1:]) / 2, train_means(summary.records)


def _valid_curves(summary: Summary) -> tuple[np.ndarray, np.ndarray]:
    return summary.records[0].eval_steps, valid_losses(summary.records)


def _hyperparam_curves(name: str, summary: Summary) -> tuple[np.ndarray, np.ndarray]:
    values = np.array([r.hyperparams[name] for r in summary.records], np.float64)
    return summary.records[0].eval_steps, values


def _fit_losses(
    axes: Axes, curves: Sequence[tuple[np.ndarray, np.ndarray]], start: float
) -> None:
    """Shows where the losses are after a tenth of the run, but never above the start.

    What comes before, and what diverges, is beyond the top: the ends are to be told
    apart.
    """
    values = np.concatenate([v.ravel() for _, v in curves])
    values = values[np.isfinite(values)]
    if not values.size:
        return
    tenths = [np.median(v[:, np.argmax(s >= s[-1] / 10)]) for s, v in curves]
    sane = [x for x in tenths if np.isfinite(x) and x <= start]
    lowest, highest = values.min(), max(sane, default=values.max())
    if lowest > 0 and highest / lowest > 4:
        axes.set_ylim(lowest / 1.15, highest * 1.25)
        logarithmic(axes)
    else:
        margin = 0.05 * (highest - lowest) or 1.0
        axes.set_ylim(lowest - margin, highest + 2 * margin)


def logarithmic(axes: Axes) -> None:
    """A logarithmic y axis with plain numbers, as many as there is room for."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(
        LogLocator(subs=(1, 2, 5) if high > 4 * low else range(1, 10))
    )
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _widen(axes: Axes) -> None:
    """Shows at least one per mille of a value, so that rounding does not look big."""
    low, high = axes.get_ylim()
    missing = 1e-3 * max(abs(low), abs(high)) - (high - low)
    axes.set_ylim(low - max(missing / 2, 0), high + max(missing / 2, 0))
    axes.ticklabel_format(axis="y", useOffset=False)


def _draw_target(axes: Axes, target: float | None) -> None:
    if target is None:
        return
    axes.axhline(target, color="#777777", lw=0.8, zorder=1)
    axes.annotate(
        "target",
        (0, target),
        xytext=(2, 2),
        textcoords="offset points",
        color="#555555",
        fontsize=8,
    )
