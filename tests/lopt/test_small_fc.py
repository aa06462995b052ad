"""small_fc against its equations, on every kind of leaf and in every transformation."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small_fc_reference as reference

import lopt
from lopt import blocks, perceptron

SHAPES = {
    "scalar": (),
    "one": (1,),
    "vector": (37,),
    "wide": (3, 50),
    "tall": (50, 3),
    "square": (6, 6),
    "flat": (1, 9),
    "thin": (9, 1),
    "unit": (1, 1),
    "cube": (5, 2, 4),
    "ties": (5, 5, 3, 2),
    "kernel": (3, 3, 8, 8),
}


def draw(seed, scale=1.0, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    return {k: np.float32(scale * rng.normal(size=s)) for k, s in shapes.items()}


@pytest.fixture(scope="module")
def theta():
    """All of it matters: offsets of decays, and biases."""
    theta = lopt.small_fc().init(jax.random.key(0))
    leaves, treedef = jax.tree.flatten(theta)
    rng = np.random.default_rng(1)
    moved = [x + np.float32(0.05 * rng.normal(size=x.shape)) for x in leaves]
    return treedef.unflatten(moved)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def update(architecture, limit, sharers, theta, grads, state, params):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "CPU_BLOCK", limit)
        for module in (blocks, perceptron):
            patch.setattr(module, "sharers", lambda: sharers)
        return architecture.transform(theta).update(grads, state, params)


def run(architecture, theta, params, gradients, limit=blocks.CPU_BLOCK, sharers=8):
    """All updates and the last state, with blocks of a size, for so many devices."""
    state = architecture.transform(theta).init(params)
    steps = []
    for grads in gradients:
        arguments = (theta, grads, state, params)
        updates, state = update(architecture, limit, sharers, *arguments)
        params = optax.apply_updates(params, updates)
        steps.append(updates)
    return steps, state


def expected(theta, params, gradients, **options):
    steps = []
    states = {name: reference.start(np.shape(p)) for name, p in params.items()}
    params = {name: np.asarray(p, float) for name, p in params.items()}
    for t, grads in enumerate(gradients):
        steps.append({})
        for name, p in params.items():
            step, states[name] = reference.update(
                theta, states[name], grads[name], p, t, **options
            )
            params[name] = p + step
            steps[-1][name] = step
    return steps


def assert_steps_close(got, wanted, bound=2e-4):
    for mine, theirs in zip(got, wanted, strict=True):
        for name, step in theirs.items():
            size = np.abs(step).max()
            np.testing.assert_allclose(mine[name], step, 0, bound * size + 1e-9)


LOUD = dict(step_multiplier=0.3, exp_multiplier=0.5)
GRADIENTS = [draw(seed, 10.0 ** (seed - 4)) for seed in range(3, 7)]


@pytest.mark.parametrize("sharers", [1, 8])
def test_naive_equals_fused(theta, sharers):
    params = draw(2)
    steps, _ = run(lopt.small_fc(**LOUD), theta, params, GRADIENTS, sharers=sharers)
    wanted = expected(theta, params, GRADIENTS, step=0.3, exp=0.5)
    assert_steps_close(steps, wanted)


def test_blocks_change_nothing(theta):
    """Rows of slabs, columns where rows are too long, and what is left over."""
    params, gradients = draw(2), GRADIENTS[:2]
    architecture = lopt.small_fc(**LOUD)
    whole, _ = run(architecture, theta, params, gradients)
    plans = [blocks._plan(shape, 24) for shape in SHAPES.values()]
    plans = [plan for plan in plans if plan]
    assert {plan.axis for plan in plans} == {-1, -2, -3, -4}
    assert any(plan.rest for plan in plans) and any(plan.slabs > 1 for plan in plans)
    blocked, _ = run(architecture, theta, params, gradients, limit=24)
    for mine, theirs in zip(blocked, whole, strict=True):
        chex.assert_trees_all_close(mine, theirs, rtol=2e-5, atol=1e-6)


def test_state_size(theta):
    params = draw(2)
    state = lopt.small_fc().transform(theta).init(params)
    sizes = {name: 0 for name in params}
    for tree in [tree for kind in state.accumulators for tree in kind]:
        for name, leaf in tree.items():
            sizes[name] += leaf.size
            assert leaf.dtype == jnp.float32
    for name, shape in SHAPES.items():
        total = np.prod(shape, dtype=int)
        if len(shape) < 2:
            assert sizes[name] == 7 * total
        else:
            small, large = np.sort(shape)[-2:]
            assert sizes[name] == 4 * total + 3 * (total // large + total // small)
    assert state.count == 0 and state.count.dtype == jnp.int32


def test_zero_gradients_for_long(theta):
    params = draw(2)
    zeros = jax.tree.map(jnp.zeros_like, params)
    tx = lopt.small_fc().transform(theta)

    @jax.jit
    def long(state):
        def step(carry, _):
            params, state = carry
            updates, state = tx.update(zeros, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), length=2000)[0]

    chex.assert_tree_all_finite(long(tx.init(params)))


def test_low_precision(theta):
    """Parameters are bfloat16; the state and the arithmetic are not."""
    low = optax.tree.cast(draw(2), jnp.bfloat16)
    high = optax.tree.cast(low, jnp.float32)
    architecture = lopt.small_fc(**LOUD)
    grads = optax.tree.cast(GRADIENTS[1], jnp.bfloat16)
    (steps,), state = run(architecture, theta, low, [grads])
    (wanted,), _ = run(architecture, theta, high, [optax.tree.cast(grads, "float32")])
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(state.accumulators))
    assert all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(steps))
    chex.assert_trees_all_close(
        optax.tree.cast(steps, jnp.float32), wanted, rtol=8e-3, atol=1e-6
    )


def test_vmap_over_everything(theta):
    """Particles with theta, parameters and gradients of their own, in one scan."""
    tx = lopt.small_fc(**LOUD).transform(theta)
    shapes = {name: SHAPES[name] for name in ("vector", "wide", "cube")}
    particles = [draw(seed, 1, shapes) for seed in (7, 8)]
    params = jax.tree.map(lambda *x: jnp.stack(x), *particles)
    thetas = jax.tree.map(lambda x: jnp.stack([x, 0.9 * x]), theta)

    def trajectory(params, theta):
        state = tx.init(params)._replace(hyperparams=theta)

        def step(carry, _):
            params, state = carry
            grads = jax.tree.map(jnp.sin, params)
            updates, state = tx.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), length=3)[0]

    together = jax.jit(jax.vmap(trajectory))(params, thetas)
    for i in range(2):
        one = jax.tree.map(lambda x: x[i], (params, thetas))  # noqa: B023
        chex.assert_trees_all_close(
            jax.tree.map(lambda x: x[i], together),  # noqa: B023
            jax.jit(trajectory)(*one),
            rtol=1e-4,
            atol=1e-5,
        )


def test_derivative_by_theta(theta):
    """Also where gradients are 0, and through blocks."""
    architecture = lopt.small_fc(hidden_size=32, **LOUD)
    shapes = {"vector": (5,), "scalar": (), "matrix": (4, 3)}
    params = draw(2, 1, shapes)
    tx = architecture.transform(theta)

    def loss(theta, scale):
        state = tx.init(params)._replace(hyperparams=theta)
        moved = params
        for _ in range(2):
            grads = jax.tree.map(lambda x: scale * x, moved)
            updates, state = tx.update(grads, state, moved)
            moved = optax.apply_updates(moved, updates)
        return optax.tree.norm(moved, squared=True)

    gradient = jax.jit(jax.grad(loss))
    chex.assert_tree_all_finite(gradient(theta, 0.0))
    slopes = gradient(theta, 1.0)
    assert all(jnp.abs(x).max() > 0 for x in jax.tree.leaves(slopes))


@pytest.mark.parametrize("spec", [("x", None), (None, "x")])
@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
@pytest.mark.parametrize("limit", [1 << 14, 40])
def test_sharded_equals_whole(theta, spec, kind, limit):
    """Means over a tensor are global, and blocks stay where the leaf is."""
    shapes = {"matrix": (16, 24), "vector": (64,)}
    params, gradients = draw(2, 1, shapes), [draw(i, 1, shapes) for i in (3, 4)]
    architecture = lopt.small_fc(**LOUD)
    alone, state = run(architecture, theta, params, gradients)
    mesh = jax.make_mesh(
        (8,), ("x",), axis_types=(getattr(jax.sharding.AxisType, kind),)
    )
    specs = {"matrix": jax.P(*spec), "vector": jax.P("x")}

    def spread(tree):
        put = {k: jax.NamedSharding(mesh, specs[k]) for k in tree}
        return jax.device_put(tree, put)

    with jax.set_mesh(mesh):
        many, new = run(
            architecture, theta, spread(params), [*map(spread, gradients)], limit
        )
        assert many[0]["matrix"].sharding.is_equivalent_to(
            jax.NamedSharding(mesh, specs["matrix"]), 2
        )
    chex.assert_trees_all_close(jax.device_get(many), alone, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(jax.device_get(new), state, rtol=1e-5, atol=1e-6)


def test_permutations(theta):
    """Entries of a vector, and rows and columns of a matrix, have no order."""
    shapes = {"vector": (11,), "matrix": (5, 7)}
    params, grads = draw(2, 1, shapes), draw(3, 1, shapes)
    rng = np.random.default_rng(4)
    rows, cols, entries = map(rng.permutation, (5, 7, 11))

    def permuted(tree):
        matrix = tree["matrix"][rows][:, cols]
        return {"vector": tree["vector"][entries], "matrix": matrix}

    architecture = lopt.small_fc(**LOUD)
    (plain,), _ = run(architecture, theta, params, [grads])
    (moved,), _ = run(architecture, theta, permuted(params), [permuted(grads)])
    chex.assert_trees_all_close(permuted(plain), moved, rtol=1e-4, atol=1e-6)


def test_scale_of_the_gradient_does_not_matter(theta):
    """Where every epsilon is as good as 0, in float64."""
    with jax.enable_x64(True):
        shapes = {"vector": (11,), "matrix": (5, 7)}
        params = optax.tree.cast(draw(2, 1, shapes), jnp.float64)
        architecture = lopt.small_fc(**LOUD, scale_eps=True)
        tx = architecture.transform(theta, width_multipliers=1e9)
        steps = []
        for scale in (0.1, 1.0, 10.0):
            grads = optax.tree.cast(draw(3, scale, shapes), jnp.float64)
            state = tx.init(params)
            steps.append(jax.jit(tx.update)(grads, state, params)[0])
        for other in (steps[0], steps[2]):
            chex.assert_trees_all_close(other, steps[1], rtol=1e-5)


def test_pass_through_is_adam_of_fixed_size():
    """RMS-normalised m / sqrt(v + eps), and c(W) divides it."""
    architecture = lopt.small_fc("sp", hidden_size=2, exp_multiplier=0.7)
    theta = architecture.pass_through(6)
    params = {"w": draw(2, 1, {"w": (6, 4)})["w"]}
    tx = architecture.transform(theta, width_multipliers={"w": 4.0})
    grads = {"w": draw(3, 1, {"w": (6, 4)})["w"]}
    updates, _ = tx.update(grads, tx.init(params), params)
    ratio = 0.1 * grads["w"] / np.sqrt(0.001 * grads["w"] ** 2 + 1e-6)
    wanted = -0.001 / 4 * ratio / np.sqrt(1e-5 + np.mean(ratio**2))
    np.testing.assert_allclose(updates["w"], wanted, rtol=1e-4, atol=1e-8)


def test_clipping_has_a_derivative_at_zero_gradients():
    architecture = lopt.small_fc(hidden_size=2, clip_norm=1.0)
    theta = architecture.init(jax.random.key(0))

    def update(theta):
        tx = architecture.transform(theta)
        params = {"w": jnp.ones(3)}
        state = tx.init(params)
        grads = jax.tree.map(lambda x: 0 * x * theta["nn"]["b2"].sum(), params)
        return tx.update(grads, state, params)[0]["w"].sum()

    # The derivative goes through the gradient, too, as in an unroll.
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(jax.grad(update)(theta)))
