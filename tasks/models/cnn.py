"""A small convolutional network without normalization."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from tasks.models.convolution import Conv, max_pool
from tasks.models.initializers import FAN_IN_UNIFORM, uniform

_SIZE = 5


class CNN(nnx.Module):
    """5x5 convolutions, each with ReLU and 2x2 max-pooling, and dense ReLU layers.

    With the defaults, five layers and 62,006 parameters for CIFAR-10.

    Source: LeCun et al., "Gradient-based learning applied to document recognition"
    (1998), with ReLU and max-pooling.

    Args:
      image_shape: height, width and channels.
      out_features: number of logits.
      channels: of each convolution, which is not padded.
      hidden: units of each dense layer before the readout.
      dtype: in which activations are computed; parameters are float32.
      rngs: random streams of the initialization.

    Raises:
      ValueError: the image is too small for the convolutions.

    Example:
      >>> cnn = CNN((16, 16, 3), 10, channels=(4, 8), hidden=(16,), rngs=nnx.Rngs(0))
      >>> cnn(jnp.zeros((5, 16, 16, 3))).shape
      (5, 10)
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        out_features: int,
        *,
        channels: Sequence[int] = (6, 16),
        hidden: Sequence[int] = (120, 84),
        dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        *pixels, fan_in = image_shape
        options = {"dtype": dtype, "rngs": rngs}
        self.convolutions, self.layers = nnx.List(), nnx.List()
        for fan_out in channels:
            self.convolutions.append(
                Conv(fan_in, fan_out, size=_SIZE, pad=False, use_bias=True, **options)
            )
            pixels, fan_in = [(n - _SIZE + 1) // 2 for n in pixels], fan_out
        if min(pixels) < 1:
            raise ValueError(
                f"images of {image_shape[0]} x {image_shape[1]} pixels are too small "
                f"for {len(channels)} convolutions of {_SIZE} x {_SIZE} with pooling"
            )
        fan_in *= math.prod(pixels)
        for fan_out in (*hidden, out_features):
            self.layers.append(
                nnx.Linear(
                    fan_in,
                    fan_out,
                    kernel_init=FAN_IN_UNIFORM,
                    bias_init=uniform(1 / math.sqrt(fan_in)),
                    **options,
                )
            )
            fan_in = fan_out

    def __call__(self, images: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Maps images (batch, height, width, channels) to float32 logits.

        It has no noise; `key` changes nothing.
        """
        del key
        x = images
        for convolution in self.convolutions:
            x = max_pool(nnx.relu(convolution(x)))
        x = x.reshape(len(x), -1)
        for layer in self.layers[:-1]:
            x = nnx.relu(layer(x))
        return self.layers[-1](x).astype(jnp.float32)
