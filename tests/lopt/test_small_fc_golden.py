"""Published implementations of small_fc, step by step, through the public functions."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small_fc_reference as reference

import lopt

FOLDER = pathlib.Path(__file__).parent.parent / "golden" / "mulo"
CASES = ("sp_default", "sp_amplified", "mup_default", "mup_amplified", "mup_nan")
CASES += ("mup_clip_nan",)
KEPT = (0, 4, 9)  # steps after which a trace holds the accumulators
DECAYS = ("momentum_decays", "rms_decays", "adafactor_decays")


@functools.cache
def load(name):
    trace = {}
    with np.load(FOLDER / f"lopt_{name}.npz") as file:
        for key in file:
            group, _, rest = key.partition("/")
            trace.setdefault(group, {})[rest] = file[key]
    return trace


def theta_of(trace):
    theta = dict(trace["theta"])
    return {**{name: theta.pop(name) for name in DECAYS}, "nn": theta}


def multipliers(trace):
    given = trace.get("lr_mult", dict.fromkeys(trace["grads"], 1.0))
    return {name: jnp.float32(1 / c) for name, c in given.items()}


@functools.cache
def compiled(parametrization, clip_norm):
    """Theta, multipliers and constants come as data: few programs for all traces."""

    def transform(theta, widths, constants):
        architecture = lopt.small_fc(
            parametrization,
            step_multiplier=constants["step_mult"],
            exp_multiplier=constants["exp_mult"],
            clip_norm=clip_norm,
        )
        return architecture.transform(theta, width_multipliers=widths)

    @jax.jit
    def init(params, *made_of):
        return transform(*made_of).init(params)

    @jax.jit
    def step(grads, state, params, *made_of):
        updates, state = transform(*made_of).update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return init, step


def made_of(trace):
    names = ("step_mult", "exp_mult")
    constants = {name: jnp.float32(trace["meta"][name]) for name in names}
    return theta_of(trace), multipliers(trace), constants


def programs(name, trace):
    clip_norm = float(trace["meta"]["clip_global_norm"]) or None
    return compiled(name.split("_")[0], clip_norm)


def assert_statistics(accumulators, trace, kept):
    kinds = {
        "m": accumulators.momenta,
        "rms": accumulators.second_moments,
        "v_row": accumulators.rows,
        "v_col": accumulators.cols,
        "v_diag": accumulators.rows,
    }
    compared = 0
    for kind, trees in kinds.items():
        for name, expected in trace[kind].items():
            for i, tree in enumerate(trees):
                wanted = expected[kept, ..., i]
                bound = 1e-4 * np.abs(wanted).max()
                got = np.asarray(tree[name]).reshape(wanted.shape)
                np.testing.assert_allclose(got, wanted, 0, bound)
                compared += 1
    assert compared == 11 * 4 + 8 * 6 + 3 * 3


@pytest.mark.parametrize("name", CASES)
def test_traces(name):
    trace = load(name)
    init, step = programs(name, trace)
    params = {k: jnp.asarray(p[0]) for k, p in trace["params"].items()}
    state = init(params, *made_of(trace))
    for t in range(10):
        grads = {k: jnp.asarray(g[t]) for k, g in trace["grads"].items()}
        params, state = step(grads, state, params, *made_of(trace))
        for k, expected in trace["params"].items():
            size = np.abs(np.diff(expected, axis=0)).max()
            bound = 1e-6 * np.abs(expected).max() + 1e-4 * size
            np.testing.assert_allclose(params[k], expected[t + 1], 0, bound)
        if t in KEPT:
            assert_statistics(state.accumulators, trace, KEPT.index(t))


def test_features():
    """The reference forms them; the fast form has the direction and magnitude."""
    trace, expected = load("sp_default"), load("features")
    theta = theta_of(trace)
    by_name = {"direction": {}, "magnitude": {}}
    for name, grads in trace["grads"].items():
        s = reference.start(grads.shape[1:])
        for t in range(4):
            g = np.asarray(grads[t], float)
            s = reference.advance(s, g, theta)
        p = np.asarray(trace["params"][name][3], float)
        x = reference.features(s, g, p, 3)
        np.testing.assert_allclose(x, expected["input"][f"3/{name}"], 2e-4, 2e-6)
        for kind, out in zip(by_name, reference.network(theta["nn"], x), strict=True):
            wanted = expected[kind][f"3/{name}"]
            np.testing.assert_allclose(out, wanted, 1e-4, 1e-4 * np.abs(wanted).max())
            by_name[kind][name] = wanted

    # Of what is added to a parameter: without the magnitude, and with the outputs of
    # the network swapped.
    init, step = compiled("sp", None)
    for kind, turn in (("direction", 1), ("magnitude", -1)):
        nn = theta["nn"]
        turned = {**nn, "w2": nn["w2"][:, ::turn], "b2": nn["b2"][::turn]}
        made = ({**theta, "nn": turned}, multipliers(trace))
        made += ({"step_mult": jnp.float32(1), "exp_mult": jnp.float32(0)},)
        params = {k: jnp.asarray(p[0]) for k, p in trace["params"].items()}
        state = init(params, *made)
        for t in range(4):
            params = {k: jnp.asarray(p[t]) for k, p in trace["params"].items()}
            grads = {k: jnp.asarray(g[t]) for k, g in trace["grads"].items()}
            after, state = step(grads, state, params, *made)
        for k, wanted in by_name[kind].items():
            bound = 2e-4 * np.abs(wanted).max() + 1e-6 * np.abs(params[k]).max()
            np.testing.assert_allclose(params[k] - after[k], wanted, 0, bound)
