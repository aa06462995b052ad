"""What an evaluation found, computed from its records alone."""

from __future__ import annotations

import collections
import dataclasses
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tasks import early_stopping, statistics
from tasks import records as records_lib
from tasks.early_stopping import Stopping
from tasks.records import Record
from tasks.statistics import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Summary:
    """An optimizer on a task, over its seeds. Losses are on the validation split.

    Attributes:
      task: the task's name.
      optimizer: the optimizer's display name.
      records: one per seed.
      final: the loss after the last step, +inf for a diverged run.
      best: the lowest loss at any evaluation, before a divergence too.
      target: the loss that `steps_to_target` is about, `None` without a baseline.
      steps_to_target: the first evaluated step at or below the target, +inf for a run
        that did not get there.
      is_baseline: whether the others are compared with this one.
      difference: of `final` to the baseline's with the same seeds; `None` for the
        baseline itself and where it is missing.
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

    def cost(self, name: str) -> float:
        """The median of a cost over the records (they were measured together)."""
        return float(np.median([r.costs[name] for r in self.records]))


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
        """What every optimizer reached on every task, in the order of the suite."""
        return {task: _summarize(cells) for task, cells in self._cells().items()}

    def table(self) -> str:
        """One Markdown table for each task, and one for each family of widths."""
        from tasks.scaling import families
        from tasks.tables import markdown

        summaries = self.summaries()
        tables = [*map(markdown, summaries.values())]
        return "\n\n".join(tables + [f.table() for f in families(summaries)])

    _repr_markdown_ = table  # what a notebook shows

    def plot(self, directory: str | pathlib.Path | None = None) -> dict[str, Figure]:
        """Loss curves, coefficients of optimizers that learn them, losses over width.

        Args:
          directory: where to write each figure as PNG; by default nowhere.

        Returns:
          Matplotlib figures by file stem, such as `"digits-mlp.loss"`.
        """
        from tasks import plots, scaling

        figures = plots.figures(self.summaries())
        for family in scaling.families(self.summaries()):
            if family.is_curve:
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

    def _cells(self) -> dict[str, dict[str, list[Record]]]:
        cells: dict[str, dict[str, list[Record]]] = {}
        for r in self.records:
            cells.setdefault(r.task, {}).setdefault(r.optimizer, []).append(r)
        return cells


def _summarize(cells: dict[str, list[Record]]) -> list[Summary]:
    reference = _baseline(cells)
    target = _target(cells, reference)
    stopped = {
        name: early_stopping.stopped_runs(records, valid_losses(records))
        for name, records in cells.items()
    }
    return [
        Summary(
            task=records[0].task,
            optimizer=name,
            records=tuple(records),
            final=statistics.interval(list(_final(records).values())),
            best=statistics.interval(valid_losses(records).min(axis=-1)),
            target=target,
            steps_to_target=_steps_to_target(records, target),
            is_baseline=name == reference,
            difference=None
            if name == reference
            else statistics.paired_by_seed(
                _final(records), _final(cells.get(reference, []))
            ),
            stopping=early_stopping.summarize(
                records,
                stopped[name],
                {} if name == reference else stopped.get(reference, {}),
            ),
        )
        for name, records in cells.items()
    ]


def valid_losses(records: Sequence[Record]) -> np.ndarray:
    """Validation losses, float64[seeds, points], +inf from a divergence on."""
    losses = np.array([r.valid["loss"] for r in records], np.float64)
    for row, r in zip(losses, records, strict=True):
        if r.diverged_at is not None:
            row[r.eval_steps > r.diverged_at] = np.inf
    return np.where(np.isfinite(losses), losses, np.inf)


def _final(records: Sequence[Record]) -> dict[int, float]:
    if not records:
        return {}
    losses = valid_losses(records)[:, -1]
    return {r.seed: float(x) for r, x in zip(records, losses, strict=True)}


def _baseline(cells: dict[str, list[Record]]) -> str:
    """The optimizer that most records name as baseline."""
    named = collections.Counter(
        r.context["baseline"] for records in cells.values() for r in records
    )
    return named.most_common(1)[0][0]


def _target(cells: dict[str, list[Record]], reference: str) -> float | None:
    given = {r.context["target"] for records in cells.values() for r in records}
    given.discard(None)
    if given:
        return float(min(given))
    if reference not in cells:
        return None
    records = cells[reference]
    target = statistics.default_target(records[0].eval_steps, valid_losses(records))
    return target if np.isfinite(target) else None


def _steps_to_target(
    records: Sequence[Record], target: float | None
) -> Interval | None:
    if target is None:
        return None
    steps = statistics.steps_to_target(
        records[0].eval_steps, valid_losses(records), target
    )
    return statistics.interval(steps, statistics.median)
