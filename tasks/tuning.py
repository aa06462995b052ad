"""Tuning: the same number of trials and the same search volume for every optimizer.

What wins is the tuned track of a suite. Trials are judged on seeds that the evaluation
does not use, and a winner at the edge of its space is flagged: the best setting may lie
beyond it.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tasks.checks import check_counts
from tasks.early_stopping import stopped_runs
from tasks.evaluation import evaluate
from tasks.measures import FINAL_VALID, by_seed, valid_losses
from tasks.optimizers import OptimizerLike, resolve, resolve_all
from tasks.planning import Request
from tasks.records import Record
from tasks.results import Results
from tasks.search import Space
from tasks.suites import Entry, Suite, get_suite

SEEDS = (100, 101)


@dataclasses.dataclass(frozen=True)
class Winner:
    """The setting of an optimizer with the lowest loss on a task.

    Attributes:
      task: the task's name.
      name: the optimizer's display name.
      spec: the setting.
      loss: the mean over the seeds of the tuning.
      losses: of all trials, by spec; +inf if a seed diverged.
      at_edge: axes of the space at whose edge the setting lies.
      volume: of the space, the product over axes of the decades that they span.
      seeds: those that the trials were run with.
    """

    task: str
    name: str
    spec: str
    loss: float
    losses: Mapping[str, float]
    at_edge: tuple[str, ...]
    volume: float
    seeds: tuple[int, ...]

    @property
    def record(self) -> dict[str, Any]:
        """What `Entry.tuning` keeps."""
        return {
            "trials": len(self.losses),
            "volume": self.volume,
            "seeds": list(self.seeds),
            "at_edge": list(self.at_edge),
        }


def tune(
    suite_or_tasks: Request | Sequence[Request],
    spaces: Sequence[Space] | Mapping[str, Space],
    *,
    trials: int | None = None,
    seeds: Sequence[int] = SEEDS,
    out_dir: str | pathlib.Path | None = None,
    **options: Any,
) -> dict[str, list[Winner]]:
    """Tries every setting of every optimizer on every task.

    The loss is the final one on the validation split, or where the suite stops runs
    early, that of the weights that are restored.

    Args:
      suite_or_tasks: as for `tasks.evaluate`; the optimizers of a suite are not run.
      spaces: one for each optimizer, by display name if they are a mapping.
      trials: how many settings of each optimizer; by default the size of the grids.
      seeds: which the evaluation does not use.
      out_dir: directory of the records; an interrupted search goes on where it stopped.
      **options: others of `tasks.evaluate`, such as `steps` and `data_dir`.

    Returns:
      For each task the winners in the order of the spaces.

    Raises:
      ValueError: spaces differ in their number of trials or in volume.

    Example:
      >>> space = Space("optax:sgd({rate})", {"rate": (0.01, 0.1, 1.0)})
      >>> tune("digits-mlp", [space], steps=10)  # doctest: +SKIP
    """
    named = _named(spaces)
    trials = _equal_effort(list(named.values()), trials)
    specs = dict.fromkeys(x for space in named.values() for x in space.specs(trials))
    request = _without_optimizers(suite_or_tasks)
    options = {"resume": out_dir is not None, **options}
    results = evaluate(request, list(specs), seeds=seeds, out_dir=out_dir, **options)
    return {
        task: [
            _winner(task, name, space, trials, reached, tuple(seeds))
            for name, space in named.items()
        ]
        for task, reached in _losses(results).items()
    }


def tuned(suite: Suite, winners: Mapping[str, Sequence[Winner]]) -> Suite:
    """The suite with the winners as the optimizers of its tasks, on the tuned track.

    Args:
      suite: whose tasks were tuned on.
      winners: what `tune` returned; tasks that are not in it stay as they are.
    """

    def with_winners(entry: Entry) -> Entry:
        found = winners.get(entry.task_name)
        if not found:
            return entry
        return dataclasses.replace(
            entry,
            optimizers=tuple((w.name, w.spec) for w in found),
            track="tuned",
            tuning={w.name: w.record for w in found},
        )

    return dataclasses.replace(suite, entries=tuple(map(with_winners, suite.entries)))


def untuned(suite: Suite, optimizers: Sequence[OptimizerLike]) -> Suite:
    """The suite with the same settings on every task too, on the untuned track.

    Args:
      suite: whose tasks in standard parametrization are used.
      optimizers: as a user meets them; "(untuned)" is added to their names.

    Example:
      >>> found = untuned(get_suite("default"), ["optax:adamw(0.001)"])
      >>> found.entries[-1].track, found.entries[-1].optimizers[0].name
      ('untuned', 'adamw (untuned)')
    """
    named = tuple(
        dataclasses.replace(o, name=f"{o.name} (untuned)")
        for o in resolve_all(optimizers)
    )
    added = [
        dataclasses.replace(entry, optimizers=named, track="untuned", tuning={})
        for entry in suite.entries
        if "parametrization" not in entry.overrides
    ]
    return dataclasses.replace(suite, entries=(*suite.entries, *added))


def _named(spaces: Sequence[Space] | Mapping[str, Space]) -> dict[str, Space]:
    if isinstance(spaces, Mapping):
        return dict(spaces)
    named = {resolve(space.specs(1)[0]).name: space for space in spaces}
    if len(named) < len(spaces):
        raise ValueError("two spaces are of one optimizer; pass a mapping of names")
    return named


def _equal_effort(spaces: Sequence[Space], trials: int | None) -> int:
    """The number of trials, which is to be the same for all, as is the volume."""
    if trials is not None:
        check_counts(trials=trials)
    sizes = {space.grid_size or trials for space in spaces} | {trials} - {None}
    if None in sizes or not sizes:
        raise ValueError("trials is None; LogUniform axes need a number")
    (size, *others), volumes = (
        sorted(size for size in sizes if size),
        {s.volume for s in spaces},
    )
    if others:
        raise ValueError(f"spaces have {[size, *others]} trials; give each as many")
    if len(volumes) > 1:
        raise ValueError(
            f"spaces have volumes of {sorted(volumes)} decades; give each the same"
        )
    return size


def _without_optimizers(request: Any) -> Any:
    if isinstance(request, str):
        try:
            request = get_suite(request)
        except ValueError:
            return request
    if isinstance(request, Suite):
        entries = [
            dataclasses.replace(e, optimizers=(), target=None, track=None, tuning={})
            for e in request.entries
        ]
        once = {(e.task_name, e.steps): e for e in entries}  # of several tracks
        return dataclasses.replace(request, entries=tuple(once.values()), claims=())
    return request


def _losses(results: Results) -> dict[str, dict[str, float]]:
    """The mean loss of each trial, by task and spec."""
    cells: dict[str, dict[str, list[Record]]] = {}
    for r in results.records:
        spec = r.config["optimizer"]["spec"]
        cells.setdefault(r.task, {}).setdefault(spec, []).append(r)
    return {
        task: {spec: float(np.mean(_of_runs(runs))) for spec, runs in of.items()}
        for task, of in cells.items()
    }


def _of_runs(records: Sequence[Record]) -> list[float]:
    stopped = stopped_runs(records, valid_losses(records))
    if stopped:
        return [run.loss for run in stopped.values()]
    return [*by_seed(records, FINAL_VALID).values()]


def _winner(
    task: str,
    name: str,
    space: Space,
    trials: int,
    reached: Mapping[str, float],
    seeds: tuple[int, ...],
) -> Winner:
    settings = dict(zip(space.specs(trials), space.settings(trials), strict=True))
    losses = {spec: reached[resolve(spec).spec] for spec in settings}
    best = min(losses, key=lambda spec: losses[spec])
    return Winner(
        task,
        name,
        best,
        losses[best],
        losses,
        tuple(space.edges(settings[best])),
        space.volume,
        seeds,
    )
