"""The residual network of nine layers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from tasks.models.convolution import max_pool
from tasks.models.initializers import FAN_IN_UNIFORM, uniform
from tasks.models.resnet import ConvNorm

_SMALLEST = 8


class ResNet9(nnx.Module):
    """Four 3x3 convolutions, two residual pairs of them, and a readout.

    Every convolution is followed by batch normalization and ReLU, all but the first of
    the four by 2x2 max-pooling; after the second and the last of them two more stand
    beside the identity. The readout reads the largest value of each channel.

    Source: Page, "How to train your ResNet" (2018), without its scaling of logits.

    Args:
      image_shape: height and width, at least 8, and channels.
      out_features: number of logits.
      widths: channels of the four convolutions.
      dtype: in which activations are computed; parameters are float32.
      rngs: random streams of the initialization.

    Raises:
      ValueError: there are not four widths, or images are too small.

    Example:
      >>> model = ResNet9((16, 16, 3), 10, widths=(4, 4, 8, 8), rngs=nnx.Rngs(0))
      >>> model(jnp.zeros((5, 16, 16, 3)), key=jax.random.key(0)).shape
      (5, 10)
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        out_features: int,
        *,
        widths: Sequence[int] = (64, 128, 256, 512),
        dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if len(widths) != 4:
            raise ValueError(f"widths must be those of 4 convolutions, got {widths!r}")
        *pixels, in_channels = image_shape
        if min(pixels) < _SMALLEST:
            raise ValueError(
                f"images must have at least {_SMALLEST} x {_SMALLEST} pixels, got "
                f"{pixels[0]} x {pixels[1]}"
            )
        options = {"dtype": dtype, "rngs": rngs}
        self.stages, self.residuals = nnx.List(), nnx.List()
        for i, (fan_in, width) in enumerate(
            zip((in_channels, *widths[:-1]), widths, strict=True)
        ):
            self.stages.append(ConvNorm(fan_in, width, **options))
            if i % 2:
                self.residuals.append(
                    nnx.List(ConvNorm(width, width, **options) for _ in range(2))
                )
        self.readout = nnx.Linear(
            widths[-1],
            out_features,
            kernel_init=FAN_IN_UNIFORM,
            bias_init=uniform(1 / math.sqrt(widths[-1])),
            **options,
        )

    def __call__(self, images: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Maps images (batch, height, width, channels) to float32 logits.

        With `key` the mode is training: batch normalization uses and records the
        statistics of the batch. Without, the mode is evaluation.
        """
        train, x = key is not None, images
        for i, stage in enumerate(self.stages):
            x = nnx.relu(stage(x, train))
            if i:
                x = max_pool(x)
            if i % 2:
                beside = x
                for layer in self.residuals[i // 2]:
                    beside = nnx.relu(layer(beside, train))
                x = x + beside
        return self.readout(x.max((1, 2))).astype(jnp.float32)
