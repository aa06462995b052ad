"""Forecasters: from a window of a time series to the value after it."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx

from tasks.models.blocks import check_heads
from tasks.models.encoder_decoder import layers
from tasks.models.initializers import FAN_IN_UNIFORM, uniform
from tasks.models.lstm import LSTM
from tasks.models.translator import sinusoids

_XAVIER = nnx.initializers.xavier_uniform()


class LinearForecaster(nnx.Module):
    """One linear map of the whole window.

    Args:
      in_features: number of columns.
      window: number of times that are read.
      rngs: random streams of the initialization.

    Example:
      >>> model = LinearForecaster(1, window=96, rngs=nnx.Rngs(0))
      >>> model(jnp.zeros((5, 96, 1))).shape
      (5,)
    """

    def __init__(self, in_features: int, *, window: int, rngs: nnx.Rngs):
        self.readout = nnx.Linear(
            window * in_features, 1, kernel_init=_XAVIER, rngs=rngs
        )

    def __call__(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Maps (batch, window, in_features) to forecasts (batch,); has no noise."""
        return self.readout(x.reshape(len(x), -1))[:, 0]


class LSTMForecaster(nnx.Module):
    """A stack of LSTM layers and a readout of their last output.

    Args:
      in_features: number of columns.
      width: units of each layer.
      depth: number of layers.
      dropout: probability of dropping an output of an LSTM layer.
      rngs: random streams of the initialization.

    Example:
      >>> model = LSTMForecaster(1, width=4, depth=2, dropout=0.2, rngs=nnx.Rngs(0))
      >>> model(jnp.zeros((5, 96, 1))).shape
      (5,)
    """

    def __init__(
        self,
        in_features: int,
        *,
        width: int,
        depth: int,
        dropout: float,
        rngs: nnx.Rngs,
    ):
        self.lstm = LSTM(in_features, width, depth, dropout=dropout, rngs=rngs)
        self.dropout = nnx.Dropout(dropout)
        self.readout = nnx.Linear(
            width,
            1,
            kernel_init=FAN_IN_UNIFORM,
            bias_init=uniform(1 / math.sqrt(width)),
            rngs=rngs,
        )

    def __call__(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Maps (batch, time, in_features) to forecasts (batch,).

        `key` drives dropout in training mode; without it, the mode is evaluation.
        """
        rngs = None if key is None else nnx.Rngs(key)
        last = self.lstm(x, rngs)
        last = self.dropout(last, deterministic=rngs is None, rngs=rngs)
        return self.readout(last)[:, 0]


class TransformerForecaster(nnx.Module):
    """A pre-norm Transformer encoder whose last position is read.

    Positions are sinusoidal, and the residual stream is not normalized before the
    readout. Matrices start from Xavier's uniform distribution, biases at zero.

    Args:
      in_features: number of columns.
      width: size of the residual stream, an even multiple of `num_heads`.
      depth: number of layers.
      num_heads: attention heads per layer.
      hidden: units of each layer's network.
      dropout: probability of dropping an attention weight, a hidden unit, or a unit of
        what is added to the residual stream.
      rngs: random streams of the initialization.

    Raises:
      ValueError: `width` is odd or not a multiple of `num_heads`.

    Example:
      >>> model = TransformerForecaster(
      ...     1, width=8, depth=2, num_heads=4, hidden=32, dropout=0.2,
      ...     rngs=nnx.Rngs(0),
      ... )
      >>> model(jnp.zeros((5, 96, 1)), key=jax.random.key(0)).shape
      (5,)
    """

    def __init__(
        self,
        in_features: int,
        *,
        width: int,
        depth: int,
        num_heads: int,
        hidden: int,
        dropout: float,
        rngs: nnx.Rngs,
    ):
        check_heads(width, num_heads)
        if width % 2:
            raise ValueError(f"width must be even for sines and cosines, got {width}")
        self.projection = nnx.Linear(in_features, width, kernel_init=_XAVIER, rngs=rngs)
        options = {"num_heads": num_heads, "hidden": hidden, "dropout": dropout}
        self.layers = layers(depth, width, norm_first=True, **options, rngs=rngs)
        self.dropout = nnx.Dropout(dropout)
        self.readout = nnx.Linear(width, 1, kernel_init=_XAVIER, rngs=rngs)

    def __call__(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Maps (batch, time, in_features) to forecasts (batch,).

        `key` drives dropout in training mode; without it, the mode is evaluation.
        """
        rngs = None if key is None else nnx.Rngs(key)
        x = self.projection(x)
        x = x + jnp.asarray(sinusoids(*x.shape[1:]))[None]
        x = self.dropout(x, deterministic=rngs is None, rngs=rngs)
        for layer in self.layers:
            x = layer(x, rngs=rngs)
        return self.readout(x[:, -1])[:, 0]
