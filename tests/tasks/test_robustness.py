"""The grid of initial decays: its table and its gaps."""

import numpy as np
import pytest
from toys import quadratic

from tasks import evaluation
from tasks.evaluation import evaluate
from tasks.suites import get_suite, robustness
from tasks.suites.mada import B1, B2, COEFFICIENTS, final_states, grid
from tasks.tables import number


@pytest.fixture(scope="module")
def records():
    specs = [
        (f"{name}({b1}, {b2})", f"optax:{name}(0.1, b1={b1}, b2={b2})")
        for name in ("adam", "adamw")
        for b1 in (0.5, 0.9)
        for b2 in (0.9, 0.99)
    ]
    measured = {"update_ms": 1.0, "update_ratio_to_adamw": 1.0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation.UpdateTimer, "measure", lambda *_: measured)
        found = evaluate([quadratic()], specs, seeds=2, steps=10, progress=False)
    return found.records


def test_grids_hold_the_losses_of_their_points(records):
    found = robustness.grids(records)
    assert list(found) == ["adam", "adamw"]
    assert (found["adam"].b1, found["adam"].b2) == ((0.5, 0.9), (0.9, 0.99))
    for record in records:
        if record.optimizer == "adamw(0.5, 0.99)":
            loss = found["adamw"].losses[record.seed, 0, 1]
            assert loss == pytest.approx(float(record.train_loss[-1]))


def test_the_table_and_the_figure(records):
    rows = robustness.table(records).splitlines()
    assert len(rows) == 4 and "share within 0.05" in rows[0]
    best = min(g.by_point.min() for g in robustness.grids(records).values())
    assert number(best) in "".join(rows)
    assert len(robustness.plot(records).axes) == 3


def test_gaps_are_refused(records):
    some = [r for r in records if (r.optimizer, r.seed) != ("adam(0.5, 0.9)", 1)]
    with pytest.raises(ValueError, match="the grid of 'adam' has gaps"):
        robustness.grids(some)
    with pytest.raises(ValueError, match="no optimizer has a name such as"):
        robustness.grids([])


def test_the_grids_are_those_of_the_paper():
    (entry,) = get_suite("mada-grid").entries
    assert len(entry.optimizers) == 3 * 275 == 3 * len(B1) * len(B2)
    names = [name for name, _ in grid((0.1,), (0.9,), 1e-3, {})]
    assert names == ["adamw(0.1, 0.9)", "hyper_adam(0.1, 0.9)", "mada(0.1, 0.9)"]


def test_final_states_start_where_mada_ended():
    entry = get_suite("mada-mini").entries[0]

    class Run:
        task, optimizer = entry.task_name, "mada poor"

        def __init__(self, last):
            self.hyperparams = {name: np.array([0, last]) for name in COEFFICIENTS}

    class Found:
        records = (Run(0.2), Run(0.4))

    later = final_states(Found, entry, 1e-3)
    ((name, spec),) = later.optimizers
    assert name == "mada poor final state" and later.task_name == entry.task_name
    assert "mada_optax:mada_final_state" in spec and "'b1': 0.3" in spec
