"""The multi-layer perceptron."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from tasks.parametrization import STANDARD, Parametrization

_LECUN, _ZEROS = nnx.initializers.lecun_normal(), nnx.initializers.zeros


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
      parametrization: how initialisation and multipliers depend on the width.
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
        parametrization: Parametrization = STANDARD,
        dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        bias_init = parametrization.bias_initializer(standard=_ZEROS)
        options = {"bias_init": bias_init, "dtype": dtype, "rngs": rngs}
        sizes = [in_features] + [width] * depth
        self.layers = nnx.List(
            nnx.Linear(
                fan_in,
                width,
                kernel_init=parametrization.initializer(fan_in, standard=_LECUN),
                **options,
            )
            for fan_in in sizes[:-1]
        )
        self.readout = nnx.Linear(
            sizes[-1],
            out_features,
            kernel_init=parametrization.readout_initializer(sizes[-1], standard=_LECUN),
            **options,
        )
        # Without a hidden layer nothing grows.
        output_width = width if depth else parametrization.base_width
        self.output_scale = parametrization.output_scale(output_width)
        self.input_scale = parametrization.input_multiplier

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps inputs of shape (batch, ...) to logits of shape (batch, out_features).

        The logits are float32, whatever the dtype of the computation.
        """
        return self.preactivations(inputs)["logits"]

    def preactivations(self, inputs: jax.Array) -> dict[str, jax.Array]:
        """What each layer computes before its ReLU, by name, the logits last."""
        x = inputs.reshape(inputs.shape[0], -1)
        scale, found = self.input_scale, {}
        for i, layer in enumerate(self.layers):
            found[f"layers/{i}"] = z = layer(x) * scale
            scale, x = 1.0, nnx.relu(z)
        logits = self.readout(x) * (scale * self.output_scale)
        return {**found, "logits": logits.astype(jnp.float32)}
