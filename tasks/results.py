"""What an evaluation found, computed from its records alone."""

from __future__ import annotations

import collections
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tasks import claims, early_stopping, measures, problems, scores, statistics
from tasks import records as records_lib
from tasks.claims import Claim, Outcome
from tasks.early_stopping import Stopping
from tasks.records import Record
from tasks.statistics import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tasks.comparison import Comparison


@dataclasses.dataclass(frozen=True)
class Summary:
    """An optimizer on a task, over its seeds. Losses are on the validation split.

    Attributes:
      task: the task's name, without its parametrization.
      optimizer: the optimizer's display name, with the parametrization where there are
        several.
      records: one per seed.
      final: the loss after the last step, +inf for a diverged run.
      best: the lowest loss at any evaluation after the start, before a divergence too.
      target: the loss that `steps_to_target` is about, `None` without a baseline.
      steps_to_target: the first evaluated step at or below the target, +inf for a run
        that did not get there.
      is_baseline: whether the others are compared with this one.
      difference: of `final` to the baseline's with the same seeds; `None` for the
        baseline itself and where it is missing.
      scores: of each run, see `tasks.scores`; `None` where the task has no unit.
      stopping: what early stopping makes of the runs, where the suite asks for it.
    """

    task: str
    optimizer: str
    records: tuple[Record, ...]
    final: Interval
    best: Interval
    target: float | None
    steps_to_target: Interval | None
    is_baseline: bool
    difference: Interval | None
    scores: np.ndarray | None = None
    stopping: Stopping | None = None

    @property
    def num_diverged(self) -> int:
        """How many seeds diverged."""
        return sum(r.diverged_at is not None for r in self.records)

    @property
    def steps(self) -> int:
        """Training steps of each run."""
        return int(self.records[0].eval_steps[-1])

    @property
    def verdict(self) -> str:
        """What the interval of the difference to the baseline says, in words."""
        if self.is_baseline:
            return "baseline"
        return statistics.verdict(self.difference)

    @property
    def track(self) -> str | None:
        """How the optimizer's settings were chosen, if that is said."""
        return self.records[0].context.get("track")

    @property
    def tags(self) -> tuple[str, ...]:
        """What sets the task apart from others of its suite."""
        tags = (tag for r in self.records for tag in r.context.get("tags", ()))
        return tuple(dict.fromkeys(tags))

    def cost(self, name: str) -> float:
        """The median of a cost over the records; NaN where it was not measured."""
        return float(np.median([r.costs.get(name, np.nan) for r in self.records]))


class Results:
    """Records of runs, and what follows from them.

    Attributes:
      records: one per task, optimizer and seed.
      directory: where they were read from, or `None`.

    Example:
      >>> results = Results.load("runs/default")  # doctest: +SKIP
      >>> print(results.table())  # doctest: +SKIP
      >>> results.to_html()  # doctest: +SKIP
    """

    def __init__(
        self, records: Sequence[Record], directory: pathlib.Path | None = None
    ):
        self.records = tuple(records)
        self.directory = directory

    @classmethod
    def load(cls, directory: str | pathlib.Path) -> Results:
        """Reads the records that `evaluate` wrote to `out_dir`.

        Raises:
          FileNotFoundError: if there are none.
        """
        directory = pathlib.Path(directory)
        found = records_lib.read(directory)
        if not found:
            raise FileNotFoundError(
                f"{directory}/records holds no *.jsonl records; "
                "`python -m tasks evaluate --out DIR` writes them"
            )
        return cls(found, directory)

    def summaries(self) -> dict[str, list[Summary]]:
        """What every optimizer reached on every task, in the order of the suite.

        A task that was run in several parametrizations is one.
        """
        return {
            task: _summarize(task, cells)
            for task, cells in problems.grouped(self.records).items()
        }

    def comparisons(self) -> list[Comparison]:
        """What every optimizer reached over all tasks, by track and distribution."""
        from tasks.comparison import comparisons

        return comparisons(self.summaries())

    def claims(self) -> list[Outcome]:
        """What the runs say about the claims that were declared before them."""
        every = [s for of_task in self.summaries().values() for s in of_task]

        def claimed(claim: Claim, optimizer: str) -> list[Summary]:
            """By name of the task or optimizer with or without the parametrization."""
            return [
                s
                for s in every
                if claim.task in (claims.ALL_TASKS, s.task, s.records[0].task)
                and optimizer in (s.optimizer, s.records[0].optimizer)
            ]

        return [
            claims.outcome(c, claimed(c, c.left), claimed(c, c.right))
            for c in claims.declared(self.records)
        ]

    def table(self) -> str:
        """Markdown tables: over all tasks, of each task, and along what was varied."""
        from tasks import grid_views, grids
        from tasks.scaling import families
        from tasks.tables import claim_table, markdown, overall

        summaries = self.summaries()
        found = [overall(c) for c in self.comparisons()]
        found += [claim_table(self.claims())] if self.claims() else []
        for of_task in summaries.values():
            in_grids, others = grids.split(of_task)
            found += [grid_views.markdown(in_grids)] if in_grids else []
            found += [markdown(others)] if others else []
        return "\n\n".join(found + [f.table() for f in families(summaries)])

    _repr_markdown_ = table  # what a notebook shows

    def plot(self, directory: str | pathlib.Path | None = None) -> dict[str, Figure]:
        """Profiles over tasks, loss curves, changing coefficients, losses over width.

        Args:
          directory: where to write each figure as PNG; by default nowhere.

        Returns:
          Matplotlib figures by file stem, such as `"digits-mlp.loss"`.
        """
        from tasks import grid_views, grids, plots, profile_plots, scaling

        summaries = self.summaries()
        figures = plots.figures(summaries)
        for c in self.comparisons():
            stem = c.title.replace(", ", ".").replace(" ", "-") or "all"
            figures[f"{stem}.profiles"] = profile_plots.profile_curves(c)
        for task, of_task in summaries.items():
            if in_grids := grids.split(of_task)[0]:
                figures[f"{task}.grid"] = grid_views.plot(
                    in_grids, measures.FINAL_TRAIN
                )
        for family in scaling.families(summaries):
            figures[f"{family.name}.scaling"] = family.plot()
        if directory is not None:
            plots.save(figures, pathlib.Path(directory))
        return figures

    def to_html(self, path: str | pathlib.Path | None = None) -> pathlib.Path:
        """Writes one self-contained page.

        Args:
          path: the file; by default `report.html` in the directory of the records.

        Raises:
          ValueError: without a path, for results that are in memory only.
        """
        from tasks.report import page

        if path is None and self.directory is None:
            raise ValueError("path is None, and these results have no directory")
        path = pathlib.Path(path or f"{self.directory}/report.html")
        records_lib.write_atomically(path, page(self))
        return path


