"""Flax NNX modules that tasks are made of."""

from tasks.models.mlp import MLP
from tasks.models.transformer import TransformerLM
from tasks.models.vit import ViT

__all__ = ["MLP", "TransformerLM", "ViT"]
