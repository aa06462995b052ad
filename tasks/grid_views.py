"""What grids of two settings show, as tables and as figures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tasks import grids as grids_lib
from tasks import tables
from tasks.grids import Grid
from tasks.measures import FINAL_TRAIN, FINAL_VALID
from tasks.plots import style

_MOST_NUMBERS = 49
COLUMNS = ("optimizer", "settings", "best", "at", "median", "worst")


def rows(grids: Sequence[Grid], measure: str) -> list[list[str]]:
    """A table of what the settings do to each optimizer, the head first."""
    below = grids_lib.thresholds(grids, measure)
    table = [[*COLUMNS, *(f"below {x:g}" for x in below)]]
    for grid in grids:
        losses = grid.losses(measure)
        known = losses[~np.isnan(losses)]
        i, j = np.unravel_index(np.nanargmin(losses), losses.shape)
        middle = float(np.quantile(known, 0.5, method="inverted_cdf"))
        shares = [f"{(known < x).mean():.0%}" for x in below]
        numbers = [tables.number(float(x)) for x in (known.min(), middle, known.max())]
        at = f"{grid.xs[i]:g}, {grid.ys[j]:g}"
        table.append(
            [grid.optimizer, str(known.size), numbers[0], at, *numbers[1:], *shares]
        )
    return table


def markdown(grids: Sequence[Grid]) -> str:
    """A headline and a table of what the settings do, by each of the losses."""
    task = next(iter(grids[0].members.values())).task
    return "\n\n".join(
        f"{task}: {measure} over {' and '.join(grids[0].axes)}\n\n"
        f"{tables.aligned(rows(grids, measure))}"
        for measure in (FINAL_TRAIN, FINAL_VALID)
    )


def plot(grids: Sequence[Grid], measure: str) -> Figure:
    """The loss from each pair of settings, as grey levels and as numbers.

    White is the lowest loss of all grids, black what nine tenths of all settings attain
    and what is beyond.
    """
    losses = [g.losses(measure) for g in grids]
    low = min(np.nanmin(x) for x in losses)
    attained = grids_lib.thresholds(grids, measure)
    high = max((x for x in attained if x > low), default=low + 1)
    with style():
        figure = Figure(figsize=(11, 3.9), layout="constrained")
        panels = figure.subplots(1, len(grids), squeeze=False)[0]
        for axes, grid, values in zip(panels, grids, losses, strict=True):
            shown = np.clip(values.T, low, high)
            axes.pcolormesh(shown, cmap="Greys", vmin=low, vmax=high)
            axes.set_xticks(np.arange(len(grid.xs)) + 0.5, [f"{x:g}" for x in grid.xs])
            axes.set_yticks(np.arange(len(grid.ys)) + 0.5, [f"{y:g}" for y in grid.ys])
            axes.tick_params(axis="x", rotation=90 if len(grid.xs) > 7 else 0)
            axes.grid(False)
            axes.set_xlabel(grid.axes[0])
            axes.set_title(grid.optimizer, loc="left")
            if values.size <= _MOST_NUMBERS:
                _write_numbers(axes, values, (low + high) / 2)
        panels[0].set_ylabel(grids[0].axes[1])
        shades = panels[0].collections[0]
        figure.colorbar(shades, ax=panels, label=measure, extend="max", aspect=30)
    return figure


def _write_numbers(axes: Axes, values: np.ndarray, dark: float) -> None:
    for (i, j), value in np.ndenumerate(values):
        if not np.isnan(value):
            axes.text(
                i + 0.5,
                j + 0.5,
                tables.number(value, 3),
                ha="center",
                va="center",
                fontsize=7.5,
                color="white" if value > dark else "black",
            )
