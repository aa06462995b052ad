"""Long short-term memory (LSTM): layers, stacks, and the classifier of token sequences.

The gates of all inputs are one matrix product; only what depends on the state is inside
the loop over time, in which both directions of a layer advance together.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx

from tasks.models.initializers import FAN_IN_UNIFORM, uniform


class LSTMCell(nnx.Module):
    """The weights of one direction; gates are input, forget, candidate and output."""

    def __init__(self, in_features: int, width: int, *, rngs: nnx.Rngs):
        init = uniform(1 / math.sqrt(width))

        def param(*shape: int) -> nnx.Param:
            return nnx.Param(init(rngs.params(), shape, jnp.float32))

        self.input_kernel = param(in_features, 4 * width)
        self.recurrent_kernel = param(width, 4 * width)
        self.bias = param(4 * width)

    def gates(self, inputs: jax.Array) -> jax.Array:
        """What the inputs (..., in_features) alone contribute to the gates."""
        bias = self.bias[...].reshape((1,) * (inputs.ndim - 1) + (-1,))
        return inputs @ self.input_kernel[...] + bias


class LSTMLayer(nnx.Module):
    """A layer that reads a sequence forward, or forward and backward.

    Args:
      in_features: size of one input.
      width: units of each direction.
      bidirectional: whether a second cell reads from the end.
      rngs: random streams of the initialization.

    Example:
      >>> layer = LSTMLayer(3, 4, bidirectional=True, rngs=nnx.Rngs(0))
      >>> outputs, final = layer(jnp.zeros((2, 7, 3)))
      >>> outputs.shape, final.shape
      ((2, 7, 8), (2, 8))
    """

    def __init__(
        self,
        in_features: int,
        width: int,
        *,
        bidirectional: bool = False,
        rngs: nnx.Rngs,
    ):
        self.forward = LSTMCell(in_features, width, rngs=rngs)
        if bidirectional:
            self.backward = LSTMCell(in_features, width, rngs=rngs)

    def __call__(self, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Maps inputs (batch, time, in_features) to outputs and to the last of each.

        Returns:
          Outputs (batch, time, directions * width), and those after the last input that
          each direction reads, (batch, directions * width).
        """
        cells, gates = [self.forward], [self.forward.gates(inputs)]
        if hasattr(self, "backward"):
            cells.append(self.backward)
            gates.append(self.backward.gates(inputs[:, ::-1]))
        kernels = jnp.stack([cell.recurrent_kernel[...] for cell in cells])

        def step(
            state: tuple[jax.Array, jax.Array], gates: jax.Array
        ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
            output, memory = state
            gates = gates + output @ kernels
            write, keep, candidate, read = jnp.split(gates, 4, axis=-1)
            memory = nnx.sigmoid(keep) * memory + nnx.sigmoid(write) * jnp.tanh(
                candidate
            )
            output = nnx.sigmoid(read) * jnp.tanh(memory)
            return (output, memory), output

        stacked = jnp.stack(gates, axis=1)  # (batch, direction, time, gates)
        over_time = stacked.transpose(2, 1, 0, 3)
        zeros = jnp.zeros((*over_time.shape[1:3], kernels.shape[1]), inputs.dtype)
        (final, _), outputs = jax.lax.scan(step, (zeros, zeros), over_time)
        each = [outputs[:, 0], outputs[::-1, -1]][: len(cells)]
        together = jnp.concatenate(each, axis=-1).transpose(1, 0, 2)
        return together, jnp.concatenate(list(final), axis=-1)


class LSTM(nnx.Module):
    """A stack of layers with dropout between them.

    Args:
      in_features: size of one input.
      width: units of each direction of each layer.
      depth: number of layers.
      bidirectional: whether layers also read from the end.
      dropout: probability that an output is dropped before the next layer.
      rngs: random streams of the initialization.
    """

    def __init__(
        self,
        in_features: int,
        width: int,
        depth: int,
        *,
        bidirectional: bool = False,
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ):
        self.out_features = (1 + bidirectional) * width
        sizes = [in_features] + [self.out_features] * (depth - 1)
        self.layers = nnx.List(
            LSTMLayer(size, width, bidirectional=bidirectional, rngs=rngs)
            for size in sizes
        )
        self.dropout = nnx.Dropout(dropout)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None) -> jax.Array:
        """Maps (batch, time, in_features) to the last outputs (batch, out_features).

        `rngs` drive dropout; without them there is none.
        """
        for layer in self.layers[:-1]:
            outputs, _ = layer(x)
            x = self.dropout(outputs, deterministic=rngs is None, rngs=rngs)
        return self.layers[-1](x)[1]


class LSTMClassifier(nnx.Module):
    """Embeddings of tokens, a bidirectional LSTM, and a readout of its last outputs.

    It starts as PyTorch's layers do: embeddings from N(0, 1), matrices uniformly.

    Args:
      vocab_size: number of tokens.
      out_features: number of logits.
      embedding_size: size of an embedding.
      width: units of each direction of each layer.
      depth: number of LSTM layers.
      dropout: probability of dropping what a layer or the readout reads from an LSTM.
      rngs: random streams of the initialization.

    Example:
      >>> model = LSTMClassifier(
      ...     9, 2, embedding_size=3, width=4, depth=2, dropout=0.2, rngs=nnx.Rngs(0)
      ... )
      >>> model(jnp.zeros((5, 7), int), key=jax.random.key(0)).shape
      (5, 2)
    """

    def __init__(
        self,
        vocab_size: int,
        out_features: int,
        *,
        embedding_size: int,
        width: int,
        depth: int,
        dropout: float,
        rngs: nnx.Rngs,
    ):
        self.embedding = nnx.Embed(
            vocab_size,
            embedding_size,
            embedding_init=nnx.initializers.normal(1.0),
            rngs=rngs,
        )
        self.lstm = LSTM(
            embedding_size,
            width,
            depth,
            bidirectional=True,
            dropout=dropout,
            rngs=rngs,
        )
        self.dropout = nnx.Dropout(dropout)
        self.readout = nnx.Linear(
            self.lstm.out_features,
            out_features,
            kernel_init=FAN_IN_UNIFORM,
            bias_init=uniform(1 / math.sqrt(self.lstm.out_features)),
            rngs=rngs,
        )

    def __call__(self, tokens: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Maps tokens (batch, time) to logits (batch, out_features).

        `key` drives dropout in training mode; without it, the mode is evaluation.
        """
        rngs = None if key is None else nnx.Rngs(key)
        last = self.lstm(self.embedding(tokens), rngs)
        return self.readout(self.dropout(last, deterministic=rngs is None, rngs=rngs))
