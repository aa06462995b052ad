import gzip
import hashlib
import importlib.util
import pickle
import struct
import subprocess
import sys

import numpy as np
import pytest

from tasks.data import Dataset, load_images, load_text, resize, to_grey, tokenize

RNG = np.random.default_rng(0)
SHAPES = {"mnist": (28, 28), "fashion_mnist": (28, 28), "cifar10": (32, 32, 3)}


@pytest.fixture(autouse=True)
def no_data_dir(monkeypatch):
    monkeypatch.delenv("MADA_DATA_DIR", raising=False)
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)


def fake(name, rows):
    image = RNG.integers(0, 256, (rows, *SHAPES[name])).astype(np.uint8)
    return image, (np.arange(rows) % 10).astype(np.uint8)


def write_npz(folder, train, test):
    for split, (x, y) in {"train": train, "test": test}.items():
        np.savez(folder / f"{split}.npz", x=x, y=y)


def write_npz_shards(folder, train, test):
    write_npz(folder, train, test)
    (folder / "train.npz").unlink()
    pieces = zip(*(np.array_split(array, 5) for array in train), strict=True)
    for i, (x, y) in enumerate(pieces):
        np.savez(folder / f"train_{i}.npz", x=x, y=y)


def write_idx(folder, train, test, suffix="", compress=bytes):
    for split, arrays in {"train": train, "t10k": test}.items():
        for kind, array in zip(("images", "labels"), arrays, strict=True):
            shape = struct.pack(f">{array.ndim}I", *array.shape)
            content = bytes([0, 0, 8, array.ndim]) + shape + array.tobytes()
            name = f"{split}-{kind}-idx{array.ndim}-ubyte{suffix}"
            (folder / name).write_bytes(compress(content))


def write_idx_gz(folder, train, test):
    write_idx(folder, train, test, ".gz", gzip.compress)


def write_cifar_batches(folder, train, test):
    pieces = zip(*(np.array_split(array, 5) for array in train), strict=True)
    batches = {f"data_batch_{i}": piece for i, piece in enumerate(pieces, 1)}
    for name, (x, y) in {**batches, "test_batch": test}.items():
        data = np.ascontiguousarray(x.transpose(0, 3, 1, 2)).reshape(len(x), -1)
        content = pickle.dumps({b"data": data, b"labels": y.tolist()}, 2)
        (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("mnist", write_npz),
        ("mnist", write_idx),
        ("fashion_mnist", write_idx_gz),
        ("cifar10", write_npz),
        ("cifar10", write_npz_shards),
        ("cifar10", write_cifar_batches),
    ],
)
def test_every_layout_gives_the_same_arrays(tmp_path, name, write):
    train, test = fake(name, 25), fake(name, 12)
    (tmp_path / name).mkdir()
    write(tmp_path / name, train, test)
    data = load_images(name, tmp_path)
    assert data.num_classes == 10
    assert data.metadata["sizes"] == {"train": 23, "valid": 2, "test": 12}
    held_out = np.isin(np.arange(25), [9, 19])
    expected = {
        "train": [array[~held_out] for array in train],
        "valid": [array[held_out] for array in train],
        "test": list(test),
    }
    for split, (image, label) in expected.items():
        got = data.splits[split]
        assert got["image"].dtype == np.uint8 and got["label"].dtype == np.int32
        image = image if image.ndim == 4 else image[..., None]
        np.testing.assert_array_equal(got["image"], image)
        np.testing.assert_array_equal(got["label"], label)
        content = image.tobytes() + label.astype("<i4").tobytes()
        assert data.sha256[split] == hashlib.sha256(content).hexdigest()


def test_digits_are_the_same_rows_everywhere():
    digits = load_images("digits")
    image, label = (digits.splits["train"][key] for key in ("image", "label"))
    assert image.shape == (1438, 8, 8, 1) and image.dtype == np.uint8
    assert image.max() == 16
    assert label[:9].tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 0]
    assert digits.splits["valid"]["label"][:3].tolist() == [4, 9, 4]
    assert digits.sha256["train"].startswith("b50e970afabff474")


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install scikit-learn"):
        load_images("digits")


