"""Every published layout is read, checked, and written as it was."""

import pathlib

import jax
import numpy as np
import published_files as files
import pytest

import lopt
from lopt.pretrained import container, layout

GOLDEN = pathlib.Path(__file__).parent.parent / "golden" / "mulo"
DECAYS = ("momentum_decays", "rms_decays", "adafactor_decays")
MULO_OFFSETS = {
    "momentum_decays": [0.15216392, 0.14245212, 0.06812963],
    "rms_decays": [0.01079706],
    "adafactor_decays": [0.18621896, -0.10864615, -0.06185547],
}


OFFSETS = {name: np.float32(values) for name, values in MULO_OFFSETS.items()}


def write_small_fc(folder):
    path = folder / "model.safetensors"
    return files.write(path, files.mulo_tensors(files.small_fc()))


def write_velo(folder, tree=None, **options):
    tree = files.velo() if tree is None else tree
    rnn, mlp = files.velo_rnn_tensors(tree), files.velo_mlp_tensors(tree, **options)
    files.write(folder / "VeLO_RNN" / "model.safetensors", rnn)
    files.write(folder / "VeLO_MLP" / "model.safetensors", mlp)
    return folder


def canonical(tree):
    """Google's tree without the key that has a slash."""
    rnn = {k: v for k, v in tree.get("rnn_params", {}).items() if k != "rnn/linear"}
    if rnn:
        rnn["rnn"] = {"linear": tree["rnn_params"]["rnn/linear"]}
        return {**tree, "rnn_params": rnn}
    return tree


