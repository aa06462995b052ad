"""Tuning: equal effort for everybody, seeds of its own, and flagged edges."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from toys import quadratic

from tasks.optimizers import resolve
from tasks.planning import plan
from tasks.search import LogUniform, Space
from tasks.suites import Entry, Suite
from tasks.suites.sweep import RATES
from tasks.tuning import SEEDS, tune, tuned, untuned

SGD = "optax:sgd({rate})"
ADAM = "optax:adam({rate}, b1={b1})"
MODEST = Space(SGD, {"rate": (0.03, 0.3, 3.0)})
SUITE = Suite(
    "toys", "Toys.", (Entry(quadratic(), ("optax:adamw(9.0)",), steps=12, target=0.5),)
)


@pytest.fixture(scope="module")
def winners():
    spaces = {"sgd": MODEST, "slow": Space(SGD, {"rate": (0.0003, 0.003, 0.03)})}
    return tune(SUITE, spaces, progress=False)


def test_the_lowest_loss_wins_and_edges_are_flagged(winners):
    sgd, slow = winners["quadratic"]
    assert sgd.losses["optax:sgd(0.3)"] > sgd.losses["optax:sgd(3.0)"]
    assert [sgd.loss, slow.loss] == [min(w.losses.values()) for w in (sgd, slow)]
    assert (sgd.spec, sgd.at_edge) == ("optax:sgd(3.0)", ("rate",))
    assert (slow.spec, slow.at_edge) == ("optax:sgd(0.03)", ("rate",))
    inside = Space(SGD, {"rate": (0.3, 3.0, 30.0)})
    (found,) = tune(quadratic(), [inside], steps=12, progress=False)["quadratic"]
    assert (found.spec, found.at_edge) == ("optax:sgd(3.0)", ())


def test_winners_are_the_tuned_track_of_the_suite(winners):
    suite = tuned(SUITE, winners)
    cells = plan(suite)
    assert [c.optimizer.name for c in cells] == ["sgd", "slow"]
    assert cells[0].optimizer.spec == "optax:sgd(3.0)"
    assert {c.context["track"] for c in cells} == {"tuned"}
    assert cells[0].context["tuning"]["sgd"] == {
        "trials": 3,
        "volume": 2.0,
        "seeds": list(SEEDS),
        "at_edge": ["rate"],
    }
    with pytest.raises(ValueError, match="overlap those that 'sgd' was tuned on"):
        plan(suite, seeds=(0, 100))


def test_the_untuned_track_has_the_same_settings_on_every_task():
    cells = plan(untuned(tuned(SUITE, {}), ["optax:sgd(0.1)", "optax:adamw(0.001)"]))
    assert [(c.optimizer.name, c.context["track"]) for c in cells] == [
        ("adamw", None),
        ("sgd (untuned)", "untuned"),
        ("adamw (untuned)", "untuned"),
    ]
    assert len({c.task_name for c in cells}) == 1


def test_a_diverged_trial_does_not_win():
    space = Space("optax:sgd({rate})", {"rate": (1.0, 1e30)})
    (found,) = tune(quadratic(), [space], steps=12, progress=False)["quadratic"]
    assert found.losses["optax:sgd(1e+30)"] == np.inf
    assert found.spec == "optax:sgd(1.0)"


def test_an_interrupted_search_goes_on(tmp_path, monkeypatch):
    first = tune(quadratic(), [MODEST], steps=4, out_dir=tmp_path, progress=False)
    monkeypatch.setattr("tasks.evaluation.run_cell", None)  # nothing runs again
    assert tune(quadratic(), [MODEST], steps=4, out_dir=tmp_path) == first


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (Space(ADAM, {"rate": (0.1, 1.0), "b1": (0.5, 0.9)}), r"\[3, 4\] trials"),
        (Space(SGD, {"rate": (0.01, 0.1, 10.0)}), r"volumes of \[2.0, 3.0\] decades"),
    ],
)
def test_effort_must_be_equal(other, said):
    with pytest.raises(ValueError, match=said):
        tune(quadratic(), {"a": MODEST, "b": other}, steps=2)


def test_random_search_needs_a_number_and_names_that_differ():
    random = Space(SGD, {"rate": LogUniform(1e-3, 1e-1)})
    with pytest.raises(ValueError, match="trials is None"):
        tune(quadratic(), [random], steps=2)
    with pytest.raises(ValueError, match="two spaces are of one optimizer"):
        tune(quadratic(), [MODEST, MODEST], steps=2)


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ({"rate": ()}, "at least one"),
        ({}, "at least one"),
        ({"rate": (0.0, 1.0)}, "rate must be a finite number > 0"),
        ({"lr": (0.1,)}, "axis 'lr' is not in"),
    ],
)
def test_a_space_without_sense_is_refused(axes, said):
    with pytest.raises(ValueError, match=said):
        Space(SGD, axes)
    with pytest.raises(ValueError, match="all grids of values or all LogUniform"):
        Space(ADAM, {"rate": (0.1, 1.0), "b1": LogUniform(0.5, 0.9)})
    with pytest.raises(ValueError, match="high must be a finite number > 1"):
        LogUniform(1.0, 0.5)


@given(st.floats(-6, 2), st.floats(0.5, 6), st.integers(1, 30))
def test_random_settings_fill_their_bounds_alike(low, decades, trials):
    def places(low, decades):
        space = Space(SGD, {"rate": LogUniform(10**low, 10 ** (low + decades))})
        assert space.volume == pytest.approx(decades, abs=1e-6)
        rates = [s["rate"] for s in space.settings(trials)]
        places = (np.log10(rates) - low) / decades
        flagged = [bool(space.edges({"rate": rate})) for rate in rates]
        clear = np.minimum(np.abs(places - 0.1), np.abs(places - 0.9)) > 1e-6
        expected = (places < 0.1) | (places > 0.9)
        assert np.array_equal(np.array(flagged)[clear], expected[clear])
        return places

    np.testing.assert_allclose(places(low, decades), places(-3, 2), atol=2e-3)


def test_a_fixed_value_has_no_volume_and_no_edge():
    space = Space(ADAM, {"rate": (0.01, 0.1, 1.0), "b1": (0.9,)})
    assert (space.volume, space.grid_size) == (2.0, 3)
    assert space.edges({"rate": 0.1, "b1": 0.9}) == []


def test_the_sweep_of_the_default_suite_is_fair():
    spaces = [Space(s.replace("{}", "{rate}"), {"rate": r}) for s, r in RATES.items()]
    assert {(s.grid_size, s.volume) for s in spaces} == {(5, 2.0)}
    assert len({resolve(s.specs(5)[0]).name for s in spaces}) == len(spaces)
