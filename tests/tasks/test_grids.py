"""Robustness over a grid of two settings, worked out by hand."""

import dataclasses
import itertools

import numpy as np
import pytest
from test_report import Page
from test_results import BASELINE, NAN, runs

from tasks import grid_views, grids
from tasks.measures import FINAL_TRAIN, FINAL_VALID
from tasks.results import Results

XS, YS = (0.1, 0.5, 0.9), (0.5, 0.9, 0.99)


def of_grid(optimizer, final, xs=XS, ys=YS):
    """Runs from every pair, whose losses end at `final(x, y)` for each of two seeds."""
    found = []
    for x, y in itertools.product(xs, ys):
        rows = [[9, 5, 5, 5, final(x, y)], [9, 5, 5, 5, final(x, y) + 2]]
        made = runs(f"{optimizer}({x}, {y})", rows)
        config = made[0].config
        optimizer_config = {**config["optimizer"], "arguments": {"b1": x, "b2": y}}
        config = {**config, "optimizer": optimizer_config}
        found += [dataclasses.replace(r, config=config) for r in made]
    return found


def diverges_at_the_corner(x, y):
    return NAN if (x, y) == (0.9, 0.5) else 1 + x


@pytest.fixture(scope="module")
def results():
    return Results(
        [
            *runs("adamw", BASELINE),
            *of_grid("mada", lambda x, y: x + y),
            *of_grid("shaky", diverges_at_the_corner),
            *of_grid("two", lambda x, y: 1, xs=XS[:2]),
        ]
    )


@pytest.fixture(scope="module")
def found(results):
    return grids.split(results.summaries()["task"])


def test_grids_are_told_by_names_and_settings(found):
    in_grids, others = found
    assert [g.optimizer for g in in_grids] == ["mada", "shaky"]
    assert {(g.axes, g.xs, g.ys) for g in in_grids} == {(("b1", "b2"), XS, YS)}
    # Two values of a setting are no grid.
    assert [s.optimizer for s in others[:2]] == ["adamw", "two(0.1, 0.5)"]
    assert len(others) == 7


def test_losses_are_means_over_seeds_and_infinite_with_a_diverged_one(found):
    mada, shaky = found[0]
    sums = np.add.outer(XS, YS)
    np.testing.assert_allclose(mada.losses(FINAL_VALID), sums + 1, rtol=1e-6)
    expected = np.repeat(np.array(XS)[:, None] + 2, 3, axis=1)
    expected[2, 0] = np.inf
    np.testing.assert_allclose(shaky.losses(FINAL_TRAIN), expected, rtol=1e-6)


def test_the_table_says_best_median_worst_and_shares(found):
    head, mada, shaky = grid_views.rows(found[0], FINAL_VALID)
    assert mada[1:6] == ["9", "1.600", "0.1, 0.5", "2.400", "2.890"]
    assert shaky[1:6] == ["9", "2.100", "0.1, 0.5", "2.500", "∞"]
    levels = [float(cell.removeprefix("below ")) for cell in head[6:]]
    assert levels == sorted(levels)
    below = (found[0][0].losses(FINAL_VALID) < levels[1]).mean()
    assert mada[7] == f"{below:.0%}"


def test_a_pair_that_is_missing_is_left_out(results):
    records = [r for r in results.records if r.optimizer != "mada(0.5, 0.9)"]
    mada = grids.split(Results(records).summaries()["task"])[0][0]
    assert np.isnan(mada.losses(FINAL_VALID)[1, 1])
    assert grid_views.rows([mada], FINAL_VALID)[1][1] == "8"
    grid_views.plot([mada], FINAL_VALID)


def test_a_grid_has_sections_of_its_own_and_no_line_anywhere_else(results, tmp_path):
    figures = results.plot()
    assert {"task.grid", "task.loss"} < set(figures)
    labels = {t.get_text() for t in figures["task.loss"].axes[0].texts}
    assert "adamw" in labels and "mada(0.1, 0.5)" not in labels
    numbers = [t.get_text() for t in figures["task.grid"].axes[1].texts]
    assert len(numbers) == 9 and "∞" in numbers
    (comparison,) = results.comparisons()
    assert "mada(0.1, 0.5)" not in comparison.scores
    assert "final training loss over b1 and b2" in results.table()
    page = Page(results.to_html(tmp_path / "page.html").read_text())
    assert "From a grid of b1 and b2" in page.text
    said = "over 9 pairs of b1 and b2, the worst final training loss is 2.890 for mada"
    assert said in page.text


def test_a_page_of_nothing_but_a_grid(tmp_path):
    alone = Results(of_grid("mada", lambda x, y: x + y))
    assert alone.comparisons() == []
    assert set(alone.plot()) == {"task.grid"}
    Page(alone.to_html(tmp_path / "page.html").read_text())
    assert "Which optimizer" not in (tmp_path / "page.html").read_text()
