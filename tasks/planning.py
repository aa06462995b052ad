"""From what a user asks for to a list of cells that are known to run.

Everything that can be wrong in a request is found here, before anything compiles.
"""

from __future__ import annotations

import dataclasses
import pathlib
import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax

from tasks import optimizers as optimizers_lib
from tasks import registry
from tasks.base import Task
from tasks.checks import check_counts, check_known
from tasks.costs import num_parameters
from tasks.measures import FINAL_VALID
from tasks.optimizers import Optimizer, OptimizerLike
from tasks.suites import Entry, Suite, get_suite, list_suites

EVALUATIONS = 25
# Bytes of data of tasks that wait for their turn.
KEPT = 2 * 2**30
Request = str | Task | Entry | Suite


@dataclasses.dataclass(frozen=True)
class Cell:
    """An optimizer on a task.

    Attributes:
      task_name: the task's name.
      make_task: gives the task, built anew where it has been dropped since.
      optimizer: the optimizer.
      steps: number of training steps.
      eval_every: steps between two evaluations on the validation split.
      config: what the curves depend on; its hash decides whether a record is reused.
      context: what the curves do not depend on, see `records.Record`.
      num_parameters: of the model.
      is_streamed: whether training batches come from the host.
    """

    task_name: str
    make_task: Callable[[], Task]
    optimizer: Optimizer
    steps: int
    eval_every: int
    config: Mapping[str, Any]
    context: Mapping[str, Any]
    num_parameters: int
    is_streamed: bool


class _Tasks:
    """Tasks by the number of their entry, of which the last used ones are kept."""

    def __init__(
        self, entries: Sequence[Entry], data_dir: str | pathlib.Path | None = None
    ):
        self._entries, self._data_dir = entries, data_dir
        self._held: dict[Any, Task] = {}

    def get(self, number: int, name: str | None = None) -> Task:
        entry = self._entries[number]
        # Entries that differ in their optimizers alone share a task.
        named = isinstance(entry.task, str)
        key = (entry.task, repr(entry.overrides)) if named else number
        task = self._held.pop(key, None) or _task(entry, self._data_dir)
        self._held[key] = task
        while len(self._held) > 1 and sum(map(_bytes, self._held.values())) > KEPT:
            del self._held[next(iter(self._held))]
        return dataclasses.replace(task, name=name or task.name)


def _bytes(task: Task) -> int:
    return sum(x.nbytes for x in jax.tree.leaves(task.data) if hasattr(x, "nbytes"))


