"""Electricity transformer temperatures (ETT): time series in tables."""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np

from tasks.checks import check_known
from tasks.data.dataset import sha256
from tasks.data.files import Source
from tasks.data.readers import read_text

HOMEPAGE = "https://github.com/zhouhaoyi/ETDataset"
TIME_SERIES = {"etth1": "ETTh1", "etth2": "ETTh2", "ettm1": "ETTm1", "ettm2": "ETTm2"}
SOURCES = {
    name: Source(
        name,
        {"csv": (f"{file}.csv",), "gzip": (f"{file}.csv.gz",)},
        folders=("ett", "ETT-small"),
        homepage=HOMEPAGE,
    )
    for name, file in TIME_SERIES.items()
}


class TimeSeries(NamedTuple):
    """A table with one row for each time.

    Attributes:
      name: its name in the catalogue.
      columns: the names of the columns, without that of the date.
      values: float64 of shape (times, columns).
      source: the file that it was read from.
      sha256: that of the decompressed file.
    """

    name: str
    columns: tuple[str, ...]
    values: np.ndarray
    source: str
    sha256: str

    def select(self, columns: tuple[str, ...]) -> np.ndarray:
        """The values of some columns, float64 of shape (times, len(columns)).

        Raises:
          ValueError: a column is not there.
        """
        for column in columns:
            check_known(f"{self.name} column", column, self.columns)
        return self.values[:, [self.columns.index(column) for column in columns]]


def load_ett(name: str, data_dir: str | os.PathLike[str] | None = None) -> TimeSeries:
    """Reads a table of ETT-small: six loads and the oil temperature `OT`.

    Args:
      name: `etth1` or `etth2`, by the hour, `ettm1` or `ettm2`, by the quarter of one.
      data_dir: the folder of data sets, by default that of `MADA_DATA_DIR`.

    Raises:
      ValueError: the name is unknown, or the file is not such a table.
      FileNotFoundError: it is missing; the message says how to get it.
    """
    check_known("time series", name, TIME_SERIES)
    (path,) = SOURCES[name].find(data_dir).paths
    text = read_text(path)
    header, *lines = text.splitlines() or [""]
    date, *columns = header.split(",")
    if date != "date" or not columns or not lines:
        raise ValueError(
            f"{path} must have a header that starts with 'date,' and rows "
            f"below it; it starts with {header[:60]!r}, followed by {len(lines)} rows"
        )
    try:
        values = np.array([line.split(",")[1:] for line in lines], np.float64)
    except ValueError as error:
        raise ValueError(f"{path} is not a table: {error}") from error
    if values.shape[1] != len(columns) or not np.isfinite(values).all():
        raise ValueError(f"{path} must have {len(columns)} finite numbers in each row")
    return TimeSeries(name, tuple(columns), values, path.name, sha256(text.encode()))
