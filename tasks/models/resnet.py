"""Residual networks for small images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tasks.models.convolution import Conv
from tasks.models.initializers import FAN_IN_UNIFORM, uniform


class ConvNorm(nnx.Module):
    """A convolution without bias, and batch normalization.

    The running statistics move a tenth of the way to those of each batch.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
        **shape: Any,
    ):
        options = {"dtype": dtype, "rngs": rngs}
        self.conv = Conv(in_channels, out_channels, **shape, **options)
        self.bn = nnx.BatchNorm(out_channels, momentum=0.9, **options)

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps (batch, height, width, in_channels) to (..., out_channels).

        With `train`, it normalizes by the statistics of the batch and updates the
        running ones; without, it normalizes by these.
        """
        return self.bn(self.conv(x), use_running_average=not train)


class ResidualBlock(nnx.Module):
    """Two 3x3 convolutions beside the identity, or beside a 1x1 convolution."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, **options):
        self.first = ConvNorm(in_channels, out_channels, stride=stride, **options)
        self.second = ConvNorm(out_channels, out_channels, **options)
        if stride > 1 or in_channels != out_channels:
            self.shortcut = ConvNorm(
                in_channels, out_channels, size=1, stride=stride, **options
            )

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps (batch, height, width, in_channels) to (..., out_channels)."""
        shortcut = self.shortcut(x, train) if hasattr(self, "shortcut") else x
        return nnx.relu(shortcut + self.second(nnx.relu(self.first(x, train)), train))


class ResNet(nnx.Module):
    """A 3x3 convolution, stages of residual blocks, and a readout of the mean pixel.

    Every stage but the first halves the height and the width. The defaults are those of
    ResNet-18 as it is used on CIFAR-10.

    Source: He et al. (arXiv 1512.03385).

    Args:
      in_channels: those of the images.
      out_features: number of logits.
      widths: channels of each stage.
      depths: number of blocks of each stage.
      dropout: probability that a logit is dropped.
      dtype: in which activations are computed; parameters are float32.
      rngs: random streams of the initialization.

    Raises:
      ValueError: `widths` and `depths` are of different lengths, or empty.

    Example:
      >>> model = ResNet(3, 10, widths=(4, 8), depths=(1, 1), rngs=nnx.Rngs(0))
      >>> model(jnp.zeros((5, 8, 8, 3)), key=jax.random.key(0)).shape
      (5, 10)
    """

    def __init__(
        self,
        in_channels: int,
        out_features: int,
        *,
        widths: Sequence[int] = (64, 128, 256, 512),
        depths: Sequence[int] = (2, 2, 2, 2),
        dropout: float = 0.0,
        dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if not widths or len(widths) != len(depths):
            raise ValueError(
                "widths and depths must have one entry for each stage, got "
                f"{widths!r} and {depths!r}"
            )
        options = {"dtype": dtype, "rngs": rngs}
        self.stem = ConvNorm(in_channels, widths[0], **options)
        self.blocks, channels = nnx.List(), widths[0]
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            for i in range(depth):
                stride = 2 if stage > 0 and i == 0 else 1
                self.blocks.append(ResidualBlock(channels, width, stride, **options))
                channels = width
        self.readout = nnx.Linear(
            channels,
            out_features,
            kernel_init=FAN_IN_UNIFORM,
            bias_init=uniform(1 / math.sqrt(channels)),
            **options,
        )
        self.dropout = nnx.Dropout(dropout)

    def __call__(self, images: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Maps images (batch, height, width, channels) to logits (batch, classes).

        With `key` the mode is training: it drives dropout, and batch normalization
        uses and records the statistics of the batch. Without, the mode is evaluation.
        The logits are float32, whatever the dtype of the computation.
        """
        train = key is not None
        x = nnx.relu(self.stem(images, train))
        for block in self.blocks:
            x = block(x, train)
        logits = self.readout(x.mean((1, 2))).astype(jnp.float32)
        return self.dropout(logits, deterministic=not train, rngs=key)
