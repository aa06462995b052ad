"""Sequences that are predicted token by token: rows and a model become a `Task`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from optax import softmax_cross_entropy_with_integer_labels

from tasks.base import Batch, Data, ModelState, Params, Task
from tasks.batching import sample_rows, sum_over
from tasks.classification import clipped
from tasks.data import Dataset, hold_out
from tasks.data.dataset import first_rows
from tasks.functional import Build, count_parameters, functional

_EVALUATION_LOGITS = 2**22  # At a time: 16 MiB.


def token_predictor(
    dataset: Dataset,
    build: Build,
    *,
    inputs: Callable[[Batch], tuple[jax.Array, ...]],
    targets: Callable[[Batch], jax.Array],
    pad_token: int,
    batch_size: int,
    metadata: dict[str, Any],
    max_rows: int | None = None,
    meta_fraction: float = 0.0,
) -> Task:
    """Makes a task of predicting tokens from those before them, as they really were.

    Args:
      dataset: arrays with a row for each example.
      build: `rngs -> module`, called as `module(*inputs, key=key)` in training mode,
        where `key` drives dropout, and as `module(*inputs)` in evaluation mode. It
        gives the logits of all targets, (batch, time, vocabulary).
      inputs: `batch -> inputs` of the module.
      targets: `batch -> tokens`, integers of shape (batch, time).
      pad_token: a token that is no target.
      batch_size: rows in a training batch, drawn with replacement.
      metadata: what the model is; joins that of the data in the task's metadata.
      max_rows: train on this many rows at most, the first ones, and validate on an
        eighth as many.
      meta_fraction: share of the training rows that becomes the split `"meta"`.

    Returns:
      A task whose loss is in nats per target, the mean over those of a batch, and whose
      `evaluate` gives `loss` and its exponential, `perplexity`.
    """
    if max_rows is not None:
        dataset = first_rows(dataset, max_rows)
    dataset = hold_out(dataset, meta_fraction)
    init, apply = functional(build)

    def sums(logits: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        labels = targets(batch).astype(jnp.int32)
        losses = softmax_cross_entropy_with_integer_labels(logits, labels)
        counted = labels != pad_token
        return {
            "loss": jnp.sum(jnp.where(counted, losses, 0), axis=1),
            "count": jnp.sum(counted, axis=1),
        }

    def loss(
        params: Params, model_state: ModelState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, ModelState]:
        logits, model_state = apply(params, model_state, *inputs(batch), key=key)
        total = sums(logits, batch)
        return total["loss"].sum() / total["count"].sum(), model_state

    def evaluate(
        params: Params, model_state: ModelState, data: Data
    ) -> dict[str, jax.Array]:
        def per_row(rows: jax.Array) -> dict[str, jax.Array]:
            batch = jax.tree.map(lambda array: array[rows], data)
            return sums(apply(params, model_state, *inputs(batch))[0], batch)

        total = sum_over(per_row, num_rows(data), max(1, at_a_time))
        mean = total["loss"] / total["count"]
        return {"loss": mean, "perplexity": jnp.exp(mean)}

    data = jax.tree.map(jnp.asarray, dict(dataset.splits))
    time = jax.eval_shape(targets, data["train"]).shape[1]
    at_a_time = _EVALUATION_LOGITS // (time * dataset.num_classes)
    return Task(
        name=dataset.name,
        init=init,
        loss=loss,
        sample=partial(sample_rows, batch_size=batch_size),
        evaluate=evaluate,
        data=data,
        normalize=partial(clipped, num_classes=dataset.num_classes),
        metadata={
            **dataset.metadata,
            **metadata,
            "num_parameters": count_parameters(init),
            "batch_size": batch_size,
        },
    )


def num_rows(data: Data) -> int:
    """The length of the leading axis that all arrays have."""
    (length,) = {len(array) for array in jax.tree.leaves(data)}
    return length
