"""Performance profiles of the time to a target, over tasks.

As defined by Dolan and Moré, "Benchmarking optimization software with performance
profiles" (2002), with the integrated score of Dahl et al., "Benchmarking Neural Network
Training Algorithms" (2023), the benchmark AlgoPerf.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

LARGEST_RATIO = 4.0


def time_ratios(times: ArrayLike) -> NDArray[np.float64]:
    """The time of each optimizer over that of the fastest on the same task.

    Args:
      times: float[optimizers, tasks]; +inf for a target that was not reached, NaN for a
        task that the optimizer was not run on.

    Returns:
      float[optimizers, tasks], at least 1; NaN where `times` is.

    Example:
      >>> time_ratios([[10.0, np.inf], [20.0, 30.0]])
      array([[ 1., inf],
             [ 2.,  1.]])
    """
    times = np.asarray(times, np.float64)
    fastest = np.min(times, axis=0, initial=np.inf, where=~np.isnan(times))
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = np.where(times == fastest, 1.0, times / fastest)
    return np.where(np.isinf(times), np.inf, ratios)


def profile(ratios: ArrayLike, levels: ArrayLike) -> NDArray[np.float64]:
    """The share of tasks that an optimizer solved within each multiple of the fastest.

    Args:
      ratios: float[tasks] of one optimizer; NaN is left out.
      levels: float[levels], at least 1.

    Example:
      >>> profile([1.0, 2.0, np.inf], [1.0, 2.0, 4.0])
      array([0.33333333, 0.66666667, 0.66666667])
    """
    ratios = np.asarray(ratios, np.float64)
    ratios = ratios[~np.isnan(ratios)]
    return (ratios[:, None] <= np.asarray(levels, np.float64)).mean(axis=0)


def integrated(ratios: ArrayLike, largest: float = LARGEST_RATIO) -> float:
    """The area under the profile from 1 to the largest ratio, over its width.

    1 for an optimizer that is the fastest on every task, 0 for one that takes at least
    `largest` times the fastest, or never gets there. The integral of a step function is
    exact: each task has the share of the width that lies beyond its ratio.

    Example:
      >>> integrated([1.0, 2.5, np.inf])
      0.5
    """
    ratios = np.asarray(ratios, np.float64)
    beyond = np.clip(largest - ratios[~np.isnan(ratios)], 0, None) / (largest - 1)
    return float(beyond.mean()) if beyond.size else float("nan")
