"""Six calls of PES on a learned optimizer, with recorded perturbations and batches."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lopt
from lopt.estimators import PES
from lopt.estimators.pes import PESState
from lopt.keys import particle_keys, split_keys, step_keys
from lopt.truncation import Constant
from lopt.unroll import Unroll
from tasks.base import Task

RUN = np.load(pathlib.Path(__file__).parent.parent / "golden" / "mulo" / "pes_run.npz")
NUM_CALLS, NUM_STEPS, NUM_PARTICLES = RUN["mask"].shape
DECAYS = ("momentum_decays", "rms_decays", "adafactor_decays")


def theta_tree(kind, select=lambda leaf: leaf):
    """A recorded tree in the structure of theta."""
    leaves = {
        name: select(jnp.asarray(RUN[f"{kind}/{name}"]))
        for name in ("w0", "b0", "w1", "b1", "w2", "b2", *DECAYS)
    }
    decays = {name: leaves.pop(name) for name in DECAYS}
    return {"nn": leaves, **decays}


def recorded_batch(data, key):
    """The row whose key this is; NaN if there is none."""
    sought = jax.random.key_data(key)[None, None]
    hit = jnp.all(data["key"] == sought, axis=-1).ravel()
    rows = data["row"].reshape(hit.size, *data["row"].shape[2:])
    return jnp.where(hit.any(), rows[jnp.argmax(hit)], jnp.nan)


def task():
    def init(key):
        del key
        return {"w": RUN["task/w_init"], "b": RUN["task/b_init"]}, ()

    def loss(params, model_state, batch, key):
        del key
        predicted = RUN["task/A"] @ params["w"] + params["b"][None]
        return jnp.mean((predicted - batch) ** 2), model_state

    empty = {
        "key": jnp.zeros((NUM_STEPS, NUM_PARTICLES, 2), jnp.uint32),
        "row": jnp.zeros(RUN["task/data"].shape[1:]),
    }
    return Task(
        name="recorded",
        init=lambda key: jax.tree.map(jnp.asarray, init(key)),
        loss=loss,
        sample=recorded_batch,
        evaluate=lambda *_: {},
        data={"train": empty, "valid": empty},
        normalize=lambda value: jnp.clip(value, 0, 5),
    )


@pytest.fixture(scope="module")
def calls():
    """Per call: the estimate, the state after it, and the trajectory's losses."""
    theta = theta_tree("theta")
    transformation = lopt.small_fc(
        "sp",
        hidden_size=8,
        step_multiplier=float(RUN["step_mult"]),
        exp_multiplier=float(RUN["exp_mult"]),
    ).transform(theta)
    unroll = Unroll(task(), transformation, Constant(int(RUN["total_length"])))
    pes = PES(NUM_PARTICLES, float(RUN["std"]), NUM_STEPS)
    indices = jnp.arange(NUM_PARTICLES)
    state = jax.jit(lambda key: pes.init(unroll, theta, key, indices))(
        jax.random.key(0)
    )
    first = Constant(7).length - jnp.asarray(RUN["init_inner_step"])
    state = PESState(state.particles._replace(length=first), state.accumulator)

    @jax.jit
    def advance(state, noise, rows, key):
        keys = particle_keys(key, indices)
        batch_keys = step_keys(split_keys(keys)[1], NUM_STEPS).batch
        data = {"train": {"key": jax.random.key_data(batch_keys), "row": rows}}
        after, estimate = pes.advance(unroll, theta, state, noise, keys, data)
        thetas = jax.tree.map(
            lambda t, e: jnp.stack([t[None] + e, t[None] - e], axis=1), theta, noise
        )
        _, trajectory = unroll.run(
            lambda _: thetas, state.particles, keys, data, NUM_STEPS
        )
        return after, estimate, trajectory.loss

    found = []
    for call in range(NUM_CALLS):
        noise = theta_tree("perturb", lambda leaf, call=call: leaf[call])
        state, estimate, loss = advance(
            state, noise, RUN["task/data"][call], jax.random.key(call)
        )
        found.append((state, estimate, loss))
    return jax.device_get(found)


@pytest.mark.parametrize("call", range(NUM_CALLS))
def test_losses_gradients_and_states(calls, call):
    state, estimate, loss = calls[call]
    mask = RUN["mask"][call]
    for sign, name in enumerate(("pos_loss", "neg_loss")):
        np.testing.assert_allclose(loss[..., sign], RUN[name][call] * mask, atol=1e-5)
    np.testing.assert_allclose(
        estimate.loss / NUM_PARTICLES, RUN["mean_loss"][call], rtol=1e-5
    )
    assert estimate.num_steps == 2 * mask.sum()
    assert estimate.num_nonfinite == 0

    expected = theta_tree("grad", lambda leaf: leaf[call])
    for found, wanted in zip(
        jax.tree.leaves(estimate.gradient), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(
            found / NUM_PARTICLES, wanted, atol=1e-4 * np.abs(wanted).max()
        )
    accumulated = theta_tree("accum", lambda leaf: leaf[call])
    for found, wanted in zip(
        jax.tree.leaves(state.accumulator), jax.tree.leaves(accumulated), strict=True
    ):
        np.testing.assert_allclose(found, wanted, atol=1e-6)

    params = state.particles.params["w"]
    np.testing.assert_allclose(params[:, 0], RUN["pos_w"][call], atol=1e-5)
    np.testing.assert_allclose(params[:, 1], RUN["neg_w"][call], atol=1e-5)
