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
DATA = ("A", "b", "xi", "X", "Y", "idx")


def warmup_cosine(lr, min_lr, warmup, decay_steps):
    def schedule(count):
        count = count.astype(float)
        fraction = (count - warmup) / (decay_steps - warmup)
        cosine = min_lr + (lr - min_lr) * (1 + jnp.cos(jnp.pi * fraction)) / 2
        return jnp.where(count < warmup, lr * count / warmup, cosine)

    return schedule


def optimizer(case, numbers):
    rate = numbers.pop("learning_rate")
    if isinstance(rate, dict):
        rate = warmup_cosine(**rate)
    return getattr(mada_optax, case["optimizer"])(
        rate,
        mask=lambda p: jax.tree.map(lambda x: x.ndim >= 2, p),
        **{**case["arguments"], **numbers},
    )


def numbers_of(case):
    """Arguments that are data, so that cases of one form share a compiled program."""
    table = {"learning_rate": case["learning_rate"], **case["arguments"]}
    names = ("b1", "b2", "learning_rate", "hyper_learning_rate", "hyper_momentum")
    if case["optimizer"] == "mada" and len(table["learn"]) == 6:
        names += ("b3", "c", "rho", "gamma", "eps")
    return {name: table[name] for name in names}


def quadratic(params, data, i):
    x = params["x"]
    return x @ data["A"] @ x / 2 - (data["b"] + data["xi"][i]) @ x


def regression(params, data, i):
    rows = data["idx"][i]
    hidden = jnp.tanh(data["X"][rows] @ params["W1"].T + params["b1"][None])
    output = hidden @ params["W2"].T + params["b2"][None]
    return jnp.mean((output - data["Y"][rows]) ** 2)


LOSSES = {"quad": quadratic, "mlp": regression}
SHAPES = {
    "quad": {"x": (12,)},
    "mlp": {"W1": (7, 5), "b1": (7,), "W2": (2, 7), "b2": (2,)},
}


def unflatten(x, shapes):
    ends = np.cumsum([np.prod(shape) for shape in shapes.values()])
    parts = zip(shapes.items(), jnp.split(x, ends[:-1]), strict=True)
    return {name: part.reshape(shape) for (name, shape), part in parts}


def flatten(tree, shapes):
    return jnp.concatenate([tree[name].ravel() for name in shapes])


def run(case, trace, dtype):
    """Loss, x, q, h of all updates; moments after the last; what was learned."""
    shapes, loss_fn = SHAPES[case["problem"]], LOSSES[case["problem"]]
    names = ["b1", "b2", "b3", "c", "rho", "gamma"]
    if case["optimizer"] == "hyper_adam":
        names = ["b1", "b2", "learning_rate"]

    @jax.jit
    def train(x, data, numbers):
        tx = optimizer(case, numbers)

        def step(carry, i):
            params, state = carry
            loss, grads = jax.value_and_grad(loss_fn)(params, data, i)
            updates, state = tx.update(grads, state, params)
            params = optax.apply_updates(params, updates)
            seen = mada_optax.diagnostics(state)
            q = jnp.stack([seen[name] for name in names])
            h = jnp.stack([seen[f"hypergradient/{name}"] for name in names])
            return (params, state), (loss, flatten(params, shapes), q, h)

        params = unflatten(x, shapes)
        # A state that learns holds the moments before its last step: take one more.
        (_, state), history = jax.lax.scan(
            step, (params, tx.init(params)), jnp.arange(STEPS + 1)
        )
        moments = {
            name: flatten(tree, shapes)
            for name, tree in state.moments._asdict().items()
            if tree is not None
        }
        return jax.tree.map(lambda x: x[:STEPS], history), moments

    def cast(value):
        whole = np.issubdtype(np.asarray(value).dtype, np.integer)
        return jnp.asarray(value, jnp.int32 if whole else dtype)

    data = {key: cast(trace[key]) for key in trace if key in DATA}
    numbers = jax.tree.map(cast, numbers_of(case))
    (loss, x, q, h), moments = train(cast(trace["x"][0]), data, numbers)
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
