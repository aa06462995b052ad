"""The rules of an unroll that are easy to get wrong, one by one."""

import dataclasses
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from inner_toys import follow, quadratic, sgd, task

from lopt.estimators import PES, FullES, NoiseReuseES, TruncatedBackprop, TruncatedES
from lopt.truncation import Constant, LogUniform
from lopt.unroll import Unroll
from tasks.base import Task

KEYS = jax.random.split(jax.random.key(0), 4)
RATES = {"learning_rate": jnp.full((4, 2), 0.5).at[:, 1].set(0.25)}
DATA = {"train": jnp.ones(1), "valid": jnp.ones(1)}


def noisy():
    """Starts anywhere, and is told by its loss which batch and which noise it saw."""

    def init(key):
        return {"x": jax.random.normal(key, (3,))}, {"steps": jnp.zeros((), jnp.int32)}

    def loss(params, model_state, batch, key):
        steps = model_state["steps"] + 1
        value = 0.5 * jnp.sum(params["x"] ** 2) * 0 + batch + jax.random.normal(key)
        return value + jnp.sum(params["x"]), {"steps": steps}

    return Task(
        name="noisy",
        init=init,
        loss=loss,
        sample=lambda data, key: data[0] * jax.random.normal(key),
        evaluate=lambda *_: {},
        data=DATA,
    )


def run(unroll, thetas=RATES, num_steps=6, keys=KEYS, data=DATA, particles=None):
    """Particles after the start, after a truncation, and its trajectory."""

    @jax.jit
    def both(particles):
        if particles is None:
            particles = unroll.start(thetas, keys)
        after, path = unroll.run(lambda _: thetas, particles, keys, data, num_steps)
        return particles, after, path

    return both(particles)


def test_a_pair_shares_start_batches_noise_and_restarts():
    """Rule (a): with one theta for both, nothing ever differs."""
    same = jax.tree.map(jnp.ones_like, RATES)
    unroll = Unroll(noisy(), sgd(), LogUniform(1, 5, stagger=3))
    for tree in run(unroll, same, 12):
        runs = tree.runs if hasattr(tree, "runs") else (tree.loss, tree.finite)
        axis = 1 if hasattr(tree, "runs") else 2
        first, second = (
            jax.tree.map(partial(jnp.take, indices=i, axis=axis), runs) for i in (0, 1)
        )
        chex.assert_trees_all_equal(first, second)
    losses = run(unroll, same, 12)[2].loss
    assert len(np.unique(losses[..., 0])) > 30


def test_a_restart_takes_a_step_and_starts_anew():
    start, after, path = run(Unroll(noisy(), sgd(), Constant(2)), num_steps=5)
    assert path.mask[:, 0].tolist() == [True, True, False, True, True]
    assert path.ticks.done[:, 0].tolist() == [False, True, False, False, True]
    assert np.all(path.loss[2] == 0)
    assert np.all(after.model_state["steps"] == 2)
    assert after.step.tolist() == [2] * 4
    _, restarted, _ = run(Unroll(noisy(), sgd(), Constant(2)), num_steps=3)
    assert np.all(restarted.model_state["steps"] == 0)
    x = restarted.params["x"]
    assert np.all(x[:, 0] == x[:, 1]) and not np.any(x == start.params["x"])


def test_only_what_is_due_restarts():
    unroll = Unroll(quadratic(), sgd(), Constant(4))
    start = jax.jit(unroll.start)(RATES, KEYS)
    start = start._replace(step=jnp.array([4, 3, 0, 1]))
    _, after, path = run(unroll, num_steps=1, particles=start)
    assert path.ticks.restart[0].tolist() == [True, False, False, False]
    assert after.step.tolist() == [0, 4, 1, 2]
    np.testing.assert_allclose(after.params["x"][:, 0, 0], [1, 0.5, 0.5, 0.5])


