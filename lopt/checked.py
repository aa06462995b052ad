"""A learned optimizer's gradient transformation, with all that it is given checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lopt import accumulators, loss_features, tree_checks
from lopt.base import LearnedOptimizer


def checked(
    architecture: LearnedOptimizer,
    theta: Any,
    width_multipliers: Any,
    init: Callable[..., Any],
    update: Callable[..., tuple[Any, Any]],
    *,
    sees_loss: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """The transformation of an architecture.

    Args:
      architecture: whose `init` says what theta looks like.
      theta: meta-parameters.
      width_multipliers: a tree like the parameters, a prefix of one, or `None`.
      init: of parameters, and theta in the widest dtype among them, to a state.
      update: of updates, state, parameters and the width multiplier of every leaf, and
        the loss if it sees that.
      sees_loss: whether `update` must be called with `value`.

    Raises:
      ValueError: theta belongs to another architecture, or a multiplier is not
        positive; at `init` or `update`, see `SmallFC.transform` and `VeLO.transform`.
    """
    expected = jax.eval_shape(architecture.init, jax.random.key(0))
    tree_checks.same_shapes("theta", theta, expected, f"{architecture}")
    tree_checks.multipliers(width_multipliers)

    def checked_init(params):
        tree_checks.real(params)
        tree_checks.multipliers_of(params, width_multipliers)
        dtype = accumulators.widest_dtype(params)
        return init(params, jax.tree.map(lambda x: jnp.array(x, dtype), theta))

    def checked_update(updates, state, params=None, *, value=None, **extra_args):
        del extra_args
        tree_checks.given(params)
        tree_checks.real(updates)
        widths = tree_checks.multipliers_of(params, width_multipliers)
        if sees_loss:
            loss_features.check(value, type(architecture).__name__)
            return update(updates, state, params, widths, value)
        return update(updates, state, params, widths)

    return optax.GradientTransformationExtraArgs(checked_init, checked_update)
