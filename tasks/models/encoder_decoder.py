"""Transformer layers with dropout, normalized before or after each sublayer.

What `tasks.models.transformer` leaves out because scaling rules have no word on it:
dropout, normalization after a sublayer, attention to another sequence.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

Sublayer = Callable[[jax.Array], jax.Array]
_XAVIER = nnx.initializers.xavier_uniform()


class Layer(nnx.Module):
    """Attention and a ReLU network of two matrices, each with a residual connection.

    In a decoder, attention to another sequence comes between them. Dropout falls on
    what is added to the residual stream, on hidden units and on attention weights; it
    needs the streams of random keys that a call is given, and is off without them.

    Args:
      width: size of the residual stream, a multiple of `num_heads`.
      num_heads: attention heads.
      hidden: units of the network.
      dropout: the probability with which a unit is dropped.
      norm_first: whether a sublayer reads a normalized copy of the residual stream
        (pre-norm), or the sum is normalized (post-norm).
      is_decoder: whether the layer also attends to another sequence.
      kernel_init: of all matrices; biases start at 0.
      rngs: random streams of the initialization.

    Source: Vaswani et al., "Attention is all you need" (2017).
    """

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        hidden: int,
        dropout: float,
        norm_first: bool,
        is_decoder: bool = False,
        kernel_init: nnx.Initializer = _XAVIER,
        rngs: nnx.Rngs,
    ):
        attention = partial(
            nnx.MultiHeadAttention,
            num_heads,
            width,
            dropout_rate=dropout,
            broadcast_dropout=False,
            kernel_init=kernel_init,
            decode=False,
            keep_rngs=False,
            rngs=rngs,
        )
        norm = partial(nnx.LayerNorm, width, epsilon=1e-5, rngs=rngs)
        linear = partial(nnx.Linear, kernel_init=kernel_init, rngs=rngs)
        self.norm_first = norm_first
        self.dropout = nnx.Dropout(dropout)
        self.attention, self.norm1 = attention(), norm()
        if is_decoder:
            self.cross_attention, self.cross_norm = attention(), norm()
        self.linear1, self.linear2 = linear(width, hidden), linear(hidden, width)
        self.norm2 = norm()

    def __call__(
        self,
        x: jax.Array,
        *,
        mask: jax.Array | None = None,
        memory: jax.Array | None = None,
        memory_mask: jax.Array | None = None,
        rngs: nnx.Rngs | None = None,
    ) -> jax.Array:
        """Maps (batch, time, width) to the same shape.

        Args:
          x: the inputs.
          mask: which positions of `x` each may see, bool of a shape that broadcasts to
            (batch, num_heads, time, time).
          memory: what a decoder attends to, of shape (batch, other time, width).
          memory_mask: which positions of `memory` each may see, as `mask`.
          rngs: streams of dropout, or `None` for none.
        """
        options = {"deterministic": rngs is None, "rngs": rngs}
        dropped = partial(self.dropout, **options)

        def added(x: jax.Array, norm: nnx.LayerNorm, sublayer: Sublayer) -> jax.Array:
            if self.norm_first:
                return x + dropped(sublayer(norm(x)))
            return norm(x + dropped(sublayer(x)))

        x = added(x, self.norm1, lambda x: self.attention(x, mask=mask, **options))
        if memory is not None:
            x = added(
                x,
                self.cross_norm,
                lambda x: self.cross_attention(x, memory, mask=memory_mask, **options),
            )
        return added(
            x, self.norm2, lambda x: self.linear2(dropped(nnx.relu(self.linear1(x))))
        )


def layers(depth: int, width: int, **options) -> nnx.List[Layer]:
    """A stack of layers, each with the options of `Layer`."""
    return nnx.List(Layer(width, **options) for _ in range(depth))


def causal_mask(time: int) -> jax.Array:
    """Position t sees positions 0 to t: bool of shape (1, 1, time, time).

    Example:
      >>> causal_mask(2)[0, 0].tolist()
      [[True, False], [True, True]]
    """
    return jnp.tril(jnp.ones((1, 1, time, time), bool))
