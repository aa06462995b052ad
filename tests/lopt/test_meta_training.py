"""The outer loop: what it learns, records, skips, keeps and takes up again."""

import json
import shutil
import signal
import sys
import time

import jax
import numpy as np
import optax
import pytest
from meta_toys import ToyES, quadratic, sgd

import lopt
from lopt.meta_step import MetaStep
from lopt.plots import meta_loss_figure
from lopt.truncation import Constant
from tasks.base import TaskFamily


def train(steps=12, *, tasks=None, estimator=None, hyperparams=None, **options):
    given = {
        "schedule": Constant(20),
        "mesh": lopt.particle_mesh(jax.devices()[:1]),
        "progress": False,
        **options,
    }
    return lopt.meta_train(
        given.pop("make_transform", sgd()),
        hyperparams or {"learning_rate": 0.1},
        tasks or quadratic(),
        estimator or ToyES(),
        steps=steps,
        **given,
    )


def read(metrics_file):
    return [json.loads(line) for line in metrics_file.read_text().splitlines()]


def family(*dims):
    return TaskFamily("quadratics", tuple(quadratic(f"q{dim}", dim) for dim in dims))


def test_meta_training_improves_theta_on_tasks_it_has_not_seen():
    held_out = lopt.HeldOut(quadratic("other", 6), every=20, steps=10, num_seeds=2)
    result = train(60, evaluation=held_out)
    assert result.hyperparams["learning_rate"] > 0.12
    loss = result.history["meta_loss"]
    assert loss.shape == (60,)
    assert loss[-10:].mean() < 0.5 * loss[:5].mean()
    assert [e["step"] for e in result.evaluations] == [0, 20, 40, 60]
    final = [e["heldout_valid_loss/other"] for e in result.evaluations]
    assert final[-1] < final[0]
    assert result.compile_seconds > 0


def test_a_figure_is_drawn_of_it(tmp_path):
    result = train(5, tasks=family(3, 4), evaluation=lopt.HeldOut(quadratic(), 5, 3))
    figure = result.plot(tmp_path / "meta_loss.png")
    assert (tmp_path / "meta_loss.png").read_bytes()[1:4] == b"PNG"
    labels = [t.get_text() for a in figure.axes for t in a.get_legend().get_texts()]
    assert labels == ["q3", "q4", "quadratic"]


def test_held_out_losses_of_any_size_are_seen_in_it():
    def axis(*losses):
        found = [
            {"step": i, "heldout_valid_loss/t": loss} for i, loss in enumerate(losses)
        ]
        return meta_loss_figure([], found).axes[1]

    wide = axis(25000.0, 0.3, np.nan, 0.2)
    assert wide.get_yscale() == "log"
    assert wide.yaxis.get_major_formatter()(0.1, 0) == "0.1"
    narrow = axis(2.3, 0.3)
    assert {0.5, 1, 2} <= set(narrow.get_yticks().round(6))
    assert axis(1.0, -0.5).get_yscale() == "linear"


def test_all_tasks_every_step_or_one_in_turn():
    every = train(6, tasks=family(3, 4, 5))
    turns = train(6, tasks=family(3, 4, 5), task_order="round_robin")
    names = [f"meta_loss/q{dim}" for dim in (3, 4, 5)]
    for record in every.records:
        assert record["inner_steps"] == 3 * 80
        assert record["meta_loss"] == pytest.approx(np.mean([record[n] for n in names]))
    for i, record in enumerate(turns.records):
        assert record["inner_steps"] == 80
        assert [n for n in names if n in record] == [names[i % 3]]


