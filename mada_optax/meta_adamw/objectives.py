r"""What the attention is trained for, given a virtual step from x to x'.

With g1 the gradient at x on one training batch and g2 that at x' on another, per group:

.. math::

    L_{grad} &= \frac1G \sum_g \lambda_{1g} \|g_{2g}\|^2
      - \lambda_{2g} \cos(g_{1g}, g_{2g}), \\
    L_{loss} &= L(x'; B_v) - L(x; B_v), \qquad
    L_{gap} = |L(x; B_1) - L(x; B_v)|.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mada_optax.family import root
from mada_optax.meta_adamw.attention import Factors
from mada_optax.meta_adamw.features import cosine
from mada_optax.meta_adamw.grouping import Layout
from mada_optax.meta_adamw.options import Options
from mada_optax.meta_adamw.uncertainty import uncertainty_weighting


class Terms(NamedTuple):
    """The three objectives, scalars; `None` for what is not asked for."""

    gradient: Any = None
    loss_decrease: Any = None
    gen_gap: Any = None

    @classmethod
    def needed(cls, options: Options) -> "Terms":
        """Which of them an objective needs, as booleans."""
        asked = options.meta_objective
        return cls(*(asked in (name, "combined") for name in cls._fields))


def gradient_alignment(
    g1: Sequence[jax.Array], g2: Sequence[jax.Array], factors: Factors, layout: Layout
) -> jax.Array:
    """L_grad of the gradients of all leaves."""
    dtype = factors.alpha.dtype

    def per_group(first, second):
        sums = [
            jnp.sum(x.astype(dtype) * y.astype(dtype))
            for x, y in zip(first, second, strict=True)
        ]
        members = jnp.asarray(layout.average > 0, dtype)
        return jnp.dot(members, jnp.stack(sums), precision="highest")

    if not g1:
        return jnp.zeros((), dtype)
    squares = per_group(g2, g2)
    aligned = cosine(per_group(g1, g2), root(per_group(g1, g1)), root(squares))
    return jnp.mean(factors.lambda1 * squares - factors.lambda2 * aligned)


def combine(terms: Terms, log_vars: Any, options: Options) -> jax.Array:
    """The objective from its terms."""
    if options.meta_objective != "combined":
        return getattr(terms, options.meta_objective)
    losses = jnp.stack(terms)
    if options.use_huw:
        return uncertainty_weighting(
            losses,
            log_vars,
            priorities=jnp.stack([*map(jnp.asarray, options.huw_priorities)]),
            task_types=options.huw_task_types,
            classification=options.huw_classification,
        )
    weights = [jnp.asarray(w, losses.dtype) for w in options.objective_weights]
    return jnp.dot(jnp.stack(weights), losses)


def _size(x: jax.Array, axes: Sequence[int], squared: bool) -> jax.Array:
    """Norms over some axes, or their squares, summed over the rest."""
    squares = jnp.sum(x * x, axes)
    return jnp.sum(squares if squared else root(squares))


def regularizers(hyperparams: dict[str, Any], options: Options) -> jax.Array:
    """Norms of every tensor of the encoder and of the head's matrix; |gates|."""
    squared = options.meta_reg == "squared"
    # The first axis of the encoder's arrays is that of the layers.
    total = _size(hyperparams["head"]["kernel"], (0, 1), squared)
    for x in jax.tree.leaves(hyperparams["encoder"]):
        total += _size(x, range(1, x.ndim), squared)
    total *= options.meta_weight_decay
    if options.use_feature_gating:
        total += options.gating_sparsity * jnp.sum(jnp.abs(hyperparams["gates"]))
    return total
