"""Several losses as one, weighted by learned uncertainties."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mada_optax import domains


def uncertainty_weighting(
    losses: jax.typing.ArrayLike,
    log_vars: jax.typing.ArrayLike,
    *,
    priorities: jax.typing.ArrayLike = 1.0,
    task_types: str | Sequence[str] = "regression",
    classification: str = "doubled",
) -> jax.Array:
    r"""Homoscedastic uncertainty weighting with priorities.

    With losses L, learned log-variances s and priorities p, the sum over tasks of

    .. math::

        \tfrac12 e^{-s} L + \tfrac12 p\,s \quad \text{(regression)}, \qquad
        e^{-s} L + p\,s \quad \text{(classification)}.

    For L > 0 it is least at :math:`e^s = L / p`, so that the weight of a task is
    proportional to its priority over its loss. A priority acts through the movement of
    s alone: at s = 0 the value is the same for all. For L <= 0 there is no minimum and
    s falls without end: bound it.

    Args:
      losses: (n,), one scalar per task.
      log_vars: (n,), to be learned; start at 0.
      priorities: (n,) or one number, positive.
      task_types: "regression" or "classification", one for all or one per task.
      classification: "doubled" as above, or "kendall", where the regularizer of
        classification is half of that, as in the original for p = 1.

    Returns:
      A scalar.

    Raises:
      ValueError: a task type or `classification` that is not one of those.

    Examples:
      >>> import jax.numpy as jnp, mada_optax
      >>> total = mada_optax.uncertainty_weighting(jnp.ones(3), jnp.zeros(3))
      >>> float(total)
      1.5

    References:
      Kendall, Gal & Cipolla, `Multi-Task Learning Using Uncertainty to Weigh Losses
      <https://arxiv.org/abs/1705.07115>`_, 2018; Zhao & Liu, `A Self-Attentive
      Meta-Optimizer <https://arxiv.org/abs/2605.04055>`_.
    """
    domains.check_option("classification", classification, ("doubled", "kendall"))
    losses, log_vars = jnp.asarray(losses), jnp.asarray(log_vars)
    kinds = [task_types] * losses.size if isinstance(task_types, str) else task_types
    for kind in kinds:
        domains.check_option("task_types", kind, ("regression", "classification"))
    regularizer = {"regression": 0.5, "classification": 1.0}
    data = jnp.array([regularizer[kind] for kind in kinds], losses.dtype)
    if classification == "kendall":
        regularizer["classification"] = 0.5
    pull = jnp.array([regularizer[kind] for kind in kinds], losses.dtype)
    pull *= jnp.asarray(priorities, losses.dtype)
    return jnp.sum(data * jnp.exp(-log_vars) * losses + pull * log_vars)
