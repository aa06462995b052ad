"""Sentences of LM1B, from tiny files in every layout, and TFDS folders."""

import gzip
import pathlib
import sys
import types

import numpy as np
import pytest

from tasks.data import (
    check_vocabulary,
    lm1b,
    load_imagenet,
    load_images,
    load_lm1b,
    load_token_files,
)
from tasks.data.prepare import prepare

TRAIN, VALID = "ab b\ncba\n", "c\n\nabc abc abc\n"
RELEASE = "1-billion-word-language-modeling-benchmark-r13output"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in ("MADA_DATA_DIR", "TFDS_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)


def write_text(root):
    (root / "lm1b").mkdir()
    (root / "lm1b" / "train.txt").write_text(TRAIN)
    (root / "lm1b" / "valid.txt").write_text(VALID)


def write_sample(root):
    (root / "lm1b").mkdir()
    for name, text in (("10-11", TRAIN), ("12-13", VALID)):
        path = root / "lm1b" / f"heldout_{name}.txt.gz"
        path.write_bytes(gzip.compress(text.encode()))


def write_original(root):
    for part, name, number, text in (
        ("training", "news.en", "00001-of-00100", TRAIN[:5]),
        ("training", "news.en", "00002-of-00100", TRAIN[5:]),
        ("heldout", "news.en.heldout", "00000-of-00050", VALID),
        ("heldout", "news.en.heldout", "00001-of-00050", "unused"),
    ):
        folder = root / RELEASE / f"{part}-monolingual.tokenized.shuffled"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}-{number}").write_text(text)


@pytest.mark.parametrize("write", [write_text, write_sample, write_original])
def test_every_layout_gives_the_same_rows(tmp_path, write):
    write(tmp_path)
    data = load_lm1b(tmp_path, length=6)
    rows = [b"ab b\0\0", b"cba\0\0\0", b"c\0\0\0\0\0", b"abc ab"]
    found = [data.splits[split]["tokens"] for split in ("train", "valid")]
    assert [bytes(row) for part in found for row in part] == rows
    assert (data.name, data.num_classes) == ("lm1b", 256)
    data = load_lm1b(tmp_path, tokenizer="character", length=6)
    # The padding is 0, the end of line 1, the blank 2.
    assert data.splits["train"]["tokens"].tolist() == [
        [3, 4, 2, 4, 0, 0],
        [5, 4, 3, 0, 0, 0],
    ]
    assert data.num_classes == 6


@pytest.mark.parametrize("write", [write_text, write_sample, write_original])
def test_prepared_rows_are_the_same_and_stay_on_the_disk(tmp_path, write):
    write(tmp_path)
    small = load_lm1b(tmp_path, length=6)
    out = tmp_path / "lm1b-byte"
    prepare("lm1b", out, "byte", row_length=6, data_dir=tmp_path)
    large = load_lm1b(tmp_path, length=6)
    assert large.source == "train.bin, val.bin"
    assert (large.name, large.num_classes) == (small.name, small.num_classes)
    for split in ("train", "valid"):
        tokens = large.splits[split]["tokens"]
        assert isinstance(tokens, np.memmap)
        np.testing.assert_array_equal(tokens, small.splits[split]["tokens"])
    assert load_lm1b(tmp_path, tokenizer="character", length=6).num_classes == 6
    with pytest.raises(ValueError, match=r"meta\.json .*rows of 6, not 'byte' and 9.*"):
        load_lm1b(tmp_path, length=9)


def test_text_that_is_too_large_is_prepared_first(tmp_path, monkeypatch):
    write_text(tmp_path)
    monkeypatch.setattr(lm1b, "_MAX_BYTES", 10)
    message = "data prepare lm1b --out FOLDER/lm1b-sentencepiece --row-length 65 .*FILE"
    with pytest.raises(ValueError, match=message):
        load_lm1b(tmp_path, tokenizer="sentencepiece")


