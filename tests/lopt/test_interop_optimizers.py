"""Optimizers of `learned_optimization` here, and ours there: the same updates."""

import functools
import importlib.util
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lopt
from lopt.interop import (
    compatibility,
    from_learned_optimization,
    to_learned_optimization,
)
from lopt.keys import particle_keys

if importlib.util.find_spec("learned_optimization") is None:
    pytest.skip("learned_optimization is not installed", allow_module_level=True)
with compatibility():
    from learned_optimization.learned_optimizers import base as lopt_base
    from learned_optimization.learned_optimizers.adafac_mlp_lopt import AdafacMLPLOpt
    from learned_optimization.learned_optimizers.rnn_mlp_lopt import RNNMLPLOpt
    from learned_optimization.optimizers import base as opt_base
    from learned_optimization.outer_trainers import common, gradient_learner
    from learned_optimization.outer_trainers.truncated_pes import TruncatedPES
    from learned_optimization.outer_trainers.truncation_schedule import (
        ConstantTruncationSchedule,
    )
    from learned_optimization.tasks import base as tasks_base


# Lengths differ: which of two equal axes theirs takes for the larger depends on NumPy.
SHAPES = {
    "scalar": (),
    "vector": (7,),
    "matrix": (5, 3),
    "cube": (3, 2, 4),
    "kernel": (2, 5, 3, 4),
}


