"""MADA, HyperAdam and the members of the family, as in their paper and in small.

* *Pretraining.* GPT-2 on OpenWebText: every member, MADA, and both from a poor start,
  evaluated on WikiText and LAMBADA too.
* *Robustness.* A character model of Shakespeare, over a grid of initial (b1, b2). The
  paper's claim is about the training loss, over which the page of this suite compares.
* *Images.* A 5-layer CNN and ResNet-9 on CIFAR-10, whose learning rates, schedules and
  hyper-rates are not published: those here are ours.
* *Counterexamples* of periods 101 and 3, on which Adam goes to the worst point.

MADA-FS, the fixed optimizer at the coefficients where MADA ended, is trained after the
others have ended. It starts from the mean over their seeds, where the paper has one
run. Settings: Ozkara et al. (arXiv 2401.08893) and its released code.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.measures import FINAL_TRAIN
from tasks.optimizers import OptimizerLike
from tasks.suites.base import Entry, Suite

if TYPE_CHECKING:
    from tasks.results import Results

COEFFICIENTS = ("b1", "b2", "b3", "c", "rho", "gamma")
START, POOR = (0.9, 0.95), (0.7, 0.8)

_OPENWEBTEXT = {"learning_rate": 6e-4, "eps": 1e-6, "weight_decay": 0.1}
_OPENWEBTEXT_HYPER = {
    "hyper_learning_rate": dict.fromkeys(("b1", "b2"), 5e-4)
    | dict.fromkeys(COEFFICIENTS[2:], 0.1),
    "hyper_warmup": 50,
}
_CHARACTERS_HYPER = {
    "hyper_learning_rate": 2.5e-3,
    "hyper_momentum": dict.fromkeys(COEFFICIENTS[:-1], 0.5) | {"gamma": 0.0},
}
B1 = (
    *(0.01, 0.05, 0.1, 0.125, 0.175, 0.225, 0.25, 0.3, 0.35, 0.375, 0.425, 0.475, 0.5),
    *(0.55, 0.6, 0.625, 0.675, 0.725, 0.75, 0.8, 0.85, 0.875, 0.925, 0.975, 0.99),
)
B2 = (0.501, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.99)
MINI_B1, MINI_B2 = (0.01, 0.25, 0.5, 0.75, 0.975), (0.501, 0.65, 0.8, 0.9, 0.99)


def _spec(inner: str, learning_rate: float, **options: Any) -> str:
    given = ", ".join(f"{name}={value!r}" for name, value in options.items())
    return f"tasks.recipes:pretraining({inner!r}, {learning_rate!r}, {given})"


def _of_hyper_adam(hyper: Mapping[str, Any]) -> dict[str, Any]:
    """MADA's hyper-rates for the two coefficients that HyperAdam learns."""

    def of_two(value: Any) -> Any:
        return {k: value[k] for k in ("b1", "b2")} if isinstance(value, dict) else value

    return {name: of_two(value) for name, value in hyper.items()}


def grid(
    b1s: tuple[float, ...],
    b2s: tuple[float, ...],
    learning_rate: float,
    hyper: Mapping[str, Any],
    **options: Any,
) -> tuple[OptimizerLike, ...]:
    """AdamW, HyperAdam and MADA from every pair of decays; names say the pair."""
    inners = {
        "adamw": ("optax:adamw", {}),
        "hyper_adam": ("mada_optax:hyper_adam", _of_hyper_adam(hyper)),
        "mada": ("mada_optax:mada", hyper),
    }
    return tuple(
        (
            f"{name}({b1}, {b2})",
            _spec(inner, learning_rate, b1=b1, b2=b2, **options, **more),
        )
        for name, (inner, more) in inners.items()
        for b1 in b1s
        for b2 in b2s
    )


