"""Optax's own acceptance tests for contributed optimizers, from the installed wheel."""

import inspect
import itertools

import jax
import jax.numpy as jnp
import optax
import pytest

from contracts.registry import OPTIMIZERS, PARAMS

upstream = pytest.importorskip("optax.contrib._common_test")

# The parametrized methods wrap functions that take one case.
CHECKS = {
    member.__wrapped__.__name__: member.__wrapped__
    for name, member in vars(upstream.ContribTest).items()
    if name.startswith("test") and hasattr(member, "__wrapped__")
}
VALUES = {
    "wrap": (False,),
    "target": (
        upstream._setup_parabola,
        upstream._setup_rosenbrock,
        upstream._setup_matrix_parabola,
        upstream._setup_mixed_tensor_target,
    ),
}
DTYPES = {
    "test_optimizers": ("float32",),
    "test_preserve_dtype": ("bfloat16", "float32"),
    "test_gradient_accumulation": ("bfloat16", "float32"),
    "test_state_shape_dtype_shard_stability": (
        *(jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64),
    ),
}


def cases():
    for name, check in CHECKS.items():
        wanted = inspect.signature(check).parameters
        table = {**VALUES, "dtype": DTYPES.get(name, ())}
        axes = {key: values for key, values in table.items() if key in wanted}
        for values in itertools.product(*axes.values()):
            case = dict(zip(axes, values, strict=True))
            words = [getattr(v, "__name__", str(v)) for v in values]
            yield pytest.param(name, case, id="-".join([name, *words]))


def test_upstream_has_the_tests_that_we_know():
    assert set(DTYPES) <= set(CHECKS) and len(CHECKS) >= 7


@pytest.mark.parametrize(("name", "case"), list(cases()))
@pytest.mark.parametrize("optimizer", PARAMS)
def test_optax_accepts(name, case, optimizer, monkeypatch):
    monkeypatch.setattr(upstream, "_get_opt_factory", lambda _: optimizer.factory)
    wanted = inspect.signature(CHECKS[name]).parameters
    arguments = {
        "opt_name": optimizer.name,
        "opt_kwargs": dict(optimizer.arguments),
        "wrapper_name": None,
        "wrapper_kwargs": None,
        **case,
    }
    arguments = {key: value for key, value in arguments.items() if key in wanted}
    with jax.numpy_rank_promotion("allow"):
        CHECKS[name](upstream.ContribTest("run"), **arguments)


def test_schedules_are_annotated_so_that_optax_tests_them():
    for optimizer in OPTIMIZERS:
        signature = inspect.signature(optimizer.factory).parameters
        if optimizer.name != "hypergradient":
            assert signature["learning_rate"].annotation is optax.ScalarOrSchedule
