import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from inner_toys import sgd

import tasks
from lopt.augmentation import rescale_weights
from lopt.estimators import PES
from lopt.truncation import Constant
from lopt.unroll import Unroll


@pytest.fixture(scope="module")
def task():
    return tasks.get("digits-mlp", width=8, batch_size=4)


@pytest.mark.parametrize("per", ["task", "tensor", "parameter"])
def test_rescaled_weights_make_the_same_function(task, per):
    rescaled = rescale_weights(task, 0.1, 10.0, per=per)
    init_key, loss_key = jax.random.split(jax.random.key(0))
    params, model_state = rescaled.init(init_key)
    original, _ = task.init(jax.random.split(init_key)[0])
    chex.assert_trees_all_close(
        jax.tree.map(lambda p, s: p * s, params, model_state.scale), original, rtol=1e-5
    )
    assert not np.allclose(params["readout"]["kernel"], original["readout"]["kernel"])

    batch = task.sample(task.data["train"], loss_key)
    grad = jax.grad(rescaled.loss, has_aux=True)
    (grads, after), (expected, _) = (
        grad(params, model_state, batch, loss_key),
        jax.grad(task.loss, has_aux=True)(original, (), batch, loss_key),
    )
    chex.assert_trees_all_close(
        grads,
        jax.tree.map(lambda g, s: g * s, expected, model_state.scale),
        atol=1e-5,
    )
    chex.assert_trees_all_equal(after, model_state)
    chex.assert_trees_all_close(
        rescaled.evaluate(params, model_state, task.data["valid"]),
        task.evaluate(original, (), task.data["valid"]),
        rtol=1e-4,
    )


def test_what_shares_a_scale(task):
    def scales(per):
        _, (scale, _) = rescale_weights(task, 0.1, 10.0, per=per).init(
            jax.random.key(0)
        )
        return jax.tree.leaves(scale)

    assert len({float(s) for s in scales("task")}) == 1
    assert len({float(s) for s in scales("tensor")}) == len(scales("tensor"))
    sizes = {s.size: len(np.unique(s)) for s in scales("parameter")}
    assert sizes[64 * 8] > 500


def test_scales_are_log_uniform_and_differ_between_runs(task):
    rescaled = rescale_weights(task, 1e-3, 1e3)
    _, (scale, _) = jax.vmap(rescaled.init)(jax.random.split(jax.random.key(0), 400))
    logs = np.log10(jax.tree.leaves(scale)[0])
    assert logs.min() >= -3 and logs.max() <= 3
    assert np.allclose(np.quantile(logs, [0.25, 0.5, 0.75]), [-1.5, 0, 1.5], atol=0.4)


def test_parameters_keep_their_dtype(task):
    def init(key):
        params, model_state = task.init(key)
        return jax.tree.map(lambda p: p.astype(jnp.bfloat16), params), model_state

    half = rescale_weights(dataclasses.replace(task, init=init))
    params, (scale, _) = half.init(jax.random.key(0))
    assert {p.dtype for p in jax.tree.leaves(params)} == {jnp.dtype(jnp.bfloat16)}
    assert {s.dtype for s in jax.tree.leaves(scale)} == {jnp.dtype(jnp.float32)}


def test_a_pair_shares_its_scale_and_a_restart_draws_another(task):
    unroll = Unroll(rescale_weights(task), sgd(), Constant(1))
    estimator = PES(num_particles=2, truncation_length=2)
    theta, indices = {"learning_rate": jnp.float32(0.1)}, jnp.arange(2)
    key = jax.random.key(0)
    before = estimator.init(unroll, theta, key, indices)
    after, estimate = jax.jit(
        lambda state: estimator.estimate(
            unroll, theta, state, key, indices, {"train": task.data["train"]}
        )
    )(before)
    scales = [
        jax.tree.leaves(state.particles.model_state.scale)[0]
        for state in (before, after)
    ]
    for scale in scales:
        assert scale.shape == (2, 2)
        assert np.all(scale[:, 0] == scale[:, 1]) and scale[0, 0] != scale[1, 0]
    assert np.all(scales[0] != scales[1])
    assert np.isfinite(estimate.loss) and estimate.num_steps == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low": 0.0}, "low must be a finite number > 0"),
        ({"low": 2.0, "high": 1.0}, "high must be at least low=2.0"),
        ({"per": "layer"}, "per must be one of 'task', 'tensor', 'parameter'"),
    ],
)
def test_bad_arguments_are_refused(task, options, message):
    with pytest.raises(ValueError, match=message):
        rescale_weights(task, **options)
