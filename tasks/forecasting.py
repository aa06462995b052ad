"""Forecasting: a time series and a model become a `Task`."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tasks.base import Batch, Data, Task
from tasks.checks import check_counts, check_fractions, check_known
from tasks.data import TimeSeries, load_ett
from tasks.models import LinearForecaster, LSTMForecaster, TransformerForecaster
from tasks.registry import register
from tasks.supervised import Metrics, supervised

TRAINING_SHARE = 0.8
_MODELS = {
    "transformer": (
        TransformerForecaster,
        ("width", "depth", "num_heads", "hidden", "dropout"),
    ),
    "lstm": (LSTMForecaster, ("width", "depth", "dropout")),
    "linear": (LinearForecaster, ("window",)),
}


def forecaster(
    dataset_name: str,
    /,
    *,
    model: str = "transformer",
    width: int = 128,
    depth: int = 2,
    num_heads: int = 4,
    hidden: int = 512,
    dropout: float = 0.2,
    window: int = 96,
    columns: tuple[str, ...] = ("OT",),
    target: str = "OT",
    standardize_by: str = "series",
    meta_fraction: float = 0.0,
    batch_size: int = 64,
    data_dir: str | None = None,
) -> Task:
    """Makes a task of forecasting the next value of a time series.

    The first 80 % of the windows are for training, the others for validation. A row is
    a window of `columns` and the value of `target` after it. The loss is the squared
    error in units of the variance that was divided by. `persistence_loss` in the
    metadata is that of forecasting the last value that the window holds of the target.

    The defaults are the paper of MetaAdamW's, whose standardization knows the mean and
    the variance of the whole series, validation included; `standardize_by="train"` does
    without that.

    Args:
      dataset_name: a time series that `load_ett` knows.
      model: `"transformer"`, `"lstm"` or `"linear"`, one matrix for the whole window.
      width: size of the residual stream, or units of an LSTM layer.
      depth: number of layers.
      num_heads: attention heads of each layer of a transformer.
      hidden: units of the network in each layer of a transformer.
      dropout: probability of dropping a unit, in training.
      window: number of times that the model reads.
      columns: what it reads of each time.
      target: the column that it forecasts.
      standardize_by: where the mean and the standard deviation of each column come
        from: the whole `"series"`, or the part for training, `"train"`.
      meta_fraction: share of the training windows, the last ones, that becomes the
        split `"meta"`.
      batch_size: windows in a training batch, drawn with replacement.
      data_dir: the folder of data sets.
    """
    check_known("model", model, _MODELS)
    check_counts(width=width, depth=depth, num_heads=num_heads, hidden=hidden)
    check_counts(window=window, batch_size=batch_size)
    check_fractions(dropout=dropout, meta_fraction=meta_fraction)
    check_known("standardize_by", standardize_by, ("series", "train"))
    if isinstance(columns, str) or not columns:
        raise ValueError(f"columns must be a tuple of names, got {columns!r}")
    series = load_ett(dataset_name, data_dir)
    splits = _split(series, columns, target, window, standardize_by, meta_fraction)

    options: dict[str, Any] = {
        "width": width,
        "depth": depth,
        "num_heads": num_heads,
        "hidden": hidden,
        "dropout": dropout,
        "window": window,
    }
    module, names = _MODELS[model]
    shape = {name: options[name] for name in names}

    def take(data: Data, rows: jax.Array) -> Batch:
        places = rows[:, None] + jnp.arange(window)[None]
        return {"input": data["input"][places], "target": data["target"][rows + window]}

    def count(data: Data) -> int:
        return len(data["target"]) - window

    return supervised(
        dataset_name,
        splits,
        lambda rngs: module(len(columns), **shape, rngs=rngs),
        inputs=lambda batch: batch["input"],
        metrics=_errors,
        take=take,
        count=count,
        batch_size=batch_size,
        metadata={
            "dataset": series.name,
            "source": series.source,
            "sizes": {split: count(data) for split, data in splits.items()},
            "sha256": {"series": series.sha256},
            "model": model,
            **shape,
            "window": window,
            "columns": list(columns),
            "target": target,
            "standardize_by": standardize_by,
            "persistence_loss": _persistence(splits["valid"]["target"], window),
        },
    )


def _errors(forecast: jax.Array, batch: Batch) -> Metrics:
    error = forecast.astype(jnp.float32) - batch["target"]
    return {"loss": error**2, "absolute_error": jnp.abs(error)}


def _split(
    series: TimeSeries,
    columns: tuple[str, ...],
    target: str,
    window: int,
    standardize_by: str,
    meta_fraction: float,
) -> dict[str, dict[str, np.ndarray]]:
    inputs, targets = series.select(columns), series.select((target,))[:, 0]
    num_windows = len(targets) - window
    num_train = int(TRAINING_SHARE * num_windows)
    num_meta = int(meta_fraction * num_train)
    if num_train - num_meta < 1 or (meta_fraction and not num_meta):
        raise ValueError(
            f"window={window} and meta_fraction={meta_fraction} leave a split of the "
            f"{len(targets)} rows of {series.name} empty"
        )
    known = slice(None if standardize_by == "series" else num_train + window)

    def standardized(values: np.ndarray) -> np.ndarray:
        mean, std = values[known].mean(0), values[known].std(0)
        scaled = (values - mean[None]) / np.maximum(std, 1e-12)[None]
        return scaled.astype(np.float32)

    inputs, targets = standardized(inputs), standardized(targets[:, None])[:, 0]
    starts = {
        "train": (0, num_train - num_meta),
        "valid": (num_train, num_windows),
        **({"meta": (num_train - num_meta, num_train)} if num_meta else {}),
    }
    return {
        split: {
            "input": inputs[start : stop + window],
            "target": targets[start : stop + window],
        }
        for split, (start, stop) in starts.items()
    }


def _persistence(target: np.ndarray, window: int) -> float:
    return float(np.mean(np.diff(target[window - 1 :].astype(np.float64)) ** 2))


register("etth1", partial(forecaster, "etth1"))
register(
    "etth1-small",
    partial(forecaster, "etth1", width=32, hidden=128, window=24, batch_size=32),
)
