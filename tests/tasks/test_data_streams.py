"""Batches by seed and step, and gathering them ahead of time."""

import threading
import time

import numpy as np
import pytest

from tasks.data import prefetch, row_stream, spread_rows, spread_windows, window_stream
from tasks.data.streams import draw


@pytest.fixture
def mapped(tmp_path):
    np.arange(5000, dtype="<u2").tofile(tmp_path / "train.bin")
    return np.memmap(tmp_path / "train.bin", "<u2", mode="r")


def test_a_batch_depends_on_the_seed_and_the_step_alone(mapped):
    stream = window_stream(mapped, batch_size=4, length=9)
    batches = stream(3, 10, 20)
    assert batches.shape == (10, 4, 9) and batches.dtype == np.int32
    np.testing.assert_array_equal(stream(3, 17, 18)[0], batches[7])
    assert (np.diff(batches, axis=-1) == 1).all()
    different = {batches[i].tobytes() for i in range(10)}
    assert len(different | {stream(4, 10, 11)[0].tobytes()}) == 11


def test_every_window_and_every_row_is_equally_likely():
    stream = window_stream(np.arange(6), batch_size=100, length=3)
    starts = stream(0, 0, 40)[..., 0]
    assert np.bincount(starts.ravel()) == pytest.approx(np.full(4, 1000), rel=0.15)
    rows = row_stream({"x": np.arange(5)}, 100)(0, 0, 50)["x"]
    assert np.bincount(rows.ravel()) == pytest.approx(np.full(5, 1000), rel=0.15)


def test_draws_of_neighbours_are_not_related():
    few = [draw(seed, step, 2, 500) for seed in range(4) for step in range(4)]
    correlation = np.corrcoef(few) - np.eye(16)
    assert np.abs(correlation).max() < 0.2


def test_rows_of_all_arrays_belong_together():
    label = np.arange(50, dtype=np.int32)
    image = np.broadcast_to(label[:, None, None, None], (50, 2, 2, 3)).astype(np.uint8)
    batches = row_stream({"image": image, "label": label}, 8)(1, 0, 3)
    assert batches["image"].shape == (3, 8, 2, 2, 3)
    np.testing.assert_array_equal(batches["image"][..., 0, 0, 0], batches["label"])
    assert batches["image"].dtype == np.uint8


def test_batches_are_in_memory(mapped):
    batch = row_stream({"x": mapped}, 4)(0, 0, 1)["x"]
    assert type(batch) is np.ndarray and batch.flags.writeable
    assert type(spread_rows({"x": mapped}, 4)["x"]) is np.ndarray


def test_windows_to_evaluate_on_predict_no_token_twice(mapped):
    windows = spread_windows(mapped, count=20, length=11)
    assert windows.shape == (20, 11)
    targets = windows[:, 1:].ravel()
    assert len(set(targets.tolist())) == targets.size
    assert (windows[0, 0], windows[-1, -1]) == (0, 4990)
    everything = spread_windows(np.arange(31), count=99, length=11)[:, 1:]
    assert everything.ravel().tolist() == list(range(1, 31))


def test_a_token_that_the_model_does_not_have_names_the_file(mapped):
    stream = window_stream(mapped, batch_size=64, length=9, vocab_size=100)
    with pytest.raises(ValueError, match=r"train\.bin holds token \d+.*vocab_size=100"):
        stream(0, 0, 1)
    with pytest.raises(ValueError, match=r"train\.bin holds token"):
        spread_windows(mapped, count=9, length=9, vocab_size=100)


def test_fewer_tokens_than_a_window(mapped):
    for make in (
        lambda: window_stream(mapped, batch_size=1, length=5001),
        lambda: spread_windows(mapped, count=1, length=5001),
    ):
        with pytest.raises(ValueError, match=r"train\.bin must have at least length="):
            make()
    assert window_stream(mapped, batch_size=1, length=5000)(0, 0, 1)[0, 0, 0] == 0


def test_the_next_item_is_made_while_one_is_used():
    made = threading.Semaphore(0)

    def items():
        for i in range(3):
            made.release()
            yield i

    found = []
    for item in prefetch(items()):
        # One for this item and one for the next, before we are done with this one.
        assert made.acquire(timeout=10)
        if item == 0:
            assert made.acquire(timeout=10)
            made.release()
        found.append(item)
    assert found == [0, 1, 2]


def test_what_an_item_raises_is_raised_in_its_turn():
    def items():
        yield 1
        raise ValueError("disk is gone")

    ahead = prefetch(items())
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="disk is gone"):
        next(ahead)


def test_leaving_early_makes_no_more_items_and_leaves_no_thread():
    made = []

    def items():
        for i in range(100):
            time.sleep(0.01)
            made.append(i)
            yield i

    ahead = prefetch(items())
    assert next(ahead) == 0
    ahead.close()
    count = len(made)
    assert count <= 2
    assert not [t for t in threading.enumerate() if t.name.startswith("prefetch")]
    time.sleep(0.05)
    assert len(made) == count
