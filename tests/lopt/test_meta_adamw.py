"""The attention of MetaAdamW is behind the door, so it can be trained offline."""

import jax
import optax
from meta_toys import quadratic

import lopt
import mada_optax
from lopt.truncation import Constant

LENGTH = 10


def final_loss(tx, hyperparams, task):
    """After a run whose batches are always the same."""
    params, _ = task.init(jax.random.key(3))
    state = tx.init(params)._replace(hyperparams=hyperparams)
    batch = task.data["train"]

    def step(carry, _):
        params, state = carry
        grads = jax.grad(lambda p: task.loss(p, (), batch, None)[0])(params)
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, state), _ = jax.lax.scan(step, (params, state), length=LENGTH)
    return task.loss(params, (), batch, None)[0], state.alpha.mean()


def test_meta_training_moves_the_factors_towards_a_lower_loss():
    """The learning rate is much too low, so that every alpha should grow."""
    task = quadratic()
    tx = mada_optax.meta_adamw(0.05, attn_layers=1, attn_hidden_dim=8, use_huw=False)
    start = tx.init(task.init(jax.random.key(0))[0]).hyperparams
    result = lopt.meta_train(
        tx,
        None,
        task,
        lopt.truncated_backprop(num_particles=2, truncation_length=LENGTH),
        optax.adam(0.03),
        steps=15,
        schedule=Constant(LENGTH),
        mesh=lopt.particle_mesh(jax.devices()[:1]),
        progress=False,
    )
    before, slow = final_loss(tx, start, task)
    after, fast = final_loss(tx, result.hyperparams, task)
    assert after < 0.9 * before
    assert fast > slow and fast > 1.4