def plan(
    suite_or_tasks: Request | Sequence[Request],
    optimizers: OptimizerLike | Sequence[OptimizerLike] | None = None,
    *,
    seeds: Sequence[int] = (0,),
    steps: int | None = None,
    eval_every: int | None = None,
    baseline: str | None = None,
    data_dir: str | pathlib.Path | None = None,
) -> list[Cell]:
    """The cells of a request to `evaluate`, each checked by an abstract update.

    Raises:
      ValueError: for an unknown suite, task or option, a spec that does not fit, an
        optimizer that does not run on a task, or a number out of range.
      FileNotFoundError: if a task's data is not there.
    """
    for name, count in (("steps", steps), ("eval_every", eval_every)):
        if count is not None:
            check_counts(**{name: count})
    options = {"steps": steps, "eval_every": eval_every, "baseline": baseline}
    options["data_dir"] = "DATA_DIR" if data_dir is not None else None
    suite, entries = _entries(suite_or_tasks)
    everywhere = _as_list(optimizers)
    command = _command(suite, entries, everywhere, seeds, options)
    if suite:
        entries = _without_repetitions(entries, steps, by_track=not everywhere)
    tasks = _Tasks(entries, data_dir)
    cells: list[Cell] = []
    for i, entry in enumerate(entries):
        length = steps or entry.steps
        task = tasks.get(i)
        name = _distinct(task.name, length, entry.track, cells)
        resolved = optimizers_lib.resolve_all(_optimizers(entry, everywhere, suite))
        taken = {c.optimizer.name for c in cells if c.task_name == name}
        for o in resolved:
            if o.name in taken:
                raise ValueError(
                    f"{o.name!r} is on both tracks of task {name!r}; give each a "
                    "name of its own with a pair (name, optimizer)"
                )
        context = {
            "suite": suite.name if suite else None,
            "description": suite.description if suite else None,
            "baseline": _baseline(baseline, suite, [o.name for o in resolved]),
            "suite_baseline": baseline or (suite.baseline if suite else None),
            "target": entry.target,
            "early_stopping": _early_stopping(entry, suite),
            "tags": list(entry.tags),
            "command": command,
            **_protocol(suite),
            **({} if everywhere else _tuning(entry, [o.name for o in resolved], seeds)),
        }
        for further in task.also_evaluated:
            check_known("set in also_evaluated", further, task.data)
        every = eval_every or entry.eval_every or max(1, length // EVALUATIONS)
        config = {
            "task": name,
            "task_metadata": dict(task.metadata),
            "batch": _batch_shapes(task),
        }
        params, _ = jax.eval_shape(task.init, jax.random.key(0))
        for j, optimizer in enumerate(resolved):
            optimizers_lib.check(optimizer, task, length)
            cells.append(
                Cell(
                    name,
                    partial(tasks.get, i, name),
                    optimizer,
                    length,
                    every,
                    config
                    | {"optimizer": optimizer.config()}
                    | {"steps": length, "eval_every": every},
                    context | {"position": [i, j]},
                    num_parameters(params),
                    task.stream is not None,
                )
            )
    return cells


def _distinct(name: str, steps: int, track: str | None, cells: list[Cell]) -> str:
    """The task's name, with its length where it was given with another one.

    Two entries may share a task only where they are of different tracks.
    """
    same = [c for c in cells if c.task_name == name]
    if same and same[0].steps != steps:
        name = f"{name} [{steps} steps]"
        same = [c for c in cells if c.task_name == name]
    if any(c.context.get("track") == track for c in same):
        raise ValueError(f"two tasks have the name {name!r}; records need one")
    return name


def _as_list(optimizers) -> list[OptimizerLike]:
    """Several optimizers, where one alone and none are allowed too."""
    if optimizers is None:
        return []
    if isinstance(optimizers, list):
        return optimizers
    specs = isinstance(optimizers, tuple) and all(
        isinstance(o, str) and ":" in o for o in optimizers
    )
    return list(optimizers) if specs else [optimizers]


def _entries(request) -> tuple[Suite | None, tuple[Entry, ...]]:
    if isinstance(request, str) and request in list_suites():
        request = get_suite(request)
    if isinstance(request, Suite):
        return request, request.entries
    several = request if isinstance(request, list | tuple) else [request]
    if not several:
        raise ValueError("suite_or_tasks is empty; name a suite or at least one task")
    return None, tuple(r if isinstance(r, Entry) else Entry(task=r) for r in several)


def _without_repetitions(
    entries: Sequence[Entry], steps: int | None, *, by_track: bool
) -> tuple[Entry, ...]:
    """Each task once, where entries become the same by what a user says.

    All lengths are then one, or the optimizers are the same on both tracks.
    """
    if steps is None and by_track:
        return tuple(entries)
    found: dict[Any, Entry] = {}
    for e in entries:
        track = e.track if by_track else None
        found.setdefault((e.task_name, steps or e.steps, track), e)
    return tuple(found.values())


def _task(entry: Entry, data_dir: str | pathlib.Path | None) -> Task:
    if isinstance(entry.task, Task):
        return entry.task
    if not isinstance(entry.task, str):
        raise ValueError(
            f"suite_or_tasks holds a {type(entry.task).__name__}; allowed are names of "
            "suites and tasks, Task, Entry and Suite"
        )
    name, given = registry.parse(entry.task)
    reads = data_dir is not None and registry.takes(name, "data_dir")
    options = {"data_dir": data_dir} if reads else {}
    return registry.get(name, **{**options, **entry.overrides, **given})


def _optimizers(
    entry: Entry, optimizers: Sequence[OptimizerLike], suite: Suite | None
) -> Sequence[OptimizerLike]:
    chosen = optimizers or entry.optimizers
    if not chosen:
        where = (
            f"suite {suite.name!r} has none tuned for" if suite else "none given for"
        )
        raise ValueError(
            f"optimizers: {where} task {entry.task_name!r}; name at least one, such as "
            f"{optimizers_lib.EXAMPLE!r}"
        )
    return chosen


def _baseline(asked: str | None, suite: Suite | None, names: list[str]) -> str:
    if asked is not None:
        check_known("baseline", asked, names)
        return asked
    preferred = [n for n in names if suite and n == suite.baseline]
    return (preferred + [n for n in names if n.startswith("adamw")] + names)[0]


def _early_stopping(entry: Entry, suite: Suite | None) -> dict[str, Any] | None:
    rule = entry.early_stopping or (suite.early_stopping if suite else None)
    return None if rule is None else dataclasses.asdict(rule)


def _protocol(suite: Suite | None) -> dict[str, Any]:
    """What the report judges by, kept in the records from before the run."""
    return {
        "baselines": list(suite.baselines) if suite else [],
        "measure": suite.measure if suite else FINAL_VALID,
        "claims": list(suite.claims) if suite else [],
    }


def _tuning(entry: Entry, names: list[str], seeds: Sequence[int]) -> dict[str, Any]:
    """How the entry's own optimizers were tuned, which must be on other seeds."""
    for name, found in entry.tuning.items():
        check_known("tuned optimizer", name, names)
        if set(seeds) & set(found.get("seeds", ())):
            raise ValueError(
                f"seeds {list(seeds)} overlap those that {name!r} was tuned on, "
                f"{list(found['seeds'])}; evaluate on others"
            )
    tuning = {name: dict(found) for name, found in entry.tuning.items()}
    return {"track": entry.track, "tuning": tuning}


def _batch_shapes(task: Task) -> dict[str, str]:
    batch = jax.eval_shape(task.sample, task.data["train"], jax.random.key(0))
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): str(
            jax.typeof(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))
        )
        for path, leaf in jax.tree_util.tree_leaves_with_path(batch)
    }


