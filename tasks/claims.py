"""Claims that are declared before a run and tested after it, from the records alone."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from tasks import measures, statistics
from tasks.checks import check_known
from tasks.records import Record

if TYPE_CHECKING:
    from tasks.results import Summary

ALPHA = 0.05
ALL_TASKS, SCORE = "all tasks", "score"
_LITTLE_IS_GOOD = ("loss", "perplexity", "bits per byte")
_SENTENCE = re.compile(r"(.+?) ([<>]) (.+?) in (.+?) on (.+)")


@dataclasses.dataclass(frozen=True)
class Claim:
    """That one optimizer does better than another on a task.

    Attributes:
      left: the optimizer that is claimed to be better.
      sign: `"<"` where little is good, such as a loss, `">"` where much is.
      right: the other one.
      measure: what is compared: `"score"`, see `tasks.scores`, or a measure that
        `measures.by_seed` knows.
      task: the name of the task, or `"all tasks"` of a score.
    """

    left: str
    sign: Literal["<", ">"]
    right: str
    measure: str
    task: str

    @classmethod
    def parse(cls, sentence: str) -> Claim:
        """Reads `"LEFT < RIGHT in MEASURE on TASK"`; `str` gives it back.

        Raises:
          ValueError: it is no such sentence.

        Example:
          >>> Claim.parse("mada < adamw in final validation loss on digits-mlp").left
          'mada'
        """
        found = _SENTENCE.fullmatch(sentence)
        if found is None:
            raise ValueError(
                f"claim {sentence!r} is not 'LEFT < RIGHT in MEASURE on TASK', such as "
                "'mada < adamw in final validation loss on digits-mlp'"
            )
        left, sign, right, measure, task = found.groups()
        claim = cls(left, "<" if sign == "<" else ">", right, measure, task)
        if claim.measure.endswith("loss"):
            check_known("measure", claim.measure, measures.MEASURES)
        if (claim.sign == "<") != claim.measure.endswith(_LITTLE_IS_GOOD):
            raise ValueError(
                f"claim {sentence!r}: losses and perplexities are claimed to be less "
                "(<), other measures to be more (>)"
            )
        if claim.task == ALL_TASKS and claim.measure != SCORE:
            raise ValueError(
                f"claim {sentence!r}: over {ALL_TASKS} only a {SCORE!r} can be compared"
            )
        return claim

    def __str__(self) -> str:
        return f"{self.left} {self.sign} {self.right} in {self.measure} on {self.task}"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What the runs say about a claim.

    Attributes:
      claim: what was claimed.
      num_pairs: runs that both optimizers made, of a seed on a task each.
      p: of the one-sided sign-flip test that the claimed order is due to chance.
      p_opposite: the same for the opposite order.
      smallest_p: the least p that so many pairs can give.
      difference: left less right, over the pairs; `None` without pairs.
      declared: whether every run that it is about knew the claim when it began.
    """

    claim: Claim
    num_pairs: int
    p: float
    p_opposite: float
    smallest_p: float
    difference: statistics.Interval | None
    declared: bool

    @property
    def verdict(self) -> Literal["held", "not held", "undecided"]:
        """Held, not held where the opposite is significant, undecided in between."""
        if self.p <= ALPHA:
            return "held"
        return "not held" if self.p_opposite <= ALPHA else "undecided"


def outcome(claim: Claim, left: Sequence[Summary], right: Sequence[Summary]) -> Outcome:
    """Tests a claim on the seeds that both optimizers were run with.

    Args:
      claim: what was claimed.
      left: the left optimizer on each of the tasks; may be empty.
      right: the right one.

    Raises:
      ValueError: the records do not have the measure.
    """
    ours, theirs = _values(claim.measure, left), _values(claim.measure, right)
    runs = sorted(ours.keys() & theirs.keys())
    sign = 1 if claim.sign == "<" else -1
    pairs = np.array([[sign * ours[k], sign * theirs[k]] for k in runs]).reshape(-1, 2)
    pairs[np.isnan(pairs)] = np.inf  # a metric of a diverged run
    less = statistics.differences(pairs[:, 0], pairs[:, 1])
    return Outcome(
        claim,
        num_pairs=len(runs),
        p=statistics.sign_flip_p(less),
        p_opposite=statistics.sign_flip_p(-less),
        smallest_p=0.5 ** len(runs),
        difference=statistics.interval(sign * less) if runs else None,
        declared=all(
            str(claim) in r.context.get("claims", ())
            for s in (*left, *right)
            for r in s.records
        ),
    )


def _values(measure: str, found: Sequence[Summary]) -> dict[tuple[str, int], float]:
    """The measure of each run by task and seed; tasks without scores are left out."""
    if measure == SCORE:
        return {
            (s.task, r.seed): float(score)
            for s in found
            if s.scores is not None
            for r, score in zip(s.records, s.scores, strict=True)
        }
    return {
        (s.task, seed): value
        for s in found
        for seed, value in measures.by_seed(s.records, measure).items()
    }


def declared(records: Sequence[Record]) -> list[Claim]:
    """The claims that any of the records was run under, each once."""
    sentences = (s for r in records for s in r.context.get("claims", ()))
    return [Claim.parse(s) for s in dict.fromkeys(sentences)]
