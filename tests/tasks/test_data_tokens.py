"""Token files: reading them, and writing them from text."""

import gzip
import json
import pathlib
import random
import re
import sys
import types

import numpy as np
import pytest

from tasks.data import load_text, load_token_files, token_files, tokenizers
from tasks.data.prepare import prepare
from tasks.data.tokenizers import encode_text, make_tokenizer

TEXT = "Zwölf Boxkämpfer\njagen \r\n\n Viktor  quer\n" * 40


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in ("MADA_DATA_DIR", "TFDS_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    # Blocks that end within characters, words and lines.
    monkeypatch.setattr("tasks.data.readers._BLOCK", 37)


# GPT-2's words; what it makes of letters and numbers does not matter here.
WORD = re.compile(r"'s| ?\w+| ?[^\s\w]+|\s+(?!\S)|\s+")


@pytest.fixture
def tiktoken(monkeypatch):
    """Numbers words as GPT-2 cuts them, in the order in which they occur."""
    seen = {}

    def encode_ordinary(text):
        return [seen.setdefault(w, len(seen)) % 50257 for w in WORD.findall(text)]

    encoding = types.SimpleNamespace(n_vocab=50257, encode_ordinary=encode_ordinary)
    module = types.SimpleNamespace(get_encoding={"gpt2": encoding}.__getitem__)
    monkeypatch.setitem(sys.modules, "tiktoken", module)
    return encode_ordinary


class Processor:
    """Numbers characters from 3 on; 1 ends a line."""

    def LoadFromSerializedProto(self, content):
        if content != b"model":
            raise RuntimeError("Internal: could not parse ModelProto")

    def vocab_size(self):
        return 70000

    def eos_id(self):
        return 1

    def pad_id(self):
        return 0

    def encode(self, text, out_type):
        assert out_type is int and text == text.strip()
        return [3 + ord(c) for c in text]


@pytest.fixture
def model(monkeypatch, tmp_path):
    module = types.SimpleNamespace(SentencePieceProcessor=Processor)
    monkeypatch.setitem(sys.modules, "sentencepiece", module)
    (tmp_path / "a.model").write_bytes(b"model")
    return tmp_path / "a.model"


def write_bin(folder, train, valid, dtype="<u2"):
    folder.mkdir()
    for name, tokens in (("train", train), ("val", valid)):
        np.asarray(tokens, dtype).tofile(folder / f"{name}.bin")


def test_files_of_nanogpt(tmp_path):
    write_bin(tmp_path / "shakespeare", range(300), [5, 256])
    data = load_token_files("shakespeare", tmp_path)
    train = data.splits["train"]["tokens"]
    assert isinstance(train, np.memmap) and train.dtype == np.uint16
    assert train.tolist() == list(range(300))
    assert data.num_classes == 300
    assert data.metadata["sizes"] == {"train": 300, "valid": 2}
    assert load_token_files("shakespeare", tmp_path / "shakespeare").sha256
    assert load_token_files("shakespeare", tmp_path, vocab_size=50257).num_classes > 300
    (tmp_path / "shakespeare" / "train.bin").unlink()
    only = load_token_files("shakespeare", tmp_path, splits=("valid",))
    assert set(only.splits) == {"valid"}
    with pytest.raises(FileNotFoundError, match=r"lacks train\.bin.*nanoGPT"):
        load_token_files("shakespeare", tmp_path)
    with pytest.raises(FileNotFoundError, match="python -m tasks data prepare"):
        load_token_files("mine", tmp_path)


def test_large_files_are_identified_by_blocks_spread_over_them(tmp_path, monkeypatch):
    monkeypatch.setattr(token_files, "_BLOCK", 8)
    monkeypatch.setattr(token_files, "_READ_WHOLE", 3)
    tokens = np.arange(100)
    hashes = set()
    for changed in (None, 0, 50, 99, 10):
        folder = tmp_path / str(changed)
        write_bin(folder, np.where(tokens == changed, 7777, tokens), [1])
        data = load_token_files(folder.name, tmp_path, vocab_size=7778)
        hashes.add(data.sha256["train"])
        assert load_token_files(folder.name, tmp_path).num_classes == (
            100 if changed is None else 7778
        )
    assert len(hashes) == 4  # Block 10 / 4 is not one of the first, middle and last.


def test_files_of_another_tokenizer(tmp_path):
    prepare("python_docs", tmp_path / "docs", "byte")
    assert load_token_files("docs", tmp_path, vocab_size=256).num_classes == 256
    message = r"meta\.json says that there are 256 tokens, and vocab_size is 50257"
    with pytest.raises(ValueError, match=message):
        load_token_files("docs", tmp_path, vocab_size=50257)


def test_the_length_of_a_large_file_identifies_it_too(tmp_path, monkeypatch):
    monkeypatch.setattr(token_files, "_BLOCK", 8)
    monkeypatch.setattr(token_files, "_READ_WHOLE", 3)
    write_bin(tmp_path / "a", [7] * 100, [7] * 200)
    hashes = load_token_files("a", tmp_path).sha256
    assert hashes["train"] != hashes["valid"]


def test_text_becomes_the_same_tokens_as_at_once(tmp_path, tiktoken, model):
    (tmp_path / "a.txt").write_bytes(TEXT.encode())
    cut = int(len(TEXT) * 0.9)
    parts = {"train": TEXT[:cut], "valid": TEXT[cut:]}
    for name in tokenizers.TOKENIZERS:
        options = {"sentencepiece_model": model} if name == "sentencepiece" else {}
        meta = prepare(str(tmp_path / "a.txt"), tmp_path / name, name, **options)
        tokenizer = make_tokenizer(
            name, characters="".join(sorted(set(TEXT))), **options
        )
        data = load_token_files(name, tmp_path)
        assert data.num_classes == tokenizer.vocab_size == meta["vocab_size"]
        assert data.sha256 == meta["sha256"]
        wide = tokenizer.vocab_size > 2**16
        for split, part in parts.items():
            got = data.splits[split]
            at_once = np.concatenate(list(encode_text(tokenizer, [part])))
            np.testing.assert_array_equal(got["tokens"], at_once)
            assert got["tokens"].dtype == (np.uint32 if wide else np.uint16)
            expected = len(part.encode()) / len(at_once)
            assert got["bytes_per_token"] == np.float32(expected)


def test_a_byte_pair_never_spans_a_cut(tiktoken):
    choice = random.Random(0).choice
    pieces = ["\n", " ", "\t", "\r\n", "\x1c", "\xa0", "\u2003", "a", "'s", "1", "!"]
    text = "".join(choice(pieces) for _ in range(20_000))
    tokenizer = make_tokenizer("gpt2")
    for size in (1, 7, 1000):
        blocks = [text[i : i + size] for i in range(0, len(text), size)]
        found = list(encode_text(tokenizer, blocks))
        assert len(found) > 10
        np.testing.assert_array_equal(np.concatenate(found), tiktoken(text))


def test_sentencepiece_reads_lines_and_ends_them(model):
    tokenizer = make_tokenizer("sentencepiece", sentencepiece_model=model)
    found = np.concatenate(list(encode_text(tokenizer, [" a", "b \n", "\n", "c"])))
    a, b, c = (3 + ord(x) for x in "abc")
    assert found.tolist() == [a, b, 1, c, 1]


def test_named_texts_and_gzip(tmp_path, tiktoken):
    folder = tmp_path / "wikitext2"
    folder.mkdir()
    for split in ("train", "valid", "test"):
        (folder / f"{split}.txt.gz").write_bytes(gzip.compress(split.encode()))
    prepare("wikitext2", tmp_path / "out", "byte", data_dir=tmp_path)
    splits = load_token_files("out", tmp_path).splits
    assert bytes(splits["train"]["tokens"].astype(np.uint8)) == b"train"
    assert bytes(splits["valid"]["tokens"].astype(np.uint8)) == b"valid"
    data = load_text("wikitext2", "gpt2", tmp_path)
    assert data.num_classes == 50257
    assert data.splits["train"]["tokens"].tolist() == tiktoken("train")


def test_a_folder_of_texts_and_one_to_validate_on(tmp_path):
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "2.txt").write_text("b")
    (texts / "1.txt.gz").write_bytes(gzip.compress(b"a"))
    (texts / "read.me").write_text("x")
    (tmp_path / "v.txt").write_text("c")
    meta = prepare(str(texts), tmp_path, "character", valid=tmp_path / "v.txt")
    assert meta["characters"] == "abc"
    splits = load_token_files(tmp_path.name, tmp_path).splits
    assert splits["train"]["tokens"].tolist() == [0, 1]
    assert splits["valid"]["tokens"].tolist() == [2]


