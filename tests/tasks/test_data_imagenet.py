"""Down-sampled ImageNet, from tiny archives in the published format."""

import hashlib

import numpy as np
import pytest

from tasks.data import imagenet, load_imagenet, load_images

RNG = np.random.default_rng(0)
ROWS, NUM_VALID = 3, 7


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in ("MADA_DATA_DIR", "TFDS_DATA_DIR", "MADA_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(imagenet, "_BLOCK", 2)


def batch(rows, size):
    data = RNG.integers(0, 256, (rows, 3 * size * size)).astype(np.uint8)
    return {"data": data, "labels": RNG.integers(1, 1001, rows)}


def write(root, size=32, save=np.savez_compressed):
    folder = root / f"imagenet{size}"
    folder.mkdir(parents=True)
    names = [f"train_data_batch_{i}.npz" for i in range(1, 11)]
    batches = {name: batch(ROWS, size) for name in names}
    batches["val_data.npz"] = batch(NUM_VALID, size)
    for name, arrays in batches.items():
        save(folder / name, mean=np.zeros(3), **arrays)
    return batches


def images(arrays, size):
    planes = arrays["data"].reshape(-1, 3, size, size)
    return planes.transpose(0, 2, 3, 1), arrays["labels"].astype(np.int32) - 1


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("size", [32, 64])
def test_batches_become_mapped_images(tmp_path, size, save):
    batches = write(tmp_path, size, save)
    data = load_imagenet(tmp_path, size)
    assert (data.name, data.num_classes) == (f"imagenet{size}", 1000)
    assert data.metadata["sizes"] == {"train": 10 * ROWS, "valid": NUM_VALID}
    parts = {"train": list(batches.values())[:-1], "valid": [batches["val_data.npz"]]}
    for split, arrays in parts.items():
        pairs = [images(a, size) for a in arrays]
        image, label = map(np.concatenate, zip(*pairs, strict=True))
        np.testing.assert_array_equal(data.splits[split]["image"], image)
        np.testing.assert_array_equal(data.splits[split]["label"], label)
        content = image.tobytes() + label.astype("<i4").tobytes()
        assert data.sha256[split] == hashlib.sha256(content).hexdigest()
    assert isinstance(data.splits["train"]["image"], np.memmap)
    assert data.splits["train"]["label"].dtype == np.int32


def test_the_arrays_are_written_once_and_the_archives_not_needed_any_more(tmp_path):
    write(tmp_path)
    first = load_imagenet(tmp_path)
    path = tmp_path / "imagenet32" / "arrays" / "train_image.npy"
    written = path.stat().st_mtime_ns
    assert load_imagenet(tmp_path).sha256 == first.sha256
    assert path.stat().st_mtime_ns == written
    for archive in (tmp_path / "imagenet32").glob("*.npz"):
        archive.unlink()
    assert load_imagenet(tmp_path).metadata == first.metadata


def test_other_archives_are_read_again(tmp_path):
    write(tmp_path)
    first = load_imagenet(tmp_path)
    arrays = batch(ROWS + 1, 32)
    np.savez(tmp_path / "imagenet32" / "train_data_batch_4.npz", **arrays)
    second = load_imagenet(tmp_path)
    assert second.metadata["sizes"]["train"] == 10 * ROWS + 1
    assert second.sha256["train"] != first.sha256["train"]
    assert second.sha256["valid"] == first.sha256["valid"]


def test_two_processes_at_once_write_the_same(tmp_path, monkeypatch):
    write(tmp_path)
    write_split, others = imagenet._write_split, []

    def slower(*arguments):
        if not others:
            others.append(None)
            others.append(load_imagenet(tmp_path))
        return write_split(*arguments)

    monkeypatch.setattr(imagenet, "_write_split", slower)
    assert load_imagenet(tmp_path).metadata == others[1].metadata
    assert [p.name for p in (tmp_path / "imagenet32").glob("*arrays*")] == ["arrays"]


def test_validation_images_are_spread(tmp_path):
    batches = write(tmp_path)
    image, _ = images(batches["val_data.npz"], 32)
    few = load_imagenet(tmp_path, num_valid=3).splits["valid"]["image"]
    np.testing.assert_array_equal(few, image[[0, 3, 6]])


def test_the_cache_can_be_elsewhere(tmp_path, monkeypatch):
    write(tmp_path / "data")
    monkeypatch.setenv("MADA_CACHE_DIR", str(tmp_path / "cache"))
    first = load_imagenet(tmp_path / "data")
    assert not (tmp_path / "data" / "imagenet32" / "arrays").exists()
    assert load_imagenet(tmp_path / "cache").sha256 == first.sha256


def test_a_folder_that_cannot_be_written_to(tmp_path, monkeypatch):
    write(tmp_path / "data")
    (tmp_path / "file").touch()
    monkeypatch.setenv("MADA_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(OSError, match="Set MADA_CACHE_DIR to a folder that can"):
        load_imagenet(tmp_path / "data")


def test_a_failure_leaves_nothing_behind(tmp_path):
    write(tmp_path)
    folder = tmp_path / "imagenet32"
    np.savez(folder / "val_data.npz", data=np.zeros((2, 3072), np.uint8))
    before = sorted(folder.rglob("*"))
    with pytest.raises(ValueError, match=r"val_data\.npz"):
        load_imagenet(tmp_path)
    assert sorted(folder.rglob("*")) == before


def test_what_is_missing_and_where_to_get_it(tmp_path):
    write(tmp_path)
    (tmp_path / "imagenet32" / "train_data_batch_7.npz").unlink()
    with pytest.raises(FileNotFoundError) as error:
        load_imagenet(tmp_path)
    assert "imagenet32 lacks train_data_batch_7.npz" in str(error.value)
    assert "image-net.org" in str(error.value)
    with pytest.raises(ValueError, match="resolution must be 32 or 64, got 16"):
        load_imagenet(tmp_path, 16)


def test_an_image_array_that_was_cut_off(tmp_path):
    write(tmp_path)
    load_imagenet(tmp_path)
    path = tmp_path / "imagenet32" / "arrays" / "train_image.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"train_image\.npy is not a valid array"):
        load_imagenet(tmp_path)


def test_tiny_imagenet_has_its_own_validation_images(tmp_path):
    (tmp_path / "tiny_imagenet32").mkdir()
    for name, rows in (("train", 200), ("val", 100)):
        x = RNG.integers(0, 256, (rows, 32, 32, 3)).astype(np.uint8)
        y = np.arange(rows) % 100
        np.savez(tmp_path / "tiny_imagenet32" / f"{name}.npz", x=x, y=y)
    data = load_images("tiny_imagenet32", tmp_path)
    assert (data.num_classes, set(data.splits)) == (100, {"train", "valid"})
    assert data.splits["valid"]["label"].tolist() == list(range(100))
