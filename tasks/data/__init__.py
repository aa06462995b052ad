"""Data sets: embedded ones, and readers for the formats that people have."""

from tasks.data.dataset import Dataset
from tasks.data.ett import TIME_SERIES, TimeSeries, load_ett
from tasks.data.imagenet import load_imagenet
from tasks.data.images import IMAGE_SETS, load_images, resize, to_grey
from tasks.data.imdb import load_imdb
from tasks.data.lm1b import load_lm1b
from tasks.data.prefetch import prefetch
from tasks.data.splits import hold_out, revalidate
from tasks.data.streams import row_stream, spread_rows, spread_windows, window_stream
from tasks.data.text import TEXT_SETS, load_text, tokenize
from tasks.data.token_files import load_token_files
from tasks.data.tokenizers import check_vocabulary

__all__ = [
    "IMAGE_SETS",
    "TEXT_SETS",
    "TIME_SERIES",
    "Dataset",
    "TimeSeries",
    "check_vocabulary",
    "hold_out",
    "load_ett",
    "load_imagenet",
    "load_images",
    "load_imdb",
    "load_lm1b",
    "load_text",
    "load_token_files",
    "prefetch",
    "resize",
    "revalidate",
    "row_stream",
    "spread_rows",
    "spread_windows",
    "to_grey",
    "tokenize",
    "window_stream",
]
