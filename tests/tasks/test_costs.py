"""The cost of an update: bytes exactly, times within reason."""

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
