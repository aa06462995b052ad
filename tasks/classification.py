"""Image classification: a data set and a model become a `Task`."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from optax import softmax_cross_entropy_with_integer_labels

from tasks.base import Batch, Data, ModelState, Params, Task
from tasks.batching import sample_rows, sum_over
from tasks.checks import check_counts, check_dtype
from tasks.data import Dataset, load_images
from tasks.functional import Build, count_parameters, functional
from tasks.models import MLP
from tasks.registry import register

_EVALUATION_BATCH_SIZE = 1024


def classifier(
    dataset: Dataset,
    build: Build,
    *,
    batch_size: int,
    metadata: dict[str, Any],
) -> Task:
    """Makes a task of learning the labels of images by cross-entropy.

    Images stay uint8 on the device; each batch is normalized by the mean and standard
    deviation of the training images, per channel.

    Args:
      dataset: images and labels; see `load_images`.
      build: `rngs -> module`, which maps images (batch, height, width, channels) to
        logits (batch, classes).
      batch_size: images in a training batch, drawn with replacement.
      metadata: what the model is; joins that of the data in the task's metadata.

    Returns:
      A task whose loss is in nats and whose `evaluate` gives `loss` and `accuracy`.

    Example:
      >>> task = classifier(
      ...     load_images("digits"),
      ...     lambda rngs: MLP(64, 10, width=8, depth=1, rngs=rngs),
      ...     batch_size=4,
      ...     metadata={"model": "MLP"},
      ... )
      >>> task.sample(task.data["train"], jax.random.key(0))["image"].shape
      (4, 8, 8, 1)
    """
    init, apply = functional(build)
    train_images = dataset.splits["train"]["image"]
    mean = train_images.mean((0, 1, 2), dtype=np.float64, keepdims=True)
    std = train_images.std((0, 1, 2), dtype=np.float64, keepdims=True)
    scale = np.float32(1 / np.maximum(std, 1e-3))
    offset = np.float32(-mean * scale)

    def logits(
        params: Params, model_state: ModelState, image: jax.Array
    ) -> tuple[jax.Array, ModelState]:
        normalized = image.astype(jnp.float32) * scale + offset
        return apply(params, model_state, normalized)

    def loss(
        params: Params, model_state: ModelState, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, ModelState]:
        del key
        predicted, model_state = logits(params, model_state, batch["image"])
        losses = softmax_cross_entropy_with_integer_labels(predicted, batch["label"])
        return losses.mean(), model_state

    def evaluate(
        params: Params, model_state: ModelState, data: Data
    ) -> dict[str, jax.Array]:
        def per_row(rows: jax.Array) -> dict[str, jax.Array]:
            label = data["label"][rows]
            predicted, _ = logits(params, model_state, data["image"][rows])
            correct = predicted.argmax(axis=-1) == label
            return {
                "loss": softmax_cross_entropy_with_integer_labels(predicted, label),
                "accuracy": correct.astype(jnp.float32),
            }

        num_rows = len(data["label"])
        sums = sum_over(per_row, num_rows, _EVALUATION_BATCH_SIZE)
        return {name: total / num_rows for name, total in sums.items()}

    return Task(
        name=dataset.name,
        init=init,
        loss=loss,
        sample=partial(sample_rows, batch_size=batch_size),
        evaluate=evaluate,
        data=jax.tree.map(jnp.asarray, dict(dataset.splits)),
        metadata={
            **dataset.metadata,
            **metadata,
            "num_parameters": count_parameters(init),
            "batch_size": batch_size,
        },
    )


def mlp_classifier(
    dataset_name: str,
    /,
    *,
    width: int = 128,
    depth: int = 2,
    batch_size: int = 128,
    dtype: str = "float32",
    data_dir: str | None = None,
) -> Task:
    """Makes a task of classifying flattened images with a multi-layer perceptron.

    Args:
      dataset_name: an image set that `load_images` knows.
      width: units of each hidden layer.
      depth: number of hidden layers; 0 is logistic regression.
      batch_size: images in a training batch.
      dtype: in which activations are computed; parameters are float32.
      data_dir: the folder of data sets.

    Example:
      >>> task = mlp_classifier("digits", width=32)
      >>> params, model_state = task.init(jax.random.key(0))
      >>> params["layers"]["0"]["kernel"].shape
      (64, 32)
    """
    check_counts(width=width, batch_size=batch_size)
    check_counts(minimum=0, depth=depth)
    compute_dtype = check_dtype(dtype)
    dataset = load_images(dataset_name, data_dir)
    return classifier(
        dataset,
        lambda rngs: MLP(
            math.prod(dataset.splits["train"]["image"].shape[1:]),
            dataset.num_classes,
            width=width,
            depth=depth,
            dtype=compute_dtype,
            rngs=rngs,
        ),
        batch_size=batch_size,
        metadata={"model": "MLP", "width": width, "depth": depth, "dtype": dtype},
    )


register("digits-mlp", partial(mlp_classifier, "digits", width=64, batch_size=64))
register("mnist-mlp", partial(mlp_classifier, "mnist"))
register("fashion-mnist-mlp", partial(mlp_classifier, "fashion_mnist"))
register("cifar10-mlp", partial(mlp_classifier, "cifar10", width=256))
