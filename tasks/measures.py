"""What a run is judged by: a number for each run, and curves of losses.

A run that diverged has an infinite loss, wherever it left the finite range.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tasks.checks import check_known
from tasks.records import Record

FINAL_VALID = "final validation loss"
FINAL_TRAIN = "final training loss"
BEST_VALID = "best validation loss"
MEASURES = (FINAL_VALID, FINAL_TRAIN, BEST_VALID)
_LAST = 0.05


class Curves(NamedTuple):
    """Losses of several runs: int[points] rising steps, float64[runs, points]."""

    steps: np.ndarray
    losses: np.ndarray


def by_seed(records: Sequence[Record], measure: str = FINAL_VALID) -> dict[int, float]:
    """The measure of each run, by seed.

    Args:
      records: of one optimizer on one task.
      measure: one of `MEASURES`, or `"final validation accuracy"` and so on for another
        metric, `"final wikitext perplexity"` for one on a further set. The training
        loss is the mean over the last twentieth of the steps; the best loss is not the
        one at the start.

    Returns:
      Losses of diverged runs are +inf, other metrics of theirs NaN.

    Raises:
      ValueError: the records have no such measure.
    """
    if not records:
        return {}
    if measure == FINAL_TRAIN:
        last = max(1, round(_LAST * len(records[0].train_loss)))
        values = [_loss(r, np.mean(r.train_loss[-last:])) for r in records]
    elif measure == FINAL_VALID:
        values = valid_losses(records)[:, -1]
    elif measure == BEST_VALID:
        values = valid_losses(records)[:, 1:].min(axis=-1)
    else:
        metrics = {f"final {metric_name(m)}": m for m in records[0].valid}
        check_known("measure", measure, dict.fromkeys([*MEASURES, *metrics]))
        values = [r.valid[metrics[measure]][-1] for r in records]
    return {r.seed: float(x) for r, x in zip(records, values, strict=True)}


def metric_name(metric: str) -> str:
    """What a metric of the records is, in words.

    Example:
      >>> metric_name("bits_per_byte"), metric_name("perplexity/wikitext")
      ('validation bits per byte', 'wikitext perplexity')
    """
    name, _, of_set = metric.partition("/")
    return f"{of_set or 'validation'} {name.replace('_', ' ')}"


def further_metrics(record: Record) -> list[str]:
    """Metrics on sets beside the validation split; no loss that is a perplexity too.

    Example:
      >>> further_metrics(record)  # doctest: +SKIP
      ['perplexity/wikitext', 'perplexity/lambada']
    """
    further = [m.partition("/") for m in record.valid if "/" in m]
    return [
        f"{name}/{of_set}"
        for name, _, of_set in further
        if name != "loss" or f"perplexity/{of_set}" not in record.valid
    ]


def finals(records: Sequence[Record], metric: str) -> list[float]:
    """A metric at the end of each run."""
    return [float(r.valid[metric][-1]) for r in records]


def _loss(record: Record, loss: np.floating) -> float:
    return float(loss) if record.diverged_at is None else np.inf


def curves(records: Sequence[Record], measure: str = FINAL_VALID) -> Curves:
    """The losses whose end is the measure, at the evaluated steps.

    Training losses are means since the evaluation before; the first is the loss at the
    initial parameters.
    """
    if measure == FINAL_TRAIN:
        start = np.array([r.train_loss[0] for r in records], np.float64)
        steps, means = records[0].eval_steps, train_means(records)
        return Curves(steps, np.column_stack([_infinite(start), means]))
    return Curves(records[0].eval_steps, valid_losses(records))


def valid_losses(records: Sequence[Record]) -> np.ndarray:
    """Validation losses, float64[runs, points], +inf from a divergence on."""
    losses = np.array([r.valid["loss"] for r in records], np.float64)
    for row, r in zip(losses, records, strict=True):
        if r.diverged_at is not None:
            row[r.eval_steps > r.diverged_at] = np.inf
    return _infinite(losses)


def train_means(records: Sequence[Record]) -> np.ndarray:
    """Mean training losses between evaluations, float64[runs, points - 1]."""
    steps = records[0].eval_steps
    losses = _infinite(np.array([r.train_loss for r in records], np.float64))
    return np.add.reduceat(losses, steps[:-1], axis=1) / np.diff(steps)


def _infinite(losses: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(losses), losses, np.inf)
