"""What a suite is, and that those that come with the package are well formed."""

import json
import pathlib

import pytest

import tasks
from tasks import registry, tuning
from tasks.optimizers import resolve, resolve_all
from tasks.planning import plan
from tasks.suites import Entry, Suite, get_suite, list_suites, mulo_mini, sweep

SEARCHES = pathlib.Path(__file__).parents[2] / "benchmarks" / "results" / "mulo-mini"

WIDE, NARROW = (
    Entry("digits-mlp", ("optax:sgd(0.1)",), overrides={"width": width})
    for width in (16, 8)
)
OTHER = Entry("python-docs-lm", ("optax:sgd(0.1)",))
SUITE = Suite("toys", "Toys.", (WIDE, OTHER, NARROW))


def test_overrides_tell_entries_of_one_task_apart():
    assert WIDE.task_name == "digits-mlp(width=16)"
    assert SUITE.only(["digits-mlp(width=8)"]).entries == (NARROW,)
    assert SUITE.only(["digits-mlp"]).entries == (WIDE, NARROW)
    assert SUITE.only(["mnist-mlp", "python-docs-lm"]).entries == (
        Entry("mnist-mlp"),
        OTHER,
    )


def test_an_entry_has_the_name_of_its_task():
    same = {"width": 64, "data_dir": "/x", "batch_size": 64}
    entries = Entry("digits-mlp", overrides=same), Entry("digits-mlp(width=64)")
    assert [entry.task_name for entry in entries] == ["digits-mlp"] * 2
    mixed = Entry("digits-mlp(width=8)", overrides={"depth": 3})
    assert mixed.task_name == "digits-mlp(depth=3, width=8)"
    assert tasks.get("digits-mlp", width=8, depth=3).name == mixed.task_name
    assert SUITE.only(["digits-mlp(width=16, depth=2)"]).entries == (WIDE,)
    with pytest.raises(ValueError, match="unknown digits-mlp override 'widht'"):
        _ = Entry("digits-mlp", overrides={"widht": 8}).task_name


def test_what_the_suite_compares_with_is_known_where_it_was_not_run():
    without = Suite("toys", "Toys.", (WIDE,), baseline="mup_adam")
    for baseline, expected in ((None, "mup_adam"), ("sgd", "sgd")):
        (cell,) = plan(without, baseline=baseline)
        assert cell.context["baseline"] == "sgd"
        assert cell.context["suite_baseline"] == expected


def test_a_task_may_come_in_two_lengths_and_on_two_tracks():
    long = Entry("digits-mlp", ("optax:sgd(0.1)",), steps=2000)
    short = Entry("digits-mlp", ("optax:sgd(0.1)",), steps=10, track="tuned")
    spec = "optax:sgd(0.01)"
    other = Entry("digits-mlp", (("sgd, as it comes", spec),), 2000, track="untuned")
    suite = Suite("toys", "Toys.", (long, short, other))
    assert [(c.task_name, c.optimizer.name) for c in plan(suite)] == [
        ("digits-mlp", "sgd"),
        ("digits-mlp [10 steps]", "sgd"),
        ("digits-mlp", "sgd, as it comes"),
    ]
    with pytest.raises(ValueError, match="'sgd' is on both tracks"):
        plan(
            Suite("toys", "", (long, Entry("digits-mlp", (spec,), 2000, track="tuned")))
        )
    with pytest.raises(ValueError, match="two tasks have the name 'digits-mlp'"):
        plan(Suite("toys", "", (long, Entry("digits-mlp", (spec,), 2000))))
    with pytest.raises(ValueError, match="unknown track 'tunde', did you mean 'tuned'"):
        Entry("digits-mlp", track="tunde")


def test_what_the_user_names_is_run_once_on_a_task_of_both_tracks():
    tracks = [
        Entry("digits-mlp", ((f"sgd {t}", "optax:sgd(0.1)"),), n, track=t)
        for n in (10, 20)
        for t in ("tuned", "untuned")
    ]
    suite = Suite("toys", "Toys.", tuple(tracks))
    found = plan(suite, "optax:adamw(0.01)")
    assert [(c.task_name, c.steps) for c in found] == [
        ("digits-mlp", 10),
        ("digits-mlp [20 steps]", 20),
    ]
    assert all("track" not in c.context for c in found)
    short = plan(suite, steps=5)
    assert [(c.task_name, c.optimizer.name) for c in short] == [
        ("digits-mlp", "sgd tuned"),
        ("digits-mlp", "sgd untuned"),
    ]
    # The data are read once.
    assert short[0].make_task().data is short[1].make_task().data


def test_records_know_what_they_will_be_judged_by():
    found = {"trials": 5, "volume": 2.0, "seeds": [100], "at_edge": []}
    entry = Entry(
        "digits-mlp",
        ("optax:sgd(0.1)",),
        track="tuned",
        tuning={"sgd": found},
        tags=("in-distribution",),
    )
    claim = "sgd < adamw in final validation loss on digits-mlp"
    suite = Suite("toys", "", (entry,), baselines=("sgd",), claims=(claim,))
    (cell,) = plan(suite)
    assert cell.context["claims"] == [claim]
    assert cell.context["baselines"] == ["sgd"]
    assert cell.context["tuning"] == {"sgd": found}
    assert cell.context["tags"] == ["in-distribution"]
    assert "tuning" not in plan(suite, "optax:sgd(0.2)")[0].context
    with pytest.raises(ValueError, match="overlap those that 'sgd' was tuned on"):
        plan(suite, seeds=(0, 100))
    with pytest.raises(ValueError, match="is not 'LEFT < RIGHT in MEASURE on TASK'"):
        Suite("toys", "", (entry,), claims=("sgd is best",))