def family(
    hyper: Mapping[str, Any], learning_rate: float, **options: Any
) -> tuple[OptimizerLike, ...]:
    """The members, those that adapt, and three of them from a poor start."""

    def start(pair: tuple[float, float]) -> dict[str, Any]:
        return dict(zip(("b1", "b2"), pair, strict=True)) | options

    make = functools.partial(_spec, learning_rate=learning_rate)
    adan = {"b1": 0.98, "b2": 0.92, "b3": 0.99}
    lion = {"learning_rate": learning_rate / 3, "b1": 0.95, "b2": 0.98}
    decay = {k: v for k, v in options.items() if k != "eps"}
    hyper_adam = _of_hyper_adam(hyper)
    return (
        ("adamw", make("optax:adamw", **start(START))),
        ("avgrad", make("mada_optax:avgrad", **start(START))),
        ("adan", make("mada_optax:adan", **adan, **options)),
        ("lion", _spec("mada_optax:lion", **lion, **decay)),
        ("hyper_adam", make("mada_optax:hyper_adam", **start(START), **hyper_adam)),
        ("mada", make("mada_optax:mada", **start(START), **hyper)),
        ("adamw poor", make("optax:adamw", **start(POOR))),
        ("hyper_adam poor", make("mada_optax:hyper_adam", **start(POOR), **hyper_adam)),
        ("mada poor", make("mada_optax:mada", **start(POOR), **hyper)),
    )


def final_states(
    results: Results, *, entry: Entry, learning_rate: float, **options: Any
) -> tuple[Entry, ...]:
    """MADA-FS: for every MADA of an entry, the member at which it ended."""
    ended: dict[str, list[list[float]]] = {}
    for record in results.records:
        of_entry = record.task == entry.task_name
        if of_entry and record.optimizer in ("mada", "mada poor"):
            last = [float(record.hyperparams[name][-1]) for name in COEFFICIENTS]
            ended.setdefault(record.optimizer, []).append(last)
    optimizers = []
    for name, runs in ended.items():
        mean = np.mean(runs, axis=0).round(4).tolist()
        start = dict(zip(COEFFICIENTS, mean, strict=True))
        inner = "mada_optax:mada_final_state"
        spec = _spec(inner, learning_rate, state_or_hyperparams=start, **options)
        optimizers.append((f"{name} final state", spec))
    return (dataclasses.replace(entry, optimizers=tuple(optimizers)),)


def _regret(steps: int) -> Entry:
    """The counterexample of period 101, with the settings of the paper's script."""
    adam = "learning_rate=0.001, b1=0.9, b2=0.99"
    slow = dict.fromkeys(("b3", "c", "rho"), 0.1)
    hyper = f"learn={tuple(slow)}, hyper_learning_rate={slow}, hyper_momentum=0.9"
    inners = {
        "adam": ("optax:adam", adam),
        "amsgrad": ("mada_optax:amsgrad", adam),
        "avgrad": ("mada_optax:avgrad", adam),
        "mada": ("mada_optax:mada", f"{adam}, eps=1e-6, hyper_clip=None, {hyper}"),
    }
    optimizers = tuple(
        (name, f"tasks.recipes:projected({path!r}, -1.0, 1.0, {given})")
        for name, (path, given) in inners.items()
    )
    return Entry("counterexample-1010", optimizers, steps)


def _classic(steps: int) -> Entry:
    """The counterexample of period 3, for Adam without momentum."""
    options = "b1=0.0, b2=0.1, eps=0.0, bias_correction=False"
    inners = {
        # Adam with b1 = 0 and no correction of the bias.
        "adam": ("optax:rmsprop", "decay=0.1, eps=0.0"),
        "amsgrad": ("mada_optax:amsgrad", options),
        "avgrad": ("mada_optax:avgrad", options),
    }
    recipe = "tasks.recipes:projected('tasks.recipes:inverse_sqrt', -1.0, 1.0"
    optimizers = tuple(
        (name, f"{recipe}, {path!r}, 0.1, {given})")
        for name, (path, given) in inners.items()
    )
    return Entry("counterexample-classic", optimizers, steps)