def assert_same(found, expected):
    """Bit for bit."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == np.float32
        np.testing.assert_array_equal(a, b)


def test_mulo_in_pytorch(tmp_path):
    theta, metadata = lopt.load_pretrained(write_small_fc(tmp_path))
    assert_same(theta["nn"], files.small_fc())
    for name in DECAYS:
        np.testing.assert_array_equal(theta[name], OFFSETS[name])
        assert metadata["decay_offsets"][name] == pytest.approx(MULO_OFFSETS[name])
    decays = metadata["decays"]
    assert decays["momentum_decays"] == pytest.approx([0.5420274, 0.9584413, 0.9980236])
    assert decays["rms_decays"] == pytest.approx([0.998886])
    assert decays["adafactor_decays"] == pytest.approx(
        [0.3562182, 0.9966259, 0.9994613]
    )
    assert metadata["architecture"] == {
        "kind": "small_fc",
        "parametrization": "mup",
        "hidden_size": 32,
    }
    assert metadata["num_parameters"] == 2402
    assert metadata["undecided"] == ["mulo", "elo"]
    assert any("offsets of the decays" in text for text in metadata["assumed"])


def test_elo_has_no_offsets_and_must_be_named(tmp_path):
    path = write_small_fc(tmp_path)
    theta, metadata = lopt.load_pretrained(path, variant="elo")
    assert not any(theta[name].any() for name in DECAYS)
    assert metadata["architecture"]["step_multiplier"] == 1
    assert "undecided" not in metadata
    with pytest.raises(ValueError, match=r"variant is 'velo'.* allowed are 'mulo'"):
        lopt.load_pretrained(path, variant="velo")


@pytest.mark.parametrize("active", [True, False])
def test_velo_in_pytorch(tmp_path, active):
    theta, metadata = lopt.load_pretrained(write_velo(tmp_path, active=active))
    assert_same(theta, canonical(files.velo()))
    assert metadata["sizes"] == {"hidden_size": 8, "bank_size": 4}
    assert metadata["num_parameters"] == sum(x.size for x in jax.tree.leaves(theta))
    assert set(metadata["sha256"]) == {
        "VeLO_MLP/model.safetensors",
        "VeLO_RNN/model.safetensors",
    }


def test_two_halves_in_one_folder(tmp_path):
    files.write(tmp_path / "a.safetensors", files.velo_mlp_tensors(files.velo()))
    files.write(tmp_path / "b.safetensors", files.velo_rnn_tensors(files.velo()))
    assert_same(lopt.load_pretrained(tmp_path).theta, canonical(files.velo()))


def test_celo2_in_pytorch(tmp_path):
    path = files.write(tmp_path / "x.safetensors", files.celo2_tensors(files.celo2()))
    theta, metadata = lopt.load_pretrained(path)
    assert_same(theta, files.celo2())
    assert (metadata["kind"], metadata["num_parameters"]) == ("celo2", 347)


@pytest.mark.parametrize("tilde", [True, False])
@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize(
    ("kind", "tree"),
    [
        ("velo", files.velo()),
        ("celo", files.celo(8)),
        ("learned_schedule", files.celo_adam(8)),
        ("celo2", files.celo2()),
        (
            "small_fc",
            {
                "nn": files.small_fc(8),
                **{k: np.float32(MULO_OFFSETS[k]) for k in DECAYS},
            },
        ),
    ],
)
def test_trees_of_google(tmp_path, kind, tree, wrapped, tilde):
    content = files.with_tilde(tree) if tilde else tree
    content = {"params": content, "gen_id": "g", "step": 7} if wrapped else content
    path = files.write(tmp_path / "theta.state", content)
    theta, metadata = lopt.load_pretrained(path)
    assert_same(theta, canonical(tree))
    assert metadata["kind"] == kind
    assert metadata.get("step") == (7 if wrapped else None)


def test_the_checkpoint_of_the_recorded_velo(tmp_path):
    path = GOLDEN / "velo_small.params.msgpack"
    theta, metadata = lopt.load_pretrained(path)
    with np.load(GOLDEN / "velo_small.npz") as record:
        recorded = {k: record[k] for k in record.files if k.startswith("theta/")}
    for name, expected in recorded.items():
        leaf = theta
        for key in name.removeprefix("theta/").replace("::", "/").split("/"):
            leaf = leaf if key == "~" else leaf[key]
        np.testing.assert_array_equal(leaf, expected)
    assert len(recorded) == len(jax.tree.leaves(theta))
    lopt.save_pretrained(tmp_path / "again.state", theta, metadata)
    assert (tmp_path / "again.state").read_bytes() == path.read_bytes()


@pytest.fixture(scope="module")
def whole_velo():
    return files.velo(512, 256)


@pytest.mark.parametrize(
    ("make", "size"),
    [(files.celo2, 1_833), (files.celo, 149_216), (files.celo_adam, 147_803)],
)
def test_written_trees_have_the_published_size(tmp_path, make, size):
    lopt.save_pretrained(tmp_path / "theta.state", canonical(make()))
    assert (tmp_path / "theta.state").stat().st_size == size


def test_written_velo_has_the_published_size(tmp_path, whole_velo):
    lopt.save_pretrained(tmp_path / "theta.state", canonical(whole_velo))
    assert (tmp_path / "theta.state").stat().st_size == 9_282_507
    metadata = {"gen_id": "0" * 32, "step": 300}
    lopt.save_pretrained(tmp_path / "params.state", canonical(whole_velo), metadata)
    assert (tmp_path / "params.state").stat().st_size == 9_282_564


def test_written_tensors_have_the_published_size(whole_velo):
    """Without the header of `save_pretrained`, which published files do not have."""
    velo = paths(canonical(whole_velo))
    copies = files.velo_mlp_tensors(whole_velo)
    sizes = []
    for part, arrays in zip(
        layout.PYTORCH,
        (paths({"nn": files.small_fc()}), paths(files.celo2()), velo, velo),
        strict=True,
    ):
        tensors = layout.to_published(arrays, part)
        tensors |= {k: v for k, v in copies.items() if k in part.ignored}
        sizes.append(len(container.pack_safetensors(tensors)))
    assert sizes == [10_096, 2_596, 9_119_908, 164_296]


def paths(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): x for p, x in leaves}


ROUND_TRIPS = {
    "small_fc": lopt.small_fc("sp", hidden_size=4, exp_multiplier=0.5),
    "celo2": lopt.celo2(3e-4, orthogonalize=False, clip_norm=2.0),
}


@pytest.mark.parametrize("end", [".npz", ".safetensors"])
@pytest.mark.parametrize("kind", ROUND_TRIPS)
def test_round_trips_keep_the_architecture(tmp_path, kind, end):
    architecture = ROUND_TRIPS[kind]
    theta = jax.device_get(architecture.init(jax.random.key(0)))
    path = tmp_path / f"mine{end}"
    lopt.save_pretrained(path, theta, {"architecture": architecture, "seed": 3})
    found, metadata = lopt.load_pretrained(path)
    assert_same(found, theta)
    assert (metadata["kind"], metadata["seed"]) == (kind, 3)
    assert metadata["assumed"] == []
    lopt.save_pretrained(tmp_path / "again.npz", found, metadata)
    again = lopt.load_pretrained(tmp_path / "again.npz").metadata
    assert again["architecture"] == metadata["architecture"]
    assert {x.name for x in tmp_path.iterdir()} == {path.name, "again.npz"}


def test_velo_is_written_as_two_files(tmp_path):
    path = tmp_path / "made" / "velo"
    theta = canonical(files.velo())
    lopt.save_pretrained(path, theta, {"seed": 3})
    written = sorted(str(p.relative_to(path)) for p in path.rglob("*.*"))
    assert written == ["VeLO_MLP/model.safetensors", "VeLO_RNN/model.safetensors"]
    found, metadata = lopt.load_pretrained(path)
    assert_same(found, theta)
    assert metadata["seed"] == 3
    lopt.save_pretrained(path, jax.tree.map(lambda x: 2 * x, theta))
    (path / written[0]).rename(tmp_path / "mlp")
    lopt.save_pretrained(path, theta)
    (tmp_path / "mlp").rename(path / written[0])
    with pytest.raises(ValueError, match="are of two saves"):
        lopt.load_pretrained(path)


def test_formats_that_do_not_fit(tmp_path):
    velo, celo = canonical(files.velo()), canonical(files.celo(8))
    small = jax.device_get(lopt.small_fc(hidden_size=4).init(jax.random.key(0)))
    for theta, name, message in (
        (velo, "x.safetensors", "for velo it must .* be a folder, with no such end"),
        (celo, "x.safetensors", r"for celo it must end in '.npz', '.state' or '.m"),
        (celo, "x", r"for celo it must end in '.npz', '.state' or '.m"),
        (small, "x", "for small_fc it must end in '.npz', '.safetensors'"),
        (small, "x.pt", r"must end in '\.npz', '\.safetensors'"),
        ({"x": np.ones(3)}, "x.state", "cannot be saved .* knows: its arrays are 'x'"),
        ({"nn": small["nn"]}, "x.state", "'momentum_decays' is missing"),
    ):
        with pytest.raises(ValueError, match=message):
            lopt.save_pretrained(tmp_path / name, theta)
    other = {"architecture": lopt.small_fc(hidden_size=4, exp_multiplier=0.5)}
    with pytest.raises(ValueError, match=r"without a place for SmallFC\(.*=0\.5"):
        lopt.save_pretrained(tmp_path / "x.state", small, other)
    with pytest.raises(ValueError, match="'gen_id' goes with 'step'"):
        lopt.save_pretrained(tmp_path / "x.state", small, {"step": 1})
    assert not list(tmp_path.iterdir())
