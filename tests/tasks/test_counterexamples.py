"""Adam, AMSGrad, AVGrad and MADA where Adam goes to the worst point."""

import dataclasses

import numpy as np
import pytest

from tasks.evaluation import evaluate
from tasks.suites import get_suite

# x and mean regret after 1,000 and 10,000 steps, of a float64 program.
EXPECTED = {
    "adam": [(0.0183, 0.2306), (0.1880, 0.2569)],
    "amsgrad": [(-0.0008, 0.2322), (-0.0077, 0.2319)],
    "avgrad": [(-0.0015, 0.2423), (-0.0109, 0.2404)],
    "mada": [(0.0162, 0.2305), (0.1067, 0.2402)],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_1010_problem(name):
    (entry,) = [
        e for e in get_suite("mada-mini").entries if e.task == "counterexample-1010"
    ]
    only = dict(entry.optimizers)[name]
    entry = dataclasses.replace(entry, optimizers=((name, only),), eval_every=1000)
    (record,) = evaluate([entry], seeds=1, progress=False).records
    found = np.stack([record.valid["x"], record.valid["loss"]], axis=1)[[1, 10]]
    np.testing.assert_allclose(found, EXPECTED[name], atol=6e-5)
    if name == "mada":
        learned = [record.hyperparams[k][1] for k in ("b3", "c", "rho")]
        np.testing.assert_allclose(learned, (0.084, 0.996, 0.864), atol=6e-4)


# x of period 3 after 1,000 and 10,000 steps, of a float64 program.
CLASSIC = {"adam": (0.9967, 0.9990), "amsgrad": (-0.7794, -1), "avgrad": (-1, -1)}


def test_the_classic_problem():
    (entry,) = [
        e for e in get_suite("mada-mini").entries if e.task == "counterexample-classic"
    ]
    entry = dataclasses.replace(entry, eval_every=1000)
    found = evaluate([entry], seeds=1, progress=False).records
    for record in found:
        x = record.valid["x"][[1, 10]]
        np.testing.assert_allclose(x, CLASSIC[record.optimizer], atol=1e-4)
    assert {record.optimizer for record in found} == set(CLASSIC)
