"""A sound file of each kind is read; a damaged copy is refused, by name, with why."""

import gzip
import json
import pickle
import struct
import zipfile

import numpy as np
import pytest

from tasks.data import (
    load_imagenet,
    load_images,
    load_imdb,
    load_lm1b,
    load_text,
    load_token_files,
)
from tasks.data.prepare import prepare

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in ("MADA_DATA_DIR", "TFDS_DATA_DIR", "MADA_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)


def pixels(*shape):
    return RNG.integers(0, 256, shape).astype(np.uint8)


def cifar10(folder):
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        batch = {b"data": pixels(10, 3072), b"labels": list(range(10))}
        (folder / name).write_bytes(pickle.dumps(batch, 2))


def mnist(folder):
    for name in ("train", "test"):
        np.savez_compressed(folder / f"{name}.npz", x=pixels(10, 28, 28), y=range(10))


def imagenet32(folder):
    for name in (*(f"train_data_batch_{i}" for i in range(1, 11)), "val_data"):
        rows = {"data": pixels(4, 3072), "labels": np.array([1, 2, 999, 1000])}
        np.savez_compressed(folder / f"{name}.npz", **rows)


def wikitext2(folder):
    for name in ("train", "valid", "test"):
        content = " Zwölf Boxkämpfer \n" * 99
        (folder / f"{name}.txt.gz").write_bytes(gzip.compress(content.encode()))


def lm1b(folder):
    for name in ("train", "valid"):
        (folder / f"{name}.txt").write_text("zwölf Boxkämpfer\n" * 9, encoding="utf-8")


def mine(folder):
    (folder / "a.txt").write_text("abcdefghij" * 9)
    prepare(str(folder / "a.txt"), folder, "character")


def imdb(folder):
    for name in ("train", "test"):
        rows = [f"{i},{i % 2},5,good" for i in range(20)]
        (folder / f"{name}.csv").write_text("\n".join(["id,label,rating,text", *rows]))


SETS = {
    cifar10: lambda root: load_images("cifar10", root),
    mnist: lambda root: load_images("mnist", root),
    imagenet32: load_imagenet,
    wikitext2: lambda root: load_text("wikitext2", "character", root),
    lm1b: load_lm1b,
    mine: lambda root: load_token_files("mine", root),
    imdb: load_imdb,
}


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def one_byte_less(path):
    path.write_bytes(path.read_bytes()[:-1])


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(bytes(content))


def empty(path):
    path.write_bytes(b"")


def blank(path):
    compress = gzip.compress if path.suffix == ".gz" else bytes
    path.write_bytes(compress(b" \n \n"))


def latin_1(path):
    compress = gzip.compress if path.suffix == ".gz" else bytes
    path.write_bytes(compress("Zwölf Boxkämpfer".encode("latin-1")))


def another_program(path):
    path.write_bytes(pickle.dumps({b"data": print, b"labels": []}))


def wrong_checksum(path):
    rows_of(data=np.zeros((4, 3072), np.uint8))(path)
    with zipfile.ZipFile(path) as archive:
        right = struct.pack("<I", archive.getinfo("data.npy").CRC)
    path.write_bytes(path.read_bytes().replace(right, bytes(4)))


def rows_of(**changes):
    def damage(path):
        np.savez_compressed(path, **{**np.load(path), **changes})

    return damage


def changed_meta(**changes):
    def damage(path):
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return damage


def token_too_large(path):
    tokens = np.fromfile(path, "<u2")
    tokens[3] = 10
    tokens.tofile(path)


@pytest.mark.parametrize(
    ("write", "file", "damage", "reason"),
    [
        (cifar10, "data_batch_3", truncated, "is not a valid CIFAR-10 batch"),
        (cifar10, "test_batch", empty, "is not a valid CIFAR-10 batch: EOFError"),
        (cifar10, "data_batch_1", another_program, "refused to load .*print"),
        (mnist, "train.npz", truncated, "not a valid .npz image set: BadZipFile"),
        (mnist, "train.npz", flipped, "not a valid .npz image set"),
        (mnist, "test.npz", rows_of(y=np.arange(10) + 1), "labels must be 0 to 9"),
        (mnist, "test.npz", rows_of(y=np.arange(9)), "one for each image"),
        (imagenet32, "train_data_batch_9.npz", truncated, "BadZipFile"),
        (imagenet32, "train_data_batch_9.npz", flipped, "batch of down-sampled"),
        (imagenet32, "train_data_batch_9.npz", wrong_checksum, "Bad CRC-32"),
        (imagenet32, "val_data.npz", empty, "not a valid batch"),
        (
            imagenet32,
            "val_data.npz",
            rows_of(labels=np.array([0, 1, 2, 999])),
            "labels must be 1 to 1000, got 0 to 999",
        ),
        (
            imagenet32,
            "train_data_batch_2.npz",
            rows_of(labels=np.array([1, 2])),
            r"uint8 of shape \(2, 3072\).*got uint8 of shape \(4, 3072\)",
        ),
        (
            imagenet32,
            "train_data_batch_2.npz",
            rows_of(data=pixels(4, 12288)),
            r"got uint8 of shape \(4, 12288\)",
        ),
        (wikitext2, "train.txt.gz", truncated, "not a valid gzip file: EOFError"),
        (wikitext2, "valid.txt.gz", flipped, "not a valid gzip file"),
        (wikitext2, "test.txt.gz", latin_1, "not a valid UTF-8 text.*0xf6"),
        (wikitext2, "valid.txt.gz", blank, "is empty"),
        (lm1b, "train.txt", latin_1, "not a valid UTF-8 text.*0xf6"),
        (lm1b, "train.txt", lambda path: path.write_bytes(b"ab\xc3"), "UTF-8 text"),
        (lm1b, "valid.txt", blank, "is empty"),
        (mine, "train.bin", one_byte_less, "161 bytes, expected 162"),
        (mine, "meta.json", changed_meta(row_length=7), "expected a multiple of 14"),
        (mine, "val.bin", empty, "is empty"),
        (mine, "val.bin", token_too_large, "token 10, and vocab_size is 10"),
        (mine, "meta.json", truncated, "not a valid description of token files"),
        (mine, "meta.json", changed_meta(dtype="float32"), "unknown dtype 'float32'"),
        (mine, "meta.json", changed_meta(vocab_size=0), "vocab_size must be an int"),
        (imdb, "test.csv", latin_1, "not a valid UTF-8 text"),
        (imdb, "train.csv", blank, "must"),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path, write, file, damage, reason):
    folder = tmp_path / write.__name__
    folder.mkdir()
    write(folder)
    damage(folder / file)
    with pytest.raises(ValueError, match=rf"(?s){reason}") as error:
        SETS[write](tmp_path)
    assert file in str(error.value)


@pytest.mark.parametrize("write", SETS)
def test_the_sound_ones_are_read(tmp_path, write):
    folder = tmp_path / write.__name__
    folder.mkdir()
    write(folder)
    SETS[write](tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (gzip.compress(b"text" * 999)[:-9], "not a valid gzip file: EOFError"),
        (gzip.compress(b"z\xf6lf"), "not a valid UTF-8 text"),
        (gzip.compress(b"\n \n"), "the split 'train' is empty"),
        (gzip.compress(b""), "the split 'train' is empty"),
    ],
)
def test_text_that_is_not_prepared(tmp_path, content, reason):
    (tmp_path / "a.txt.gz").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.txt\.gz.*{reason}"):
        prepare(str(tmp_path / "a.txt.gz"), tmp_path / "out", "byte")
    assert not list(tmp_path.rglob("*.bin"))
