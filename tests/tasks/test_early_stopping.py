"""Early stopping, worked out from records by hand."""

import json

import numpy as np
import pytest
from test_results import BASELINE, NAN, runs, summaries
from toys import quadratic

from tasks import tables
from tasks.early_stopping import EarlyStopping, Stop, stopped_runs
from tasks.evaluation import evaluate
from tasks.measures import valid_losses
from tasks.planning import plan
from tasks.report import page
from tasks.results import Results
from tasks.statistics import Interval
from tasks.suites import Entry, Suite

RULE = {"patience": 2, "min_delta": 0.5}


def stopping(optimizer, losses, rule=RULE, **changes):
    context = {**runs(optimizer, losses)[0].context, "early_stopping": rule}
    return runs(optimizer, losses, context=context, **changes)


@pytest.mark.parametrize(
    ("patience", "min_delta", "losses", "expected"),
    [
        (2, 0.0, [3, 2, 1, 2, 2, 0], Stop(4, 2, True)),
        (2, 0.0, [3, 2, 1, 2, 0.5, 2], Stop(5, 4, False)),
        (1, 0.0, [3, 2, 2, 1], Stop(2, 1, True)),
        # Steps of 0.3 are no progress each, but two of them are.
        (2, 0.5, [3.0, 2.7, 2.4, 2.1], Stop(3, 2, False)),
        (2, 0.6, [3.0, 2.7, 2.4, 2.1], Stop(2, 0, True)),
        (3, 0.5, [3.0, 2.9, np.inf, 2.0, 2.0], Stop(4, 3, False)),
        (2, 0.5, [3.0, 2.0, np.inf, np.inf, np.inf], Stop(3, 1, True)),
        (2, 0.5, [np.inf] * 4, Stop(2, 0, True)),
    ],
)
def test_where_runs_stop(patience, min_delta, losses, expected):
    assert EarlyStopping(patience, min_delta).stop(losses) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patience": 0}, "patience must be an integer >= 1, got 0"),
        ({"min_delta": -1.0}, "min_delta must be a finite number > 0, got -1.0"),
    ],
)
def test_what_is_not_allowed(options, message):
    with pytest.raises(ValueError, match=message):
        EarlyStopping(**options)


def test_records_tell_when_each_seed_stops():
    # Evaluated at steps 0, 25, 50, 75, 100; the one before the first step is none.
    rows = [[0, 4, 3, 2.8, 2.7], [9, 4, 4, 4, 1], [9, 4, 3, 2, 1], [9, 5, NAN, NAN, 1]]
    records = stopping("adamw", rows)
    found = stopped_runs(records, valid_losses(records))
    # The cost of 3 s is that of 100 steps.
    assert found == {
        0: (100, 3.0, 3.0),
        1: (75, pytest.approx(2.25), 4.0),
        2: (np.inf, np.inf, 1.0),
        3: (75, pytest.approx(2.25), 5.0),
    }


def test_intervals_and_differences():
    worse = [[x + 1 for x in row] for row in BASELINE]
    adamw, slow = summaries(stopping("adamw", BASELINE), stopping("slow", worse))
    # BASELINE stops in no seed: it comes down by 1 until its last evaluation but one.
    assert adamw.stopping.steps.estimate == np.inf
    assert adamw.stopping.loss == Interval(3, 2, 4)
    assert adamw.stopping.difference is None
    assert slow.stopping.difference == Interval(1, 1, 1)
    rows = [[9, 2, 2, 2, 0]] * 2 + [[9, 2, 1, 0, 0]]
    _, quick = summaries(stopping("adamw", BASELINE), stopping("quick", rows))
    assert tables.stopping_row(quick) == [
        "75 [75, >100]",
        "2.25 [2.25, >3]",
        "1.333 [0, 2.000]",
        "-1.67 [-4.00, 0]",
    ]


def test_only_suites_that_ask_for_it_show_it():
    plain = Results(runs("adamw", BASELINE))
    asked = Results(stopping("adamw", BASELINE))
    assert summaries(runs("adamw", BASELINE))[0].stopping is None
    for shown in (plain.table(), page(plain)):
        assert "time to stop" not in shown and "early stopping" not in shown
    head, rule, line = asked.table().splitlines()[2:5]
    assert len(head) == len(rule) == len(line)
    assert "time to stop s" in head and ">100" in line
    assert "With early stopping" in page(asked)
    assert "not below the best one by more than 0.5;" in page(asked)


def test_suites_ask_and_entries_ask_otherwise(tmp_path):
    entries = (
        Entry(quadratic("a"), ("optax:sgd(0.1)",), steps=6, eval_every=2),
        Entry(
            quadratic("b"),
            ("optax:sgd(0.1)",),
            steps=6,
            eval_every=2,
            early_stopping=EarlyStopping(1, 10.0),
        ),
    )
    suite = Suite("toys", "Toys.", entries, "sgd", EarlyStopping(2, 0.0))
    cells = plan(suite)
    assert [cell.context["early_stopping"] for cell in cells] == [
        {"patience": 2, "min_delta": 0.0},
        {"patience": 1, "min_delta": 10.0},
    ]
    assert plan(quadratic(), "optax:sgd(0.1)")[0].context["early_stopping"] is None
    assert "early_stopping" not in json.dumps(cells[0].config), "curves are the same"
    results = evaluate(suite, seeds=1, out_dir=tmp_path, progress=False)
    (of_b,) = Results.load(tmp_path).summaries()["b"]
    assert of_b.stopping == results.summaries()["b"][0].stopping
    assert of_b.stopping.steps.estimate == 4  # no progress from step 2 to step 4
