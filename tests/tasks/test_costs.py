"""The cost of an update: bytes exactly, times within reason."""

import jax
import jax.numpy as jnp
import optax
import pytest
from toys import regression

from tasks.costs import UpdateTimer, state_bytes_per_parameter


@pytest.mark.parametrize(
    ("transformation", "floats"),
    [(optax.sgd(0.1), 0), (optax.sgd(0.1, momentum=0.9), 1), (optax.adamw(0.1), 2)],
)
def test_state_bytes(transformation, floats):
    measured = state_bytes_per_parameter(regression(), transformation)
    step_count = 4 / 18 if floats == 2 else 0
    assert measured == pytest.approx(4 * floats + step_count)


def test_update_times_are_measured_beside_adamw():
    timer = UpdateTimer(regression(), budget_seconds=0.1)
    slow = optax.chain(*[optax.adamw(0.1) for _ in range(12)])
    assert timer.measure(slow)["update_ratio_to_adamw"] > 2
    assert 0.4 < timer.measure(optax.adamw(0.1))["update_ratio_to_adamw"] < 2.5


def test_the_share_of_the_step_grows_with_the_update():
    timer = UpdateTimer(regression(), budget_seconds=0.1)
    shares = [
        timer.measure(optax.chain(*[optax.adamw(0.1) for _ in range(n)]))[
            "update_share"
        ]
        for n in (1, 12)
    ]
    assert 0 < shares[0] < shares[1] < 1


def test_temporary_bytes_are_those_of_the_compiled_update():
    def doubled(updates, state, params=None):
        big = jnp.outer(params["kernel"].ravel(), jnp.ones(1000))
        return jax.tree.map(lambda g: g * jnp.sort(big, axis=0).sum(), updates), state

    plain = optax.GradientTransformation(lambda _: (), lambda u, s, p=None: (u, s))
    wasteful = optax.GradientTransformation(lambda _: (), doubled)
    timer = UpdateTimer(regression(), budget_seconds=0.01)
    name = "temporary_bytes_per_parameter"
    assert timer.measure(plain)[name] < 16
    assert timer.measure(wasteful)[name] > 15 * 1000 * 4 / 18