def test_rows_are_lines_cropped_or_padded(tmp_path):
    (tmp_path / "a.txt").write_text("b\n\nabcd\na \n\nab")
    prepare(
        str(tmp_path / "a.txt"), tmp_path, "character", row_length=3, valid_fraction=0.5
    )
    data = load_token_files(tmp_path.name, tmp_path)
    characters = "\n abcd"
    a, b, c, _ = (characters.index(x) + 1 for x in "abcd")
    assert data.splits["train"]["tokens"].tolist() == [[b, 0, 0], [a, b, c]]
    assert data.splits["valid"]["tokens"].tolist() == [[a, 0, 0], [a, b, 0]]
    assert data.num_classes == len(characters) + 1
    assert data.metadata["sizes"] == {"train": 2, "valid": 2}


def test_files_are_not_replaced_unless_asked_for(tmp_path):
    (tmp_path / "a.txt").write_text("abc" * 9)
    prepare(str(tmp_path / "a.txt"), tmp_path, "byte")
    with pytest.raises(FileExistsError, match=r"val\.bin would be replaced"):
        prepare(str(tmp_path / "a.txt"), tmp_path, "character")
    assert load_token_files(tmp_path.name, tmp_path).num_classes == 256
    prepare(str(tmp_path / "a.txt"), tmp_path, "character", overwrite=True)
    assert load_token_files(tmp_path.name, tmp_path).num_classes == 3


