"""How long inner training runs last, and which steps of a truncation restart them.

A run of length L trains for L steps; the step after that re-initialises it and trains
nothing. A truncation is a fixed number of steps that all runs take together, wherever
each of them is in its own run.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from lopt.checks import check_counts


class Schedule(Protocol):
    """The distribution of the lengths of runs.

    Attributes:
      shortest: a lower bound of the lengths.
      longest: an upper bound of the lengths.
      stagger: first runs are shortened by 0 to `stagger - 1` steps, so that particles
        are at different stages from the start.
    """

    @property
    def shortest(self) -> int: ...  # noqa: D102

    @property
    def longest(self) -> int: ...  # noqa: D102

    @property
    def stagger(self) -> int: ...  # noqa: D102

    def sample(self, key: jax.Array) -> jax.Array:
        """Draws a length, an int32 scalar."""
        ...


@dataclasses.dataclass(frozen=True)
class LogUniform:
    """Lengths `floor(exp(U(ln shortest, ln longest)))`.

    Attributes:
      shortest: steps of the shortest run.
      longest: steps of the longest run.
      stagger: first runs are shortened by 0 to `stagger - 1` steps.

    Raises:
      ValueError: `shortest` < 1, `longest` < `shortest`, or `stagger` < 0.

    Example:
      >>> schedule = LogUniform(100, 1000, stagger=50)
      >>> lengths = jax.vmap(schedule.sample)(jax.random.split(jax.random.key(0), 1000))
      >>> int(jnp.median(lengths)) in range(290, 340)
      True
    """

    shortest: int = 100
    longest: int = 1000
    stagger: int = 50

    def __post_init__(self):
        check_counts(shortest=self.shortest, longest=self.longest)
        check_counts(minimum=0, stagger=self.stagger)
        if self.shortest > self.longest:
            raise ValueError(
                f"longest must be at least shortest={self.shortest}, got {self.longest}"
            )

    def sample(self, key: jax.Array) -> jax.Array:
        """Draws a length, an int32 scalar."""
        low, high = math.log(self.shortest), math.log(self.longest)
        length = jnp.exp(jax.random.uniform(key, minval=low, maxval=high))
        # exp(log(n)) may fall just below n.
        return jnp.clip(length.astype(jnp.int32), self.shortest, self.longest)


@dataclasses.dataclass(frozen=True)
class Constant:
    """Every run has the same length.

    Attributes:
      length: steps of every run.
      stagger: first runs are shortened by 0 to `stagger - 1` steps.

    Raises:
      ValueError: `length` < 1 or `stagger` < 0.

    Example:
      >>> int(Constant(20).sample(jax.random.key(0)))
      20
    """

    length: int
    stagger: int = 0

    def __post_init__(self):
        check_counts(length=self.length)
        check_counts(minimum=0, stagger=self.stagger)

    @property
    def shortest(self) -> int:
        """The length."""
        return self.length

    @property
    def longest(self) -> int:
        """The length."""
        return self.length

    def sample(self, key: jax.Array) -> jax.Array:
        """The length, an int32 scalar."""
        del key
        return jnp.int32(self.length)


def first_length(schedule: Schedule, key: jax.Array) -> jax.Array:
    """Draws the length of a particle's first run, which is staggered.

    Example:
      >>> int(first_length(Constant(20, stagger=1), jax.random.key(0)))
      20
    """
    length_key, stagger_key = jax.random.split(key)
    offset = jax.random.randint(stagger_key, (), 0, max(schedule.stagger, 1))
    return jnp.maximum(schedule.sample(length_key) - offset, 1)


class Ticks(NamedTuple):
    """What each step of a truncation does in a particle's run.

    Attributes:
      restart: bool; the step re-initialises the run and trains nothing.
      done: bool; the step is the last one of a run.
      episode: int32; how many restarts there were, up to and including this step.
    """

    restart: jax.Array
    done: jax.Array
    episode: jax.Array


def tick(
    schedule: Schedule, step: jax.Array, length: jax.Array, keys: jax.Array
) -> tuple[jax.Array, jax.Array, Ticks]:
    """Advances the clock of one particle by a truncation.

    When a run restarts depends on nothing that it computes, so it is known beforehand.

    Args:
      schedule: from which a run that restarts draws its length.
      step: int32; steps that the run has made.
      length: int32; steps that it will make.
      keys: random keys, one per step of the truncation.

    Returns:
      The step and the length after the truncation, and the ticks, each (len(keys),).

    Example:
      >>> keys = jax.random.split(jax.random.key(0), 4)
      >>> step, length, ticks = tick(Constant(2), jnp.int32(0), jnp.int32(2), keys)
      >>> ticks.restart.tolist(), ticks.done.tolist(), int(step)
      ([False, False, True, False], [False, True, False, False], 1)
    """

    def advance(clock, fresh_length):
        step, length = clock
        restart = step >= length
        step = jnp.where(restart, 0, step + 1)
        length = jnp.where(restart, fresh_length, length)
        return (step, length), (restart, step >= length)

    lengths = jax.vmap(schedule.sample)(keys)
    (step, length), (restart, done) = jax.lax.scan(advance, (step, length), lengths)
    return step, length, Ticks(restart, done, jnp.cumsum(restart, dtype=jnp.int32))


def max_restarts(schedule: Schedule, truncation_length: int) -> int:
    """How often a run can restart within a truncation.

    Example:
      >>> max_restarts(LogUniform(100, 1000), 50), max_restarts(Constant(2), 7)
      (1, 3)
    """
    return -(-truncation_length // (schedule.shortest + 1))
