"""Statistics over tasks and seeds together.

As defined by Agarwal et al., "Deep Reinforcement Learning at the Edge of the
Statistical Precipice" (2021), and released as `rliable`. Scores come as one array for
each task, that of its runs, and more is better. Intervals are percentile intervals of
the stratified bootstrap, which draws the runs of each task anew from that task.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks import statistics
from tasks.statistics import Interval

RESAMPLES = 2000

Tasks = Sequence[ArrayLike]
Resamples = list[NDArray[np.float64]]  # of each task, float64[resamples, runs]


def interquartile_mean(scores: Tasks) -> Interval:
    """Mean of the middle half of all runs of all tasks together.

    Args:
      scores: for each task float[runs].

    Example:
      >>> interquartile_mean([[0.0, 1.0], [1.0, 2.0]]).estimate
      1.0
    """
    return _interval(
        lambda of: statistics.interquartile_mean(np.concatenate(of, axis=-1)), scores
    )


def optimality_gap(scores: Tasks, optimum: float = 1.0) -> Interval:
    """Mean distance below the optimum; runs above it count as being there.

    Example:
      >>> optimality_gap([[0.5, 2.0], [0.75, 0.75]]).estimate
      0.25
    """
    return _interval(
        lambda of: (
            optimum - np.minimum(np.concatenate(of, axis=-1), optimum).mean(axis=-1)
        ),
        scores,
    )


def probability_of_improvement(scores: Tasks, baseline: Tasks) -> Interval:
    """How likely a run scores higher than the baseline's, on a task drawn at random.

    The share of all pairs of runs of a task (the Mann-Whitney U statistic over the
    number of pairs), ties counted by half, averaged over tasks.

    Args:
      scores: for each task float[runs].
      baseline: likewise for the same tasks; the number of runs may differ.

    Example:
      >>> probability_of_improvement([[1.0, 3.0]], [[2.0, 3.0]]).estimate
      0.375
    """

    def statistic(of: Resamples) -> NDArray[np.float64]:
        pairs = zip(of[: len(scores)], of[len(scores) :], strict=True)
        return np.mean([_share_of_wins(x, y) for x, y in pairs], axis=0)

    return _interval(statistic, [*scores, *baseline])


def _share_of_wins(x: NDArray, y: NDArray) -> NDArray[np.float64]:
    sign = np.sign(x[..., :, None] - y[..., None, :])
    return (1 + sign.mean(axis=(-2, -1))) / 2


def score_profile(
    scores: Tasks, levels: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The share of runs that score above each level, averaged over tasks.

    Args:
      scores: for each task float[runs].
      levels: float[levels].

    Returns:
      `(estimate, low, high)`, each float[levels].

    Example:
      >>> score_profile([[0.0, 1.0], [1.0, 1.0]], [0.5, 1.0])[0]
      array([0.75, 0.  ])
    """
    levels = np.asarray(levels, np.float64)
    return _bounds(
        lambda of: np.mean([(x[..., None] > levels).mean(axis=-2) for x in of], axis=0),
        scores,
    )


def _interval(
    statistic: Callable[[Resamples], NDArray[np.float64]], tasks: Tasks
) -> Interval:
    return Interval(*(float(x) for x in _bounds(statistic, tasks)))


def _bounds(
    statistic: Callable[[Resamples], NDArray[np.float64]], tasks: Tasks
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """A statistic of the runs of all tasks, and its 95 % interval."""
    runs = [np.asarray(x, np.float64) for x in tasks]
    rng = np.random.default_rng(0)
    drawn = [x[rng.integers(len(x), size=(RESAMPLES, len(x)))] for x in runs]
    low, high = np.quantile(statistic(drawn), [0.025, 0.975], axis=0)
    return statistic([x[None] for x in runs])[0], low, high