def test_python_docs_are_the_help_topics():
    docs = load_text("python_docs")
    parts = [docs.splits[split]["tokens"].tobytes() for split in ("train", "valid")]
    assert b"assert" in parts[0][:100]
    assert b"yield" in parts[1]
    assert 300_000 < len(parts[0]) < 1_000_000
    assert len(parts[1]) == pytest.approx(sum(map(len, parts)) / 20, rel=0.01)
    for split, part in zip(("train", "valid"), parts, strict=True):
        assert docs.sha256[split] == hashlib.sha256(part).hexdigest()


def test_python_without_its_help_topics(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(FileNotFoundError, match="complete CPython"):
        load_text("python_docs")


@pytest.mark.parametrize("name", ["input.txt", "input.txt.gz"])
def test_shakespeare_is_split_at_nine_tenths(tmp_path, name):
    folder = tmp_path / "tinyshakespeare"
    folder.mkdir()
    text = b"abcdefghij" * 10
    (folder / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    for data_dir in folder, folder.parent:
        data = load_text("tiny_shakespeare", "character", data_dir)
        assert data.num_classes == 10
        assert data.metadata["sizes"] == {"train": 90, "valid": 10}
        assert data.splits["valid"]["tokens"].tolist() == list(range(10))


def write_wikitext(root, texts):
    folder = root / "wikitext2"
    folder.mkdir()
    for split, text in texts.items():
        (folder / f"wiki.{split}.tokens").write_text(text, encoding="utf-8")


def test_wikitext_words_come_from_the_training_split(tmp_path):
    texts = {"train": " a b \n \n b c \n", "valid": " c d \n", "test": " a"}
    write_wikitext(tmp_path, texts)
    data = load_text("wikitext2", "word", tmp_path)
    vocabulary = ["<eos>", "<unk>", "a", "b", "c"]
    words = [vocabulary[i] for i in data.splits["train"]["tokens"]]
    assert words == ["a", "b", "<eos>", "<eos>", "b", "c", "<eos>"]
    words = [vocabulary[i] for i in data.splits["valid"]["tokens"]]
    assert words == ["c", "<unk>", "<eos>"]
    assert data.num_classes == 5
    assert data.splits["train"]["bytes_per_token"] == np.float32(14 / 7)
    expected = hashlib.sha256(texts["train"].encode()).hexdigest()
    assert data.sha256["train"] == expected


def test_bytes_and_characters_of_text_that_is_not_ascii():
    texts = {"train": "aé", "valid": "éz"}
    ids, size = tokenize(texts, "byte")
    assert (bytes(ids["train"]).decode(), size) == ("aé", 256)
    ids, size = tokenize(texts, "character")
    assert {k: v.tolist() for k, v in ids.items()} == {"train": [0, 2], "valid": [2, 1]}
    assert size == 3


def test_large_vocabularies_get_a_wider_dtype():
    ids, size = tokenize({"train": " ".join(map(str, range(300)))}, "word")
    assert size == 302 and ids["train"].dtype == np.uint16


def test_no_folder_is_given():
    with pytest.raises(FileNotFoundError) as error:
        load_images("fashion_mnist")
    for part in ("data_dir", "MADA_DATA_DIR", "train.npz", "https://"):
        assert part in str(error.value)


def test_the_environment_variable_names_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MADA_DATA_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="from MADA_DATA_DIR"):
        load_images("mnist")
    (tmp_path / "mnist").mkdir()
    write_npz(tmp_path / "mnist", fake("mnist", 10), fake("mnist", 3))
    assert load_images("mnist").metadata["sizes"]["test"] == 3
    with pytest.raises(FileNotFoundError, match="from data_dir"):
        load_images("mnist", tmp_path / "elsewhere")


def test_an_incomplete_layout_says_what_it_lacks(tmp_path):
    (tmp_path / "cifar10").mkdir()
    write_npz_shards(tmp_path / "cifar10", fake("cifar10", 10), fake("cifar10", 5))
    (tmp_path / "cifar10" / "train_3.npz").unlink()
    with pytest.raises(FileNotFoundError, match=r"cifar10 lacks train_3\.npz\. Get "):
        load_images("cifar10", tmp_path)


@pytest.mark.parametrize(
    ("image", "label", "message"),
    [
        (
            np.zeros((3, 32, 32), np.uint8),
            [0, 1, 2],
            r"\(3, 32, 32, 1\), expected .*28",
        ),
        (np.zeros((0, 28, 28), np.uint8), [], r"\(0, 28, 28, 1\)"),
        (np.zeros((3, 28, 28), np.uint8), [0, 1, 10], "0 to 9, got 0 to 10"),
        (np.zeros((3, 28, 28), np.uint8), [-1, 1, 9], "0 to 9, got -1 to 9"),
    ],
)
def test_files_of_another_data_set(tmp_path, image, label, message):
    (tmp_path / "mnist").mkdir()
    wrong = image, np.array(label, np.int64)
    write_npz(tmp_path / "mnist", fake("mnist", 10), wrong)
    with pytest.raises(ValueError, match=rf"test\.npz.*{message}"):
        load_images("mnist", tmp_path)


def test_empty_text(tmp_path):
    write_wikitext(tmp_path, {"train": "a", "valid": " \n", "test": "a"})
    with pytest.raises(ValueError, match=r"wiki\.valid\.tokens is empty"):
        load_text("wikitext2", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (lambda: load_images("fashionmnist"), "did you mean 'fashion_mnist'"),
        (lambda: load_text("wikitext"), "did you mean 'wikitext2'"),
        (lambda: load_text("python_docs", "bytes"), "unknown level 'bytes'"),
    ],
)
def test_unknown_names(load, message):
    with pytest.raises(ValueError, match=message):
        load()