def normal(seed, like):
    """A tree of random numbers of the shapes of another."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), like)


PARAMS = normal(0, {name: np.zeros(shape) for name, shape in SHAPES.items()})
LEARNED = AdafacMLPLOpt(hidden_size=32, step_mult=0.1)
THETA = jax.tree.map(
    lambda x: x / 8 if x.ndim > 1 else x / 80,
    normal(1, jax.eval_shape(LEARNED.init, jax.random.PRNGKey(0))),
)
SMALL_FC = lopt.small_fc("sp", hidden_size=32, step_multiplier=0.1)


@functools.partial(jax.jit, static_argnums=0)
def updates_of(tx, gradients):
    """Updates along the first axis of `gradients`, at fixed parameters."""

    def step(state, gradient):
        updates, state = tx.update(gradient, state, PARAMS, value=1.0)
        return state, updates

    return jax.lax.scan(step, tx.init(PARAMS), gradients)[1]


def stacked(*trees):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


THEIRS = from_learned_optimization.learned_optimizer(LEARNED, num_steps=10).transform(
    THETA
)
OURS = SMALL_FC.transform(from_learned_optimization.theta(THETA))


def test_updates_of_small_fc_on_tensors_of_every_rank():
    first, second = normal(2, PARAMS), normal(3, PARAMS)
    # Theirs of 2022 has no 1e-6 below the root that divides momenta of vectors.
    large = {**first, "scalar": 100 * first["scalar"], "vector": 100 * first["vector"]}
    gradients = stacked(large, second)
    expected = updates_of(THEIRS, gradients)
    found = updates_of(OURS, gradients)
    chex.assert_trees_all_close(found, expected, atol=1e-6, rtol=0)
    assert all(jnp.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(expected))


def test_where_small_gradients_of_vectors_tell_the_release_of_2022():
    small = jax.tree.map(lambda x: 1e-3 * x, normal(2, PARAMS))
    found, expected = (updates_of(tx, stacked(small, small)) for tx in (OURS, THEIRS))
    difference = jax.tree.map(lambda a, b: np.abs(a - b).max(), found, expected)
    assert {name for name, value in difference.items() if value > 1e-6} == {
        "scalar",
        "vector",
    }


@pytest.mark.parametrize(
    ("theirs", "expected"),
    [
        (opt_base.SGD(0.1), optax.sgd(0.1)),
        (opt_base.Adam(0.1), optax.adam(0.1, eps_root=1e-8)),
        (opt_base.GradientClipOptimizer(opt_base.SGD(0.1), 0.5), None),
    ],
)
def test_optimizers_in_a_chain(theirs, expected):
    expected = expected or optax.chain(optax.clip(0.5), optax.sgd(0.1))

    def chain(tx):
        return optax.apply_if_finite(optax.chain(optax.clip_by_global_norm(5.0), tx), 3)

    gradients = stacked(*(normal(seed, PARAMS) for seed in range(3)))
    gradients["vector"][1] = np.nan
    found = updates_of(chain(from_learned_optimization.optimizer(theirs)), gradients)
    expected = updates_of(chain(expected), gradients)
    chex.assert_trees_all_close(found, expected, atol=1e-6)


class Quadratic(tasks_base.Task):
    """On a matrix, since vectors differ between the releases."""

    def init(self, key):
        return {"w": jax.random.normal(key, (3, 2))}

    def loss(self, params, key, data):
        return jnp.sum(params["w"] ** 2)


LENGTH, NUM_PARTICLES, STD = 5, 3, 0.1
PES_CASES = {
    "theirs": from_learned_optimization.learned_optimizer(lopt_base.LearnableSGD(0.1)),
    "ours": lopt.small_fc("sp", hidden_size=2, step_multiplier=0.1),
}


@pytest.mark.parametrize("case", PES_CASES)
def test_pes_gradients(case):
    architecture = PES_CASES[case]
    task = from_learned_optimization.task(Quadratic())
    theta = architecture.init(jax.random.key(0))
    theirs = TruncatedPES(
        tasks_base.single_task_to_family(to_learned_optimization.task(task)),
        to_learned_optimization.learned_optimizer(architecture),
        ConstantTruncationSchedule(100),
        num_tasks=NUM_PARTICLES,
        trunc_length=LENGTH,
        steps_per_jit=LENGTH,
        std=STD,
    )
    unroll = lopt.Unroll(task, architecture.transform(theta), lopt.Constant(100))
    pes = lopt.pes(NUM_PARTICLES, STD, LENGTH)
    indices = jnp.arange(NUM_PARTICLES)
    weights = gradient_learner.WorkerWeights(
        theta, None, gradient_learner.OuterState(jnp.zeros((), jnp.int32))
    )

    @jax.jit
    def start(params):
        state = pes.init(unroll, theta, jax.random.key(0), indices)
        both = jax.tree.map(lambda x: jnp.stack([x, x], axis=1), params)
        return state._replace(particles=state.particles._replace(params=both))

    @jax.jit
    def advance(state, key):
        keys = particle_keys(jax.random.key(0), indices)
        noise_key = jax.random.split(key)[1]
        noise, _, _ = common.vector_sample_perturbations(
            theta, noise_key, STD, NUM_PARTICLES
        )
        return pes.advance(unroll, theta, state, noise, keys, {"train": ()})

    their_state = theirs.init_worker_state(weights, jax.random.PRNGKey(1))
    state = start(their_state.pos_state.inner_opt_state.params)
    for call in range(2):
        key = jax.random.PRNGKey(call)
        out, _ = theirs.compute_gradient_estimate(weights, key, their_state)
        their_state = out.unroll_state
        state, estimate = advance(state, key)
        for found, expected in zip(
            jax.tree.leaves(estimate.gradient), jax.tree.leaves(out.grad), strict=True
        ):
            scale = np.abs(expected).max()
            np.testing.assert_allclose(
                found / NUM_PARTICLES, expected, atol=1e-4 * scale
            )
            assert scale > 1e-3
        np.testing.assert_allclose(
            estimate.loss / NUM_PARTICLES, out.mean_loss, rtol=1e-5
        )


class NoisyState(NamedTuple):
    params: jax.Array
    state: dict
    mean: jax.Array


class Noisy(opt_base.Optimizer):
    """Moves by noise, times what the model's state says, and promotes its own mean."""

    def init(self, params, state=None, num_steps=None, key=None, **kwargs):
        assert key.dtype == jnp.uint32
        return NoisyState(params, state, jnp.zeros_like(params))

    def update(self, opt_state, grad, model_state=None, key=None, **kwargs):
        assert key.dtype == jnp.uint32
        step = model_state["scale"] * jax.random.normal(key)
        return NoisyState(opt_state.params + step, {}, opt_state.mean + step)


def test_keys_and_the_state_of_the_model_reach_the_optimizer():
    def make(seed=0):
        return from_learned_optimization.optimizer(
            Noisy(), seed=seed, model_state={"scale": 1.0}
        )

    tx, params = make(), jnp.zeros(2)
    state = tx.init(params)
    update = jax.jit(tx.update)
    first, after = update(params, state, params)
    second, _ = update(params, after, params)
    given = [
        update(params, s, params, key=jax.random.key(1))[0] for s in (state, after)
    ]
    scaled, _ = update(params, state, params, model_state={"scale": 3.0})
    assert jnp.all(first != second)
    assert jnp.all(given[0] == given[1])
    assert jnp.all(given[0] == jax.random.normal(jax.random.PRNGKey(1)))
    assert jnp.all(
        first != make(seed=1).update(params, make(1).init(params), params)[0]
    )
    np.testing.assert_allclose(scaled, 3 * first, rtol=1e-6)

    low = jnp.zeros(2, jnp.bfloat16)
    updates, after = update(low, tx.init(low), low)
    assert updates.dtype == after.inner.mean.dtype == jnp.bfloat16


