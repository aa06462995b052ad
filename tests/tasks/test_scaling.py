# ruff: noqa: RUF001 (× is meant)
"""Losses over width: which tasks belong together, and what diverged runs do."""

import dataclasses

import numpy as np
import pytest
from test_report import Page
from test_results import BASELINE, FASTER, NAN, runs

from tasks import scaling
from tasks.parametrization import MAXIMAL_UPDATE
from tasks.results import Results
from tasks.suites import Entry
from tasks.suites.axes import along

MUP = MAXIMAL_UPDATE.metadata
SCALED = dataclasses.replace(MAXIMAL_UPDATE, output_multiplier=4.0).metadata


def at_width(width, optimizer, losses, **metadata):
    others = metadata.get("depth"), metadata.get("batch_size")
    given = f"width={width}, others={others}"
    rules = ", parametrization='mup'" if "parametrization" in metadata else ""
    records = runs(optimizer, losses, task=f"mlp({given}{rules})")
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
    (family,) = found  # Nothing of depth 7 or 9: two depths are no curve.
    assert (family.axis, family.name) == ("width", "toy MLP, 100 steps")
    assert family.values == [8, 32, 128]
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
    (family,) = found
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


def test_optimizers_are_compared_with_the_baseline_of_the_suite(found):
    (family,) = found
    assert family.baseline == "adamw (sp)"
    assert family.verdicts == {"mu (mup)": {8: "worse"}}
    lines = family.table().splitlines()
    assert "▲ worse than adamw (sp)" in lines[0]
    assert [line.count("▲") for line in lines[1:]] == [0, 0, 0, 0, 1]


@pytest.mark.parametrize("axis", ["depth", "batch_size", "steps"])
def test_other_axes_are_like_width(axis):
    def at(value):
        if axis != "steps":
            return at_width(8, "adamw", BASELINE, **{axis: value})
        return [
            dataclasses.replace(r, config={**r.config, "steps": value}, task=f"{value}")
            for r in at_width(8, "adamw", BASELINE)
        ]

    family = family_of(*(r for value in (1, 2, 4) for r in at(value)))
    assert (family.axis, family.values) == (axis, [1, 2, 4])
    assert family.columns[0] == f"{axis.replace('_', ' ')} 1"
    assert f"over {axis.replace('_', ' ')}" in family.name


def test_learning_rates_are_an_axis_of_one_task(tmp_path):
    names = ["adamw", "adamw [lr ×0.1]", "adamw [lr ×10]", "fixed"]
    results = Results([r for n in names for r in at_width(8, n, BASELINE)])
    (family,) = scaling.families(results.summaries())
    assert family.axis == scaling.LEARNING_RATE
    assert sorted(family.losses["adamw"]) == [0.1, 1, 10]
    assert sorted(family.losses["fixed"]) == [1]
    # The variants are no optimizers that anybody should try first.
    (comparison,) = results.comparisons()
    assert [s.optimizer for s in comparison.standings] == ["adamw", "fixed"]
    Page(results.to_html(tmp_path / "page.html").read_text())


def test_the_variants_of_an_entry_differ_in_one_thing_each():
    entry = Entry(
        "digits-mlp",
        ("optax:adamw(learning_rate=0.003)", ("mine", "lopt:mulo('mulo_s')")),
        steps=100,
        eval_every=10,
    )
    base, *others = along(
        entry, width=(16, 64, 256), steps=(50,), learning_rate=(0.1, 1, 10)
    )
    assert base.optimizers == (
        "optax:adamw(learning_rate=0.003)",
        ("adamw [lr ×0.1]", "optax:adamw(learning_rate=0.0003)"),
        ("adamw [lr ×10]", "optax:adamw(learning_rate=0.03)"),
        ("mine", "lopt:mulo('mulo_s')"),
    )
    assert all(e.optimizers == entry.optimizers for e in others)
    # The width that the entry has already is left out.
    assert [(e.task_name, e.steps, e.eval_every) for e in others] == [
        ("digits-mlp(width=16)", 100, 10),
        ("digits-mlp(width=256)", 100, 10),
        ("digits-mlp", 50, 5),
    ]
    with pytest.raises(ValueError, match="learning_rate must be a finite number > 0"):
        along(entry, learning_rate=(-1,))


def test_everything_that_shows_results_shows_them_over_width(tmp_path):
    results = everything()
    assert "final training loss, toy MLP, 100 steps" in results.table()
    plots = [name for name in results.plot() if name.endswith(".scaling")]
    assert plots == ["toy MLP, 100 steps.scaling"]
    page = Page(results.to_html(tmp_path / "page.html").read_text())
    assert "Over width: toy MLP, 100 steps" in page.text
    targets = {value for name, value in page.attributes if name == "id"}
    links = {value[1:] for name, value in page.attributes if name == "href"}
    assert links == targets
    # A task that was run in two parametrizations has one sentence and one section.
    assert page.text.count("the lowest final validation loss is") == 5
