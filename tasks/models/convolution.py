"""Convolutions that are also fast where seeds are vmapped on a CPU."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx

from tasks.models.initializers import FAN_IN_UNIFORM, uniform


class Conv(nnx.Module):
    """A convolution of odd size.

    Args:
      in_channels: channels of the images.
      out_channels: number of filters, each a channel of the result.
      size: height and width of a filter.
      stride: every how many pixels it is applied.
      pad: whether zeros around the images keep their size (without a stride).
      use_bias: whether a bias is added.
      dtype: in which it is computed; the kernel is float32.
      rngs: random streams of the initialization.

    Example:
      >>> conv = Conv(3, 8, stride=2, rngs=nnx.Rngs(0))
      >>> conv(jnp.zeros((5, 32, 32, 3))).shape
      (5, 16, 16, 8)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        size: int = 3,
        stride: int = 1,
        pad: bool = True,
        use_bias: bool = False,
        dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        shape = size, size, in_channels, out_channels
        self.kernel = nnx.Param(FAN_IN_UNIFORM(rngs.params(), shape, jnp.float32))
        self.stride, self.pad, self.dtype = stride, pad, dtype
        if use_bias:
            init = uniform(1 / math.sqrt(size**2 * in_channels))
            self.bias = nnx.Param(init(rngs.params(), (out_channels,), jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, in_channels) to (..., out_channels)."""
        kernel = self.kernel[...].astype(self.dtype)
        # XLA computes gradients of convolutions slowly on CPU, and those of vmapped
        # ones, which have a kernel for each row, many times slower still.
        convolve = convolve_patches if jax.default_backend() == "cpu" else convolve_xla
        x = convolve(x.astype(self.dtype), kernel, self.stride, self.pad)
        if not hasattr(self, "bias"):
            return x
        return x + self.bias[...].astype(self.dtype).reshape(1, 1, 1, -1)


def convolve_xla(
    x: jax.Array, kernel: jax.Array, stride: int, pad: bool = True
) -> jax.Array:
    """Convolves images (batch, height, width, in) with a kernel (size, size, in, out).

    With `pad`, the images are padded with zeros by `size // 2`.
    """
    around = kernel.shape[0] // 2 if pad else 0
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=((around, around), (around, around)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def convolve_patches(
    x: jax.Array, kernel: jax.Array, stride: int, pad: bool = True
) -> jax.Array:
    """The same as one matrix product, in `size ** 2` times the memory of the images."""
    size = kernel.shape[0]
    around = (size // 2, size // 2) if pad else (0, 0)
    padded = jnp.pad(x, ((0, 0), around, around, (0, 0)))
    height, width = (n - size + 1 for n in padded.shape[1:3])
    shifted = [
        padded[:, i : i + height : stride, j : j + width : stride]
        for i in range(size)
        for j in range(size)
    ]
    return jnp.concatenate(shifted, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


def max_pool(x: jax.Array) -> jax.Array:
    """The largest value of each 2x2 pixels; a last odd row or column is left out.

    Example:
      >>> max_pool(jnp.arange(6.0).reshape(1, 2, 3, 1)).squeeze()
      Array(4., dtype=float32)
    """
    batch, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).max((2, 4))
