"""What estimators and unrolls refuse, before anything is compiled."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from inner_toys import quadratic, sgd, task

import lopt
from lopt.truncation import Constant
from lopt.unroll import Unroll

ESTIMATORS = [
    lopt.pes,
    lopt.es,
    lopt.full_es,
    lopt.noise_reuse_es,
    lopt.truncated_backprop,
]
TRUNCATED = [make for make in ESTIMATORS if make is not lopt.full_es]
PERTURBING = [make for make in ESTIMATORS if make is not lopt.truncated_backprop]


@pytest.mark.parametrize("make", ESTIMATORS)
@pytest.mark.parametrize("count", [0, -1, 2.5, True])
def test_a_particle_count_is_a_positive_integer(make, count):
    with pytest.raises(ValueError, match="num_particles must be an integer >= 1"):
        make(num_particles=count)


@pytest.mark.parametrize("make", TRUNCATED)
def test_a_truncation_has_a_step(make):
    with pytest.raises(ValueError, match=r"truncation_length must be .* >= 1, got 0"):
        make(truncation_length=0)


@pytest.mark.parametrize("make", PERTURBING)
@pytest.mark.parametrize("std", [0.0, -0.1, np.nan, np.inf])
def test_a_perturbation_has_a_size(make, std):
    with pytest.raises(ValueError, match="std must be a finite number > 0"):
        make(std=std)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lopt.pes(sign=-1.0), "sign must be a finite number > 0, got -1.0"),
        (lambda: lopt.es(sign=0.0), "sign must be"),
        (
            lambda: lopt.full_es(final_batches=0),
            "final_batches must be an integer >= 1",
        ),
        (lambda: lopt.full_es(clip=0), "clip must be a finite number > 0, got 0"),
        (
            lambda: lopt.full_es(reduction="max"),
            "reduction must be one of 'mean', 'min', 'last', got 'max'",
        ),
    ],
)
def test_options_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transformation": optax.adam(1e-3)}, "exactly one field `hyperparams`"),
        ({"transformation": optax.adam}, "must be an optax.GradientTransformation"),
        ({"schedule": 100}, r"schedule must be a lopt.Constant or .*, got 100"),
        ({"meta_split": "test"}, r"no split 'test'; it has \['train', 'valid'\]"),
        ({"nonfinite_loss": np.inf}, "nonfinite_loss must be a finite number > 0"),
        ({"max_loss": -1.0}, "max_loss must be a finite number > 0, got -1.0"),
        (
            {"task": task(lambda x, batch: x**2, dim=3)},
            r"'toy' must be a floating-point scalar, got float32 of shape \(3,\)",
        ),
        (
            {"task": task(lambda x, batch: x[0].astype(int))},
            "must be a floating-point scalar, got int32",
        ),
    ],
)
def test_an_unroll_is_checked(options, message):
    unroll = {"task": quadratic(), "transformation": sgd(), "schedule": Constant(5)}
    with pytest.raises(ValueError, match=message):
        Unroll(**{**unroll, **options})


@pytest.mark.parametrize("make", ESTIMATORS)
@pytest.mark.parametrize(
    ("theta", "message"),
    [
        ({"lr": jnp.ones(())}, r"names \['lr'\], but .* have \['learning_rate'\]"),
        ({"learning_rate": jnp.ones(2)}, r"has shape \(\), but theta gives \(2,\)"),
        ({"learning_rate": jnp.ones((), int)}, "theta must be .* floating-point"),
        ({}, "theta must be a pytree of floating-point arrays"),
    ],
)
def test_a_theta_that_does_not_fit_is_refused(make, theta, message):
    unroll = Unroll(quadratic(), sgd(), Constant(5))
    init = jax.jit(
        lambda theta: make(num_particles=2).init(
            unroll, theta, jax.random.key(0), jnp.arange(2)
        )
    )
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(init, theta)


def test_a_theta_of_another_architecture_is_refused():
    small, large = lopt.small_fc(hidden_size=4), lopt.small_fc(hidden_size=8)
    thetas = [o.init(jax.random.key(0)) for o in (small, large)]
    shaped = dataclasses.replace(
        quadratic(), init=lambda key: ({"x": jnp.ones((2, 3))}, ())
    )
    flat = dataclasses.replace(
        shaped, loss=lambda p, s, batch, key: (jnp.sum(p["x"]) + batch, s)
    )
    unroll = Unroll(flat, small.transform(thetas[0]), Constant(5))
    unroll.check(thetas[0])
    with pytest.raises(ValueError, match=r"hyperparams\['nn'\].* has shape"):
        unroll.check(thetas[1])