def _images(task: str, steps: int) -> Entry:
    """Momentum SGD, Adam, HyperAdam and MADA; rates of our own."""
    hyper_adam = _of_hyper_adam(_CHARACTERS_HYPER)
    decay = {"weight_decay": 5e-4}
    return Entry(
        task,
        (
            ("sgd", _spec("optax:sgd", 0.05, momentum=0.9)),
            ("adamw", _spec("optax:adamw", 1e-3, **decay)),
            ("hyper_adam", _spec("mada_optax:hyper_adam", 1e-3, **decay, **hyper_adam)),
            ("mada", _spec("mada_optax:mada", 1e-3, **decay, **_CHARACTERS_HYPER)),
        ),
        steps,
    )


_PRETRAINING = Entry(
    "openwebtext-gpt2",
    family(_OPENWEBTEXT_HYPER, **_OPENWEBTEXT),
    steps=100_000,
    eval_every=1000,
    overrides={"texts": ("wikitext", "lambada")},
)
MADA = Suite(
    name="mada",
    description="MADA and its relatives as in their paper, on text and images.",
    entries=(
        _PRETRAINING,
        _images("cifar10-cnn", 20_000),
        _images("cifar10-resnet9", 20_000),
        _regret(1_000_000),
        _classic(100_000),
    ),
    then=functools.partial(final_states, entry=_PRETRAINING, **_OPENWEBTEXT),
)
MADA_GRID = Suite(
    name="mada-grid",
    description="AdamW, HyperAdam and MADA from 275 initial (b1, b2) on Shakespeare.",
    entries=(
        Entry(
            "shakespeare-gpt2",
            grid(B1, B2, 1e-3, _CHARACTERS_HYPER, weight_decay=0.1),
            steps=5000,
        ),
    ),
    baseline="adamw(0.9, 0.95)",
    measure=FINAL_TRAIN,
)

# AdamW's best of five from (b1, b2) = (.9, .99), on two seeds that no suite uses:
# python -m tasks.suites.sweep --suite mada-grid-mini --data-dir DATA --optimizers \
#   "tasks.recipes:pretraining('optax:adamw', {}, b1=0.9, b2=0.99, weight_decay=0.1)"
MINI_LEARNING_RATE = 3e-3
# Written out: asking the registry for it would import all tasks with this module.
MINI_NAME = "shakespeare-gpt2-small(depth=2, width=32)"
_MINI = Entry(
    "shakespeare-gpt2-small",
    family(_CHARACTERS_HYPER, MINI_LEARNING_RATE, weight_decay=0.1),
    steps=1000,
    overrides={"width": 32, "depth": 2},
)
MADA_MINI = Suite(
    name="mada-mini",
    description="MADA and its relatives on small models, also badly begun.",
    entries=(
        _MINI,
        _images("cifar10-cnn-small", 1000),
        _regret(10_000),
        _classic(10_000),
    ),
    measure=FINAL_TRAIN,
    claims=(
        f"mada < adamw in final training loss on {MINI_NAME}",
        f"mada poor < adamw poor in final training loss on {MINI_NAME}",
        f"mada < hyper_adam in final training loss on {MINI_NAME}",
        f"mada final state < mada in final training loss on {MINI_NAME}",
    ),
    then=functools.partial(
        final_states, entry=_MINI, learning_rate=MINI_LEARNING_RATE, weight_decay=0.1
    ),
)
MADA_GRID_MINI = Suite(
    name="mada-grid-mini",
    description="AdamW, HyperAdam and MADA from 25 initial (b1, b2) on Shakespeare.",
    entries=(
        Entry(
            "shakespeare-gpt2-small",
            grid(
                MINI_B1,
                MINI_B2,
                MINI_LEARNING_RATE,
                _CHARACTERS_HYPER,
                weight_decay=0.1,
            ),
            steps=500,
            eval_every=100,
            overrides={"width": 32, "depth": 2, "context": 32},
        ),
    ),
    measure=FINAL_TRAIN,
)
