"""What a gain of MetaAdamW has to be compared with before it means anything."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mada_optax.meta_adamw.attention import Factors
from mada_optax.meta_adamw.features import Leaf
from mada_optax.meta_adamw.grouping import Layout
from mada_optax.meta_adamw.optimizer import MetaAdamW
from mada_optax.meta_adamw.options import choose
from mada_optax.meta_adamw.transform import Rule


class _MeanRule(Rule):
    """The rule whose groups all have the mean alpha, and the decay of AdamW."""

    def factors(
        self, hyperparams: Any, leaves: Sequence[Leaf], groups: Layout, count: jax.Array
    ) -> Factors:
        found = super().factors(hyperparams, leaves, groups, count)
        mean = jnp.full_like(found.alpha, found.alpha.mean())
        return found._replace(alpha=mean, beta=jnp.ones_like(found.beta))


def mean_alpha(
    learning_rate: Any,
    *,
    num_steps: Any = None,
    preset: str = "default",
    **options: Any,
) -> MetaAdamW:
    """AdamW at the learning rate times the mean alpha of MetaAdamW.

    The control for MetaAdamW with the same arguments: the same attention over the same
    groups, drawn alike and meta-updated alike, but the mean of its alpha over the
    groups multiplies the learning rate of all of them, and beta is 1. What MetaAdamW
    gains over this, it gains by telling groups apart; what this gains over AdamW is a
    learning rate, or a schedule of one number, that AdamW could have been given.

    The published runs would be controlled by a constant: the mean over a finished run
    of MetaAdamW. This has the mean of every step instead, needs no first run, and is
    the stricter control of the two, since it may still adapt over time. Where alpha
    saturates, as raw norms make it do, the two are nearly the same.

    Args:
      learning_rate: as `meta_adamw`.
      num_steps: likewise.
      preset: likewise.
      **options: all others of `meta_adamw`.

    Returns:
      As `meta_adamw`; `alpha` and `beta` of its state are what was applied.

    Examples:
      >>> import jax.numpy as jnp
      >>> tx = mean_alpha(1e-3)
      >>> params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
      >>> _, state = tx.update(params, tx.init(params), params)
      >>> alpha = state.alpha.tolist()
      >>> alpha[0] == alpha[1], state.beta.tolist()
      (True, [1.0, 1.0])
    """
    given = {"learning_rate": learning_rate, "num_steps": num_steps, **options}
    return MetaAdamW(_MeanRule(choose(preset, given)))
