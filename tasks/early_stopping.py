"""When early stopping would have ended runs that were trained to their end.

A run that is stopped and one that goes on are the same up to that point, so that the
records of whole runs hold the answer, for every rule.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tasks import statistics
from tasks.checks import check_counts, check_numbers
from tasks.records import Record
from tasks.statistics import Interval


@dataclasses.dataclass(frozen=True)
class EarlyStopping:
    """Stops after evaluations in a row without progress, and restores the best weights.

    Progress is a validation loss below the best one by more than `min_delta`; the best
    one is the last that was progress. The evaluation before the first step is none.

    Attributes:
      patience: how many evaluations without progress end a run.
      min_delta: in units of the loss.

    Raises:
      ValueError: `patience` is not positive, or `min_delta` negative.

    Example:
      >>> EarlyStopping(patience=2, min_delta=0.1).stop([5.0, 3.0, 2.95, 2.99, 0.0])
      Stop(last=3, best=1, in_time=True)
    """

    patience: int = 2
    min_delta: float = 1e-3

    def __post_init__(self):
        check_counts(patience=self.patience)
        if self.min_delta != 0:
            check_numbers(above=0, min_delta=self.min_delta)

    def stop(self, losses: Sequence[float]) -> Stop:
        """Where a run with these losses ends, as positions in them."""
        lowest, best = np.inf, 0
        for i, loss in enumerate(losses):
            if loss < lowest - self.min_delta:
                lowest, best = loss, i
            elif i - best >= self.patience:
                return Stop(i, best, in_time=True)
        return Stop(len(losses) - 1, best, in_time=False)


class Stop(NamedTuple):
    """The last evaluation of a run, the best one, and whether patience ran out."""

    last: int
    best: int
    in_time: bool


class StoppedRun(NamedTuple):
    """One run; `steps` and `seconds` are +inf if it was not stopped before its end."""

    steps: float
    seconds: float
    loss: float


@dataclasses.dataclass(frozen=True)
class Stopping:
    """An optimizer on a task with early stopping, over its seeds.

    Attributes:
      steps: the step at which a run is stopped, +inf where its end comes first.
      seconds: the time to stop, likewise, evaluations included: the share of its steps
        in the time that all seeds took side by side.
      loss: the validation loss of the weights that are restored.
      difference: of `loss` to the baseline's with the same seeds; `None` for the
        baseline itself and where it is missing.
      total_steps: of a run that is not stopped.
      total_seconds: likewise, the median over the records.
    """

    steps: Interval
    seconds: Interval
    loss: Interval
    difference: Interval | None
    total_steps: int
    total_seconds: float


def stopped_runs(
    records: Sequence[Record], losses: np.ndarray
) -> dict[int, StoppedRun]:
    """What early stopping makes of each run, by seed; nothing where none is asked for.

    Args:
      records: of one optimizer on one task.
      losses: on the validation split, float64[records, points].
    """
    found = {}
    for record, row in zip(records, losses, strict=True):
        rule = record.context.get("early_stopping")
        if rule is None:
            continue
        start = np.searchsorted(record.eval_steps, 0, side="right")
        stop = EarlyStopping(**rule).stop(row[start:])
        steps = float(record.eval_steps[start + stop.last])
        share = steps / record.eval_steps[-1] if stop.in_time else np.inf
        found[record.seed] = StoppedRun(
            steps if stop.in_time else np.inf,
            float(share * record.costs["run_seconds"]),
            float(row[start + stop.best]),
        )
    return found


def summarize(
    records: Sequence[Record],
    runs: Mapping[int, StoppedRun],
    baseline: Mapping[int, StoppedRun],
) -> Stopping | None:
    """Intervals over the seeds; `None` where no early stopping is asked for.

    Args:
      records: of one optimizer on one task.
      runs: what `stopped_runs` makes of them.
      baseline: the same of the baseline; empty for itself and without one.
    """
    if not runs:
        return None
    steps, seconds, losses = zip(*runs.values(), strict=True)
    return Stopping(
        steps=statistics.interval(steps, statistics.median),
        seconds=statistics.interval(seconds, statistics.median),
        loss=statistics.interval(losses),
        difference=statistics.paired_by_seed(
            {seed: run.loss for seed, run in runs.items()},
            {seed: run.loss for seed, run in baseline.items()},
        ),
        total_steps=int(records[0].eval_steps[-1]),
        total_seconds=float(np.median([r.costs["run_seconds"] for r in records])),
    )
