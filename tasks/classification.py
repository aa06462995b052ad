"""Image classification: a data set and a model become a `Task`."""

from __future__ import annotations

import dataclasses
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
from tasks.data import Dataset, load_imagenet, load_images, resize, to_grey
from tasks.functional import Build, count_parameters, functional, parameter_shapes
from tasks.models import MLP, ViT
from tasks.parametrization import Parametrization, resolve_parametrization
from tasks.registry import register
from tasks.streaming import row_splits
from tasks.supervised import label_metrics

_EVALUATION_BATCH_SIZE = 1024
_IMAGENET = {"imagenet32": 32, "imagenet64": 64}


def classifier(
    dataset: Dataset,
    build: Build,
    *,
    batch_size: int,
    metadata: dict[str, Any],
) -> Task:
    """Makes a task of learning the labels of images by cross-entropy.

    Images stay uint8 on the device, or on the disk if they are too many, see
    `row_splits`; each batch is normalized by the mean and standard deviation of the
    training images, or of those that are on the device, per channel.

    Args:
      dataset: images and labels; see `load_images`.
      build: `rngs -> module`, which maps images (batch, height, width, channels) to
        logits (batch, classes).
      batch_size: images in a training batch, drawn with replacement.
      metadata: what the model is; joins that of the data in the task's metadata.

    Returns:
      A task whose loss is in nats and whose `evaluate` gives `loss` and `accuracy`. Its
      `preactivations` are those of the module, which then needs that method.

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
    splits, stream = row_splits(dataset.splits, batch_size)
    train_images = splits["train"]["image"]
    mean = train_images.mean((0, 1, 2), dtype=np.float64, keepdims=True)
    std = train_images.std((0, 1, 2), dtype=np.float64, keepdims=True)
    scale = np.float32(1 / np.maximum(std, 1e-3))
    offset = np.float32(-mean * scale)

    def normalized(image: jax.Array) -> jax.Array:
        return image.astype(jnp.float32) * scale + offset

    def logits(
        params: Params, model_state: ModelState, image: jax.Array
    ) -> tuple[jax.Array, ModelState]:
        return apply(params, model_state, normalized(image))

    def preactivations(
        params: Params, model_state: ModelState, batch: Batch
    ) -> dict[str, jax.Array]:
        inputs = normalized(batch["image"])
        return apply(params, model_state, inputs, method="preactivations")[0]

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
            predicted, _ = logits(params, model_state, data["image"][rows])
            return label_metrics(predicted, {"label": data["label"][rows]})

        num_rows = len(data["label"])
        sums = sum_over(per_row, num_rows, _EVALUATION_BATCH_SIZE)
        return {name: total / num_rows for name, total in sums.items()}

    return Task(
        name=dataset.name,
        init=init,
        loss=loss,
        sample=partial(sample_rows, batch_size=batch_size),
        evaluate=evaluate,
        data=jax.tree.map(jnp.asarray, dict(splits)),
        normalize=partial(clipped, num_classes=dataset.num_classes),
        preactivations=preactivations,
        metadata={
            **dataset.metadata,
            **metadata,
            "num_parameters": count_parameters(init),
            "batch_size": batch_size,
        },
        stream=stream,
    )


def clipped(loss: jax.Array, num_classes: int) -> jax.Array:
    """Bounds a loss by one and a half times that of guessing, for meta-training.

    Example:
      >>> losses = jnp.array([1.0, 100.0, jnp.nan, -jnp.inf])
      >>> [round(float(loss), 3) for loss in clipped(losses, num_classes=10)]
      [1.0, 3.454, 3.454, 3.454]
    """
    bound = 1.5 * math.log(num_classes)
    return jnp.where(jnp.isfinite(loss), jnp.clip(loss, 0.0, bound), bound)


def rescaled(loss: jax.Array, num_classes: int) -> jax.Array:
    """Ten times the loss over ln(2 num_classes), within 0 and 10, for meta-training.

    Example:
      >>> float(rescaled(jnp.float32(jnp.inf), num_classes=10))
      10.0
    """
    share = 10 * loss / math.log(2 * num_classes)
    return jnp.where(jnp.isfinite(loss), jnp.clip(share, 0.0, 10.0), 10.0)


def mlp_classifier(
    dataset_name: str,
    /,
    *,
    width: int = 128,
    depth: int = 2,
    batch_size: int = 128,
    size: int | None = None,
    grey: bool = False,
    parametrization: str | Parametrization = "sp",
    base_width: int | None = None,
    dtype: str = "float32",
    data_dir: str | None = None,
) -> Task:
    """Makes a task of classifying flattened images with a multi-layer perceptron.

    Args:
      dataset_name: `imagenet32`, `imagenet64` or one that `load_images` knows.
      width: units of each hidden layer.
      depth: number of hidden layers; 0 is logistic regression.
      batch_size: images in a training batch.
      size: height and width to shrink the images to, see `resize`.
      grey: whether to take the brightness of colour images, see `to_grey`.
      parametrization: `"sp"`, `"mup"` or a `Parametrization`.
      base_width: that of the parametrization, 1 by default.
      dtype: in which activations are computed; parameters are float32.
      data_dir: the folder of data sets.

    Example:
      >>> task = mlp_classifier("digits", width=32, parametrization="mup")
      >>> params, model_state = task.init(jax.random.key(0))
      >>> params["layers"]["1"]["kernel"].shape
      (32, 32)
      >>> task.width_multipliers["layers"]["1"]
      {'bias': 1.0, 'kernel': 32.0}
    """
    check_counts(width=width, batch_size=batch_size)
    check_counts(minimum=0, depth=depth)
    rules = resolve_parametrization(parametrization, base_width)
    compute_dtype = check_dtype(dtype)
    dataset = _load(dataset_name, data_dir, size)
    if grey:
        dataset = to_grey(dataset)

    def build_at(width: int) -> Build:
        return lambda rngs: MLP(
            math.prod(dataset.splits["train"]["image"].shape[1:]),
            dataset.num_classes,
            width=width,
            depth=depth,
            parametrization=rules,
            dtype=compute_dtype,
            rngs=rngs,
        )

    task = classifier(
        dataset,
        build_at(width),
        batch_size=batch_size,
        metadata={
            "model": "MLP",
            "width": width,
            "depth": depth,
            "dtype": dtype,
            **_size(size),
            **({"grey": True} if grey else {}),
            **rules.metadata,
        },
    )
    scaling = rules.scaling(lambda width: parameter_shapes(build_at(width)), width)
    return dataclasses.replace(task, **scaling)


def vit_classifier(
    dataset_name: str,
    /,
    *,
    width: int = 64,
    depth: int = 3,
    num_heads: int = 4,
    patch_size: int = 4,
    batch_size: int = 128,
    size: int | None = None,
    parametrization: str | Parametrization = "sp",
    base_width: int | None = None,
    legacy_vit_out: bool = False,
    dtype: str = "float32",
    data_dir: str | None = None,
) -> Task:
    """Makes a task of classifying images with a vision transformer.

    Args:
      dataset_name: `imagenet32`, `imagenet64` or one that `load_images` knows.
      width: size of the residual stream, a multiple of `num_heads`.
      depth: number of blocks.
      num_heads: attention heads per block.
      patch_size: height and width of a patch, which divides those of the image.
      batch_size: images in a training batch.
      size: height and width to shrink the images to, see `resize`.
      parametrization: `"sp"`, `"mup"` or a `Parametrization`.
      base_width: that of the parametrization, 1 by default.
      legacy_vit_out: take the size of one head for the fan-in of the attention's output
        projection, as the research code of muLO does, instead of the width. The same
        where there is a base width: both have the same ratio to that of the base model.
      dtype: in which activations are computed; parameters are float32.
      data_dir: the folder of data sets.

    Example:
      >>> task = vit_classifier("digits", width=32, depth=1, parametrization="mup")
      >>> task.width_multipliers["blocks"]["0"]["mlp_out"]
      {'bias': 1.0, 'kernel': 128.0}
    """
    shape = {"depth": depth, "num_heads": num_heads, "patch_size": patch_size}
    check_counts(width=width, batch_size=batch_size, **shape)
    rules = resolve_parametrization(parametrization, base_width)
    compute_dtype = check_dtype(dtype)
    dataset = _load(dataset_name, data_dir, size)

    def build_at(width: int) -> Build:
        return lambda rngs: ViT(
            dataset.splits["train"]["image"].shape[1:],
            dataset.num_classes,
            width=width,
            **shape,
            parametrization=rules,
            dtype=compute_dtype,
            rngs=rngs,
        )

    task = classifier(
        dataset,
        build_at(width),
        batch_size=batch_size,
        metadata={
            "model": "ViT",
            "width": width,
            **shape,
            "dtype": dtype,
            **_size(size),
            **rules.metadata,
            **({"legacy_vit_out": True} if legacy_vit_out else {}),
        },
    )
    scaling = rules.scaling(lambda width: parameter_shapes(build_at(width)), width)
    if legacy_vit_out and rules.base_width == 1:
        scaling["width_multipliers"] = _per_head(
            scaling["width_multipliers"], num_heads**rules.update_exponent
        )
    return dataclasses.replace(
        task, normalize=partial(rescaled, num_classes=dataset.num_classes), **scaling
    )


def _load(name: str, data_dir: str | None, size: int | None) -> Dataset:
    if name in _IMAGENET:
        if size is not None:
            raise ValueError(
                f"size must be None for {name}, which is not shrunk, got {size!r}"
            )
        return load_imagenet(data_dir, _IMAGENET[name])
    if size is None:
        return load_images(name, data_dir)
    check_counts(size=size)
    return resize(load_images(name, data_dir), size)


def _size(size: int | None) -> dict[str, int]:
    return {} if size is None else {"size": size}


def _per_head(width_multipliers: Params, num_heads: float) -> Params:
    def multiplier(path: tuple[Any, ...], m: float) -> float:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return m / num_heads if name.endswith("attention/out/kernel") else m

    return jax.tree_util.tree_map_with_path(multiplier, width_multipliers)


register("digits-mlp", partial(mlp_classifier, "digits", width=64, batch_size=64))
register("mnist-mlp", partial(mlp_classifier, "mnist"))
register("fashion-mnist-mlp", partial(mlp_classifier, "fashion_mnist"))
register("cifar10-mlp", partial(mlp_classifier, "cifar10", width=256))
register(
    "digits-vit",
    partial(vit_classifier, "digits", width=32, depth=2, patch_size=2, batch_size=64),
)
register(
    "imagenet32-mlp", partial(mlp_classifier, "imagenet32", depth=3, batch_size=4096)
)
register(
    "imagenet64-mlp", partial(mlp_classifier, "imagenet64", depth=3, batch_size=4096)
)
register("cifar10-vit", partial(vit_classifier, "cifar10"))
register(
    "imagenet32-vit",
    partial(
        vit_classifier,
        "imagenet32",
        width=192,
        num_heads=3,
        patch_size=16,
        batch_size=1024,
    ),
)
