"""The authors' published optimizer, step by step, through the public functions."""

import contextlib
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mada_optax

FOLDER = pathlib.Path(__file__).parent.parent / "golden" / "mada"
CASES = json.loads((FOLDER / "cases.json").read_text())
STEPS = 60


def warmup_cosine(lr, min_lr, warmup, decay_steps):
    def schedule(count):
        count = count.astype(float)
        fraction = (count - warmup) / (decay_steps - warmup)
        cosine = min_lr + (lr - min_lr) * (1 + jnp.cos(jnp.pi * fraction)) / 2
        return jnp.where(count < warmup, lr * count / warmup, cosine)

    return schedule


def optimizer(case):
    rate = case["learning_rate"]
    if isinstance(rate, dict):
        rate = warmup_cosine(**rate)
    return getattr(mada_optax, case["optimizer"])(
        rate, mask=lambda p: jax.tree.map(lambda x: x.ndim >= 2, p), **case["arguments"]
    )


def problem(case, trace, dtype):
    """The parameters as `x` lists them, and their loss at update i."""
    data = {
        key: jnp.asarray(trace[key], dtype)
        for key in ("A", "b", "xi", "X", "Y", "x")
        if key in trace
    }
    start = data.pop("x")[0]
    if case["problem"] == "quad":

        def quadratic(params, i):
            x = params["x"]
            return x @ data["A"] @ x / 2 - (data["b"] + data["xi"][i]) @ x

        return {"x": start}, quadratic

    rows = jnp.asarray(trace["idx"])
    width, out = 7, trace["Y"].shape[1]
    shapes = {"W1": (width, 5), "b1": (width,), "W2": (out, width), "b2": (out,)}
    ends = np.cumsum([np.prod(shape) for shape in shapes.values()])
    parts = zip(shapes.items(), jnp.split(start, ends[:-1]), strict=True)
    params = {name: part.reshape(shape) for (name, shape), part in parts}

    def regression(params, i):
        hidden = jnp.tanh(data["X"][rows[i]] @ params["W1"].T + params["b1"][None])
        output = hidden @ params["W2"].T + params["b2"][None]
        return jnp.mean((output - data["Y"][rows[i]]) ** 2)

    return params, regression


def flat(tree):
    order = ["x"] if "x" in tree else ["W1", "b1", "W2", "b2"]
    return jnp.concatenate([tree[name].ravel() for name in order])


def run(case, trace, dtype):
    """Loss, x, q, h of all updates, and the moments after the last."""
    params, loss_fn = problem(case, trace, dtype)
    tx = optimizer(case)
    names = ["b1", "b2", "b3", "c", "rho", "gamma"]
    if case["optimizer"] == "hyper_adam":
        names = ["b1", "b2", "learning_rate"]

    def step(carry, i):
        params, state = carry
        loss, grads = jax.value_and_grad(loss_fn)(params, i)
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        seen = mada_optax.diagnostics(state)
        q = jnp.stack([seen[name] for name in names])
        h = jnp.stack([seen[f"hypergradient/{name}"] for name in names])
        return (params, state), (loss, flat(params), q, h)

    @jax.jit
    def train(params):
        carry = params, tx.init(params)
        # A state that learns holds the moments before its last step: take one more.
        (_, state), history = jax.lax.scan(step, carry, jnp.arange(STEPS + 1))
        history = jax.tree.map(lambda x: x[:STEPS], history)
        moments = {
            name: flat(tree)
            for name, tree in state.moments._asdict().items()
            if tree is not None and name != "grad"
        }
        return history, moments

    (loss, x, q, h), moments = train(params)
    learned = np.array([name in case["arguments"]["learn"] for name in names])
    return loss, x, q, np.where(learned, h, 0), moments, learned


# Tolerances: parameters, coefficients, hypergradients over the largest of the run.
@pytest.mark.parametrize(
    ("dtype", "atol_x", "atol_q", "rtol_h"),
    [(np.float64, 1e-10, 1e-10, 1e-9), (np.float32, 5e-5, 2e-4, 5e-4)],
    ids=["float64", "float32"],
)
@pytest.mark.parametrize("name", CASES)
def test_reproduces_the_published_optimizer(name, dtype, atol_x, atol_q, rtol_h):
    case = CASES[name]
    trace = np.load(FOLDER / f"{name}.npz")
    double = jax.enable_x64(True) if dtype == np.float64 else contextlib.nullcontext()
    with double:
        loss, x, q, h, moments, learned = run(case, trace, dtype)

    assert x.dtype == dtype
    np.testing.assert_allclose(x, trace["x"][1:], rtol=0, atol=atol_x)
    np.testing.assert_allclose(loss, trace["loss"], rtol=0, atol=atol_x)
    np.testing.assert_allclose(q, trace["q"], rtol=0, atol=atol_q)
    scale = np.abs(trace["h"]).max()
    np.testing.assert_allclose(
        h / scale, np.where(learned, trace["h"], 0) / scale, rtol=0, atol=rtol_h
    )
    assert {"mu", "nu"} <= set(moments)
    for moment, value in moments.items():
        np.testing.assert_allclose(
            value, trace[moment], rtol=0, atol=atol_x, err_msg=moment
        )
