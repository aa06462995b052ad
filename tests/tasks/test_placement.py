"""Runs over several devices, and training batches from the host."""

import dataclasses

import jax
import numpy as np
import optax
import pytest
from toys import regression

from tasks import training
from tasks.placement import Placement
from tasks.training import Program

ADAMW = optax.adamw(1e-2)


def curve(program, points=(0, 7, 10)):
    chunks = [
        program.advance(start, stop)
        for start, stop in zip((0, *points), points, strict=False)
    ]
    losses = np.concatenate([c.train_loss for c in chunks], axis=1)
    return losses[:, ~np.isnan(losses[0])], [c.valid["loss"] for c in chunks]


@pytest.mark.parametrize("shard_params", [False, True])
def test_eight_devices_give_what_one_gives(shard_params, monkeypatch):
    monkeypatch.setattr("tasks.placement._SMALLEST_SHARD", 1)
    task = regression(features=16)
    alone = curve(Program(task, ADAMW, (3, 4), 7))
    spread = Program(task, ADAMW, (3, 4), 7, Placement(8, shard_params=shard_params))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), alone, curve(spread)
    )
    for kernel in (
        spread._carry.params["kernel"],
        optax.tree.get(spread._carry.opt_state, "mu")["kernel"],
    ):
        assert len(kernel.devices()) == 8
        shard = kernel.addressable_shards[0].data
        assert shard.shape == (2, 2 if shard_params else 16, 3)


def test_the_batch_is_what_is_spread():
    seen = []
    task = regression()

    def loss(params, model_state, batch, key):
        jax.debug.inspect_array_sharding(batch["input"], callback=seen.append)
        return task.loss(params, model_state, batch, key)

    Program(dataclasses.replace(task, loss=loss), ADAMW, (0,), 2, Placement(8))
    assert any(found.shard_shape((1, 16, 5)) == (1, 2, 5) for found in seen)


def streamed(task):
    """The same task, whose batches are gathered on the host."""
    train = jax.tree.map(np.asarray, task.data["train"])

    def stream(seed, start, stop):
        steps = [np.random.default_rng((seed, t)) for t in range(start, stop)]
        rows = np.stack([rng.integers(0, len(train["label"]), 16) for rng in steps])
        return jax.tree.map(lambda x: x[rows], train)

    return dataclasses.replace(task, stream=stream)


def test_streamed_batches_are_those_of_the_seed_and_the_step(monkeypatch):
    task = streamed(regression())
    losses, valid = curve(Program(task, ADAMW, (5, 6), 7))
    for i, seed in enumerate((5, 6)):
        params, state = task.init(jax.random.split(jax.random.key(seed))[0])
        opt_state = ADAMW.init(params)
        for t in range(10):
            batch = jax.tree.map(lambda x: x[0], task.stream(seed, t, t + 1))
            (loss, state), grads = jax.value_and_grad(task.loss, has_aux=True)(
                params, state, batch, jax.random.key(0)
            )
            np.testing.assert_allclose(losses[i, t], loss, rtol=1e-5)
            updates, opt_state = ADAMW.update(grads, opt_state, params)
            params = optax.apply_updates(params, updates)
    step = sum(x.nbytes for x in jax.tree.leaves(task.stream(0, 0, 1)))
    monkeypatch.setattr(training, "STREAM_BYTES", 2 * 2 * step)
    in_parts = Program(task, ADAMW, (5, 6), 7)
    bounds = [(int(a), int(b)) for _, a, b in in_parts._batches.between(0, 7)]
    assert bounds == [(0, 2), (2, 4), (4, 6), (6, 7)]
    jax.tree.map(np.testing.assert_array_equal, (losses, valid), curve(in_parts))


def test_streamed_batches_can_be_spread():
    task = streamed(regression())
    alone = curve(Program(task, ADAMW, (0,), 7))
    spread = curve(Program(task, ADAMW, (0,), 7, Placement(8)))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), alone, spread
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"devices": 0}, "devices"),
        ({"devices": 99}, "devices=99, but this process has 8"),
        ({"devices": 1, "shard_params": True}, "shard_params=True needs devices > 1"),
    ],
)
def test_what_cannot_be_placed(options, message):
    with pytest.raises(ValueError, match=message):
        Placement(**options)


def test_a_batch_that_the_devices_do_not_divide():
    with pytest.raises(ValueError, match="a batch of 12 cannot be spread evenly"):
        Placement(8).check_batch({"x": np.zeros((12, 3))})