def test_the_loss_is_that_before_the_update():
    data = {"train": jnp.zeros(1)}
    _, _, path = run(Unroll(quadratic(), sgd(), Constant(9)), num_steps=3, data=data)
    positive = 0.5 * np.array([1, 0.25, 0.0625])
    np.testing.assert_allclose(path.loss[:, 0, 0], positive, rtol=1e-6)


def test_a_meta_split_gives_the_loss_after_the_update_on_that_split():
    unroll = Unroll(
        dataclasses.replace(quadratic(), sample=lambda data, key: data[0]),
        sgd(),
        Constant(9),
        meta_split="valid",
    )
    assert unroll.splits == ("train", "valid")
    data = {"train": jnp.array([100.0]), "valid": jnp.array([7.0])}
    _, _, path = run(unroll, num_steps=3, data=data)
    positive = 7 + 0.5 * np.array([0.25, 0.0625, 0.015625])
    np.testing.assert_allclose(path.loss[:, 0, 0], positive, rtol=1e-6)


@pytest.mark.parametrize(
    ("bad", "max_loss", "expected"),
    [(np.nan, None, 20), (np.inf, None, 20), (-np.inf, None, 20), (50, 6.0, 6)],
)
def test_a_loss_that_is_not_finite_is_replaced_and_counted(bad, max_loss, expected):
    """Rule (d): in each sign by itself, before the pair is differenced."""
    toy = task(lambda x, batch: jnp.where(x[0] < 0.6, bad, 1.0) + 0 * x[0])
    tx = follow()
    unroll = Unroll(toy, tx, Constant(9), max_loss=max_loss)
    thetas = jnp.array([[[0.5], [0.7]]])
    _, _, path = run(unroll, thetas, 4, KEYS[:1])
    assert path.loss[:, 0, 0].tolist() == [1, expected, expected, expected]
    assert path.loss[:, 0, 1].tolist() == [1] * 4
    assert np.sum(~path.finite) == (0 if np.isfinite(bad) else 3)


def test_losses_are_normalised_before_they_are_judged():
    toy = task(
        lambda x, batch: jnp.nan * x[0],
        normalize=lambda loss: jnp.where(jnp.isfinite(loss), loss, 3.0),
    )
    estimator = PES(4, truncation_length=5)
    state, estimate = one_call(estimator, Unroll(toy, sgd(), Constant(2)))
    # Runs of two steps: of the five steps of a particle, one restarts.
    assert estimate.loss == 3 * 4
    assert estimate.num_nonfinite == estimate.num_steps == 4 * 2 * 4
    assert np.all(np.isfinite(estimate.gradient["learning_rate"]))
    assert np.all(state.particles.step == 2)


def one_call(estimator, unroll, indices=None, theta=None, calls=1):
    indices = jnp.arange(estimator.num_particles) if indices is None else indices
    theta = {"learning_rate": jnp.float32(0.3)} if theta is None else theta
    data = {name: unroll.task.data[name] for name in unroll.splits}
    key = jax.random.key(7)
    state = jax.jit(lambda: estimator.init(unroll, theta, key, indices))()

    @jax.jit
    def estimate(state, key):
        return estimator.estimate(unroll, theta, state, key, indices, data)

    for call_key in jax.random.split(key, calls):
        state, last = estimate(state, call_key)
    assert estimate._cache_size() == 1
    return state, last


def test_particles_start_at_random_stages():
    """Rule (e): some run ends in each of the first truncations."""
    unroll = Unroll(quadratic(), sgd(), Constant(20, stagger=20))
    state = jax.jit(lambda: PES(64).init(unroll, theta(), KEYS[0], jnp.arange(64)))()
    remaining = np.asarray(state.particles.length - state.particles.step)
    assert np.all(np.histogram(remaining, bins=[1, 6, 11, 16, 21])[0] > 6)


def theta():
    return {"learning_rate": jnp.float32(0.3)}


