"""Vocabularies, blocks of words and pairs of sentences, from tiny files."""

import gzip

import numpy as np
import pytest

from tasks.data.blocks import load_blocks
from tasks.data.dataset import first_rows
from tasks.data.multi30k import load_multi30k
from tasks.data.vocabulary import most_frequent

WIKI = "\n".join(
    [
        " = Title = ",
        " ",
        " a b a c a b <unk> d ",
        " b a ",
        " b b a a x y ",
        "",
    ]
)
PAIRS = {
    "train": [
        ("Ein Hund rennt.", "A dog runs."),
        ("Ein Hund!", "A dog!"),
        ("Die Katze, die Katze rennt.", "Hund is the cat, the cat runs."),
    ],
    "val": [("Ein Vogel.", "A bird.")],
    "test_2016_flickr": [("Eine Katze.", "Hund!")],
}


@pytest.fixture(autouse=True)
def no_data_dir(monkeypatch):
    monkeypatch.delenv("MADA_DATA_DIR", raising=False)
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)


def write_wiki(folder, layout="wiki.{}.tokens"):
    folder = folder / "wikitext-2"
    folder.mkdir()
    for split in ("train", "valid", "test"):
        path = folder / layout.format(split)
        content = WIKI.encode()
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return folder


def write_pairs(folder, suffix="", pairs=PAIRS):
    folder = folder / "multi30k"
    folder.mkdir()
    for split, sentences in pairs.items():
        for language, side in zip(
            ("de", "en"), zip(*sentences, strict=True), strict=True
        ):
            path = folder / f"{split}.{language}{suffix}"
            content = ("\n".join(side) + "\n").encode()
            path.write_bytes(gzip.compress(content) if suffix else content)
    return folder


def read(numbers, vocabulary):
    names = {number: word for word, number in vocabulary.items()}
    return [" ".join(names[n] for n in row if n) for row in numbers.tolist()]


def test_the_most_frequent_words_come_first_and_rare_ones_are_left_out():
    words = "b a c a b <unk> <unk> <unk> d".split()
    specials = ("<pad>", "<unk>")
    found = most_frequent(words, size=9, specials=specials, min_count=2)
    assert found == {"<pad>": 0, "<unk>": 1, "a": 2, "b": 3}
    assert list(most_frequent(words, size=3, specials=specials)) == [*specials, "a"]


@pytest.mark.parametrize(
    "layout", ["wiki.{}.tokens", "{}.txt", "{}.txt.gz"], ids=["original", "txt", "gz"]
)
def test_blocks_stay_within_a_line_and_remainders_are_dropped(tmp_path, layout):
    folder = write_wiki(tmp_path, layout)
    data = load_blocks("wikitext2", tmp_path, length=3, vocab_size=5)
    assert data.num_classes == 5
    tokens = data.splits["train"]["tokens"]
    assert tokens.dtype == np.uint8
    # a: 2, b: 3, =: 4; the words of the text itself are frequent enough or unknown.
    assert tokens.tolist() == [[4, 1, 4], [2, 3, 2], [1, 2, 3], [3, 3, 2], [2, 1, 1]]
    assert load_blocks("wikitext2", folder, length=8).metadata["sizes"]["valid"] == 1


def test_blocks_longer_than_every_line(tmp_path):
    write_wiki(tmp_path)
    with pytest.raises(ValueError, match="no line of train has length=9 words"):
        load_blocks("wikitext2", tmp_path, length=9)


def test_absent_files_say_what_to_get_where_from_and_where_to_put_it(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        load_blocks("wikitext2", tmp_path)
    assert "wiki.train.tokens, wiki.valid.tokens, wiki.test.tokens" in str(error.value)
    assert str(tmp_path / "wikitext2") in str(error.value)
    assert "https://" in str(error.value)
    with pytest.raises(FileNotFoundError) as error:
        load_multi30k(tmp_path)
    assert "train.de.gz, train.en.gz, val.de.gz" in str(error.value)
    assert str(tmp_path / "multi30k") in str(error.value)
    assert "https://github.com/multi30k/dataset" in str(error.value)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_pairs_share_one_numbering_of_both_languages(tmp_path, suffix):
    write_pairs(tmp_path, suffix)
    data = load_multi30k(tmp_path)
    frequent = ["<pad>", "<unk>", "<bos>", "<eos>", ".", "hund", "a", "cat", "die"]
    frequent += ["dog", "ein", "katze", "rennt", "runs", "the", "!", ","]
    vocabulary = most_frequent(
        [w for w in " ".join(
            "ein hund rennt . a dog runs . ein hund ! a dog ! die katze , die katze "
            "rennt . hund is the cat , the cat runs .".split()
        ).split()],
        size=99, specials=frequent[:4], min_count=2,
    )  # fmt: skip
    assert sorted(vocabulary) == sorted(frequent)
    train = data.splits["train"]
    assert read(train["source"], vocabulary) == [
        "ein hund rennt . <eos>",
        "ein hund ! <eos>",
        "die katze , die katze rennt . <eos>",
    ]
    assert read(train["target"], vocabulary) == [
        "<bos> a dog runs . <eos>",
        "<bos> a dog ! <eos>",
        "<bos> hund <unk> the cat , the cat runs . <eos>",
    ]
    assert train["source"].shape == (3, 10) and train["target"].shape == (3, 11)
    valid = read(data.splits["valid"]["target"], vocabulary)
    assert valid == ["<bos> a <unk> . <eos>"]


def test_the_papers_vocabulary_is_german(tmp_path):
    write_pairs(tmp_path)
    data = load_multi30k(tmp_path, vocabulary="german")
    # Of <bos> A dog runs . <eos>, German has the full stop.
    assert data.num_classes == 4 + len({"die", "ein", "hund", "katze", "rennt", "."})
    target = data.splits["train"]["target"]
    assert (target[0] == 1).sum() == 3
    # "Hund" is a German word that the third English sentence happens to have.
    assert (target[2] == 1).sum() == 7


def test_pairs_that_are_too_long_are_left_out(tmp_path):
    write_pairs(tmp_path)
    sizes = [
        load_multi30k(tmp_path, max_length=n).metadata["sizes"]["train"]
        for n in (5, 6, 10, 11)
    ]
    assert sizes == [1, 2, 2, 3]
    assert load_multi30k(tmp_path, max_length=6).splits["train"]["target"].shape[1] == 6
    with pytest.raises(ValueError, match="max_length=3 leaves train empty"):
        load_multi30k(tmp_path, max_length=3)


def test_unpaired_sentences_are_refused(tmp_path):
    folder = write_pairs(tmp_path)
    (folder / "val.en").write_text("One.\nTwo.\n")
    with pytest.raises(ValueError, match="they have 1 and 2 lines"):
        load_multi30k(tmp_path)


def test_first_rows_are_the_same_of_every_array(tmp_path):
    many = {k: v * 10 for k, v in PAIRS.items()}
    write_pairs(tmp_path, pairs=many)
    data = load_multi30k(tmp_path)
    few = first_rows(data, 16)
    assert few.metadata["sizes"] == {"train": 16, "valid": 2, "test": 2}
    for name, array in few.splits["train"].items():
        np.testing.assert_array_equal(array, data.splits["train"][name][:16])
    with pytest.raises(ValueError, match="max_rows must be an integer >= 8, got 7"):
        first_rows(data, 7)
