"""Claims that are declared before a run and tested after it, from the records alone."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Literal

import numpy as np

from tasks import measures, statistics
from tasks.checks import check_known
from tasks.records import Record

ALPHA = 0.05
_SENTENCE = re.compile(r"(.+?) ([<>]) (.+?) in (.+?) on (.+)")


@dataclasses.dataclass(frozen=True)
class Claim:
    """That one optimizer does better than another on a task.

    Attributes:
      left: the optimizer that is claimed to be better.
      sign: `"<"` where little is good, such as a loss, `">"` where much is.
      right: the other one.
      measure: what is compared, see `measures.by_seed`.
      task: the name of the task.
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
        if (claim.sign == "<") != claim.measure.endswith("loss"):
            raise ValueError(
                f"claim {sentence!r}: losses are claimed to be less (<), other "
                "measures to be more (>)"
            )
        return claim

    def __str__(self) -> str:
        return f"{self.left} {self.sign} {self.right} in {self.measure} on {self.task}"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What the runs say about a claim.

    Attributes:
      claim: what was claimed.
      num_pairs: seeds that both optimizers were run with.
      p: of the one-sided sign-flip test that the claimed order is due to chance.
      p_opposite: the same for the opposite order.
      smallest_p: the least p that so many pairs can give.
      difference: left less right, over the seeds; `None` without pairs.
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


def outcome(claim: Claim, left: Sequence[Record], right: Sequence[Record]) -> Outcome:
    """Tests a claim on the seeds that both optimizers were run with.

    Args:
      claim: what was claimed.
      left: the records of the left optimizer on the task; may be empty.
      right: those of the right one.

    Raises:
      ValueError: the records do not have the measure.
    """
    ours, theirs = (measures.by_seed(r, claim.measure) for r in (left, right))
    seeds = sorted(ours.keys() & theirs.keys())
    sign = 1 if claim.sign == "<" else -1
    pairs = np.array([[sign * ours[s], sign * theirs[s]] for s in seeds]).reshape(-1, 2)
    pairs[np.isnan(pairs)] = np.inf  # a metric of a diverged run
    less = statistics.differences(pairs[:, 0], pairs[:, 1])
    return Outcome(
        claim,
        num_pairs=len(seeds),
        p=statistics.sign_flip_p(less),
        p_opposite=statistics.sign_flip_p(-less),
        smallest_p=0.5 ** len(seeds),
        difference=statistics.interval(sign * less) if seeds else None,
        declared=all(
            str(claim) in r.context.get("claims", ()) for r in (*left, *right)
        ),
    )


def declared(records: Sequence[Record]) -> list[Claim]:
    """The claims that any of the records was run under, each once."""
    sentences = (s for r in records for s in r.context.get("claims", ()))
    return [Claim.parse(s) for s in dict.fromkeys(sentences)]
