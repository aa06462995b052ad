"""How much an optimizer minds where its decays start: the grid of a `mada-grid` suite.

    python -m tasks.suites.robustness DIR

prints, for every optimizer, the final training loss over the grid of initial (b1, b2):
the best, the median and the worst, and the share of the grid within some distance of
the best that any of the optimizers reaches; and draws it to DIR/grid.png.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import tyro
from matplotlib.figure import Figure

from tasks import statistics
from tasks.measures import FINAL_TRAIN, FINAL_VALID, by_seed
from tasks.plots import style
from tasks.records import Record
from tasks.results import Results
from tasks.tables import aligned, number, with_interval

DISTANCES = (0.05, 0.1, 0.2, 0.5)
_NAME = re.compile(r"(\w+)\(([\d.]+), ([\d.]+)\)")


class Grid(NamedTuple):
    """Losses of one optimizer, +inf for diverged runs.

    Attributes:
      b1: the initial values of b1, rising.
      b2: those of b2.
      losses: float64[seeds, b1, b2].
    """

    b1: tuple[float, ...]
    b2: tuple[float, ...]
    losses: np.ndarray

    @property
    def by_point(self) -> np.ndarray:
        """The interquartile mean over the seeds, float64[b1, b2]."""
        return statistics.interquartile_mean(self.losses, axis=0)


def grids(records: Sequence[Record], measure: str = FINAL_TRAIN) -> dict[str, Grid]:
    """The grid of each optimizer whose name is like `adamw(0.9, 0.99)`, by its name.

    Args:
      records: of one task, with the same seeds at every point of a grid.
      measure: what is looked at, see `tasks.measures`.

    Raises:
      ValueError: there is none, or a grid has gaps.
    """
    runs: dict[str, dict[tuple[float, float], list[Record]]] = {}
    for record in records:
        if found := _NAME.fullmatch(record.optimizer):
            name, b1, b2 = found.groups()
            point = float(b1), float(b2)
            runs.setdefault(name, {}).setdefault(point, []).append(record)
    if not runs:
        raise ValueError("no optimizer has a name such as 'adamw(0.9, 0.99)'")
    return {name: _grid(name, points, measure) for name, points in runs.items()}


def _grid(
    name: str, points: dict[tuple[float, float], list[Record]], measure: str
) -> Grid:
    b1, b2 = (tuple(sorted(set(axis))) for axis in zip(*points, strict=True))
    losses = {point: by_seed(records, measure) for point, records in points.items()}
    seeds = sorted(next(iter(losses.values())))
    missing = [
        p for p in np.ndindex(len(b1), len(b2)) if (b1[p[0]], b2[p[1]]) not in losses
    ]
    if missing or any(sorted(found) != seeds for found in losses.values()):
        raise ValueError(f"the grid of {name!r} has gaps; resume its evaluation")
    table = [[[losses[x, y][seed] for y in b2] for x in b1] for seed in seeds]
    return Grid(b1, b2, np.array(table))


def table(records: Sequence[Record]) -> str:
    """Markdown: best, median, worst and shares of the training loss over the grid."""
    found, valid = grids(records), grids(records, FINAL_VALID)
    best = min(grid.by_point.min() for grid in found.values())
    head = ["optimizer", "best", "at (b1, b2)", "median", "worst"]
    head += [f"share within {d:g}" for d in DISTANCES] + ["median valid loss"]
    rows = [head]
    for name, grid in found.items():
        points = grid.by_point
        i, j = np.unravel_index(points.argmin(), points.shape)
        close = [100 * (grid.losses <= best + d).mean(axis=(1, 2)) for d in DISTANCES]
        rows.append(
            [
                name,
                number(points.min()),
                f"({grid.b1[i]:g}, {grid.b2[j]:g})",
                with_interval(statistics.interval(np.median(grid.losses, axis=(1, 2)))),
                number(points.max()),
                *(f"{share.mean():.0f} %" for share in close),
                number(float(np.median(valid[name].by_point))),
            ]
        )
    return aligned(rows)


def plot(records: Sequence[Record]) -> Figure:
    """The training loss over the grid, a panel for each optimizer, with numbers."""
    found = grids(records)
    best = min(grid.by_point.min() for grid in found.values())
    with style():
        figure = Figure(figsize=(3.4 * len(found) + 0.8, 3.2), layout="constrained")
        axes = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
        for axis, (name, grid) in zip(axes, found.items(), strict=True):
            points = grid.by_point.T
            image = axis.imshow(
                points, vmin=best, vmax=best + DISTANCES[-1], origin="lower",
                cmap="cividis_r", aspect="auto",
            )  # fmt: skip
            for (i, j), loss in np.ndenumerate(points):
                dark = loss > best + DISTANCES[-1] / 2
                shown = f"{loss:.2f}" if np.isfinite(loss) else "∞"
                colour = "white" if dark else "black"
                axis.text(j, i, shown, ha="center", va="center", color=colour)
            axis.set(title=name, xlabel="initial b1")
            axis.set_xticks(range(len(grid.b1)), map("{:g}".format, grid.b1))
            axis.set_yticks(range(len(grid.b2)), map("{:g}".format, grid.b2))
            axis.grid(False)
        axes[0].set_ylabel("initial b2")
        figure.colorbar(image, ax=axes, label="final training loss", extend="max")
    return figure


def main(directory: tyro.conf.Positional[pathlib.Path]) -> None:
    """Prints the table and draws the grid of an evaluation.

    Args:
      directory: the --out of `python -m tasks evaluate mada-grid-mini`.
    """
    records = Results.load(directory).records
    print(table(records))
    with mpl.rc_context({"savefig.dpi": 150}):
        plot(records).savefig(directory / "grid.png")
    print(f"\nplot {directory / 'grid.png'}")


if __name__ == "__main__":
    tyro.cli(main)
