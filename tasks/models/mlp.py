"""The multi-layer perceptron."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx


class MLP(nnx.Module):
    """A stack of `depth` ReLU layers of `width` units, and a linear readout.

    It has `depth + 1` matrices: `layers/0` reads the input, `layers/1` to
    `layers/{depth - 1}` are hidden, `readout` gives the logits. `depth=0` is
    multinomial logistic regression.

    Args:
      in_features: size of one flattened input.
      out_features: number of logits.
      width: units of each layer.
      depth: number of hidden layers.
      dtype: in which activations are computed; parameters are float32.
      rngs: random streams of the initialization.

    Example:
      >>> mlp = MLP(64, 10, width=32, depth=2, rngs=nnx.Rngs(0))
      >>> mlp(jnp.zeros((5, 8, 8))).shape
      (5, 10)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        width: int,
        depth: int,
        dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        sizes = [in_features] + [width] * depth
        self.layers = nnx.List(
            nnx.Linear(fan_in, width, dtype=dtype, rngs=rngs) for fan_in in sizes[:-1]
        )
        self.readout = nnx.Linear(sizes[-1], out_features, dtype=dtype, rngs=rngs)

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps inputs of shape (batch, ...) to logits of shape (batch, out_features).

        The logits are float32, whatever the dtype of the computation.
        """
        x = inputs.reshape(inputs.shape[0], -1)
        for layer in self.layers:
            x = nnx.relu(layer(x))
        return self.readout(x).astype(jnp.float32)
