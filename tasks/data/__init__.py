"""Data sets: embedded ones, and readers for the formats that people have."""

from tasks.data.dataset import Dataset
from tasks.data.images import IMAGE_SETS, load_images, resize
from tasks.data.text import TEXT_SETS, load_text, tokenize

__all__ = [
    "IMAGE_SETS",
    "TEXT_SETS",
    "Dataset",
    "load_images",
    "load_text",
    "resize",
    "tokenize",
]
