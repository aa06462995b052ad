"""Data sets: embedded ones, and readers for the formats that people have."""

from tasks.data.dataset import Dataset
from tasks.data.ett import TIME_SERIES, TimeSeries, load_ett
from tasks.data.images import IMAGE_SETS, load_images, resize
from tasks.data.imdb import load_imdb
from tasks.data.splits import hold_out, revalidate
from tasks.data.text import TEXT_SETS, load_text, tokenize

__all__ = [
    "IMAGE_SETS",
    "TEXT_SETS",
    "TIME_SERIES",
    "Dataset",
    "TimeSeries",
    "hold_out",
    "load_ett",
    "load_images",
    "load_imdb",
    "load_text",
    "resize",
    "revalidate",
    "tokenize",
]
