import numpy as np
import pytest

from tasks.data import Dataset, hold_out, load_images, revalidate


def rows(start, stop):
    row = np.arange(start, stop)
    return {"row": row, "label": (row % 2).astype(np.int32)}


@pytest.fixture
def dataset():
    splits = {"train": rows(0, 18), "valid": rows(18, 20), "test": rows(20, 26)}
    return Dataset("own", splits, 2, "a test", {"train": "0"})


def test_validation_on_the_test_set_trains_on_all_else(dataset):
    assert revalidate(dataset, "held_out") is dataset
    other = revalidate(dataset, "test")
    assert other.splits["train"]["row"].tolist() == list(range(20))
    assert other.splits["valid"] is dataset.splits["test"]
    assert set(other.splits) == {"train", "valid"}
    with pytest.raises(ValueError, match="validate_on"):
        revalidate(dataset, "train")
    with pytest.raises(ValueError, match="digits has no test set"):
        revalidate(load_images("digits"), "test")


def test_what_is_held_out_has_the_labels_in_proportion(dataset):
    assert hold_out(dataset, 0.0) is dataset
    split = hold_out(dataset, 1 / 3).splits
    assert split["meta"]["label"].tolist() == [0, 1] * 3
    together = [*split["train"]["row"], *split["meta"]["row"]]
    assert sorted(together) == list(range(18))
    assert split["valid"] is dataset.splits["valid"]


def test_rows_without_labels_are_held_out_too():
    dataset = Dataset("own", {"train": {"row": np.arange(8)}}, 2, "a test", {})
    split = hold_out(dataset, 0.25).splits
    assert split["meta"]["row"].tolist() == [3, 7]
    assert split["train"]["row"].tolist() == [0, 1, 2, 4, 5, 6]


@pytest.mark.parametrize(
    ("fraction", "message"),
    [
        (1.0, "meta_fraction must be at least 0 and less than 1, got 1.0"),
        (-0.1, "meta_fraction must be at least 0"),
        (0.01, "meta_fraction=0.01 of 18 rows is not a single one"),
    ],
)
def test_fractions_that_are_not_allowed(dataset, fraction, message):
    with pytest.raises(ValueError, match=message):
        hold_out(dataset, fraction)
