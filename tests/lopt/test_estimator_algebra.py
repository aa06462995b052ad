"""The arithmetic of every estimator, on given numbers."""

import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lopt.estimators.base import step_weights
from lopt.estimators.es import es_gradient, mean_difference, reduce_losses
from lopt.estimators.noise_reuse import noise_reuse_gradient
from lopt.estimators.pes import pes_gradient
from lopt.truncation import Ticks

CORE = np.load(
    pathlib.Path(__file__).parent.parent / "golden" / "mulo" / "pes_core.npz"
)
CASES = ["plain", "finish_mid", "finish_multi", "finish_last", "sign"]
# Tolerance of the recording, relative to the largest entry: float32 differences.
TOLERANCE = 1e-4


class Case:
    def __init__(self, name):
        def tree(kind):
            return {leaf: CORE[f"{name}/{kind}/{leaf}"] for leaf in "ab"}

        self.tree = tree
        self.loss = jnp.stack([CORE[f"{name}/pos_loss"], CORE[f"{name}/neg_loss"]], -1)
        self.mask = jnp.asarray(CORE[f"{name}/mask"])
        restart = ~self.mask
        done = jnp.asarray(CORE[f"{name}/is_done"])
        self.ticks = Ticks(restart, done, jnp.cumsum(restart, axis=0))
        self.noise = tree("perturb")
        self.std = float(CORE[f"{name}/std"])
        self.sign = float(CORE["sign/sign_scalar"]) if name == "sign" else None
        self.num_particles = self.mask.shape[1]

    def check(self, gradient, kind):
        for leaf, expected in self.tree(kind).items():
            np.testing.assert_allclose(
                gradient[leaf] / self.num_particles,
                expected,
                atol=TOLERANCE * np.abs(expected).max(),
            )


@pytest.mark.parametrize("name", CASES)
def test_pes_on_recorded_numbers(name):
    case = Case(name)
    gradient, accumulator = pes_gradient(
        case.loss,
        case.ticks,
        case.noise,
        case.tree("accum_in"),
        std=case.std,
        sign=case.sign,
    )
    case.check(gradient, "pes_grad")
    chex.assert_trees_all_close(accumulator, case.tree("accum_out"), rtol=1e-6)
    mean = jnp.sum(case.loss.mean(-1) * step_weights(case.mask)) / case.num_particles
    np.testing.assert_allclose(mean, CORE[f"{name}/pes_mean_loss"], rtol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_truncated_es_on_recorded_numbers(name):
    case = Case(name)
    difference = mean_difference(case.loss, case.mask)
    case.check(
        es_gradient(difference, case.noise, std=case.std, sign=case.sign), "es_grad"
    )


@pytest.mark.parametrize("name", ["plain", "sign"])
@pytest.mark.parametrize("clip", [None, 0.02])
@pytest.mark.parametrize(
    ("reduction", "recorded"), [("mean", "avg"), ("min", "min"), ("last", "last")]
)
def test_full_es_on_recorded_numbers(name, clip, reduction, recorded):
    case = Case(name)
    # A whole run has no restart: the recording takes every entry as a step.
    loss = reduce_losses(case.loss, jnp.ones_like(case.mask), reduction)
    gradient = es_gradient(
        loss[:, 0] - loss[:, 1], case.noise, std=case.std, clip=clip, sign=case.sign
    )
    prefix = f"full_es/{recorded}/clip{clip}"
    case.check(gradient, f"{prefix}/grad")
    expected = CORE[f"{name}/{prefix}/mean_loss"]
    np.testing.assert_allclose(loss.mean(), expected, rtol=1e-6)


def toy(rows):
    """Ticks from strings, a row per particle: `.` trains, `d` is done, `r` restarts."""
    codes = np.array([list(row) for row in rows]).T
    restart, done = jnp.asarray(codes == "r"), jnp.asarray(codes == "d")
    return Ticks(restart, done, jnp.cumsum(restart, axis=0))


def difference(values):
    """Losses of one particle whose pair differs by `values`."""
    positive = jnp.asarray(values, jnp.float32)[:, None]
    return jnp.stack([positive, jnp.zeros_like(positive)], axis=-1)


NOISE, ACCUMULATED = jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 1.0]])


