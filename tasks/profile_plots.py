"""The figure of the profiles of scores and of times to target."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from tasks import aggregates, profiles
from tasks.comparison import Comparison
from tasks.plots import line_style, style


def profile_curves(comparison: Comparison) -> Figure:
    """The share of runs above each score, and of tasks within each multiple of time.

    Args:
      comparison: of at least one task.
    """
    levels = _score_levels(comparison)
    multiples = np.linspace(1, profiles.LARGEST_RATIO, 121)
    with style():
        figure = Figure(figsize=(11, 4.4), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        solved = [profiles.profile(r, multiples) for r in comparison.ratios.values()]
        for i, (name, of) in enumerate(comparison.scores.items()):
            share, low, high = aggregates.score_profile([*of.values()], levels)
            look = line_style(i)
            at = (i / len(solved) / 8, 1 / 8)
            left.fill_between(levels, low, high, color=look["color"], alpha=0.1, lw=0)
            left.plot(levels, share, markevery=at, label=name, **look)
            right.step(multiples, solved[i], where="post", markevery=at, **look)
        left.set_ylim(-0.03, 1.03)
        left.set_title("Share of runs that score above τ", loc="left")
        left.set_xlabel(f"τ, score by {comparison.measure}")
        right.set_title("Share of tasks solved within τ times the fastest", loc="left")
        right.set_xlabel("τ, multiple of the fastest optimizer's steps to target")
        figure.legend(loc="outside right upper", frameon=False)
    return figure


def _score_levels(comparison: Comparison) -> np.ndarray:
    """Where the profiles differ: between the tails of the lowest and the highest."""
    runs = [np.concatenate([*of.values()]) for of in comparison.scores.values()]
    low = min(np.quantile(x, 0.1) for x in runs)
    high = max(np.max(x) for x in runs)
    margin = 0.02 * (high - low) or 0.1
    return np.linspace(max(0.0, low - margin), high + margin, 161)
