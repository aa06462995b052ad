"""The evaluation of μLO: learned optimizers far beyond what they were meta-trained on.

32 models by width and 3 by depth, as in the fifth version of the paper, and its long
runs. Each stands here twice: in muP for μLO and Adam, in standard parametrization for
their twins, the learned optimizer LO and AdamW. The paper meta-trains on the MLP of
32x32 pixels, three layers deep: the small optimizers (`_s`) at width 128, the others
(`_m`) at 128, 512 and 1024. These entries have the tag of `IN_DISTRIBUTION`. The
weights that come with `lopt` were meta-trained on digits, see `mulo-mini`: to them all
is new. Others are named by path, as in `--optimizer "lopt:mulo('FILE')"`.

Adam and AdamW have the learning rates, decays and betas that won the paper's searches,
512 and 504 trials for each family of tasks at width 1024 in runs of 1000 steps. It does
not say which of them had schedules; here none has. Where its table gives 3 heads for
the width 1024, which they do not divide, the deep models have 8.

Coordinates are checked by

    python -m tasks coord-check imagenet32-mlp --optimizer "lopt:mulo" --widths 64 ...

Source: Thérien et al. (arXiv 2406.00153v5).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tasks.suites.base import IN_DISTRIBUTION, Entry, Suite

STEPS, LONG_STEPS = 5000, 25_000
WIDTH, DEEP, DEEP_BATCH_SIZE = 1024, 16, 128
META_TRAINING_WIDTHS = (128, 512, 1024)
HEADS = {192: 3, 384: 6, 768: 8, 1024: 8, 2048: 16, 3072: 16}
_WIDTHS = (128, 256, 512, 1024, 2048, 4096, 8192)
_LEARNED = "mulo_m", "mulo_s"


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


def _call(path: str, arguments: Mapping[str, Any]) -> str:
    return f"{path}({', '.join(f'{k}={v!r}' for k, v in arguments.items())})"


def _twins(
    family: _Family,
    width: int,
    *,
    steps: int = STEPS,
    tags: tuple[str, ...] = (),
    **changes: Any,
) -> tuple[Entry, Entry]:
    """One model in both parametrizations, with the optimizers made for each."""
    overrides = {**family.overrides, "width": width, **changes}
    if family in (VIT, LANGUAGE):
        overrides["num_heads"] = HEADS[width]

    def entry(optimizers: tuple[Any, ...], **rules: str) -> Entry:
        return Entry(
            task=family.task,
            steps=steps,
            overrides={**overrides, **rules},
            optimizers=optimizers,
            tags=tags,
        )

    learned = tuple((name, f"lopt:mulo({name!r})") for name in _LEARNED)
    return (
        entry(
            (*learned, _call("tasks:mup_adam", family.mup_adam)), parametrization="mup"
        ),
        entry((("lo_m", "lopt:mulo('lo_m')"), _call("optax:adamw", family.adamw))),
    )


def _all() -> Iterable[tuple[Entry, Entry]]:
    for family in FAMILIES:
        for width in family.widths:
            seen = family is IMAGENET32 and width in META_TRAINING_WIDTHS
            yield _twins(family, width, tags=(IN_DISTRIBUTION,) if seen else ())
    for family in _VARIED:
        yield _twins(family, WIDTH, depth=DEEP, batch_size=DEEP_BATCH_SIZE)
    for family in _VARIED:
        yield _twins(family, WIDTH, steps=LONG_STEPS)


MULO = Suite(
    name="mulo",
    description="Learned optimizers on the 35 models of μLO's paper, and in long runs.",
    entries=tuple(entry for twins in _all() for entry in twins),
    baseline="mup_adam",
)
