"""Running suites: every optimizer on every task with the same seeds, into records."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import tqdm

from tasks import records as records_lib
from tasks import sharing
from tasks.checks import check_counts
from tasks.costs import UpdateTimer, state_bytes_per_parameter
from tasks.optimizers import OptimizerLike
from tasks.placement import Placement
from tasks.planning import Cell, Request, plan
from tasks.records import Record
from tasks.results import Results
from tasks.suites import Suite, get_suite, list_suites
from tasks.training import Chunk, Program

# Parameters of the seeds that are trained side by side, at most.
LARGE = 20_000_000


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
    seeds_in_parallel: int | None = None,
    devices: int = 1,
    shard_params: bool = False,
) -> Results:
    """Measures optimizers on tasks.

    Seeds are paired: the initial parameters, the batches and the noise depend on the
    seed and the step alone, never on the optimizer. The seeds of one optimizer on one
    task are trained side by side by one compiled program, those of large models one
    after another.

    Several processes may share the work: start each with the same arguments, `out_dir`
    and `resume=True`. What one of them has begun when it is killed, another begins
    anew; all of them return when everything is done.

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
      seeds_in_parallel: how many seeds are trained side by side; by default all of
        them, and one where they have more than 20 million parameters together, where
        batches are streamed from the host, and on several devices.
      devices: over how many of this process's devices a batch is spread.
      shard_params: whether parameters and state are spread over them too.

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
        seeds_in_parallel=seeds_in_parallel,
        devices=devices,
        shard_params=shard_params,
    ).run(progress)


class Share(NamedTuple):
    """What a process does at a time: seeds of a cell, side by side."""

    cell: int
    seeds: tuple[int, ...]


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
        seeds_in_parallel: int | None = None,
        devices: int = 1,
        shard_params: bool = False,
        **options: Any,
    ):
        """Takes the arguments of `evaluate`."""
        self.seeds = _seeds(seeds)
        self.directory = None if out_dir is None else pathlib.Path(out_dir)
        if (resume or overwrite) and self.directory is None:
            raise ValueError("resume and overwrite need out_dir, which is None")
        if resume and overwrite:
            raise ValueError("resume=True keeps records, overwrite=True deletes them")
        if seeds_in_parallel is not None:
            check_counts(seeds_in_parallel=seeds_in_parallel)
        self._parallel = seeds_in_parallel
        self._placement = Placement(devices, shard_params=shard_params)
        self._follow_up = _follow_up(suite_or_tasks, optimizers)
        self._again: dict[str, Any] = {
            **{"seeds": self.seeds, "out_dir": out_dir, "resume": bool(out_dir)},
            **{"seeds_in_parallel": seeds_in_parallel, "devices": devices},
            **{"shard_params": shard_params, **options},
        }
        self.cells = plan(suite_or_tasks, optimizers, seeds=self.seeds, **options)
        if self._placement.is_spread:
            for cell in self.cells:
                _check_batch(cell, self._placement)
        self._overwrite, self._resume = overwrite, resume
        held = records_lib.read(self.directory) if self.directory else []
        self.num_repeated = 0 if resume or overwrite else len(held)
        if not overwrite:
            known = self._follow_up is not None
            _refuse_mixing(
                held, self.cells, self.seeds, resume or known, self.directory
            )
        self.finished = [
            [r for r in held if resume and _belongs(r, c)] for c in self.cells
        ]

    def run(self, progress: bool = True) -> Results:
        """Runs what is missing; an interruption keeps what was finished."""
        if self.directory and self._overwrite:
            shutil.rmtree(self.directory / "records", ignore_errors=True)
        environment = records_lib.environment()
        _warn_of_other_versions(self.finished, environment)
        records: list[Record] = []
        with tqdm.tqdm(unit="step", disable=not progress, mininterval=0.5) as bar:
            bench = Bench(environment, self._placement, bar)
            shares = self._shares()
            bar.total = sum(self.cells[share.cell].steps for share in shares)
            for share in self._claims(shares, bar):
                found = run_cell(self.cells[share.cell], share.seeds, bench)
                if self.directory:
                    records_lib.add(self.directory, found)
                else:
                    records += found
        results = Results.load(self.directory) if self.directory else Results(records)
        if self._follow_up is None:
            return results
        own = [r for r in results.records if any(_belongs(r, c) for c in self.cells)]
        later = Evaluation(self._follow_up(Results(own)), **self._again)
        later._come_after(self.cells)
        found = later.run(progress)
        return found if self.directory else Results([*records, *found.records])

    def _come_after(self, others: Sequence[Cell]) -> None:
        """Puts the own cells last on their tasks, in the order of the report."""
        for i, cell in enumerate(self.cells):
            same = [c.context for c in others if c.task_name == cell.task_name]
            position = [same[0]["position"][0], len(same) + i]
            context = {**cell.context, **same[0], "position": position}
            self.cells[i] = dataclasses.replace(cell, context=context)

    def _shares(self) -> list[Share]:
        shares = []
        for i, (cell, done) in enumerate(zip(self.cells, self.finished, strict=True)):
            have = {record.seed for record in done}
            missing = [seed for seed in self.seeds if seed not in have]
            size = self._parallel or self._fitting(cell, len(missing))
            shares += [
                Share(i, tuple(missing[j : j + size]))
                for j in range(0, len(missing), size)
            ]
        return shares

    def _fitting(self, cell: Cell, seeds: int) -> int:
        large = cell.num_parameters * seeds > LARGE or self._placement.is_spread
        return 1 if large or cell.is_streamed else max(1, seeds)

    def _claims(self, shares: Sequence[Share], bar: tqdm.tqdm) -> Iterator[Share]:
        if self.directory is None:
            return iter(shares)

        def name(share: Share) -> str:
            cell = self.cells[share.cell]
            stem = records_lib.path_of(
                self.directory, cell.task_name, cell.optimizer.name
            ).stem
            return f"{stem}.{'-'.join(map(str, share.seeds))}"

        def is_done(share: Share) -> bool:
            if not self._resume:
                return False
            cell = self.cells[share.cell]
            found = records_lib.read_one(
                self.directory, cell.task_name, cell.optimizer.name
            )
            done = set(share.seeds) <= {record.seed for record in found}
            if done:
                bar.total -= cell.steps
            return done

        locks = self.directory / records_lib.LOCKS
        return sharing.claims(shares, locks, name=name, is_done=is_done)


