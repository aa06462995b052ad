"""The hook for optimizers that learn from losses of their own choice."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import quadratic, regression

from tasks import training
from tasks.evaluation import evaluate
from tasks.placement import Placement
from tasks.training import Program, initial_carry, training_step


class State(NamedTuple):
    hyperparams: dict[str, jax.Array]
    count: jax.Array
    updated_at: jax.Array
    seen: jax.Array


class LearnsItsRate(optax.GradientTransformationExtraArgs):
    """SGD that lowers the loss of a validation batch after a virtual step by its rate.

    Its state tells at which counts it was meta-updated, and means of the batches.
    """

    meta_every: int

    def __new__(cls, meta_every, rate=0.05):
        def init(params):
            del params
            rate_ = {"log_rate": jnp.log(jnp.float32(rate))}
            return State(rate_, jnp.int32(0), jnp.zeros(99), jnp.zeros(3))

        def update(updates, state, params=None, **extra_args):
            del params, extra_args
            rate = jnp.exp(state.hyperparams["log_rate"])
            moved = jax.tree.map(lambda g: -rate * g, updates)
            return moved, state._replace(count=state.count + 1)

        tx = super().__new__(cls, init, update)
        tx.meta_every = meta_every
        return tx

    def meta_update(
        self, loss_fn, params, state, grads, batch1, batch2, val_batch=None, *, key
    ):
        def after_virtual_step(hyperparams):
            rate = jnp.exp(hyperparams["log_rate"])
            moved = jax.tree.map(lambda p, g: p - rate * g, params, grads)
            gradient = jax.grad(loss_fn)(moved, batch1, key)
            gain = loss_fn(moved, val_batch, key) - loss_fn(params, val_batch, key)
            return gain + 1e-3 * sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient))

        total, slope = jax.value_and_grad(after_virtual_step)(state.hyperparams)
        moved = jax.tree.map(lambda h, g: h - 0.5 * g, state.hyperparams, slope)
        means = [jax.tree.leaves(b)[0].mean() for b in (batch1, batch2, val_batch)]
        return state._replace(
            hyperparams=moved,
            updated_at=state.updated_at.at[state.count].add(1.0),
            seen=jnp.stack(means),
        ), total


def carries(task, transformation, steps, seeds=(0, 1), chunk_size=10):
    program = Program(task, transformation, seeds, chunk_size)
    for start in range(0, steps, chunk_size):
        program.advance(start, min(steps, start + chunk_size))
    return program._carry


@pytest.mark.parametrize(("meta_every", "chunk_size"), [(3, 10), (4, 5), (1, 7)])
def test_meta_updates_come_every_so_many_steps_of_the_run(meta_every, chunk_size):
    state = carries(
        quadratic(), LearnsItsRate(meta_every), 23, chunk_size=chunk_size
    ).opt_state
    expected = np.zeros(99)
    expected[meta_every:24:meta_every] = 1
    np.testing.assert_array_equal(state.updated_at, [expected, expected])
    assert len(set(np.asarray(state.hyperparams["log_rate"]).tolist())) == 2


def test_without_meta_updates_it_is_the_plain_loop():
    task = quadratic()
    never = carries(task, LearnsItsRate(0), 12)
    sgd = carries(task, optax.with_extra_args_support(optax.sgd(0.05)), 12)
    np.testing.assert_allclose(never.params["x"], sgd.params["x"], rtol=1e-6)
    assert not never.opt_state.updated_at.any()


def test_it_does_as_a_plain_loop_does():
    task, tx, seed = regression(), LearnsItsRate(4), 1
    carry = carries(task, tx, 10, (seed,))
    init_key, key = jax.random.split(jax.random.key(seed))
    params, model_state = task.init(init_key)
    state = tx.init(params)
    for t in range(10):
        step_key = jax.random.fold_in(key, t)
        batch_key, noise_key = jax.random.split(step_key)
        batch = task.sample(task.data["train"], batch_key)
        (_, model_state), grads = jax.value_and_grad(task.loss, has_aux=True)(
            params, model_state, batch, noise_key
        )
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        if t % 4 == 3:
            keys = jax.random.split(jax.random.fold_in(step_key, 2), 4)
            data = [task.data[split] for split in ("train", "train", "valid")]
            batches = [task.sample(d, k) for d, k in zip(data, keys[:3], strict=True)]
            state, _ = tx.meta_update(
                lambda p, b, k, s=model_state: task.loss(p, s, b, k)[0],
                params, state, grads, *batches, key=keys[3],
            )  # fmt: skip
    got = jax.tree.map(lambda leaf: leaf[0], carry)
    for ours, plain in ((got.params, params), (got.opt_state, state)):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
            ours,
            plain,
        )
    # Six calls of the loss in two meta-updates, and ten steps that count.
    assert got.model_state["steps"] == model_state["steps"] == 10


@pytest.mark.parametrize("has_meta", [True, False])
def test_where_batches_come_from(has_meta):
    task = quadratic()
    shapes = jax.tree.map(jnp.ones_like, dict(task.data))
    data = {"train": shapes["train"], "valid": 2 * shapes["valid"]}
    if has_meta:
        data["meta"] = 3 * shapes["valid"]
    state = carries(dataclasses.replace(task, data=data), LearnsItsRate(2), 2).opt_state
    np.testing.assert_array_equal(state.seen, [[1, 1, 3 if has_meta else 2]] * 2)
    seen = carries(task, LearnsItsRate(2), 2).opt_state.seen
    assert len(set(np.asarray(seen).ravel().tolist())) == 6, "six different batches"


def conds(jaxpr) -> list[Any]:
    """All conditionals in a jaxpr, however deep."""
    found = []
    for equation in jaxpr.eqns:
        found += [equation] if equation.primitive.name == "cond" else []
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            inner = getattr(inner, "jaxpr", inner)
            found += conds(inner) if hasattr(inner, "eqns") else []
    return found


@pytest.mark.parametrize("meta_every", [0, 5])
def test_seeds_side_by_side_share_one_conditional(meta_every):
    task, tx = quadratic(), LearnsItsRate(meta_every)
    keys = jnp.stack([jax.random.key(seed) for seed in range(3)])
    carry = jax.vmap(initial_carry(task, tx))(keys)
    run = jax.vmap(
        training._advance(task, tx, 10, Placement()),
        in_axes=(0, None, 0, None, None, None),
    )
    arguments = carry, dict(task.data), None, jnp.int32(0), jnp.int32(10), True
    found = conds(jax.make_jaxpr(run)(*arguments).jaxpr)
    assert len(found) == bool(meta_every)
    assert all(equation.invars[0].aval.shape == () for equation in found)
    # And the compiler keeps it: a batched predicate would have become a select.
    program = jax.jit(run).lower(*arguments).compile().as_text()
    assert (" conditional(" in program) == bool(meta_every)


def test_nothing_is_traced_twice():
    task, traces = quadratic(), []

    def counted(*args):
        traces.append(None)
        return task.loss(*args)

    counting = dataclasses.replace(task, loss=counted)
    carries(counting, LearnsItsRate(3), 23)
    assert len(traces) == 1 + 3  # the step's, and those of one meta-update


def test_a_meta_update_needs_data():
    task, tx = quadratic(), LearnsItsRate(3)
    carry = initial_carry(task, tx)(jax.random.key(0))
    with pytest.raises(ValueError, match=r"meta_every=3.*pass meta="):
        training_step(task, tx)(carry, task.data["train"], 0)


def test_evaluations_make_meta_updates():
    results = evaluate(
        [quadratic()],
        [("frozen", LearnsItsRate(0)), ("learns", LearnsItsRate(2))],
        seeds=2,
        steps=8,
        progress=False,
    )
    frozen, learns = (
        [r.hyperparams["log_rate"] for r in results.records if r.optimizer == name]
        for name in ("frozen", "learns")
    )
    assert all(len(set(curve.tolist())) == 1 for curve in frozen)
    assert all(len(set(curve.tolist())) == 1 + 8 // 2 for curve in learns)


def test_an_optimizer_that_starts_at_random_has_a_draw_for_each_seed():
    class Random(LearnsItsRate):
        def init_with_key(self, key, params):
            state = self.init(params)
            return state._replace(hyperparams={"log_rate": jax.random.normal(key)})

    task = quadratic()
    start = initial_carry(task, Random(0))
    keys = jnp.stack([jax.random.key(seed) for seed in range(3)])
    drawn = jax.vmap(start)(keys)
    assert len(set(np.asarray(drawn.opt_state.hyperparams["log_rate"]).tolist())) == 3
    fixed = jax.vmap(initial_carry(task, LearnsItsRate(0)))(keys)
    np.testing.assert_array_equal(drawn.params["x"], fixed.params["x"])
    np.testing.assert_array_equal(
        jax.random.key_data(drawn.key), jax.random.key_data(fixed.key)
    )
