"""What a run reports while it goes on: records, a JSONL file, TensorBoard, a bar."""

from __future__ import annotations

import collections
import importlib.util
import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from tqdm import tqdm

from lopt import parallel
from lopt.meta_step import Metrics

Record = dict[str, Any]

# Meta-steps that are under way while the host reads the metrics of an earlier one, so
# that the device always has work.
_IN_FLIGHT = 4


class Log:
    """Collects the metrics of meta-steps a few steps after these were dispatched.

    Attributes:
      records: one dict per meta-step: `step` (meta-steps made), `meta_loss`, also per
        task, `grad_norm`, `learning_rate`, `inner_steps`, `inner_steps_per_second`,
        `num_nonfinite` (inner losses), `skipped` (meta-steps so far), and, of the first
        one that was made after a start, `compile_seconds`.
      evaluations: one dict per evaluation: `step`, and values by name.
    """

    def __init__(
        self,
        steps: int,
        *,
        start: int = 0,
        metrics_file: str | os.PathLike | None = None,
        tensorboard_dir: str | os.PathLike | None = None,
        progress: bool = True,
        max_skips: int = 20,
    ):
        self.records: list[Record] = []
        self.evaluations: list[Record] = []
        self._max_skips = max_skips
        self._compile_seconds: float | None = None
        self._pending: collections.deque = collections.deque()
        self._recent: collections.deque = collections.deque(maxlen=20)
        talks = parallel.is_first_process()
        self._file = None
        if metrics_file is not None:
            self._go_on(pathlib.Path(metrics_file), start)
            if talks:
                self._file = self._rewritten(pathlib.Path(metrics_file))
        self._board = _summary_writer(tensorboard_dir) if talks else None
        self._bar = tqdm(
            total=steps,
            initial=start,
            desc="compiling",
            unit="step",
            disable=not (progress and talks),
            file=sys.stderr,
        )
        self.resume_clock()

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.close()
        for sink in (self._file, self._board):
            if sink is not None:
                sink.close()

    def compiled(self, seconds: float) -> None:
        """Notes that meta-steps can begin, and how long it took to get there."""
        self._compile_seconds = seconds
        self._bar.set_description("meta-training")
        self._bar.unpause()
        self.resume_clock()

    def add(self, step: int, tasks: Sequence[str], metrics: Metrics) -> None:
        """Notes a meta-step that was dispatched, and reads an earlier one."""
        self._pending.append((step, tasks, metrics))
        while len(self._pending) > _IN_FLIGHT:
            self._read()

    def flush(self) -> None:
        """Reads all that was dispatched."""
        while self._pending:
            self._read()
        if self._file is not None:
            self._file.flush()

    def resume_clock(self) -> None:
        """Leaves out of the speed what was done since the last meta-step."""
        self._recent.clear()
        self._recent.append((time.perf_counter(), 0))

    def add_evaluation(self, step: int, values: Mapping[str, float]) -> None:
        """Notes the result of an evaluation after `step` meta-steps."""
        record = {"step": step, **values}
        self.evaluations.append(record)
        self._write(record)

    def _read(self) -> None:
        step, tasks, metrics = self._pending.popleft()
        values = jax.device_get(metrics)
        inner_steps = int(values.num_steps)
        self._recent.append((time.perf_counter(), inner_steps))
        seconds = self._recent[-1][0] - self._recent[0][0]
        rate = sum(n for _, n in list(self._recent)[1:]) / max(seconds, 1e-9)
        losses = [float(loss) for loss in values.meta_loss]
        record = {
            "step": step,
            "meta_loss": sum(losses) / len(losses),
            **{f"meta_loss/{t}": x for t, x in zip(tasks, losses, strict=True)},
            "grad_norm": float(values.grad_norm),
            "learning_rate": float(values.learning_rate),
            "inner_steps": inner_steps,
            "inner_steps_per_second": rate,
            "num_nonfinite": int(values.num_nonfinite),
            "skipped": int(values.num_skipped),
        }
        if self._compile_seconds is not None:
            record["compile_seconds"] = self._compile_seconds
            self._compile_seconds = None
        self.records.append(record)
        self._write(record)
        shown = {"loss": f"{record['meta_loss']:.4f}", "inner/s": f"{rate:,.0f}"}
        if record["skipped"]:
            shown["skipped"] = str(record["skipped"])
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update()
        if values.skipped_in_a_row >= self._max_skips:
            raise FloatingPointError(
                f"the last {values.skipped_in_a_row} meta-gradients, up to meta-step "
                f"{step}, were not finite, so theta stands still ({inner_steps} inner "
                f"steps in the last of them, {values.num_nonfinite} with a loss that "
                "was not finite). Start from smaller steps of the optimizer, or bound "
                "the meta-loss by max_loss"
            )

    def _write(self, record: Record) -> None:
        if self._file is not None:
            print(json.dumps(_finite(record), allow_nan=False), file=self._file)
        if self._board is not None:
            for name, value in record.items():
                if name != "step":
                    self._board.add_scalar(name, value, record["step"])

    def _go_on(self, path: pathlib.Path, start: int) -> None:
        """Takes over the records up to the step that the run goes on from."""
        if start and path.exists():
            records, evaluations = read_metrics(path)
            self.records = [r for r in records if r["step"] <= start]
            # That of `start` is made again.
            self.evaluations = [e for e in evaluations if e["step"] < start]

    def _rewritten(self, path: pathlib.Path) -> Any:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.tmp")
        records = sorted([*self.evaluations, *self.records], key=lambda r: r["step"])
        lines = [json.dumps(_finite(r), allow_nan=False) + "\n" for r in records]
        temporary.write_text("".join(lines))
        temporary.replace(path)
        return path.open("a")


def read_metrics(path: str | os.PathLike) -> tuple[list[Record], list[Record]]:
    """The records of meta-steps and those of evaluations in a metrics file.

    Args:
      path: what `meta_train` wrote as its `metrics_file`; one that is still being
        written will do.

    Example:
      >>> records, evaluations = read_metrics("metrics.jsonl")  # doctest: +SKIP
      >>> lopt.plots.meta_loss_figure(records, evaluations)  # doctest: +SKIP
    """
    kinds: tuple[list[Record], list[Record]] = [], []
    for line in pathlib.Path(path).read_text().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue  # The line that was being written when the run was killed.
        record = {k: math.nan if v is None else v for k, v in record.items()}
        kinds["meta_loss" not in record].append(record)
    return kinds


def check_tensorboard(directory: str | os.PathLike | None) -> None:
    """Raises `ValueError` if metrics are to go there and cannot.

    All processes ask, so that none waits for one that has stopped.
    """
    if directory is not None and importlib.util.find_spec("tensorboardX") is None:
        raise ValueError(
            f"tensorboard_dir={os.fspath(directory)!r} needs the package tensorboardX; "
            "install it by `python -m pip install tensorboardX`, or leave this out"
        )


def _finite(record: Record) -> Record:
    """JSON knows no NaN; it becomes null."""
    return {
        k: None if isinstance(v, float) and not math.isfinite(v) else v
        for k, v in record.items()
    }


def _summary_writer(directory: str | os.PathLike | None) -> Any:
    if directory is None:
        return None
    from tensorboardX import SummaryWriter

    return SummaryWriter(os.fspath(directory))
