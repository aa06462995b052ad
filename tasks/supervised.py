"""Supervised learning: rows of inputs and targets and a model become a `Task`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from optax import softmax_cross_entropy_with_integer_labels

from tasks.base import Batch, Data, ModelState, Params, Task
from tasks.batching import sum_over
from tasks.functional import Build, count_parameters, functional

Metrics = dict[str, jax.Array]


def label_metrics(logits: jax.Array, batch: Batch) -> Metrics:
    """Cross-entropy and whether the best class is right, for each row.

    Example:
      >>> batch = {"label": jnp.array([0, 1])}
      >>> label_metrics(jnp.zeros((2, 4)), batch)["accuracy"]
      Array([1., 0.], dtype=float32)
    """
    label = batch["label"]
    correct = logits.argmax(axis=-1) == label
    return {
        "loss": softmax_cross_entropy_with_integer_labels(logits, label),
        "accuracy": correct.astype(jnp.float32),
    }


def take_rows(data: Data, rows: jax.Array) -> Batch:
    """Those rows of every array."""
    return jax.tree.map(lambda array: array[rows], data)


def count_rows(data: Data) -> int:
    """The length of the leading axis that all arrays have."""
    (num_rows,) = {len(array) for array in jax.tree.leaves(data)}
    return num_rows


def supervised(
    name: str,
    splits: Mapping[str, Mapping[str, Any]],
    build: Build,
    *,
    inputs: Callable[[Batch], jax.Array],
    batch_size: int,
    metadata: Mapping[str, Any],
    metrics: Callable[[jax.Array, Batch], Metrics] = label_metrics,
    take: Callable[[Data, jax.Array], Batch] = take_rows,
    count: Callable[[Data], int] = count_rows,
    augment: Callable[[Batch, jax.Array], Batch] | None = None,
    normalize: Callable[[jax.Array], jax.Array] = lambda loss: loss,
    evaluation_batch_size: int = 256,
) -> Task:
    """Makes a task of a model that has a training and an evaluation mode.

    Args:
      name: that of the task.
      splits: arrays by name, by split.
      build: `rngs -> module`, called as `module(inputs, key=key)` in training mode and
        as `module(inputs)` in evaluation mode. `key` drives its dropout; what it
        changes of itself, such as running statistics, is the task's `model_state`.
      inputs: `batch -> inputs` of the module.
      batch_size: rows in a training batch, drawn with replacement.
      metadata: what identifies data and model.
      metrics: `(outputs, batch) -> {"loss": ..., ...}`, float32 of shape (batch,).
      take: `(split, row numbers) -> batch`.
      count: `split -> number of rows`.
      augment: `(batch, key) -> batch`, random changes of a batch that is trained on.
      normalize: see `Task`.
      evaluation_batch_size: rows that are evaluated at a time.

    Example:
      >>> from flax import nnx
      >>> class Linear(nnx.Linear):
      ...     def __call__(self, x, *, key=None):
      ...         return super().__call__(x)
      >>> rows = {"x": jnp.ones((5, 3)), "label": jnp.zeros(5, int)}
      >>> task = supervised(
      ...     "toy",
      ...     {"train": rows, "valid": rows},
      ...     lambda rngs: Linear(3, 2, rngs=rngs),
      ...     inputs=lambda batch: batch["x"],
      ...     batch_size=2,
      ...     metadata={},
      ... )
      >>> sorted(task.evaluate(*task.init(jax.random.key(0)), task.data["valid"]))
      ['accuracy', 'loss']
    """
    init, apply = functional(build)

    def loss(
        params: Params, model_state: ModelState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, ModelState]:
        outputs, model_state = apply(params, model_state, inputs(batch), key=key)
        return metrics(outputs, batch)["loss"].mean(), model_state

    def sample(data: Data, key: jax.Array) -> Batch:
        rows_key, augment_key = jax.random.split(key)
        rows = jax.random.randint(rows_key, (batch_size,), 0, count(data))
        batch = take(data, rows)
        return augment(batch, augment_key) if augment else batch

    def evaluate(params: Params, model_state: ModelState, data: Data) -> Metrics:
        def per_row(rows: jax.Array) -> Metrics:
            batch = take(data, rows)
            return metrics(apply(params, model_state, inputs(batch))[0], batch)

        num_rows = count(data)
        sums = sum_over(per_row, num_rows, evaluation_batch_size)
        return {name: total / num_rows for name, total in sums.items()}

    return Task(
        name=name,
        init=init,
        loss=loss,
        sample=sample,
        evaluate=evaluate,
        data=jax.tree.map(jnp.asarray, dict(splits)),
        normalize=normalize,
        metadata={
            **metadata,
            "num_parameters": count_parameters(init),
            "batch_size": batch_size,
        },
    )
