"""Meta-steps one after the other, and what is done between them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from lopt import parallel
from lopt.checkpoint import Checkpoints
from lopt.interruption import Interruption
from lopt.meta_step import Carry, MetaStep
from lopt.progress import Log

# Meta-steps between two questions to other processes whether one was interrupted.
_AGREE_EVERY = 16


@dataclasses.dataclass(frozen=True)
class Loop:
    """The loop of a run.

    Attributes:
      meta_step: makes a meta-step; it is compiled.
      names: names of the tasks.
      log: where metrics go.
      checkpoints: where the carry is kept, or `None`.
      checkpoint_every: meta-steps between checkpoints.
      evaluate: what is measured of theta, or `None`.
      evaluate_every: meta-steps between evaluations; there is one at the end, too.
    """

    meta_step: MetaStep
    names: list[str]
    log: Log
    checkpoints: Checkpoints | None
    checkpoint_every: int
    evaluate: Callable[[Any], dict[str, float]] | None
    evaluate_every: int

    def run(
        self, carry: Carry, steps: range, interruption: Interruption
    ) -> tuple[int, Carry]:
        """Makes the meta-steps, or as many as there is time for until a Ctrl-C.

        Returns:
          The number of meta-steps made, and what they have come to, which is saved.
        """
        for step in steps:
            if self._interrupted(step, interruption):
                self._save(step, carry, steps)
                return step, carry
            if step % self.evaluate_every == 0:
                self._evaluate(step, carry)
            if step % self.checkpoint_every == 0:
                self._save(step, carry, steps)
            carry, metrics = self.meta_step(step, carry)
            names = [self.names[i] for i in self.meta_step.tasks(step)]
            self.log.add(step + 1, names, metrics)
        self._evaluate(steps.stop, carry)
        self._save(steps.stop, carry, steps)
        return steps.stop, carry

    def _interrupted(self, step: int, interruption: Interruption) -> bool:
        """Whether any process was; several are asked only now and then."""
        if jax.process_count() > 1 and step % _AGREE_EVERY:
            return False
        return parallel.agree(interruption.requested)

    def _evaluate(self, step: int, carry: Carry) -> None:
        if self.evaluate is not None:
            self.log.flush()
            self.log.add_evaluation(step, self.evaluate(carry.state.theta))
            self.log.resume_clock()

    def _save(self, step: int, carry: Carry, steps: range) -> None:
        self.log.flush()
        if self.checkpoints is not None and step > steps.start:
            self.checkpoints.save(step, self.meta_step.join(carry))
            self.log.resume_clock()
