"""`python -m tasks data`: what is there, and token files from text."""

import gzip
import struct
import sys

import numpy as np
import pytest

from tasks import __main__ as cli
from tasks import data
from tasks.data import catalogue, load_token_files


@pytest.fixture
def run(monkeypatch, capfd):
    """Runs `python -m tasks data`; gives the exit code, lines of output, and errors."""
    for name in ("MADA_DATA_DIR", "TFDS_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["tasks", "data", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as e:
            code = e.code
        out, err = capfd.readouterr()
        return code, " ".join(out.split()), err

    return run


def write(root):
    for name in ("mnist", "fashion_mnist", "openwebtext", "lm1b", "imagenet64/arrays"):
        (root / name).mkdir(parents=True)
    for split, rows in (("train", 30), ("test", 4)):
        pixels = np.zeros((rows, 28, 28), np.uint8)
        np.savez(root / "mnist" / f"{split}.npz", x=pixels, y=np.zeros(rows, np.int64))
    for split, rows in (("train", 60000), ("t10k", 10000)):
        head = bytes([0, 0, 8, 1]) + struct.pack(">I", rows)
        for part, content in (("images-idx3", b""), ("labels-idx1", head)):
            path = root / "fashion_mnist" / f"{split}-{part}-ubyte.gz"
            path.write_bytes(gzip.compress(content))
    np.zeros(1000, "<u2").tofile(root / "openwebtext" / "train.bin")
    np.zeros(234, "<u2").tofile(root / "openwebtext" / "val.bin")
    (root / "lm1b" / "train.txt").write_bytes(bytes(1_500_000))
    (root / "lm1b" / "valid.txt").write_bytes(bytes(100_000))
    index = '{"files": {}, "sha256": {}, "rows": {"train": 12, "valid": 3}}'
    (root / "imagenet64" / "arrays" / "index.json").write_text(index)


def test_check_says_what_is_there(run, tmp_path, monkeypatch):
    write(tmp_path)
    code, out, _ = run("check", "--data-dir", tmp_path)
    assert code == 0
    for found in (
        f"mnist: npz, 0.0 MB, 34 rows in {tmp_path / 'mnist'}",
        f"fashion_mnist: IDX gz, 0.0 MB, 70,000 rows in {tmp_path / 'fashion_mnist'}",
        f"openwebtext: token files, 0.0 MB, 1,234 tokens in {tmp_path}",
        f"lm1b: text, 1.6 MB in {tmp_path / 'lm1b'}",
        f"imagenet64: arrays, 0.0 MB, 15 rows in {tmp_path / 'imagenet64'}",
        "digits: scikit-learn",
        "python_docs: pydoc_data.topics",
    ):
        assert f"found {found}" in out
    monkeypatch.setenv("MADA_DATA_DIR", str(tmp_path))
    assert run("check")[1] == out.replace("from data_dir", "from MADA_DATA_DIR")


def test_check_says_what_is_missing_as_the_loaders_do(run, tmp_path):
    write(tmp_path)
    (tmp_path / "mnist" / "test.npz").unlink()
    _, out, _ = run("check", "--data-dir", tmp_path)
    for load in (
        lambda: data.load_images("mnist", tmp_path),
        lambda: data.load_images("cifar10", tmp_path),
        lambda: data.load_imagenet(tmp_path, 32),
        lambda: data.load_text("wikitext2", "byte", tmp_path),
        lambda: data.load_token_files("shakespeare_char", tmp_path),
        lambda: data.load_imdb(tmp_path),
        lambda: data.load_ett("etth1", tmp_path),
    ):
        with pytest.raises(FileNotFoundError) as error:
            load()
        assert f"missing {error.value}" in out
    assert out.count("missing ") + out.count("found ") >= len(catalogue.SOURCES) + 5
    _, out, _ = run("check")
    assert out.count("pass --data-dir or set MADA_DATA_DIR") == 1
    assert "missing fashion_mnist, in fashion_mnist" in out
    for source in catalogue.SOURCES.values():
        assert source.wanted in out


def test_check_says_what_is_broken(run, tmp_path):
    write(tmp_path)
    (tmp_path / "mnist" / "train.npz").write_bytes(b"nothing")
    code, out, _ = run("check", "--data-dir", tmp_path)
    assert code == 0
    assert f"broken mnist: npz, 0.0 MB in {tmp_path / 'mnist'}: {tmp_path}" in out
    assert "train.npz is not a valid file of its kind: BadZipFile" in out


def test_check_knows_optional_libraries(run, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    _, out, _ = run("check", "--data-dir", tmp_path)
    for library, extra in (("tiktoken", "tokenizers"), ("tensorflow_datasets", "tfds")):
        assert (
            f"{library}, an optional library: pip install 'mada-optax[{extra}]'" in out
        )
    assert "missing digits are read from scikit-learn" in out


def test_prepare_writes_token_files(run, tmp_path):
    (tmp_path / "a.txt").write_text("abcdefghij" * 10)
    out = tmp_path / "mine"
    arguments = [
        "prepare",
        tmp_path / "a.txt",
        "--out",
        out,
        "--tokenizer",
        "character",
    ]
    code, printed, err = run(*arguments)
    assert code == 0
    assert "train: 90 tokens of 90 bytes valid: 10 tokens of 10 bytes" in printed
    assert "10 different tokens, uint16" in printed
    assert "writing train" in err
    assert load_token_files("mine", tmp_path).num_classes == 10
    code, printed, err = run(*arguments)
    assert (code, printed) == (2, "")
    assert "would be replaced" in err and "--overwrite" in err
    assert run(*arguments, "--overwrite", "--valid-fraction", 0.5)[0] == 0
    assert load_token_files("mine", tmp_path).metadata["sizes"]["train"] == 50


def test_an_absent_library_is_one_line(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    code, out, err = run(
        "prepare", "python_docs", "--out", tmp_path, "--tokenizer", "gpt2"
    )
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        "error: tiktoken is not installed: pip install 'mada-optax[tokenizers]'"
    ]
