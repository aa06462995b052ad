"""Search spaces: which settings of an optimizer are tried."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from tasks.checks import check_numbers

_EDGE = 0.1


@dataclasses.dataclass(frozen=True)
class LogUniform:
    """Values between two bounds, drawn uniformly in their logarithm.

    Raises:
      ValueError: the bounds are not positive and rising.
    """

    low: float
    high: float

    def __post_init__(self):
        check_numbers(above=0, low=self.low)
        check_numbers(above=self.low, high=self.high)


Axis = LogUniform | Sequence[float]


@dataclasses.dataclass(frozen=True)
class Space:
    """Which settings of an optimizer are tried.

    Attributes:
      template: a spec with the names of axes in braces, such as
        `"optax:adamw(learning_rate={learning_rate}, b1={b1})"`.
      axes: by name either the values of a grid, all combinations of which are tried, or
        `LogUniform`; all axes of a space are of one kind.

    Raises:
      ValueError: an axis is missing in the template, empty or not positive, or the
        kinds are mixed.

    Example:
      >>> space = Space("optax:sgd({rate})", {"rate": (0.01, 0.1, 1.0)})
      >>> space.specs(3), space.volume
      (['optax:sgd(0.01)', 'optax:sgd(0.1)', 'optax:sgd(1.0)'], 2.0)
    """

    template: str
    axes: Mapping[str, Axis]

    def __post_init__(self):
        for name in self.axes:
            if f"{{{name}}}" not in self.template:
                raise ValueError(f"axis {name!r} is not in {self.template!r}")
        grids = self._grids()
        for name, values in grids.items():
            for value in values:
                check_numbers(above=0, **{name: float(value)})
        mixed = grids and len(grids) < len(self.axes)
        if not self.axes or mixed or not all(grids.values()):
            raise ValueError(
                f"axes of {self.template!r} must be at least one, all grids of values "
                "or all LogUniform"
            )

    @property
    def grid_size(self) -> int | None:
        """The number of combinations of a grid, `None` of `LogUniform` axes."""
        grids = self._grids()
        return math.prod(map(len, grids.values())) if grids else None

    @property
    def volume(self) -> float:
        """The product over axes of the decades that they span; a fixed one is none."""
        spans = [math.log10(high / low) for _, (low, high) in self._bounds()]
        return round(math.prod(span for span in spans if span > 0), 6)

    def settings(self, trials: int) -> list[dict[str, float]]:
        """The values that are tried, by axis.

        Random ones are the same points of the unit cube for every space with as many
        axes, so that no optimizer has better luck.
        """
        grids = self._grids()
        if grids:
            combinations = itertools.product(*grids.values())
            return [dict(zip(grids, c, strict=True)) for c in combinations]
        points = np.random.default_rng(0).random((trials, len(self.axes)))
        return [
            {
                name: float(f"{low * (high / low) ** x:.4g}")
                for (name, (low, high)), x in zip(self._bounds(), point, strict=True)
            }
            for point in points
        ]

    def specs(self, trials: int) -> list[str]:
        """The specs that are tried."""
        return [self.template.format(**s) for s in self.settings(trials)]

    def edges(self, setting: Mapping[str, float]) -> list[str]:
        """The axes on whose edge a setting lies.

        That is the least or the largest value of a grid, and the outer tenth of the
        decades on either side otherwise.
        """
        found = []
        for name, (low, high) in self._bounds():
            margin = _EDGE if isinstance(self.axes[name], LogUniform) else 1e-9
            place = math.log(setting[name] / low) / max(math.log(high / low), 1e-30)
            if low < high and not margin < place < 1 - margin:
                found.append(name)
        return found

    def _grids(self) -> dict[str, tuple[float, ...]]:
        return {
            name: tuple(map(float, axis))
            for name, axis in self.axes.items()
            if not isinstance(axis, LogUniform)
        }

    def _bounds(self) -> list[tuple[str, tuple[float, float]]]:
        return [
            (name, (axis.low, axis.high))
            if isinstance(axis, LogUniform)
            else (name, (float(min(axis)), float(max(axis))))
            for name, axis in self.axes.items()
        ]