def test_the_gradient_is_the_mean_over_tasks_and_particles():
    # With plain SGD as meta-optimizer, theta moves by minus the gradient. The draws of
    # a task come from its position, so the tasks of a family of copies differ in them.
    def moved(tasks, num_particles):
        made = {"estimator": ToyES(num_particles), "meta_optimizer": optax.sgd(1.0)}
        result = train(1, tasks=tasks, **made)
        move = 0.1 - result.hyperparams["learning_rate"]
        assert result.records[0]["grad_norm"] == pytest.approx(abs(move), rel=1e-4)
        return move

    one = moved(quadratic(), 8)
    assert one < -0.1
    assert moved(quadratic(), 16) == pytest.approx(one, rel=0.5)
    copies = TaskFamily("copies", tuple(quadratic(f"q{i}") for i in range(3)))
    assert moved(copies, 8) == pytest.approx(one, rel=0.5)


def test_the_default_meta_optimizer_is_the_scaled_recipe():
    rates = train(100).history["learning_rate"]
    assert rates.max() == pytest.approx(3e-3)
    assert rates.argmax() == 2
    np.testing.assert_allclose(rates[98:], 1e-3, rtol=1e-5)


def test_clipping_bounds_the_gradient_when_asked_for():
    clipped = lopt.WarmupCosineAdamW(clip_norm=1e-9, weight_decay=0.0)
    moved = [
        abs(train(3, meta_optimizer=m).hyperparams["learning_rate"] - 0.1)
        for m in (clipped, lopt.WarmupCosineAdamW(weight_decay=0.0))
    ]
    assert moved[0] < 0.2 * moved[1]  # AdamW's eps shows at gradients that small.


@pytest.mark.parametrize("broken", [np.inf, 1e30])
def test_gradients_without_a_finite_step_are_skipped_and_counted(broken):
    result = train(30, estimator=ToyES(nonfinite=0.3, broken=broken))
    history = result.history
    bad = ~np.isfinite(history["grad_norm"])
    assert 3 < bad.sum() < 20
    np.testing.assert_array_equal(history["skipped"], np.cumsum(bad))
    np.testing.assert_array_equal(history["num_nonfinite"], 8 * bad)
    assert np.isfinite(result.hyperparams["learning_rate"])
    assert result.hyperparams["learning_rate"] != np.float32(0.1)


def test_a_run_that_only_skips_stops():
    with pytest.raises(FloatingPointError) as e:
        train(100, estimator=ToyES(nonfinite=1.0), max_skips=7)
    assert "the last 7 meta-gradients, up to meta-step 7, were not finite" in str(
        e.value
    )


def test_any_factory_gets_what_it_asks_for():
    seen = []

    def make(width_multipliers, num_steps):
        seen.append((width_multipliers, num_steps))
        return sgd()

    train(1, make_transform=make, tasks=family(3, 4))
    assert seen == [({"x": 3.0}, 20), ({"x": 4.0}, 20)]


def test_a_factory_is_told_how_long_a_held_out_training_is():
    seen = []

    def make(num_steps):
        seen.append(num_steps)
        return sgd()

    train(1, make_transform=make, evaluation=lopt.HeldOut(quadratic("other"), 1, 7, 1))
    assert seen == [20, 7]


def test_without_a_start_a_transformation_starts_where_it_is():
    result = lopt.meta_train(
        optax.chain(optax.clip(10.0), sgd()),
        None,
        quadratic(),
        ToyES(),
        optax.set_to_zero(),
        steps=1,
        schedule=Constant(20),
        progress=False,
    )
    assert result.hyperparams == {"learning_rate": np.float32(0.1)}


def test_metrics_go_to_a_file_and_to_tensorboard(tmp_path):
    pytest.importorskip("tensorboardX")
    result = train(
        6,
        metrics_file=tmp_path / "metrics.jsonl",
        tensorboard_dir=tmp_path / "board",
        evaluation=lopt.HeldOut(quadratic(), 3, 2, 1),
        estimator=ToyES(nonfinite=0.3),
    )
    lines = read(tmp_path / "metrics.jsonl")
    losses = [x for x in lines if "meta_loss" in x]
    assert [x["step"] for x in losses] == [1, 2, 3, 4, 5, 6]
    assert [x["step"] for x in lines if "meta_loss" not in x] == [0, 3, 6]
    assert {"grad_norm", "learning_rate", "inner_steps_per_second", "skipped"} <= set(
        losses[0]
    )
    assert [x["meta_loss"] for x in losses] == [r["meta_loss"] for r in result.records]
    assert any(x["grad_norm"] is None for x in losses)
    assert list((tmp_path / "board").iterdir())


