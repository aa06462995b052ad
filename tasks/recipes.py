"""What surrounds an optimizer in a published experiment, around any optimizer."""

from __future__ import annotations

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import optax

from tasks.checks import check_fractions, check_numbers
from tasks.optimizers import load


def pretraining(
    inner: str,
    learning_rate: float,
    num_steps: int,
    *,
    warmup_fraction: float = 0.02,
    end_fraction: float = 0.1,
    clip_norm: float = 1.0,
    **options: Any,
) -> optax.GradientTransformationExtraArgs:
    """An optimizer as language models are trained with it.

    Gradients are clipped by their global norm, the learning rate rises linearly from 0
    and falls by a cosine, and where the optimizer has a weight decay, it decays tensors
    of two or more axes alone.

    Args:
      inner: import path of the optimizer, which has a parameter `learning_rate`.
      learning_rate: the peak.
      num_steps: of the run; filled in by an evaluation.
      warmup_fraction: share of the steps until the peak.
      end_fraction: learning rate at the end, over the peak.
      clip_norm: largest global norm of a gradient.
      **options: all other arguments of the optimizer.

    Raises:
      ValueError: the path leads nowhere, or a number is out of range.

    Example:
      >>> tx = pretraining("optax:adamw", 1e-3, 1000, weight_decay=0.1)
      >>> state = tx.init({"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)})
    """
    check_numbers(above=0, learning_rate=learning_rate, clip_norm=clip_norm)
    check_fractions(warmup_fraction=warmup_fraction, end_fraction=end_fraction)
    schedule = optax.warmup_cosine_decay_schedule(
        0.0,
        learning_rate,
        warmup_steps=round(warmup_fraction * num_steps),
        decay_steps=num_steps,
        end_value=end_fraction * learning_rate,
    )
    factory = load(inner)
    if "mask" in inspect.signature(factory).parameters:
        options.setdefault("mask", _matrices)
    return optax.chain(
        optax.clip_by_global_norm(clip_norm), factory(learning_rate=schedule, **options)
    )


def projected(
    inner: str, low: float, high: float, *args: Any, **options: Any
) -> optax.GradientTransformationExtraArgs:
    """An optimizer after whose steps every parameter is clipped to [low, high].

    Args:
      inner: import path of the optimizer.
      low: smallest value.
      high: largest value.
      *args: of the optimizer.
      **options: likewise.

    Example:
      >>> tx = projected("optax:sgd", -1.0, 1.0, 10.0)
      >>> params = {"x": jnp.float32(0.5)}
      >>> updates, _ = tx.update({"x": jnp.float32(1.0)}, tx.init(params), params)
      >>> float(optax.apply_updates(params, updates)["x"])
      -1.0
    """

    def project(updates, params):
        return jax.tree.map(
            lambda u, p: jnp.clip(p + u, low, high) - p, updates, params
        )

    return optax.chain(load(inner)(*args, **options), optax.stateless(project))


def inverse_sqrt(
    inner: str, learning_rate: float, **options: Any
) -> optax.GradientTransformationExtraArgs:
    """An optimizer whose learning rate is divided by the square root of the step.

    Args:
      inner: import path of the optimizer, which has a parameter `learning_rate`.
      learning_rate: that of the first step.
      **options: all other arguments of the optimizer.

    Example:
      >>> tx = inverse_sqrt("optax:sgd", 1.0)
      >>> one = {"x": jnp.float32(1.0)}
      >>> _, state = tx.update(one, tx.init(one))
      >>> updates, _ = tx.update(one, state)
      >>> round(float(updates["x"]), 3)
      -0.707
    """
    check_numbers(above=0, learning_rate=learning_rate)
    factory = load(inner)
    given = factory(
        learning_rate=lambda t: learning_rate / jnp.sqrt(t + 1.0), **options
    )
    return optax.with_extra_args_support(given)


def _matrices(params: Any) -> Any:
    return jax.tree.map(lambda p: jnp.ndim(p) >= 2, params)