def test_a_model_with_fewer_tokens_than_the_data(tmp_path):
    write_text(tmp_path)
    data = load_lm1b(tmp_path)
    check_vocabulary(data, 256)
    message = r"lm1b \(train\.txt, valid\.txt\) has 256 tokens, more than .*255"
    with pytest.raises(ValueError, match=message):
        check_vocabulary(data, 255)


@pytest.fixture
def tfds(monkeypatch):
    """A stand-in for the library, whose folders hold what is assigned to it."""
    rows = {}

    def builder_from_directory(folder):
        assert pathlib.Path(folder, "dataset_info.json").is_file()
        return types.SimpleNamespace(as_data_source=rows.__getitem__)

    module = types.SimpleNamespace(builder_from_directory=builder_from_directory)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", module)
    return rows


def write_info(folder):
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{}")


def images(rows, size, num_classes):
    image = np.random.default_rng(rows).integers(0, 256, (rows, size, size, 3))
    image, label = image.astype(np.uint8), np.arange(rows) % num_classes
    listed = [{"image": x, "label": y} for x, y in zip(image, label, strict=True)]
    return image, label, listed


def test_images_of_tfds(tmp_path, tfds, monkeypatch):
    monkeypatch.setattr("tasks.data.tfds._ROWS", 4)
    write_info(tmp_path / "cifar10" / "3.0.2")
    image, label, tfds["train"] = images(20, 32, 10)
    _, _, tfds["test"] = images(3, 32, 10)
    data = load_images("cifar10", tmp_path)
    valid = np.isin(np.arange(20), [9, 19])
    np.testing.assert_array_equal(data.splits["train"]["image"], image[~valid])
    np.testing.assert_array_equal(data.splits["valid"]["label"], label[valid])
    assert data.source == "TFDS cifar10 3.0.2"
    _, _, tfds["test"] = images(3, 16, 10)
    with pytest.raises(ValueError, match=r"3\.0\.2 holds images of shape"):
        load_images("cifar10", tmp_path)
    tfds["test"] = [{"text": b""}]
    with pytest.raises(ValueError, match=r"3\.0\.2 is not a valid TFDS set of"):
        load_images("cifar10", tmp_path)
    del tfds["test"]
    with pytest.raises(ValueError, match=r"3\.0\.2 .*split 'test'"):
        load_images("cifar10", tmp_path)
    tfds["train"] = []
    with pytest.raises(ValueError, match=r"3\.0\.2 .*it is empty"):
        load_images("cifar10", tmp_path)


def test_imagenet_of_tfds_is_mapped_too(tmp_path, tfds, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    write_info(tmp_path / "imagenet_resized" / "32x32" / "0.1.0")
    image, label, tfds["train"] = images(5, 32, 1000)
    _, _, tfds["validation"] = images(2, 32, 1000)
    train = load_imagenet().splits["train"]
    assert isinstance(train["image"], np.memmap)
    np.testing.assert_array_equal(train["image"], image)
    np.testing.assert_array_equal(train["label"], label)


def test_sentences_of_tfds(tmp_path, tfds):
    write_info(tmp_path / "lm1b" / "1.1.0")
    tfds["train"] = [{"text": line.encode()} for line in TRAIN.splitlines()]
    tfds["test"] = [{"text": b"c\nab"}]
    with pytest.raises(ValueError, match="data prepare lm1b"):
        load_lm1b(tmp_path)
    prepare("lm1b", tmp_path / "out", "byte", row_length=5, data_dir=tmp_path)
    splits = load_token_files("out", tmp_path).splits
    found = [bytes(row.astype(np.uint8)) for row in splits["train"]["tokens"]]
    assert found == [b"ab b\0", b"cba\0\0"]
    assert splits["valid"]["tokens"].tolist() == [[*b"c ab\0"]]


def test_an_absent_tfds_names_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    write_info(tmp_path / "cifar10" / "3.0.2")
    with pytest.raises(ModuleNotFoundError, match=r"mada-optax\[tfds\]"):
        load_images("cifar10", tmp_path)