def _command(
    suite: Suite | None,
    entries: Sequence[Entry],
    optimizers: Sequence[OptimizerLike],
    seeds: Sequence[int],
    options: Mapping[str, Any],
) -> str | None:
    """The command line that repeats a request, if a command line can say it."""
    registered = (
        get_suite(suite.name) if suite and suite.name in list_suites() else None
    )
    tuned = registered.entries if registered else ()
    known = {e.task_name for e in tuned}
    lengths = {options["steps"] or e.steps for e in entries}
    sayable = (
        all(isinstance(e.task, str) for e in entries)
        and all(isinstance(o, str) for o in optimizers)
        and all(
            e in tuned if e.task_name in known else e == Entry(e.task, steps=e.steps)
            for e in entries
        )
        and (registered is not None or len(lengths) == 1)
        and list(seeds) == list(range(len(seeds)))
    )
    if not sayable:
        return None
    words = ["python", "-m", "tasks", "evaluate"]
    words += [registered.name] if registered else []
    if tuned != entries:
        names = dict.fromkeys(e.task_name for e in entries)
        words += [w for name in names for w in ("--task", name)]
    words += [w for o in optimizers for w in ("--optimizer", str(o))]
    if registered is None:
        options = {**options, "steps": lengths.pop()}
    for name, value in {"seeds": len(seeds), **options}.items():
        if value is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)
