"""Running suites: every optimizer on every task with the same seeds, into records."""

from __future__ import annotations

import itertools
import pathlib
import shutil
import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import tqdm

from tasks import records as records_lib
from tasks.checks import check_counts
from tasks.costs import UpdateTimer, state_bytes_per_parameter
from tasks.optimizers import OptimizerLike
from tasks.planning import Cell, Request, plan
from tasks.records import Record
from tasks.results import Results
from tasks.training import Chunk, Program


def evaluate(
    suite_or_tasks: Request | Sequence[Request],
    optimizers: OptimizerLike | Sequence[OptimizerLike] | None = None,
    *,
    seeds: int | Sequence[int] = 5,
    steps: int | None = None,
    eval_every: int | None = None,
    baseline: str | None = None,
    out_dir: str | pathlib.Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    data_dir: str | pathlib.Path | None = None,
) -> Results:
    """Measures optimizers on tasks.

    Seeds are paired: the initial parameters, the batches and the noise depend on the
    seed and the step alone, never on the optimizer. The seeds of one optimizer on one
    task are trained side by side by one compiled program.

    Args:
      suite_or_tasks: a suite or its name, or one or several tasks or their names.
      optimizers: a list of specs (`"optax:adamw(learning_rate=1e-3)"`), gradient
        transformations or pairs `(name, spec, transformation or factory)`; by default
        those that the suite has for each task.
      seeds: how many (0, 1, ...), or which.
      steps: training steps; by default what the suite says, and 1000 without one.
      eval_every: steps between evaluations on the validation split; by default a
        twenty-fifth of the steps.
      baseline: display name of the optimizer that others are compared with; by default
        the suite's, else AdamW where there is one, else the first.
      out_dir: where records go, one file per task and optimizer as soon as its seeds
        are done; `None` keeps them in memory.
      resume: keep the records in `out_dir` and run what is missing.
      overwrite: delete the records in `out_dir` first.
      progress: show a progress bar on stderr.
      data_dir: where tasks look for data that is not embedded.

    Returns:
      The results: everything in `out_dir`, or what was just run without one.

    Raises:
      ValueError: for anything wrong with the arguments, and if `out_dir` holds records
        of another configuration. Raised before anything is compiled.
      FileNotFoundError: if a task's data is not there.

    Example:
      >>> results = evaluate(
      ...     "digits-mlp", ["optax:sgd(0.1)"], seeds=2, steps=10, progress=False
      ... )  # doctest: +SKIP
      >>> print(results.table())  # doctest: +SKIP
    """
    return Evaluation(
        suite_or_tasks,
        optimizers,
        seeds=seeds,
        steps=steps,
        eval_every=eval_every,
        baseline=baseline,
        out_dir=out_dir,
        resume=resume,
        overwrite=overwrite,
        data_dir=data_dir,
    ).run(progress)


class Evaluation:
    """A checked request: making one finds every mistake, running one computes.

    Attributes:
      cells: an optimizer on a task each.
      seeds: the seeds that each cell is to have.
      directory: where records go, or `None`.
      finished: records that are kept, per cell.
      num_repeated: how many records will be computed again and replaced.
    """

    def __init__(
        self,
        suite_or_tasks: Request | Sequence[Request],
        optimizers: OptimizerLike | Sequence[OptimizerLike] | None = None,
        *,
        seeds: int | Sequence[int] = 5,
        out_dir: str | pathlib.Path | None = None,
        resume: bool = False,
        overwrite: bool = False,
        **options: Any,
    ):
        """Takes the arguments of `evaluate`."""
        self.seeds = _seeds(seeds)
        self.directory = None if out_dir is None else pathlib.Path(out_dir)
        if (resume or overwrite) and self.directory is None:
            raise ValueError("resume and overwrite need out_dir, which is None")
        if resume and overwrite:
            raise ValueError("resume=True keeps records, overwrite=True deletes them")
        self.cells = plan(suite_or_tasks, optimizers, seeds=self.seeds, **options)
        self._overwrite = overwrite
        held = records_lib.read(self.directory) if self.directory else []
        self.num_repeated = 0 if resume or overwrite else len(held)
        if not overwrite:
            _refuse_mixing(held, self.cells, self.seeds, resume, self.directory)
        self.finished = [
            [r for r in held if resume and _belongs(r, c)] for c in self.cells
        ]

    def run(self, progress: bool = True) -> Results:
        """Runs what is missing; an interruption keeps every cell that was finished."""
        if self.directory and self._overwrite:
            shutil.rmtree(self.directory / "records", ignore_errors=True)
        environment = records_lib.environment()
        _warn_of_other_versions(self.finished, environment)
        missing = [self._missing(done) for done in self.finished]
        total = sum(c.steps for c, m in zip(self.cells, missing, strict=True) if m)
        records: list[Record] = []
        timer = None
        with tqdm.tqdm(
            total=total, unit="step", disable=not progress, mininterval=0.5
        ) as bar:
            for cell, done, seeds in zip(
                self.cells, self.finished, missing, strict=True
            ):
                if seeds:
                    bar.set_description(f"{cell.task.name} | {cell.optimizer.name}")
                    if timer is None or timer.task is not cell.task:
                        timer = UpdateTimer(cell.task)
                    done = done + run_cell(cell, seeds, timer, environment, bar)
                    if self.directory:
                        records_lib.write(self.directory, done)
                records += done
        return Results.load(self.directory) if self.directory else Results(records)

    def _missing(self, done: Sequence[Record]) -> tuple[int, ...]:
        have = {record.seed for record in done}
        return tuple(seed for seed in self.seeds if seed not in have)


