import codecs
import gzip
import pickle
import struct

import numpy as np
import pytest

from tasks.data.readers import read_cifar, read_idx, read_npz, read_text

RNG = np.random.default_rng(0)


def images(*shape):
    return RNG.integers(0, 256, shape).astype(np.uint8)


def idx(array):
    shape = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, 8, array.ndim]) + shape + array.tobytes()


def python_2_batch(data, labels):
    """The bytes that Python 2 and NumPy 1 wrote, as in the official CIFAR-10 files."""
    rows, columns = data.shape
    return (
        b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\n"
        b"cnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
        + b"J" + struct.pack("<i", rows) + b"J" + struct.pack("<i", columns)
        + b"\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN"
        + b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        + b"T" + struct.pack("<i", data.size) + data.tobytes()
        + b"tbU\x06labels](" + b"".join(b"K" + bytes([y]) for y in labels) + b"eu."
    )  # fmt: skip


@pytest.mark.parametrize("shape", [(5, 4, 3), (5, 4, 3, 2)])
def test_npz(tmp_path, shape):
    x, y = images(*shape), np.arange(5, dtype=np.uint8)
    np.savez_compressed(tmp_path / "a.npz", x=x, y=y)
    image, label = read_npz(tmp_path / "a.npz")
    np.testing.assert_array_equal(image, x if x.ndim == 4 else x[..., None])
    np.testing.assert_array_equal(label, y)
    assert label.dtype == np.int32


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": images(5, 4, 3)}, "y"),
        ({"x": images(5, 12), "y": np.arange(5)}, r"uint8 of shape \(5, 12\)"),
        ({"x": np.zeros((5, 4, 3)), "y": np.arange(5)}, "uint8.*float64"),
        ({"x": images(5, 4, 3), "y": np.arange(6)}, r"shape \(5,\).*\(6,\)"),
        ({"x": images(5, 4, 3), "y": np.ones(5)}, "labels must be integers"),
        ({"x": np.array([print], object), "y": np.arange(1)}, "allow_pickle=False"),
    ],
)
def test_wrong_npz(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=rf"a\.npz is not a valid .*{message}"):
        read_npz(tmp_path / "a.npz")


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 not a zip"])
def test_corrupt_npz(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npz is not a valid"):
        read_npz(tmp_path / "a.npz")


def test_truncated_npz(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=images(5, 4, 3), y=np.arange(5))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"a\.npz is not a valid"):
        read_npz(path)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx(tmp_path, suffix):
    x, y = images(5, 4, 3), np.arange(5, dtype=np.uint8)
    compress = gzip.compress if suffix else bytes
    paths = [tmp_path / f"x-idx3-ubyte{suffix}", tmp_path / f"y-idx1-ubyte{suffix}"]
    for path, array in zip(paths, (x, y), strict=True):
        path.write_bytes(compress(idx(array)))
    image, label = read_idx(*paths)
    np.testing.assert_array_equal(image, x[..., None])
    np.testing.assert_array_equal(label, y)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "starts with b''"),
        (b"\0\0\x0d\x01\0\0\0\x05" + bytes(20), "starts with"),
        (idx(images(5, 4, 3))[:-1], "60 bytes; 59 follow"),
        (idx(images(5, 4, 3)) + b"\0", "60 bytes; 61 follow"),
        (b"\0\0\x08\x03\0\0", "x-idx is not a valid IDX file"),
    ],
)
def test_wrong_idx(tmp_path, content, message):
    (tmp_path / "x-idx").write_bytes(content)
    (tmp_path / "y-idx").write_bytes(idx(np.arange(5, dtype=np.uint8)))
    with pytest.raises(ValueError, match=message):
        read_idx(tmp_path / "x-idx", tmp_path / "y-idx")


def test_idx_pair_that_does_not_match(tmp_path):
    (tmp_path / "x-idx").write_bytes(idx(images(5, 4, 3)))
    (tmp_path / "y-idx").write_bytes(idx(np.arange(4, dtype=np.uint8)))
    with pytest.raises(ValueError, match=r"x-idx is not a valid match for y-idx"):
        read_idx(tmp_path / "x-idx", tmp_path / "y-idx")