@pytest.mark.parametrize(
    "estimator",
    [
        PES(8, 0.1, 4),
        TruncatedES(8, 0.1, 4),
        FullES(8, 0.1),
        NoiseReuseES(8, 0.1, 4),
        TruncatedBackprop(8, 4),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_it_makes_no_difference_how_particles_are_spread(estimator):
    """In two halves one after the other, or all at once, sharded over two devices."""
    unroll = Unroll(noisy(), sgd(), LogUniform(2, 6, stagger=3))
    keys = jax.random.split(jax.random.key(7), 3)
    init = partial(estimator.init, unroll, theta(), keys[0])
    estimate = partial(estimator.estimate, unroll, theta(), data=DATA)

    def run(init, estimate, indices):
        state = init(indices=indices)
        for key in keys:
            state, last = estimate(state=state, key=key, indices=indices)
        return last

    jitted = partial(run, jax.jit(init), jax.jit(estimate))
    first, second = jitted(jnp.arange(4)), jitted(jnp.arange(4, 8))
    assert abs(first.loss - second.loss) > 1e-3

    mesh = jax.sharding.Mesh(
        jax.devices()[:2], ("particles",), axis_types=(jax.sharding.AxisType.Auto,)
    )
    shares = jax.P("particles")

    def sums(state, key, indices):
        state, last = estimate(state=state, key=key, indices=indices)
        return state, jax.tree.map(lambda x: jax.lax.psum(x, "particles"), last)

    sharded_init = jax.shard_map(
        lambda indices: init(indices=indices),
        mesh=mesh,
        in_specs=shares,
        out_specs=shares,
    )
    sharded_sums = jax.shard_map(
        sums,
        mesh=mesh,
        in_specs=(shares, jax.P(), shares),
        out_specs=(shares, jax.P()),
    )
    jitted_init, jitted_sums = jax.jit(sharded_init), jax.jit(sharded_sums)
    together = run(
        lambda indices: jitted_init(indices),
        lambda state, key, indices: jitted_sums(state, key, indices),
        jnp.arange(8),
    )
    halves = jax.tree.map(jnp.add, first, second)
    chex.assert_trees_all_close(halves, together, rtol=1e-5, atol=1e-5)


def test_what_update_leaves_alone_follows_theta_at_once():
    """Truncations perturb anew, also in the middle of a run."""
    unroll = Unroll(task(lambda x, batch: x[0]), follow(), Constant(100))
    start, *_ = run(unroll, jnp.full((4, 2, 1), 5.0), 1)
    _, after, path = run(unroll, jnp.full((4, 2, 1), 8.0), 2, particles=start)
    assert path.loss[:, 0, 0].tolist() == [1, 8]
    assert np.all(after.opt_state.hyperparams == 8)


def test_what_the_optimizer_moves_starts_from_theta():
    """At the start of a run, and at no other time."""
    unroll = Unroll(task(lambda x, batch: x[0]), follow(moves=True), Constant(3))
    start, *_ = run(unroll, jnp.full((4, 2, 1), 5.0), 1)
    thetas = jnp.full((4, 2, 1), 8.0)
    _, begun, path = run(unroll, thetas, 2, particles=start)
    assert path.loss[:, 0, 0].tolist() == [1, 8]
    _, after, path = run(unroll, 2 * thetas, 5, particles=begun)
    # The third step of the run, the restart, and three steps of the next run.
    assert path.loss[:, 0, 0].tolist() == [4, 0, 1, 16, 8]
    assert np.all(after.opt_state.hyperparams == 2)


def test_theta_is_mapped_to_some_of_the_hyperparams():
    adam = optax.inject_hyperparams(optax.adam)(learning_rate=0.1)
    unroll = Unroll(
        quadratic(),
        adam,
        Constant(9),
        to_hyperparams=lambda theta: {"learning_rate": jnp.exp(theta["log_rate"])},
    )
    log_rates = {"log_rate": jnp.log(jnp.array([[0.5, 0.25]]))}
    _, after, _ = run(unroll, log_rates, 1, KEYS[:1])
    np.testing.assert_allclose(after.params["x"][0, :, 0], [0.5, 0.75], rtol=1e-5)
    np.testing.assert_allclose(after.opt_state.hyperparams["b2"], 0.999, rtol=1e-6)


def test_the_loss_is_passed_to_update():
    def update(updates, state, params, *, value, **extra):
        del updates, params, extra
        return {"x": -value[None]}, state

    hyperparams = sgd().init
    tx = optax.GradientTransformationExtraArgs(hyperparams, update)
    data = {"train": jnp.zeros(1)}
    _, after, path = run(Unroll(quadratic(), tx, Constant(9)), num_steps=1, data=data)
    np.testing.assert_allclose(after.params["x"][..., 0], 1 - path.loss[0])


def test_half_precision_and_random_keys_are_carried():
    """States keep their dtypes; losses and gradients of theta are float32."""

    def init(key):
        return {"x": jax.random.normal(key, (3,), jnp.bfloat16)}, {"key": key}

    def loss(params, model_state, batch, key):
        del batch
        return jnp.mean(params["x"] ** 2), {"key": jax.random.fold_in(key, 1)}

    toy = dataclasses.replace(noisy(), init=init, loss=loss)
    tx = optax.inject_hyperparams(optax.adam, hyperparam_dtype=jnp.float32)(0.1)
    state, estimate = one_call(PES(2, 0.1, 5), Unroll(toy, tx, Constant(2)), calls=2)
    assert state.particles.params["x"].dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(estimate.gradient)} == {
        jnp.dtype(jnp.float32)
    }
    assert estimate.loss.dtype == jnp.float32 and np.isfinite(estimate.loss)
    assert estimate.gradient["learning_rate"] != 0


def test_only_a_restart_pays_for_the_initialisation():
    """The one place where parameters are drawn is a branch of an unbatched `cond`."""
    unroll = Unroll(noisy(), sgd(), Constant(3))
    start = jax.eval_shape(unroll.start, RATES, KEYS)
    jaxpr = jax.make_jaxpr(
        lambda particles: unroll.run(lambda _: RATES, particles, KEYS, DATA, 5)
    )(start)
    (loop,) = [
        eqn.params["jaxpr"].jaxpr
        for eqn in jaxpr.eqns
        if eqn.primitive.name == "scan" and "cond" in str(eqn.params["jaxpr"])
    ]
    shape = "f32[4,3]"  # of the initial parameters of all particles
    (branch,) = [eqn for eqn in loop.eqns if shape in str(eqn)]
    assert branch.primitive.name == "cond"
    assert branch.invars[0] in [var for eqn in loop.eqns for var in eqn.outvars]


def test_runs_are_judged_on_new_batches_that_a_pair_shares():
    unroll = Unroll(noisy(), sgd(), Constant(9), meta_split="valid")
    runs = jax.jit(unroll.start)(RATES, KEYS).runs
    data = {"train": jnp.full(1, jnp.nan), "valid": jnp.ones(1)}
    losses, finite = jax.jit(unroll.losses, static_argnums=3)(runs, KEYS, data, 5)
    assert losses.shape == (5, 4, 2) and finite.all()
    assert np.all(losses[..., 0] == losses[..., 1])
    assert len(np.unique(losses[..., 0])) == 20
    runs[0]["x"] = runs[0]["x"].at[0, 1].set(jnp.nan)
    losses, finite = jax.jit(unroll.losses, static_argnums=3)(runs, KEYS, data, 5)
    assert np.all(losses[:, 0, 1] == 20) and np.sum(~finite) == 5


def test_whole_runs_share_their_length():
    unroll = Unroll(quadratic(), sgd(), LogUniform(2, 9))
    data = {"train": jnp.zeros(1)}
    _, path = jax.jit(unroll.run_whole)(RATES, KEYS, data, jnp.int32(4))
    assert path.loss.shape == (9, 4, 2)
    assert path.mask.sum(axis=0).tolist() == [4] * 4
    assert path.ticks.done[3].all() and path.ticks.done.sum() == 4
    wanted = [0.5 * 0.25**k for k in range(4)] + [0] * 5
    np.testing.assert_allclose(path.loss[:, 0, 0], wanted, rtol=1e-6)
