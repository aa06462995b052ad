"""Losses over width: which tasks belong together, and what diverged runs do."""

import dataclasses

import numpy as np
import pytest
from test_results import BASELINE, FASTER, NAN, runs

from tasks import scaling
from tasks.results import Results


def at_width(width, optimizer, losses, **metadata):
    records = runs(optimizer, losses, task=f"mlp({width}, {metadata})")
    model = {"dataset": "toy", "model": "MLP", "width": width, **metadata}
    return [
        dataclasses.replace(r, config={**r.config, "task_metadata": model})
        for r in records
    ]


def everything():
    shaky = [[9, 2, 1, NAN, NAN]] * 3
    return Results(
        [
            *at_width(32, "adamw", BASELINE),
            *at_width(8, "adamw", FASTER),
            *at_width(128, "adamw", shaky),
            *at_width(8, "mu", BASELINE, parametrization="mup"),
            *at_width(8, "adamw", BASELINE, depth=9),
        ]
    )


@pytest.fixture(scope="module")
def family():
    (found,) = scaling.families(everything().summaries())
    return found


def test_tasks_that_differ_in_more_than_width_are_apart(family):
    assert family.name == "toy MLP, 100 steps"
    assert family.widths == [8, 32, 128]
    assert {k: sorted(v) for k, v in family.losses.items()} == {
        "adamw": [8, 32, 128],
        "mu": [8],
    }


def test_the_loss_is_the_mean_of_the_last_twentieth(family):
    # `runs` repeats the validation loss over each quarter of training.
    assert family.losses["adamw"][8].estimate == np.median([1.5, 2.5, 3.5])
    assert family.losses["adamw"][32].estimate == np.median([2, 3, 4])


def test_diverged_runs_are_infinite_and_shown(family):
    assert family.losses["adamw"][128].estimate == np.inf
    assert "∞" in family.table()
    (line, *_) = family.plot().axes[0].lines
    assert np.isnan(line.get_ydata()[-1])


def test_everything_that_shows_results_shows_them_over_width(tmp_path):
    results = everything()
    assert "final training loss, toy MLP, 100 steps" in results.table()
    assert "toy MLP, 100 steps.scaling" in results.plot()
    assert "Over width: toy MLP" in results.to_html(tmp_path / "page.html").read_text()
