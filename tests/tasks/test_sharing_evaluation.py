"""Evaluations that are split: by seeds, by processes, and into what comes later."""

import gc
import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from toys import quadratic, regression

from tasks import evaluation, planning, registry
from tasks.evaluation import evaluate
from tasks.suites import Entry, Suite

OPTIMIZERS = ["optax:sgd(0.1)", "optax:adamw(0.01)"]


@pytest.fixture(autouse=True)
def quick_costs(monkeypatch):
    measured = {"update_ms": 1.0, "update_ratio_to_adamw": 1.0}
    monkeypatch.setattr(evaluation.UpdateTimer, "measure", lambda *_: measured)


def losses(results):
    return {(r.optimizer, r.seed): r.train_loss for r in results.records}


def run(**options):
    defaults = {"seeds": 3, "steps": 6, "eval_every": 4, "progress": False}
    return evaluate([quadratic()], OPTIMIZERS, **{**defaults, **options})


@pytest.mark.parametrize("large", [10**9, 1])
def test_seeds_one_after_another_are_the_seeds_side_by_side(
    large, tmp_path, monkeypatch
):
    together, compiled = losses(run()), []
    monkeypatch.setattr(evaluation, "LARGE", large)
    original = evaluation.Program
    monkeypatch.setattr(
        evaluation, "Program", lambda *a: compiled.append(a) or original(*a)
    )
    alone = run(
        seeds_in_parallel=None if large == 1 else 2, out_dir=tmp_path, resume=True
    )
    assert [len(a[2]) for a in compiled] == ([1, 1] if large == 1 else [2, 1, 2, 1])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5),
        together,
        losses(alone),
    )
    assert len(list((tmp_path / "records").iterdir())) == 2, "a file for each optimizer"


def test_a_run_on_eight_devices():
    spread, alone = (
        evaluate([regression()], OPTIMIZERS, seeds=1, steps=6, progress=False, **how)
        for how in ({"devices": 8}, {})
    )
    for name, value in losses(alone).items():
        np.testing.assert_allclose(losses(spread)[name], value, rtol=1e-5)
    with pytest.raises(ValueError, match="a batch of 16 cannot be spread evenly"):
        evaluate([regression()], OPTIMIZERS, devices=3)


def test_what_comes_later_is_made_of_what_came_first(tmp_path):
    entry = Entry(quadratic(), tuple(OPTIMIZERS), steps=6)

    def then(results):
        final = results.records[0].train_loss[-1]
        assert len(results.records) == 4
        spec = f"optax:sgd({min(0.1, abs(float(final)))})"
        return (Entry(entry.task, (("later", spec),), steps=6),)

    suite = Suite("two stages", "", (entry,), then=then)
    first = evaluate(suite, seeds=2, progress=False)
    kept = evaluate(suite, seeds=2, progress=False, out_dir=tmp_path)
    for results in (first, kept):
        assert [r.optimizer for r in results.records][-2:] == ["later"] * 2
        assert results.records[-1].context["baseline"] == "adamw"
    again = evaluate(suite, seeds=2, progress=False, out_dir=tmp_path, resume=True)
    assert len(again.records) == 6
    assert len(evaluate(suite, OPTIMIZERS, seeds=1, progress=False).records) == 2


def test_tasks_that_wait_are_dropped_and_built_again(monkeypatch):
    built = []

    def build(*, dim: int = 4):
        built.append(dim)
        return quadratic(dim=dim)

    monkeypatch.setitem(registry._BUILDERS, "toy", build)
    request = ["toy(dim=2)", "toy(dim=3)"]
    few = {"seeds": 1, "steps": 2, "progress": False}
    names = [r.task for r in evaluate(request, OPTIMIZERS, **few).records]
    assert built == [2, 3] and names == ["toy(dim=2)"] * 2 + ["toy(dim=3)"] * 2
    monkeypatch.setattr(planning, "KEPT", 0)
    evaluate(request, OPTIMIZERS, **few)
    assert built == [2, 3, 2, 3, 2, 3]


def test_nothing_is_held_of_runs_that_are_over(tmp_path):
    def held(count):
        optimizers = [(f"sgd {i}", "optax:sgd(0.1)") for i in range(count)]
        request = Entry(quadratic(), tuple(optimizers), steps=2)
        evaluate([request], seeds=1, progress=False, out_dir=tmp_path / str(count))
        gc.collect()
        return len(jax.live_arrays())

    held(1)
    assert held(6) <= held(2)


@pytest.mark.slow
def test_processes_share_an_evaluation(tmp_path):
    rates = [0.01 * (i + 1) for i in range(2)]
    command = [sys.executable, "-m", "tasks", "evaluate", "--task", "digits-mlp"]
    command += [x for r in rates for x in ("--optimizer", f"optax:sgd({r})")]
    command += ["--steps", "3", "--seeds", "2", "--seeds-in-parallel", "1"]
    command += ["--out", str(tmp_path / "out"), "--resume"]
    root = pathlib.Path(__file__).parents[2]
    workers = [
        subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [worker.communicate(timeout=300)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    files = sorted((tmp_path / "out" / "records").iterdir())
    seeds = [
        [json.loads(line)["seed"] for line in file.read_text().splitlines()]
        for file in files
    ]
    assert seeds == [[0, 1]] * 2
    assert all("sgd(0.02)" in output for output in outputs), "each shows all of it"
