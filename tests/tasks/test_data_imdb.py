import csv
import gzip
import io

import numpy as np
import pytest

from tasks.data import load_imdb

# Ten of either label, the negative ones first, as the folders give them.
TRAIN = [(0, f"Bad, bad {'a' * i}") for i in range(10)]
TRAIN += [(1, f'A "good"<br />film; {"b" * i}') for i in range(10)]
TEST = [(0, "bad words"), (1, "Good!\n")]


def table(reviews):
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["id", "label", "rating", "text"])
    writer.writerows([i, label, 5, text] for i, (label, text) in enumerate(reviews))
    return text.getvalue().encode()


def write_csv(root, train=TRAIN, test=TEST):
    (root / "imdb").mkdir()
    for split, reviews in (("train", train), ("test", test)):
        (root / "imdb" / f"{split}.csv").write_bytes(table(reviews))


def write_gzip(root):
    (root / "imdb").mkdir()
    for split, reviews in (("train", TRAIN), ("test", TEST)):
        content = gzip.compress(table(reviews))
        (root / "imdb" / f"{split}.csv.gz").write_bytes(content)


def write_folders(root):
    for split, reviews in (("train", TRAIN), ("test", TEST)):
        for i, (label, text) in enumerate(reviews):
            folder = root / "aclImdb" / split / ("neg", "pos")[label]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{i:02}_5.txt").write_text(text, encoding="utf-8", newline="")


@pytest.mark.parametrize("write", [write_csv, write_gzip, write_folders])
def test_every_layout_gives_the_same_arrays(tmp_path, write):
    write(tmp_path)
    data, words = load_imdb(tmp_path, length=6)
    assert words == ("<pad>", "<unk>", "bad", "a", ",", "film", "good")
    assert data.num_classes == 2
    assert data.metadata["sizes"] == {"train": 18, "valid": 2, "test": 2}
    train, valid, test = (data.splits[name] for name in ("train", "valid", "test"))
    assert train["label"].tolist() == [0] * 9 + [1] * 9
    assert valid["label"].tolist() == [0, 1] and valid["label"].dtype == np.int32
    assert train["tokens"][0].tolist() == [2, 4, 2, 0, 0, 0]
    assert valid["tokens"].tolist() == [[2, 4, 2, 1, 0, 0], [3, 6, 5, 1, 0, 0]]
    assert test["tokens"].tolist() == [[2, 1, 0, 0, 0, 0], [6, 1, 0, 0, 0, 0]]
    assert set(data.sha256) == {"train", "valid", "test"}


def test_reviews_are_cut_and_rare_words_unknown(tmp_path):
    write_csv(tmp_path)
    data, words = load_imdb(tmp_path, length=2, max_words=4, min_count=20)
    assert words == ("<pad>", "<unk>", "bad")
    assert data.splits["valid"]["tokens"].tolist() == [[2, 1], [1, 1]]
    _, words = load_imdb(tmp_path, length=2, max_words=4, min_count=1)
    assert words == ("<pad>", "<unk>", "bad", "a")


def test_what_is_missing_and_where_to_get_it(tmp_path):
    (tmp_path / "aclImdb" / "train" / "neg").mkdir(parents=True)
    with pytest.raises(FileNotFoundError) as error:
        load_imdb(tmp_path)
    for part in ("lacks train/pos, test/neg, test/pos", "ai.stanford.edu/~amaas"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("reviews", "message"),
    [
        ([(0, "bad")], "must hold positive and negative reviews"),
        ([(0, "bad"), (2, "good")], "label, which is 0 or 1: KeyError: '2'"),
        ([], "must hold positive and negative reviews"),
    ],
)
def test_what_is_not_such_a_table(tmp_path, reviews, message):
    write_csv(tmp_path, test=reviews)
    with pytest.raises(ValueError, match=rf"test\.csv.*{message}"):
        load_imdb(tmp_path)


def test_a_table_of_something_else(tmp_path):
    write_csv(tmp_path)
    (tmp_path / "imdb" / "train.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"train\.csv must be a table .*'text'"):
        load_imdb(tmp_path)