def test_the_state_is_of_arrays_with_theta_and_without_parameters():
    state = jax.eval_shape(THEIRS.init, PARAMS)
    theta = optax.tree.get(state, "hyperparams")
    assert jax.tree.structure(theta) == jax.tree.structure(
        jax.eval_shape(SMALL_FC.init, jax.random.key(0))
    )
    assert state.inner.inner.params is None
    after = jax.eval_shape(THEIRS.update, PARAMS, state, PARAMS)[1]
    chex.assert_trees_all_equal_shapes_and_dtypes(state, after)
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(state))


def test_runs_with_thetas_of_their_own_side_by_side():
    architecture = from_learned_optimization.learned_optimizer(lopt_base.LearnableSGD())
    rates = jnp.array([0.5, 0.1])

    @jax.vmap
    def updated(rate, gradient):
        tx = architecture.transform({"log_lr": jnp.log(rate)})
        return tx.update(gradient, tx.init(gradient), gradient)[0]

    found = jax.jit(updated)(rates, jnp.ones(2))
    np.testing.assert_allclose(found, -rates, rtol=1e-6)


def test_width_multipliers_divide_updates():
    architecture = from_learned_optimization.learned_optimizer(lopt_base.LearnableSGD())
    params = {"in": jnp.ones(2), "hidden": jnp.ones(2)}
    widths = {"in": 1.0, "hidden": 4.0}
    theta = {"log_lr": jnp.zeros(())}
    tx = architecture.transform(theta, width_multipliers=widths)
    updates, _ = tx.update(params, tx.init(params), params)
    np.testing.assert_allclose(updates["hidden"], -0.25, rtol=1e-6)
    np.testing.assert_allclose(updates["in"], -1, rtol=1e-6)


def test_an_optax_transformation_gets_the_loss_there():
    def update(updates, state, params=None, *, value, **_):
        return jax.tree.map(lambda g: -value * g, updates), state

    tx = optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)
    opt = to_learned_optimization.optimizer(tx)
    assert isinstance(opt_base.GradientClipOptimizer(opt), opt_base.Optimizer)
    state = opt.init(jnp.ones(2), {"mean": 0.0}, num_steps=5, key=jax.random.PRNGKey(0))
    state = opt.update(state, jnp.ones(2), loss=3.0, model_state={"mean": 1.0})
    assert opt.get_params(state).tolist() == [-2, -2]
    assert opt.get_state(state) == {"mean": 1.0}
    assert opt.get_params(opt.set_params(state, jnp.zeros(2))).tolist() == [0, 0]


def test_theta_both_ways():
    found = to_learned_optimization.theta(OURS.init(PARAMS).hyperparams, LEARNED)
    chex.assert_trees_all_equal(found, THETA)


def test_a_missing_loss_is_named():
    theirs = RNNMLPLOpt()
    architecture = from_learned_optimization.learned_optimizer(theirs, num_steps=3)
    shapes = jax.eval_shape(architecture.init, jax.random.key(0))
    tx = architecture.transform(jax.tree.map(lambda x: np.zeros(x.shape), shapes))
    with pytest.raises(ValueError, match="loss") as error:
        jax.eval_shape(lambda p: tx.update(p, tx.init(p), p), PARAMS)
    assert "value=loss" in error.value.__notes__[0]


def test_bad_input():
    with pytest.raises(ValueError, match="learned_optimizer"):
        from_learned_optimization.optimizer(LEARNED)
    with pytest.raises(ValueError, match="no learned optimizer"):
        from_learned_optimization.learned_optimizer(opt_base.SGD())
    with pytest.raises(ValueError, match="params"):
        tx = from_learned_optimization.optimizer(opt_base.SGD())
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
    small = lopt.small_fc("sp", hidden_size=4).init(jax.random.key(0))
    with pytest.raises(ValueError, match=r"\['nn'\]\['w0'\] is \(39, 4\), not"):
        from_learned_optimization.learned_optimizer(LEARNED).transform(small)
    with pytest.raises(ValueError, match=r"\['nn'\]\['w0'\] is \(39, 4\), not"):
        to_learned_optimization.theta(small, LEARNED)
