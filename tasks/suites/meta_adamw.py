r"""Does MetaAdamW gain anything, and by what? The tasks of its paper, in two sizes.

Beside AdamW, two controls without which a gain cannot be put down to attention or to
meta-learning, because the attention's random start alone moves all learning rates:

* `mean_alpha`: one learning rate for all groups, that of AdamW times the mean factor;
* `meta_adamw_frozen`: the attention as it was drawn, never meta-updated.

Every seed draws its own attention, the same one for the control as for MetaAdamW. The
validation batches of meta-updates are a twentieth of the training data that no training
batch comes from, for AdamW neither; the paper takes them from the data that it reports
on. Runs are long enough for the paper's early stopping, and are stopped in the report.
As the paper reports the best epoch of each run, so does `meta_adamw`: its scores are of
the best validation loss.

Sizes, learning rate, weight decay, options and epochs of `meta_adamw` are those of the
paper and its logs (arXiv 2605.04055), but for two: validation is on held-out training
data where the paper has the test set, and Multi30k has a vocabulary of both languages.
The learning rate was not tuned there, nor is it here. `meta_adamw-mini` has the same
tasks and features on models that two cores train in minutes, an attention of two small
layers, and fifteen evaluations to count patience in. Its learning rates are the best of
AdamW's, of five that are half a decade apart, on two seeds that it does not use:

    python -m tasks.suites.sweep --suite meta_adamw-mini --data-dir DATA \
        --optimizers 'optax:adamw(learning_rate={}, weight_decay=0.01)'
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tasks.early_stopping import EarlyStopping
from tasks.measures import BEST_VALID
from tasks.optimizers import OptimizerLike
from tasks.suites.base import Entry, Suite

WEIGHT_DECAY, META_FRACTION = 0.01, 0.05
LEARNING_RATE = 5e-4
MINI_EPOCHS, MINI_ATTENTION = 15, {"attn_layers": 2, "attn_hidden_dim": 16}


class _Experiment(NamedTuple):
    """A row of the paper's table 4; `epoch` and `meta_every` are in steps."""

    task: str
    small: str
    epoch: int
    epochs: int
    meta_every: int
    attn_layers: int
    attn_hidden_dim: int
    mini_epoch: int
    mini_learning_rate: float
    options: dict[str, Any]
    min_delta: float = 1e-3


_BASIC = {"features": "basic", "attn_heads": 6}
_EXPERIMENTS = (
    _Experiment(
        "etth1", "etth1-small", 217, 8, 217, 8, 16, 40, 1e-3,
        {**_BASIC, "use_feature_gating": True, "huw_priorities": (1, 1, 1)},
        min_delta=1e-4,
    ),
    _Experiment(
        "wikitext2-minigpt", "wikitext2-minigpt-small", 123, 15, 123, 8, 16, 40, 1e-3,
        {**_BASIC, "huw_priorities": (1, 1, 1)},
    ),
    _Experiment(
        "multi30k", "multi30k-small", 454, 25, 454, 128, 64, 30, 3e-3,
        {**_BASIC, "huw_priorities": (2, 5, 1)},
    ),
    _Experiment(
        "cifar10-resnet18", "cifar10-resnet-small", 391, 15, 190, 64, 64, 20, 3e-3,
        {**_BASIC, "huw_priorities": (5, 2, 1)},
    ),
    _Experiment(
        "imdb", "imdb-small", 391, 15, 39, 64, 64, 60, 1e-2,
        {
            "features": "basic_plus",
            "attn_heads": 11,
            "use_feature_gating": True,
            "huw_priorities": (1, 3, 5),
        },
    ),
)  # fmt: skip


def optimizers(
    learning_rate: float, meta_every: int, **options: Any
) -> tuple[OptimizerLike, ...]:
    """AdamW, the two controls, and MetaAdamW with the options.

    Example:
      >>> [name for name, _ in optimizers(1e-3, 10)]
      ['adamw', 'mean_alpha', 'meta_adamw_frozen', 'meta_adamw']
    """
    rates = {"learning_rate": learning_rate, "weight_decay": WEIGHT_DECAY}
    learned, controls = "mada_optax:meta_adamw", "mada_optax.meta_adamw.controls"

    def spec(path: str, **arguments: Any) -> str:
        given = ", ".join(f"{k}={v!r}" for k, v in {**rates, **arguments}.items())
        return f"{path}({given})"

    return (
        ("adamw", spec("optax:adamw")),
        (
            "mean_alpha",
            spec(f"{controls}:mean_alpha", meta_every=meta_every, **options),
        ),
        ("meta_adamw_frozen", spec(learned, meta_every=0, **options)),
        ("meta_adamw", spec(learned, meta_every=meta_every, **options)),
    )


def _paper(found: _Experiment) -> Entry:
    attention = {
        "attn_layers": found.attn_layers,
        "attn_hidden_dim": found.attn_hidden_dim,
    }
    return Entry(
        task=found.task,
        steps=found.epoch * found.epochs,
        eval_every=found.epoch,
        overrides={"meta_fraction": META_FRACTION},
        early_stopping=EarlyStopping(min_delta=found.min_delta),
        optimizers=optimizers(
            LEARNING_RATE, found.meta_every, **attention, **found.options
        ),
    )


def _mini(found: _Experiment) -> Entry:
    # As many meta-updates an epoch as in the paper.
    meta_every = found.mini_epoch * found.meta_every // found.epoch
    return Entry(
        task=found.small,
        steps=found.mini_epoch * MINI_EPOCHS,
        eval_every=found.mini_epoch,
        overrides={"meta_fraction": META_FRACTION},
        early_stopping=EarlyStopping(min_delta=found.min_delta),
        optimizers=optimizers(
            found.mini_learning_rate, meta_every, **MINI_ATTENTION, **found.options
        ),
    )


META_ADAMW = Suite(
    name="meta_adamw",
    description="MetaAdamW and its controls on the five tasks of its paper.",
    entries=tuple(map(_paper, _EXPERIMENTS)),
    early_stopping=EarlyStopping(),
    measure=BEST_VALID,
)
META_ADAMW_MINI = Suite(
    name="meta_adamw-mini",
    description="MetaAdamW and its controls on small models of its paper's tasks.",
    entries=tuple(map(_mini, _EXPERIMENTS)),
    early_stopping=EarlyStopping(),
)
