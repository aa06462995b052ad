"""What is no whole file of a learned optimizer is refused, and said to be so."""

import io
import json
import pathlib
import pickle
import struct
import tempfile
import tracemalloc
import warnings
import zipfile

import chex
import hypothesis
import jax
import msgpack
import numpy as np
import published_files as files
import pytest
from flax import serialization
from hypothesis import strategies as st

import lopt
from lopt import weights
from lopt.pretrained import container

MULO = files.mulo_tensors(files.small_fc(4))


def safetensors_of(tmp_path, tensors):
    return files.write(tmp_path / "model.safetensors", tensors)


def without(tensors, name):
    return {k: v for k, v in tensors.items() if k != name}


W, B = "network.input.weight", "network.output.bias"


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (without(MULO, B), rf"'{B}' is missing, expected \(2,\)"),
        ({**MULO, "extra": np.ones(3, np.float32)}, r"'extra', found \(3,\), is unkn"),
        (
            {**MULO, W: np.ones((4, 38), np.float32)},
            rf"'{W}' has shape \(4, 38\), expected \(4, 39\)",
        ),
        (
            {**MULO, W: np.ones((5, 39), np.float32)},
            rf"'{W}' has shape \(5, 39\), expected \(4, 39\)",
        ),
        ({**MULO, W: MULO[W].T}, r"has shape \(39, 4\), expected \(4, 39\)"),
        ({**MULO, B: np.ones(2, np.float16)}, rf"'{B}' has dtype F16, expected F32"),
        ({**MULO, B: np.float32([1, np.nan])}, rf"'{B}' has 1 entries .* not finite"),
        ({"a.weight": np.ones(3, np.float32)}, r"knows: its arrays are 'a.weight'"),
        ({}, "its arrays are none at all"),
        (
            files.velo_rnn_tensors(files.velo()),
            r"one of two parts: .* VeLO_MLP/model\.safetensors and VeLO_RNN",
        ),
        (
            {**MULO, **files.celo2_tensors(files.celo2())},
            r"no celo2 in the PyTorch layout .* 'network.input.bias', .*; and 3 more",
        ),
    ],
)
def test_wrong_tensors_are_named(tmp_path, tensors, message):
    path = safetensors_of(tmp_path, tensors)
    with pytest.raises(ValueError, match=message) as error:
        lopt.load_pretrained(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def velo_with(**changed):
    tree = files.velo()
    return {**tree, "rnn_params": {**tree["rnn_params"], **changed}}


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (
            velo_with(linear={"w": np.ones((30, 8)), "b": np.ones(8, np.float32)}),
            "'rnn_params/linear/w' has dtype float64, expected float32",
        ),
        (
            velo_with(
                linear={"w": np.ones((30, 9), np.float32), "b": np.ones(9, np.float32)}
            ),
            r"'rnn_params/linear/b' has shape \(9,\), expected \(8,\); "
            r"'rnn_params/linear/w' has shape \(30, 9\), expected \(30, 8\)",
        ),
        (
            velo_with(**{"rnn/linear": {"w": np.ones((16, 31), np.float32)}}),
            r"'rnn_params/rnn/linear/b' is missing, expected \(32,\)",
        ),
        (velo_with(linear=1.0), "'rnn_params/linear' is a float, expected an array"),
        ({**files.velo(), "x": [1]}, "'x' is a list, expected an array"),
        ({**files.velo(), 3: np.ones(3)}, "the key 3 is a int, not a string"),
        (
            {"nn": {"~": {"w0": np.ones(3)}, "w0": np.ones(3)}},
            "'nn/w0' is there twice",
        ),
    ],
)
def test_wrong_trees_are_named(tmp_path, tree, message):
    path = tmp_path / "theta.state"
    path.write_bytes(serialization.msgpack_serialize(tree, in_place=True))
    with pytest.raises(ValueError, match=message):
        lopt.load_pretrained(path)


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("unpickled",)


def pickled(protocol):
    return pickle.dumps({"w": Bomb()}, protocol)


def torch_zip():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickled(2))
    return file.getvalue()


def npz_of_objects():
    file = io.BytesIO()
    header = np.array("{}")
    np.savez(file, header=header, x=np.array([Bomb()], object), allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [*map(pickled, range(6)), torch_zip(), npz_of_objects()],
    ids=[*(f"protocol{i}" for i in range(6)), "torch", "npz"],
)
@pytest.mark.parametrize("name", ["theta.state", "model.safetensors", "x.npz", "x"])
def test_pickles_are_never_read(tmp_path, data, name):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match="holds pickles, which run code"):
        lopt.load_pretrained(tmp_path / name)


def test_strange_files(tmp_path):
    path = tmp_path / "model.safetensors"
    for data, message in (
        (b"", r"is damaged, or no file of meta-parameters: its 0 bytes"),
        (b'{"hidden_size": 32}', r"begin with b'\{\"hidden"),
        (b"version https://git-lfs.github.com/spec/v1\n", "'git lfs pull'"),
    ):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=message):
            lopt.load_pretrained(path)


