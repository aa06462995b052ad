"""Errors name the argument, the value and what is allowed, before any compilation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mada_optax as mo

NAN = float("nan")
mada = functools.partial(mo.mada, 1e-3)
hyper_adam = functools.partial(mo.hyper_adam, 1e-3)

# What is called, and the words that its message has to have.
AT_CONSTRUCTION = {
    "b1 above": (lambda: mada(b1=1.0), "b1", "[0, 1)", "1.0"),
    "b1 NaN": (lambda: mada(b1=NAN), "b1", "[0, 1)", "nan"),
    "b1 array": (lambda: mada(b1=jnp.array(2.0)), "b1", "[0, 1)", "2.0"),
    "b3 below": (lambda: mada(b3=-0.1), "b3", "[0, 1)", "-0.1"),
    "c above": (lambda: mada(c=1.5), "c", "[0, 1]", "1.5"),
    "rho below": (lambda: mada(rho=-1.0), "rho", "[0, 1]", "-1.0"),
    "gamma above": (lambda: mo.scale_by_mada(gamma=2.0), "gamma", "[0, 1]", "2.0"),
    "adam b2": (lambda: mo.adam(1e-3, b2=1.0), "b2", "[0, 1)", "1.0"),
    "lion b2": (lambda: mo.lion(1e-3, b2=1.5), "b2", "[0, 1)", "1.5"),
    "adan b3": (lambda: mo.adan(1e-3, b3=1.5), "b3", "[0, 1)", "1.5"),
    "adan b2": (lambda: mo.adan(1e-3, b2=1.5), "b2", "[0, 1)", "1.5"),
    "coefficient text": (lambda: mada(b1="0.9"), "b1", "'0.9'"),
    "eps": (lambda: mada(eps=-1e-8), "eps", ">= 0", "-1e-08"),
    "amsgrad eps": (lambda: mo.amsgrad(1e-3, eps=NAN), "eps", "finite", "nan"),
    "nu_init": (lambda: mada(nu_init=-1.0), "nu_init", ">= 0", "-1.0"),
    "decay": (lambda: mada(weight_decay=NAN), "weight_decay", "finite", "nan"),
    "decay below": (lambda: mo.lion(1e-3, weight_decay=-1.0), "weight_decay", "-1.0"),
    "learning_rate": (lambda: mo.mada(NAN), "learning_rate", "finite", "nan"),
    "learning_rate None": (lambda: mo.adam(None), "learning_rate", "None"),
    "learning_rate text": (lambda: mo.lion("0.1"), "learning_rate", "'0.1'"),
    "schedule": (lambda: mo.mada(lambda t: NAN), "learning_rate", "schedule", "nan"),
    "lion schedule": (lambda: mo.lion(lambda t: NAN), "learning_rate", "nan"),
    "b1 schedule": (
        lambda: mada(b1=lambda t: 2.0, learn=("b2",)),
        *("b1", "[0, 1)", "2.0"),
    ),
    "learn": (lambda: mada(learn=("b1", "b9")), "learn", "'b9'", "'gamma'"),
    "hyper_adam learn": (
        lambda: hyper_adam(learn=("c",)),
        *("learn", "'c'", "'learning_rate'"),
    ),
    "active": (lambda: mada(active=("beta",)), "active", "'beta'", "'b1'"),
    "learned schedule": (
        lambda: mada(b1=lambda t: 0.9, learn=("b1",)),
        *("b1", "schedule", "learn"),
    ),
    "learned learning-rate schedule": (
        lambda: mo.hyper_adam(
            optax.constant_schedule(1e-3),
            learn=("learning_rate",),
            hyper_learning_rate=1e-3,
        ),
        *("learning_rate", "learn", "number"),
    ),
    "learned rate of a direction": (
        lambda: mo.scale_by_mada(learn=("learning_rate",), hyper_learning_rate=1.0),
        *("learning_rate", "learn"),
    ),
    "start outside": (
        lambda: mada(b1=0.999),
        *("b1", "0.999", "[0.01, 0.99]", "bounds"),
    ),
    "start outside of user bounds": (
        lambda: mada(bounds={"rho": (0.0, 0.5)}),
        *("rho", "1.0", "[0, 0.5]"),
    ),
    "bounds name": (lambda: mada(bounds={"b9": (0, 1)}), "bounds", "'b9'", "'b1'"),
    "bounds order": (
        lambda: mada(bounds={"b1": (0.9, 0.1)}),
        *("bounds['b1']", "(0.9, 0.1)", "lower <= upper"),
    ),
    "bounds domain": (
        lambda: mada(bounds={"b1": (0.0, 1.0)}),
        *("bounds['b1']", "[0, 1)", "1.0"),
    ),
    "bounds weight": (
        lambda: mada(bounds={"rho": (-0.5, 1.0)}),
        *("bounds['rho']", "[0, 1]", "-0.5"),
    ),
    "bounds number": (lambda: mada(bounds={"b1": 0.5}), "bounds['b1']", "0.5"),
    "hyper rate": (
        lambda: mada(hyper_learning_rate=-1.0),
        *("hyper_learning_rate", "-1.0", ">= 0"),
    ),
    "hyper rate by name": (
        lambda: mada(hyper_learning_rate={"rho": NAN}),
        *("hyper_learning_rate", "'rho'", "nan"),
    ),
    "hyper rate name": (
        lambda: mada(hyper_learning_rate={"beta1": 1.0}),
        *("hyper_learning_rate", "'beta1'", "'b1'"),
    ),
    "hyper rate of the learning rate": (
        lambda: hyper_adam(learn=("learning_rate",)),
        *("hyper_learning_rate", "'learning_rate'"),
    ),
    "momentum name": (
        lambda: mada(hyper_momentum={"beta1": 0.5}),
        *("hyper_momentum", "'beta1'", "'b1'"),
    ),
    "momentum": (
        lambda: mada(hyper_momentum=1.5),
        *("hyper_momentum", "1.5", "[0, 1)"),
    ),
    "hyper_clip": (lambda: mada(hyper_clip=0.0), "hyper_clip", "> 0", "0.0"),
    "hyper_warmup": (lambda: mada(hyper_warmup=-1), "hyper_warmup", ">= 0", "-1"),
    "hyper_grad_scale": (
        lambda: mada(hyper_grad_scale=NAN),
        *("hyper_grad_scale", "finite", "nan"),
    ),
    "clip_norm": (lambda: mada(clip_norm=-1.0), "clip_norm", "> 0", "-1.0"),
    "lion_betas": (lambda: mada(lion_betas=(0.9, 1.0)), "lion_betas", "[0, 1)", "1.0"),
    "lion_betas number": (lambda: mada(lion_betas=(0.9,)), "lion_betas", "(0.9,)"),
    "n_init": (lambda: mada(n_init="ones"), "n_init", "'ones'", "'grad_sq'"),
    "prev_grad": (lambda: mada(prev_grad=True), "prev_grad", "True", "'zero'"),
    "prev_grad_init": (
        lambda: mada(prev_grad_init="zero"),
        *("prev_grad_init", "'zero'", "'zeros'"),
    ),
    "update_order": (
        lambda: mada(update_order="q"),
        *("update_order", "'q'", "'x_first'"),
    ),
    "reparam": (lambda: mada(reparam="exp"), "reparam", "'exp'", "'tanh'"),
    "reparam at the edge": (lambda: mada(reparam="tanh"), "tanh", "b3", "0.0"),
    "compat": (lambda: mada(compat="2024"), "compat", "'2024'", "'released'"),
    "compat and another option": (
        lambda: mada(compat="released", debias_n=True),
        *('compat="released"', "debias_n=True", "debias_n=False"),
    ),
    "compat and Lion's betas": (
        lambda: mada(compat="released", lion_betas=(0.9, 0.99)),
        *('compat="released"', "lion_betas=(0.9, 0.99)", "(0.931, 0.98)"),
    ),
    "compat and a start": (
        lambda: hyper_adam(compat="released", nu_init=1e-3),
        *('compat="released"', "nu_init", "0.001"),
    ),
    "final state": (
        lambda: mo.mada_final_state(optax.adam(1e-3).init(jnp.ones(2)), 1e-3),
        *("state_or_hyperparams", "state of `mada`", "b1, b2, b3, c, rho, gamma"),
    ),
    "final coefficients": (
        lambda: mo.mada_final_state({"b1": 0.9}, 1e-3),
        *("state_or_hyperparams", "b1, b2, b3, c, rho, gamma"),
    ),
}


@pytest.mark.parametrize("case", AT_CONSTRUCTION)
def test_errors_at_construction(case):
    make, *words = AT_CONSTRUCTION[case]
    with pytest.raises((ValueError, TypeError)) as error:
        make()
    for word in words:
        assert word in str(error.value)


OPTIMIZERS = {
    "mada": mada,
    "adam": functools.partial(mo.adam, 1e-3),
    "lion": functools.partial(mo.lion, 1e-3),
    "amsgrad": functools.partial(mo.amsgrad, 1e-3),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_complex_parameters(name):
    tx = OPTIMIZERS[name]()
    params = {"layer": {"w": jnp.ones(2, jnp.complex64)}}
    real = jax.tree.map(jnp.real, params)
    for call in (lambda: tx.init(params), lambda: tx.update(params, tx.init(real))):
        with pytest.raises(ValueError, match=r"\['layer'\]\['w'\] is complex64.*split"):
            call()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_decay_without_parameters(name):
    tx = OPTIMIZERS[name](weight_decay=0.1)
    grads = jnp.ones(2)
    with pytest.raises(ValueError, match=r"Weight decay needs.*params=None"):
        tx.update(grads, tx.init(grads))
    no_decay = OPTIMIZERS[name]()
    assert np.isfinite(no_decay.update(grads, no_decay.init(grads))[0]).all()


def test_a_misspelled_argument():
    with pytest.raises(TypeError, match="hyper_lr"):
        mada(hyper_lr=1e-3)


def test_traced_values_are_not_checked():
    """A sweep over values happens inside of a trace, where none of them is known."""
    rates = jnp.array([0.1, 0.5])

    @jax.vmap
    def first_update(value):
        tx = mo.mada(value, b1=value, eps=value, hyper_clip=value, weight_decay=value)
        return tx.update(rates, tx.init(rates), rates)[0]

    assert np.isfinite(first_update(rates)).all()
