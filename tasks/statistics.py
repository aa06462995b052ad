"""Statistics over seeds, with diverged and unfinished runs counted, not dropped.

A run that diverged has the loss +inf: the worst there is, whatever the number at which
it left the finite range. Estimates that only rank (median) or trim (interquartile mean)
stay finite while few runs diverge, and become infinite when many do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 4000
_BOOTSTRAP_SEED = 0
_EXACT_PAIRS = 16


class Interval(NamedTuple):
    """An estimate and the bounds of its confidence interval."""

    estimate: float
    low: float
    high: float


def interquartile_mean(values: ArrayLike, axis: int = -1) -> NDArray[np.float64]:
    """Mean of what is left without the lowest and the highest quarter.

    As `scipy.stats.trim_mean(values, 0.25)`, used for few runs by Agarwal et al.,
    "Deep RL at the Edge of the Statistical Precipice" (2021).

    Example:
      >>> float(interquartile_mean([1.0, 2.0, 3.0, 4.0, np.inf]))
      3.0
    """
    ordered = np.sort(np.asarray(values, np.float64), axis=axis)
    n = ordered.shape[axis]
    middle = np.take(ordered, range(n // 4, n - n // 4), axis=axis)
    with np.errstate(invalid="ignore"):  # inf - inf is nan: undefined, and shown so
        return middle.mean(axis=axis)


def median(values: ArrayLike, axis: int = -1) -> NDArray[np.float64]:
    """The median, where infinities count as values.

    Example:
      >>> float(median([200.0, 300.0, np.inf]))
      300.0
    """
    with np.errstate(invalid="ignore"):
        return np.median(np.asarray(values, np.float64), axis=axis)


def bootstrap(
    values: ArrayLike,
    statistic: Callable[..., NDArray[np.float64]] = interquartile_mean,
    *,
    confidence: float = 0.95,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """A statistic over the last axis and its percentile bootstrap interval.

    The resampling is seeded: the same values give the same interval.

    Args:
      values: float[..., runs]; infinities are allowed.
      statistic: `(values, axis) -> values without that axis`.
      confidence: probability mass between the bounds.

    Returns:
      `(estimate, low, high)`, each float[...].
    """
    values = np.asarray(values, np.float64)
    n = values.shape[-1]
    draws = np.random.default_rng(_BOOTSTRAP_SEED).integers(n, size=(RESAMPLES, n))
    resampled = statistic(values[..., draws], axis=-1)
    tail = (1 - confidence) / 2
    # inverted_cdf takes a resample as it is: interpolating towards inf gives nan.
    low, high = np.quantile(resampled, [tail, 1 - tail], axis=-1, method="inverted_cdf")
    return statistic(values, axis=-1), low, high


def interval(
    values: ArrayLike,
    statistic: Callable[..., NDArray[np.float64]] = interquartile_mean,
    *,
    confidence: float = 0.95,
) -> Interval:
    """`bootstrap` of one list of runs.

    Example:
      >>> interval([2.0, 2.0, 2.0])
      Interval(estimate=2.0, low=2.0, high=2.0)
    """
    return Interval(*map(float, bootstrap(values, statistic, confidence=confidence)))


def paired_difference(
    values: ArrayLike, baseline: ArrayLike, *, confidence: float = 0.95
) -> Interval:
    """Interval of the difference to a baseline that was run with the same seeds.

    What the seeds have in common (the initial parameters, the order of the data) drops
    out, so that the interval is narrower than the two separate ones suggest. Where both
    runs diverged the difference is 0.

    Args:
      values: float[runs], +inf for a diverged run.
      baseline: float[runs], in the same order of seeds.
      confidence: probability mass between the bounds.

    Returns:
      The interval; its numbers are NaN where runs diverged on both sides, so that the
      mean of the differences is undefined.

    Example:
      >>> paired_difference([1.0, 2.0, 3.0], [2.0, 3.0, 4.0])
      Interval(estimate=-1.0, low=-1.0, high=-1.0)
    """
    return interval(differences(values, baseline), confidence=confidence)


def differences(values: ArrayLike, baseline: ArrayLike) -> NDArray[np.float64]:
    """`values - baseline`, and 0 where both are infinite."""
    values, baseline = np.asarray(values, np.float64), np.asarray(baseline, np.float64)
    both = np.isinf(values) & np.isinf(baseline)
    with np.errstate(invalid="ignore"):
        return np.where(both, 0.0, values - baseline)


def sign_flip_p(differences: ArrayLike) -> float:
    """One-sided p of the paired sign-flip permutation test that the mean is below 0.

    The share of the 2^n ways to give the differences signs whose sum is at most the
    observed one: under the null hypothesis each difference is as likely as its
    opposite. Exact up to 16 pairs, and 2^16 random draws above, of which the observed
    signs are one. No p is below 2^-n: five pairs are needed for 0.05.

    Args:
      differences: float[pairs]; an infinite one, of a diverged run, outweighs all
        finite ones together.

    Example:
      >>> sign_flip_p([-1.0, -2.0, -0.5, -0.1, -3.0])
      0.03125
    """
    values = np.asarray(differences, np.float64)
    n, finite = len(values), np.isfinite(values)
    above_all = 1 + np.abs(values[finite]).sum()
    values = np.where(finite, values, np.sign(values) * above_all)
    if n <= _EXACT_PAIRS:
        flips = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    else:
        rng = np.random.default_rng(_BOOTSTRAP_SEED)
        flips = rng.integers(2, size=(2**_EXACT_PAIRS, n))
        flips[0] = 0
    sums = (1 - 2 * flips) @ values
    slack = 1e-12 * np.abs(values).sum()  # equal sums may differ by rounding
    return float(np.mean(sums <= values.sum() + slack))


def paired_by_seed(
    values: Mapping[int, float], baseline: Mapping[int, float]
) -> Interval | None:
    """`paired_difference` over the seeds that both have; `None` if there are none.

    Example:
      >>> paired_by_seed({0: 1.0, 1: 2.0, 2: 9.0}, {0: 2.0, 1: 3.0})
      Interval(estimate=-1.0, low=-1.0, high=-1.0)
    """
    common = sorted(values.keys() & baseline.keys())
    if not common:
        return None
    return paired_difference([values[s] for s in common], [baseline[s] for s in common])


def verdict(difference: Interval | None) -> str:
    """What the interval of a difference in loss to the baseline says, in words.

    Example:
      >>> verdict(Interval(-1.0, -2.0, -0.5)), verdict(Interval(1.0, -2.0, 3.0))
      ('better', 'no clear difference')
    """
    if difference is None:
        return "no baseline"
    if difference.high < 0:
        return "better"
    return "worse" if difference.low > 0 else "no clear difference"


def steps_to_target(
    steps: ArrayLike, losses: ArrayLike, target: float
) -> NDArray[np.float64]:
    """The first evaluated step at which each run is at or below the target.

    Args:
      steps: int[points], the evaluated steps, rising.
      losses: float[runs, points].
      target: the loss to reach.

    Returns:
      float[runs], +inf for a run that did not get there (censored).

    Example:
      >>> steps_to_target([0, 10, 20], [[3.0, 1.0, 2.0], [3.0, 3.0, 3.0]], 1.5)
      array([10., inf])
    """
    reached = np.asarray(losses) <= target
    first = np.asarray(steps, np.float64)[reached.argmax(axis=-1)]
    return np.where(reached.any(axis=-1), first, np.inf)


def default_target(
    steps: ArrayLike, losses: ArrayLike, fraction: float = 0.75
) -> float:
    """The loss that the baseline reaches at a fraction of its run.

    The median over seeds of the best loss in the first `fraction` of the steps, so that
    the baseline itself needs about that fraction to get there.

    Args:
      steps: int[points], the evaluated steps, rising.
      losses: float[runs, points] of the baseline.
      fraction: of the last step.
    """
    steps = np.asarray(steps)
    until = steps <= fraction * steps[-1]
    return float(median(np.asarray(losses)[:, until].min(axis=-1)))