def claims():
    """Small files that say that they are large, by format."""
    length = 2**25
    entry = {"dtype": "F32", "shape": [length], "data_offsets": [0, 4 * length]}
    header = json.dumps({"x": entry}).encode()
    npy, npz = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(
        npy, {"descr": "<f4", "fortran_order": False, "shape": (length,)}
    )
    with zipfile.ZipFile(npz, "w") as archive:
        archive.writestr("x.npy", npy.getvalue())
    lists = b"\xdd\x00\x01\x00\x00" * 400 + b"\0" * 2**16
    return {
        "lists": b"\x81\xa1x" + lists,
        "lists in an array": msgpack.packb({"x": msgpack.ExtType(1, lists)}),
        "safetensors": struct.pack("<Q", len(header)) + header,
        "header": struct.pack("<Q", 2**31) + b"{",
        "npz": npz.getvalue(),
    }


@pytest.mark.parametrize("case", claims())
def test_huge_claims_allocate_nothing(tmp_path, case):
    path = tmp_path / "x"
    path.write_bytes(claims()[case])
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="is damaged"):
            lopt.load_pretrained(path)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


def test_large_files_are_not_opened(tmp_path, monkeypatch):
    path = safetensors_of(tmp_path, MULO)
    monkeypatch.setattr(container, "MOST_BYTES", path.stat().st_size - 1)
    with pytest.raises(ValueError, match="bytes: it holds no learned optimizer"):
        lopt.load_pretrained(path)


def test_headers_of_other_versions_and_contents(tmp_path):
    path = tmp_path / "mine.safetensors"
    theta = lopt.small_fc(hidden_size=4).init(jax.random.key(0))
    lopt.save_pretrained(path, theta)
    whole = path.read_bytes()
    for old, new, message in (
        (rb"\"format\": 1", rb"\"format\": 2", "has format 2, but this .* format 1"),
        (rb"\"format\": 1", rb"\"farmat\": 1", "or not a file of lopt.save_pre"),
        (b"[0.0]", b"[0.5]", "was changed after it was saved"),
    ):
        assert old in whole
        path.write_bytes(whole.replace(old, new))
        with pytest.raises(ValueError, match=message):
            lopt.load_pretrained(path)


def test_headers_must_complete_theta(tmp_path):
    """Also where the hash is right, because somebody wrote it by hand."""
    nn = {f"nn/{name}": array for name, array in files.small_fc(4).items()}
    for header, message in (
        ({"sha256": weights._digest(nn)}, "'momentum_decays' is missing"),
        ({"sha256": weights._digest(nn), "theta": 3}, "or not a file of lopt.save"),
        ({"sha256": []}, "or not a file of lopt.save"),
    ):
        text = json.dumps({"format": 1, "metadata": {}, **header})
        path = tmp_path / "x.safetensors"
        path.write_bytes(container.pack_safetensors(MULO, text))
        with pytest.raises(ValueError, match=message):
            lopt.load_pretrained(path)
    for text in ("[]", "{}", "3", '{"format": 1, "sha256": "", "metadata": [1]}', "{"):
        (tmp_path / "x.npz").write_bytes(container.pack_npz(nn, text))
        with pytest.raises(ValueError, match=r"or not a file of lopt.save"):
            lopt.load_pretrained(tmp_path / "x.npz")


@pytest.fixture(scope="module")
def whole_files():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        theta = lopt.small_fc(hidden_size=2).init(jax.random.key(0))
        lopt.save_pretrained(folder / "a.npz", theta, {"seed": 1})
        lopt.save_pretrained(folder / "b.safetensors", theta, {"seed": 1})
        safetensors_of(folder, MULO)
        files.write(folder / "theta.state", files.with_tilde(files.celo2()))
        yield [path.read_bytes() for path in sorted(folder.iterdir())]


def outcome(data):
    """What reading bytes gives: an error, or the numbers in them."""
    with tempfile.NamedTemporaryFile() as file, warnings.catch_warnings():
        warnings.simplefilter("error")
        file.write(data)
        file.flush()
        return lopt.load_pretrained(pathlib.Path(file.name)).theta


@hypothesis.settings(max_examples=150, deadline=None, derandomize=True)
@hypothesis.given(which=st.integers(0, 3), cut=st.floats(0, 1, exclude_max=True))
def test_every_truncation_is_refused(whole_files, which, cut):
    data = whole_files[which]
    with pytest.raises(ValueError, match=r"^'"):
        outcome(data[: int(cut * len(data))])


@hypothesis.settings(max_examples=300, deadline=None, derandomize=True)
@hypothesis.given(
    which=st.integers(0, 3),
    edits=st.lists(
        st.tuples(st.integers(0, 2**16), st.binary(min_size=1, max_size=6)),
        min_size=1,
        max_size=4,
    ),
)
def test_damage_is_an_error_or_another_number(whole_files, which, edits):
    data = bytearray(whole_files[which])
    for place, new in edits:
        # Half of the edits hit the part that says what the rest is.
        start = place % (len(data) if place % 2 else 400)
        data[start : start + len(new)] = new
    try:
        theta = outcome(bytes(data))
    except ValueError as error:
        assert str(error).startswith("'")
    else:
        for leaf in jax.tree.leaves(theta):
            assert leaf.dtype == np.float32
            assert np.isfinite(leaf).all()
        if which < 2:  # A hash vouches for what is ours.
            chex.assert_trees_all_equal(theta, outcome(whole_files[which]))


@hypothesis.settings(max_examples=100, deadline=None, derandomize=True)
@hypothesis.given(
    data=st.binary(max_size=300), start=st.sampled_from([b"", b"\x81", b"PK\3\4"])
)
def test_noise_is_refused(data, start):
    with pytest.raises(ValueError, match=r"^'"):
        outcome(start + data)