def test_a_failure_writes_nothing(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("abc" * 9)

    def fail(tokenizer, blocks):
        yield np.array([1])
        raise KeyboardInterrupt

    monkeypatch.setattr("tasks.data.prepare.encode_text", fail)
    with pytest.raises(KeyboardInterrupt):
        prepare(str(tmp_path / "a.txt"), tmp_path / "out", "byte")
    assert not list((tmp_path / "out").iterdir())


def test_files_of_different_texts_are_never_found_together(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("abc" * 9)
    prepare(str(tmp_path / "a.txt"), tmp_path, "byte")
    replace = pathlib.Path.replace

    def killed(path, target):
        if path.name == "val.bin":
            raise KeyboardInterrupt
        return replace(path, target)

    monkeypatch.setattr(pathlib.Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare(str(tmp_path / "a.txt"), tmp_path, "character", overwrite=True)
    with pytest.raises(FileNotFoundError, match=r"lacks val\.bin"):
        load_token_files(tmp_path.name, tmp_path)


@pytest.mark.parametrize(
    ("tokenizer", "library"), [("gpt2", "tiktoken"), ("sentencepiece", "sentencepiece")]
)
def test_an_absent_library_names_its_extra(tmp_path, monkeypatch, tokenizer, library):
    monkeypatch.setitem(sys.modules, library, None)
    (tmp_path / "a").touch()
    model = tmp_path / "a" if tokenizer == "sentencepiece" else None
    message = rf"{library} is not installed: pip install 'mada-optax\[tokenizers\]'"
    with pytest.raises(ModuleNotFoundError, match=message):
        load_text("python_docs", tokenizer, sentencepiece_model=model)
    with pytest.raises(ModuleNotFoundError, match=message):
        prepare("python_docs", tmp_path, tokenizer, sentencepiece_model=model)


def test_the_vocabulary_of_gpt_2_that_cannot_be_downloaded(monkeypatch):
    def get_encoding(name):
        raise ConnectionError("no route to host")

    module = types.SimpleNamespace(get_encoding=get_encoding)
    monkeypatch.setitem(sys.modules, "tiktoken", module)
    with pytest.raises(FileNotFoundError, match=r"TIKTOKEN_CACHE_DIR .*no route"):
        make_tokenizer("gpt2")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "shakespear"}, "'shakespear' is no file, no folder and none of"),
        ({"tokenizer": "bytes"}, "unknown tokenizer 'bytes', did you mean 'byte'"),
        ({"tokenizer": "sentencepiece"}, "sentencepiece_model, the file of a trained"),
        ({"sentencepiece_model": "a.model"}, "got 'a.model' for 'byte'"),
        ({"valid_fraction": 1.0}, "valid_fraction must be at least 0 and less than 1"),
        ({"row_length": 1}, "row_length must be an integer >= 2, got 1"),
        ({"valid_fraction": 0.0}, "the split 'valid' is empty"),
    ],
)
def test_options_that_are_not_allowed(tmp_path, options, message):
    options = {"source": "python_docs", "tokenizer": "byte", **options}
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        prepare(out=tmp_path / "out", **options)
    assert not list(tmp_path.rglob("*.bin"))


def test_the_description_can_be_read_by_people(tmp_path):
    (tmp_path / "a.txt").write_text("né" * 9, encoding="utf-8")
    prepare(str(tmp_path / "a.txt"), tmp_path, "character")
    content = (tmp_path / "meta.json").read_text(encoding="utf-8")
    assert '"characters": "né"' in content
    assert json.loads(content)["tokens"] == {"train": 16, "valid": 2}
