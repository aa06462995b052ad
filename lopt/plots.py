"""The figure of a meta-training run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_LINES = ("-", "--", "-.", ":")
_STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "figure.dpi": 110,
}


def meta_loss_figure(
    records: Sequence[dict[str, Any]], evaluations: Sequence[dict[str, Any]] = ()
) -> Figure:
    """Meta-loss of each task over meta-steps, and the held-out losses beside it.

    Pale points are single meta-steps, lines are running means over a twentieth of the
    run.

    Args:
      records: those of `MetaTraining`.
      evaluations: those of `MetaTraining`.
    """
    with mpl.rc_context(_STYLE):
        columns = 2 if evaluations else 1
        figure = Figure(figsize=(5.5 * columns, 3.8), layout="constrained")
        axes = figure.subplots(1, columns, squeeze=False)[0]
        _draw_meta_loss(axes[0], records)
        if evaluations:
            _draw_evaluations(axes[1], evaluations)
        for each in axes:
            each.set_xlabel("meta-step")
    return figure


def _draw_meta_loss(axes: Any, records: Sequence[dict[str, Any]]) -> None:
    names = dict.fromkeys(n for r in records for n in r if n.startswith("meta_loss/"))
    for i, name in enumerate(names):
        known = [(r["step"], r[name]) for r in records if name in r]
        steps, losses = np.array(known, float).T
        style = {"color": _COLOURS[i % 7], "zorder": 2 + i}
        axes.plot(steps, losses, ".", ms=2, alpha=0.25, **style)
        mean = _running_mean(losses, max(1, len(losses) // 20))
        label = name.removeprefix("meta_loss/")
        axes.plot(steps, mean, ls=_LINES[i % 4], lw=1.6, label=label, **style)
    smooth = np.concatenate([line.get_ydata() for line in axes.lines[1::2]] or [[0, 1]])
    smooth = smooth[np.isfinite(smooth)]
    if len(smooth):  # Single losses may be far off; the frame follows the means.
        margin = 0.15 * (smooth.max() - smooth.min()) + 1e-3
        axes.set_ylim(smooth.min() - margin, smooth.max() + margin)
    axes.set_title("Meta-loss: mean training loss of inner runs", loc="left")
    if names:
        axes.legend(frameon=False, fontsize=8)


def _draw_evaluations(axes: Any, evaluations: Sequence[dict[str, Any]]) -> None:
    names = dict.fromkeys(
        n for e in evaluations for n in e if n.startswith("heldout_valid_loss/")
    )
    for i, name in enumerate(names):
        known = [(e["step"], e[name]) for e in evaluations if name in e]
        steps, losses = np.array(known, float).T
        axes.plot(
            steps,
            losses,
            ls=_LINES[i % 4],
            marker="osD^v"[i % 5],
            ms=4,
            color=_COLOURS[i % 7],
            label=name.removeprefix("heldout_valid_loss/"),
        )
    if not any(np.any(line.get_ydata() <= 0) for line in axes.lines):
        _logarithmic(axes)  # A random theta may end ten thousand times too high.
    axes.set_title("Held-out: final validation loss from scratch", loc="left")
    axes.legend(frameon=False, fontsize=8)


def _logarithmic(axes: Any) -> None:
    """A logarithmic y axis with plain numbers at it, a few even within a decade."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    if high < 100 * low:
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """The mean over the last `window` finite values."""
    finite = np.isfinite(values)
    sums = np.cumsum(np.where(finite, values, 0))
    counts = np.cumsum(finite)
    sums[window:] -= sums[:-window].copy()
    counts[window:] -= counts[:-window].copy()
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
