"""The suite of μLO's paper: which models it has, and what is run on them."""

import pytest

from tasks import registry
from tasks.optimizers import resolve_all
from tasks.suites import get_suite
from tasks.suites.base import IN_DISTRIBUTION
from tasks.suites.mulo import HEADS

ENTRIES = get_suite("mulo").entries
MUP = [e for e in ENTRIES if "parametrization" in e.overrides]
SP = [e for e in ENTRIES if "parametrization" not in e.overrides]


def models(entries):
    return [
        (e.task, e.steps, {k: v for k, v in e.overrides.items() if v != "mup"})
        for e in entries
    ]


def test_35_models_and_3_long_runs_in_both_parametrizations():
    assert models(MUP) == models(SP)
    lengths = [e.steps for e in SP]
    assert (lengths.count(5000), lengths.count(25_000)) == (35, 3)
    by_task = {}
    for e in SP:
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
    assert {e.overrides["width"] for e in deep} == {1024} and len(deep) == 3
    for option in ("patch_size=16", "context=64", "dropout=0.1", "sentencepiece"):
        assert any(option in registry.describe(task) for task in {e.task for e in SP})


def test_the_widths_of_meta_training_are_marked():
    marked = [e for e in ENTRIES if IN_DISTRIBUTION in e.tags]
    assert {e.task for e in marked} == {"imagenet32-mlp"}
    assert [e.overrides["width"] for e in marked[::2]] == [128, 512, 1024]
    assert {(e.overrides["depth"], e.steps) for e in marked} == {(3, 5000)}


def test_optimizers_run_in_the_parametrization_they_are_made_for():
    for entries, names in (
        (MUP, ["mulo_m", "mulo_s", "mup_adam"]),
        (SP, ["lo_m", "adamw"]),
    ):
        for e in entries:
            assert [o.name for o in resolve_all(e.optimizers)] == names


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
            *_, last = resolve_all(e.optimizers)
            expected = adam if last.name == "mup_adam" else adamw
            assert tuple(last.kwargs[k] for k in names[: len(expected)]) == expected
