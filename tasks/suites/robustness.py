"""How much does it matter that an optimizer was tuned? In small, on embedded data.

AdamW, HyperAdam and MADA as in the suite `default`, with the rates that won its sweeps,
and at the rate that a user has who did not tune: these are the two tracks. From the
tuned classifier lead five axes, one at a time: a tenth and ten times the learning rate,
narrower and wider, shallower and deeper networks, smaller and larger batches, shorter
and longer runs.
"""

from __future__ import annotations

import dataclasses

from tasks.suites.axes import LEARNING_RATES, along
from tasks.suites.base import Entry, Suite
from tasks.suites.default import DEFAULT

LENGTHS = 250, 4000
# Of width 64, depth 2 and batches of 64.
OTHERS = (
    *({"width": width} for width in (16, 256)),
    *({"depth": depth} for depth in (1, 4)),
    *({"batch_size": size} for size in (16, 256)),
)
UNTUNED_RATE = 0.001
NAMES = "adamw", "hyper_adam", "mada"
# What `tasks.suites.sweep` did for each of them.
_SEARCH = {"trials": 5, "volume": 2.0, "seeds": [100, 101], "at_edge": []}


def _path(spec: object) -> str:
    return str(spec).partition("(")[0]


def _tuned(entry: Entry) -> Entry:
    kept = tuple(o for o in entry.optimizers if _path(o).partition(":")[2] in NAMES)
    tuning = dict.fromkeys(NAMES, _SEARCH)
    return dataclasses.replace(entry, optimizers=kept, track="tuned", tuning=tuning)


def _untuned(entry: Entry) -> Entry:
    optimizers = tuple(
        (f"{name} (untuned)", f"{_path(o)}(learning_rate={UNTUNED_RATE})")
        for name, o in zip(NAMES, _tuned(entry).optimizers, strict=True)
    )
    return dataclasses.replace(entry, optimizers=optimizers, track="untuned")


CLASSIFIER, LANGUAGE = DEFAULT.entries
ROBUSTNESS = Suite(
    name="robustness",
    description="AdamW, HyperAdam and MADA untuned, at other rates, widths, lengths.",
    entries=(
        *along(_tuned(CLASSIFIER), learning_rate=LEARNING_RATES, steps=LENGTHS),
        *(dataclasses.replace(_tuned(CLASSIFIER), overrides=o) for o in OTHERS),
        _untuned(CLASSIFIER),
        _tuned(LANGUAGE),
        _untuned(LANGUAGE),
    ),
)
