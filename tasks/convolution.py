"""Image classification with convolutional networks, on shifted and mirrored images."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tasks.base import Batch, Task
from tasks.checks import check_counts, check_dtype, check_fractions
from tasks.classification import clipped
from tasks.data import hold_out, load_images, resize, revalidate
from tasks.models import CNN, ResNet, ResNet9
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


def convolutional_classifier(
    dataset_name: str,
    make: Callable[..., Any],
    *,
    model: Mapping[str, Any],
    augment: bool = True,
    size: int | None = None,
    validate_on: str = "held_out",
    meta_fraction: float = 0.0,
    batch_size: int = 128,
    dtype: str = "float32",
    data_dir: str | None = None,
) -> Task:
    """Makes a task of classifying images with a network that is told their shape.

    Args:
      dataset_name: an image set that `load_images` knows.
      make: `(image_shape, num_classes, dtype=..., rngs=...) -> module`, which is called
        as `supervised` says. The running statistics of its batch normalization are the
        task's `model_state`.
      model: what identifies the model.
      augment: whether training batches are shifted and mirrored.
      size: height and width to shrink the images to, see `resize`.
      validate_on: `"held_out"`, a part of the official training set, or `"test"`: train
        on the whole training set and validate on the test set.
      meta_fraction: share of the training images that becomes the split `"meta"`.
      batch_size: images in a training batch, drawn with replacement.
      dtype: in which activations are computed; parameters are float32.
      data_dir: the folder of data sets.
    """
    check_counts(batch_size=batch_size, **({"size": size} if size is not None else {}))
    check_fractions(meta_fraction=meta_fraction)
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
        lambda rngs: make(
            pixels.shape[1:], dataset.num_classes, dtype=compute_dtype, rngs=rngs
        ),
        inputs=inputs,
        augment=shift_and_mirror if augment else None,
        batch_size=batch_size,
        normalize=partial(clipped, num_classes=dataset.num_classes),
        metadata={
            **dataset.metadata,
            **model,
            "augment": augment,
            **({"size": size} if size is not None else {}),
            "validate_on": validate_on,
            "dtype": dtype,
        },
    )


def _on_images(
    architecture: Callable[..., tuple[Callable[..., Any], dict[str, Any]]],
) -> Callable[..., Task]:
    """A builder of tasks that has the options of the network and those of the images.

    Args:
      architecture: from its options to `make` and `model`, see
        `convolutional_classifier`.
    """
    own = inspect.signature(architecture).parameters
    shared = inspect.signature(convolutional_classifier).parameters.values()

    @functools.wraps(architecture)
    def build(dataset_name: str, /, **options: Any) -> Task:
        shape = {name: options.pop(name) for name in own if name in options}
        make, model = architecture(**shape)
        return convolutional_classifier(dataset_name, make, model=model, **options)

    # The registry reads there what may be overridden.
    vars(build)["__signature__"] = inspect.Signature(
        [
            inspect.Parameter("dataset_name", inspect.Parameter.POSITIONAL_ONLY),
            *own.values(),
            *(p for p in shared if p.default is not p.empty),
        ]
    )
    return build


@_on_images
def resnet_classifier(
    *,
    widths: tuple[int, ...] = (64, 128, 256, 512),
    depths: tuple[int, ...] = (2, 2, 2, 2),
    dropout: float = 0.2,
):
    """Makes a task of classifying images with a residual network.

    The defaults are the ResNet-18 of the paper of MetaAdamW, except that validation is
    on images held out from the training set, unless `validate_on="test"`.

    Args:
      dataset_name: an image set that `load_images` knows.
      widths: channels of each stage.
      depths: residual blocks of each stage.
      dropout: probability of dropping a logit, in training.
      **options: others of `convolutional_classifier`.

    Example:
      >>> task = resnet_classifier("digits", widths=(4,), depths=(1,))
      >>> params, model_state = task.init(jax.random.key(0))
      >>> model_state["stem"]["bn"]["mean"].shape
      (4,)
    """
    for width, depth in zip(widths, depths, strict=False):
        check_counts(width=width, depth=depth)
    check_fractions(dropout=dropout)
    shape = {"widths": widths, "depths": depths, "dropout": dropout}

    def make(image_shape: tuple[int, ...], *args: Any, **options: Any) -> ResNet:
        return ResNet(image_shape[-1], *args, **shape, **options)

    return make, {"model": "ResNet", **_plain(shape)}


@_on_images
def resnet9_classifier(*, widths: tuple[int, int, int, int] = (64, 128, 256, 512)):
    """Makes a task of classifying images with ResNet-9.

    Args:
      dataset_name: an image set that `load_images` knows.
      widths: channels of the four convolutions, see `ResNet9`.
      **options: others of `convolutional_classifier`; `size` is at least 8.
    """
    for width in widths:
        check_counts(width=width)
    shape = {"widths": widths}
    return partial(ResNet9, **shape), {"model": "ResNet-9", **_plain(shape)}


@_on_images
def cnn_classifier(
    *, channels: tuple[int, ...] = (6, 16), hidden: tuple[int, ...] = (120, 84)
):
    """Makes a task of classifying images with a convolutional network of five layers.

    The paper of MADA does not say what its "5-layer CNN" is. This one is LeNet-5, which
    reaches the accuracies that it states for CIFAR-10, near 66 %.

    Args:
      dataset_name: an image set that `load_images` knows.
      channels: of each convolution, see `CNN`.
      hidden: units of each dense layer before the readout.
      **options: others of `convolutional_classifier`.
    """
    for width in (*channels, *hidden):
        check_counts(width=width)
    shape = {"channels": channels, "hidden": hidden}
    return partial(CNN, **shape), {"model": "CNN", **_plain(shape)}


def _plain(shape: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives it back."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in shape.items()}


_SMALL = {"size": 16, "batch_size": 32}
register("cifar10-cnn", partial(cnn_classifier, "cifar10"))
register(
    "cifar10-cnn-small",
    partial(cnn_classifier, "cifar10", channels=(6, 12), hidden=(32, 16), **_SMALL),
)
register("cifar10-resnet18", partial(resnet_classifier, "cifar10"))
register(
    "cifar10-resnet-small",
    partial(resnet_classifier, "cifar10", widths=(16, 32), depths=(1, 1), **_SMALL),
)
register("cifar10-resnet9", partial(resnet9_classifier, "cifar10"))
register(
    "cifar10-resnet9-small",
    partial(resnet9_classifier, "cifar10", widths=(8, 16, 16, 32), **_SMALL),
)
