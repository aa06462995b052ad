"""The vision transformer."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from tasks.models.blocks import Block, check_heads
from tasks.parametrization import STANDARD, Parametrization

_LECUN, _ZEROS = nnx.initializers.lecun_normal(), nnx.initializers.zeros


class ViT(nnx.Module):
    """Patches and a class token with learned positions, blocks, and a readout of it.

    Args:
      image_shape: height, width and channels.
      out_features: number of logits.
      patch_size: height and width of a patch, which divides those of the image.
      width: size of the residual stream, a multiple of `num_heads`.
      depth: number of blocks.
      num_heads: attention heads per block.
      mlp_ratio: width of the MLP's hidden layer over `width`.
      parametrization: how initialisation and multipliers depend on the width.
      dtype: in which activations are computed; parameters are float32.
      rngs: random streams of the initialization.

    Raises:
      ValueError: `width` is not a multiple of `num_heads`, or the image not one of
        `patch_size`.

    Example:
      >>> vit = ViT(
      ...     (8, 8, 1), 10, patch_size=4, width=16, depth=1, num_heads=2,
      ...     rngs=nnx.Rngs(0),
      ... )
      >>> vit(jnp.zeros((5, 8, 8, 1))).shape
      (5, 10)
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        out_features: int,
        *,
        patch_size: int,
        width: int,
        depth: int,
        num_heads: int,
        mlp_ratio: int = 4,
        parametrization: Parametrization = STANDARD,
        dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_heads(width, num_heads)
        rows, columns, channels = image_shape
        if rows % patch_size or columns % patch_size:
            raise ValueError(
                f"patch_size={patch_size} does not divide images of {rows} x {columns}"
            )
        options = {"dtype": dtype, "rngs": rngs}
        bias_init = parametrization.bias_initializer(standard=_ZEROS)
        self.patch_embedding = nnx.Conv(
            channels,
            width,
            kernel_size=(patch_size, patch_size),
            strides=patch_size,
            padding="VALID",
            kernel_init=parametrization.initializer(
                channels * patch_size**2, standard=_LECUN
            ),
            bias_init=bias_init,
            **options,
        )
        self.class_token = nnx.Param(jnp.zeros((1, width)))
        positions = 1 + (rows // patch_size) * (columns // patch_size)
        position_init = parametrization.initializer(
            positions, standard=nnx.initializers.normal(0.02)
        )
        self.position_embedding = nnx.Param(
            position_init(rngs.params(), (positions, width), jnp.float32)
        )
        self.blocks = nnx.List(
            Block(
                width,
                num_heads,
                mlp_ratio,
                parametrization=parametrization,
                use_bias=True,
                epsilon=1e-6,
                **options,
            )
            for _ in range(depth)
        )
        self.norm = nnx.LayerNorm(width, epsilon=1e-6, **options)
        self.readout = nnx.Linear(
            width,
            out_features,
            kernel_init=parametrization.readout_initializer(width, standard=_LECUN),
            bias_init=bias_init,
            **options,
        )
        self.input_scale = parametrization.input_multiplier
        self.output_scale = parametrization.output_scale(width)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images (batch, height, width, channels) to logits (batch, classes).

        The logits are float32, whatever the dtype of the computation.
        """
        return self.preactivations(images)["logits"]

    def preactivations(self, images: jax.Array) -> dict[str, jax.Array]:
        """What each layer computes before its nonlinearity, by name, the logits last.

        Attention logits are of shape (batch, num_heads, tokens, tokens), the logits
        (batch, classes), all others (batch, tokens, features).
        """
        patches = self.patch_embedding(images)
        batch, *_, width = patches.shape
        positions = self.position_embedding[...].astype(patches.dtype)
        start = self.class_token[...].astype(patches.dtype)
        x = jnp.concatenate(
            [jnp.tile(start, (batch, 1, 1)), patches.reshape(batch, -1, width)], axis=1
        )
        x = (x + positions[None]) * self.input_scale
        found = {"embedding": x}
        for i, block in enumerate(self.blocks):
            x, of_block = block(x)
            found |= {f"blocks/{i}/{name}": z for name, z in of_block.items()}
        logits = self.readout(self.norm(x[:, 0])) * self.output_scale
        return {**found, "logits": logits.astype(jnp.float32)}
