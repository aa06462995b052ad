"""Evaluation: paired seeds, resumption, divergence, one trace."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import quadratic, regression

from tasks import evaluation, records
from tasks.evaluation import evaluate
from tasks.training import scalar_hyperparams

OPTIMIZERS = ["optax:sgd(0.1)", "optax:adamw(0.01)"]
BOTH = [quadratic(), regression()]


@pytest.fixture(autouse=True)
def quick_costs(monkeypatch):
    monkeypatch.setattr(
        evaluation.UpdateTimer,
        "measure",
        lambda *_: {"update_ms": 1.0, "update_ratio_to_adamw": 1.0},
    )


def run(tasks=None, optimizers=OPTIMIZERS, **options):
    options = {"seeds": 3, "steps": 12, "eval_every": 5, "progress": False} | options
    return evaluate(tasks or [quadratic()], optimizers, **options)


def curves(results):
    return {
        (r.task, r.optimizer, r.seed): (
            r.train_loss.tolist(),
            {k: v.tolist() for k, v in r.valid.items()},
            {k: v.tolist() for k, v in r.hyperparams.items()},
        )
        for r in results.records
    }


def test_records_hold_what_was_run():
    results = run(BOTH, seeds=2)
    assert len(results.records) == 2 * 2 * 2
    record = results.records[0]
    assert (record.task, record.optimizer, record.seed) == ("quadratic", "sgd", 0)
    assert record.train_loss.shape == (12,)
    assert record.eval_steps.tolist() == [0, 5, 10, 12]
    assert record.valid["loss"].shape == (4,)
    assert record.config["optimizer"]["spec"] == "optax:sgd(0.1)"
    assert record.config["batch"] == {"": "float32[8,4]"}
    assert record.config["task_metadata"]["dim"] == 4
    assert record.costs["state_bytes_per_parameter"] == 0
    assert record.costs["compile_seconds"] > 0
    assert record.diverged_at is None


def test_seeds_are_paired():
    # Optimizers that do not move show which parameters and batches they were given.
    results = run(BOTH, ["optax:sgd(0.0)", "optax:adam(0.0)"])
    by_optimizer = {}
    for (task, optimizer, seed), found in curves(results).items():
        by_optimizer.setdefault(optimizer, {})[task, seed] = found
    sgd = by_optimizer["sgd"]
    assert by_optimizer["adam"] == sgd
    losses = [tuple(train) for train, *_ in sgd.values()]
    assert len(set(losses)) == len(losses), "seeds and tasks differ from each other"
    assert len(set(losses[0])) == 12, "batches differ from step to step"


def test_the_same_request_gives_the_same_curves():
    assert curves(run()) == curves(run())


def test_seeds_side_by_side_are_the_seeds_alone():
    together = curves(run(seeds=3))
    alone = curves(run(seeds=[2]))
    for key, (train, valid, _) in alone.items():
        np.testing.assert_allclose(together[key][0], train, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            together[key][1]["loss"], valid["loss"], rtol=1e-5, atol=1e-6
        )


def test_it_trains_as_a_plain_loop_does():
    task, seed = regression(), 1
    record = run([task], ["optax:adam(0.01)"], seeds=[seed]).records[0]
    init_key, key = jax.random.split(jax.random.key(seed))
    params, model_state = task.init(init_key)
    tx = optax.adam(0.01)
    state, losses = tx.init(params), []
    for t in range(12):
        batch_key, noise_key = jax.random.split(jax.random.fold_in(key, t))
        batch = task.sample(task.data["train"], batch_key)
        (loss, model_state), grads = jax.value_and_grad(task.loss, has_aux=True)(
            params, model_state, batch, noise_key
        )
        updates, state = tx.update(grads, state, params)
        params, losses = optax.apply_updates(params, updates), [*losses, float(loss)]
    np.testing.assert_allclose(record.train_loss, losses, rtol=1e-5)
    final = task.evaluate(params, model_state, task.data["valid"])
    assert record.valid["loss"][-1] == pytest.approx(float(final["loss"]), rel=1e-5)
    assert record.valid["steps"].tolist() == [0, 5, 10, 12]


def test_the_training_loss_is_traced_once_per_optimizer():
    task, traces = quadratic(), []

    def counted(*args):
        traces.append(None)
        return task.loss(*args)

    run([dataclasses.replace(task, loss=counted)], OPTIMIZERS[:2], steps=23)
    assert len(traces) == 2


def test_a_diverged_run_is_recorded_and_poisons_no_other():
    def explode_below(threshold):
        """Gives infinite updates to the seeds whose first loss is below a threshold."""

        def init(params):
            return jnp.zeros((), int)

        def update(updates, step, params=None, *, value, **extra):
            bad = (step == 0) & (value < threshold)
            return {"x": jnp.where(bad, jnp.inf, -0.1 * updates["x"])}, step + 1

        return optax.GradientTransformationExtraArgs(init, update)

    sane = run([quadratic()], [("sgd", optax.sgd(0.1))])
    firsts = sorted(r.train_loss[0] for r in sane.records)
    threshold = float((firsts[0] + firsts[1]) / 2)
    results = run([quadratic()], [("explodes", explode_below(threshold))])
    diverged = [r for r in results.records if r.diverged_at is not None]
    assert [(r.train_loss[0], r.diverged_at) for r in diverged] == [(firsts[0], 1)]
    for ours, theirs in zip(results.records, sane.records, strict=True):
        if ours.diverged_at is None:
            np.testing.assert_allclose(ours.train_loss, theirs.train_loss, rtol=1e-6)
    assert "1/3" in results.table()


def test_hyperparams_of_the_state_are_recorded():
    schedule = optax.linear_schedule(1.0, 0.0, 10)
    injected = optax.inject_hyperparams(optax.adam)(learning_rate=schedule, b1=0.5)
    (record, _) = run([quadratic()], [("scheduled", injected)], seeds=2).records
    np.testing.assert_allclose(record.hyperparams["b1"], 0.5)
    np.testing.assert_allclose(
        record.hyperparams["learning_rate"], [1.0, 0.6, 0.1, 0.0], atol=1e-6
    )
    (plain,) = run([quadratic()], [("plain", optax.adam(0.1))], seeds=1).records
    assert not plain.hyperparams


def test_hyperparams_that_share_a_name_are_numbered():
    injected = optax.inject_hyperparams(optax.sgd)
    state = optax.chain(injected(0.25), injected(0.5)).init({"x": jnp.ones(2)})
    found = {k: float(v) for k, v in scalar_hyperparams(state).items()}
    assert found == {"learning_rate_0": 0.25, "learning_rate_1": 0.5}


def interrupt_after(monkeypatch, count):
    """Lets `count` cells finish; returns the list of the cells that were started."""
    started, original = [], evaluation.run_cell

    def limited(cell, *args):
        if len(started) == count:
            raise KeyboardInterrupt
        started.append((cell.task_name, cell.optimizer.name))
        return original(cell, *args)

    monkeypatch.setattr(evaluation, "run_cell", limited)
    return started


def test_resuming_after_a_kill_gives_what_an_uninterrupted_run_gives(
    tmp_path, monkeypatch
):
    whole = run(BOTH, out_dir=tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            run(BOTH, out_dir=tmp_path / "killed")
    assert len(records.read(tmp_path / "killed")) == 3 * 3
    with monkeypatch.context() as patch:
        started = interrupt_after(patch, 99)
        resumed = run(BOTH, out_dir=tmp_path / "killed", resume=True)
    assert started == [("regression", "adamw")]
    assert curves(resumed) == curves(whole)
    assert [r.config_hash for r in resumed.records] == [
        r.config_hash for r in whole.records
    ]


def test_resuming_a_finished_run_computes_nothing(tmp_path, monkeypatch):
    first = run(out_dir=tmp_path)
    started = interrupt_after(monkeypatch, 99)
    assert curves(run(out_dir=tmp_path, resume=True)) == curves(first)
    assert not started


def test_resuming_adds_seeds_and_optimizers(tmp_path):
    run([quadratic()], OPTIMIZERS[:1], seeds=2, out_dir=tmp_path)
    both = run([quadratic()], OPTIMIZERS[:2], out_dir=tmp_path, resume=True)
    names = ("sgd", "adamw")
    pairs = [(r.optimizer, r.seed) for r in both.records]
    assert pairs == [(name, seed) for name in names for seed in range(3)]


def test_a_half_written_record_is_run_again(tmp_path):
    whole = run([quadratic()], OPTIMIZERS[:1], out_dir=tmp_path)
    path = records.path_of(tmp_path, "quadratic", "sgd")
    path.write_text(path.read_text()[:-100])
    with pytest.warns(UserWarning, match="line 3: not a whole record"):
        again = run([quadratic()], OPTIMIZERS[:1], out_dir=tmp_path, resume=True)
    assert [r.seed for r in again.records] == [0, 1, 2]
    assert again.records[2].valid["loss"][-1] == pytest.approx(
        whole.records[2].valid["loss"][-1], rel=1e-5
    )


def test_records_of_another_configuration_are_not_mixed_in(tmp_path):
    one = [quadratic()], OPTIMIZERS[:1]
    run(*one, out_dir=tmp_path)
    with pytest.raises(ValueError, match=r"another configuration \(steps: 12 -> 13\)"):
        run(*one, steps=13, out_dir=tmp_path, resume=True)
    with pytest.raises(ValueError, match=r"another configuration \(steps: 12 -> 13\)"):
        run([quadratic()], OPTIMIZERS[1:], steps=13, out_dir=tmp_path, resume=True)
    with pytest.raises(ValueError, match=r"would not repeat: pass resume .* overwrite"):
        run([quadratic()], OPTIMIZERS[1:], out_dir=tmp_path)
    with pytest.raises(ValueError, match=r"with seed 2, which .* not repeat"):
        run(*one, seeds=2, out_dir=tmp_path)
    assert len(run(*one, out_dir=tmp_path).records) == 3
    replaced = run([quadratic()], OPTIMIZERS[1:], out_dir=tmp_path, overwrite=True)
    assert {r.optimizer for r in replaced.records} == {"adamw"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, r"seeds must be an integer >= 1, got 0"),
        ({"seeds": [1, 1]}, r"seeds are \(1, 1\); allowed are"),
        ({"seeds": [-1]}, r"seeds are \(-1,\)"),
        ({"steps": 0}, r"steps must be an integer >= 1, got 0"),
        ({"eval_every": -5}, r"eval_every must be an integer >= 1"),
        ({"baseline": "adam"}, r"unknown baseline 'adam'"),
        ({"resume": True}, r"need out_dir"),
        (
            {"tasks": "digits-mpl"},
            r"unknown task 'digits-mpl', did you mean 'digits-mlp'",
        ),
        ({"seeds": [0.5]}, r"seeds are \(0.5,\)"),
        ({"tasks": [quadratic()] * 2}, r"two tasks have the name 'quadratic'"),
        ({"tasks": [3.5]}, r"holds a float; allowed are"),
        ({"optimizers": None}, r"optimizers: none given for task 'quadratic'"),
        ({"optimizers": ["optax:adamw(lr=1)"]}, r"no parameter 'lr'"),
    ],
)
def test_mistakes_are_found_before_anything_runs(options, message, monkeypatch):
    started = interrupt_after(monkeypatch, 0)
    with pytest.raises(ValueError, match=message):
        run(**{"tasks": [quadratic()], **options})
    assert not started


def test_task_specs_take_overrides():
    (record,) = run("digits-mlp(width=8, depth=1)", OPTIMIZERS[0], seeds=1).records
    assert record.task == "digits-mlp(depth=1, width=8)"
    assert record.context["command"] == (
        "python -m tasks evaluate --task 'digits-mlp(depth=1, width=8)' "
        "--optimizer 'optax:sgd(0.1)' --seeds 1 --steps 12 --eval-every 5"
    )
