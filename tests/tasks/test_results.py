"""Results: summaries of records, worked out by hand."""

import dataclasses

import numpy as np
import pytest
from test_records import make

from tasks import tables
from tasks.results import Results
from tasks.statistics import Interval

STEPS = np.array([0, 25, 50, 75, 100])
COSTS = {
    "update_ms": 0.5,
    "update_ratio_to_adamw": 2.0,
    "state_bytes_per_parameter": 8.0,
    "compile_seconds": 1.0,
    "run_seconds": 3.0,
    "seeds_in_parallel": 3,
}


def runs(optimizer, losses, task="task", **changes):
    """One record per row of validation losses; NaN marks a divergence."""
    made = []
    for seed, row in enumerate(np.asarray(losses, np.float32)):
        bad = STEPS[~np.isfinite(row)]
        record = make(
            task=task,
            optimizer=optimizer,
            seed=seed,
            config={
                "steps": 100,
                "eval_every": 25,
                "optimizer": {"spec": f"optax:{optimizer}(0.1)", "arguments": {}},
                "batch": {"": "float32[8,4]"},
                "task_metadata": {"dataset": "toy", "sha256": {"train": "ab" * 32}},
            },
            context={
                "suite": "toys",
                "description": "Toys.",
                "baseline": "adamw",
                "target": None,
                "position": [0, 0 if optimizer == "adamw" else 1],
                "command": "python -m tasks evaluate toys",
            },
            environment={"versions": {"jax": "1", "optax": "2"}, "hardware": "cpu"},
            train_loss=np.repeat(row[1:], 25),
            eval_steps=STEPS,
            valid={"loss": row, "accuracy": row / 10},
            hyperparams={"b1": row, "b2": 0 * row},
            costs=COSTS,
            diverged_at=int(bad[0]) if len(bad) else None,
        )
        made.append(dataclasses.replace(record, **changes))
    return made


BASELINE = [[9, 4, 3, 2, 2], [9, 5, 4, 3, 3], [9, 6, 5, 4, 4]]
FASTER = [[9, 2, 1, 1, 1.5], [9, 2, 2, 2, 2.5], [9, 3, 3, 3, 3.5]]
NAN = np.nan


def summaries(*records):
    (of_task,) = Results([r for rs in records for r in rs]).summaries().values()
    return of_task


def test_losses_steps_and_differences():
    adamw, faster = summaries(runs("adamw", BASELINE), runs("faster", FASTER))
    assert adamw.final == Interval(3, 2, 4)
    assert adamw.target == 3  # the median of 2, 3, 4 at step 75
    assert adamw.steps_to_target.estimate == 75
    assert (adamw.is_baseline, adamw.difference) == (True, None)
    assert faster.best == Interval(2, 1, 3)
    assert faster.steps_to_target.estimate == 25
    assert faster.difference == Interval(-0.5, -0.5, -0.5)
    assert (adamw.verdict, faster.verdict) == ("baseline", "better")


def test_only_common_seeds_are_paired():
    for of_baseline, of_other in ((slice(1, 3), slice(3)), (slice(3), slice(1, 3))):
        baseline = runs("adamw", BASELINE)[of_baseline]
        _, faster = summaries(baseline, runs("faster", FASTER)[of_other])
        assert faster.difference == Interval(-0.5, -0.5, -0.5)


def test_a_diverged_seed_counts_as_infinite_and_keeps_its_best():
    rows = [[9, 2, 1, NAN, NAN], *FASTER[1:]]
    adamw, shaky = summaries(runs("adamw", BASELINE), runs("shaky", rows))
    assert shaky.num_diverged == 1
    assert shaky.final.high == np.inf
    assert shaky.best.low == 1
    assert tables.row(shaky)[-1] == "1/3"
    assert shaky.verdict == "no clear difference"
    assert adamw.num_diverged == 0


def test_a_loss_that_comes_back_from_infinity_has_still_diverged():
    rows = [[9, NAN, 1, 1, 1]] * 3
    _, shaky = summaries(runs("adamw", BASELINE), runs("shaky", rows))
    assert shaky.final.estimate == np.inf
    assert shaky.best.estimate == np.inf  # 9 is the loss at the start.


def test_the_start_is_no_target_and_nobodys_best():
    adamw, better = summaries(
        runs("adamw", [[0, 1, 2, 3, 4]] * 3), runs("better", [[0, -1, 1, 1, 1]] * 3)
    )
    assert (adamw.target, adamw.steps_to_target) == (None, None)
    assert (adamw.best.estimate, better.best.estimate) == (1, -1)


def test_runs_that_miss_the_target_are_censored():
    rows = [[9, 9, 9, 9, 9], [9, 9, 9, 9, 9], [9, 9, 9, 9, 2]]
    _, slow = summaries(runs("adamw", BASELINE), runs("slow", rows))
    assert tables.steps_with_interval(slow.steps_to_target, slow.steps) == (
        ">100 [100, >100]"
    )


def test_a_target_of_the_suite_comes_first():
    context = {**runs("adamw", BASELINE)[0].context, "target": 5.0}
    (adamw,) = summaries(runs("adamw", BASELINE, context=context))
    assert adamw.target == 5
    assert adamw.steps_to_target.estimate == 25


def test_without_the_baseline_nothing_is_compared():
    (alone,) = summaries(runs("faster", FASTER))
    assert alone.target is alone.difference is alone.steps_to_target is None
    assert alone.verdict == "no baseline"
    assert tables.row(alone)[3] == "–"  # noqa: RUF001


def test_the_table_is_aligned_markdown():
    table = Results([*runs("adamw", BASELINE), *runs("faster", FASTER)]).table()
    overall, of_task = table.split("\n\ntask")
    assert overall.startswith("one task by final validation loss: score 1 is the best")
    headline, _, *lines = f"task{of_task}".splitlines()
    assert headline == "task: 100 steps, 3 seeds, target loss 3.000"
    assert len({len(line) for line in lines}) == 1
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["adamw", "faster"]
    assert "3.000 [2.000, 4.000]" in lines[2]


def test_an_empty_directory_has_no_results(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no \*.jsonl records"):
        Results.load(tmp_path)