def pes(ticks, values, **options):
    gradient, accumulator = pes_gradient(
        difference(values), ticks, NOISE, ACCUMULATED, std=0.5**0.5, **options
    )
    return gradient.tolist(), accumulator.tolist()


def test_losses_after_a_restart_belong_to_the_new_run():
    """Exactly: the last step of the old run still belongs to it, the next one not."""
    # Four steps train, so that each difference counts a quarter.
    gradient, accumulator = pes(toy([".dr.."]), [4, 8, 99, 16, 32], exact=True)
    assert gradient == [1 + 2 + 4 + 8, 1 + 2]
    assert accumulator == NOISE.tolist()


def test_published_pes_gives_the_last_step_of_a_run_to_the_new_one():
    gradient, accumulator = pes(toy([".dr.."]), [4, 8, 99, 16, 32])
    assert gradient == [1 + 2 + 4 + 8, 1]
    assert accumulator == NOISE.tolist()


def test_a_run_that_ends_with_the_truncation_has_not_restarted_yet():
    exact, exact_accumulator = pes(toy(["..d"]), [3, 6, 12], exact=True)
    assert exact == [1 + 2 + 4, 1 + 2 + 4]
    assert exact_accumulator == [[1.0, 1.0]]
    published, accumulator = pes(toy(["..d"]), [3, 6, 12])
    assert published == [1 + 2 + 4, 1 + 2]
    assert accumulator == NOISE.tolist()


def test_the_mean_is_over_the_steps_that_trained():
    assert pes(toy(["r..."]), [99, 3, 3, 3], exact=True)[0][0] == 3
    loss = jnp.concatenate([difference([99, 3, 3])] * 2, axis=1)
    ticks = toy(["r..", "..."])
    assert mean_difference(loss, ~ticks.restart).tolist() == [3, 35]


def test_a_truncation_without_a_step_is_no_division_by_zero():
    assert pes(toy(["r"]), [0.0])[0] == [0, 0]


def test_a_sign_forgets_the_size():
    small, large = (pes(toy(["..."]), [s, s, s], sign=3.0)[0] for s in (0.1, -70.0))
    np.testing.assert_allclose(small, [3, 3], rtol=1e-6)
    np.testing.assert_allclose(large, [-3, -3], rtol=1e-6)


def test_noise_reuse_credits_each_run_with_its_own_noise():
    noise = jnp.eye(3)[None]
    gradient = noise_reuse_gradient(
        difference([4, 8, 99, 16, 99, 32]), toy([".dr" + "dr."]), noise, std=0.5**0.5
    )
    assert gradient.tolist() == [1 + 2, 4, 8]


def test_noise_reuse_is_es_where_nothing_restarts():
    case = Case("plain")
    noise = jax.tree.map(lambda leaf: leaf[:, None], case.noise)
    ticks = case.ticks._replace(episode=jnp.zeros_like(case.ticks.episode))
    assert case.mask.all()
    case.check(noise_reuse_gradient(case.loss, ticks, noise, std=case.std), "es_grad")


def test_full_es_takes_no_difference_that_is_not_finite():
    gradient = es_gradient(jnp.array([jnp.nan, jnp.inf, 2.0]), jnp.ones(3), std=1.0)
    assert gradient == 1.0


def test_reductions_see_unmasked_steps_only():
    loss = jnp.array([5.0, 2.0, 4.0, -9.0])[:, None, None]
    mask = jnp.array([True, True, True, False])[:, None]
    found = [reduce_losses(loss, mask, how).item() for how in ("mean", "min", "last")]
    np.testing.assert_allclose(found, [11 / 3, 2, 4], rtol=1e-6)