def test_compile_time_is_recorded_once_and_not_part_of_the_speed(monkeypatch, tmp_path):
    late = [0.0]
    compile_, clock = MetaStep.compile, time.perf_counter

    def slow(self, carry):
        compile_(self, carry)
        late[0] = 1000.0

    monkeypatch.setattr(MetaStep, "compile", slow)
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + late[0])
    result = train(3, metrics_file=tmp_path / "metrics.jsonl")
    first, *others = read(tmp_path / "metrics.jsonl")
    assert first["compile_seconds"] == result.compile_seconds > 1000
    assert not any("compile_seconds" in record for record in others)
    assert first["inner_steps_per_second"] > 1
    assert result.seconds < 500


def test_the_bar_shows_meta_loss_and_speed(capsys):
    train(8, progress=True)
    shown = capsys.readouterr().err
    assert "compiling:   0%" in shown
    assert "8/8" in shown
    assert "loss=" in shown
    assert "inner/s=" in shown


def test_each_program_is_compiled_once(monkeypatch):
    compiled = []
    compile_ = jax.stages.Lowered.compile
    monkeypatch.setattr(
        jax.stages.Lowered, "compile", lambda x: compiled.append(x) or compile_(x)
    )
    train(8, tasks=family(3, 4))
    # One for each task, two that sum what they found, and one that moves theta.
    assert len(compiled) == 5


def interrupt_at(monkeypatch, step):
    """Ctrl-C in the middle of a meta-step."""
    call = MetaStep.__call__

    def interrupted(self, at, *carry):
        if at == step:
            signal.raise_signal(signal.SIGINT)
        return call(self, at, *carry)

    monkeypatch.setattr(MetaStep, "__call__", interrupted)


def test_ctrl_c_saves_and_a_resumed_run_ends_bit_for_bit_the_same(
    monkeypatch, tmp_path
):
    kept = {
        "checkpoint_dir": tmp_path / "checkpoints",
        "metrics_file": tmp_path / "metrics.jsonl",
        "checkpoint_every": 4,
        "tasks": family(3, 4),
        "evaluation": lopt.HeldOut(quadratic(), 4, 2, 1),
    }
    whole = train(20, tasks=kept["tasks"])
    with monkeypatch.context() as patch:
        interrupt_at(patch, 7)
        with pytest.raises(lopt.Interrupted) as e:
            train(20, **kept)
    assert str(e.value) == (
        f"interrupted after meta-step 8, saved in {tmp_path / 'checkpoints'}; "
        "resume=True goes on from there"
    )
    assert len(e.value.result.records) == e.value.result.steps == 8
    shutil.rmtree(tmp_path / "checkpoints/00000008")
    (tmp_path / "checkpoints/00000008.json").unlink()
    resumed = train(20, resume=True, **kept)
    assert resumed.hyperparams == whole.hyperparams
    for name in ("step", "meta_loss", "grad_norm"):
        np.testing.assert_array_equal(resumed.history[name], whole.history[name])
    lines = read(tmp_path / "metrics.jsonl")
    assert [x["step"] for x in lines if "meta_loss" in x] == list(range(1, 21))
    assert [x["step"] for x in lines if "meta_loss" not in x] == [0, 4, 8, 12, 16, 20]


