"""Scores, problems and standings over tasks, worked out by hand."""

import dataclasses

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from test_results import BASELINE, FASTER, NAN, runs

from tasks import problems
from tasks.parametrization import MAXIMAL_UPDATE
from tasks.results import Results
from tasks.scores import Unit

DIVERGED = [[9, 5, NAN, NAN, NAN]] * 3


def context(**changes):
    return {**runs("adamw", BASELINE)[0].context, **changes}


def compared(*records):
    (found,) = Results([r for of in records for r in of]).comparisons()
    return found


def test_scores_are_relative_to_the_start_and_the_best_baseline():
    found = compared(runs("adamw", BASELINE), runs("faster", FASTER))
    # The start is 9, the baseline ends at 3 in the mean: (9 - 2) / 6 and so on.
    np.testing.assert_allclose(found.scores["adamw"]["task"], [7 / 6, 1, 5 / 6])
    np.testing.assert_allclose(
        found.scores["faster"]["task"], [7.5 / 6, 6.5 / 6, 5.5 / 6]
    )
    faster, adamw = found.standings
    assert faster.score.estimate == pytest.approx(6.5 / 6)
    assert adamw.improvement is None
    # 7.5 beats 7, 6, 5; 6.5 beats 6, 5; 5.5 beats 5.
    assert faster.improvement.estimate == pytest.approx(6 / 9)
    assert [s.optimizer for s in found.whole] == ["faster", "adamw"]


@given(st.lists(st.floats(-5, 50) | st.just(np.inf), min_size=1))
def test_lower_losses_never_score_lower_and_divergence_scores_least(losses):
    found = Unit(start=10.0, best=1.0).of(np.sort(losses))
    assert np.all(np.diff(found) <= 0)
    assert np.all(found >= 0)
    assert Unit(10.0, 1.0).of(np.array([np.inf])) == 0


def test_a_diverged_run_scores_the_least_and_is_counted():
    found = compared(runs("adamw", BASELINE), runs("shaky", DIVERGED))
    shaky = found.standings[1]
    assert (shaky.score.estimate, shaky.gap.estimate, shaky.num_diverged) == (0, 1, 3)
    assert shaky.improvement.estimate == 0
    assert shaky.steps == 0


def test_the_unit_and_the_target_are_of_the_best_of_the_baselines():
    given = context(baselines=["adamw", "better"])
    of_task = Results(
        [
            *runs("adamw", BASELINE, context=given),
            *runs("better", FASTER, context=given),
            *runs("best", np.array(FASTER) / 2, context=given),
        ]
    ).summaries()["task"]
    adamw, better, best = of_task
    assert better.scores.mean() == pytest.approx(1)
    assert best.scores.mean() > 1
    assert adamw.target == 2.0  # what `better` has reached at three quarters: 1, 2, 3
    assert adamw.is_baseline


def test_an_untuned_optimizer_sets_no_target_and_has_its_own_table(tmp_path):
    names, tuned, untuned = ["adamw", "b"], "tuned", "untuned"
    results = Results(
        [
            *runs("adamw", BASELINE, context=context(baselines=names, track=tuned)),
            *runs("a", FASTER, context=context(baselines=names, track=tuned)),
            *runs("b", FASTER, context=context(baselines=names, track=untuned)),
        ]
    )
    first, second = results.comparisons()
    assert (first.track, [*first.scores]) == (tuned, ["adamw", "a"])
    assert (second.track, [*second.scores]) == (untuned, ["adamw", "b"])
    assert results.summaries()["task"][0].target == 3
    page = results.to_html(tmp_path / "page.html").read_text()
    assert "try first (untuned track)" in page


def test_tasks_of_meta_training_are_marked_and_not_mixed_with_others(tmp_path):
    inside = context(tags=["in-distribution"])
    results = Results(
        [
            *runs("adamw", BASELINE, task="seen", context=inside),
            *runs("faster", FASTER, task="seen", context=inside),
            *runs("adamw", BASELINE, task="wide"),
            *runs("faster", np.array(BASELINE) + 1, task="wide"),
        ]
    )
    outside, seen = results.comparisons()
    assert (outside.title, outside.tasks) == ("out of distribution", ("wide",))
    assert (seen.title, seen.tasks) == ("in distribution", ("seen",))
    assert outside.standings[0].optimizer == "adamw"
    assert seen.standings[0].optimizer == "faster"
    page = results.to_html(tmp_path / "page.html").read_text()
    assert "try first (out of distribution)" in page
    assert page.count("</a> (in-distribution): the lowest") == 1
    assert "in distribution, one task by final" in results.table()
    stems = {stem for stem in results.plot() if stem.endswith("profiles")}
    assert stems == {"out-of-distribution.profiles", "in-distribution.profiles"}


def test_the_measure_of_the_suite_decides():
    worse_training = np.full(100, 8.0, np.float32)
    given = context(measure="final training loss")
    found = compared(
        runs("adamw", BASELINE, context=given),
        runs("other", FASTER, context=given, train_loss=worse_training),
    )
    assert found.measure == "final training loss"
    assert found.scores["other"]["task"].max() < 0.3


def test_optimizers_are_compared_on_the_tasks_that_both_have():
    found = compared(
        runs("adamw", BASELINE),
        runs("faster", FASTER),
        runs("adamw", BASELINE, task="second"),
        runs("slow", np.array(BASELINE) + 1, task="second"),
    )
    by_name = {s.optimizer: s for s in found.standings}
    assert [by_name[n].num_tasks for n in ("adamw", "faster", "slow")] == [2, 1, 1]
    assert [s.optimizer for s in found.whole] == ["adamw"]
    assert found.improvement("faster", "slow") is None
    # NaN is a task that it was not run on, infinite a target that it missed.
    np.testing.assert_array_equal(found.ratios["faster"], [1, NAN])
    assert by_name["faster"].steps == 1


def test_nothing_is_compared_where_no_baseline_makes_progress():
    flat = [[1, 1, 1, 1, 2]] * 3
    results = Results([*runs("adamw", flat), *runs("faster", FASTER)])
    assert results.comparisons() == []
    assert results.summaries()["task"][1].scores is None


def test_parametrizations_are_two_ways_to_do_one_task():
    metadata = {"model": "MLP", **MAXIMAL_UPDATE.metadata}
    mup = runs("adamw", FASTER, task="mlp(depth=3, parametrization='mup')")
    config = {**mup[0].config, "task_metadata": metadata}
    mup = [dataclasses.replace(r, config=config) for r in mup]
    cells = problems.grouped([*runs("adamw", BASELINE, task="mlp(depth=3)"), *mup])
    assert {k: list(v) for k, v in cells.items()} == {
        "mlp(depth=3)": ["adamw (sp)", "adamw (mup)"]
    }


def test_claims_are_in_the_table_and_on_the_page(tmp_path):
    sentences = [
        "faster < adamw in final validation loss on task",
        "adamw < faster in final training loss on task",
        "faster < missing in final validation loss on task",
    ]
    given = context(claims=sentences)
    results = Results(
        [
            *runs("adamw", BASELINE * 2, context=given),
            *runs("faster", FASTER * 2, context=given),
        ]
    )
    assert [c.verdict for c in results.claims()] == ["held", "not held", "undecided"]
    assert [c.num_pairs for c in results.claims()] == [6, 6, 0]
    page = results.to_html(tmp_path / "page.html").read_text()
    for shown in (results.table(), page):
        assert "claims declared before the run" in shown.lower()
        assert "0.016" in shown