def test_what_is_not_needed_is_not_imported():
    code = """
import sys, tasks
assert not {"flax", "sklearn", "matplotlib"} & set(sys.modules)
tasks.get("digits-mlp")
assert "sklearn" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_resizing_pads_to_a_multiple_and_takes_means():
    image = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 2)).astype(np.uint8)
    split = {"image": image, "label": np.zeros(3, np.int32)}
    data = Dataset("own", {"train": split}, 10, "a test", {"train": "0"})
    small = resize(data, 8)
    padded = np.zeros((3, 32, 32, 2))
    padded[:, 2:30, 2:30] = image
    expected = [
        [padded[:, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].mean((1, 2)) for j in range(8)]
        for i in range(8)
    ]
    expected = np.rint(np.transpose(expected, (2, 0, 1, 3)))
    np.testing.assert_array_equal(small.splits["train"]["image"], expected)
    assert small.splits["train"]["image"].dtype == np.uint8
    assert small.splits["train"]["label"] is split["label"]
    assert small.sha256 == data.sha256
    np.testing.assert_array_equal(resize(data, 28).splits["train"]["image"], image)
    with pytest.raises(ValueError, match="size=29 is larger than the 28 pixels of own"):
        resize(data, 29)


def test_grey_is_brightness():
    colours = np.eye(3, dtype=np.uint8)[None] * 200
    split = {"image": colours[:, :, None, :], "label": np.zeros(1, np.int32)}
    grey = to_grey(Dataset("own", {"train": split}, 10, "a test", {}))
    np.testing.assert_array_equal(grey.splits["train"]["image"].ravel(), [60, 117, 23])
    assert grey.splits["train"]["image"].shape == (1, 3, 1, 1)
    again = to_grey(grey).splits["train"]["image"]
    np.testing.assert_array_equal(again, grey.splits["train"]["image"])