@pytest.mark.parametrize(
    "damage",
    [lambda b: b[:-20], lambda b: b[:40] + b"\xff\xff" + b[42:], lambda b: b[2:]],
    ids=["truncated", "flipped", "headless"],
)
def test_corrupt_gzip(tmp_path, damage):
    content = gzip.compress(idx(images(5, 4, 3)))
    (tmp_path / "x.gz").write_bytes(damage(content))
    with pytest.raises(ValueError, match=r"x\.gz is not a valid gzip file"):
        read_idx(tmp_path / "x.gz", tmp_path / "y.gz")


@pytest.mark.parametrize("protocol", ["python 2", 2, 4, 5])
def test_cifar(tmp_path, protocol):
    data, labels = images(3, 3072), [7, 0, 9]
    batch = {b"data": data, b"labels": labels, b"batch_label": b"x"}
    content = (
        python_2_batch(data, labels)
        if protocol == "python 2"
        else pickle.dumps(batch, protocol)
    )
    (tmp_path / "data_batch_1").write_bytes(content)
    image, label = read_cifar(tmp_path / "data_batch_1")
    assert image.shape == (3, 32, 32, 3)
    assert label.tolist() == labels
    # Row-major planes of red, green and blue.
    assert image[1, 2, 3, 1] == data[1, 1024 + 2 * 32 + 3]


class Call:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_malicious_cifar_is_refused_and_not_run(tmp_path, protocol):
    marker, path = tmp_path / "marker", tmp_path / "data_batch_1"
    attack = Call(exec, f"open({str(marker)!r}, 'w').close()")
    path.write_bytes(pickle.dumps([attack], protocol))
    with pytest.raises(ValueError, match=r"data_batch_1 .*refused to load .*exec"):
        read_cifar(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "function",
    [np.load, np.fromfile, getattr, pickle.loads, codecs.decode, codecs.lookup],
)
def test_other_functions_are_refused_too(tmp_path, function):
    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps({b"data": Call(function)}))
    with pytest.raises(ValueError, match="refused to load"):
        read_cifar(path)


def test_bytes_are_only_encoded_in_latin_1(tmp_path):
    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps(Call(codecs.encode, "x" * 99, "punycode")))
    with pytest.raises(ValueError, match=r"refused to encode in 'punycode'"):
        read_cifar(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        pickle.dumps([1]),
        pickle.dumps({b"data": images(3, 3072)}, 4),
        pickle.dumps({b"data": images(3, 30), b"labels": [1, 2, 3]}, 4),
        pickle.dumps({b"data": images(3, 3072), b"labels": [1, 2]}, 4),
        pickle.dumps({b"data": images(3, 3072), b"labels": [1, 2, 3]}, 4)[:-500],
    ],
)
def test_corrupt_cifar(tmp_path, content):
    (tmp_path / "data_batch_1").write_bytes(content)
    with pytest.raises(ValueError, match=r"data_batch_1 is not a valid CIFAR-10 batch"):
        read_cifar(tmp_path / "data_batch_1")


def test_text_is_read_as_it_is(tmp_path):
    text = "Zwölf\r\n Boxkämpfer \n\n"
    (tmp_path / "a.txt").write_bytes(text.encode())
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(text.encode()))
    assert read_text(tmp_path / "a.txt") == text
    assert read_text(tmp_path / "a.txt.gz") == text


def test_text_that_is_not_utf_8(tmp_path):
    (tmp_path / "a.txt").write_bytes("Zwölf".encode("latin-1"))
    with pytest.raises(ValueError, match=r"a\.txt is not a valid UTF-8 text"):
        read_text(tmp_path / "a.txt")


def test_a_missing_file_stays_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "a.txt")
    with pytest.raises(FileNotFoundError):
        read_npz(tmp_path / "a.npz")
