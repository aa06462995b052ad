"""Losses over width: which tasks belong together, and what diverged runs do."""

import dataclasses

import numpy as np
import pytest
from test_report import Page
from test_results import BASELINE, FASTER, NAN, runs

from tasks import scaling
from tasks.parametrization import MAXIMAL_UPDATE
from tasks.results import Results

MUP = MAXIMAL_UPDATE.metadata
SCALED = dataclasses.replace(MAXIMAL_UPDATE, output_multiplier=4.0).metadata


def at_width(width, optimizer, losses, **metadata):
    records = runs(optimizer, losses, task=f"mlp({width}, {metadata})")
    model = {"dataset": "toy", "model": "MLP", "width": width, **metadata}
    return [
        dataclasses.replace(
            r,
            config={**r.config, "task_metadata": model},
            context={**r.context, "suite_baseline": "adamw"},
        )
        for r in records
    ]


def everything():
    shaky = [[9, 2, 1, NAN, NAN]] * 3
    return Results(
        [
            *at_width(8, "adamw", BASELINE, depth=9),
            *at_width(8, "mu", FASTER, depth=9, **MUP),
            *at_width(32, "adamw", BASELINE),
            *at_width(8, "adamw", FASTER),
            *at_width(128, "adamw", shaky),
            *at_width(8, "mu", BASELINE, **MUP),
            *at_width(8, "adamw", BASELINE, depth=7),
        ]
    )


@pytest.fixture(scope="module")
def found():
    return scaling.families(everything().summaries())


def family_of(*records):
    (found,) = scaling.families(Results(records).summaries())
    return found


def test_tasks_that_differ_in_more_than_width_are_apart(found):
    family, _ = found
    assert family.name == "toy MLP, 100 steps"
    assert family.widths == [8, 32, 128]
    assert {k: sorted(v) for k, v in family.losses.items()} == {
        "adamw (sp)": [8, 32, 128],
        "mu (mup)": [8],
    }


def test_the_loss_is_the_mean_of_the_last_twentieth(found):
    # `runs` repeats the validation loss over each quarter of training.
    losses = found[0].losses["adamw (sp)"]
    assert losses[8].estimate == np.median([1.5, 2.5, 3.5])
    assert losses[32].estimate == np.median([2, 3, 4])


def test_diverged_runs_are_infinite_and_shown(found):
    family, _ = found
    assert family.losses["adamw (sp)"][128].estimate == np.inf
    assert "∞" in family.table()
    (line, *_) = family.plot().axes[0].lines
    assert np.isnan(line.get_ydata()[-1])


def test_parametrizations_of_one_optimizer_are_lines_of_their_own():
    widths = (8, 32, 128)
    family = family_of(
        *(r for w in widths for r in at_width(w, "adamw", BASELINE)),
        *(r for w in widths for r in at_width(w, "adamw", FASTER, **MUP)),
        *(r for w in widths for r in at_width(w, "adamw", FASTER, **SCALED)),
    )
    names = ["adamw (sp)", "adamw (mup)", "adamw (mup(output_multiplier=4.0))"]
    assert list(family.losses) == names
    assert all(sorted(of) == list(widths) for of in family.losses.values())
    assert len(family.plot().axes[0].lines) == 3


def test_one_parametrization_goes_without_saying():
    several = [r for w in (8, 32, 128) for r in at_width(w, "adamw", BASELINE, **MUP)]
    assert list(family_of(*several).losses) == ["adamw"]


def test_a_model_in_two_parametrizations_is_a_table_without_a_plot(found):
    _, twins = found
    assert (twins.name, twins.is_curve) == ("toy MLP, depth 9, 100 steps", False)
    assert list(twins.losses) == ["adamw (sp)", "mu (mup)"]
    assert twins.table().splitlines()[2].split("|")[2].strip() == "width 8"
    assert len(scaling.families(everything().summaries())) == 2  # Nothing of depth 7.


def test_optimizers_are_compared_with_the_baseline_of_the_suite(found):
    family, twins = found
    assert family.baseline == "adamw (sp)"
    assert family.verdicts == {"mu (mup)": {8: "worse"}}
    assert twins.verdicts == {"mu (mup)": {8: "better"}}
    assert "▲ worse than adamw (sp)" in family.table()
    assert [line.count("▼") for line in twins.table().splitlines()] == [
        1,
        0,
        0,
        0,
        0,
        1,
    ]


def test_everything_that_shows_results_shows_them_over_width(tmp_path):
    results = everything()
    assert "final training loss, toy MLP, 100 steps" in results.table()
    plots = [name for name in results.plot() if name.endswith(".scaling")]
    assert plots == ["toy MLP, 100 steps.scaling"]
    page = Page(results.to_html(tmp_path / "page.html").read_text())
    assert "Over width: toy MLP, 100 steps" in page.text
    assert "Side by side: toy MLP, depth 9, 100 steps" in page.text
    targets = {value for name, value in page.attributes if name == "id"}
    links = {value[1:] for name, value in page.attributes if name == "href"}
    assert links == targets
    # Only a task that is in no family has a sentence and a column of its own above.
    sentences = page.text.count("the lowest final validation loss is")
    assert sentences == page.text.split("Overview")[1].count("(8, {'depth': 7}):") == 1
    assert page.text.count("▼ better") - page.text.count("▼ better and") == 1


def test_nothing_is_marked_in_an_overview_of_families_alone(tmp_path):
    several = [r for w in (8, 32, 128) for r in at_width(w, "adamw", BASELINE)]
    page = Results(several).to_html(tmp_path / "page.html").read_text()
    overview = page.partition("Overview")[2].partition("<h2")[0]
    assert "shaded" not in overview and "<ul>" not in overview
    assert "A range of costs is over the tasks." in overview
