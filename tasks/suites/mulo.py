"""The evaluation of μLO: learned optimizers far beyond what they were meta-trained on.

32 models by width and 3 by depth, as in the fifth version of the paper, and its long
runs. Each stands here twice: in muP for μLO and Adam, in standard parametrization for
their twins, the learned optimizer LO and AdamW. Adam and AdamW are on the tuned track;
learned optimizers, which have nothing to tune, and AdamW at its usual learning rate on
the untuned one. At the width of the tuning, the rates of the tuned are varied too, and
with all optimizers the number of steps.

The claims are the paper's own. It meta-trains on the MLP of
32x32 pixels, three layers deep: the small optimizers (`_s`) at width 128, the others
(`_m`) at 128, 512 and 1024. These entries have the tag of `IN_DISTRIBUTION`. The
weights that come with `lopt` were meta-trained on digits, see `mulo-mini`: to them all
is new. Others are named by path, as in `--optimizer "lopt:mulo('FILE')"`.

Adam and AdamW have the learning rates, decays and betas that won the paper's searches,
512 and 504 trials for each family of tasks at width 1024 in runs of 1000 steps: of the
settings at other widths the track says how they were found, not that they are the best
there. It does not say which of them had schedules; here none has. Where its table gives
3 heads for the width 1024, which they do not divide, the deep models have 8.

Coordinates are checked by

    python -m tasks coord-check imagenet32-mlp --optimizer "lopt:mulo" --widths 64 ...

Source: Thérien et al. (arXiv 2406.00153v5).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tasks.measures import FINAL_TRAIN
from tasks.search import Space
from tasks.suites.axes import LEARNING_RATES, along
from tasks.suites.base import IN_DISTRIBUTION, Entry, Suite

SHORT_STEPS, STEPS, LONG_STEPS = 1000, 5000, 25_000
WIDTH, DEEP, DEEP_BATCH_SIZE = 1024, 16, 128
META_TRAINING_WIDTHS = (128, 512, 1024)
HEADS = {192: 3, 384: 6, 768: 8, 1024: 8, 2048: 16, 3072: 16}
_WIDTHS = (128, 256, 512, 1024, 2048, 4096, 8192)
_LEARNED = "mulo_m", "mulo_s"
_UNTUNED = "adamw (untuned)", "optax:adamw(learning_rate=0.001)"


class _Family(NamedTuple):
    """A kind of model, and what the searches for its optimizers found."""

    task: str
    widths: Iterable[int]
    mup_adam: Mapping[str, float]
    adamw: Mapping[str, float]
    overrides: Mapping[str, Any]


def _adam(learning_rate: float, b1: float, b2: float) -> dict[str, float]:
    return {"learning_rate": learning_rate, "b1": b1, "b2": b2}


def _adamw(
    learning_rate: float, b1: float, b2: float, weight_decay: float
) -> dict[str, float]:
    return {**_adam(learning_rate, b1, b2), "weight_decay": weight_decay}


_MLP = {"depth": 3, "batch_size": 4096}
IMAGENET32 = _Family(
    "imagenet32-mlp",
    _WIDTHS,
    _adam(0.044173, 0.85, 0.999),
    _adamw(7.02e-4, 0.9, 0.999, 0.01),
    _MLP,
)
IMAGENET64 = _Family(
    "imagenet64-mlp",
    _WIDTHS[:-1],
    _adam(0.028289, 0.85, 0.99),
    _adamw(7.02e-4, 0.9, 0.99, 0.001),
    _MLP,
)
CIFAR10 = _Family(
    "cifar10-mlp",
    _WIDTHS,
    _adam(0.1473, 0.9, 0.95),
    _adamw(2.89e-3, 0.9, 0.95, 0.0001),
    _MLP,
)
VIT = _Family(
    "imagenet32-vit",
    HEADS,
    _adam(0.044173, 0.85, 0.999),
    _adamw(1.70e-4, 0.9, 0.999, 0.01),
    {"depth": 3, "batch_size": 1024},
)
LANGUAGE = _Family(
    "lm1b-transformer",
    HEADS,
    _adam(0.1077, 0.85, 0.999),
    _adamw(7.02e-4, 0.9, 0.99, 0.001),
    {"depth": 3, "batch_size": 128},
)
FAMILIES = IMAGENET32, IMAGENET64, CIFAR10, VIT, LANGUAGE
_VARIED = IMAGENET32, VIT, LANGUAGE


# How the paper searched, by the optimizer that it searched for.
SPACES = {
    "mup_adam": {
        "learning_rate": tuple(10 ** (-6 * i / 31) for i in range(32)),
        "b1": (0.85, 0.9, 0.95, 0.99),
        "b2": (0.9, 0.95, 0.99, 0.999),
    },
    "adamw": {
        "learning_rate": tuple(10 ** (-1 - 4 * i / 13) for i in range(14)),
        "b1": (0.9, 0.95, 0.99),
        "b2": (0.95, 0.99, 0.999),
        "weight_decay": (0.1, 0.01, 0.001, 0.0001),
    },
}


def _call(path: str, arguments: Mapping[str, Any]) -> str:
    return f"{path}({', '.join(f'{k}={v!r}' for k, v in arguments.items())})"


def _search(name: str, found: Mapping[str, float]) -> dict[str, Any]:
    """What is known of the search that found a setting; not its seeds."""
    axes = SPACES[name]
    space = Space(" ".join(f"{{{axis}}}" for axis in axes), axes)
    return {
        "trials": space.grid_size,
        "volume": space.volume,
        "at_edge": space.edges(found),
    }


def _model(
    family: _Family, width: int, tags: tuple[str, ...] = (), **changes: Any
) -> tuple[Entry, ...]:
    """One model in both parametrizations and on both tracks."""
    overrides = {**family.overrides, "width": width, **changes}
    if family in (VIT, LANGUAGE):
        overrides["num_heads"] = HEADS[width]
    mup = {**overrides, "parametrization": "mup"}
    learned = tuple((name, f"lopt:mulo({name!r})") for name in _LEARNED)
    twins = ("lo_m", "lopt:mulo('lo_m')"), _UNTUNED

    def tuned(name: str, path: str, found: Mapping[str, float], **rules: Any) -> Entry:
        return Entry(
            family.task,
            (_call(path, found),),
            STEPS,
            track="tuned",
            tuning={name: _search(name, found)},
            tags=tags,
            **rules,
        )

    def untuned(optimizers: tuple[Any, ...], **rules: Any) -> Entry:
        return Entry(
            family.task, optimizers, STEPS, track="untuned", tags=tags, **rules
        )

    return (
        tuned("mup_adam", "tasks:mup_adam", family.mup_adam, overrides=mup),
        untuned(learned, overrides=mup),
        tuned("adamw", "optax:adamw", family.adamw, overrides=overrides),
        untuned(twins, overrides=overrides),
    )


def _varied(entry: Entry) -> Iterable[Entry]:
    """The entry and what differs from it in one thing."""
    rates = LEARNING_RATES if entry.track == "tuned" else ()
    for e in along(entry, steps=(SHORT_STEPS, LONG_STEPS), learning_rate=rates):
        yield dataclasses.replace(e, tags=()) if e.steps > STEPS else e


def _all() -> Iterable[Entry]:
    for family in FAMILIES:
        for width in family.widths:
            seen = family is IMAGENET32 and width in META_TRAINING_WIDTHS
            tags = (IN_DISTRIBUTION,) if seen else ()
            varies = family in _VARIED and width == WIDTH
            for entry in _model(family, width, tags):
                yield from _varied(entry) if varies else (entry,)
    for family in _VARIED:
        yield from _model(family, WIDTH, depth=DEEP, batch_size=DEEP_BATCH_SIZE)


_WIDEST = "imagenet32-mlp(width=8192)"
_DEEP = "imagenet32-mlp(batch_size=128, depth=16, width=1024)"
_LONG = "imagenet32-mlp(width=1024) [25000 steps]"
CLAIMS = (
    "mulo_m > mup_adam in score on all tasks",
    "mulo_m > lo_m in score on all tasks",
    *(f"mulo_m < lo_m in {FINAL_TRAIN} on {t}" for t in (_WIDEST, _DEEP, _LONG)),
    *(f"mulo_m < mulo_s in {FINAL_TRAIN} on {t}" for t in (_WIDEST, _LONG)),
)
MULO = Suite(
    name="mulo",
    description="Learned optimizers on the 35 models of μLO's paper, and in long runs.",
    entries=tuple(_all()),
    baseline="mup_adam",
    baselines=("mup_adam", "adamw"),
    measure=FINAL_TRAIN,  # That of the paper's figures and of meta-training.
    claims=CLAIMS,
)