def run_cell(
    cell: Cell,
    seeds: tuple[int, ...],
    timer: UpdateTimer,
    environment: dict[str, Any],
    bar: tqdm.tqdm,
) -> list[Record]:
    """Trains one optimizer on one task with some seeds, side by side."""
    transformation = cell.optimizer.build(cell.task, cell.steps)
    bar.set_postfix_str("compiling")
    program = Program(cell.task, transformation, seeds, cell.eval_every)
    points = [*range(0, cell.steps, cell.eval_every), cell.steps]
    began = time.perf_counter()
    chunks = [program.advance(0, 0)]
    for start, stop in itertools.pairwise(points):
        chunks.append(program.advance(start, stop))
        loss = np.median(chunks[-1].valid["loss"])
        bar.set_postfix_str(f"valid loss {loss:.4g}", refresh=False)
        bar.update(stop - start)
    costs = {
        "compile_seconds": program.compile_seconds,
        "run_seconds": time.perf_counter() - began,
        "seeds_in_parallel": len(seeds),
        "state_bytes_per_parameter": state_bytes_per_parameter(
            cell.task, transformation
        ),
        **timer.measure(transformation),
    }
    versions = environment["versions"] | cell.optimizer.package_version()
    return [
        _record(
            cell, seed, i, points, chunks, costs, environment | {"versions": versions}
        )
        for i, seed in enumerate(seeds)
    ]


def _record(
    cell: Cell,
    seed: int,
    i: int,
    points: list[int],
    chunks: list[Chunk],
    costs: dict[str, float],
    environment: dict[str, Any],
) -> Record:
    eval_steps = np.array(points)
    train_loss = np.concatenate([c.train_loss[i] for c in chunks[1:]])[: cell.steps]
    valid = _curves([c.valid for c in chunks], i)
    return Record(
        task=cell.task.name,
        optimizer=cell.optimizer.name,
        seed=seed,
        config=cell.config,
        context=cell.context,
        environment=environment,
        train_loss=train_loss,
        eval_steps=eval_steps,
        valid=valid,
        hyperparams=_curves([c.hyperparams for c in chunks], i),
        costs=costs,
        diverged_at=records_lib.first_divergence(train_loss, eval_steps, valid["loss"]),
    )


def _curves(points: list[dict[str, Any]], seed_index: int) -> dict[str, np.ndarray]:
    return {
        name: np.array([p[name][seed_index] for p in points], np.float32)
        for name in points[0]
    }


def _seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    if isinstance(seeds, int):
        check_counts(seeds=seeds)
        return tuple(range(seeds))
    chosen = tuple(seeds)
    valid = all(isinstance(seed, int) and seed >= 0 for seed in chosen)
    if not chosen or not valid or len(set(chosen)) != len(chosen):
        raise ValueError(
            f"seeds are {chosen}; allowed are a number of seeds or distinct seeds >= 0"
        )
    return chosen


def _belongs(record: Record, cell: Cell) -> bool:
    return (record.task, record.optimizer) == (cell.task.name, cell.optimizer.name)


def _refuse_mixing(
    held: Sequence[Record],
    cells: Sequence[Cell],
    seeds: Sequence[int],
    resume: bool,
    directory: pathlib.Path | None,
) -> None:
    """Raises if records would be lost, or mixed with others that do not compare."""
    ways_out = "choose another out_dir, or pass overwrite to delete them"
    where = f"{directory} holds records of"
    for record in held:
        same_task = [c for c in cells if c.task.name == record.task]
        same_cell = [c for c in same_task if _belongs(record, c)]
        if not resume and not (same_cell and record.seed in seeds):
            raise ValueError(
                f"{where} {record.optimizer!r} on {record.task!r} with seed "
                f"{record.seed}, which this run would not repeat: pass resume to add "
                f"to them, {ways_out}"
            )
        ignored = () if same_cell else ("optimizer",)
        for cell in same_cell or same_task[:1]:
            changed = differences(record.config, cell.config, ignored)
            if changed:
                raise ValueError(
                    f"{where} {record.optimizer!r} on {record.task!r} with another "
                    f"configuration ({changed}): {ways_out}"
                )


def differences(old: Any, new: Any, ignored: Sequence[str] = ()) -> str:
    """What changed between two configurations, as `key: old -> new, ...`.

    Example:
      >>> differences({"steps": 10, "task": "a"}, {"steps": 20, "task": "a"})
      'steps: 10 -> 20'
    """
    old, new = _flat(records_lib.as_json(old)), _flat(records_lib.as_json(new))
    return ", ".join(
        f"{key}: {old.get(key)!r} -> {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and key.split(".")[0] not in ignored
    )


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {
        path: leaf
        for key, value in tree.items()
        for path, leaf in _flat(value, f"{prefix}.{key}" if prefix else key).items()
    }


def _warn_of_other_versions(
    finished: Sequence[Sequence[Record]], environment: dict[str, Any]
) -> None:
    for record in (r for done in finished for r in done):
        changed = differences(
            {k: record.environment["versions"].get(k) for k in environment["versions"]}
            | {"hardware": record.environment["hardware"]},
            environment["versions"] | {"hardware": environment["hardware"]},
        )
        if changed:
            warnings.warn(
                f"resuming records that were made elsewhere ({changed})", stacklevel=4
            )
            return
