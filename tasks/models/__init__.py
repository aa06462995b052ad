"""Flax NNX modules that tasks are made of."""

from tasks.models.mlp import MLP
from tasks.models.transformer import TransformerLM

__all__ = ["MLP", "TransformerLM"]
