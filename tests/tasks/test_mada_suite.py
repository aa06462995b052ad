"""The suites of MADA: the paper's grids, and what starts where MADA ended."""

import numpy as np

from tasks.optimizers import resolve_all
from tasks.suites import get_suite
from tasks.suites.mada import B1, B2, COEFFICIENTS, MINI_NAME, final_states, grid


def test_the_grids_are_those_of_the_paper():
    (entry,) = get_suite("mada-grid").entries
    assert len(entry.optimizers) == 3 * 275 == 3 * len(B1) * len(B2)
    names = [name for name, _ in grid((0.1,), (0.9,), 1e-3, {})]
    assert names == ["adamw(0.1, 0.9)", "hyper_adam(0.1, 0.9)", "mada(0.1, 0.9)"]


def test_every_optimizer_can_be_resolved():
    for name in ("mada", "mada-mini", "mada-grid-mini"):
        for entry in get_suite(name).entries:
            assert len(resolve_all(entry.optimizers)) == len(entry.optimizers)


def test_claims_are_about_a_task_of_the_suite():
    suite = get_suite("mada-mini")
    assert suite.entries[0].task_name == MINI_NAME
    assert all(claim.endswith(f"on {MINI_NAME}") for claim in suite.claims)


def test_final_states_start_where_mada_ended():
    entry = get_suite("mada-mini").entries[0]

    class Run:
        task, optimizer = entry.task_name, "mada poor"

        def __init__(self, last):
            self.hyperparams = {name: np.array([0, last]) for name in COEFFICIENTS}

    class Found:
        records = (Run(0.2), Run(0.4))

    (later,) = final_states(Found, entry=entry, learning_rate=1e-3)
    ((name, spec),) = later.optimizers
    assert name == "mada poor final state" and later.task_name == entry.task_name
    assert "mada_optax:mada_final_state" in spec and "'b1': 0.3" in spec
