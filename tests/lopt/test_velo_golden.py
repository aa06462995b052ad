"""A published implementation of VeLO and muVeLO, step by step; and known numbers."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import velo_reference as reference

import lopt

FOLDER = pathlib.Path(__file__).parent.parent / "golden" / "mulo"
STATE = ("lstm_hidden", "lstm_cell", "loss_means", "loss_running_min")


class Trace:
    """The arrays of a file, by their group, and the optimizer that made them."""

    def __init__(self, name):
        groups = {}
        with np.load(FOLDER / f"{name}.npz") as file:
            for key in file:
                group, _, rest = key.partition("/")
                groups.setdefault(group, {})[rest] = file[key]
        self.params, self.grads = groups["params"], groups["grads"]
        self.loss = groups["loss"][""]
        self.state = {key: groups[key][""] for key in STATE}
        assert list(groups["leaf_order"][""]) == sorted(self.params)
        meta = groups["meta"]
        self.architecture = lopt.velo(
            int(groups["num_steps"][""]),
            parametrization="mup" if "mup" in name else "sp",
            hidden_size=int(meta["lstm_hidden_size"]),
            bank_size=int(meta["param_inits"]),
            step_multiplier=float(meta["step_mult"]),
            exp_multiplier=float(meta["exp_mult"]),
            bank_multiplier=float(meta.get("interp_mult", 100)),
        )
        self.theta = nested(groups["theta"])
        factors = groups.get("lr_mult", dict.fromkeys(self.params, 1.0))
        self.widths = {key: float(1 / factor) for key, factor in factors.items()}

    def at(self, t):
        params = {key: jnp.asarray(p[t]) for key, p in self.params.items()}
        return params, {key: jnp.asarray(g[t]) for key, g in self.grads.items()}


def nested(flat):
    """Our tree, from names like "rnn_params::rnn/linear::w"."""
    theta = {}
    for name, array in flat.items():
        parts = name.replace("::", "/").split("/")
        *groups, last = [part for part in parts if part != "~"]
        inner = theta
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[last] = array
    return theta


@pytest.mark.parametrize("name", ["velo_small", "velo_mup_small"])
def test_traces(name):
    """Free, and with the recorded parameters before every step."""
    trace = Trace(name)
    tx = trace.architecture.transform(trace.theta, width_multipliers=trace.widths)
    update = jax.jit(tx.update)
    for forced in (True, False):
        params, _ = trace.at(0)
        state = tx.init(params)
        for t, loss in enumerate(trace.loss):
            recorded, grads = trace.at(t)
            params = recorded if forced else params
            updates, state = update(grads, state, params, value=loss)
            params = optax.apply_updates(params, updates)
            for key, expected in trace.params.items():
                size = np.abs(np.diff(expected, axis=0)).max()
                bound = 1e-6 * np.abs(expected).max() + 1e-4 * size
                np.testing.assert_allclose(params[key], expected[t + 1], 0, bound)
            found = (*state.lstm, state.loss.means, state.loss.minima)
            for got, expected in zip(found, trace.state.values(), strict=True):
                bound = 1e-4 * np.abs(expected[t]).max()
                np.testing.assert_allclose(got, expected[t], 0, bound)


WANTED = {
    "a": """-0.9105975 -0.6924734 -0.8115423 -0.9694816 -0.8821054
            -0.8085990 -0.9073501 -1.0490539 -1.0610758 -0.8507586""",
    "b": "-0.8657320 -0.6479656 -0.6940408 -0.9953170",
}


def numbered_theta():
    """Leaf j is 0.3 sin(0.11 j + 0.7 k), in the order of the published tree."""
    shapes = jax.eval_shape(
        lopt.velo(10, hidden_size=8, bank_size=4).init, jax.random.key(0)
    )
    names = [f"ff_mod_stack/w0__{i}" for i in range(14)]
    names += [f"ff_mod_stack/{name}" for name in ("b0", "w1", "b1", "w2", "b2")]
    names += [f"lstm_init_state/{name}" for name in ("hidden", "cell")]
    layers = ("linear", "linear_1", "linear_2", "rnn/linear", "rnn_to_controls")
    for layer in (*layers, "step_size"):
        names += [f"rnn_params/{layer}/{name}" for name in ("w", "b")]
    flat = {}
    for j, name in enumerate(names, 1):
        leaf = shapes
        for part in name.split("/"):
            leaf = leaf[part]
        k = np.arange(leaf.size).reshape(leaf.shape)
        flat[name] = 0.3 * np.sin(0.11 * j + 0.7 * k)
    return nested(flat)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_known_numbers(dtype):
    """Sums of updates, so that rounding of the parameters does not hide them."""

    def wave(shape, scale, phase):
        k = np.arange(np.prod(shape)).reshape(shape)
        return scale * np.sin(phase + 0.7 * k)

    shapes = {"a": (2, 5), "b": (4,)}
    params = {key: wave(shape, 0.3, 1) for key, shape in shapes.items()}
    gradients = [
        {key: wave(shape, 0.05, 2 + 0.3 * t) for key, shape in shapes.items()}
        for t in range(6)
    ]
    losses = [2.0, 1.5, 1.8, 1.2, 1.1, 1.0]
    theta = numbered_theta()
    with jax.enable_x64(dtype == "float64"):
        tx = lopt.velo(10, hidden_size=8, bank_size=4).transform(theta)
        moved = jax.tree.map(lambda p: jnp.asarray(p, dtype), params)
        state, update = tx.init(moved), jax.jit(tx.update)
        total = dict.fromkeys(params, 0.0)
        for grads, loss in zip(gradients, losses, strict=True):
            grads = jax.tree.map(lambda g: jnp.asarray(g, dtype), grads)
            updates, state = update(grads, state, moved, value=jnp.asarray(loss, dtype))
            moved = optax.apply_updates(moved, updates)
            total = {key: total[key] + np.float64(u) for key, u in updates.items()}
    ours, _ = reference.run_velo(theta, params, gradients, losses, 10)
    for key, text in WANTED.items():
        wanted = 1e-4 * np.array(text.split(), float).reshape(shapes[key])
        bound = 2e-6 * np.abs(wanted).max()
        np.testing.assert_allclose(total[key], wanted, 0, bound)
        np.testing.assert_allclose(ours[-1][key] - params[key], wanted, 0, bound)
