"""What a suite says of each optimizer over all its tasks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tasks import aggregates, grids, measures, profiles
from tasks.problems import variant_of
from tasks.results import Summary
from tasks.statistics import Interval
from tasks.suites.base import IN_DISTRIBUTION

Summaries = Mapping[str, Sequence[Summary]]
Cells = Mapping[str, Mapping[str, Summary]]  # by optimizer and task


@dataclasses.dataclass(frozen=True)
class Standing:
    """An optimizer over the tasks that it was run on.

    Attributes:
      optimizer: the display name.
      num_tasks: how many of the tasks it was run on.
      score: interquartile mean over the runs of these tasks, see `tasks.scores`.
      gap: how far below 1 the scores are on average, those above 1 counted as 1.
      improvement: the probability that a run of it scores higher than one of the
        baseline, on the tasks that both have; `None` for the baseline itself.
      steps: area under the profile of steps to target, see `tasks.profiles`.
      seconds: the same of the time to target.
      num_runs: tasks times seeds.
      num_diverged: how many of the runs diverged.
    """

    optimizer: str
    num_tasks: int
    score: Interval
    gap: Interval
    improvement: Interval | None
    steps: float
    seconds: float
    num_runs: int
    num_diverged: int


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Optimizers over the tasks on which a baseline makes progress.

    Attributes:
      track: how the settings of the optimizers were chosen, if that is said.
      distribution: whether the tasks are such as learned optimizers were meta-trained
        on, if that is said of any.
      measure: what scores and targets are about.
      tasks: names of the tasks.
      baseline: display name of the optimizer that others are compared with.
      standings: one for each optimizer, those on the most tasks first, and among them
        the highest score.
      scores: of each run, by optimizer and task.
      ratios: steps to target over those of the fastest, float[tasks] by optimizer; NaN
        for a task that it was not run on, +inf where the target was not reached.
    """

    track: str | None
    distribution: str | None
    measure: str
    tasks: tuple[str, ...]
    baseline: str | None
    standings: tuple[Standing, ...]
    scores: Mapping[str, Mapping[str, np.ndarray]]
    ratios: Mapping[str, np.ndarray]

    @property
    def title(self) -> str:
        """What sets it apart from other comparisons of the suite; may be empty."""
        track = f"{self.track} track" if self.track else None
        return ", ".join(s for s in (track, self.distribution) if s)

    @property
    def whole(self) -> list[Standing]:
        """The optimizers that were run on the most tasks, the highest score first."""
        most = self.standings[0].num_tasks
        return [s for s in self.standings if s.num_tasks == most]

    def improvement(self, optimizer: str, other: str) -> Interval | None:
        """How likely a run of one scores higher than one of the other.

        On the tasks that both were run on; `None` where there are none.
        """
        return _improvement(self.scores[optimizer], self.scores[other])


def comparisons(summaries: Summaries) -> list[Comparison]:
    """All optimizers, for each track and on tasks in and out of distribution apart.

    The baseline is on all tracks. Where there is one optimizer alone, or no task that
    has scores, nothing is compared.

    Args:
      summaries: those of `Results.summaries()`.
    """
    tracks = dict.fromkeys(s.track for of_task in summaries.values() for s in of_task)
    found = [
        _compare(of, track, distribution)
        for track in tracks
        for distribution, of in _by_distribution(summaries).items()
    ]
    return [c for c in found if len(c.standings) > 1]


def _by_distribution(summaries: Summaries) -> dict[str | None, Summaries]:
    inside = {
        task: of_task
        for task, of_task in summaries.items()
        if any(IN_DISTRIBUTION in s.tags for s in of_task)
    }
    if not inside:
        return {None: summaries}
    outside = {task: of for task, of in summaries.items() if task not in inside}
    found = {"out of distribution": outside, "in distribution": inside}
    return {name: of for name, of in found.items() if of}


def _compare(
    summaries: Summaries, track: str | None, distribution: str | None
) -> Comparison:
    cells: dict[str, dict[str, Summary]] = {}
    for task, of_task in summaries.items():
        for s in grids.split(of_task)[1]:
            asked = s.track == track or s.is_baseline
            if asked and s.scores is not None and variant_of(s.optimizer)[1] == 1:
                cells.setdefault(s.optimizer, {})[task] = s
    tasks = [t for t in summaries if any(t in of for of in cells.values())]
    scores = {
        o: {t: s.scores for t, s in of.items() if s.scores is not None}
        for o, of in cells.items()
    }
    named = [o for o, of in cells.items() if any(s.is_baseline for s in of.values())]
    baseline = max(named, key=lambda o: len(cells[o]), default=None)
    steps = _ratios(cells, tasks, lambda s: 1.0)
    seconds = _ratios(cells, tasks, _seconds_per_step)
    first = next(s for of_task in summaries.values() for s in of_task)
    standings = [
        Standing(
            optimizer,
            num_tasks=len(of),
            score=aggregates.interquartile_mean([*scores[optimizer].values()]),
            gap=aggregates.optimality_gap([*scores[optimizer].values()]),
            improvement=None
            if baseline is None or baseline == optimizer
            else _improvement(scores[optimizer], scores[baseline]),
            steps=profiles.integrated(steps[optimizer]),
            seconds=profiles.integrated(seconds[optimizer]),
            num_runs=sum(len(s.records) for s in of.values()),
            num_diverged=sum(s.num_diverged for s in of.values()),
        )
        for optimizer, of in cells.items()
    ]
    standings.sort(key=lambda s: (-s.num_tasks, -s.score.estimate))
    return Comparison(
        track=track,
        distribution=distribution,
        measure=first.records[0].context.get("measure", measures.FINAL_VALID),
        tasks=tuple(tasks),
        baseline=baseline,
        standings=tuple(standings),
        scores=scores,
        ratios=steps,
    )


def _improvement(ours: Mapping, theirs: Mapping) -> Interval | None:
    common = [task for task in ours if task in theirs]
    if not common:
        return None
    return aggregates.probability_of_improvement(
        [ours[t] for t in common], [theirs[t] for t in common]
    )


def _ratios(
    cells: Cells, tasks: Sequence[str], per_step: Callable[[Summary], float]
) -> dict[str, np.ndarray]:
    """Time to target over that of the fastest, float[tasks] by optimizer."""

    def time(summary: Summary | None) -> float:
        if summary is None or summary.steps_to_target is None:
            return np.nan
        return summary.steps_to_target.estimate * per_step(summary)

    times = [[time(of.get(task)) for task in tasks] for of in cells.values()]
    return dict(zip(cells, profiles.time_ratios(times), strict=True)) if cells else {}


def _seconds_per_step(summary: Summary) -> float:
    """Of one seed, evaluations included."""
    seeds = summary.cost("seeds_in_parallel")
    return summary.cost("run_seconds") / summary.steps / seeds
