"""The claim of μLO in miniature: does a learned optimizer still work on wide networks?

The weights of `lopt` are meta-trained on digits, on networks of width 32 (`_s`) or of
widths 16, 32 and 64 (`_m`), three hidden layers deep, in runs of up to 1000 steps. Here
they train networks of up to 16 times the widest that they know, three times that depth,
and five times as long, on digits and on Fashion-MNIST, which they have not seen.

Each μLO has a twin, `lo_*`, that was meta-trained with the same budget in standard
parametrization, and is run in it. Adam in muP and AdamW won the grid searches of
`tasks.suites.mup_sweep`, some 500 configurations each, on the task of `mulo_s`. The
multipliers of muP were tuned for Adam, whose best inputs and outputs are the largest of
their grid; for μLO they are 1.

Source: Thérien et al. (arXiv 2406.00153), scaled down.
"""

from __future__ import annotations

import dataclasses

from tasks.measures import FINAL_TRAIN
from tasks.suites.base import IN_DISTRIBUTION, Entry, Suite

WIDTHS = (32, 128, 512, 1024)
STEPS = 250
EVALUATIONS = 10

META_TRAINED_ON = "digits-mlp"
WIDEST_SEEN = {"m": 64, "s": 32}
MUP_ADAM = "tasks:mup_adam(learning_rate=0.01)"
MULTIPLIERS = {
    "input_multiplier": 16.0,
    "output_multiplier": 16.0,
    "hidden_learning_rate_multiplier": 0.25,
}
ADAMW = "optax:adamw(learning_rate=0.0119, weight_decay=0.1)"


def _learned(kind: str, width: int) -> tuple[tuple[str, str], ...]:
    """The weights that have seen at least a sixteenth of that width."""
    names = [f"{kind}_{x}" for x, seen in WIDEST_SEEN.items() if width <= 16 * seen]
    return tuple((name, f"lopt:mulo({name!r})") for name in names)


def _twins(task: str, steps: int, width: int, **overrides) -> tuple[Entry, ...]:
    """One model in each of the parametrizations, with the optimizers made for it."""
    tuned = ", ".join(f"{name}={value}" for name, value in MULTIPLIERS.items())
    return tuple(
        Entry(
            task=task,
            steps=steps,
            eval_every=steps // EVALUATIONS,
            overrides={"width": width, **overrides, **rules},
            optimizers=optimizers,
        )
        for rules, optimizers in (
            ({"parametrization": "mup"}, _learned("mulo", width)),
            ({"parametrization": f"mup({tuned})"}, (MUP_ADAM,)),
            ({}, (*_learned("lo", width), ADAMW)),
        )
    )


def _entries(task: str, **overrides) -> tuple[Entry, ...]:
    by_width = [_twins(task, STEPS, width=w, depth=3, **overrides) for w in WIDTHS]
    if task == META_TRAINED_ON:
        seen = (dataclasses.replace(e, tags=(IN_DISTRIBUTION,)) for e in by_width[0])
        by_width[0] = tuple(seen)
    deep = _twins(task, STEPS, width=64, depth=9, **overrides)
    long = _twins(task, 20 * STEPS, width=64, depth=3, **overrides)
    return tuple(entry for twins in (*by_width, deep, long) for entry in twins)


MULO_MINI = Suite(
    name="mulo-mini",
    description="Learned optimizers on networks wider, deeper, longer than they know.",
    entries=(
        *_entries(META_TRAINED_ON),
        *_entries("fashion-mnist-mlp", size=8, batch_size=64),
    ),
    baseline="mup_adam",
    baselines=("mup_adam", "adamw"),
    measure=FINAL_TRAIN,  # What the weights were meta-trained for.
)
