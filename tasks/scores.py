"""A loss as a score, so that tasks can be averaged.

    score = max(0, (start - loss) / (start - best))

where `start` is the loss at the initial parameters and `best` what the best baseline
reaches: 0 for no progress, 1 for as good as the best baseline, more for better. A run
that diverged scores 0, the least that there is, as does one that made its loss worse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tasks import measures, statistics
from tasks.records import Record


class Unit(NamedTuple):
    """What scores 0 and what scores 1 on a task.

    Attributes:
      start: loss at the initial parameters, the median over the best baseline's seeds.
      best: interquartile mean over seeds of the best baseline's measure.
      measure: which loss it is about, see `measures.by_seed`.
    """

    start: float
    best: float
    measure: str = measures.FINAL_VALID

    def scores(self, records: Sequence[Record]) -> np.ndarray:
        """The score of each run, float64[runs]."""
        losses = np.array([*measures.by_seed(records, self.measure).values()])
        return self.of(losses)

    def of(self, losses: np.ndarray) -> np.ndarray:
        """Scores of losses.

        Example:
          >>> Unit(start=3.0, best=1.0).of(np.array([1.0, 2.0, 9.0, np.inf]))
          array([1. , 0.5, 0. , 0. ])
        """
        return np.maximum(0.0, (self.start - losses) / (self.start - self.best))


def baselines(cells: Mapping[str, Sequence[Record]], reference: str) -> list[str]:
    """Which optimizers set the unit: those that the suite names, or its baseline.

    Args:
      cells: the records on one task by optimizer.
      reference: the optimizer that others are compared with.
    """
    named = {n for of in cells.values() for n in of[0].context.get("baselines", ())}
    tuned = [n for n, of in cells.items() if of[0].optimizer in named and _tuned(of)]
    return tuned or [name for name in cells if name == reference]


def unit(of_baselines: Sequence[Sequence[Record]], measure: str) -> Unit | None:
    """The unit of a task; `None` if no baseline ends below its start."""
    found = []
    for records in of_baselines:
        best = float(
            statistics.interquartile_mean(
                [*measures.by_seed(records, measure).values()]
            )
        )
        start = float(np.median(measures.curves(records, measure).losses[:, 0]))
        found.append(Unit(start, best, measure))
    best = min(found, key=lambda u: u.best, default=None)
    return best if best and best.best < best.start < np.inf else None


def _tuned(records: Sequence[Record]) -> bool:
    return records[0].context.get("track") != "untuned"
