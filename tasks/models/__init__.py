"""Flax NNX modules that tasks are made of."""

from tasks.models.cnn import CNN
from tasks.models.forecasters import (
    LinearForecaster,
    LSTMForecaster,
    TransformerForecaster,
)
from tasks.models.lstm import LSTMClassifier
from tasks.models.minigpt import MiniGPT
from tasks.models.mlp import MLP
from tasks.models.resnet import ResNet
from tasks.models.resnet9 import ResNet9
from tasks.models.transformer import TransformerLM
from tasks.models.translator import Translator
from tasks.models.vit import ViT

__all__ = [
    "CNN",
    "MLP",
    "LSTMClassifier",
    "LSTMForecaster",
    "LinearForecaster",
    "MiniGPT",
    "ResNet",
    "ResNet9",
    "TransformerForecaster",
    "TransformerLM",
    "Translator",
    "ViT",
]