def test_ctrl_c_while_compiling_ends_the_run_before_its_first_step(
    monkeypatch, tmp_path
):
    compile_ = MetaStep.compile

    def interrupted(self, carry):
        signal.raise_signal(signal.SIGINT)
        compile_(self, carry)

    monkeypatch.setattr(MetaStep, "compile", interrupted)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(lopt.Interrupted) as e:
        train(8, checkpoint_dir=tmp_path / "checkpoints")
    assert str(e.value) == (
        "interrupted before the first meta-step; there was nothing to save"
    )
    assert not (tmp_path / "checkpoints").exists()
    assert signal.getsignal(signal.SIGINT) is handler


def test_ctrl_c_without_checkpoints_says_that_nothing_is_saved(monkeypatch):
    interrupt_at(monkeypatch, 3)
    with pytest.raises(lopt.Interrupted) as e:
        train(8)
    assert str(e.value) == (
        "interrupted after meta-step 4; without checkpoint_dir, not saved"
    )


def test_a_finished_run_resumes_without_its_metrics(tmp_path):
    kept = {"checkpoint_dir": tmp_path, "metrics_file": tmp_path / "metrics.jsonl"}
    whole = train(3, **kept)
    kept["metrics_file"].unlink()
    again = train(3, resume=True, **kept)
    assert again.hyperparams == whole.hyperparams
    assert list(again.records) == []
    assert len(again.plot().axes) == 1


def test_a_run_goes_on_with_another_number_of_devices(monkeypatch, tmp_path):
    kept = {"checkpoint_dir": tmp_path, "checkpoint_every": 5}
    whole = train(12)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 6)
        with pytest.raises(lopt.Interrupted):
            train(12, **kept)
    mesh = lopt.particle_mesh(jax.devices()[:4])
    resumed = train(12, resume=True, mesh=mesh, **kept)
    np.testing.assert_allclose(
        resumed.hyperparams["learning_rate"],
        whole.hyperparams["learning_rate"],
        rtol=1e-6,
    )


def test_an_unfinished_run_is_not_overwritten(tmp_path):
    train(3, checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match="holds a run up to meta-step 3; resume=True"):
        train(3, checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match="seed was 0, is 1"):
        train(3, checkpoint_dir=tmp_path, seed=1, resume=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be an integer >= 1, got 0"),
        ({"task_order": "random"}, "task_order must be one of 'all', 'round_robin'"),
        ({"tasks": TaskFamily("none", ())}, "family of tasks 'none' is empty"),
        ({"tasks": [quadratic()] * 2}, "task 'quadratic' is given 2 times"),
        ({"estimator": ToyES(9), "mesh": None}, "num_particles=9 is not a multiple"),
        ({"make_transform": optax.sgd(0.1)}, "exactly one field `hyperparams`"),
        ({"make_transform": 3}, "make_transform is a int"),
        ({"make_transform": lambda: 3}, "make_transform gives a int"),
        ({"hyperparams": {"lr": 0.1}}, "theta has the names ['lr']"),
        ({"hyperparams": {"learning_rate": 1}}, "floating-point"),
        ({"resume": True}, "resume=True needs a checkpoint_dir"),
    ],
)
def test_mistakes_are_found_before_anything_is_compiled(monkeypatch, options, message):
    monkeypatch.setattr(
        jax.stages.Lowered, "compile", lambda _: pytest.fail("compiled something")
    )
    with pytest.raises(ValueError) as e:
        train(**{"steps": 3, **options})
    assert message in str(e.value)


def test_without_tensorboard_every_process_stops_before_it_compiles(
    monkeypatch, tmp_path
):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setattr(
        jax.stages.Lowered, "compile", lambda _: pytest.fail("compiled something")
    )
    with pytest.raises(ValueError, match=r"`python -m pip install tensorboardX`"):
        train(3, tensorboard_dir=tmp_path)


def test_the_meta_optimizer_checks_its_options():
    with pytest.raises(ValueError, match="clip_norm must be positive, got 0"):
        lopt.WarmupCosineAdamW(clip_norm=0)
    with pytest.raises(ValueError, match="warmup_fraction < decay_fraction <= 1"):
        lopt.WarmupCosineAdamW(warmup_fraction=0.5, decay_fraction=0.4)
