"""Optimizers that were run from a grid of two settings: how robust are they to both?

They are told by their names, such as "mada(0.9, 0.95)" for every pair of a grid.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence

import numpy as np

from tasks import measures
from tasks.records import Record
from tasks.results import Summary

_NAME = re.compile(r"(\w+)\((\S+), (\S+)\)(.*)")
_FEWEST_VALUES = 3
_QUANTILES = (0.25, 0.5, 0.75, 0.9)


@dataclasses.dataclass(frozen=True)
class Grid:
    """An optimizer on a task, from each pair of two settings.

    Attributes:
      optimizer: the name without the settings.
      axes: names of the two settings.
      xs: values of the first, ascending.
      ys: values of the second, ascending.
      members: what was run, by pair.
    """

    optimizer: str
    axes: tuple[str, str]
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    members: dict[tuple[float, float], Summary]

    def losses(self, measure: str) -> np.ndarray:
        """The mean over seeds, float64[xs, ys]; +inf where a seed diverged."""
        return np.array(
            [
                [self._loss(self.members.get((x, y)), measure) for y in self.ys]
                for x in self.xs
            ]
        )

    def _loss(self, member: Summary | None, measure: str) -> float:
        if member is None:
            return np.nan
        return float(np.mean([*measures.by_seed(member.records, measure).values()]))


def split(summaries: Iterable[Summary]) -> tuple[list[Grid], list[Summary]]:
    """The grids among the optimizers on one task, and the optimizers in none.

    A grid has three values of each setting at least.
    """
    summaries = list(summaries)
    found: dict[str, dict[tuple[float, float], Summary]] = {}
    for s in summaries:
        place = _place(s.optimizer)
        if place is not None:
            found.setdefault(place[0], {})[place[1:]] = s
    grids = []
    for name, members in found.items():
        xs, ys = (tuple(sorted({pair[i] for pair in members})) for i in (0, 1))
        if min(len(xs), len(ys)) >= _FEWEST_VALUES:
            grids.append(Grid(name, _axes(members), xs, ys, members))
    inside = {id(s) for grid in grids for s in grid.members.values()}
    return grids, [s for s in summaries if id(s) not in inside]


def _place(name: str) -> tuple[str, float, float] | None:
    found = _NAME.fullmatch(name)
    try:
        return found and (found[1] + found[4], float(found[2]), float(found[3]))
    except ValueError:
        return None


def _axes(members: dict[tuple[float, float], Summary]) -> tuple[str, str]:
    """The arguments that have the values of the names, where there are such."""
    given = [(p, _arguments(s.records[0])) for p, s in members.items()]
    names = [
        next(
            (k for k in given[0][1] if all(a.get(k) == p[i] for p, a in given)), default
        )
        for i, default in enumerate(("first setting", "second setting"))
    ]
    return names[0], names[1]


def _arguments(record: Record) -> dict:
    return record.config["optimizer"].get("arguments", {})


def thresholds(grids: Sequence[Grid], measure: str) -> list[float]:
    """Losses that a quarter, a half, three quarters and nine tenths of all attain."""
    losses = np.concatenate([g.losses(measure).ravel() for g in grids])
    found = np.nanquantile(losses, _QUANTILES, method="inverted_cdf")
    return list(dict.fromkeys(float(f"{x:.4g}") for x in found if np.isfinite(x)))


def base(name: str) -> str:
    """The name of an optimizer without the pair of settings.

    Example:
      >>> base("mada(0.9, 0.95)"), base("adamw")
      ('mada', 'adamw')
    """
    place = _place(name)
    return place[0] if place else name
