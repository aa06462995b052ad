"""Under muP, steps of a learned optimizer move activations alike at every width."""

import jax
import pytest

import lopt
import tasks


@pytest.mark.parametrize("parametrization", ["mup", "sp"])
def test_the_coordinate_check_tells_mup_from_sp(parametrization):
    architecture = lopt.small_fc(parametrization)
    theta = architecture.init(jax.random.key(0))

    def transform(width_multipliers):
        return architecture.transform(theta, width_multipliers=width_multipliers)

    check = tasks.coordinate_check(
        lambda width: tasks.get(
            "digits-mlp", width=width, depth=3, parametrization=parametrization
        ),
        (f"small_fc in {parametrization}", transform),
        widths=(64, 512),
        steps=(1, 10),
        seeds=1,
    )
    assert check.passed == (parametrization == "mup"), check.table()