Cells = Mapping[str, Sequence[Record]]


def _summarize(task: str, cells: Cells) -> list[Summary]:
    reference = _baseline(cells)
    measure = next(iter(cells.values()))[0].context.get("measure", measures.FINAL_VALID)
    baselines = scores.baselines(cells, reference)
    target = _target(cells, [cells[name] for name in baselines], measure)
    unit = scores.unit([cells[name] for name in baselines], measure)
    stopped = {
        name: early_stopping.stopped_runs(records, measures.valid_losses(records))
        for name, records in cells.items()
    }
    return [
        Summary(
            task=task,
            optimizer=name,
            records=tuple(records),
            final=statistics.interval(list(measures.by_seed(records).values())),
            best=statistics.interval(
                list(measures.by_seed(records, measures.BEST_VALID).values())
            ),
            target=target,
            steps_to_target=_steps_to_target(records, target, measure),
            is_baseline=name == reference,
            difference=None
            if name == reference
            else statistics.paired_by_seed(
                measures.by_seed(records), measures.by_seed(cells.get(reference, ()))
            ),
            scores=None if unit is None else unit.scores(records),
            stopping=early_stopping.summarize(
                records,
                stopped[name],
                {} if name == reference else stopped.get(reference, {}),
            ),
        )
        for name, records in cells.items()
    ]


def _baseline(cells: Cells) -> str:
    """The optimizer that most records name as baseline, the suite's if it was run."""
    named = collections.Counter(
        r.context["baseline"] for records in cells.values() for r in records
    )
    names: dict[str, str] = {}
    for label, records in cells.items():
        names.setdefault(records[0].optimizer, label)
    asked = next(iter(cells.values()))[0].context.get("suite_baseline")
    wanted = asked if asked in names else named.most_common(1)[0][0]
    return names.get(wanted, wanted)


def _target(
    cells: Cells, baselines: Sequence[Sequence[Record]], measure: str
) -> float | None:
    """What the suite says, or the lowest of what the baselines reach in time.

    That is nothing where they do not get below their start, nor to a finite loss.
    """
    given = {r.context["target"] for records in cells.values() for r in records}
    given.discard(None)
    if given:
        return float(min(given))
    targets = [
        statistics.default_target(*measures.curves(of, measure)) for of in baselines
    ]
    target = min(targets, default=np.inf)
    starts = [measures.curves(of, measure).losses[:, 0] for of in baselines]
    return target if starts and target < np.median(np.concatenate(starts)) else None


def _steps_to_target(
    records: Sequence[Record], target: float | None, measure: str
) -> Interval | None:
    if target is None:
        return None
    steps = statistics.steps_to_target(*measures.curves(records, measure), target)
    return statistics.interval(steps, statistics.median)
