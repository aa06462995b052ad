"""The grid searches: their size, and that a configuration is trained as it says."""

import itertools
import json

import jax
import numpy as np

import tasks
from tasks.optimizers import resolve
from tasks.suites import mup_sweep
from tasks.training import Program

STEPS, SHAPE = 3, {"width": 4, "depth": 2}


def mean_loss(optimizer, **overrides):
    task = tasks.get("digits-mlp", **SHAPE, **overrides)
    made = resolve(optimizer).build(task, STEPS)
    chunk = Program(task, made, mup_sweep.SEEDS, STEPS).advance(0, STEPS)
    return np.mean(jax.vmap(task.normalize)(chunk.train_loss))


def test_both_grids_have_five_hundred_configurations():
    assert len(mup_sweep.RATES) * len(mup_sweep.MULTIPLIERS) ** 3 == 500
    assert np.prod([len(values) for values in mup_sweep.ADAMW.values()]) == 504


def test_adam_in_mup_is_trained_with_its_multipliers(monkeypatch):
    monkeypatch.setattr(mup_sweep, "RATES", (0.1, 0.01))
    monkeypatch.setattr(mup_sweep, "MULTIPLIERS", (4.0, 1.0))
    of_first_task = mup_sweep._mup_adam("digits-mlp", SHAPE, STEPS)
    _, (loss, setting), *_ = itertools.islice(of_first_task, 4)
    rate = setting.pop("learning_rate")
    assert (rate, *setting.values()) == (0.1, 4.0, 4.0, 1.0)
    rules = ", ".join(f"{name}={value}" for name, value in setting.items())
    expected = mean_loss(f"tasks:mup_adam({rate})", parametrization=f"mup({rules})")
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


def test_the_record_says_what_won(monkeypatch, tmp_path, capsys):
    grid = {name: values[:2] for name, values in mup_sweep.ADAMW.items()}
    monkeypatch.setattr(mup_sweep, "ADAMW", grid | {"learning_rate": (1e-3, 1e-2)})
    monkeypatch.setattr("sys.argv", ["mup_sweep", "--optimizer", "adamw"])
    mup_sweep.sweep("adamw", **SHAPE, steps=STEPS, out=tmp_path / "record.json")
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["command"] == "python -m tasks.suites.mup_sweep --optimizer adamw"
    assert record["configurations"] == 2**4
    assert len(capsys.readouterr().out.splitlines()) == len(record["best"]) == 10
    losses = [row.pop("mean_loss") for row in record["best"]]
    assert losses == sorted(losses)
    spec = ", ".join(f"{name}={value}" for name, value in record["best"][0].items())
    np.testing.assert_allclose(losses[0], mean_loss(f"optax:adamw({spec})"), rtol=1e-4)
