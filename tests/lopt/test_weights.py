"""Files of theta: what was saved is what is read, and whatever else is said."""

import importlib.resources
import io
import json
import zipfile

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lopt

ARCHITECTURE = lopt.small_fc("sp", hidden_size=4, exp_multiplier=0.5)
PARAMS = {"w": jnp.ones((3, 2)), "b": jnp.ones(2)}


@pytest.fixture
def theta():
    return ARCHITECTURE.init(jax.random.key(3))


@pytest.fixture
def path(tmp_path, theta):
    path = tmp_path / "mine.npz"
    lopt.save_pretrained(path, theta, {"architecture": ARCHITECTURE, "seed": 3})
    return path


def rewritten(path, **changed):
    """The file with other entries, but the old header unless one is given."""
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **{**arrays, **changed})


def header(path, **changed):
    with np.load(path) as file:
        text = json.loads(str(file["header"]))
    return np.array(json.dumps({**text, **changed}))


def test_round_trip(path, theta):
    loaded = lopt.load_pretrained(path)
    chex.assert_trees_all_equal(loaded.theta, jax.device_get(theta))
    assert loaded.metadata["seed"] == 3
    assert loaded.metadata["architecture"]["hidden_size"] == 4
    assert [x.name for x in path.parent.iterdir()] == ["mine.npz"]


@pytest.mark.parametrize("given", [str, lambda path: path])
def test_mulo_is_the_architecture_it_was_trained_with(path, theta, given):
    ours = lopt.mulo(given(path), width_multipliers={"w": 3.0, "b": 1.0})
    same = ARCHITECTURE.transform(theta, width_multipliers={"w": 3.0, "b": 1.0})
    got, _ = ours.update(PARAMS, ours.init(PARAMS), PARAMS)
    expected, _ = same.update(PARAMS, same.init(PARAMS), PARAMS)
    chex.assert_trees_all_equal(got, expected)


def test_mulo_takes_options(path):
    broken = {"w": PARAMS["w"].at[0, 0].set(jnp.nan), "b": PARAMS["b"]}
    for option, finite in ((None, False), (True, True)):
        tx = lopt.mulo(path, nan_to_zero=option)
        updates, _ = tx.update(broken, tx.init(PARAMS), PARAMS)
        assert bool(jnp.isfinite(updates["w"]).all()) == finite


@pytest.mark.parametrize("name", ["mulo_xxl", "../mine"])
def test_unknown_names(name, tmp_path, monkeypatch):
    (tmp_path / "pretrained").mkdir()
    (tmp_path / "pretrained" / "ours.npz").touch()
    monkeypatch.setattr(importlib.resources, "files", lambda _: tmp_path)
    with pytest.raises(ValueError, match=rf"'{name}', which does not exist.*'ours'"):
        lopt.mulo(name)


def test_missing_files(tmp_path):
    with pytest.raises(ValueError, match=r"there is no file .*none.npz"):
        lopt.load_pretrained(tmp_path / "none.npz")


def test_damaged_files_are_called_so(path):
    whole = path.read_bytes()
    for cut in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"mine.npz' is damaged"):
            lopt.load_pretrained(path)
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        start = archive.getinfo("nn/w0.npy").header_offset
    flipped = bytearray(whole)
    flipped[start + 300] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(ValueError, match="is damaged"):
        lopt.load_pretrained(path)


def test_other_files_are_refused(path):
    np.savez(path, x=np.ones(3))
    with pytest.raises(ValueError, match=r"or not a file of lopt.save_pretrained"):
        lopt.load_pretrained(path)


def test_changed_theta_is_seen(path):
    rewritten(path, rms_decays=np.float32([0.5]))
    with pytest.raises(ValueError, match="changed after it was saved"):
        lopt.load_pretrained(path)


def test_other_formats_are_refused(path):
    rewritten(path, header=header(path, format=2))
    with pytest.raises(ValueError, match=r"has format 2, but this version .* format 1"):
        lopt.load_pretrained(path)


def test_other_architectures_are_refused(tmp_path, theta):
    path = tmp_path / "other.npz"
    lopt.save_pretrained(path, theta, {"architecture": {"lstm_size": 16}})
    with pytest.raises(ValueError, match=r"of another architecture .*lstm_size"):
        lopt.mulo(path)
    lopt.save_pretrained(path, theta, {"architecture": lopt.small_fc(hidden_size=5)})
    with pytest.raises(
        ValueError, match=r"\['nn'\]\['w0'\] is \(39, 4\), not \(39, 5\)"
    ):
        lopt.mulo(path)


def test_what_cannot_be_saved(tmp_path, theta):
    path = tmp_path / "x.npz"
    with pytest.raises(ValueError, match=r"must end in '\.npz'"):
        lopt.save_pretrained(tmp_path / "x", theta)
    with pytest.raises(ValueError, match=r"rms_decays.* not finite"):
        lopt.save_pretrained(path, {**theta, "rms_decays": jnp.array([jnp.nan])})
    with pytest.raises(ValueError, match="nested dict"):
        lopt.save_pretrained(path, [theta])
    with pytest.raises(ValueError, match=r"metadata is not for JSON.*set"):
        lopt.save_pretrained(path, theta, {"x": {1}})
    assert not list(tmp_path.iterdir())