def test_a_sweep_is_over_the_tasks_of_the_suite_with_their_overrides(monkeypatch):
    asked = []

    class Stop(Exception):
        pass

    def evaluate(suite, *_, **__):
        asked.extend(suite.entries)
        raise Stop

    monkeypatch.setattr(tuning, "evaluate", evaluate)
    monkeypatch.setattr(tuning, "get_suite", lambda name: SUITE)
    with pytest.raises(Stop):
        sweep.sweep("toys")
    assert [e.task_name for e in asked] == [e.task_name for e in SUITE.entries]
    assert [e.steps for e in asked] == [e.steps for e in SUITE.entries]


@pytest.mark.parametrize("name", list_suites())
def test_entries_are_distinct_and_name_what_exists(name):
    entries = get_suite(name).entries
    names = [(entry.task_name, entry.steps, entry.track) for entry in entries]
    assert len(set(names)) == len(names)
    for entry in entries:
        assert entry.task in registry.list_tasks()
        assert resolve_all(entry.optimizers)


def test_mulo_mini_goes_far_beyond_meta_training():
    entries = get_suite("mulo-mini").entries
    assert max(e.overrides["width"] for e in entries) == 16 * 64
    assert max(e.overrides["depth"] for e in entries) == 3 * 3
    assert max(e.steps for e in entries) == 5 * 1000


def test_mulo_mini_marks_what_its_weights_were_meta_trained_on():
    tagged = [e for e in get_suite("mulo-mini").entries if e.tags]
    assert {(e.task, e.overrides["width"]) for e in tagged} == {("digits-mlp", 32)}
    assert len(tagged) == 3 and {e.tags for e in tagged} == {("in-distribution",)}


def test_robustness_is_the_default_suite_off_its_settings():
    tuned = {
        e.task: {o.spec for o in resolve_all(e.optimizers)}
        for e in get_suite("default").entries
    }
    suite, found = get_suite("robustness"), {}
    for e in suite.entries:
        names = [o.name for o in resolve_all(e.optimizers)]
        found[e.task_name, e.steps, e.track] = names
        specs = {o.spec for o in resolve_all(e.optimizers)}
        if e.track == "untuned":
            assert all(spec.endswith("(learning_rate=0.001)") for spec in specs)
        else:
            assert len(specs & tuned[e.task]) == 3
    assert sum(map(len, found.values())) == 9 + 8 * 3 + 3 * 3
    assert list(found)[:9] == [
        ("digits-mlp", 1000, "tuned"),
        ("digits-mlp", 250, "tuned"),
        ("digits-mlp", 4000, "tuned"),
        ("digits-mlp(width=16)", 1000, "tuned"),
        ("digits-mlp(width=256)", 1000, "tuned"),
        ("digits-mlp(depth=1)", 1000, "tuned"),
        ("digits-mlp(depth=4)", 1000, "tuned"),
        ("digits-mlp(batch_size=16)", 1000, "tuned"),
        ("digits-mlp(batch_size=256)", 1000, "tuned"),
    ]
    assert len(plan(suite)) == 42


def test_mulo_mini_runs_every_model_in_each_parametrization():
    by_model = {}
    for entry in get_suite("mulo-mini").entries:
        model = {k: v for k, v in entry.overrides.items() if k != "parametrization"}
        rules = entry.overrides.get("parametrization", "sp")
        names = tuple(o.name for o in resolve_all(entry.optimizers))
        by_model.setdefault(f"{entry.task} {model} {entry.steps}", {})[rules] = names
    assert len(by_model) == 2 * 6
    for found in by_model.values():
        muls, tuned, sp = found.values()
        assert list(found)[::2] == ["mup", "sp"]
        assert tuned == ("mup_adam",)
        assert sp[-1] == "adamw"
        assert [n.replace("mulo", "lo") for n in muls] == list(sp[:-1])


def test_mulo_mini_asks_of_weights_sixteen_times_the_width_they_have_seen():
    by_width = {}
    for entry in get_suite("mulo-mini").entries:
        names = {o.name for o in resolve_all(entry.optimizers)}
        by_width.setdefault(entry.overrides["width"], set()).update(names)
    assert {"mulo_m", "mulo_s", "lo_m", "lo_s"} < by_width[512]
    assert by_width[1024] == {"mulo_m", "lo_m", "mup_adam", "adamw"}


@pytest.mark.parametrize(
    ("optimizer", "spec"),
    [("mup_adam", mulo_mini.MUP_ADAM), ("adamw", mulo_mini.ADAMW)],
)
def test_mulo_mini_is_tuned_as_the_record_of_the_search_says(optimizer, spec):
    record = json.loads((SEARCHES / f"{optimizer}.json").read_text())
    given = dict(resolve(spec).kwargs)
    if optimizer == "mup_adam":
        given |= mulo_mini.MULTIPLIERS
    assert record["configurations"] >= 500
    assert (record["task"]["width"], record["task"]["depth"]) == (32, 3)
    assert given == {
        name: pytest.approx(record["best"][0][name], rel=0.01) for name in given
    }