@dataclasses.dataclass
class Bench:
    """What shares are run with, and what the next one may use again.

    Attributes:
      environment: versions and hardware.
      placement: where arrays live.
      bar: the progress bar.
      timer: of the last task.
      cell: the last one.
      program: of it.
      costs: of it.
    """

    environment: dict[str, Any]
    placement: Placement
    bar: tqdm.tqdm
    timer: UpdateTimer | None = None
    cell: Cell | None = None
    program: Program | None = None
    costs: dict[str, float] = dataclasses.field(default_factory=dict)

    def prepare(self, cell: Cell, seeds: tuple[int, ...]) -> Program:
        """The compiled program of a cell, at its start."""
        if self.cell is cell and self.program and self.program.num_seeds == len(seeds):
            self.program.restart(seeds)
            return self.program
        self.program = None  # Its arrays go before those of the next one come.
        task = cell.make_task()
        if self.timer is None or self.timer.task.name != task.name:
            self.timer = UpdateTimer(task)
        self.bar.set_postfix_str("compiling")
        transformation = cell.optimizer.build(task, cell.steps)
        program = Program(task, transformation, seeds, cell.eval_every, self.placement)
        self.cell, self.program = cell, program
        self.costs = {
            "compile_seconds": program.compile_seconds,
            "state_bytes_per_parameter": state_bytes_per_parameter(
                task, transformation
            ),
            **self.timer.measure(transformation),
        }
        return program


def run_cell(cell: Cell, seeds: tuple[int, ...], bench: Bench) -> list[Record]:
    """Trains one optimizer on one task with some seeds, side by side."""
    program = bench.prepare(cell, seeds)
    points = [*range(0, cell.steps, cell.eval_every), cell.steps]
    bench.bar.set_description(f"{cell.task_name} | {cell.optimizer.name}")
    began = time.perf_counter()
    chunks = [program.advance(0, 0)]
    for start, stop in itertools.pairwise(points):
        chunks.append(program.advance(start, stop))
        loss = np.median(chunks[-1].valid["loss"])
        bench.bar.set_postfix_str(f"valid loss {loss:.4g}", refresh=False)
        bench.bar.update(stop - start)
    costs = bench.costs | {
        "run_seconds": time.perf_counter() - began,
        "seeds_in_parallel": len(seeds),
    }
    versions = bench.environment["versions"] | cell.optimizer.package_version()
    environment = bench.environment | {"versions": versions}
    return [
        _record(cell, seed, i, points, chunks, costs, environment)
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
        task=cell.task_name,
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


def _follow_up(request: Any, optimizers: Any) -> Callable[[Results], Suite] | None:
    """From what a suite found to the suite of what comes after it, if anything does."""
    if isinstance(request, str) and request in list_suites():
        request = get_suite(request)
    if optimizers or not isinstance(request, Suite) or request.then is None:
        return None
    suite, then = request, request.then
    tasks = {entry.task_name for entry in suite.entries}

    def follow_up(results: Results) -> Suite:
        entries = tuple(e for e in then(results) if e.task_name in tasks)
        return dataclasses.replace(suite, entries=entries, then=None)

    return follow_up


def _check_batch(cell: Cell, placement: Placement) -> None:
    task = cell.make_task()
    key = jax.random.key(0)
    placement.check_batch(jax.eval_shape(task.sample, task.data["train"], key))


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
    return (record.task, record.optimizer) == (cell.task_name, cell.optimizer.name)


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
        same_task = [c for c in cells if c.task_name == record.task]
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
