"""The suite of μLO's paper: which models it has, and what is run on them."""

import pytest

from tasks import problems, registry
from tasks.claims import ALL_TASKS, Claim
from tasks.optimizers import resolve_all
from tasks.problems import variant_name
from tasks.suites import get_suite
from tasks.suites.base import IN_DISTRIBUTION, TRACKS
from tasks.suites.mulo import HEADS

ENTRIES = get_suite("mulo").entries
MUP = [e for e in ENTRIES if "parametrization" in e.overrides]
SP = [e for e in ENTRIES if "parametrization" not in e.overrides]


def models(entries, track):
    return [
        (e.task, e.steps, {k: v for k, v in e.overrides.items() if v != "mup"})
        for e in entries
        if e.track == track
    ]


def test_35_models_and_3_long_runs_in_both_parametrizations_on_both_tracks():
    found = [models(entries, t) for entries in (MUP, SP) for t in TRACKS]
    assert all(of == found[0] for of in found)
    lengths = [steps for _, steps, _ in found[0]]
    assert [lengths.count(n) for n in (1000, 5000, 25_000)] == [3, 35, 3]
    by_task = {}
    for e in [e for e in SP if e.track == "tuned"]:
        if e.steps == 5000 and e.overrides["depth"] == 3:
            by_task.setdefault(e.task, []).append(e.overrides["width"])
    of_mlps = [128, 256, 512, 1024, 2048, 4096, 8192]
    of_transformers = [192, 384, 768, 1024, 2048, 3072]
    assert by_task == {
        "imagenet32-mlp": of_mlps,
        "imagenet64-mlp": of_mlps[:-1],
        "cifar10-mlp": of_mlps,
        "imagenet32-vit": of_transformers,
        "lm1b-transformer": of_transformers,
    }


def test_the_batches_and_heads_of_the_paper():
    batches = {"mlp": 4096, "vit": 1024, "transformer": 128}
    for e in SP:
        kind = e.task.split("-")[1]
        deep = e.overrides["depth"] == 16
        assert e.overrides["batch_size"] == (128 if deep else batches[kind])
        if kind != "mlp":
            assert e.overrides["num_heads"] == HEADS[e.overrides["width"]]
            assert e.overrides["width"] % e.overrides["num_heads"] == 0
    deep = [e for e in SP if e.overrides["depth"] == 16]
    assert {e.overrides["width"] for e in deep} == {1024} and len(deep) == 2 * 3
    for option in ("patch_size=16", "context=64", "dropout=0.1", "sentencepiece"):
        assert any(option in registry.describe(task) for task in {e.task for e in SP})


def test_the_widths_of_meta_training_are_marked():
    marked = [e for e in ENTRIES if IN_DISTRIBUTION in e.tags]
    assert {e.task for e in marked} == {"imagenet32-mlp"}
    found = {(e.overrides["width"], e.overrides["depth"], e.steps) for e in marked}
    at_most_5000 = {(128, 3, 5000), (512, 3, 5000), (1024, 3, 5000), (1024, 3, 1000)}
    assert found == at_most_5000


def test_optimizers_run_in_the_parametrization_they_are_made_for():
    for entries, tuned, untuned in (
        (MUP, ["mup_adam"], ["mulo_m", "mulo_s"]),
        (SP, ["adamw"], ["lo_m", "adamw (untuned)"]),
    ):
        for e in entries:
            names = {o.name.partition(" [")[0]: 0 for o in resolve_all(e.optimizers)}
            assert list(names) == (tuned if e.track == "tuned" else untuned)


def test_learning_rates_of_the_tuned_are_varied_at_the_width_of_the_tuning():
    varied = [e for e in ENTRIES if len(e.optimizers) == 3]
    assert {(e.overrides["width"], e.overrides["depth"]) for e in varied} == {(1024, 3)}
    assert {(e.track, e.steps) for e in varied} == {("tuned", 5000)}
    assert len(varied) == 2 * 3
    (at_tenth,) = {
        o.kwargs["learning_rate"]
        for e in varied
        for o in resolve_all(e.optimizers)
        if e.task == "imagenet32-mlp" and o.name == variant_name("adamw", 0.1)
    }
    assert at_tenth == pytest.approx(7.02e-5)


def test_the_searches_of_the_paper_are_told():
    for name, trials in (("mup_adam", 512), ("adamw", 504)):
        found = [e.tuning[name] for e in ENTRIES if name in e.tuning]
        assert {of["trials"] for of in found} == {trials}
        assert len({of["volume"] for of in found}) == 1
    (adam,) = {
        tuple(e.tuning["mup_adam"]["at_edge"])
        for e in ENTRIES
        if e.task == "imagenet32-mlp" and "mup_adam" in e.tuning
    }
    assert adam == ("b1", "b2")


def test_claims_are_about_tasks_and_optimizers_of_the_suite():
    run = set()
    for e in ENTRIES:
        task = problems.without_parametrization(e.task_name)
        length = "" if e.steps == 5000 else f" [{e.steps} steps]"
        run |= {(o.name, task + length) for o in resolve_all(e.optimizers)}
    names = {name for name, _ in run}
    for claim in map(Claim.parse, get_suite("mulo").claims):
        for name in (claim.left, claim.right):
            everywhere = claim.task == ALL_TASKS and name in names
            assert everywhere or (name, claim.task) in run


@pytest.mark.parametrize(
    ("task", "adam", "adamw"),
    [
        ("imagenet32-mlp", (0.044173, 0.85, 0.999), (7.02e-4, 0.9, 0.999, 0.01)),
        ("imagenet64-mlp", (0.028289, 0.85, 0.99), (7.02e-4, 0.9, 0.99, 0.001)),
        ("cifar10-mlp", (0.1473, 0.9, 0.95), (2.89e-3, 0.9, 0.95, 0.0001)),
        ("imagenet32-vit", (0.044173, 0.85, 0.999), (1.70e-4, 0.9, 0.999, 0.01)),
        ("lm1b-transformer", (0.1077, 0.85, 0.999), (7.02e-4, 0.9, 0.99, 0.001)),
    ],
)
def test_the_settings_that_won_the_searches_of_the_paper(task, adam, adamw):
    names = "learning_rate", "b1", "b2", "weight_decay"
    for e in ENTRIES:
        if e.task == task:
            first = resolve_all(e.optimizers)[0]
            expected = {"mup_adam": adam, "adamw": adamw}.get(first.name, ())
            assert tuple(first.kwargs[k] for k in names[: len(expected)]) == expected
            assert (e.track == "tuned") == bool(expected)
