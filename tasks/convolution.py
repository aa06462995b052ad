"""Image classification with convolutional networks, on shifted and mirrored images."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from tasks.base import Batch, Task
from tasks.checks import check_counts, check_dtype, check_fractions
from tasks.classification import clipped
from tasks.data import hold_out, load_images, resize, revalidate
from tasks.models import ResNet
from tasks.registry import register
from tasks.supervised import supervised


def shift_and_mirror(batch: Batch, key: jax.Array) -> Batch:
    """Mirrors images at random, and shifts them by up to an eighth of their height.

    What moves in from outside is black. For 32x32 pixels that is a random crop of the
    image with 4 pixels of padding.

    Args:
      batch: `image` of shape (batch, height, width, channels), and anything else.
      key: random key.

    Example:
      >>> batch = {"image": jnp.ones((2, 8, 8, 3), jnp.uint8)}
      >>> moved = shift_and_mirror(batch, jax.random.key(0))["image"]
      >>> moved.shape, moved.dtype
      ((2, 8, 8, 3), dtype('uint8'))
    """
    image = batch["image"]
    most = image.shape[1] // 8
    mirror_key, shift_key = jax.random.split(key)
    mirrored = jax.random.bernoulli(mirror_key, shape=(len(image), 1, 1, 1))
    shifts = jax.random.randint(shift_key, (len(image), 2), 0, 2 * most + 1)
    around = (0, 0), (most, most), (most, most), (0, 0)
    padded = jnp.pad(jnp.where(mirrored, image[:, :, ::-1], image), around)

    def crop(image_and_padding: jax.Array, shift: jax.Array) -> jax.Array:
        start = (shift[0], shift[1], 0)
        return jax.lax.dynamic_slice(image_and_padding, start, image.shape[1:])

    return {**batch, "image": jax.vmap(crop)(padded, shifts)}


def resnet_classifier(
    dataset_name: str,
    /,
    *,
    widths: tuple[int, ...] = (64, 128, 256, 512),
    depths: tuple[int, ...] = (2, 2, 2, 2),
    dropout: float = 0.2,
    augment: bool = True,
    size: int | None = None,
    validate_on: str = "held_out",
    meta_fraction: float = 0.0,
    batch_size: int = 128,
    dtype: str = "float32",
    data_dir: str | None = None,
) -> Task:
    """Makes a task of classifying images with a residual network.

    The defaults are the ResNet-18 of the paper of MetaAdamW, except that validation is
    on images held out from the training set, unless `validate_on="test"`. The running
    statistics of batch normalization are the task's `model_state`.

    Args:
      dataset_name: an image set that `load_images` knows.
      widths: channels of each stage.
      depths: residual blocks of each stage.
      dropout: probability of dropping a logit, in training.
      augment: whether training batches are shifted and mirrored.
      size: height and width to shrink the images to, see `resize`.
      validate_on: `"held_out"`, a part of the official training set, or `"test"`: train
        on the whole training set and validate on the test set.
      meta_fraction: share of the training images that becomes the split `"meta"`.
      batch_size: images in a training batch, drawn with replacement.
      dtype: in which activations are computed; parameters are float32.
      data_dir: the folder of data sets.

    Example:
      >>> task = resnet_classifier("digits", widths=(4,), depths=(1,))
      >>> params, model_state = task.init(jax.random.key(0))
      >>> model_state["stem"]["bn"]["mean"].shape
      (4,)
    """
    for width, depth in zip(widths, depths, strict=False):
        check_counts(width=width, depth=depth)
    check_counts(batch_size=batch_size, **({"size": size} if size is not None else {}))
    check_fractions(dropout=dropout, meta_fraction=meta_fraction)
    compute_dtype = check_dtype(dtype)
    dataset = load_images(dataset_name, data_dir)
    dataset = hold_out(revalidate(dataset, validate_on), meta_fraction)
    dataset = dataset if size is None else resize(dataset, size)
    pixels = dataset.splits["train"]["image"]
    mean = np.float32(pixels.mean((0, 1, 2), dtype=np.float64, keepdims=True))
    std = np.float32(pixels.std((0, 1, 2), dtype=np.float64, keepdims=True))

    def inputs(batch: Batch) -> jax.Array:
        return (batch["image"].astype(jnp.float32) - mean) / np.maximum(std, 1e-3)

    return supervised(
        dataset.name,
        dataset.splits,
        lambda rngs: ResNet(
            pixels.shape[-1],
            dataset.num_classes,
            widths=widths,
            depths=depths,
            dropout=dropout,
            dtype=compute_dtype,
            rngs=rngs,
        ),
        inputs=inputs,
        augment=shift_and_mirror if augment else None,
        batch_size=batch_size,
        normalize=partial(clipped, num_classes=dataset.num_classes),
        metadata={
            **dataset.metadata,
            "model": "ResNet",
            "widths": list(widths),
            "depths": list(depths),
            "dropout": dropout,
            "augment": augment,
            **({"size": size} if size is not None else {}),
            "validate_on": validate_on,
            "dtype": dtype,
        },
    )


register("cifar10-resnet18", partial(resnet_classifier, "cifar10"))
register(
    "cifar10-resnet-small",
    partial(
        resnet_classifier,
        "cifar10",
        widths=(16, 32),
        depths=(1, 1),
        size=16,
        batch_size=32,
    ),
)
